"""Files that are written whole or not at all."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from upath import UPath

from regrow.errors import RegrowError
from regrow.files.places import Place, reaching


def write_atomically(path: Place, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file so that a reader sees the old one or the new one.

    In a folder it is a temporary file that is renamed. Into an object store it is sent from a
    temporary file of this machine.

    Raises `RegrowError` if the place is not writable or the disk is full; an existing file then
    stays as it is.
    """
    with reaching(path, "write"):
        if isinstance(path, Path):
            temporary = _written_beside(path, write)
            try:
                _replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            return
        with tempfile.TemporaryDirectory(prefix="regrow-") as folder:
            whole = Path(folder) / "whole"
            with whole.open("wb") as file:
                write(file)
            path.fs.put_file(str(whole), path.path)


def create_atomically(path: Place, content: bytes) -> bool:
    """Writes a file only if there is none; whether it did. Of several writers, one does."""
    with reaching(path, "write"):
        try:
            if isinstance(path, Path):
                _create(path, content)
            else:
                path.fs.pipe_file(path.path, content, mode="create")
        except FileExistsError:
            return False
        return True


def _create(path: Path, content: bytes) -> None:
    """Raises `FileExistsError` if the file exists; else it appears with its content, at once."""
    temporary = _written_beside(path, lambda file: file.write(content))
    try:
        # A link is made or not, also on NFS, and unlike a rename never replaces anything.
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with path.open("xb") as file:
            file.write(content)
    finally:
        temporary.unlink(missing_ok=True)


def _written_beside(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """A temporary file in the folder of `path`, written and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _replace(source: Path, target: Path) -> None:
    """Renames; on Windows that fails while another process reads the target, so it retries."""
    for wait in (0.01, 0.1, 1.0) if sys.platform == "win32" else ():
        try:
            os.replace(source, target)
            return
        except PermissionError:
            time.sleep(wait)
    os.replace(source, target)


def keep_previous(path: Place, previous: Place) -> None:
    """Keeps a file, if there is one, under another name as well, ahead of writing it again."""
    with reaching(previous, "write"):
        if isinstance(path, Path) and isinstance(previous, Path):
            if path.is_file():
                previous.unlink(missing_ok=True)
                try:
                    os.link(path, previous)
                except OSError:  # a file system without links
                    shutil.copyfile(path, previous)
        elif isinstance(path, UPath) and isinstance(previous, UPath) and path.is_file():
            path.fs.copy(path.path, previous.path)


def delete(path: Place) -> None:
    """Deletes a file, if it is there."""
    with reaching(path, "delete"), contextlib.suppress(FileNotFoundError):
        path.unlink()


def write_json(path: Place, content: Any) -> None:
    """Writes indented JSON atomically, with non-finite numbers as null."""
    write_atomically(path, lambda file: file.write(as_json(content)))


def as_json(content: Any) -> bytes:
    """Indented JSON, with non-finite numbers as null."""
    content = _finite(content)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # the name of a file that is not valid UTF-8
        return json.dumps(content, indent=2, allow_nan=False).encode() + b"\n"


def sealed(content: dict[str, Any]) -> bytes:
    """JSON with a checksum of its content, for `read_sealed`."""
    return as_json({**content, _SEAL: _checksum(content)})


def read_sealed(path: Place) -> Any:
    """The content of a JSON file; `RegrowError` if it is missing, damaged or was altered.

    Files of earlier versions have no checksum.
    """
    content = read_json(path)
    if isinstance(content, dict) and _SEAL in content:
        held = content.pop(_SEAL)
        if held != _checksum(content):
            raise damaged(path, "it does not match its checksum")
    elif isinstance(content, dict) and any(map(_is_checksum, content.values())):
        raise damaged(path, "its checksum has another name")
    return content


_SEAL = "sha256"


def _is_checksum(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


def _checksum(content: dict[str, Any]) -> str:
    text = json.dumps(_finite(content), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: Place) -> Any:
    """The content of a JSON file; raises `RegrowError` if it is missing or damaged."""
    with reaching(path, "read"):
        try:
            return json.loads(path.read_text("utf-8"))
        except FileNotFoundError as error:
            raise RegrowError(f"there is no {path}") from error
        except (ValueError, RecursionError) as error:
            raise damaged(path, str(error)) from error


def _finite(content: Any) -> Any:
    """`content` as valid JSON: plain numbers, with None for NaN and infinity."""
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, np.generic):
        content = content.item()
    if isinstance(content, float) and not np.isfinite(content):
        return None
    return content


def damaged(path: Place, why: str) -> RegrowError:
    """The error for a file that was damaged after it was written."""
    why = " ".join(why.split()) or "it cannot be read"
    return DamagedError(f"{path} is cut short or altered ({why}); restore or delete it")


class DamagedError(RegrowError):
    """A file was damaged after it was written."""

    @property
    def brief(self) -> str:
        """What is wrong, without what to do about it."""
        return str(self).partition("; restore")[0]

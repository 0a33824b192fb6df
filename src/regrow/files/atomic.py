"""Files that are written whole or not at all."""

import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from regrow.errors import RegrowError


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a temporary file and renames it, so a reader sees the old file or the new one.

    Raises `RegrowError` if the folder is not writable or the disk is full; an existing file then
    stays as it is.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
        try:
            with temporary.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            _replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RegrowError(f"cannot write {path}: {error.strerror or error}") from error


def _replace(source: Path, target: Path) -> None:
    """Renames; on Windows that fails while another process reads the target, so it retries."""
    for wait in (0.01, 0.1, 1.0) if sys.platform == "win32" else ():
        try:
            os.replace(source, target)
            return
        except PermissionError:
            time.sleep(wait)
    os.replace(source, target)


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON atomically, with non-finite numbers as null."""
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, lambda file: file.write(text.encode() + b"\n"))


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises `RegrowError` if it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError as error:
        raise RegrowError(f"there is no {path}") from error
    except PermissionError:
        raise
    except (OSError, ValueError, RecursionError) as error:
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


def damaged(path: Path, why: str) -> RegrowError:
    """The error for a file that was damaged after it was written."""
    return RegrowError(f"{path} is cut short or altered ({why}); restore or delete it")

"""Folders: claimed by one run, and for as long as it works by one process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regrow.errors import RegrowError, require
from regrow.files.atomic import damaged, read_json, write_json
from regrow.files.formats import FORMAT as FOLDER_FORMAT
from regrow.files.formats import refused
from regrow.files.locks import LOCK, alone


@contextmanager
def claimed(folder: Path, config: dict[str, Any]) -> Iterator[None]:
    """Makes a folder this run's own, and for the length of the block this process's alone.

    Raises `RegrowError` where it holds something else, or another process is at work in it: two of
    them would write over what the other has done.
    """
    config = {"format": FOLDER_FORMAT, **config}
    _refuse_others(folder, config)  # of what is not a run's, nothing is touched
    with alone(folder):
        _refuse_others(folder, config)  # another process may just have claimed it
        path = folder / "config.json"
        if not path.is_file():
            write_json(path, config)
        yield


def _refuse_others(folder: Path, config: dict[str, Any]) -> None:
    """Raises `RegrowError` where a folder holds anything but this run.

    Or what another version began in which the texts of a configuration mean something else.
    """
    path = folder / "config.json"
    if path.is_file():
        held = read_json(path)
        if not isinstance(held, dict):
            raise damaged(path, "it is no configuration")
        if held.get("format", 1) != FOLDER_FORMAT:
            raise refused(f"the run in {folder}", held.get("format", 1))
        for name in sorted(config.keys() | held.keys()):
            ours, theirs = config.get(name), held.get(name)
            require(
                ours == theirs,
                f"{folder} holds another run: its {name} is {theirs!r}, not {ours!r}; "
                "choose another --out or delete it",
            )
        return
    if folder.exists() and not folder.is_dir():
        raise RegrowError(f"{folder} is a file; --out must be a folder")
    require(is_empty(folder), f"{folder} is not empty and holds no run; choose another --out")


def is_empty(folder: Path) -> bool:
    """Whether a folder is not there, or holds nothing but what is left of a write or a lock."""
    held = folder.iterdir() if folder.is_dir() else ()
    return all(path.suffix == ".tmp" or path.name == LOCK for path in held)


def kind_of(folder: Path) -> str:
    """Whether a folder is that of a "training" or a "diagnosis"; of anything else ""."""
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else {}
    return str(config.get("kind", "")) if isinstance(config, dict) else ""

"""Folders: each belongs to one run, and one process at a time works in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from regrow.errors import RegrowError, require
from regrow.files.atomic import DamagedError, damaged, read_sealed, sealed, write_atomically
from regrow.files.formats import FORMAT as FOLDER_FORMAT
from regrow.files.formats import refused
from regrow.files.leases import LOCK, alone
from regrow.files.places import Place, listed


@contextmanager
def claimed(folder: Place, config: dict[str, Any]) -> Iterator[None]:
    """Claims a folder for this run, and for this process until the block ends.

    Raises `RegrowError` if it contains something else, or if another process is working in it: the
    two would overwrite each other's files.
    """
    config = {"format": FOLDER_FORMAT, **config}
    _refuse_others(folder, config)  # before anything is written, so nothing foreign is changed
    with alone(folder):
        _refuse_others(folder, config)  # another process may have claimed it just now
        path = folder / "config.json"
        if not path.is_file():
            write_atomically(path, lambda file: file.write(sealed(config)))
        yield


def _refuse_others(folder: Place, config: dict[str, Any]) -> None:
    """Raises `RegrowError` if a folder contains anything but this run.

    Also if the run is of another version, in which texts of a configuration have another meaning.
    """
    path = folder / "config.json"
    if path.is_file():
        try:
            held = read_sealed(path)
            if not isinstance(held, dict):
                raise damaged(path, "it is no configuration")
        except DamagedError as error:  # without it nobody knows what the rest is of
            raise DamagedError(f"{error.brief}; restore it, or choose another --out") from error
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


def is_empty(folder: Place) -> bool:
    """Whether a folder is missing, or contains only leftovers of a write or a lease."""
    return all(path.suffix == ".tmp" or path.name.startswith(LOCK) for path in listed(folder))


def kind_of(folder: Place) -> str:
    """The kind of run in a folder, "training" or "diagnosis"; "" for anything else."""
    path = folder / "config.json"
    config = read_sealed(path) if path.is_file() else {}
    return str(config.get("kind", "")) if isinstance(config, dict) else ""

"""Places: folders of this machine, or URLs of an object store.

A place is a `pathlib.Path`, or for `s3://…` and `gs://…` a `UPath`, which does the same through
fsspec. Object stores have no locks and no renames: a file appears whole when it is put, and it can
be put on the condition that there is none of that name. That is all that regrow asks of them.
"""

import errno
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from urllib.request import url2pathname

from upath import UPath

from regrow.errors import RegrowError, in_a_line, require, require_package

Place: TypeAlias = Path | UPath

_PACKAGES = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gs")}
"""The package of a scheme, and the extra that installs it. Both can put a file if it is absent."""


def place(text: str | Place) -> Place:
    """A folder or a file from its path or URL; `RegrowError` for a URL that cannot be used."""
    if not isinstance(text, str):
        return text
    scheme, mark, rest = text.partition("://")
    if not mark:
        return Path(text)
    if scheme == "file":
        return Path(url2pathname(rest))
    require(
        scheme in _PACKAGES,
        f"cannot work in '{text}': {scheme}:// is none of file://, s3://, gs://",
    )
    require(bool(rest.strip("/")), f"'{text}' names no bucket; it must be as {scheme}://bucket/run")
    package, extra = _PACKAGES[scheme]
    require_package(package, f"{scheme}://", extra)
    # Listings are not kept: other machines write there, too.
    try:
        return UPath(text.rstrip("/"), use_listings_cache=False)
    except ValueError as error:
        raise RegrowError(
            f"'{text}' is no URL ({in_a_line(error)}); it must be as {scheme}://bucket/run"
        ) from error


def is_url(path: Place) -> bool:
    """Whether a place is in an object store."""
    return not isinstance(path, Path)


_FULL = "; earlier files are kept: free some space, then run the same command again"
_GONE = "; earlier files are kept: when the place is back, run the same command again"
_HINTS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FULL),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN), _GONE),
}


@contextmanager
def reaching(path: Place, verb: str) -> Iterator[None]:
    """Turns what goes wrong on the way to a place into a `RegrowError` of one line."""
    try:
        yield
    except RegrowError:
        raise
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "") if verb == "write" else ""
        raise RegrowError(f"cannot {verb} {path}: {error.strerror or error}{hint}") from error
    except Exception as error:  # each store has exceptions of its own
        if not is_url(path):
            raise
        raise RegrowError(f"cannot {verb} {path}: {in_a_line(error)}") from error


@contextmanager
def stores_told() -> Iterator[None]:
    """Turns the exceptions of object stores, wherever one is asked, into a `RegrowError`."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _STORES:
            raise
        raise RegrowError(f"an object store cannot be used: {in_a_line(error)}") from error


_STORES = {"botocore", "aiobotocore", "aiohttp", "gcsfs", "google"}


@contextmanager
def local(path: Place) -> Iterator[Path]:
    """A file of this machine with the content of `path`: itself, or a copy until the block ends."""
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="regrow-") as folder:
        copy = Path(folder) / path.name
        with reaching(path, "read"):
            path.fs.get_file(path.path, str(copy))
        yield copy


def listed(folder: Place, suffix: str = "") -> list[Place]:
    """What is in a folder, sorted by name; nothing if there is no such folder."""
    with reaching(folder, "read"):
        try:
            return sorted(
                (one for one in folder.iterdir() if one.name.endswith(suffix)),
                key=lambda one: one.name,
            )
        except (FileNotFoundError, NotADirectoryError):
            return []


def contents(paths: Iterable[Place]) -> Iterator[tuple[Place, bytes | OSError]]:
    """(path, its bytes, or why they cannot be read) of many files; of a store, many at once."""
    paths = list(paths)
    stored = [path for path in paths if not isinstance(path, Path)]
    if stored:
        with reaching(stored[0].parent, "read"):
            found: Any = stored[0].fs.cat([path.path for path in stored], on_error="return")
        for path in stored:
            held = found[path.path]
            yield path, held if isinstance(held, bytes) else OSError(str(held))
        return
    for path in paths:
        try:
            yield path, path.read_bytes()
        except OSError as error:
            yield path, error

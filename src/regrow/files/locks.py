"""A lock on a file, held by one process at a time and released when that process ends.

The lock is one of the operating system (`flock`, on Windows `LockFileEx`, through `filelock`). So
it is released however its process ends, and the file that stays behind blocks nobody. The file is
opened for writing, and by nothing else, because of NFS: there the lock becomes a POSIX lock, which
needs write access, and which is released when its process closes any other descriptor of the file.
"""

import errno
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import filelock

from regrow.errors import RegrowError, RegrowWarning

LOCK = ".lock"
"""The file name of a folder's lock."""

LOOK_EVERY = 0.2  # seconds

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


class Hold(NamedTuple):
    """A lock that this process holds; None if the file system does not support locks."""

    lock: filelock.BaseFileLock | None

    def release(self) -> None:
        """Releases the lock."""
        if self.lock is not None:
            self.lock.release()


def take(path: Path) -> Hold | None:
    """Takes the lock of a file, which is created if needed; None if another process holds it.

    Raises `RegrowError` if the file can be neither created nor opened for writing.
    """
    # A soft lock, a file that is there or not, would outlive a process that was killed.
    if filelock.FileLock is filelock.SoftFileLock:  # this Python has no other locks
        return Hold(None)
    lock = filelock.FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return None
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return Hold(None)
        raise RegrowError(f"cannot write {path.parent}: {error.strerror or error}") from error
    return Hold(lock)


def is_taken(path: Path) -> bool | None:
    """Whether a process holds the lock of a file; None if that cannot be determined."""
    if not path.is_file():
        return False
    try:
        hold = take(path)
    except RegrowError:
        return None  # it cannot be opened for writing
    if hold is None:
        return True
    hold.release()
    return None if hold.lock is None else False


@contextmanager
def waited_for(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[Hold]:
    """Holds the lock of a file; calls `waiting` repeatedly until it is free."""
    while (hold := take(path)) is None:
        waiting()
        time.sleep(LOOK_EVERY)
    try:
        yield hold
    finally:
        hold.release()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Locks a folder for this process; `RegrowError` if another process is working in it.

    If the file system does not support locks, it gives a `RegrowWarning` and continues.
    """
    hold = take(folder / LOCK)
    if hold is None:
        raise RegrowError(
            f"another process is at work in {folder}; wait for it, or choose another --out"
        )
    if hold.lock is None:
        warn_of(folder)
    try:
        yield
    finally:
        hold.release()


def warn_of(folder: Path) -> None:
    """Warns that nothing stops two processes from working in a folder."""
    warnings.warn(
        f"the file system of {folder} has no locks; see to it that no other process works there",
        RegrowWarning,
        stacklevel=2,
    )

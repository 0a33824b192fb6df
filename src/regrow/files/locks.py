"""One process at a time: a file that stays locked until the process that holds it ends.

The lock is one of the operating system (`flock`, on Windows `LockFileEx`, by way of `filelock`), so
it ends with its process however that ends, and the file that is left behind blocks nobody. The file
is opened for writing, and by nothing else: NFS turns the lock into one of POSIX, which needs the
first, and which ends when its process closes any other descriptor of the file.
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
"""What the lock of a folder is called."""

LOOK_EVERY = 0.2  # seconds

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


class Hold(NamedTuple):
    """A lock that this process has; None where the file system has no locks to give."""

    lock: filelock.BaseFileLock | None

    def release(self) -> None:
        """Gives it back."""
        if self.lock is not None:
            self.lock.release()


def take(path: Path) -> Hold | None:
    """The lock of a file, or None where another process has it; the file is made if need be.

    Raises `RegrowError` where it can be neither made nor opened for writing.
    """
    # A soft lock, a file that is there or not, would outlive a process that was killed.
    if filelock.FileLock is filelock.SoftFileLock:  # Python itself has no others here
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
    """Whether some process has the lock of a file; None where that cannot be found out."""
    if not path.is_file():
        return False
    try:
        hold = take(path)
    except RegrowError:
        return None  # it may not be opened for writing
    if hold is None:
        return True
    hold.release()
    return None if hold.lock is None else False


@contextmanager
def waited_for(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[Hold]:
    """Has the lock of a file; until it is free `waiting` is called again and again."""
    while (hold := take(path)) is None:
        waiting()
        time.sleep(LOOK_EVERY)
    try:
        yield hold
    finally:
        hold.release()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Has a folder to itself; `RegrowError` where another process is at work in it.

    Where the file system has no locks, a `RegrowWarning` says so and the work goes on.
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
    """Warns that nothing keeps two processes apart in a folder."""
    warnings.warn(
        f"the file system of {folder} has no locks; see to it that no other process works there",
        RegrowWarning,
        stacklevel=2,
    )

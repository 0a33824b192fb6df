"""Detects scripts without an `if __name__ == "__main__":` guard.

A worker process imports its parent's script when it starts. Code outside the guard then also runs
in the worker, up to the point where the worker would start workers of its own.
"""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager

UNGUARDED = 83
"""The exit code of a worker that reached the code which starts its parent's work."""

THREADS = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What XLA and LAPACK read the number of their threads from."""

_MARK = "REGROW_STARTS_WORKERS"


@contextmanager
def starting_workers() -> Iterator[None]:
    """Marks processes that are started within as workers of this one, of one thread each.

    LAPACK reads the number when it is loaded, which may be before a worker begins.
    """
    own = {_MARK: str(os.getpid()), **dict.fromkeys(THREADS, "1")}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def leave_if_unguarded() -> None:
    """Exits if this process is a worker of regrow that is still importing its parent's script.

    It exits at once and without a message. The parent knows the exit code, and an exception could
    make the script report an error of its own.
    """
    reading = getattr(multiprocessing.current_process(), "_inheriting", False)
    if reading and os.environ.get(_MARK) == str(os.getppid()):
        os._exit(UNGUARDED)

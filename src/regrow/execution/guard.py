"""The guard of a script: a worker process that starts reads the script of its parent once more.

Whatever stands there outside of `if __name__ == "__main__":` is then done in the worker, too, up to
where it would start workers of its own.
"""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager

UNGUARDED = 83
"""The exit code of a worker that came to where it would have done its parent's work."""

_MARK = "REGROW_STARTS_WORKERS"


@contextmanager
def starting_workers() -> Iterator[None]:
    """Processes that are started within know whose they are."""
    os.environ[_MARK] = str(os.getpid())
    try:
        yield
    finally:
        os.environ.pop(_MARK, None)


def leave_if_unguarded() -> None:
    """Ends this process if it is a worker of regrow's that is still reading its parent's script.

    At once, and without a word: the script would tell its user of an error that is none, and the
    parent knows the exit code.
    """
    reading = getattr(multiprocessing.current_process(), "_inheriting", False)
    if reading and os.environ.get(_MARK) == str(os.getppid()):
        os._exit(UNGUARDED)

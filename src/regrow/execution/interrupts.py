"""Ctrl-C and SIGTERM: the first stops the work where it can be saved, the second ends the process.

Files are written whole or not at all, so nothing is lost either way.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from regrow.errors import RegrowError
from regrow.types import Report

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPED = "stopped; everything so far is saved: run the same command again to continue"
AT_ONCE = "stopped at once; what was saved before is kept, run the same command again"


class StoppedError(RegrowError):
    """The user asked for a stop; what was done is kept."""


def answer_signals(*handlers: Any) -> list[Any]:
    """Installs a handler of SIGINT and one of SIGTERM, or one for both; those there were before."""
    both = handlers * 2 if len(handlers) == 1 else handlers
    return [signal.signal(*pair) for pair in zip(SIGNALS, both, strict=True)]


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Whether a stop was asked for; asking twice raises KeyboardInterrupt, or ends the command."""
    asked = False  # not an Event: the handler may interrupt a call that holds its lock
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread may answer signals
        return

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            again = before[0] if callable(before[0]) else signal.default_int_handler
            again(number, frame)
        asked = True

    before = answer_signals(ask)
    try:
        yield lambda: asked
    finally:
        answer_signals(*before)


def end_at_once(number: int, frame: FrameType | None) -> None:
    """Ends the process with exit code 130 and a line that says so; its workers end with it."""
    del number, frame
    # Not `print`: it could be at work already. A progress bar's line ends; its cursor comes back.
    cursor = "\x1b[?25h" if sys.stderr is not None and sys.stderr.isatty() else ""
    os.write(2, f"{cursor}\nregrow: {AT_ONCE}\n".encode())
    os._exit(130)


def stopping(report: Report, asked: Callable[[], bool], text: str = STOPPED) -> Report:
    """`report`, but it raises StoppedError, which says `text`, once a stop was asked for."""

    def reported(phase: str, env_steps: int) -> None:
        report(phase, env_steps)
        if asked():
            raise StoppedError(text)

    return reported

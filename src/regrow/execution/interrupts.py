"""Ctrl-C: once, the work comes to where it can be saved, and stops there; twice, at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from regrow.errors import RegrowError
from regrow.types import Report

STOPPED = "stopped; everything done so far is kept"


class StoppedError(RegrowError):
    """The user asked for a stop; what was done is kept."""


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C asked for a stop; a second Ctrl-C raises KeyboardInterrupt as usual."""
    asked = False  # no event: its lock could be held by the very call that the handler interrupts

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        del number, frame
        if asked:
            raise KeyboardInterrupt
        asked = True

    with _answered_by(ask):
        yield lambda: asked


def stopping(report: Report, asked: Callable[[], bool]) -> Report:
    """`report`, but it raises StoppedError once a stop was asked for."""

    def reported(phase: str, env_steps: int) -> None:
        report(phase, env_steps)
        if asked():
            raise StoppedError(STOPPED)

    return reported


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C waits for the end of the block."""
    pressed = False

    def wait(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        del number, frame
        pressed = True

    try:
        with _answered_by(wait):
            yield
    finally:
        if pressed:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def _answered_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

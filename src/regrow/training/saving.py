"""Checkpoints while training goes on: copied at once, written in a thread.

Training waits only for the copy. What the copy and the writing cost sets how soon the next is due,
so that they take at most `SHARE` of the time, even on a single core.
"""

import os
import threading
import time
from collections.abc import Callable

from regrow.errors import RegrowError, require

SAVE_EVERY = "REGROW_SAVE_EVERY"
"""The environment variable with the seconds between checkpoints, by default 60; or more if they
are costly."""

KEEP_TRANSITIONS = "REGROW_KEEP_TRANSITIONS"
"""The environment variable with the transitions that a checkpoint of unfinished work has at most.

By default all.
"""

SHARE = 0.01  # the largest share of the time that they may take


class Saves:
    """Writes one checkpoint at a time in a thread; the next call raises what went wrong there."""

    def __init__(self) -> None:
        self.every = _save_every()
        self.cost = 0.0  # seconds of the last one: training waited, and the thread was at work
        self.held_up = 0.0  # seconds that training has waited in all
        self._last = time.monotonic()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def due(self) -> bool:
        """Whether it is time for the next, and the last is written."""
        self._raise()
        busy = self._thread is not None and self._thread.is_alive()
        waited = time.monotonic() - self._last
        return not busy and waited > self.every and waited > self.cost / SHARE

    def begin(self, copied: Callable[[], Callable[[], None]]) -> None:
        """Calls `copied`, which returns what writes the copy; that is called in a thread."""
        self.finish()
        began = time.monotonic()
        write = copied()
        waited = time.monotonic() - began
        self.held_up += waited
        self._thread = threading.Thread(target=self._write, args=(write, waited), daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Waits until the last one is written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._raise()

    def _write(self, write: Callable[[], None], waited: float) -> None:
        began = time.thread_time()
        try:
            write()
        except BaseException as error:
            self._error = error
        self.cost = waited + time.thread_time() - began
        self._last = time.monotonic()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


def _save_every() -> float:
    text = os.environ.get(SAVE_EVERY, "60")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise RegrowError(f"{SAVE_EVERY} is '{text}'; it must be a number of seconds, 0 or more")
    return seconds


def kept_transitions() -> int | None:
    """The setting; None where it is not set. Raises `RegrowError` if it is no whole number."""
    text = os.environ.get(KEEP_TRANSITIONS)
    if not text:
        return None
    right = text.isdecimal() and int(text) >= 1
    require(
        right,
        f"{KEEP_TRANSITIONS} is '{text}'; it must be a whole number of transitions, at least 1",
    )
    return int(text)

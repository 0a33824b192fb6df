"""The progress of a piece of work, in a small file that other processes can read.

FOLDER/<name>.progress.json    phase, done, of, earlier (env steps); began, written (seconds)
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from regrow.errors import RegrowError
from regrow.files.atomic import delete, write_json
from regrow.files.places import Place, is_url
from regrow.types import Report

TELL_EVERY = 2.0  # seconds; in an object store, where each is paid for, TELL_STORE_EVERY
TELL_STORE_EVERY = 15.0


class Progress(NamedTuple):
    """The last reported progress, in env steps and seconds."""

    phase: str
    done: int
    of: int
    rate: float  # env steps per second of this session
    silent: float  # seconds since the last report


@contextmanager
def report_progress(path: Place, env_steps: int, report: Report) -> Iterator[Report]:
    """`report`, which also keeps a progress file; the file is removed at the end."""
    began = time.time()
    done, earlier, said_at = 0, 0, 0.0
    every = TELL_STORE_EVERY if is_url(path) else TELL_EVERY

    def tell(phase: str, steps: int) -> None:
        nonlocal done, earlier, said_at
        done += steps
        if said_at == 0.0:
            earlier = done  # the first report includes the work of earlier sessions
        now = time.time()
        if now - said_at > every:
            said_at = now
            content = {"phase": phase, "done": done, "of": env_steps, "earlier": earlier}
            write_json(path, {**content, "began": began, "written": now})
        report(phase, steps)

    try:
        yield tell
    finally:
        with suppress(RegrowError):  # it is for watching only, and there may be an error already
            delete(path)


def read_progress(path: Place) -> Progress | None:
    """The last reported progress; None if there is none, or while it is being written."""
    try:
        told = json.loads(path.read_text("utf-8"))
        done, took = int(told["done"]), told["written"] - told["began"]
        return Progress(
            phase=str(told["phase"]),
            done=done,
            of=int(told["of"]),
            rate=(done - told["earlier"]) / took if took > 0 else 0.0,
            silent=max(0.0, time.time() - told["written"]),
        )
    except Exception:  # absent, half written by an earlier version, or out of reach
        return None

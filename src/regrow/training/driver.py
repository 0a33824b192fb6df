"""The one loop that trains a Subject to an env step: in chunks, saved on the way.

Who drives says with a `Record` what is looked at on the way, and where it is kept. Where something
stops the work between two chunks, all of it is saved; where it happens within a chunk, all up to
the last save, a minute ago at most.
"""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from regrow.training.live import Live, Logged
from regrow.training.pacing import ChunkPacer
from regrow.training.schedule import Check, Rule, Watched, followed, next_check
from regrow.types import Log

SAVE_EVERY = 60.0  # seconds between saves of long work


if TYPE_CHECKING:

    class Driven(Watched, Logged, Protocol):
        """What can be driven."""

        def advance(self, env_steps: int) -> tuple[Any, Log]:
            """(what it is so many env steps later, what every env step reported)."""
            ...

else:
    # What a protocol has is read when it is checked, in Python 3.11, and a Run that was advanced
    # refuses to be read: at run time anything will do.
    Driven = Any


S = TypeVar("S", bound=Driven)
R = TypeVar("R", bound=Driven, contravariant=True)


@runtime_checkable
class Record(Protocol[R]):
    """What is kept of the way."""

    def look(self, subject: R, /) -> None:
        """Sees to what is due at this env step, unless that was done."""
        ...

    def next_look(self, now: int, until: int) -> int:
        """How far the way may go before something is due again; `until` at most."""
        ...

    def add(self, subject: R, log: Log, /) -> None:
        """A chunk is done, which reported `log`."""
        ...

    def recent_return(self) -> float:
        """The mean return of the last episodes; NaN before the first."""
        ...

    def save(self, subject: R, checks: Sequence[Check], /) -> None:
        """Keeps all there is."""
        ...


def drive(
    subject: S,
    until: int,
    record: Record[S],
    *,
    round: int,  # noqa: A002  (env steps; the field's word)
    rules: Sequence[Rule] = (),
    checks: Sequence[Check] = (),
    live: Live,
    report: Callable[[int], None],
) -> tuple[S, list[Check]]:
    """(the Subject at env step `until`, every look of every rule); saved at the end.

    `checks`: the looks so far. `report(env_steps)` hears of every chunk, and may raise to stop.
    """
    done, pacer, between = list(checks), ChunkPacer(round), True
    saved = time.monotonic()
    try:
        while (now := subject.env_steps) < until:
            record.look(subject)
            subject, done = followed(subject, rules, done, record.recent_return())
            end = record.next_look(now, min(now + pacer.next(), until))
            between = False
            subject, log = subject.advance(next_check(rules, now, end) - now)
            between = True
            record.add(subject, log)
            live.advanced(subject, log)
            if time.monotonic() - saved > SAVE_EVERY and subject.env_steps < until:
                live.flush(subject)
                record.save(subject, done)
                saved = time.monotonic()
            report(len(log.reward))
        record.look(subject)
    finally:
        if between:
            live.flush(subject)
            record.save(subject, done)
    return subject, done

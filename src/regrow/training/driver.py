"""The loop that trains a Subject to an env step, in chunks, with regular saves.

The caller passes a `Record`, which decides what is measured and where results are stored. If the
loop is stopped between two chunks, everything is saved. If it is stopped within a chunk, the last
save remains, at most about a minute old.
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
        """What `drive` can train: a Run, or another Subject."""

        def advance(self, env_steps: int) -> tuple[Any, Log]:
            """(the Subject `env_steps` later, the log of those env steps)."""
            ...

else:
    # Python 3.11 reads a protocol's properties when it checks an instance, and those of a used-up
    # Run raise. So at run time any object is accepted.
    Driven = Any


S = TypeVar("S", bound=Driven)
R = TypeVar("R", bound=Driven, contravariant=True)


@runtime_checkable
class Record(Protocol[R]):
    """Measures a Subject while it trains, and stores the results."""

    def look(self, subject: R, /) -> None:
        """Does what is due at this env step, unless it is already done."""
        ...

    def next_look(self, now: int, until: int) -> int:
        """The env step at which something is due next, at most `until`."""
        ...

    def add(self, subject: R, log: Log, /) -> None:
        """Records a finished chunk and its log."""
        ...

    def recent_return(self) -> float:
        """The mean return of the last episodes; NaN before the first."""
        ...

    def save(self, subject: R, checks: Sequence[Check], /) -> None:
        """Saves everything."""
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
    """Trains to env step `until` and saves: (the Subject, all checks of all rules).

    `checks`: the checks so far. `report(env_steps)` is called after every chunk. It may raise an
    exception to stop the loop.
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

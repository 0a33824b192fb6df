"""The loop that trains a Subject to an env step, in chunks, with regular saves.

The caller passes a `Record`, which decides what is measured and where results are stored. If the
loop is stopped between two chunks, everything is saved. If it is stopped within a chunk, the last
checkpoint remains (`regrow.training.saving` says how old it may be).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from regrow.training.live import Live, Logged
from regrow.training.pacing import ChunkPacer
from regrow.training.saving import Saves
from regrow.training.schedule import Check, Rule, Watched, followed, next_check
from regrow.types import Log

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

    def copied(self, subject: R, checks: Sequence[Check], /) -> Callable[[], None]:
        """A copy of everything, as a function that writes it; training goes on meanwhile."""
        ...

    def reached(self, subject: R, checks: Sequence[Check], /) -> None:
        """Does what is due at the end."""
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
    """Trains to env step `until`: (the Subject, all checks of all rules).

    `checks`: the checks so far. `report(env_steps)` is called after every chunk. It may raise an
    exception to stop the loop.
    """
    done, pacer, saves, between = list(checks), ChunkPacer(round), Saves(), True

    def save() -> None:
        live.flush(subject)
        saves.begin(lambda: record.copied(subject, done))

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
            if subject.env_steps < until and saves.due:
                save()
            report(len(log.reward))
        record.look(subject)
    except BaseException:
        if between:
            save()
        saves.finish()
        raise
    live.flush(subject)
    saves.finish()
    record.reached(subject, done)
    return subject, done

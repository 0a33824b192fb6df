"""What a run is doing, told to sinks about once a second while it trains.

The names are those of the field; the x axis is env steps.

    rollout/episode_return      mean of the episodes that ended since it was told last
    rollout/episode_length      env steps of one environment; of episodes seen from their beginning
    train/value                 mean of what the agent predicted for the actions that it took
    train/loss/<learner>        on one batch, with the agent as it is (`Run.losses`); less often
                                where it would take more than a hundredth of the time
    time/env_steps_per_second   since it was told last
    probes/<probe>/<part>       wherever probes are measured; probes_fresh/… of a fresh network
    event                       an intervention that was carried out

Nothing here changes the run, and where no sink asks nothing is computed. A log is no result: where
a sink fails that is said in a sentence, and training goes on without it.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from regrow.records.sinks import SINKS, About, Sink, event_name
from regrow.types import Event, Log

EVERY = 1.0  # seconds
SHARE = 0.01  # of the time, at most, for losses


if TYPE_CHECKING:

    class Logged(Protocol):
        """What can be logged: a Run, or another Subject."""

        @property
        def env_steps(self) -> int:
            """Env steps taken so far."""
            ...

        @property
        def num_envs(self) -> int:
            """How many environments take turns in its logs."""
            ...

        @property
        def history(self) -> tuple[Event, ...]:
            """The interventions that were carried out."""
            ...

        @property
        def restarts(self) -> tuple[int, ...]:
            """Env steps at which new episodes were begun."""
            ...

        @property
        def used_up(self) -> bool:
            """Whether it was advanced, so that its memory has passed on."""
            ...

        def losses(self) -> dict[str, float]:
            """The losses of now, by name; none where there are none."""
            ...

else:
    # What a protocol has is read when it is checked, in Python 3.11, and a Run that was advanced
    # refuses to be read: at run time anything will do.
    Logged = Any


class Live:
    """The log of one run; `names`: of sinks, which keep their files in `folder`.

    To be told of every piece of training in order, and to be flushed before the run is saved: a run
    that goes back to where it was saved then has all of its log up to there.
    """

    def __init__(self, names: Sequence[str], folder: Path, about: About):
        self.names, self.folder, self.about = names, folder, about
        self._sinks = dict[str, Sink]()
        self._opened = False
        self._told = 0  # events of the run's history
        self._episodes, self._losses = _Episodes(), _Losses()
        self._said = time.monotonic()
        # What is not told yet.
        self._logs: list[Log] = []
        self._lengths: list[int] = []
        self._run: Logged | None = None
        self._reached = 0  # env steps

    def __enter__(self) -> "Live":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._run is not None and self._logs:
            self._tell_what_is_new(self._run)
        self._each(lambda sink: sink.close(failed=kind is not None))

    def advanced(self, run: Logged, log: Log) -> None:
        """A piece of training is done, which reported `log`."""
        if not self.names:
            return
        self._open(run, run.env_steps - len(log.reward))
        self._run, self._reached = run, run.env_steps
        self._logs.append(log)
        self._lengths += self._episodes.lengths(run, log)
        if time.monotonic() - self._said >= EVERY:
            self._tell_what_is_new(run)

    def flush(self, run: Logged) -> None:
        """What was not told yet is told."""
        if self.names:
            self._open(run, run.env_steps)
            self._reached = run.env_steps
            self._tell_what_is_new(run)

    def probed(self, run: Logged, values: Mapping[str, float], *, fresh: bool = False) -> None:
        """Probes were measured, by name as `regrow.training.probing.measured` has it."""
        if self.names:
            self.flush(run)
            self._tell({_probe_name(name, fresh): value for name, value in values.items()})
            self._each(lambda sink: sink.flush())

    def _open(self, run: Logged, start: int) -> None:
        """Opens the sinks, of a run that was at `start` when this sitting began."""
        if self._opened:
            return
        self._opened = True
        for name in self.names:
            try:
                self._sinks[name] = SINKS[name](self.folder, self.about, start)
            except Exception as error:  # whatever a package of others may raise
                _say(name, error)
        self._told = sum(event.env_steps < start for event in run.history)

    def _tell_what_is_new(self, run: Logged) -> None:
        for event in run.history[self._told :]:
            self._tell_event(event)
        self._told = len(run.history)
        if self._logs:
            log = Log(*(np.concatenate(entries) for entries in zip(*self._logs, strict=True)))
            now = time.monotonic()
            try:
                losses = self._losses.measured(run)
                self._tell(scalars(log, self._lengths, now - self._said, losses))
            except Exception as error:  # the losses may want more memory than there is
                for name in list(self._sinks):
                    self._give_up(name, error)
            self._logs, self._lengths, self._said = [], [], now
        self._each(lambda sink: sink.flush())

    def _tell(self, values: Mapping[str, float]) -> None:
        at = self._reached

        def tell(sink: Sink) -> None:
            for name, value in values.items():
                if math.isfinite(value) and not sink.told.holds(name, at):
                    sink.scalar(name, value, at)

        self._each(tell)

    def _tell_event(self, event: Event) -> None:
        def tell(sink: Sink) -> None:
            if not sink.told.holds(event_name(event.intervention), event.env_steps):
                sink.event(event.intervention, event.env_steps)

        self._each(tell)

    def _each(self, act: Callable[[Sink], None]) -> None:
        """Does it with every sink; one that fails is given up."""
        for name, sink in list(self._sinks.items()):
            try:
                act(sink)
            except Exception as error:
                self._give_up(name, error)

    def _give_up(self, name: str, error: Exception) -> None:
        sink = self._sinks.pop(name)
        with suppress(Exception):  # it has failed: what it still can is no matter
            sink.close(failed=True)
        _say(name, error)


def scalars(
    log: Log, lengths: Sequence[int], seconds: float, losses: Mapping[str, float]
) -> dict[str, float]:
    """The numbers of a stretch of training that reported `log`; what is not there has no entry.

    `lengths`: of episodes that ended in it. `seconds`: that it took. `losses`: by Learner.
    """
    ended = log.terminated | log.truncated
    returns = np.asarray(log.episode_return)[ended]
    found = {"train/value": float(np.mean(log.value, dtype=np.float64))}
    if returns.size:
        found["rollout/episode_return"] = float(np.mean(returns, dtype=np.float64))
    if len(lengths):
        found["rollout/episode_length"] = float(np.mean(lengths))
    if seconds > 0:
        found["time/env_steps_per_second"] = len(log.reward) / seconds
    return found | {f"train/loss/{name}": loss for name, loss in losses.items()}


class _Losses:
    """The losses of a run, as often as there is time for them."""

    def __init__(self) -> None:
        self.seconds = math.inf  # that they take, the least so far
        self.due = -math.inf

    def measured(self, run: Logged) -> dict[str, float]:
        """Those of now; none where it is too early, or where an error has ended the training."""
        if run.used_up or time.monotonic() < self.due:
            return {}
        if self.seconds == math.inf:
            run.losses()  # compiles
        began = time.monotonic()
        losses = run.losses()
        if losses:
            now = time.monotonic()
            self.seconds = min(self.seconds, now - began)
            self.due = now + self.seconds / SHARE
        return losses


class _Episodes:
    """Where the running episodes began, in turns of the environments; −1 where it was not seen."""

    def __init__(self) -> None:
        self.begun: NDArray[np.int64] | None = None

    def lengths(self, run: Logged, log: Log) -> list[int]:
        """Of the episodes that end in a log, those whose beginning was seen."""
        count, start = run.num_envs, run.env_steps - len(log.reward)
        if self.begun is None:
            self.begun = np.full(count, -1, np.int64)
        if start == 0 or start in run.restarts:
            self.begun[:] = start // count
        ended = np.asarray(log.terminated | log.truncated).reshape(-1, count)
        found: list[int] = []
        for n in range(count):
            ends = start // count + 1 + np.flatnonzero(ended[:, n])
            bounds = np.concatenate([self.begun[n : n + 1], ends])
            found += np.diff(bounds)[0 if bounds[0] >= 0 else 1 :].tolist()
            self.begun[n] = bounds[-1]
        return found


def _probe_name(name: str, fresh: bool) -> str:
    """`critic.srank.head` as probes/critic/srank/head."""
    return "/".join(["probes_fresh" if fresh else "probes", *name.split(".")])


def _say(name: str, error: Exception) -> None:
    why = " ".join(str(error).split()) or type(error).__name__
    print(f"regrow: --log {name} failed ({why}); training goes on without it", file=sys.stderr)

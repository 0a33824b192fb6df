"""Live logging: writes the metrics of a run to sinks about once a second while it trains.

The x axis is env steps.

    rollout/episode_return      mean over the episodes that ended since the last report
    rollout/episode_length      in env steps of one environment; episodes seen from their start
    train/value                 mean predicted value of the actions taken
    train/loss/<learner>        on one batch, with the current agent (`Run.losses`); less often
                                if it would take more than a hundredth of the time
    time/env_steps_per_second   since the last report
    probes/<probe>/<part>       whenever probes are measured; probes_fresh/… for a fresh network
    event                       an intervention that was carried out

Logging does not change the run, and without sinks nothing is computed. If a sink fails, a message
is printed and training continues without that sink.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from regrow.files.places import Place
from regrow.records.sinks import SINKS, About, Sink, event_name
from regrow.types import Event, Log

EVERY = 1.0  # seconds
SHARE = 0.01  # the largest share of the time spent on losses


if TYPE_CHECKING:

    class Logged(Protocol):
        """What can be logged: a Run or another Subject."""

        @property
        def env_steps(self) -> int:
            """Env steps taken so far."""
            ...

        @property
        def num_envs(self) -> int:
            """The number of environments, which take turns in the log."""
            ...

        @property
        def history(self) -> tuple[Event, ...]:
            """The interventions that were carried out."""
            ...

        @property
        def restarts(self) -> tuple[int, ...]:
            """Env steps at which new episodes were forced."""
            ...

        @property
        def used_up(self) -> bool:
            """Whether it was advanced, so that its buffers are donated."""
            ...

        def losses(self) -> dict[str, float]:
            """The current losses, by name; may be empty."""
            ...

else:
    # Python 3.11 reads a protocol's properties when it checks an instance, and those of a used-up
    # Run raise. So at run time any object is accepted.
    Logged = Any


class Live:
    """The live log of one run. `names`: the sinks, which write their files into `folder`.

    Call `advanced` after every chunk of training, in order. Call `flush` before the run is saved:
    then a run that resumes from the save has its complete log up to there.
    """

    def __init__(self, names: Sequence[str], folder: Place, about: About):
        self.names, self.folder, self.about = names, folder, about
        self._sinks = dict[str, Sink]()
        self._opened = False
        self._told = 0  # events of the run's history that are logged already
        self._episodes, self._losses = _Episodes(), _Losses()
        self._said = time.monotonic()
        # Not reported yet.
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
        """Records a finished chunk of training and its log."""
        if not self.names:
            return
        self._open(run, run.env_steps - len(log.reward))
        self._run, self._reached = run, run.env_steps
        self._logs.append(log)
        self._lengths += self._episodes.lengths(run, log)
        if time.monotonic() - self._said >= EVERY:
            self._tell_what_is_new(run)

    def flush(self, run: Logged) -> None:
        """Reports everything that was not reported yet."""
        if self.names:
            self._open(run, run.env_steps)
            self._reached = run.env_steps
            self._tell_what_is_new(run)

    def probed(self, run: Logged, values: Mapping[str, float], *, fresh: bool = False) -> None:
        """Logs measured probes, named as in `Run.measure`."""
        if self.names:
            self.flush(run)
            self._tell({_probe_name(name, fresh): value for name, value in values.items()})
            self._each(lambda sink: sink.flush())

    def _open(self, run: Logged, start: int) -> None:
        """Opens the sinks for a run that is at env step `start` in this session."""
        if self._opened:
            return
        self._opened = True
        for name in self.names:
            try:
                self._sinks[name] = SINKS[name](self.folder, self.about, start)
            except Exception as error:  # third-party packages may raise anything
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
            except Exception as error:  # computing the losses may run out of memory
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
        """Calls `act` with every sink, and drops a sink that fails."""
        for name, sink in list(self._sinks.items()):
            try:
                act(sink)
            except Exception as error:
                self._give_up(name, error)

    def _give_up(self, name: str, error: Exception) -> None:
        sink = self._sinks.pop(name)
        with suppress(Exception):  # it has failed already: further errors do not matter
            sink.close(failed=True)
        _say(name, error)


def scalars(
    log: Log, lengths: Sequence[int], seconds: float, losses: Mapping[str, float]
) -> dict[str, float]:
    """The metrics of the env steps in `log`; a metric without data has no entry.

    `lengths`: of the episodes that ended. `seconds`: wall-clock time. `losses`: by Learner.
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
    """Measures the losses of a run, at most a share `SHARE` of the time."""

    def __init__(self) -> None:
        self.seconds = math.inf  # the shortest time that a measurement took so far
        self.due = -math.inf

    def measured(self, run: Logged) -> dict[str, float]:
        """The current losses; empty if it is too early, or if an error has ended the training."""
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
    """The env step of its environment at which each running episode began; −1 if unknown."""

    def __init__(self) -> None:
        self.begun: NDArray[np.int64] | None = None

    def lengths(self, run: Logged, log: Log) -> list[int]:
        """Lengths of the episodes that end in `log` and whose start was seen."""
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

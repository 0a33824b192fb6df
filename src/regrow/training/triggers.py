"""When something is done: at a step, again and again, or when a measurement says so.

A trigger is a frozen dataclass and a pure function of what was seen so far. It keeps no state of
its own, so a run that is stopped and resumed decides as it would have without stopping.
"""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from regrow.errors import require

RETURNS = "returns"
"""What a trigger watches if not a probe: the mean return of recent episodes."""


class Seen(NamedTuple):
    """One look of a trigger: what it watches had this value (NaN where there is none)."""

    env_steps: int
    value: float


class Trigger(abc.ABC):
    """Decides, at the env steps at which it is due, whether to act.

    `times`: how often it fires at most; None is without limit.
    """

    times: int | None = None

    @property
    def watches(self) -> str:
        """What is measured at every look: a probe in the grammar, `RETURNS`, or nothing ("")."""
        return ""

    def spent(self, fired: Sequence[int]) -> bool:
        """Whether it has fired as often as it may; then nothing need be looked at any more."""
        return self.times is not None and len(fired) >= self.times

    @abc.abstractmethod
    def next(self, now: int) -> int | None:
        """The first env step from `now` on at which the trigger is due, or None."""

    @abc.abstractmethod
    def fires(self, seen: Sequence[Seen], fired: Sequence[int]) -> bool:
        """Whether to act now, at the last of `seen`; `fired`: at which env steps it did before."""

    @abc.abstractmethod
    def __str__(self) -> str:
        """The trigger as a rule names it."""


@dataclass(frozen=True)
class At(Trigger):
    """Once, at one env step; 0 is before the first."""

    env_steps: int

    def __post_init__(self) -> None:
        require(self.env_steps >= 0, f"at {self.env_steps}: it must be 0 or more env steps")

    def next(self, now: int) -> int | None:
        """That env step, while it lies ahead."""
        return self.env_steps if now <= self.env_steps else None

    def fires(self, seen: Sequence[Seen], fired: Sequence[int]) -> bool:
        """True."""
        del seen, fired
        return True

    def __str__(self) -> str:
        return f"at {self.env_steps:_}"


@dataclass(frozen=True)
class Every(Trigger):
    """At every multiple of some env steps, `times` times at most (None: without end)."""

    env_steps: int
    times: int | None = None

    def __post_init__(self) -> None:
        require(self.env_steps >= 1, f"every {self.env_steps}: it must be 1 env step or more")
        _check_times(self.times)

    def next(self, now: int) -> int | None:
        """The next multiple."""
        return _multiple(self.env_steps, now)

    def fires(self, seen: Sequence[Seen], fired: Sequence[int]) -> bool:
        """Until it has fired `times` times."""
        del seen
        return not self.spent(fired)

    def __str__(self) -> str:
        most = "" if self.times is None else f" at most {self.times} times"
        return f"every {self.env_steps:_}{most}"


@dataclass(frozen=True)
class When(Trigger):
    """When a probe was above (or below) a level at `patience` looks in a row.

    A look every `every` env steps. After it fired it starts to count anew; it fires `times` times
    at most. Adaptive injection (arXiv 2305.15555) is `inject when ... above ...`.
    """

    probe: str
    above: float | None = None
    below: float | None = None
    patience: int = 1
    times: int | None = 1
    every: int = 10_000

    def __post_init__(self) -> None:
        require(
            (self.above is None) != (self.below is None),
            f"when {self.probe}: give a level that it must be above, or one below, not both",
        )
        level = self.below if self.above is None else self.above
        require(
            level is not None and math.isfinite(level),
            f"when {self.probe}: the level is {level}; it must be a number",
        )
        _check_looks(self.patience, self.every)
        _check_times(self.times)

    @property
    def watches(self) -> str:
        """The probe."""
        return self.probe

    def next(self, now: int) -> int | None:
        """The next look."""
        return _multiple(self.every, now)

    def fires(self, seen: Sequence[Seen], fired: Sequence[int]) -> bool:
        """Whether the last looks since it fired were all beyond the level."""
        if self.spent(fired):
            return False
        fresh = [look.value for look in seen if not fired or look.env_steps > fired[-1]]
        last = fresh[-self.patience :]
        return len(last) == self.patience and all(self._beyond(value) for value in last)

    def _beyond(self, value: float) -> bool:
        return value > self.above if self.above is not None else value < (self.below or 0.0)

    def __str__(self) -> str:
        side = f"below {self.below}" if self.above is None else f"above {self.above}"
        return f"when {self.probe} {side}{_looks(self)}"


@dataclass(frozen=True)
class Plateau(Trigger):
    """When the mean return has not improved at `patience` looks in a row.

    An improvement is a return above the best one since it last fired by more than `improvement`
    times that one's size. A look every `every` env steps.
    """

    improvement: float = 0.05
    patience: int = 5
    times: int | None = 1
    every: int = 10_000

    def __post_init__(self) -> None:
        require(
            0 <= self.improvement < math.inf,
            f"plateau: improvement is {self.improvement}; it must be a number, 0 or more",
        )
        _check_looks(self.patience, self.every)
        _check_times(self.times)

    @property
    def watches(self) -> str:
        """The returns."""
        return RETURNS

    def next(self, now: int) -> int | None:
        """The next look."""
        return _multiple(self.every, now)

    def fires(self, seen: Sequence[Seen], fired: Sequence[int]) -> bool:
        """Whether the best return is `patience` looks ago."""
        if self.spent(fired):
            return False
        best, waited = -math.inf, 0
        for look in seen:
            if (fired and look.env_steps <= fired[-1]) or math.isnan(look.value):
                continue
            margin = self.improvement * abs(best) if math.isfinite(best) else 0.0
            best, waited = (look.value, 0) if look.value > best + margin else (best, waited + 1)
        return waited >= self.patience

    def __str__(self) -> str:
        return f"when {RETURNS} plateau{_looks(self)}"


def _multiple(of: int, now: int) -> int:
    return max(-(-now // of), 1) * of


def _looks(trigger: "When | Plateau") -> str:
    """What differs from the defaults of looking, as a rule names it."""
    kind = type(trigger)
    text = "" if trigger.patience == kind.patience else f" for {trigger.patience} checks"
    if trigger.times != kind.times:
        text += " without limit" if trigger.times is None else f" at most {trigger.times} times"
    return text if trigger.every == kind.every else f"{text} checked every {trigger.every:_}"


def _check_times(times: int | None) -> None:
    require(times is None or times >= 1, f"at most {times} times: it must be 1 or more")


def _check_looks(patience: int, every: int) -> None:
    require(patience >= 1, f"for {patience} checks: it must be 1 or more")
    require(every >= 1, f"checked every {every}: it must be 1 env step or more")

"""Triggers: when to act. At an env step, periodically, or depending on a measurement.

A trigger is a frozen dataclass, and its decision is a pure function of the checks so far. It has no
state of its own, so a run that is stopped and resumed makes the same decisions.
"""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from regrow.errors import require

RETURNS = "returns"
"""The name under which a trigger watches the mean return of recent episodes."""


class Seen(NamedTuple):
    """One check of a trigger: the watched value at an env step; NaN if there is none."""

    env_steps: int
    value: float


class Trigger(abc.ABC):
    """Decides, at the env steps at which it is due, whether to act.

    `times`: the largest number of times that it fires; None: no limit.
    """

    times: int | None = None

    @property
    def watches(self) -> str:
        """The quantity measured at every check: a probe's text, `RETURNS`, or "" for nothing."""
        return ""

    def spent(self, fired: Sequence[int]) -> bool:
        """Whether it has fired `times` times; then it need not be checked again."""
        return self.times is not None and len(fired) >= self.times

    @abc.abstractmethod
    def next(self, now: int) -> int | None:
        """The first env step from `now` on at which the trigger is due, or None."""

    @abc.abstractmethod
    def fires(self, seen: Sequence[Seen], fired: Sequence[int]) -> bool:
        """Whether to act now, at the last of `seen`; `fired`: env steps when it fired before."""

    @abc.abstractmethod
    def __str__(self) -> str:
        """The trigger as written in a rule."""


@dataclass(frozen=True)
class At(Trigger):
    """Fires once, at one env step from 1 on."""

    env_steps: int

    def __post_init__(self) -> None:
        require(self.env_steps >= 1, f"at {self.env_steps}: it must be 1 or more env steps")

    def next(self, now: int) -> int | None:
        """That env step, or None once it has passed."""
        return self.env_steps if now <= self.env_steps else None

    def fires(self, seen: Sequence[Seen], fired: Sequence[int]) -> bool:
        """Always fires at its env step."""
        del seen, fired
        return True

    def __str__(self) -> str:
        return f"at {self.env_steps:_}"


@dataclass(frozen=True)
class Every(Trigger):
    """Fires at every multiple of `env_steps`, at most `times` times (None: no limit)."""

    env_steps: int
    times: int | None = None

    def __post_init__(self) -> None:
        require(self.env_steps >= 1, f"every {self.env_steps}: it must be 1 env step or more")
        _check_times(self.times)

    def next(self, now: int) -> int | None:
        """The next multiple."""
        return _multiple(self.env_steps, now)

    def fires(self, seen: Sequence[Seen], fired: Sequence[int]) -> bool:
        """Whether it has fired fewer than `times` times."""
        del seen
        return not self.spent(fired)

    def __str__(self) -> str:
        most = "" if self.times is None else f" at most {self.times} times"
        return f"every {self.env_steps:_}{most}"


@dataclass(frozen=True)
class When(Trigger):
    """Fires when a probe was above (or below) a level at `patience` consecutive checks.

    There is a check every `every` env steps. After it fires, the count starts again from zero. It
    fires at most `times` times. Adaptive injection (arXiv 2305.15555) is
    `inject when ... above ...`.
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
        """The env step of the next check."""
        return _multiple(self.every, now)

    def fires(self, seen: Sequence[Seen], fired: Sequence[int]) -> bool:
        """Whether the last `patience` checks, all since it last fired, were beyond the level."""
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
    """Fires when the mean return has not improved at `patience` consecutive checks.

    An improvement exceeds the best return since it last fired by more than `improvement` times
    the absolute value of that return. There is a check every `every` env steps.
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
        """The env step of the next check."""
        return _multiple(self.every, now)

    def fires(self, seen: Sequence[Seen], fired: Sequence[int]) -> bool:
        """Whether the best return is at least `patience` checks ago."""
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
    """The non-default options of the checks, as written in a rule."""
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

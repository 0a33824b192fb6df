"""Arms compared at one look, with the sample there was and the critical value of that look."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from regrow.diagnosis.outcomes import Outcome, Sample, Scale, areas, finals
from regrow.stats.arrays import ROUNDING, Floats
from regrow.stats.effects import Measured, independent, paired
from regrow.stats.intervals import Interval
from regrow.stats.sequential import Levels

Of = Callable[[Sequence[Outcome]], Floats]


@dataclass(frozen=True)
class Look:
    """The arms as they compare at one sample size: seeds, or replicates of a single agent.

    Its intervals hold over all looks together (`regrow.stats.sequential`).
    """

    sample: Sample
    scale: Scale
    control: str
    levels: Levels
    confidence: float
    smallest: float

    @property
    def n(self) -> int:
        """How many units there are."""
        return self.sample.size

    def critical(self, degrees: float) -> float:
        """The critical t at this look; infinite before the first one."""
        known = self.n in self.levels.looks
        return self.levels.critical(self.n, degrees) if known else math.inf

    def measured(self, arm: str) -> Measured:
        """An arm compared with the control, at the smallest effect that matters."""
        return self.scale.measured(self.sample, arm, self.control, self.smallest)

    @cached_property
    def shares(self) -> dict[str, Interval]:
        """The difference to the control as a share of the unit, of every other arm."""
        found = {}
        for arm in self.sample.arms:
            if arm != self.control:
                measured = self.measured(arm)
                critical = self.critical(measured.degrees)
                found[arm] = measured.interval(critical, self.confidence)
        return found

    def difference(self, arm: str, other: str, of: Of = areas) -> Interval:
        """An arm's difference to another one, in returns."""
        treated, control = of(self.sample.arms[arm]), of(self.sample.arms[other])
        if self.sample.design == "paired":
            measured = paired(treated, control, 1.0)
        else:
            measured = independent(treated, control, np.zeros(0), -1.0)
        return measured.difference(self.critical(measured.degrees), self.confidence)

    def side(self, arm: str) -> int:
        """1 where the effect is settled above the smallest that matters, −1 below it, else 0."""
        measured = self.measured(arm)
        statistic = measured.statistic(self.smallest)
        if not abs(statistic) > self.critical(measured.degrees):
            return 0
        return 1 if statistic > 0 else -1

    def above_random(self, arm: str) -> bool:
        """Whether an arm is clearly above the random policy, over the horizon or at its end.

        Equal runs have no spread; they are where they lie above it, as runs at the most that can be
        had. Where nobody knows what the random policy earns, every arm is.
        """
        if not math.isfinite(self.scale.random):
            return True
        runs = self.sample.arms[arm]
        critical = self.critical(len(runs) - 1.0)
        return any(_t_above(of(runs), self.scale) > critical for of in (areas, finals))


def _t_above(values: Floats, scale: Scale, variance: float | None = None) -> float:
    """The t statistic of runs above the random policy, whose error is counted."""
    lead = float(values.mean()) - scale.random
    variance = float(values.var(ddof=1)) if variance is None else variance
    error = math.sqrt(variance / len(values) + scale.error**2)
    if error <= ROUNDING * float(np.abs(values).max()):
        return math.copysign(math.inf, lead) if lead else 0.0
    return lead / error


def lead_over_random(sample: Sample, scale: Scale) -> tuple[float, float]:
    """(the largest t of any arm above the random policy, its degrees of freedom).

    Over the horizon or at its end. The variance is pooled over arms, so that two or three seeds are
    enough to see an agent that learned.
    """
    arms = sample.arms.values()
    degrees = sum(len(runs) - 1 for runs in arms)
    best = -math.inf
    for of in (areas, finals):
        held = [of(runs) for runs in arms]
        pooled = sum(float(((x - x.mean()) ** 2).sum()) for x in held) / max(degrees, 1)
        best = max(best, *(_t_above(x, scale, pooled) for x in held))
    return best, float(degrees)

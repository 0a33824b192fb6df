"""The difference of two arms as a share of what learning is worth, with Fieller's interval.

With d the difference treated − control, and u the unit, what the best arm earns above the random
policy, the effect is θ = d / u. Both are measured, so the interval is the set of θ that a test of
d − θ u = 0 does not reject (Fieller 1954): exact for normal data, and free of the trouble that a
ratio has where its denominator comes near 0. A constant that is added to all returns changes
nothing.
"""

import math
from dataclasses import dataclass

import numpy as np

from regrow.stats.arrays import ROUNDING, Floats
from regrow.stats.intervals import Interval, no_interval


@dataclass(frozen=True)
class Measured:
    """Means of d and u with what is known of their errors.

    `var_d`, `var_u`, `cov`: of the means. `degrees` of freedom; `n`: the sample size of an arm.
    `scale`: the size of the values, by which rounding is told from spread.
    """

    d: float
    u: float
    var_d: float
    var_u: float
    cov: float
    degrees: float
    n: int
    scale: float

    def error(self, share: float) -> float:
        """The standard error of d − share · u."""
        squared = self.var_d - 2.0 * share * self.cov + share**2 * self.var_u
        return math.sqrt(max(squared, 0.0))

    @property
    def alike(self) -> bool:
        """Whether d has no spread, so that nothing is known of how far it is off."""
        return math.sqrt(max(self.var_d, 0.0)) <= ROUNDING * self.scale

    def statistic(self, share: float) -> float:
        """The t statistic of d − share · u; NaN where d has no spread or u is not above 0."""
        if self.alike or not self.u > 0:
            return math.nan
        return (self.d - share * self.u) / self.error(share)

    def difference(self, critical: float, confidence: float) -> Interval:
        """The interval of d itself, in returns."""
        if self.alike or not math.isfinite(critical):
            return no_interval(self.d, confidence)
        half = critical * math.sqrt(self.var_d)
        return Interval(self.d, self.d - half, self.d + half, confidence)

    def interval(self, critical: float, confidence: float) -> Interval:
        """Fieller's interval of d / u, for u > 0.

        An end is infinite where u is not clearly above 0; no interval where no end is known.
        """
        if not self.u > 0:
            return no_interval(math.nan, confidence)
        estimate = self.d / self.u
        if self.alike or not math.isfinite(critical):
            return no_interval(estimate, confidence)
        # The θ with (d − θ u)² ≤ c² var(d − θ u): a θ² − 2 b θ + c ≤ 0.
        squared = critical**2
        a = self.u**2 - squared * self.var_u
        b = self.d * self.u - squared * self.cov
        c = self.d**2 - squared * self.var_d
        root = math.sqrt(max(b * b - a * c, 0.0))
        if a > 0:
            return Interval(estimate, (b - root) / a, (b + root) / a, confidence)
        if not c > 0:
            return no_interval(estimate, confidence)
        # Outside of two roots, and u > 0: the side of the estimate is bounded by the nearer one.
        ends = sorted(((b - root) / a, (b + root) / a)) if a < 0 else [c / (2 * b)] * 2
        if self.d > 0:
            return Interval(estimate, ends[1], math.inf, confidence)
        return Interval(estimate, -math.inf, ends[0], confidence)


def paired(
    treated: Floats, control: Floats, unit: Floats | float, unit_error: float = 0.0
) -> Measured:
    """From one sample of pairs: entry i of all is of the same fork, shape (n,), n ≥ 2.

    `unit`: what learning is worth, by pair, or a number. `unit_error`: the standard error of what
    all units have in common, as the random policy's return.
    """
    difference = treated - control
    units = np.broadcast_to(np.asarray(unit, np.float64), difference.shape)
    n = len(difference)
    covariance = np.cov(difference, units, ddof=1)
    return Measured(
        d=float(difference.mean()),
        u=float(units.mean()),
        var_d=float(covariance[0, 0]) / n,
        var_u=float(covariance[1, 1]) / n + unit_error**2,
        cov=float(covariance[0, 1]) / n,
        degrees=n - 1.0,
        n=n,
        scale=float(max(np.abs(treated).max(), np.abs(control).max())),
    )


def independent(
    treated: Floats,
    control: Floats,
    best: Floats,
    random: float,
    unit_error: float = 0.0,
    share: float = 0.0,
) -> Measured:
    """From independent samples of one fork (Welch): the unit is mean(best) − random.

    `best` is one of the two, the very array, or a third sample; empty where the unit is known, and
    `random` then minus the unit. `share`: at which the degrees of freedom are (Satterthwaite 1946).
    """
    samples = {"treated": (treated, 1.0, 0.0), "control": (control, -1.0, 0.0)}
    if best is treated:
        samples["treated"] = (treated, 1.0, 1.0)
    elif best is control:
        samples["control"] = (control, -1.0, 1.0)
    elif best.size:
        samples["best"] = (best, 0.0, 1.0)
    errors = {name: float(x.var(ddof=1)) / len(x) for name, (x, _, _) in samples.items()}
    parts = {name: errors[name] * (a - share * b) ** 2 for name, (_, a, b) in samples.items()}
    total = sum(parts.values())
    spread = sum(parts[name] ** 2 / (len(x) - 1) for name, (x, _, _) in samples.items())
    return Measured(
        d=float(treated.mean() - control.mean()),
        u=float((best.mean() if best.size else 0.0) - random),
        var_d=sum(errors[name] * a * a for name, (_, a, _) in samples.items()),
        var_u=sum(errors[name] * b * b for name, (_, _, b) in samples.items()) + unit_error**2,
        cov=sum(errors[name] * a * b for name, (_, a, b) in samples.items()),
        degrees=total**2 / spread if spread > 0 else min(len(treated), len(control)) - 1.0,
        n=min(len(treated), len(control)),
        scale=float(max(np.abs(treated).max(), np.abs(control).max())),
    )


@dataclass(frozen=True)
class Components:
    """Where the spread of an effect comes from, in returns.

    `within`: standard deviation of the runs of one arm from one fork, with its degrees of freedom.
    `between`: that of the true effects of forks, 0 where replicates explain all of the spread; NaN
    where it cannot be told.
    """

    within: float
    degrees: int
    between: float


def components(by_fork: list[tuple[Floats, Floats]]) -> Components | None:
    """From the (treated, control) replicates of every fork; None where no fork has two runs.

    `within` pools the two arms. The variance of a fork's difference of means is
    between² + within² (1/k₁ + 1/k₂) with k₁, k₂ replicates.
    """
    runs = [arm for fork in by_fork for arm in fork if len(arm) > 1]
    degrees = sum(len(arm) - 1 for arm in runs)
    if not degrees:
        return None
    within = sum(float(((arm - arm.mean()) ** 2).sum()) for arm in runs) / degrees
    between = math.nan
    if len(by_fork) > 1:
        differences = np.array([a.mean() - b.mean() for a, b in by_fork])
        explained = np.mean([within / len(a) + within / len(b) for a, b in by_fork])
        between = math.sqrt(max(float(differences.var(ddof=1)) - float(explained), 0.0))
    return Components(math.sqrt(within), degrees, between)

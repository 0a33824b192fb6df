"""From the returns of a few paired runs to a number with an interval.

Over many tasks: interquartile mean and bootstrap, after arXiv 2108.13264. Between two arms over a
few seeds: the Student-t interval of the paired differences, `mean ± t · sd / √n`, because a
percentile bootstrap is too narrow there. Values without any spread (one run, equal values) have no
interval: an error, or ends that are NaN; never one of no width. Whatever draws takes an explicit
`numpy.random.Generator`; nothing here reads or sets a global seed.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from regrow.errors import RegrowError, require
from regrow.stats.arrays import ROUNDING, Floats, numbers

Statistic = Callable[..., Any]
"""`statistic(values, axis=-1)` reduces one axis, as `np.mean` and `interquartile_mean` do."""

_DRAWS_AT_ONCE = 2**20  # bounds the memory of a bootstrap to a few times 8 MiB


class Interval(NamedTuple):
    """An estimate and the interval around it, in the unit of the values it was made from.

    `low` and `high` are NaN where the values have no spread, so that nothing is known of how far
    the estimate is off. Every comparison with them is then False.
    """

    estimate: float
    low: float
    high: float
    confidence: float

    def __format__(self, spec: str) -> str:
        """Each number in the same format: `f"{interval:+.2f}"` is "+1.00 [+0.50, +1.50]"."""
        if not spec:
            return repr(self)
        if self.missing:
            return f"{self.estimate:{spec}} (no interval)"
        low = f"{self.low:{spec}}" if math.isfinite(self.low) else "−∞"
        high = f"{self.high:{spec}}" if math.isfinite(self.high) else "+∞"
        return f"{self.estimate:{spec}} [{low}, {high}]"

    @property
    def missing(self) -> bool:
        """Whether there is an estimate only, and no interval."""
        return math.isnan(self.low)

    def over(self, scale: float) -> "Interval":
        """The same as a share of `scale`."""
        if self.missing:
            return no_interval(self.estimate / scale, self.confidence)
        low, high = self.low / scale, self.high / scale
        return Interval(self.estimate / scale, low, high, self.confidence)


def no_interval(estimate: float, confidence: float = 0.95) -> Interval:
    """An estimate of which nothing says how far it is off."""
    return Interval(estimate, math.nan, math.nan, confidence)


# Several tasks, several seeds each.


@overload
def interquartile_mean(values: ArrayLike, axis: None = None) -> float: ...
@overload
def interquartile_mean(values: ArrayLike, axis: int) -> Floats: ...
def interquartile_mean(values: ArrayLike, axis: int | None = None) -> float | Floats:
    """The mean of the middle half: of n sorted values, floor(n / 4) are cut at each end.

    `values` has any shape; all of it is pooled, or reduced along `axis` where that is given.
    Raises `RegrowError` where values are missing or not finite. Source: IQM of arXiv 2108.13264.
    """
    array = numbers("values", values)
    ordered = np.sort(array.reshape(-1) if axis is None else np.moveaxis(array, axis, -1), axis=-1)
    cut = ordered.shape[-1] // 4
    means = ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)
    return float(means) if axis is None else means


def pooled_bootstrap(
    values: ArrayLike,
    statistic: Statistic,
    *,
    generator: Generator,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap over all runs as if they were one sample.

    `values` has any shape, usually (tasks, seeds), and is flattened. Treats tasks as drawn at
    random as well, so it is wider than `stratified_bootstrap` where tasks differ. Where resamples
    do not differ, as those of equal values, there is no interval. Raises `RegrowError` on fewer
    than two values, missing or non-finite ones, `resamples` < 1, a confidence outside (0, 1), or a
    statistic that does not reduce the last axis.
    """
    pool = numbers("values", values).reshape(-1)
    require(len(pool) >= 2, "values are one run, which says nothing of its spread; give at least 2")
    return _bootstrap([pool], statistic, generator, resamples, confidence)


def stratified_bootstrap(
    values_by_stratum: Sequence[ArrayLike] | NDArray[Any],
    statistic: Statistic,
    *,
    generator: Generator,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap that resamples the seeds within each task and keeps the tasks.

    `values_by_stratum` holds one (seeds,) array per task; their lengths may differ. The statistic
    sees all tasks concatenated. Raises as `pooled_bootstrap` does, and for a task of one run: its
    resamples are all alike, so the interval would be too narrow, of no width if all are such.
    Source: arXiv 2108.13264.
    """
    require(len(values_by_stratum) > 0, "values_by_stratum must hold at least one task, got none")
    strata = [numbers(f"stratum {i}", v, dims=1) for i, v in enumerate(values_by_stratum)]
    require_spread(strata)
    return _bootstrap(strata, statistic, generator, resamples, confidence)


def require_spread(tasks: Sequence[ArrayLike], what: str = "stratum") -> None:
    """`RegrowError` unless every task, shape (seeds,), has two runs or more to be resampled."""
    single = [i for i, task in enumerate(tasks) if np.size(task) < 2]
    if single:
        raise RegrowError(
            f"{what} {single[0]} has one run ({len(single)} of {len(tasks)} are such): one run per "
            "task says nothing of its spread; give at least 2 runs of every task, as one array per "
            "task, or pool all runs"
        )


def percentile(
    estimate: float, drawn: Floats, confidence: float, *, size: float | None = None
) -> Interval:
    """An estimate with the percentile interval of what resamples gave; `drawn`: (resamples,).

    No interval where its ends coincide, but for rounding of values as large as `size` (by default,
    the estimate): resamples that are all alike say nothing.
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    if high - low <= ROUNDING * (abs(estimate) if size is None else size):
        return no_interval(estimate, confidence)
    return Interval(estimate, float(low), float(high), confidence)


# Two arms over a few paired seeds.


def paired_difference(
    treated: ArrayLike, control: ArrayLike, *, confidence: float = 0.95
) -> Interval:
    """Student-t interval of the mean of `treated - control`, seed by seed.

    Both have shape (seeds,), seeds >= 2, entry i of both from the same seed:
    `mean(d) ± t(n - 1) · sd(d) / √n`, sd with ddof = 1.

    Why not a percentile bootstrap: from n = 5 normal differences, its nominal 95% interval of the
    mean covers the truth 83.7% of the time (20,000 simulated samples, 2,000 resamples each), this
    one 95.0%. Resampling n values spreads by √((n - 1) / n) of their sd and has normal tails in
    place of t tails. The price is the assumption that the differences are about normal. Equal
    differences have no interval: that seeds agree may be chance, a ceiling, or a mistake.

    Raises `RegrowError` on unequal shapes, fewer than two seeds, non-finite values, or a confidence
    outside (0, 1).
    """
    treated, control = numbers("treated", treated, dims=1), numbers("control", control, dims=1)
    shapes = f"{treated.shape} and {control.shape}"
    require(treated.shape == control.shape, f"treated and control must pair up, got {shapes}")
    mean, sd, n = _mean_sd(treated - control)
    half = float(_half_width(sd, np.array([n]), confidence)[0])
    if sd <= ROUNDING * max(np.abs(treated).max(), np.abs(control).max()):
        return no_interval(mean, confidence)
    return Interval(mean, mean - half, mean + half, confidence)


def mean_band(values: ArrayLike, *, confidence: float = 0.95) -> tuple[Floats, Floats, Floats]:
    """(mean, low, high) over seeds of curves of shape (seeds, bins), a t interval for every bin.

    One seed has no interval, nor have bins in which all seeds are equal: low and high are then NaN.
    Raises `RegrowError` on missing or non-finite values, or a confidence outside (0, 1).
    """
    curves = numbers("values", values, dims=2)
    _check_confidence(confidence)
    seeds, mean = len(curves), curves.mean(axis=0)
    if seeds == 1:
        return mean, np.full_like(mean, math.nan), np.full_like(mean, math.nan)
    quantile, sd = stdtrit(seeds - 1, (1 + confidence) / 2), curves.std(axis=0, ddof=1)
    known = sd > ROUNDING * np.abs(curves).max(axis=0)
    half = np.where(known, quantile * sd / math.sqrt(seeds), math.nan)
    return mean, mean - half, mean + half


# What the functions above share.


def _bootstrap(
    strata: list[Floats],
    statistic: Statistic,
    generator: Generator,
    resamples: int,
    confidence: float,
) -> Interval:
    """Percentile bootstrap of `statistic` over the concatenated strata, each resampled alone."""
    _check_confidence(confidence)
    require(resamples >= 1, f"resamples must be at least 1, got {resamples}")
    chunk = max(1, _DRAWS_AT_ONCE // sum(map(len, strata)))
    drawn: list[Floats] = []
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        picks = [s[generator.integers(0, len(s), (rows, len(s)))] for s in strata]
        results = np.asarray(statistic(np.concatenate(picks, axis=-1), axis=-1), dtype=np.float64)
        problem = f"statistic must reduce axis -1 to shape ({rows},), got {results.shape}"
        require(results.shape == (rows,), problem)
        drawn.append(results)
    pool = np.concatenate(strata)
    estimate, size = float(statistic(pool, axis=-1)), float(np.abs(pool).max())
    return percentile(estimate, np.concatenate(drawn), confidence, size=size)


def _mean_sd(differences: Floats) -> tuple[float, float, int]:
    """Mean, sample standard deviation and number of the differences, two or more of them."""
    n = len(differences)
    require(n >= 2, f"a t interval needs at least 2 paired seeds, got {n}")
    return float(differences.mean()), float(differences.std(ddof=1)), n


def _half_width(sd: float, seeds: NDArray[np.int64], confidence: float) -> Floats:
    """Half the width of a t interval from each number of seeds: t(n - 1) · sd / √n."""
    _check_confidence(confidence)
    quantile: Floats = stdtrit(seeds - 1.0, 0.5 + confidence / 2)
    return quantile * sd / np.sqrt(seeds)


def _check_confidence(confidence: float) -> None:
    require(0 < confidence < 1, f"confidence must lie strictly in (0, 1), got {confidence}")

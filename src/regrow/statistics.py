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

Floats = NDArray[np.float64]
Statistic = Callable[..., Any]
"""`statistic(values, axis=-1)` reduces one axis, as `np.mean` and `interquartile_mean` do."""

_DRAWS_AT_ONCE = 2**20  # bounds the memory of a bootstrap to a few times 8 MiB
_ROUNDING = 1e-9  # of the largest value: less is no spread, but how sums of equal values come out


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
        ends = "(no interval)" if self.missing else f"[{self.low:{spec}}, {self.high:{spec}}]"
        return f"{self.estimate:{spec}} {ends}"

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
    array = _numbers("values", values)
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
    pool = _numbers("values", values).reshape(-1)
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
    strata = [_numbers(f"stratum {i}", v, dims=1) for i, v in enumerate(values_by_stratum)]
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
    if high - low <= _ROUNDING * (abs(estimate) if size is None else size):
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
    treated, control = _numbers("treated", treated, dims=1), _numbers("control", control, dims=1)
    shapes = f"{treated.shape} and {control.shape}"
    require(treated.shape == control.shape, f"treated and control must pair up, got {shapes}")
    mean, sd, n = _mean_sd(treated - control)
    half = float(_half_width(sd, np.array([n]), confidence)[0])
    if sd <= _ROUNDING * max(np.abs(treated).max(), np.abs(control).max()):
        return no_interval(mean, confidence)
    return Interval(mean, mean - half, mean + half, confidence)


def mean_band(values: ArrayLike, *, confidence: float = 0.95) -> tuple[Floats, Floats, Floats]:
    """(mean, low, high) over seeds of curves of shape (seeds, bins), a t interval for every bin.

    One seed has no interval, nor have bins in which all seeds are equal: low and high are then NaN.
    Raises `RegrowError` on missing or non-finite values, or a confidence outside (0, 1).
    """
    curves = _numbers("values", values, dims=2)
    _check_confidence(confidence)
    seeds, mean = len(curves), curves.mean(axis=0)
    if seeds == 1:
        return mean, np.full_like(mean, math.nan), np.full_like(mean, math.nan)
    quantile, sd = stdtrit(seeds - 1, (1 + confidence) / 2), curves.std(axis=0, ddof=1)
    known = sd > _ROUNDING * np.abs(curves).max(axis=0)
    half = np.where(known, quantile * sd / math.sqrt(seeds), math.nan)
    return mean, mean - half, mean + half


def running_mean(values: ArrayLike, window: int) -> Floats:
    """For each of a series the mean of the last `window` values up to it; of fewer at the start.

    Raises `RegrowError` on non-finite values or a window below 1.
    """
    series = _numbers("values", values, dims=1)
    require(window >= 1, f"window is {window}; it must be at least 1")
    sums = np.concatenate([[0.0], np.cumsum(series)])
    ends = np.arange(1, len(series) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def seeds_to_settle(
    differences: ArrayLike, boundary: float, *, confidence: float = 0.95, at_most: int = 1000
) -> int | None:
    """The fewest seeds at which the t interval would lie wholly on one side of `boundary`.

    `differences` has shape (seeds,), seeds >= 2, in the unit of `boundary`. Counts all seeds, not
    additional ones, and takes the observed mean and sd (ddof = 1) for the true ones: the smallest n
    with `|mean - boundary| > t(n - 1) · sd / √n`. A plan, not a promise: about half of all
    studies of that size would settle. None if that takes more than `at_most` seeds, or if the
    differences are equal: of their spread nothing is known.

    Raises `RegrowError` on fewer than two seeds, non-finite values, `at_most` < 2, or a confidence
    outside (0, 1).
    """
    require(math.isfinite(boundary), f"boundary must be finite, got {boundary}")
    require(at_most >= 2, f"at_most must be at least 2 seeds, got {at_most}")
    values = _numbers("differences", differences, dims=1)
    mean, sd, _ = _mean_sd(values)
    seeds = np.arange(2, at_most + 1)
    settled = abs(mean - boundary) > _half_width(sd, seeds, confidence)
    spread = sd > _ROUNDING * np.abs(values).max()
    return int(seeds[settled.argmax()]) if spread and settled.any() else None


# One run.


def learning_curve(
    episode_return: ArrayLike,
    ended: ArrayLike,
    *,
    bins: int,
    num_envs: int = 1,
    before: float = math.nan,
    running: ArrayLike | None = None,
    restarts: Sequence[int] = (),
) -> Floats:
    """The return over time: the mean return of the episodes that end in each of `bins` time bins.

    `episode_return` and `ended` have shape (env_steps,): the undiscounted return of the running
    episode up to and including each step, and whether the episode ends there. Env step t falls into
    bin `t · bins // env_steps`, and belongs to environment `t % num_envs`. Returns shape (bins,).

    Only whole episodes count. A bin in which none ends lies inside one episode of each environment;
    it takes what those episodes return in all, on average. Of an episode that ends later in the log
    that is known; `running`, shape (num_envs,), has it for those that run at the end of the log
    (NaN: not known), as `Run.play_out` finds it. Where nothing is known, a bin takes the value of
    the one before it, the first one `before`, NaN if that is unknown too. What an unfinished
    episode has collected so far never counts: with negative rewards a longer, worse episode would
    look better.

    `restarts`: env steps of the log before which all environments began new episodes though the
    old ones had not ended; what those would have returned is not known.

    Raises `RegrowError` on unequal shapes, non-finite returns, or fewer env steps than bins.
    """
    returns = _numbers("episode_return", episode_return, dims=1)
    (ends,) = _flags(returns.shape, ended=ended)
    steps = len(returns)
    require(1 <= bins <= steps, f"bins must lie in [1, {steps}] for {steps} env steps, got {bins}")
    require(num_envs >= 1, f"num_envs is {num_envs}; it must be at least 1")
    require(not math.isinf(before), f"before must be finite or nan, got {before}")
    bin_of = np.arange(steps) * bins // steps
    episodes = np.bincount(bin_of[ends], minlength=bins)
    totals = np.bincount(bin_of[ends], weights=returns[ends], minlength=bins)
    last = np.full(num_envs, math.nan) if running is None else np.asarray(running, float)
    require(last.shape == (num_envs,), f"running must have shape ({num_envs},), got {last.shape}")
    middles = np.searchsorted(bin_of, np.arange(bins), side="right") - 1
    inside = _returns_at(middles, returns, ends, last, restarts)
    curve, previous = np.empty(bins), before
    for i in range(bins):
        known = inside[i][np.isfinite(inside[i])]
        if episodes[i]:
            previous = totals[i] / episodes[i]
        elif known.size:
            previous = known.mean()
        curve[i] = previous
    return curve


def awaits_running(ended: ArrayLike, *, bins: int, num_envs: int = 1) -> bool:
    """Whether a learning curve depends on what the episodes that run at the end of its log return.

    So it does where one of them fills a bin in which no other episode ends. `ended` as for
    `learning_curve`, whose `running` is then needed.
    """
    (ends,) = _flags(np.shape(ended), ended=ended)
    bin_of = np.arange(len(ends)) * bins // len(ends)
    (empty,) = np.nonzero(np.bincount(bin_of[ends], minlength=bins) == 0)
    if not empty.size:
        return False
    after = int(np.searchsorted(bin_of, empty[-1], side="right"))
    over = {int(step) % num_envs for step in np.nonzero(ends)[0] if step >= after}
    return len(over) < num_envs


def _returns_at(
    steps: NDArray[np.int64], returns: Floats, ended: Any, last: Floats, restarts: Sequence[int]
) -> Floats:
    """At each of some env steps, what the episode of each environment that runs there returns.

    Shape (steps, num_envs); NaN where that is not known. Every one of them runs on after its step.
    """
    found = np.full((len(steps), len(last)), math.nan)
    for n in range(len(last)):
        (own,) = np.nonzero(ended[n :: len(last)])
        own = own * len(last) + n  # env steps at which an episode of this environment ends
        following = np.searchsorted(own, steps, side="right")
        finals = np.append(returns[own], last[n])
        found[:, n] = finals[following]
        until = np.append(own, len(returns))[following]
        for restart in restarts:
            found[(steps < restart) & (until >= restart), n] = math.nan
    return found


def area_under_curve(curve: ArrayLike) -> float:
    """The mean of a learning curve of shape (bins,), in the unit of a return.

    A mean over env steps, not over episodes: where an arm's early episodes are short, a mean over
    episodes counts that phase more often and can turn the sign of a comparison. Raises
    `RegrowError` where values are missing or not finite.
    """
    return float(_numbers("curve", curve, dims=1).mean())


def final_return(curve: ArrayLike, fraction: float = 0.25) -> float:
    """The mean of the last `fraction` of a learning curve, in the unit of a return.

    Of a curve of shape (bins,) it takes the last ceil(fraction · bins): 3 of 10 by default. Raises
    `RegrowError` where values are missing or not finite, or the fraction lies outside (0, 1].
    """
    require(0 < fraction <= 1, f"fraction must lie in (0, 1], got {fraction}")
    array = _numbers("curve", curve, dims=1)
    count = math.ceil(fraction * len(array) - 1e-9)  # 0.1 · 30 is 3 + 4e-16: three bins, not four
    return float(array[-max(count, 1) :].mean())


def realised_values(
    reward: ArrayLike,
    terminated: ArrayLike,
    truncated: ArrayLike,
    discount: float,
    *,
    unseen: float = 0.05,
) -> Floats:
    """The discounted return-to-go that followed each step, to hold against predicted values.

    `reward`, `terminated` and `truncated` have shape (env_steps,), so has the result:
    `G_t = r_t + discount · G_{t+1}`, with nothing after a termination. Nothing is bootstrapped
    from predictions: diverged values must not vouch for themselves.

    Where an episode is cut off after m more rewards, by truncation or by the end of the log, the
    unseen rest would enter G_t with weight `discount ** m`. Below `unseen` the rest counts as zero;
    else G_t is nan. A step both terminated and truncated is terminated.

    Raises `RegrowError` on unequal shapes, non-finite rewards, or a discount outside [0, 1].
    """
    rewards = _numbers("reward", reward, dims=1)
    terminal, cut = _flags(rewards.shape, terminated=terminated, truncated=truncated)
    require(0 <= discount <= 1, f"discount must lie in [0, 1], got {discount}")
    require(0 <= unseen <= 1, f"unseen must lie in [0, 1], got {unseen}")
    rewards, terminal, cut = rewards.tolist(), terminal.tolist(), cut.tolist()
    values = np.empty(len(rewards))
    to_go, rest = 0.0, 1.0  # rest: the weight of the unseen; the log's end cuts its last episode
    for t in reversed(range(len(rewards))):
        if terminal[t] or cut[t]:
            to_go, rest = 0.0, 0.0 if terminal[t] else 1.0
        to_go, rest = rewards[t] + discount * to_go, discount * rest
        values[t] = to_go if rest == 0 or rest < unseen else math.nan
    return values


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


def _numbers(name: str, values: ArrayLike, *, dims: int | None = None) -> Floats:
    """The values as float64, once they are known to be some, finite and of `dims` axes."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        shown = " ".join(repr(values).split())[:60]
        message = f"{name} must be numbers in a rectangular array, got {shown}"
        raise RegrowError(message) from error
    received = f"got shape {array.shape}"
    require(array.size > 0, f"{name} must not be empty, {received}")
    require(dims in (None, array.ndim), f"{name} must have {dims} axis, {received}")
    bad = ~np.isfinite(array)
    if bad.any():
        count, first = np.count_nonzero(bad), array[bad][0]
        raise RegrowError(f"{name} must be finite, got {count} of {array.size} not so ({first})")
    return array


def _flags(shape: tuple[int, ...], **flags: ArrayLike) -> list[NDArray[np.bool_]]:
    """The flags as booleans, once they are known to have the shape of what they belong to."""
    arrays = {name: np.asarray(values) for name, values in flags.items()}
    for name, array in arrays.items():
        require(array.dtype == np.bool_, f"{name} must be of dtype bool, got {array.dtype}")
        require(array.shape == shape, f"{name} must have shape {shape}, got {array.shape}")
    return list(arrays.values())

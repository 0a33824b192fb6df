"""Many tasks in a few numbers, after *Deep RL at the Edge of the Statistical Precipice*.

The interquartile mean is in `regrow.statistics`; here are the other metrics of arXiv 2108.13264
(optimality gap, probability of improvement, performance profile), and how well one number ranks as
another does. Scores are normalised by the caller: `scores[task]` has shape (seeds,).
"""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from regrow.errors import require
from regrow.statistics import Floats, Interval, stratified_bootstrap

Scores = Sequence[ArrayLike]


def optimality_gap(scores: ArrayLike, axis: int = -1, *, optimum: float = 1.0) -> Floats:
    """How far scores fall short of `optimum` on average: mean of max(optimum − score, 0).

    Reduces `axis`, so it is a statistic for a bootstrap. Scores above count as the optimum.
    """
    return np.maximum(optimum - np.asarray(scores, dtype=np.float64), 0.0).mean(axis=axis)


def probability_of_improvement(
    treated: Scores,
    control: Scores,
    *,
    generator: Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """How probable it is that a treated run beats one of the control, on a task drawn at random.

    The mean over tasks of the share of pairs of runs in which the treated one is higher, ties
    counting half; its interval resamples the seeds of each task, in both arms alike independently.
    Raises `RegrowError` where the two have not as many tasks.
    """
    require(
        len(treated) == len(control) > 0,
        f"treated and control must have the same tasks, got {len(treated)} and {len(control)}",
    )
    tasks = [
        (np.asarray(x, float), np.asarray(y, float)) for x, y in zip(treated, control, strict=True)
    ]
    drawn = np.zeros(resamples)
    for x, y in tasks:
        wins = _wins(x, y)
        rows = generator.integers(0, len(x), (resamples, len(x)))
        columns = generator.integers(0, len(y), (resamples, len(y)))
        drawn += wins[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2)) / len(tasks)
    estimate = float(np.mean([_wins(x, y).mean() for x, y in tasks]))
    return _percentile(estimate, drawn, confidence)


def _wins(x: Floats, y: Floats) -> Floats:
    return (x[:, None] > y) + 0.5 * (x[:, None] == y)


def performance_profile(
    scores: Scores,
    thresholds: ArrayLike,
    *,
    generator: Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> tuple[Floats, Floats, Floats]:
    """(share, low, high) of runs that score above each threshold; shapes (thresholds,).

    The interval is that of a bootstrap within tasks, threshold by threshold.
    """
    bands = [
        stratified_bootstrap(
            [np.asarray(task, dtype=np.float64) > threshold for task in scores],
            np.mean,
            generator=generator,
            resamples=resamples,
            confidence=confidence,
        )
        for threshold in np.asarray(thresholds, dtype=np.float64)
    ]
    estimates, lows, highs, _ = np.array(bands).T
    return estimates, lows, highs


def rank_correlation(
    x: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike,
    *,
    generator: Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Spearman's ρ between x and y, shapes (points,), and its interval by bootstrap.

    Points of a group are resampled together, since they are not independent of each other; where
    there are fewer than three groups, points are. A resample without any spread counts as 0. Raises
    `RegrowError` on unequal shapes or fewer than three points.
    """
    x, y, groups = np.asarray(x, float), np.asarray(y, float), np.asarray(groups)
    require(
        x.shape == y.shape == groups.shape and x.ndim == 1,
        f"x, y and groups must pair up, got {x.shape}, {y.shape} and {groups.shape}",
    )
    require(len(x) >= 3, f"a rank correlation needs at least 3 points, got {len(x)}")
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    if len(members) < 3:
        members = [np.array([i]) for i in range(len(x))]
    drawn = np.empty(resamples)
    for i in range(resamples):
        picks = generator.integers(0, len(members), len(members))
        chosen = np.concatenate([members[pick] for pick in picks])
        drawn[i] = _spearman(x[chosen], y[chosen])
    return _percentile(_spearman(x, y), drawn, confidence)


def _spearman(x: Floats, y: Floats) -> float:
    """Pearson's correlation of the ranks, ties sharing theirs."""
    a, b = rankdata(x), rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else 0.0


def _percentile(estimate: float, drawn: Floats, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high), confidence)

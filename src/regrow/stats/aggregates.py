"""Aggregate metrics over tasks, after *Deep RL at the Edge of the Statistical Precipice*.

The interquartile mean is in `regrow.stats.intervals`. This module has the other metrics of that
paper, arXiv 2108.13264 (optimality gap, probability of improvement, performance profile), and a
rank correlation. The caller normalises the scores: `scores[task]` has shape (seeds,). At least two
seeds are needed: an interval resamples the seeds of each task, and a single run has no spread.
"""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from regrow.errors import require
from regrow.stats.intervals import (
    Floats,
    Interval,
    Statistic,
    percentile,
    require_spread,
    stratified_bootstrap,
)

Scores = Sequence[ArrayLike]


@overload
def optimality_gap(scores: ArrayLike, axis: None = None) -> float: ...
@overload
def optimality_gap(scores: ArrayLike, axis: int) -> Floats: ...
def optimality_gap(scores: ArrayLike, axis: int | None = None) -> float | Floats:
    """The mean amount by which scores fall short of 1: the mean of max(1 − score, 0).

    `scores` has any shape. It is reduced over all axes, or along `axis` if given. Scores above 1
    count as 1.
    """
    short = np.maximum(1.0 - np.asarray(scores, dtype=np.float64), 0.0)
    return float(short.mean()) if axis is None else short.mean(axis=axis)


def over_tasks(
    scores: Scores,
    statistic: Statistic,
    *,
    generator: Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """The mean or median (`np.mean`, `np.median`) over tasks of each task's mean over seeds.

    The interval resamples the seeds of each task. Many papers report the median over tasks; it
    ignores nearly half of the tasks. Raises `RegrowError` if there is no task, or a task has only
    one run.
    """
    require(len(scores) > 0, "scores must hold at least one task, got none")
    require_spread(scores, "task")
    tasks = [np.asarray(task, dtype=np.float64) for task in scores]
    means = [
        task[generator.integers(0, len(task), (resamples, len(task)))].mean(1) for task in tasks
    ]
    drawn = np.asarray(statistic(np.stack(means, axis=1), axis=1))
    estimate = float(statistic(np.array([task.mean() for task in tasks]), axis=0))
    return percentile(estimate, drawn, confidence)


def probability_of_improvement(
    treated: Scores,
    control: Scores,
    *,
    generator: Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """The probability that a treated run beats a control run, on a task drawn at random.

    This is the mean over tasks of the share of pairs of runs in which the treated one is higher;
    ties count half. The interval resamples the seeds of each task, independently in both arms.
    There is no interval if all pairs agree. Raises `RegrowError` if the two do not have the same
    number of tasks, or a task has only one run.
    """
    require(
        len(treated) == len(control) > 0,
        f"treated and control must have the same tasks, got {len(treated)} and {len(control)}",
    )
    for name, scores in (("treated", treated), ("control", control)):
        require_spread(scores, f"{name} task")
    tasks = [
        (np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
        for x, y in zip(treated, control, strict=True)
    ]
    drawn = np.zeros(resamples)
    for x, y in tasks:
        wins = _wins(x, y)
        rows = generator.integers(0, len(x), (resamples, len(x)))
        columns = generator.integers(0, len(y), (resamples, len(y)))
        drawn += wins[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2)) / len(tasks)
    estimate = float(np.mean([_wins(x, y).mean() for x, y in tasks]))
    return percentile(estimate, drawn, confidence)


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
    """The share of runs that score above each threshold: (share, low, high), shapes (thresholds,).

    The intervals are from a stratified bootstrap within tasks, one per threshold. They are NaN if
    all runs of each task are on the same side of the threshold. Raises `RegrowError` if a task has
    only one run.
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
    groups: Sequence[Any] | NDArray[Any],
    *,
    generator: Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Spearman's ρ between x and y, shapes (points,), with a bootstrap interval.

    Whole groups are resampled, as the points of a group are not independent of each other. With
    fewer than three groups, single points are resampled. A resample without any spread counts as
    ρ = 0. If all resamples have the same ρ, there is no interval. Raises `RegrowError` on unequal
    shapes, fewer than three points, or values that are all equal, as they have no ranks.
    """
    x, y, group = np.asarray(x, np.float64), np.asarray(y, np.float64), np.asarray(groups)
    require(
        x.shape == y.shape == group.shape and x.ndim == 1,
        f"x, y and groups must pair up, got {x.shape}, {y.shape} and {group.shape}",
    )
    require(len(x) >= 3, f"a rank correlation needs at least 3 points, got {len(x)}")
    for name, values in (("x", x), ("y", y)):
        equal = f"{name} is {values[0]:g} in all {len(values)} points; it must vary to have ranks"
        require(np.unique(values).size > 1, equal)
    _, member = np.unique(group, return_inverse=True)
    if member.max() < 2:
        member = np.arange(len(x))
    drawn = generator.integers(0, member.max() + 1, (resamples, member.max() + 1))
    times = np.stack([(drawn == one).sum(axis=1) for one in range(member.max() + 1)], axis=1)
    correlations = _spearman(x, y, times[:, member])
    return percentile(float(_spearman(x, y, np.ones((1, len(x))))[0]), correlations, confidence)


def _spearman(x: Floats, y: Floats, times: NDArray[Any]) -> Floats:
    """Pearson's correlation of the ranks in samples that contain each point `times` times.

    `times` has shape (samples, points), the result (samples,).
    """
    a, b = _ranks(x, times), _ranks(y, times)
    count = times.sum(axis=1, keepdims=True)
    a, b = (ranks - (times * ranks).sum(axis=1, keepdims=True) / count for ranks in (a, b))
    size = np.sqrt((times * a**2).sum(axis=1) * (times * b**2).sum(axis=1))
    return np.divide((times * a * b).sum(axis=1), size, out=np.zeros(len(size)), where=size > 0)


def _ranks(values: Floats, times: NDArray[Any]) -> Floats:
    """The ranks of points in such samples, with ties averaged; shape (samples, points)."""
    _, place = np.unique(values, return_inverse=True)
    held = np.stack([times[:, place == one].sum(axis=1) for one in range(place.max() + 1)], axis=1)
    ranks = np.cumsum(held, axis=1) - held + (held + 1) / 2
    return ranks[:, place]

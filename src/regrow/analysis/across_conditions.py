"""Statistics over many conditions: which probe predicts the gain, and aggregates of every arm."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from regrow.analysis.conditions import Case
from regrow.diagnosis.judging import probes_of
from regrow.diagnosis.outcomes import areas
from regrow.errors import require
from regrow.stats.aggregates import optimality_gap, probability_of_improvement, rank_correlation
from regrow.stats.arrays import Floats
from regrow.stats.intervals import Interval, interquartile_mean, percentile


class Proxy(NamedTuple):
    """A probe at the fork and the gain from injection: one point per seed of every case."""

    name: str
    values: Floats
    gains: Floats
    cases: list[Case]  # (points,), as are the seeds
    seeds: list[int]
    correlation: Interval


def proxies(cases: Iterable[Case]) -> list[Proxy]:
    """Every probe that was measured in enough seeds, the best predictor (by |ρ|) first.

    Probes that never vary (such as one that is 0 in every run) are left out, and so are those whose
    gains are all equal.
    """
    judged = [case for case in cases if _has_unit(case)]
    points: dict[str, list[tuple[float, float, Case, int]]] = {}
    for case in judged:
        by_seed = gains_by_seed(case)
        for row, gain in zip(case.arms[case.injection], by_seed, strict=True):
            for name, value in probes_of(row, "fork").items():
                if math.isfinite(value):
                    points.setdefault(name, []).append((value, float(gain), case, row.seed))
    found = [_proxy(name, held) for name, held in points.items() if _correlates(held)]
    return sorted(found, key=lambda proxy: -abs(proxy.correlation.estimate))


LEAST = 5
"""The least number of points for a meaningful correlation."""


def _correlates(points: Sequence[tuple[float, float, Case, int]]) -> bool:
    values, gained, *_ = zip(*points, strict=True)
    return len(points) >= LEAST and len(set(values)) > 1 and len(set(gained)) > 1


def _proxy(name: str, points: Sequence[tuple[float, float, Case, int]]) -> Proxy:
    values, gained, held, seeds = zip(*points, strict=True)
    correlation = rank_correlation(
        np.array(values),
        np.array(gained),
        [f"{case.scale} {case.label}" for case in held],
        generator=np.random.default_rng(0),
    )
    return Proxy(name, np.array(values), np.array(gained), list(held), list(seeds), correlation)


class Aggregate(NamedTuple):
    """An arm over many tasks; scores are normalised so that the mean of `nothing` is 1."""

    arm: str
    interquartile_mean: Interval
    optimality_gap: Interval
    improvement: Interval | None  # over `nothing`; None for itself
    thresholds: Floats
    profile: tuple[Floats, Floats, Floats]  # share, low, high: NaN where all resamples agree


PROFILE = 41  # thresholds
RESAMPLES, CONFIDENCE = 2_000, 0.95


def aggregates(cases: Iterable[Case]) -> list[Aggregate]:
    """The metrics of arXiv 2108.13264 for every arm that all judged cases have.

    A score is 1 + (a run's mean return after the fork − the mean of `nothing`) / the verdict's
    unit. So arms are comparable, but agents are not.
    """
    judged = [case for case in cases if _has_unit(case)]
    if len(judged) < 2:
        return []
    shared = [arm for arm in judged[0].arms if all(arm in case.arms for case in judged)]
    scores = {arm: [_scores(case, arm) for case in judged] for arm in shared}
    pool = np.concatenate([task for tasks in scores.values() for task in tasks])
    thresholds = np.linspace(pool.min(), pool.max(), PROFILE)
    return [_aggregate(arm, scores, _resampled(judged, arm), thresholds) for arm in shared]


def _scores(case: Case, arm: str) -> Floats:
    return 1 + (areas(case.outcomes[arm]) - areas(case.outcomes["nothing"]).mean()) / _unit(case)


def _resampled(cases: Sequence[Case], arm: str) -> Floats:
    """Scores of all cases with the seeds of each resampled with replacement; (resamples, runs).

    A seed is drawn with both of its runs, because the mean return of `nothing` is as uncertain as
    that of the arm.
    """
    generator, drawn = np.random.default_rng(0), []
    for case in cases:
        treated, control = areas(case.outcomes[arm]), areas(case.outcomes["nothing"])
        rows = generator.integers(0, len(control), (RESAMPLES, len(control)))
        drawn.append(1 + (treated[rows] - control[rows].mean(1, keepdims=True)) / _unit(case))
    return np.concatenate(drawn, axis=1)


def _has_unit(case: Case) -> bool:
    """Whether effects have a unit: a case is judged, and some arm above the random policy."""
    return case.verdict is not None and case.verdict.unit_value > 0


def _unit(case: Case) -> float:
    assert case.verdict is not None, "a judged case"
    return case.verdict.unit_value


def _aggregate(
    arm: str, scores: Mapping[str, Sequence[Floats]], drawn: Floats, thresholds: Floats
) -> Aggregate:
    own = np.concatenate(scores[arm])
    above, bands = own[:, None] > thresholds, (drawn[:, :, None] > thresholds).mean(axis=1)
    shares = [
        percentile(share, band, CONFIDENCE, size=1.0)
        for share, band in zip(above.mean(axis=0), bands.T, strict=True)
    ]
    share, low, high, _ = np.array(shares).T
    return Aggregate(
        arm,
        percentile(interquartile_mean(own), interquartile_mean(drawn, axis=1), CONFIDENCE),
        percentile(optimality_gap(own), optimality_gap(drawn, axis=1), CONFIDENCE),
        None
        if arm == "nothing"
        else probability_of_improvement(
            scores[arm], scores["nothing"], generator=np.random.default_rng(0)
        ),
        thresholds,
        (share, low, high),
    )


def gains_by_seed(case: Case, arm: str | None = None) -> Floats:
    """The gain of an arm (by default the injection) over `nothing`, per seed; shape (seeds,).

    As a share of the verdict's unit. Raises `RegrowError` where that is not above 0.
    """
    require(_has_unit(case), f"no arm of {case.label} earns more than chance")
    treated = case.outcomes[arm or case.injection]
    return (areas(treated) - areas(case.outcomes["nothing"])) / _unit(case)

"""Metrics over many tasks, beside computations that do not share a line with them."""

import itertools

import numpy as np
import pytest
from scipy import stats

from regrow.errors import RegrowError
from regrow.stats.aggregates import (
    optimality_gap,
    over_tasks,
    performance_profile,
    probability_of_improvement,
    rank_correlation,
)

SCORES = [np.array([0.2, 0.9, 1.4]), np.array([2.0, 0.5, 1.0, 0.1])]
CONTROL = [np.array([0.3, 0.9, 0.1]), np.array([1.0, 1.0, 0.6])]


def draws() -> np.random.Generator:
    return np.random.default_rng(7)


def test_the_optimality_gap_counts_what_is_missing_to_one():
    pool = np.concatenate(SCORES)
    expected = sum(1 - x for x in pool if x < 1) / len(pool)
    assert optimality_gap(pool) == pytest.approx(expected)
    assert optimality_gap(np.ones((3, 4)), axis=-1).shape == (3,)


def test_the_probability_of_improvement_counts_pairs_with_ties_as_halves():
    shares = []
    for treated, control in zip(SCORES, CONTROL, strict=True):
        pairs = list(itertools.product(treated, control))
        shares.append(sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs))
    found = probability_of_improvement(SCORES, CONTROL, generator=draws())
    assert found.estimate == pytest.approx(np.mean(shares))
    assert found.low < found.estimate < found.high
    assert probability_of_improvement(SCORES, SCORES, generator=draws()).estimate == 0.5


def test_the_interval_of_an_improvement_covers_what_is_true():
    """Two normal arms one sd apart: P(X > Y) = Φ(1/√2)."""
    truth, rng, covered = stats.norm.cdf(1 / np.sqrt(2)), np.random.default_rng(1), 0
    for _ in range(100):
        found = probability_of_improvement(
            list(rng.normal(1, 1, (4, 20))),
            list(rng.normal(0, 1, (4, 20))),
            generator=rng,
            resamples=300,
        )
        covered += found.low <= truth <= found.high
    assert 85 <= covered <= 100


def test_a_profile_is_the_share_of_runs_above_each_threshold():
    thresholds = [0.0, 0.5, 1.0, 5.0]
    share, low, high = performance_profile(SCORES, thresholds, generator=draws(), resamples=200)
    pool = np.concatenate(SCORES)
    np.testing.assert_allclose(share, [np.mean([x > t for x in pool]) for t in thresholds])
    known = ~np.isnan(low)
    assert known.tolist() == [False, True, True, False]  # all runs are above 0, in any resample
    assert (low <= share)[known].all()
    assert (share <= high)[known].all()
    np.testing.assert_array_equal(known, ~np.isnan(high))


def test_rank_correlation_is_spearmans_with_ties():
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 6, 40).astype(float), rng.normal(size=40)
    found = rank_correlation(x, y, np.arange(40) // 5, generator=draws())
    assert found.estimate == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.low < found.estimate < found.high
    perfect = rank_correlation(x, np.exp(x), np.arange(40), generator=draws())
    assert perfect.estimate == 1
    assert perfect.missing  # every resample is perfect, too: no interval of no width


def test_the_interval_of_a_rank_correlation_is_that_of_samples_drawn_one_by_one():
    rng = np.random.default_rng(4)
    x, groups = rng.integers(0, 9, 30).astype(float), np.repeat(np.arange(6), 5)
    y = x + rng.normal(0, 4, 30)
    drawn = []
    for _ in range(1000):
        picks = np.concatenate([np.flatnonzero(groups == g) for g in rng.integers(0, 6, 6)])
        drawn.append(stats.spearmanr(x[picks], y[picks]).statistic)
    found = rank_correlation(x, y, groups, generator=draws(), resamples=5000)
    np.testing.assert_allclose(found[1:3], np.quantile(drawn, [0.025, 0.975]), atol=0.06)


def test_points_that_belong_together_make_the_interval_wider():
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(8), 10)
    x = rng.normal(size=8)[group] + 0.05 * rng.normal(size=80)
    y = x + rng.normal(size=8)[group]
    together = rank_correlation(x, y, group, generator=draws())
    alone = rank_correlation(x, y, np.arange(80), generator=draws())
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_what_does_not_pair_up_is_refused():
    with pytest.raises(RegrowError, match="same tasks, got 2 and 1"):
        probability_of_improvement(SCORES, CONTROL[:1], generator=draws())
    with pytest.raises(RegrowError, match="at least 3 points, got 2"):
        rank_correlation([1, 2], [1, 2], [0, 1], generator=draws())
    for x, y, which in (([4, 4, 4], [1, 2, 3], "x is 4"), ([1, 2, 3], [0, 0, 0], "y is 0")):
        with pytest.raises(RegrowError, match=f"{which} in all 3 points; it must vary"):
            rank_correlation(x, y, [0, 1, 2], generator=draws())
    with pytest.raises(RegrowError, match="must pair up"):
        rank_correlation([1, 2, 3], [1, 2], [0, 1, 2], generator=draws())


ONE_EACH = [np.array([0.2]), np.array([2.0])]
ONE_AMONG = [np.array([0.2, 0.9]), np.array([2.0])]


@pytest.mark.parametrize(("tasks", "which"), [(ONE_EACH, "0 .*2 of 2"), (ONE_AMONG, "1 .*1 of 2")])
def test_a_task_of_one_run_is_refused(tasks, which):
    drawn = {"generator": draws()}
    for call in (
        lambda: over_tasks(tasks, np.mean, **drawn),
        lambda: over_tasks(tasks, np.median, **drawn),
        lambda: probability_of_improvement(tasks, CONTROL, **drawn),
        lambda: probability_of_improvement(SCORES, tasks, **drawn),
        lambda: performance_profile(tasks, [0.5], **drawn),
    ):
        with pytest.raises(RegrowError, match=f"{which}.*one run per task says nothing"):
            call()


def test_an_improvement_in_every_pair_has_no_interval():
    better = [np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.5])]
    worse = [np.array([0.0, -1.0]), np.array([0.5, 0.1, 0.2])]
    for treated, control, expected in ((better, worse, 1.0), (worse, better, 0.0)):
        found = probability_of_improvement(treated, control, generator=draws())
        assert found.estimate == expected
        assert found.missing
    mixed = [better[0], worse[1]], [worse[0], better[1]]  # each task agrees with itself
    assert probability_of_improvement(*mixed, generator=draws()).missing


def test_equal_scores_have_no_interval_over_tasks():
    assert over_tasks([[1.0, 1.0], [3.0, 3.0, 3.0]], np.mean, generator=draws()).missing


def test_mean_and_median_over_tasks_are_of_the_tasks_means():
    tasks = [np.array([1.0, 3.0]), np.array([10.0, 20.0, 30.0]), np.array([99.0, 101.0])]
    drawn = {"generator": draws(), "resamples": 500}
    assert over_tasks(tasks, np.mean, **drawn).estimate == pytest.approx((2 + 20 + 100) / 3)
    median = over_tasks(tasks, np.median, **drawn)
    assert median.estimate == 20
    assert 10 <= median.low < 20 < median.high <= 30


def test_the_interval_of_a_mean_over_tasks_is_that_of_its_strata():
    tasks = list(np.random.default_rng(6).normal(size=(8, 10)) + 100 * np.arange(8)[:, None])
    found = over_tasks(tasks, np.mean, generator=draws(), resamples=20_000)
    sd = np.sqrt(np.mean([task.var() for task in tasks]) / 80)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * sd, rel=0.03)

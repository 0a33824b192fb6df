"""Looks at data that come in: error rates by simulation, and what stands beside a t test."""

import numpy as np
import pytest
from scipy import stats

from regrow.errors import RegrowError
from regrow.stats.sequential import (
    Levels,
    e_value,
    levels_of,
    outlook,
    p_paths,
    power,
    sign_test,
    simulated_levels,
    spent,
    usual_looks,
)

ODD_LOOKS = {"usual": usual_looks(20), "every": tuple(range(5, 31)), "few": (5, 10, 20)}


def crossings(looks, paths, *, design="paired", ratio=1.0, shift=0.0, seed=7) -> np.ndarray:
    """Whether each path is significant at each look; (looks, paths)."""
    levels = levels_of(looks)
    p = p_paths(looks, paths, np.random.default_rng(seed), design, shift, ratio)
    return np.array([one < level for one, level in zip(p, levels.levels, strict=True)])


def errors(crossed: np.ndarray) -> np.ndarray:
    """The share of paths that was significant by each look."""
    return np.logical_or.accumulate(crossed, axis=0).mean(axis=1)


@pytest.mark.parametrize(
    ("looks", "paths", "within"),
    [
        *((looks, 10_000, 0.009) for looks in ODD_LOOKS.values()),
        *(
            pytest.param(looks, 100_000, 0.003, marks=pytest.mark.slow)
            for looks in ODD_LOOKS.values()
        ),
    ],
)
def test_at_every_look_as_much_is_spent_as_was_planned(looks, paths, within):
    """Four standard errors of 10,000 paths are 0.9 points; of 100,000, 0.3."""
    expected = [0.05 * spent(n) for n in looks]
    np.testing.assert_allclose(errors(crossings(looks, paths)), expected, atol=within)


@pytest.mark.parametrize(
    "paths", [10_000, pytest.param(100_000, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_all_intervals_of_all_looks_cover_the_truth_together(paths):
    """Repeated confidence intervals, computed here from the draws themselves."""
    looks, rng = usual_looks(20), np.random.default_rng(3)
    draws = rng.normal(2.5, 4.0, (20, paths))
    levels, covered = levels_of(looks), np.ones(paths, bool)
    for n in looks:
        part = draws[:n]
        half = levels.critical(n, n - 1.0) * part.std(axis=0, ddof=1) / np.sqrt(n)
        covered &= np.abs(part.mean(axis=0) - 2.5) <= half
    assert covered.mean() == pytest.approx(1 - 0.05 * spent(20), abs=0.9 / np.sqrt(paths))


@pytest.mark.parametrize("ratio", [1.0, 2.0, 4.0, 20.0])
def test_a_welch_test_keeps_its_error_where_the_arms_differ_in_noise(ratio):
    """4.0% to 5.0% by 20 replicates, as measured with 60,000 paths."""
    crossed = crossings(usual_looks(20), 10_000, design="independent", ratio=ratio)
    assert errors(crossed)[-1] < 0.056


def test_whoever_presses_on_from_5_to_30_seeds_errs_no_more_than_5_percent():
    """A look after every seed; with the fixed-sample t test it would be 11.5% on each side."""
    looks = tuple(range(5, 31))
    assert errors(crossings(looks, 10_000))[-1] < 0.05
    p = np.array(list(p_paths(looks, 10_000, np.random.default_rng(7))))
    assert (p < 0.05).any(axis=0).mean() > 0.2


def test_looks_may_be_added_later_without_changing_those_before():
    first, more = levels_of((4, 5)), levels_of((4, 5, 6, 8, 10))
    assert more.levels[:2] == first.levels
    usual = levels_of(usual_looks(20)).levels
    assert usual[:4] == levels_of((4, 6, 8, 10)).levels


def test_the_table_is_what_a_simulation_gives():
    """Two other sets of 200,000 paths, to within their own error."""
    looks = (4, 6, 8, 10)
    held = np.array(levels_of(looks).levels)
    again = [simulated_levels(looks, 0.05, seed=seed) for seed in (11, 12)]
    np.testing.assert_allclose(np.mean(again, axis=0), held, rtol=0.05)


@pytest.mark.parametrize(
    ("looks", "confidence"), [((), 0.95), ((4, 4), 0.95), ((1, 2), 0.95), ((4,), 1.0)]
)
def test_what_is_no_plan_of_looks_is_refused(looks, confidence):
    with pytest.raises(RegrowError, match=r"looks must ascend|confidence must lie"):
        levels_of(looks, confidence=confidence)


def test_the_usual_looks_end_with_the_most():
    assert usual_looks(20) == (4, 6, 8, 10, 12, 14, 16, 18, 20)
    assert usual_looks(5) == (4, 5)
    assert usual_looks(2) == (2,)
    assert usual_looks(30)[-3:] == (24, 28, 30)


def test_the_e_value_is_the_integral_that_it_stands_for():
    """The likelihood ratio of a t sample with mean δσ, δ ~ N(0, g), against δ = 0."""
    from scipy.integrate import quad

    for t, n in ((0.3, 5), (2.0, 8), (6.0, 20), (-2.0, 8)):

        def ratio(delta, t=t, n=n):
            return (
                stats.nct.pdf(t, n - 1, delta * np.sqrt(n)) / stats.t.pdf(t, n - 1)
            ) * stats.norm.pdf(delta)

        assert e_value(t, n) == pytest.approx(quad(ratio, -8, 8, limit=200)[0], rel=1e-4)


def test_an_e_value_of_20_is_as_rare_as_it_says():
    rng = np.random.default_rng(0)
    draws = rng.normal(0, 3, (30, 1_000))
    high = np.zeros(1_000, bool)
    for n in range(3, 31):
        part = draws[:n]
        t = part.mean(0) / (part.std(0, ddof=1) / np.sqrt(n))
        high |= np.array([e_value(float(x), n) for x in t]) >= 20
    assert high.mean() < 0.05


def test_the_outlook_is_what_happens():
    """Of samples that were drawn from a prior and looked at once, the mean of further seeds."""
    levels = levels_of(usual_looks(20))
    rng = np.random.default_rng(0)
    sample = rng.normal(0.8, 1.0, 6)
    told = outlook(float(sample.mean()), float(sample.std(ddof=1)), 6, levels, paths=10_000)
    variance = sample.var(ddof=1) * 5 / rng.chisquare(5, 1_500)
    true = sample.mean() + rng.standard_normal(1_500) * np.sqrt(variance / 6)
    further = rng.normal(true[:, None], np.sqrt(variance)[:, None], (1_500, 14))
    draws, reached = np.c_[np.tile(sample, (1_500, 1)), further], np.full(1_500, 20 - 6)
    for n in reversed(usual_looks(20)[2:]):
        t = stats.ttest_1samp(draws[:, :n], 0, axis=1).statistic
        reached[np.abs(t) > levels.critical(n, n - 1.0)] = n - 6
    assert told.further == pytest.approx(np.mean(reached), abs=0.5)


def test_power_counts_the_side_that_the_truth_is_on():
    levels = levels_of((4, 6, 8))
    p = np.array(list(p_paths((4, 6, 8), 20_000, np.random.default_rng(1), shift=1.5)))
    crossed = (p < np.array(levels.levels)[:, None]).any(axis=0).mean()
    assert power(1.5, levels) == pytest.approx(crossed, abs=0.015)
    assert power(-1.5, levels) == pytest.approx(power(1.5, levels), abs=0.015)


def test_the_sign_test_is_scipys():
    values = np.array([0.1, 0.2, -0.1, 0.4, 0.0, 0.3, 0.2])
    assert sign_test(values) == stats.binomtest(5, 6).pvalue
    assert sign_test(np.zeros(3)) == 1.0
    assert Levels((4,), (0.05,)).critical(4, 3.0) == pytest.approx(stats.t.ppf(0.975, 3))

"""Effects as shares of what learning is worth: intervals by inversion, and where noise is from."""

import numpy as np
import pytest
from scipy import stats

from regrow.stats.effects import components, independent, paired

RNG = np.random.default_rng(0)


def sample(n=8, *, control=6.0, gain=1.5, sd=0.7):
    trunk = RNG.normal(0, 1, n)
    return control + gain + trunk + RNG.normal(0, sd, n), control + trunk + RNG.normal(0, sd, n)


def test_fiellers_interval_is_where_the_t_test_does_not_reject():
    for _ in range(20):
        treated, control = sample()
        unit = treated - 1.0
        measured = paired(treated, control, unit)
        critical = float(stats.t.ppf(0.975, 7))
        interval = measured.interval(critical, 0.95)
        assert interval.low < interval.estimate < interval.high
        for end in interval[1:3]:
            p = stats.ttest_1samp(treated - control - end * unit, 0).pvalue
            assert p == pytest.approx(0.05, rel=1e-6)
        inside = stats.ttest_1samp(treated - control - interval.estimate * unit, 0).pvalue
        assert inside > 0.99


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_its_coverage_is_as_stated_where_that_of_a_plain_ratio_is_not(noise):
    """An effect of +686% of the control, as in the case that was found: plain intervals miss it."""
    rng, covered, plain = np.random.default_rng(1), 0, 0
    n, repeats, critical = 5, 2_000, float(stats.t.ppf(0.975, 4))
    for _ in range(repeats):
        control, treated = rng.normal(1.0, noise, n), rng.normal(7.86, 7.86 * noise, n)
        unit = control
        truth = 6.86
        interval = paired(treated, control, unit).interval(critical, 0.95)
        covered += interval.low <= truth <= interval.high
        d = treated - control
        half = critical * d.std(ddof=1) / np.sqrt(n) / control.mean()
        plain += abs(d.mean() / control.mean() - truth) <= half
    assert covered / repeats == pytest.approx(0.95, abs=0.016)
    assert plain < covered


def test_an_end_is_infinite_where_the_unit_is_not_clearly_above_zero():
    treated, control = np.array([9.0, 11.0, 10.0, 10.4]), np.array([0.1, -0.2, 0.0, 0.3])
    unit = np.array([5.0, -3.0, 9.0, 1.0])
    interval = paired(treated, control, unit).interval(3.18, 0.95)
    assert (interval.low > 0, interval.high) == (True, np.inf)
    assert paired(control, treated, unit).interval(3.18, 0.95)[1:3] == (-np.inf, -interval.low)
    assert (
        paired(treated, treated + np.array([0.1, -0.1, 0.2, -0.1]), unit)
        .interval(3.18, 0.95)
        .missing
    )
    assert paired(treated, control, -unit).interval(3.18, 0.95).missing


def test_the_random_policys_error_widens_the_interval():
    treated, control = sample()
    plain = paired(treated, control, treated - 1.0)
    wide = paired(treated, control, treated - 1.0, 0.5)
    assert wide.error(0.1) == pytest.approx(np.hypot(plain.error(0.1), 0.1 * 0.5))


def test_independent_samples_are_welchs():
    rng = np.random.default_rng(5)
    treated, control = rng.normal(3, 1, 6), rng.normal(1, 0.2, 9)
    measured = independent(treated, control, np.zeros(0), -10.0)
    expected = stats.ttest_ind(treated, control, equal_var=False)
    assert measured.statistic(0.0) == pytest.approx(expected.statistic)
    assert measured.degrees == pytest.approx(expected.df)
    assert measured.u == 10.0


@pytest.mark.parametrize("which", ["treated", "control", "third"])
def test_the_best_arm_of_independent_samples_counts_with_its_error(which):
    """z = d − θ u is a sum of independent means: its variance, by simulation of the means."""
    rng = np.random.default_rng(5)
    arms = {"treated": rng.normal(5, 1, 8), "control": rng.normal(3, 0.5, 8)}
    arms["third"] = rng.normal(6, 2, 8)
    measured = independent(arms["treated"], arms["control"], arms[which], 1.0, 0.3, 0.2)
    errors = {name: x.std(ddof=1) / np.sqrt(len(x)) for name, x in arms.items()}
    draws = {name: rng.normal(x.mean(), errors[name], 100_000) for name, x in arms.items()}
    random = rng.normal(1.0, 0.3, 100_000)
    z = draws["treated"] - draws["control"] - 0.2 * (draws[which] - random)
    assert measured.error(0.2) == pytest.approx(z.std(), rel=0.01)
    assert measured.d - 0.2 * measured.u == pytest.approx(z.mean(), abs=0.01)


def test_where_the_noise_is_from():
    """Runs of one fork with sd 2, effects of forks with sd 3: both are found, with 400 forks."""
    rng, forks = np.random.default_rng(0), []
    for _ in range(400):
        effect = rng.normal(1.0, 3.0)
        forks.append((effect + rng.normal(0, 2, 3), rng.normal(0, 2, 2)))
    found = components(forks)
    assert found.within == pytest.approx(2.0, rel=0.05)
    assert found.between == pytest.approx(3.0, rel=0.1)
    assert found.degrees == 400 * 3
    assert components([(np.ones(1), np.ones(1))]) is None
    assert np.isnan(components([(np.array([1.0, 2.0]), np.array([1.0, 2.0]))]).between)

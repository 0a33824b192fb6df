"""From curves to claims: the three of them, and every finding."""

import numpy as np
import pytest
from scipy import stats

from regrow.diagnosis.conclusion import conclude
from regrow.diagnosis.findings import stand_apart
from regrow.diagnosis.outcomes import Outcome
from regrow.diagnosis.plan import Roles
from regrow.diagnosis.verdict import Verdict
from regrow.errors import RegrowError
from regrow.files.atomic import read_json, write_json
from regrow.report.terminal import interval

NOISE = np.array([-0.4, -0.1, 0.0, 0.2, 0.3])


def arm(name: str, level: float, *, noise=NOISE, predicted: float = 5.0, **more) -> list[Outcome]:
    return [
        Outcome(
            arm=name,
            seed=seed,
            curve=tuple((level + x + np.linspace(-0.5, 0.5, 20)).tolist()),
            predicted=(predicted,) * 20,
            realised=4.0,
            largest_reward=1.0,
            **more,
        )
        for seed, x in enumerate(noise)
    ]


def verdict(*arms: list[Outcome], **options) -> Verdict:
    return conclude([run for runs in arms for run in runs], **{"random_return": 0.5, **options})


def codes(verdict: Verdict) -> set[str]:
    return {finding.code for finding in verdict.findings}


NOTHING = arm("nothing", 10.0)
AGAIN = arm("again", 10.0, noise=NOISE[::-1])
RESET = arm("reset", 10.1, noise=NOISE[::-1])


def test_an_effect_above_the_smallest_is_plasticity_loss():
    result = verdict(NOTHING, AGAIN, arm("inject", 13.0, noise=NOISE[[1, 0, 2, 4, 3]]), RESET)
    assert result.claim == "plasticity loss"
    assert result.effect.estimate == pytest.approx(3 / 12.5)  # 13 is 12.5 above the random policy
    assert codes(result) == set()
    assert result.further is None
    assert (result.population, result.n) == ("training", 5)


def test_the_difference_is_that_of_a_paired_t_test_with_the_mean_of_the_replicates():
    """`again` is the second replicate of `nothing`."""
    treated = arm("inject", 11.0, noise=NOISE[[1, 0, 2, 4, 3]])
    result = verdict(NOTHING, AGAIN, treated, RESET)
    means = np.mean([[run.area for run in runs] for runs in (NOTHING, AGAIN)], axis=0)
    expected = stats.ttest_rel([run.area for run in treated], means).confidence_interval(0.95)
    np.testing.assert_allclose(result.difference[1:3], expected, rtol=1e-9)
    assert "again" not in {row.arm for row in result.comparisons}


def test_an_effect_below_the_smallest_is_no_plasticity_loss():
    result = verdict(NOTHING, AGAIN, arm("inject", 9.9, noise=NOISE[[1, 0, 2, 4, 3]]), RESET)
    assert result.claim == "no plasticity loss"
    assert result.effect.high < 0.1
    assert "no plasticity was lost in the layers from the split on" in result.reason
    assert codes(result) == set()


def test_an_interval_across_the_smallest_effect_is_inconclusive():
    result = verdict(NOTHING, AGAIN, arm("inject", 11.0, noise=NOISE[::-1] * 3), RESET)
    assert result.claim == "inconclusive"
    assert result.effect.low < 0.1 < result.effect.high
    assert result.further is not None
    assert result.further.further > 1
    assert "further seeds" in result.reason
    assert result.to_dict()["further"]["further"] == result.further.further


def test_the_smallest_effect_decides():
    arms = NOTHING, AGAIN, arm("inject", 12.5, noise=NOISE[[1, 0, 2, 4, 3]]), RESET
    assert verdict(*arms).claim == "plasticity loss"
    assert verdict(*arms, smallest_effect=0.3).claim == "no plasticity loss"


def test_where_a_reset_helps_and_injection_does_not_no_loss_is_not_claimed():
    reset = arm("reset", 14.0, noise=NOISE[[1, 0, 2, 4, 3]])
    result = verdict(NOTHING, AGAIN, arm("inject", 9.9, noise=NOISE[[1, 0, 2, 4, 3]]), reset)
    assert result.claim == "inconclusive"
    assert codes(result) == {"reset_helps_injection_does_not"}
    assert "wrong value estimates" in result.reason
    assert "--where" in result.reason
    helped = verdict(NOTHING, AGAIN, arm("inject", 13.9, noise=NOISE[[1, 0, 2, 4, 3]]), reset)
    assert helped.claim == "plasticity loss"
    assert codes(helped) == set()


def test_values_that_no_return_supports_have_diverged():
    for predicted, diverged in ((39.0, False), (41.0, True), (float("inf"), True)):
        nothing = arm("nothing", 10.0, predicted=predicted)
        found = codes(verdict(nothing, AGAIN, arm("inject", 9.9), RESET))
        assert ("values_diverged" in found) == diverged


def test_episodes_that_were_restarted_at_the_fork_are_mentioned_and_change_nothing():
    arms = NOTHING, AGAIN, arm("inject", 13.0, noise=NOISE[[1, 0, 2, 4, 3]]), RESET
    result = verdict(*arms, restarted=True)
    assert codes(result) == {"episodes_restarted"}
    assert "every arm began a new episode at the fork, alike" in result.findings[-1].text
    assert (result.claim, result.reason) == (verdict(*arms).claim, verdict(*arms).reason)


def test_a_reset_that_is_not_clearly_better_than_injection_says_nothing_about_it():
    """Injection helps more on average, but not surely: no ground to speak of wrong beliefs."""
    inject = arm("inject", 30.0, noise=[-20.0, 30.0, -10.0, -25.0, 40.0])
    result = verdict(NOTHING, AGAIN, inject, arm("reset", 28.0, noise=NOISE[[1, 0, 2, 4, 3]]))
    assert result.claim == "inconclusive"
    assert "reset_helps_injection_does_not" not in codes(result)


@pytest.mark.parametrize(("spread", "told"), [(1.0, True), (40.0, False)])
def test_a_layer_is_named_only_where_the_next_split_does_worse(spread, told):
    """The second split gains as much or nothing; one interval across the bound is no difference."""
    order = NOISE[[1, 0, 2, 4, 3]]
    second = arm("inject(split=1)", 10.0 if told else 14.5, noise=spread * NOISE[::-1])
    arms = NOTHING, AGAIN, RESET, arm("inject(split=0)", 14.0, noise=order), second
    splits = {"inject(split=0)": 0, "inject(split=1)": 1}
    result = verdict(*arms, roles=Roles(injection="inject(split=0)", splits=splits))
    (finding,) = [one for one in result.findings if one.code == "lost_in"]
    expected = "layer 0: renewing it" if told else "in layer 0 or after it: renewing from 0 and"
    assert finding.text.startswith(expected)


@pytest.mark.parametrize(("seeds", "sd"), [(2, 0.15), (3, 0.15), (3, 0.3), (5, 0.3)])
def test_agents_that_learned_are_said_to(seeds, sd):
    """Four arms at ten times the random return: 60 diagnoses each."""
    rng, told = np.random.default_rng(0), 0
    for _ in range(60):
        arms = [
            arm(name, 10.0, noise=rng.normal(0, 10 * sd, seeds))
            for name in ("nothing", "again", "inject", "reset")
        ]
        told += "nobody_learns" in codes(verdict(*arms, random_return=1.0, random_error=0.1))
    assert told <= (4 if seeds == 2 else 1)


def test_arms_at_the_random_policy_are_said_to_be():
    """Three arms of five seeds: one of them seems to learn in about three of twenty."""
    rng, told = np.random.default_rng(0), 0
    for _ in range(60):
        arms = [
            shaped(name, np.full(20, -9.0), noise=rng.normal(0, 0.3, 5))
            for name in ("nothing", "inject", "reset")
        ]
        told += "nobody_learns" in codes(verdict(*arms, random_return=1.0))
    assert told > 44


def test_where_every_episode_is_cut_off_early_there_is_no_scale():
    def cut_off(name, predicted):
        runs = arm(name, 10.0, predicted=predicted)
        return [Outcome(**{**vars(run), "realised": 0.0, "largest_reward": 8.0}) for run in runs]

    for predicted, diverged in ((700.0, False), (float("inf"), True)):
        arms = (cut_off(name, predicted) for name in ("nothing", "again", "inject", "reset"))
        assert ("values_diverged" in codes(verdict(*arms))) == diverged


def test_where_nothing_was_collected_small_values_have_not_diverged():
    def poor(name, predicted):
        runs = arm(name, 10.0, predicted=predicted)
        return [Outcome(**{**vars(run), "realised": 0.0, "largest_reward": 0.0}) for run in runs]

    for predicted, diverged in ((0.01, False), (11.0, True)):
        arms = (poor(name, predicted) for name in ("nothing", "again", "inject", "reset"))
        assert ("values_diverged" in codes(verdict(*arms))) == diverged


def test_where_nobody_learns_nothing_is_claimed():
    low = [arm(name, 0.5, noise=NOISE[order]) for name, order in (
        ("nothing", [0, 1, 2, 3, 4]),
        ("again", [1, 0, 2, 4, 3]),
        ("inject", [4, 3, 2, 1, 0]),
        ("reset", [2, 1, 0, 4, 3]),
    )]  # fmt: skip
    for runs in low:
        for i, run in enumerate(runs):
            runs[i] = Outcome(**{**vars(run), "curve": tuple(x - 0.6 for x in run.curve)})
    result = verdict(*low)
    assert result.claim == "inconclusive"
    assert "nobody_learns" in codes(result)
    assert "control_did_not_learn" not in codes(result)  # that is said already
    assert "random policy" in result.reason


def test_replicates_give_the_noise_and_the_mean_of_a_seed():
    """Two replicates of two arms of five seeds: ten degrees of freedom, pooled."""
    inject = arm("inject", 13.0, noise=NOISE[[1, 0, 2, 4, 3]])
    other = [
        Outcome(**{**vars(run), "replicate": 1, "curve": tuple(np.add(run.curve, x))})
        for run, x in zip(inject, (0.4, -0.2, 0.6, 0.0, -0.8), strict=True)
    ]
    result = verdict(NOTHING, AGAIN, [*inject, *other], RESET)
    pairs = np.array(
        [
            [[run.area for run in first], [run.area for run in second]]
            for first, second in ((NOTHING, AGAIN), (inject, other))
        ]
    )
    within = pairs.var(axis=1, ddof=1).mean()
    assert result.noise.degrees == 10
    assert result.noise.within == pytest.approx(np.sqrt(within) / result.unit_value)
    differences = pairs[1].mean(axis=0) - pairs[0].mean(axis=0)
    assert result.difference.estimate == pytest.approx(differences.mean())
    between = max(0.0, differences.var(ddof=1) - within)
    assert result.noise.between == pytest.approx(np.sqrt(between) / result.unit_value)
    assert result.replicates == 2


@pytest.mark.parametrize("level", [20.0, 9.0, 10.0])
def test_the_same_difference_for_every_seed_says_nothing(level, tmp_path):
    result = verdict(NOTHING, arm("inject", level), RESET)
    assert result.claim == "inconclusive"
    assert "no_spread" in codes(result)
    assert result.effect.estimate == pytest.approx((level - 10) / (max(level, 10.1) - 0.5))
    assert result.effect.missing
    assert result.further is None
    assert "same in every run" in result.reason
    assert not codes(result) & {"injection_costs", "reset_helps_injection_does_not"}
    (row,) = [row for row in result.comparisons if row.arm == "inject"]
    assert row.difference.missing
    assert interval(row.share) == f"{result.effect.estimate:+.0%} (no interval)"
    write_json(tmp_path / "verdict.json", result.to_dict())
    kept = read_json(tmp_path / "verdict.json")["effect"]
    assert (kept["low"], kept["high"]) == (None, None)
    assert kept["estimate"] == result.effect.estimate


@pytest.mark.parametrize("level", [5.0, 15.0])
def test_a_reset_that_does_the_same_to_every_seed_is_no_finding(level):
    inject = arm("inject", 9.9, noise=NOISE[[1, 0, 2, 4, 3]])
    result = verdict(NOTHING, inject, arm("reset", level))
    assert codes(result) == set()


def test_a_split_that_does_the_same_to_every_seed_leaves_open_where_it_was_lost():
    first, second = arm("inject(split=0)", 14.0, noise=NOISE[::-1]), arm("inject(split=1)", 14.0)
    splits = {"inject(split=0)": 0, "inject(split=1)": 1}
    result = verdict(
        NOTHING,
        RESET,
        first,
        second,
        roles=Roles(injection="inject(split=0)", splits=splits),
    )
    (finding,) = [one for one in result.findings if one.code == "lost_in"]
    assert finding.text.startswith("not told: all seeds show the same difference at split 1")


def test_runs_that_all_end_at_the_most_there_is_have_learned():
    """Five runs of 500 of 500 have no interval, and are not at the random policy's 22."""
    flat = [arm(name, 500.0, noise=NOISE * 0) for name in ("nothing", "again", "inject", "reset")]
    result = verdict(*flat, random_return=22.0)
    assert not codes(result) & {"nobody_learns", "control_did_not_learn"}
    assert (result.claim, "no_spread" in codes(result)) == ("inconclusive", True)


# An injection that costs, and whether the end shows it.


def shaped(name: str, way, *, noise=NOISE) -> list[Outcome]:
    """An arm whose curve is 10 + `way`, and the noise of its seed."""
    return [
        Outcome(name, seed, tuple((10 + x + np.asarray(way)).tolist()), (5.0,) * 20, 4.0, 1.0)
        for seed, x in enumerate(noise)
    ]


DIP = np.r_[np.full(15, -4.0), np.zeros(5)]  # 20 bins, of which the end is the last five
ORDER = NOISE[[1, 0, 2, 4, 3]]


@pytest.mark.parametrize(
    ("way", "end"),
    [
        (np.full(20, -4.0), "the last quarter of the horizon shows it too, -42% ["),
        (DIP, "in the last quarter of the horizon it is not told from none, "),
        (DIP + np.r_[np.zeros(15), np.full(5, 3.0)], "it gains +31% ["),
    ],
)
def test_an_injection_that_costs_is_said_to_and_whether_its_end_does(way, end):
    result = verdict(
        shaped("nothing", np.zeros(20)),
        shaped("inject", way, noise=ORDER),
        shaped("reset", np.full(20, 0.1), noise=NOISE[::-1]),
    )
    assert result.claim == "no plasticity loss"
    (finding,) = [one for one in result.findings if one.code == "injection_costs"]
    assert finding.text.startswith(f"injection costs {result.effect.estimate:+.0%} [")
    assert result.effect.estimate == pytest.approx(np.mean(way) / 9.6)  # the reset's 10.1 − 0.5
    assert end in finding.text
    assert "it costs; the claim says that no plasticity was lost" in result.reason


def test_a_cost_is_the_whole_interval_below_zero():
    for level, costs in ((9.9, False), (9.5, True)):
        inject = arm("inject", level, noise=ORDER)
        found = verdict(NOTHING, AGAIN, inject, RESET)
        assert found.claim == "no plasticity loss"
        assert ("injection_costs" in codes(found)) == costs == (found.effect.high < 0)


# A control at the level of the random policy.


def low(name: str, level: float, order) -> list[Outcome]:
    return shaped(name, np.full(20, level - 10.0), noise=NOISE[order])


POOR = low("nothing", 0.5, [0, 1, 2, 3, 4]), low("again", 0.5, [4, 3, 2, 1, 0])
GOOD_RESET = low("reset", 5.0, [2, 1, 0, 4, 3])


def test_where_control_and_injection_are_at_random_no_loss_is_not_claimed():
    inject = low("inject", 0.1, [1, 0, 2, 4, 3])
    result = verdict(*POOR, inject, GOOD_RESET, random_return=0.53)
    assert result.effect.high < 0.1
    assert result.claim == "inconclusive"
    assert "control_did_not_learn" in codes(result)
    assert "nobody_learns" not in codes(result)  # the reset arm does
    assert "reset improves learning" in result.reason
    assert result.to_dict()["further"] is None


def test_a_control_at_random_beside_an_injection_that_learns_has_lost_plasticity():
    """As after noise that is redrawn: the control is there because it lost it."""
    result = verdict(*POOR, low("inject", 3.0, [1, 0, 2, 4, 3]), GOOD_RESET, random_return=0.53)
    assert result.claim == "plasticity loss"
    (finding,) = [one for one in result.findings if one.code == "control_did_not_learn"]
    assert finding.text.endswith("the injected arm is: what is compared is learning with none")


def test_no_loss_is_claimed_where_either_of_the_two_learns():
    """The control above the random policy, or the injected arm alone, by less than matters."""
    reset = low("reset", 2.1, [2, 1, 0, 4, 3])
    learns = low("nothing", 2.0, [0, 1, 2, 3, 4]), low("again", 2.0, [4, 3, 2, 1, 0])
    inject = low("inject", 1.6, [1, 0, 2, 4, 3])
    assert verdict(*learns, inject, reset, random_return=0.53).claim == "no plasticity loss"
    above = low("inject", 0.95, [0, 1, 2, 4, 3])
    options = {"random_return": 0.53, "returns_range": (0.0, 10.0)}
    found = verdict(*POOR, above, low("reset", 0.9, [2, 1, 0, 4, 3]), **options)
    assert (found.claim, "control_did_not_learn" in codes(found)) == ("no plasticity loss", True)


@pytest.mark.parametrize("late", [True, False])
def test_a_control_that_is_above_random_over_the_horizon_or_at_its_end_has_learned(late):
    """The means alone, or the last quarter alone, lie clearly above 0.53: checked with SciPy."""
    way = np.r_[np.zeros(15), np.full(5, 0.6)] if late else np.r_[np.full(15, 0.5), np.zeros(5)]
    control = shaped("nothing", way - 9.5)
    above = [
        stats.ttest_1samp(values, 0.53).confidence_interval(0.95).low > 0.53
        for values in ([run.area for run in control], [run.final for run in control])
    ]
    assert above == ([False, True] if late else [True, False])
    inject = low("inject", 0.1, [1, 0, 2, 4, 3])
    found = codes(verdict(control, inject, AGAIN, GOOD_RESET, random_return=0.53))
    assert "control_did_not_learn" not in found


def test_where_the_random_policy_is_not_known_nothing_is_said_of_it():
    found = codes(verdict(*POOR, low("inject", 0.1, [1, 0, 2, 4, 3]), random_return=float("nan")))
    assert not found & {"control_did_not_learn", "nobody_learns"}


def test_what_is_missing_is_said():
    result = verdict(NOTHING, arm("inject", 13.0, noise=NOISE[[1, 0, 2, 4, 3]]))
    assert codes(result) == {"no_reset_arm"}
    assert result.noise is None


def test_a_reset_that_costs_is_said_to():
    reset = arm("reset", 5.0, noise=NOISE[::-1])
    assert "reset_costs" in codes(verdict(NOTHING, AGAIN, arm("inject", 9.9), reset))


# The unit.


def test_a_constant_added_to_all_returns_changes_nothing():
    """Pendulum, LunarLander, MountainCar, Acrobot: returns below 0 or across it."""
    for noise in (1.0, 8.0):
        arms = {
            name: (level, noise * NOISE[order])
            for name, level, order in (
                ("nothing", 10.0, [0, 1, 2, 3, 4]),
                ("inject", 12.0, [1, 0, 2, 4, 3]),
                ("reset", 10.5, [4, 3, 2, 1, 0]),
            )
        }
        found = [
            verdict(
                *(arm(name, level + shift, noise=x) for name, (level, x) in arms.items()),
                random_return=0.5 + shift,
                random_error=0.1,
            )
            for shift in (0.0, -10.0, -200.0, 1e4)
        ]
        for one in found[1:]:
            assert one.claim == found[0].claim
            np.testing.assert_allclose(one.effect, found[0].effect, rtol=1e-6)


def test_a_small_effect_near_a_return_of_zero_is_small():
    """LunarLander: 4.6 of a range of 450, where the control is at 2: no loss, not +230%."""
    noise = 4 * NOISE
    result = verdict(
        arm("nothing", 2.0, noise=noise),
        arm("inject", 6.6, noise=noise[[1, 0, 2, 4, 3]]),
        arm("reset", 0.0, noise=noise[::-1]),
        random_return=-200.0,
        random_error=10.0,
    )
    assert result.claim == "no plasticity loss"
    assert result.effect.estimate == pytest.approx(4.6 / 206.6)
    assert result.ratio is None


def test_a_range_that_is_given_is_the_unit():
    arms = NOTHING, AGAIN, arm("inject", 13.0, noise=NOISE[[1, 0, 2, 4, 3]]), RESET
    result = verdict(*arms, returns_range=(-10.0, 90.0))
    assert result.effect.estimate == pytest.approx(0.03)
    assert result.claim == "no plasticity loss"
    assert "range" in result.unit


def test_with_a_range_the_random_policys_error_still_counts():
    """Both arms at 0.9, the random policy at 0.4 ± 1: not clearly above it, whatever the unit."""
    arms = low("nothing", 0.9, [0, 1, 2, 3, 4]), low("inject", 0.9, [1, 0, 2, 4, 3])
    for error, learned in ((0.0, True), (1.0, False)):
        result = verdict(*arms, random_return=0.4, random_error=error, returns_range=(0.0, 100.0))
        assert (result.claim == "no plasticity loss") == learned


def test_where_nobody_scores_nothing_is_said():
    flat = [arm(name, 0.0, noise=NOISE * 0) for name in ("nothing", "again", "inject", "reset")]
    flat = [[Outcome(**{**vars(run), "curve": (0.0,) * 20}) for run in runs] for runs in flat]
    result = verdict(*flat, random_return=0.0)
    assert result.claim == "inconclusive"
    assert "nobody_learns" in codes(result)


def test_a_ratio_is_fiellers_and_only_where_all_is_above_zero():
    treated = arm("inject", 20.0, noise=NOISE[[1, 0, 2, 4, 3]])
    result = verdict(NOTHING, treated, RESET)
    a, b = (np.array([run.area for run in runs]) for runs in (treated, NOTHING))
    for end in result.ratio[1:3]:  # at each end, a t test of a − (1 + θ) b is at its boundary
        assert stats.ttest_1samp(a - (1 + end) * b, 0).pvalue == pytest.approx(0.05, rel=1e-6)
    assert verdict(arm("nothing", -1.0), treated, RESET, random_return=-9.0).ratio is None


# Two modes.


def test_seeds_that_stand_far_apart_are_said_and_need_a_sign_test():
    """Three of four gain little and one gains all: the mean is above, no claim is made of four."""
    assert stand_apart(np.array([0.0, 0.01, -0.01, 1.8])).tolist() == [False, False, False, True]
    noise = np.array([0.01, -0.02, 0.0, 0.015, 0.0, 0.02, -0.01, 0.005])
    gains = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 90.0])
    result = verdict(
        arm("nothing", 10.0, noise=noise), arm("inject", 10.0, noise=gains - noise), RESET[:0]
    )
    assert "two_modes" in codes(result)
    assert "1 of 8 stand apart" in result.reason
    assert result.claim == "inconclusive"


# A single agent.


def replicates(name: str, level: float, noise) -> list[Outcome]:
    runs = arm(name, level, noise=noise)
    return [Outcome(**{**vars(run), "seed": 0, "replicate": run.seed}) for run in runs]


def test_the_replicates_of_one_agent_are_independent_samples():
    rng = np.random.default_rng(0)
    control, treated = (
        replicates("nothing", 10.0, rng.normal(0, 0.3, 6)),
        replicates("inject", 13.0, rng.normal(0, 0.9, 6)),
    )
    result = verdict(control, treated)
    assert result.population == "agent"
    assert result.claim == "plasticity loss"
    a, b = ([run.area for run in runs] for runs in (treated, control))
    measured = stats.ttest_ind(a, b, equal_var=False)
    expected = measured.confidence_interval(0.95)
    # The degrees of freedom are those of the test at the smallest effect, about those of 0.
    np.testing.assert_allclose(result.difference[1:3], expected, rtol=0.02)
    assert "in this agent" in result.reason
    assert "6 replicates of each arm" in result.reason


# Looks.


def test_what_was_settled_at_a_look_stays_settled_and_intervals_hold_together():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.3, (2, 12))
    control, treated = arm("nothing", 10.0, noise=noise[0]), arm("inject", 14.0, noise=noise[1])
    result = verdict(control, treated, looks=(4, 6, 8, 10, 12))
    assert [look.n for look in result.looks] == [4, 6, 8, 10, 12]
    assert result.looks[0].settled == 1
    assert result.claim == "plasticity loss"
    assert result.effect.low == max(look.low for look in result.looks)
    assert result.effect.high == min(look.high for look in result.looks)
    early = verdict(control[:3], treated[:3], looks=(4, 6, 8))
    assert (early.claim, early.looks) == ("inconclusive", ())
    assert not early.settled


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ([arm("inject", 1.0)], "a verdict needs the arm 'nothing'"),
        ([arm("nothing", 1.0)], "a verdict needs the arm 'inject'"),
        ([NOTHING, arm("inject", 1.0, noise=NOISE[:4])], "do not have the same seeds"),
        (
            [arm("nothing", 1.0, noise=[0.0]), arm("inject", 1.0, noise=[0.0])],
            "at least 2 seeds, or 2 replicates of one agent, got 1",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused(arms, message):
    with pytest.raises(RegrowError, match=message):
        verdict(*arms)

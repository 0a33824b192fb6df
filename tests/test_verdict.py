"""From curves to claims: the three of them, and every finding."""

import numpy as np
import pytest
from scipy import stats

from regrow.diagnosis.findings import learned
from regrow.diagnosis.outcomes import Outcome
from regrow.diagnosis.plan import Roles
from regrow.diagnosis.verdict import Verdict, conclude
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
    assert result.effect.estimate == pytest.approx(0.3)
    assert codes(result) == set()
    assert result.seeds_needed is None


def test_the_interval_is_that_of_a_paired_t_test_in_units_of_the_control():
    treated = arm("inject", 11.0, noise=NOISE[[1, 0, 2, 4, 3]])
    result = verdict(NOTHING, AGAIN, treated, RESET)
    a, b = ([run.area for run in runs] for runs in (treated, NOTHING))
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    np.testing.assert_allclose(result.effect[1:3], np.array(expected) / np.mean(b), rtol=1e-9)


def test_an_effect_below_the_smallest_is_no_plasticity_loss():
    result = verdict(NOTHING, AGAIN, arm("inject", 9.9, noise=NOISE[[1, 0, 2, 4, 3]]), RESET)
    assert result.claim == "no plasticity loss"
    assert result.effect.high < 0.05
    assert result.reason.startswith("injection does not improve learning here: it changes the")
    assert codes(result) == set()


def test_an_interval_across_the_smallest_effect_is_inconclusive():
    result = verdict(NOTHING, AGAIN, arm("inject", 10.6, noise=NOISE[::-1] * 3), RESET)
    assert result.claim == "inconclusive"
    assert result.effect.low < 0.05 < result.effect.high
    assert result.seeds_needed is None or result.seeds_needed > 5
    assert "seeds" in result.reason
    assert result.to_dict()["seeds_needed"] == result.seeds_needed


def test_the_smallest_effect_decides():
    arms = NOTHING, AGAIN, arm("inject", 11.0, noise=NOISE[[1, 0, 2, 4, 3]]), RESET
    assert verdict(*arms).claim == "plasticity loss"
    assert verdict(*arms, smallest_effect=0.3).claim == "no plasticity loss"


def test_a_reset_that_helps_where_injection_does_not_is_said_to():
    reset = arm("reset", 14.0, noise=NOISE[[1, 0, 2, 4, 3]])
    result = verdict(NOTHING, AGAIN, arm("inject", 9.9, noise=NOISE[[1, 0, 2, 4, 3]]), reset)
    assert result.claim == "no plasticity loss"
    assert codes(result) == {"reset_helps_injection_does_not"}
    assert "Not all is well" in result.reason
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


def test_of_many_arms_at_the_level_of_chance_one_is_not_said_to_learn():
    """Five runs above the random policy with 99%, as five arms ask for; twenty ask for 99.76%."""
    lucky = arm("lucky", 10.25, noise=[-0.1, 0.1, 0.1, -0.1, 0.0])
    others = [arm(f"other {n}", 10.0, noise=NOISE) for n in range(16)]
    few = NOTHING, AGAIN, RESET, arm("inject", 9.9), lucky
    assert "nobody_learns" not in codes(verdict(*few, random_return=10.4))
    assert "nobody_learns" in codes(verdict(*few, *others, random_return=10.4))


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


def test_noise_as_large_as_the_effect_is_no_loss_of_plasticity():
    loud = arm("again", 13.5, noise=NOISE[[1, 0, 2, 4, 3]])
    result = verdict(NOTHING, loud, arm("inject", 13.0, noise=NOISE[[1, 0, 2, 4, 3]]), RESET)
    assert result.claim == "inconclusive"
    assert "noise_floor_high" in codes(result)
    assert result.seeds_needed is None  # more seeds like these would not settle it
    assert "a replicate of the control differs by" in result.reason


def test_an_effect_within_reach_of_other_draws_is_no_loss_of_plasticity():
    """As it came out once in the middle of learning: +8% [+6%, +10%] beside +4% [+0%, +7%]."""
    again = arm("again", 10.4, noise=NOISE + np.array([0.3, -0.3, 0.25, -0.25, 0.0]))
    inject = arm("inject", 10.8, noise=NOISE + np.array([0.1, -0.1, 0.1, -0.1, 0.0]))
    result = verdict(NOTHING, again, inject, RESET)
    assert result.effect.low > result.smallest_effect
    assert result.noise_floor.estimate < result.effect.low < result.noise_floor.high
    assert result.claim == "inconclusive"
    assert "a replicate of the control differs by" in result.reason


@pytest.mark.parametrize("level", [20.0, 9.0, 10.0])
def test_the_same_difference_for_every_seed_says_nothing(level, tmp_path):
    result = verdict(NOTHING, AGAIN, arm("inject", level), RESET)
    assert result.claim == "inconclusive"
    assert "no_spread" in codes(result)
    assert result.effect.estimate == pytest.approx(level / 10 - 1)
    assert result.effect.missing
    assert result.seeds_needed is None
    assert "same for every seed" in result.reason
    assert not codes(result) & {"injection_costs", "reset_helps_injection_does_not"}
    (row,) = [row for row in result.comparisons if row.arm == "inject"]
    assert row.difference.missing
    assert interval(row.difference) == f"{level - 10:+.2f} (no interval)"
    write_json(tmp_path / "verdict.json", result.to_dict())
    kept = read_json(tmp_path / "verdict.json")["effect"]
    assert (kept["low"], kept["high"]) == (None, None)
    assert kept["estimate"] == result.effect.estimate


def test_a_noise_floor_that_is_the_same_for_every_seed_was_not_measured():
    inject = arm("inject", 13.0, noise=NOISE[[1, 0, 2, 4, 3]])
    result = verdict(NOTHING, arm("again", 10.0), inject, RESET)
    assert result.claim == "plasticity loss"
    assert result.noise_floor.missing
    assert codes(result) == {"no_noise_floor"}
    assert "'again' differs from 'nothing' by +0% in every seed" in result.findings[0].text
    assert "a replicate of the control differs by +0% (no interval)" in result.reason


@pytest.mark.parametrize("level", [5.0, 15.0])
def test_a_reset_that_does_the_same_to_every_seed_is_no_finding(level):
    inject = arm("inject", 9.9, noise=NOISE[[1, 0, 2, 4, 3]])
    result = verdict(NOTHING, AGAIN, inject, arm("reset", level))
    assert codes(result) == set()


def test_a_split_that_does_the_same_to_every_seed_leaves_open_where_it_was_lost():
    first, second = arm("inject(split=0)", 14.0, noise=NOISE[::-1]), arm("inject(split=1)", 14.0)
    splits = {"inject(split=0)": 0, "inject(split=1)": 1}
    result = verdict(
        NOTHING,
        AGAIN,
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
        (np.full(20, -4.0), "the last quarter of the horizon shows it too, -40% ["),
        (DIP, "in the last quarter of the horizon it is not told from none, "),
        (DIP + np.r_[np.zeros(15), np.full(5, 3.0)], "it gains +30% ["),
    ],
)
def test_an_injection_that_costs_is_said_to_and_whether_its_end_does(way, end):
    result = verdict(
        shaped("nothing", np.zeros(20)), AGAIN, shaped("inject", way, noise=ORDER), RESET
    )
    assert result.claim == "no plasticity loss"
    (finding,) = [one for one in result.findings if one.code == "injection_costs"]
    assert finding.text.startswith(f"injection costs {np.mean(way) / 10:+.0%} [")
    assert end in finding.text
    assert result.reason.startswith("injection costs: it changes the return after the fork by -")
    assert (
        "the claim says only that it does not improve learning here by the smallest"
        in result.reason
    )


def test_a_cost_is_the_whole_interval_below_zero():
    for level, costs in ((9.8, False), (9.6, True)):
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
    assert result.effect.high < 0.05
    assert result.claim == "inconclusive"
    assert "control_did_not_learn" in codes(result)
    assert "nobody_learns" not in codes(result)  # the reset arm does
    assert (
        "but the arm 'nothing' is not clearly above the random policy's return of 0.53"
        in result.reason
    )
    assert (
        "(0.5 after the fork, 0.5 at the end; 5 seeds), nor is the injected arm (only reset)"
        in result.reason
    )
    assert "reset improves learning" in result.reason  # what else is grave stays
    assert result.to_dict()["seeds_needed"] is None


def test_a_control_at_random_beside_an_injection_that_learns_has_lost_plasticity():
    """As after noise that is redrawn: the control is there because it lost it."""
    result = verdict(*POOR, low("inject", 3.0, [1, 0, 2, 4, 3]), GOOD_RESET, random_return=0.53)
    assert result.claim == "plasticity loss"
    (finding,) = [one for one in result.findings if one.code == "control_did_not_learn"]
    assert finding.text.endswith("the injected arm is: what is compared is learning with none")


def test_no_loss_is_claimed_where_either_of_the_two_learns():
    """The control above the random policy, or the injected arm alone, by less than matters."""
    learns = low("nothing", 2.0, [0, 1, 2, 3, 4]), low("again", 2.0, [4, 3, 2, 1, 0])
    inject = low("inject", 1.6, [1, 0, 2, 4, 3])
    assert verdict(*learns, inject, GOOD_RESET, random_return=0.53).claim == "no plasticity loss"
    above = low("inject", 0.9, [0, 1, 2, 4, 3])
    found = verdict(*POOR, above, GOOD_RESET, random_return=0.53, smallest_effect=2.0)
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


def test_of_controls_at_the_level_of_the_random_policy_one_in_twenty_seems_to_learn():
    """One-sided: 2.5% over the horizon and 2.5% at the end, which go together."""
    rng, told = np.random.default_rng(0), 0
    for _ in range(1000):
        curves = rng.normal(0, 1, (3, 1)) + rng.normal(0, 2, (3, 20))
        runs = [Outcome("nothing", i, tuple(c), (1.0,), 1.0, 1.0) for i, c in enumerate(curves)]
        told += learned(runs, 0.0, 0.95)
    assert 20 < told < 60


def test_where_the_random_policy_is_not_known_nothing_is_said_of_it():
    found = codes(verdict(*POOR, low("inject", 0.1, [1, 0, 2, 4, 3]), random_return=float("nan")))
    assert not found & {"control_did_not_learn", "nobody_learns"}


def test_what_is_missing_is_said():
    result = verdict(NOTHING, arm("inject", 13.0, noise=NOISE[[1, 0, 2, 4, 3]]))
    assert codes(result) == {"no_reset_arm", "no_noise_floor"}
    assert result.noise_floor is None


def test_a_reset_that_costs_is_said_to():
    reset = arm("reset", 5.0, noise=NOISE[::-1])
    assert "reset_costs" in codes(verdict(NOTHING, AGAIN, arm("inject", 9.9), reset))


def test_a_control_that_collects_nothing_does_not_divide_by_it():
    nothing = arm("nothing", 0.0, noise=NOISE * 0)
    inject = arm("inject", 8.0)
    for runs in (nothing, inject):
        for i, run in enumerate(runs):
            runs[i] = Outcome(**{**vars(run), "curve": (round(run.area, 6),) * 20})
    result = conclude([*nothing, *inject], random_return=0.0)
    assert result.claim == "plasticity loss"
    assert result.effect.estimate == pytest.approx(1.0)
    assert "best arm" in result.unit


def test_negative_returns_keep_the_sign_of_an_improvement():
    result = verdict(
        arm("nothing", -10.0), arm("inject", -7.0, noise=NOISE[[1, 0, 2, 4, 3]]), AGAIN, RESET
    )
    assert result.effect.estimate == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ([arm("inject", 1.0)], "a verdict needs the arm 'nothing'"),
        ([arm("nothing", 1.0)], "a verdict needs the arm 'inject'"),
        ([NOTHING, arm("inject", 1.0, noise=NOISE[:4])], "do not have the same seeds"),
        (
            [arm("nothing", 1.0, noise=[0.0]), arm("inject", 1.0, noise=[0.0])],
            "at least 2 seeds, got 1",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused(arms, message):
    with pytest.raises(RegrowError, match=message):
        verdict(*arms)

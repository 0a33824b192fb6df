"""Claims decided by rule, on rows in which the answer is known."""

import dataclasses

import numpy as np
import pytest
from rows_made_up import alike, rows_of
from scipy import stats

from regrow.analysis.across_conditions import gains_by_seed
from regrow.analysis.claim_rules import FAILS, HOLDS, OPEN, RULES, decide
from regrow.analysis.claims import CLAIMS
from regrow.analysis.conditions import cases
from regrow.records.rows import Measured


def judged(*groups):
    return cases([row for rows in groups for row in rows])[0]


def turned(label, at, **options):
    options = {"seeds": 8, "level": 10.0, "axis": "width", "at": at, **options}
    return rows_of("study", label, **options)


def answer(claim, *groups):
    return decide(claim, judged(*groups)).answer


def test_rules_are_for_claims_and_claims_without_a_rule_stay_without():
    assert set(RULES) < set(CLAIMS) == set(range(1, 13))
    assert decide(3, judged(rows_of())) is None


@pytest.mark.parametrize(("level", "expected"), [(5.0, HOLDS), (10.0, FAILS), (20.0, FAILS)])
def test_early_updates_damage(level, expected):
    groups = turned("ordinary", 0.0), turned("primed", 9.0, level=level)
    assert answer(1, *groups, turned("between", 1.0, level=1.0)) == expected


def test_the_reason_has_the_paired_interval():
    ordinary, primed = judged(turned("ordinary", 0.0), turned("primed", 9.0, level=5.0))
    a, b = (np.array([run.area for run in case.outcomes["nothing"]]) for case in (primed, ordinary))
    worth = b - 0.4  # of the better one, above the random policy
    shares = np.linspace(-2, 2, 40_001)
    tested = stats.ttest_1samp(a - b - shares[:, None] * worth, 0, axis=1)
    kept = shares[tested.pvalue > 0.05]
    estimate = np.mean(a - b) / np.mean(worth)
    expected = f"{estimate:+.0%} [{kept[0]:+.0%}, {kept[-1]:+.0%}]"
    assert expected in decide(1, [ordinary, primed]).reason
    # The unit is what the better of the two earns, here the treated one.
    (better,) = judged(turned("better", 9.0, level=20.0))
    a = np.array([run.area for run in better.outcomes["nothing"]])
    expected = f"it collects {np.mean(a - b) / np.mean(a - 0.4):+.0%} ["
    assert expected in decide(1, [ordinary, better]).reason


@pytest.mark.parametrize(("gain", "expected"), [(4.0, HOLDS), (0.0, FAILS), (-4.0, FAILS)])
def test_resets_help_over_all_tasks(gain, expected):
    tasks = (rows_of("resets", name, gain=gain, level=10.0, seeds=8) for name in "abc")
    assert answer(2, *tasks) == expected
    assert answer(2, rows_of(arms=("nothing", "inject"))) == OPEN
    assert answer(2, rows_of(arms=("nothing", "inject", "reset_optimizer"))) == OPEN


def test_proxies_are_complete_where_one_follows_the_gain():
    gains = np.linspace(0.0, 60.0, 12).tolist()
    assert answer(4, *(turned(f"{gain}", gain, gain=gain, seeds=2) for gain in gains)) == FAILS


def test_proxies_are_incomplete_where_none_does():
    rng = np.random.default_rng(0)
    probes = [rows_of(gain=0.3, seeds=1)[i].probes for i in range(4)]
    groups = [
        turned(f"{gain}", gain, gain=gain, probes=probes[i % 4])
        for i, gain in enumerate(rng.permutation(np.linspace(0.1, 9.0, 16)).tolist())
    ]
    decision = decide(4, judged(*groups))
    assert decision.answer == HOLDS
    assert "of 8 probes the surest predictor of the gain is " in decision.reason


def test_where_seeds_are_noisy_no_proxy_could_follow_the_gain():
    rng = np.random.default_rng(0)
    rows = [row for gain in range(8) for row in rows_of(condition=f"{gain}", gain=gain / 8)]
    noisy = [
        dataclasses.replace(row, returns=tuple(x + shift for x in row.returns))
        for row, shift in zip(rows, rng.normal(0, 3, len(rows)), strict=True)
    ]
    decision = decide(4, judged(noisy))
    assert decision.answer == OPEN
    assert "one that knew the gain of every condition would reach 0." in decision.reason


@pytest.mark.parametrize(("gain", "expected"), [(6.0, HOLDS), (-4.0, HOLDS), (0.0, FAILS)])
def test_with_size_the_pace_may_change_either_way(gain, expected):
    groups = turned("w1", 1.0, gain=2.0), turned("w2", 2.0, gain=2.0 + gain)
    sizes = [[dataclasses.replace(row, axis="hidden") for row in rows] for rows in groups]
    assert answer(8, *sizes) == expected


@pytest.mark.parametrize(
    ("gains", "expected"), [((4.0, -4.0), HOLDS), ((4.0, 5.0), FAILS), ((-4.0, -5.0), FAILS)]
)
def test_an_effect_is_uniform_or_not(gains, expected):
    assert answer(7, *(turned(f"{gain}", gain, gain=gain) for gain in gains)) == expected


def test_the_pace_is_asked_of_every_axis():
    grows = turned("w1", 1.0, gain=0.0), turned("w2", 2.0, gain=6.0)
    stays = turned("r1", 1.0, gain=2.0, axis="rate"), turned("r2", 2.0, gain=2.0, axis="rate")
    assert answer(8, *grows) == HOLDS
    assert answer(8, *stays) == FAILS
    decision = decide(8, judged(*grows, *stays))
    assert decision.answer == OPEN
    assert "width: +" in decision.reason
    assert "rate: " in decision.reason
    assert answer(8, turned("alone", 1.0)) == OPEN


@pytest.mark.parametrize(
    ("wide", "flops", "expected"),
    [(10.0, 9e12, HOLDS), (10.0, 1e11, OPEN), (20.0, 9e12, FAILS)],
)
def test_late_injection_keeps_up_for_less(wide, flops, expected):
    small = turned("small", 1.0, gain=1.0)
    wide_from_the_start = turned("wide", 2.0, level=wide, flops=flops, flops_to_fork=flops)
    assert answer(9, small, wide_from_the_start) == expected


def test_injection_compares_well_unless_another_is_ahead():
    arms = ("nothing", "again", "inject", "redo", "dash")  # each gains more than the one before
    assert answer(10, turned("fork", 1.0, gain=0.1, arms=arms)) == HOLDS
    ahead = turned("fork", 1.0, gain=30.0, arms=arms)
    assert answer(10, ahead) == FAILS
    assert "the best of 2 others, dash" in decide(10, judged(ahead)).reason
    assert answer(10, turned("fork", 1.0, arms=("nothing", "inject"))) == OPEN


def test_a_difference_that_is_the_same_for_every_seed_decides_nothing():
    resets = alike(rows_of("resets", gain=4.0, level=10.0), "reset", 4.0)
    decision = decide(2, judged(resets))
    assert decision.answer == OPEN
    assert "all 5 seeds show the same difference" in decision.reason
    least = turned("ordinary", 0.0)
    most = [
        dataclasses.replace(
            row, condition="primed", level=9.0, returns=tuple(x - 5 for x in row.returns)
        )
        for row in least
    ]
    assert decide(1, judged(least, most)).reason.startswith("all 8 seeds show the same difference")
    assert answer(1, least, most) == OPEN
    assert answer(7, alike(turned("a", 1.0), "inject", 5.0), turned("b", 2.0, gain=-4.0)) == OPEN


def test_a_probe_that_follows_every_gain_in_every_resample_decides_nothing():
    """Its rank correlation is 1 in all resamples, which is no interval of no width."""
    groups = [turned(f"{gain}", gain, gain=gain, seeds=2) for gain in np.linspace(0.0, 60.0, 12)]
    held = judged(*groups)
    gains = {
        (case.label, row.seed): float(gain)
        for case in held
        for row, gain in zip(case.arms["inject"], gains_by_seed(case), strict=True)
    }
    rows = [
        dataclasses.replace(
            row, probes=(Measured("", "srank", "head", "fork", gains[row.condition, row.seed]),)
        )
        for group in groups
        for row in group
    ]
    decision = decide(4, judged(rows))
    assert decision.answer == OPEN
    assert "1.00, in size [0.00, 1.00]" in decision.reason


@pytest.mark.parametrize("claim", sorted(RULES))
def test_what_is_not_judged_decides_nothing(claim):
    assert answer(claim, rows_of(seeds=1), rows_of(condition="other")) == OPEN
    assert decide(claim, []).answer == OPEN


def test_where_nobody_learns_nothing_is_decided():
    nobody = {"random_return": 1e3, "seeds": 8, "level": 10.0}
    assert (
        "nobody learns in ordinary"
        in decide(
            1, judged(turned("ordinary", 0.0, **nobody), turned("primed", 1.0, level=5.0))
        ).reason
    )
    assert answer(2, rows_of(gain=4.0, **nobody)) == OPEN
    assert answer(10, rows_of(gain=4.0, **nobody)) == OPEN
    # Damage beyond recovery is no reason not to see it.
    damaged = turned("primed", 1.0, level=2.0, random_return=1e3)
    assert answer(1, turned("ordinary", 0.0), damaged) == HOLDS

"""What is made of rows: cases with their verdicts, and what a report draws of them."""

import dataclasses
import math

import numpy as np
import pytest
from rows_made_up import rows_of, write, write_study
from scipy.stats import trim_mean, ttest_ind

from regrow.analysis.across_conditions import aggregates, proxies
from regrow.analysis.conditions import cases
from regrow.analysis.summary import curves, forks, gains, panels, probes, summarise, whole
from regrow.diagnosis.conclusion import conclude
from regrow.diagnosis.outcomes import Outcome, areas
from regrow.errors import RegrowError
from regrow.records.rows import Measured, file_of


def only(rows):
    (case,), problems = cases(rows)
    assert problems == []
    return case


def test_a_case_has_the_verdict_of_its_outcomes():
    rows = rows_of(gain=2.0)
    case = only(rows)
    outcomes = [
        Outcome(row.arm, row.seed, row.returns, row.predicted, row.realised, row.largest_reward)
        for row in rows
    ]
    expected = conclude(outcomes, random_return=0.4)
    assert case.verdict.effect == expected.effect
    assert case.verdict.claim == "plasticity loss"
    assert case.verdict.noise == expected.noise
    assert case.relative["inject"] == expected.effect
    (reset,) = [c for c in expected.comparisons if c.arm == "reset"]
    assert case.relative == {"inject": expected.effect, "reset": reset.share}
    assert list(case.arms) == ["nothing", "inject", "reset"]


def test_a_row_of_a_case_is_the_mean_of_the_replicates_of_its_seed():
    """`again` is a replicate of `nothing`, as are rows of a later replicate of any arm."""
    rows = rows_of()
    rng = np.random.default_rng(0)
    later = [
        dataclasses.replace(
            row,
            replicate=1,
            returns=tuple(rng.normal(5, 1, 20).tolist()),
            predicted=tuple(rng.normal(3, 1, 20).tolist()),
            realised=4.5,
            seconds=30.0,
            flops=1e12,
        )
        for row in rows
        if row.arm == "inject"
    ]
    case = only([*rows, *later])
    for arm, of in (
        ("nothing", ("nothing", "again")),
        ("inject", ("inject",)),
        ("reset", ("reset",)),
    ):
        assert [row.seed for row in case.arms[arm]] == [0, 1, 2, 3, 4]
        for made in case.arms[arm]:
            held = [r for r in (*rows, *later) if r.arm in of and r.seed == made.seed]
            assert len(held) == (1 if arm == "reset" else 2)
            np.testing.assert_allclose(made.returns, np.mean([r.returns for r in held], axis=0))
            np.testing.assert_allclose(made.predicted, np.mean([r.predicted for r in held], axis=0))
            assert made.realised == pytest.approx(np.mean([r.realised for r in held]))
            assert made.seconds == np.mean([r.seconds for r in held])
            assert made.flops == np.mean([r.flops for r in held])
            assert made.replicate == 0
    effects = [
        np.mean(inject.returns) - np.mean(nothing.returns)
        for inject, nothing in zip(case.arms["inject"], case.arms["nothing"], strict=True)
    ]
    assert case.verdict.difference.estimate == pytest.approx(np.mean(effects))


def test_replicates_of_one_agent_are_its_sample():
    rows = [
        dataclasses.replace(row, seed=0, replicate=row.seed)
        for row in rows_of(arms=("nothing", "inject", "reset"), gain=3.0)
    ]
    case = only(rows)
    assert [row.replicate for row in case.arms["inject"]] == [0, 1, 2, 3, 4]
    assert (case.verdict.population, case.verdict.n) == ("agent", 5)
    inject, nothing = (
        [np.mean(row.returns) for row in rows if row.arm == arm] for arm in ("inject", "nothing")
    )
    low, high = ttest_ind(inject, nothing, equal_var=False).confidence_interval(0.95)
    # The degrees of freedom are those at the smallest effect, near those at none.
    assert case.verdict.difference.low == pytest.approx(low, rel=0.02)
    assert case.verdict.difference.high == pytest.approx(high, rel=0.02)
    _, *arms = curves(case)
    assert [len(curve.returns) for curve in (*arms, *whole(case))] == [5] * 6


def test_an_agent_of_which_arms_have_not_the_same_replicates_yet_is_drawn():
    rows = [
        dataclasses.replace(row, seed=0, replicate=row.seed)
        for row in rows_of(arms=("nothing", "inject", "reset"))
    ][:-1]
    case = only(rows)
    assert case.seeds == (0, 1, 2, 3, 4)
    assert [curve.arm for curve in whole(case)] == list(case.arms)
    assert [len(curve.returns) for curve in whole(case)] == [5, 5, 4]
    for curve, held in zip(whole(case), case.arms.values(), strict=True):
        expected = [(*row.returns_to_fork, *row.returns) for row in held]
        np.testing.assert_array_equal(curve.returns, expected)


def test_a_study_that_still_runs_is_judged_by_the_seeds_that_all_arms_have():
    rows = [row for row in rows_of() if not (row.arm == "reset" and row.seed > 2)]
    case = only(rows)
    assert (case.seeds, case.seeds_left_out) == ((0, 1, 2), (3, 4))
    assert case.verdict.effect == only([row for row in rows if row.seed < 3]).verdict.effect


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (rows_of(seeds=1), "at least 2 seeds, or 2 replicates of one agent, got 1"),
        ([r for r in rows_of() if r.arm in ("inject", "reset")], "needs the arm 'nothing'"),
        ([row for row in rows_of() if row.arm != "inject"], "needs the arm 'inject'"),
        (rows_of(arms=("nothing", "reset")), "needs the arm 'inject'"),
        ([r for r in rows_of() if (r.seed < 2) == (r.arm == "inject")], "not have the same seeds"),
    ],
)
def test_a_case_that_cannot_be_judged_says_why_and_is_there(rows, why):
    case = only(rows)
    assert case.verdict is None
    assert why in case.unjudged
    assert curves(case)
    assert probes(case)


@pytest.mark.parametrize("config", ["", "{}", '{"agent": "unknown_agent"}', "[1]"])
def test_a_plan_that_cannot_be_read_does_not_hinder_a_verdict(config):
    verdict = only(rows_of(config=config, gain=2.0)).verdict
    assert verdict.claim == "plasticity loss"
    assert verdict.effect == only(rows_of(gain=2.0)).verdict.effect


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"returns": (1.0, math.nan)}, "not as many env steps"),
        ({"returns": (math.nan,) * 20}, "no finite number"),
        ({"returns": (), "env_steps": ()}, "no curve"),
    ],
)
def test_a_row_that_no_study_writes_is_left_out_and_told(change, problem):
    rows = rows_of()
    rows[7] = dataclasses.replace(rows[7], **change)
    (case,), problems = cases(rows)
    assert len(problems) == 1
    assert problem in problems[0]
    assert rows[7].seed in case.seeds_left_out


def test_curves_are_means_over_seeds_with_t_bands_over_steps_and_cost():
    case = only(rows_of())
    before, nothing, inject, _ = curves(case)
    assert before.arm == "before the fork"
    assert before.over["env_steps"][-1] == forks(case)["env_steps"] == 60_000
    assert before.over["flops"][-1] == forks(case)["flops"] == 3e12
    np.testing.assert_allclose(inject.over["flops"][-1], 3e12 + 2.6e12)
    np.testing.assert_allclose(nothing.over["seconds"][9], 80 + 30)
    runs = np.array([row.returns for row in case.arms["inject"]])
    np.testing.assert_allclose(inject.mean, runs.mean(axis=0))
    half = 2.7764451 * runs.std(axis=0, ddof=1) / np.sqrt(5)  # t of 4 degrees of freedom
    np.testing.assert_allclose(inject.high - inject.mean, half, rtol=1e-6)


def test_gains_are_sorted_and_those_unknown_come_last():
    some = [rows_of(condition=f"c{gain}", gain=gain) for gain in (0.5, 3.0, -1.0)]
    unjudged = rows_of(condition="one seed", seeds=1)
    found, _ = cases([*unjudged, *(row for rows in some for row in rows)])
    assert [gain.case.label for gain in gains(found)] == ["c3.0", "c0.5", "c-1.0", "one seed"]
    assert gains(found)[-1].effect is None
    assert gains(found, "redo") == []


def test_probes_are_fresh_beside_fork_beside_end_without_those_that_say_nothing():
    case = only(rows_of())
    found = {probe.name: probe for probe in probes(case)}
    assert "nowhere.head" not in found
    probe = found["weight_norm.head"]
    assert probe.fresh == 30.0
    values = [
        p.value
        for row in case.arms["inject"]
        for p in row.probes
        if (p.probe, p.part, p.at) == ("weight_norm", "head", "end")
    ]
    assert probe.end["inject"] == pytest.approx(np.mean(values))


def test_proxies_come_with_the_correlation_of_every_seed():
    rows = [
        row for gain in (0.1, 0.5, 1.0, 3.0) for row in rows_of(condition=f"c{gain}", gain=gain)
    ]
    found = proxies(cases(rows)[0])
    assert {len(proxy.values) for proxy in found} == {20}
    best = found[0].correlation
    assert best.estimate > 0.5  # the probes made up grow with the gain
    sizes = [abs(proxy.correlation.estimate) for proxy in found]
    assert sizes == sorted(sizes, reverse=True)


def test_aggregates_are_of_scores_in_which_nothing_is_one():
    rows = [row for i in range(3) for row in rows_of(condition=f"c{i}", level=4.0 + i, gain=2.0)]
    found = {one.arm: one for one in aggregates(cases(rows)[0])}
    assert found["nothing"].interquartile_mean.estimate == pytest.approx(1, abs=0.05)
    assert found["nothing"].improvement is None
    assert found["inject"].interquartile_mean.low > 1.05
    assert found["inject"].improvement.estimate == 1.0
    assert aggregates(cases(rows_of())[0]) == []


def test_one_seed_has_curves_and_no_bands():
    one = only(rows_of(seeds=1))
    assert one.seeds == (0,)
    for curve in [*curves(one), *whole(one)]:
        np.testing.assert_array_equal(curve.mean, curve.returns[0])
        assert np.isnan([curve.low, curve.high]).all()


def test_a_probe_that_never_varies_correlates_with_nothing():
    rows = [
        dataclasses.replace(row, probes=(*row.probes, Measured("", "still", "head", "fork", 3.0)))
        for gain in (0.1, 0.5, 1.0, 3.0)
        for row in rows_of(condition=f"c{gain}", gain=gain)
    ]
    names = {proxy.name for proxy in proxies(cases(rows)[0])}
    assert names
    assert "still.head" not in names


def test_bands_of_profiles_are_missing_where_all_resamples_agree():
    rows = [row for i in range(3) for row in rows_of(condition=f"c{i}", level=4.0 + i, gain=2.0)]
    for one in aggregates(cases(rows)[0]):
        share, low, high = one.profile
        known = ~np.isnan(low)
        assert known.any()
        assert not known.all()
        assert (low[known] < high[known]).all()
        np.testing.assert_array_equal(known, ~np.isnan(high))
        assert np.isin(share[~known], [0.0, 1.0]).any()
    improved = next(one for one in aggregates(cases(rows)[0]) if one.arm == "inject").improvement
    assert improved.estimate == 1.0  # in every pair, so in every resample
    assert improved.missing


def test_intervals_of_aggregates_resample_the_arm_and_nothing_together():
    """The same in a loop; drawn without `nothing`, the interval would be narrower."""
    rows = [row for i in range(3) for row in rows_of(condition=f"c{i}", level=4.0 + i, gain=2.0)]
    held = cases(rows)[0]
    (found,) = [one for one in aggregates(held) if one.arm == "inject"]
    generator, drawn = np.random.default_rng(0), [[] for _ in range(2_000)]
    for case in held:
        arm, nothing = (areas(case.outcomes[name]) for name in ("inject", "nothing"))
        unit = max(areas(runs).mean() for runs in case.outcomes.values()) - case.row.random_return
        picks = generator.integers(0, len(arm), (2_000, len(arm)))
        for scores, pick in zip(drawn, picks, strict=True):
            scores.extend(1 + (arm[pick] - nothing[pick].mean()) / unit)
    means = [trim_mean(scores, 0.25) for scores in drawn]
    expected = np.quantile(means, [0.025, 0.975])
    low_and_high = found.interquartile_mean.low, found.interquartile_mean.high
    np.testing.assert_allclose(low_and_high, expected, rtol=1e-9)
    above = [np.mean(np.array(scores) > found.thresholds[20]) for scores in drawn]
    share = np.quantile(above, [0.025, 0.975])
    np.testing.assert_allclose([band[20] for band in found.profile[1:]], share, rtol=1e-9)


def test_negative_returns_keep_the_sign_of_a_gain_in_scores():
    rows = [
        row
        for i in range(2)
        for row in rows_of(condition=f"c{i}", level=-9.0, gain=2.0, random_return=-12.0)
    ]
    found = {one.arm: one for one in aggregates(cases(rows)[0])}
    assert found["inject"].interquartile_mean.estimate > 1.05


def test_where_learning_is_worth_nothing_there_are_no_scores_and_no_gains():
    """No share of a unit that is not above 0, and none where the random policy is not known."""
    learns = [row for i in range(3) for row in rows_of(condition=f"c{i}", level=4.0 + i, gain=2.0)]
    more = [
        *rows_of(condition="worse", level=-9.0),
        *rows_of(condition="unknown", random_return=math.nan),
    ]
    held, every = cases(learns)[0], cases([*learns, *more])[0]
    assert len(every) == 5
    assert all(case.verdict for case in every)
    for one, other in zip(aggregates(held), aggregates(every), strict=True):
        np.testing.assert_array_equal(one.interquartile_mean, other.interquartile_mean)
        np.testing.assert_array_equal(one.profile, other.profile)
    assert aggregates(every[-2:]) == []
    assert {len(proxy.values) for proxy in proxies(every)} == {15}
    assert proxies(every[-2:]) == []


def test_a_folder_with_damage_tells_of_it_and_shows_the_rest(tmp_path):
    folder = write(tmp_path / "out", rows_of(), rows_of(condition="later", format=99))
    (folder / "rows" / "cut.parquet").write_bytes(b"PAR1")
    summary = summarise(folder)
    assert [told.name for told in summary.studies] == ["generality"]
    assert summary.rows == 20
    told = "\n".join(summary.problems)
    assert "cut.parquet" in told
    assert "format 99" in told
    assert str(tmp_path) not in told
    assert summary.versions == [("python 3.11.7, regrow 0.1.0, jax 0.10.2; commit 0123abc", 20)]
    study = "regrow study generality --scale smoke --out DIR"
    assert summary.commands == [study, "regrow report DIR"]


def test_no_folder_is_an_error_and_no_rows_a_sentence(tmp_path):
    with pytest.raises(RegrowError, match="there is no folder"):
        summarise(tmp_path / "nowhere")
    assert "there are no rows" in summarise(tmp_path).problems[0]


def test_conditions_are_in_the_order_of_what_is_turned(tmp_path):
    levels = (1e-3, 1e-4, 1e-2)
    rows = [rows_of("pace", f"lr {at}", axis="learning_rate", at=at, seeds=2) for at in levels]
    (told,) = summarise(write(tmp_path, *rows)).studies
    assert [case.row.level for case in told.cases] == sorted(levels)


def test_a_study_is_told_as_it_was_planned(tmp_path):
    groups = [rows_of(condition=label, gain=gain) for label, gain in (("z", 1.0), ("b", 2.0))]
    told = {"question": "Is it general?", "claims": [6, 7], "figure": "proxies"}
    (found,) = summarise(write_study(tmp_path, *groups, **told)).studies
    assert (found.question, list(found.claims)) == ("Is it general?", [6, 7])
    assert list(found.decisions) == [7]  # 6 is the premise of every verdict
    assert [case.label for case in found.cases] == ["z", "b"]
    assert found.proxies


@pytest.mark.parametrize("plan", ["[]", "{}", "no json", '{"conditions": [1], "claims": ["x"]}'])
def test_a_plan_that_is_none_is_told_and_its_rows_are_shown(tmp_path, plan):
    folder = write(tmp_path, rows_of())
    (folder / "plans").mkdir()
    (folder / "plans" / "generality--smoke.json").write_text(plan)
    summary = summarise(folder)
    assert "generality--smoke.json" in summary.problems[0]
    assert summary.studies[0].cases[0].verdict


def test_whole_curves_begin_at_the_first_env_step():
    before, *arms = curves(only(rows_of()))
    joined = whole(only(rows_of()))
    assert [curve.arm for curve in joined] == [curve.arm for curve in arms]
    assert joined[0].mean.tolist() == [*before.mean, *arms[0].mean]
    assert (np.diff(joined[0].over["flops"]) > 0).all()


def test_many_arms_get_a_panel_each_beside_nothing_on_one_scale():
    many = ("nothing", "inject", "reset", "redo", "dash", "regrama", "widen",
            "inject every 10_000", "reset every 10_000")  # fmt: skip
    found = panels([only(rows_of(arms=many))])
    assert {panel.name for panel in found} == set(many[1:])
    for panel in found:
        assert [c.arm for c in panel.curves] == ["before the fork", "nothing", panel.name]
    assert len({panel.reach for panel in found}) == 1
    (one,) = panels([only(rows_of())])
    assert (one.name, one.reach) == ("minatar/breakout", None)


def test_a_study_that_is_not_done_decides_nothing(tmp_path):
    games = [rows_of(condition=f"{gain}", gain=gain, level=10.0) for gain in (5.0, -5.0)]
    (done,) = summarise(write_study(tmp_path / "done", *games, claims=[7])).studies
    assert done.decisions[7].answer == "holds here"
    folder = write_study(tmp_path / "early", *games, claims=[7])
    file_of(folder, games[0][-1].key).unlink()
    (early,) = summarise(folder).studies
    assert early.decisions[7] == ("not decided", "1 of 2 conditions are done.")


def test_studies_stand_in_the_order_of_their_claims(tmp_path):
    for name, claims in (("b", [9]), ("c", [2, 10]), ("a", [])):
        write_study(tmp_path, rows_of(name, seeds=2), claims=claims)
    assert [told.name for told in summarise(tmp_path).studies] == ["c", "b", "a"]

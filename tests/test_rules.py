"""Triggers decide from what was seen; rules read and write them; training follows them."""

import math
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from trees import bit_equal

from regrow.agents import DoubleDQN
from regrow.environments import ActionReward
from regrow.errors import RegrowError
from regrow.interventions import Inject, Redo, Reset, ShrinkPerturb
from regrow.training.run import Run
from regrow.training.saved import read_probes
from regrow.training.schedule import Check, Rule, followed, is_rule, next_check
from regrow.training.train import train
from regrow.training.triggers import At, Every, Plateau, Seen, When

AGENT = DoubleDQN(hidden=8, learn_start=20, replay_capacity=200)


def decided(trigger, values: list[float]) -> list[int]:
    """At which looks (1, 2, …) a trigger fires, looking once per value."""
    seen: list[Seen] = []
    fired: list[int] = []
    for i, value in enumerate(values, 1):
        seen.append(Seen(i, value))
        if trigger.fires(seen, fired):
            fired.append(i)
    return fired


def test_when_waits_for_so_many_looks_in_a_row_and_then_counts_anew():
    values = [0.1, 0.5, 0.1, 0.5, 0.5, 0.5, 0.5, 0.1]
    assert decided(When("p", above=0.3, times=None), values) == [2, 4, 5, 6, 7]
    assert decided(When("p", above=0.3, patience=2, times=None), values) == [5, 7]
    assert decided(When("p", above=0.3, patience=2), values) == [5]
    assert decided(When("p", below=0.3, times=None), values) == [1, 3, 8]
    assert decided(When("p", above=0.3, times=None), [math.nan, 0.5]) == [2]


def test_plateau_waits_for_an_improvement():
    values = [1.0, 2.0, 2.05, 2.0, 2.05, 3.0, 3.0, 3.0, 3.0]
    assert decided(Plateau(0.1, patience=3, times=None), values) == [5, 9]
    assert decided(Plateau(0.0, patience=3, times=None), values) == [9]
    assert decided(Plateau(0.1, patience=2), [math.nan, math.nan, math.nan]) == []
    assert decided(Plateau(0.1, patience=2), [-5.0, -4.0, -3.0, -3.0, -3.0]) == [5]


def test_steps_at_which_triggers_are_due():
    assert [At(100).next(now) for now in (1, 100, 101)] == [100, 100, None]
    assert [Every(100).next(now) for now in (0, 1, 100, 101)] == [100, 100, 100, 200]
    assert decided(Every(100, times=2), [math.nan] * 4) == [1, 2]
    rules = [Rule(Inject(), At(300)), Rule(Reset(), Every(200))]
    assert [next_check(rules, now, 1_000) for now in (0, 200, 300, 900)] == [200, 300, 400, 1_000]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("inject at 500_000", Rule(Inject(), At(500_000))),
        ("inject(split=0) every 1000", Rule(Inject(split=0), Every(1_000))),
        ("reset every 200_000 at most 3 times", Rule(Reset(), Every(200_000, 3))),
        (
            "redo when dead_units(part='encoder') above 0.3",
            Rule(Redo(), When("dead_units(part='encoder')", above=0.3)),
        ),
        (
            "inject when srank below 12 for 3 checks at most 2 times checked every 4_000",
            Rule(Inject(), When("srank", below=12.0, patience=3, times=2, every=4_000)),
        ),
        (
            "inject when srank below 12 without limit",
            Rule(Inject(), When("srank", below=12.0, times=None)),
        ),
        (
            "shrink_perturb(shrink=0.8) when returns plateau for 4 checks",
            Rule(ShrinkPerturb(shrink=0.8), Plateau(patience=4)),
        ),
    ],
)
def test_a_rule_reads_as_it_is_written(text, rule):
    assert is_rule(text)
    assert Rule.parse(text) == rule
    assert Rule.parse(str(rule)) == rule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inject", "'inject' is no rule; write e.g. 'inject at 500_000'"),
        ("inject at noon", "'at noon' says no time; write 'at' and a number of env steps"),
        (
            "reset every 200 for 3 checks",
            "says no time; write 'every' and a number of env steps, then",
        ),
        (
            "inject when dead_units above 0.3 checked every 200 at most 3 times",
            "then if need be, in this order, 'for 3 checks', 'at most 3 times'",
        ),
        ("injekt at 500", "no intervention 'injekt'; did you mean 'inject'?"),
        ("inject when dead_unit above 0.3", "no probe 'dead_unit'; did you mean 'dead_units'?"),
        ("inject when dead_units above high", "high is not a number"),
        ("inject when dead_units above nan", "the level is nan; it must be a number"),
        ("inject when dead_units above 0.3 for 0 checks", "for 0 checks: it must be 1 or more"),
        ("inject every 0", "every 0: it must be 1 env step or more"),
        ("inject every 10 at most 0 times", "at most 0 times: it must be 1 or more"),
    ],
)
def test_what_is_no_rule_is_refused(text, message):
    with pytest.raises(RegrowError, match=re.escape(message)):
        Rule.parse(text)


def test_a_rule_is_looked_at_once_per_env_step():
    run = Run.start(AGENT, ActionReward(), seed=0).advance(40)[0]
    rules = [Rule(Inject(), At(40)), Rule(Reset(), At(80))]
    run, checks = followed(run, rules, [], math.nan)
    assert [event.intervention for event in run.history] == ["inject"]
    again, same = followed(run, rules, checks, math.nan)
    assert same == checks
    assert again is run
    assert checks[0][:2] == (40, 0)
    assert checks[0].fired


def test_a_rule_that_has_fired_as_often_as_it_may_is_not_looked_at_any_more():
    run = Run.start(AGENT, ActionReward(), seed=0).advance(40)[0]
    rules = texts("inject when weight_norm above 0.1 checked every 40", "reset every 40")
    run, checks = followed(run, rules, [], math.nan)
    run, checks = followed(run.advance(40)[0], rules, checks, math.nan)
    assert [(check.env_steps, check.rule) for check in checks] == [(40, 0), (40, 1), (80, 1)]
    assert [event.intervention for event in run.history] == ["inject", "reset", "reset"]


def texts(*rules: str) -> list[Rule]:
    return [Rule.parse(text) for text in rules]


RULES = texts(
    "inject when weight_norm above 0.1 for 2 checks at most 2 times checked every 40",
    "reset at 240",
    "redo(tau=0.9) every 200",
)


@pytest.mark.slow
def test_training_that_stops_and_resumes_decides_as_if_it_had_not(tmp_path: Path):
    """Stopped at every env step that reports; the run, its events and its looks are the same."""

    def trained(folder: Path, stop_after: int | None = None, **options):
        calls = []

        def report(words: str, steps: int) -> None:
            calls.append(steps)
            if stop_after is not None and len(calls) > stop_after:
                raise KeyboardInterrupt

        return train(
            AGENT,
            ActionReward(),
            tmp_path / folder,
            env_steps=400,
            rules=RULES,
            probe_every=100,
            report=report,
            **options,
        )

    whole, diary = trained(Path("whole"))
    names = [event.intervention for event in whole.history]
    assert names == ["inject", "inject", "redo(tau=0.9)", "reset"]
    assert [event.env_steps for event in whole.history] == [80, 160, 200, 240]
    for i in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            trained(Path("stopped"), stop_after=i, resume=(tmp_path / "stopped").exists())
    resumed, same = trained(Path("stopped"), resume=True)
    assert bit_equal(resumed.state, whole.state)
    assert resumed.history == whole.history
    assert str(same) == str(diary)  # NaN is not equal to itself
    for name in ("checks.parquet", "probes.parquet", "episodes.parquet"):
        tables = [pq.read_table(tmp_path / folder / name) for folder in ("whole", "stopped")]
        assert str(tables[0].to_pylist()) == str(tables[1].to_pylist())
    times = {row["env_steps"] for row in read_probes(tmp_path / "whole")}
    assert times == {100, 200, 300, 400}


def test_checks_that_a_saved_run_does_not_know_of_are_forgotten():
    from regrow.training.schedule import until_now

    run = Run.start(AGENT, ActionReward(), seed=0).advance(80)[0]
    before = Check(40, 0, 1.0, False)
    assert until_now([before, Check(80, 0, 1.0, True)], run) == [before]
    injected = run.intervene(Inject())
    kept = [before, Check(80, 0, 1.0, True)]
    assert until_now([*kept, Check(120, 0, 1.0, True)], injected) == kept


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (texts("inject at 41"), "the time of 'inject at 41' is 41; it must be a multiple of 4"),
        (texts("inject at 40", "inject at 40"), "the rule 'inject at 40' is there twice"),
        (texts("inject(split=5) at 40"), "split 5 is outside the network"),
        (texts("inject(only='critic') at 40"), "no learner 'critic'; there are: q"),
    ],
)
def test_a_rule_that_cannot_be_carried_out_is_refused_before_the_work(tmp_path, rules, message):
    with pytest.raises(RegrowError, match=re.escape(message)):
        train(
            AGENT,
            ActionReward(),
            tmp_path / "run",
            env_steps=400,
            rules=rules,
            report=lambda words, steps: None,
        )
    assert not (tmp_path / "run").exists()

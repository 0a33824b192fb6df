"""A diagnosis from end to end, small: jobs, resuming, and what is written."""

import dataclasses
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from found import jobs_of, outcomes_of, results
from trees import bit_equal

from regrow.agents import DoubleDQN
from regrow.diagnosis.diagnose import diagnose, tasks
from regrow.diagnosis.jobs import jobs
from regrow.diagnosis.plan import Arm, Plan, arms_at_every_split
from regrow.diagnosis.recording import alone
from regrow.diagnosis.subject import Source, Subject
from regrow.environments import ActionReward, Breakout, MatchingReward, SwitchedGames
from regrow.errors import RegrowError
from regrow.execution.tasks import in_order
from regrow.interventions import Deaden, FitNoise, Inject
from regrow.records.rows import read_rows
from regrow.report.figure import draw_diagnosis
from regrow.sources.native import Diagnosis, Native
from regrow.sources.trained import Trained
from regrow.training.checkpoint import load
from regrow.training.run import Run
from regrow.training.train import train
from regrow.types import silent

module = importlib.import_module("regrow.diagnosis.diagnose")
AGENT = DoubleDQN(hidden=16, learn_start=40, replay_capacity=400)
ARMS = tuple(map(Arm.parse, ("nothing", "again", "inject", "reset")))
PLAN = Diagnosis(
    AGENT, ActionReward(), ARMS, seeds=2, fork_at=200, horizon=200, replicates=1, fixed=True
)


SRANK = ("srank", "head", "fork")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    return folder, diagnose(PLAN, folder)


def test_a_run_is_a_subject():
    run = Run.start(AGENT, ActionReward(), seed=0)
    assert isinstance(run, Subject)
    assert isinstance(Native(AGENT, ActionReward()), Source)


@pytest.mark.always
def test_the_fork_is_the_run_and_the_control_arm_is_the_run_gone_on(done):
    folder, _ = done
    run = Run.start(AGENT, ActionReward(), seed=1).advance(200)[0]
    held = load(jobs_of(folder) / "seed1-fork.ckpt")
    assert bit_equal(run.state, held.state)
    _, log = run.advance(200)
    (control,) = [o for o in outcomes_of(folder) if (o.arm, o.seed) == ("nothing", 1)]
    np.testing.assert_allclose(np.mean(control.curve), log.reward.mean(), atol=0.02)


def test_arms_share_the_past_and_again_has_other_draws(done):
    folder, _ = done
    by_arm = {o.arm: o for o in outcomes_of(folder) if o.seed == 0}
    assert by_arm["again"].curve != by_arm["nothing"].curve
    assert by_arm["inject"].predicted[0] == pytest.approx(by_arm["nothing"].predicted[0], rel=0.2)
    moved = {arm: abs(o.predicted[0] - by_arm["nothing"].predicted[0]) for arm, o in by_arm.items()}
    assert moved["reset"] > 2 * moved["inject"]


def test_a_plan_that_cannot_be_carried_out_is_refused_before_it_begins(tmp_path):
    arms = (Arm.parse("nothing"), Arm.parse("inject(split=9)"))
    with pytest.raises(RegrowError, match="split 9 is outside the network"):
        diagnose(dataclasses.replace(PLAN, arms=arms), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_forks_come_before_their_arms():
    order = [job.name for job, _ in jobs(PLAN)]
    assert len(order) == len(set(order)) == 2 * 5
    first, *others = tasks(alone(PLAN), Path("anywhere"))
    order = [first.name, *order]
    for task in others:
        assert all(order.index(need) < order.index(task.name) for need in task.needs)


def test_what_comes_before_the_fork_is_in_every_arm(tmp_path):
    plan = dataclasses.replace(
        PLAN,
        before=(FitNoise(rounds=1, updates=3, transitions=20),),
        arms=tuple(Arm.parse(name) for name in ("nothing", "inject(split=0)")),
    )
    diagnose(plan, tmp_path / "out")
    held = load(jobs_of(tmp_path / "out") / "seed0-fork.ckpt")
    assert [event.intervention for event in held.history] == [
        "fit_noise(rounds=1, updates=3, transitions=20)"
    ]


def test_what_is_written_is_what_was_found(done):
    folder, verdict = done
    content = json.loads((folder / "verdict.json").read_text())
    assert content["claim"] == verdict.claim
    assert set(content["effect"]) == {"estimate", "low", "high", "confidence"}
    for key in (
        *("smallest_effect", "noise", "findings", "arms", "probes", "environment", "unit"),
        *("agent", "fork_at", "horizon", "seeds", "seconds", "versions", "looks", "population"),
    ):
        assert key in content, key
    assert content["noise"]["degrees"] == 2  # of `nothing` and `again`, two seeds
    assert [run["seed"] for run in content["arms"]["inject"]] == [0, 1]
    outcome = outcomes_of(folder)[0]
    assert content["arms"]["nothing"][0]["area_under_curve"] == outcome.area

    rows = {(row.arm, row.seed): row for row in read_rows(folder).rows}
    assert rows.keys() == {(arm.name, seed) for arm in PLAN.arms for seed in (0, 1)}
    assert rows["nothing", 0].returns == outcome.curve
    assert rows["nothing", 0].env_steps[-1] == 400
    held = [row.probes for (arm, _), row in rows.items() if arm == "inject"]
    at_fork = [one.value for probes in held for one in probes if one[1:4] == SRANK]
    assert set(content["probes"]["srank.head"]) >= {"fork", "fresh", "inject"}
    assert content["probes"]["srank.head"]["fork"] == np.mean(at_fork)


def test_the_picture_is_drawn(done, tmp_path):
    folder, _ = done
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        path = tmp_path / f"curves{suffix}"
        draw_diagnosis(path, read_rows(folder).rows, title="t", subtitle="s")
        assert path.read_bytes().startswith(start)


def test_a_folder_with_another_plan_is_refused_and_left_alone(done):
    folder, _ = done
    before = results(folder)
    other = dataclasses.replace(PLAN, seeds=3)  # all of the error is spent on two
    with pytest.raises(RegrowError, match="holds another run: its seeds is 2, not 3"):
        diagnose(other, folder)
    assert results(folder) == before


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RegrowError, match="is not empty and holds no run"):
        diagnose(PLAN, tmp_path)
    with pytest.raises(RegrowError, match="is a file"):
        diagnose(PLAN, tmp_path / "thesis.tex")


def test_a_configuration_that_is_none_is_named(tmp_path):
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(RegrowError, match=r"config\.json is cut short or altered"):
        diagnose(PLAN, tmp_path)


def test_arms_that_differ_only_in_what_they_do_are_another_plan(done):
    folder, _ = done
    other = Arm("inject", Inject(split=0))
    arms = tuple(other if arm.name == "inject" else arm for arm in PLAN.arms)
    with pytest.raises(RegrowError, match="holds another run: its arms"):
        diagnose(dataclasses.replace(PLAN, arms=arms), folder)


def test_a_damaged_result_is_named(done, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(done[0], folder)
    for content in ("{", "{}", "[]"):
        (jobs_of(folder) / "seed0-inject.json").write_text(content)
        with pytest.raises(RegrowError, match=r"seed0-inject\.json is cut short or altered"):
            diagnose(PLAN, folder)


def test_the_plan_survives_its_config():
    plan = dataclasses.replace(
        PLAN,
        source=Native(AGENT, Breakout(sticky_actions=0.0)),
        before=(FitNoise(redraw=False),),
        arms=(*PLAN.arms, Arm.parse("inject(split=0)")),
    )
    assert Plan.from_config(json.loads(json.dumps(plan.config()))) == plan


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": 1}, "seeds is 1 and replicates 1; a verdict needs at least 2 seeds, or 2 repl"),
        ({"seeds": 0}, "seeds is 0; it must be at least 1"),
        ({"replicates": 0}, "replicates is 0; it must be at least 1"),
        ({"returns_range": (3.0, 3.0)}, r"the range of returns is 3\.0 to 3\.0; give the lower"),
        ({"fork_at": -4}, "fork_at is -4; it must be at least 4"),
        (
            {"fork_at": 42},
            "fork_at is 42; .* of 4, the agent's env steps per round, such as 40 or 44",
        ),
        ({"horizon": 40}, "horizon is 40; it must be at least 80 env steps"),
        ({"smallest_effect": 0.0}, "smallest_effect is 0.0"),
        ({"smallest_effect": float("inf")}, "smallest_effect is inf"),
        ({"fork_at": 2**31 - 4}, r"fork_at \+ horizon is 2147483844; it must be below 2\^31"),
        ({"arms": (*PLAN.arms, Arm("fork", Inject()))}, "no arm can be called 'fork'"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"arms": (Arm("inject", Inject()),)}, "must include 'nothing'"),
        ({"arms": (Arm.parse("nothing"), Arm.parse("reset"))}, "must include an injection"),
        ({"arms": (*PLAN.arms, Arm.parse("inject"))}, "the arm 'inject' is there twice"),
    ],
)
def test_a_plan_that_cannot_give_a_verdict_is_refused(fields, message):
    with pytest.raises(RegrowError, match=message):
        dataclasses.replace(PLAN, **fields)


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    arms = tuple(Arm.parse(name) for name in ("nothing", "inject"))
    verdict = diagnose(dataclasses.replace(PLAN, arms=arms), execute=in_order)
    assert verdict.claim in ("plasticity loss", "no plasticity loss", "inconclusive")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("num_envs", [1, 2])
def test_where_the_task_changes_the_random_policy_plays_what_the_arms_end_in(num_envs):
    """By chance nothing is earned in Freeway, and something in Space Invaders."""
    agent = dataclasses.replace(AGENT, num_envs=num_envs, replay_ratio=1 / 4)
    for games, earns in (("space_invaders freeway", False), ("freeway space_invaders", True)):
        environment = SwitchedGames(games=games, period=400 * num_envs)
        fork, end = 400 * num_envs, 800 * num_envs
        earned, error = Native(agent, environment).random_return(fork, end)
        assert (earned > 0, error >= 0) == (earns, True)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [0, 1])
def test_the_layer_that_was_broken_is_the_one_that_is_named(layer):
    """One known layer is killed before the fork; nothing else is wrong with the network."""
    agent = DoubleDQN(hidden=16, learn_start=40, replay_capacity=400, exploration_steps=100)
    environment = MatchingReward()
    arms = tuple(Arm.parse(text) for text in arms_at_every_split(Native(agent, environment).splits))
    assert [arm.name for arm in arms] == [
        *("nothing", "inject(split=0)", "inject(split=1)", "inject(split=2)", "reset")
    ]
    plan = Diagnosis(
        agent,
        environment,
        arms,
        seeds=3,
        fork_at=200,
        horizon=1_200,
        before=(Deaden(layer),),
        fixed=True,
    )
    verdict = diagnose(plan)
    assert verdict.claim == "plasticity loss"
    (finding,) = [finding for finding in verdict.findings if finding.code == "lost_in"]
    assert finding.text.startswith(f"layer {layer}: renewing it and what follows helps")


# Looks, replicates, a single agent.

GROWING = Diagnosis(
    AGENT,
    ActionReward(),
    tuple(map(Arm.parse, ("nothing", "inject"))),
    seeds=4,
    fork_at=200,
    horizon=200,
)


def runs_in(folder) -> set[tuple[str, int, int]]:
    return {(row.arm, row.seed, row.replicate) for row in read_rows(folder).rows}


@pytest.mark.always
def test_seeds_are_added_in_looks_and_more_may_be_asked_for_later(tmp_path):
    """What was looked at stays on record: a first run with 5 seeds has its look at 5."""
    never = dataclasses.replace(GROWING, smallest_effect=1e-9, returns_range=(0.0, 1e9))
    first = diagnose(dataclasses.replace(never, seeds=5, looks=()), tmp_path)
    assert [look.n for look in first.looks] == [4, 5]
    kept = {path: path.stat().st_mtime_ns for path in jobs_of(tmp_path).glob("*.json")}
    more = diagnose(dataclasses.replace(never, seeds=6, looks=()), tmp_path)
    assert [look.n for look in more.looks] == [4, 5, 6]
    assert more.looks[:2] == first.looks
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert runs_in(tmp_path) == {
        (arm, seed, replicate)
        for arm in ("nothing", "inject")
        for seed in range(6)
        for replicate in range(2)
    }
    content = json.loads((tmp_path / "verdict.json").read_text())
    assert [look["n"] for look in content["looks"]] == [4, 5, 6]
    fewer = diagnose(dataclasses.replace(never, seeds=4, looks=()), tmp_path)
    assert fewer.n == 6  # nothing is forgotten


def test_no_look_begins_that_would_end_too_late(tmp_path):
    never = dataclasses.replace(GROWING, seeds=8, looks=(), returns_range=(0.0, 1e9))
    never = dataclasses.replace(never, smallest_effect=1e-9)
    assert diagnose(never, tmp_path, minutes=0.0).n == 4
    assert diagnose(dataclasses.replace(never, seeds=6), tmp_path).n == 6
    assert diagnose(never, tmp_path, minutes=0.0).n == 6  # what was looked at takes no time


def test_replicates_share_the_fork_and_differ_in_their_random_numbers(tmp_path):
    diagnose(GROWING, tmp_path)
    outcomes = [o for o in outcomes_of(tmp_path) if o.seed == 0]
    for arm in ("nothing", "inject"):
        first, second = (o for o in outcomes if o.arm == arm)
        assert first.curve != second.curve
    old = Diagnosis(
        AGENT, ActionReward(), ARMS, seeds=2, fork_at=200, horizon=200, replicates=1, fixed=True
    )
    diagnose(old, tmp_path / "old")
    again = [o for o in outcomes_of(tmp_path / "old") if (o.arm, o.seed) == ("again", 0)]
    second = [o for o in outcomes if (o.arm, o.replicate) == ("nothing", 1)]
    assert again[0].curve == second[0].curve  # the name goes on working


def test_again_is_a_replicate_where_there_are_more():
    plan = Diagnosis(AGENT, ActionReward(), ARMS)
    assert [arm.name for arm in plan.arms] == ["nothing", "inject", "reset"]
    assert (plan.replicates, plan.looks[0], plan.looks[-1]) == (2, 4, 20)


def test_one_agent_is_diagnosed_by_its_replicates(tmp_path):
    plan = dataclasses.replace(GROWING, seeds=1, replicates=4, looks=())
    verdict = diagnose(plan, tmp_path)
    assert (verdict.population, verdict.n) == ("agent", 4)
    assert "in this agent" in verdict.reason
    assert len(list(jobs_of(tmp_path).glob("*fork.json"))) == 1
    assert {replicate for _, _, replicate in runs_in(tmp_path)} == {0, 1, 2, 3}


def test_runs_that_were_trained_are_forked_where_they_are(tmp_path):
    folders = [tmp_path / f"run{seed}" for seed in range(2)]
    for seed, folder in enumerate(folders):
        train(AGENT, ActionReward(), folder, env_steps=400, seed=seed, report=silent)
    source = Trained.of(folders)
    assert isinstance(source, Source)
    plan = Plan(source, GROWING.arms, seeds=2, fork_at=400, horizon=200, fixed=True)
    verdict = diagnose(plan, tmp_path / "out")
    assert (verdict.population, verdict.n) == ("training", 2)
    held = load(jobs_of(tmp_path / "out") / "seed1-fork.ckpt")
    assert bit_equal(held.state, load(folders[1] / "run.ckpt").state)
    row = next(row for row in read_rows(tmp_path / "out").rows if row.seed == 1)
    assert len(row.returns_to_fork) == 20
    assert Plan.from_config(json.loads(json.dumps(plan.config()))) == plan
    with pytest.raises(RegrowError, match="seeds is 3; there are 2 trained agents to fork"):
        dataclasses.replace(plan, seeds=3)
    train(AGENT, ActionReward(), tmp_path / "longer", env_steps=440, report=silent)
    with pytest.raises(RegrowError, match=r"differ in env_steps \(440 and 400\)"):
        Trained.of([*folders, tmp_path / "longer"])
    with pytest.raises(RegrowError, match="a run is given twice"):
        Trained.of([folders[0], folders[0]])

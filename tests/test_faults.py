"""Environments that do what they may not, numbers that are not finite, and what stays open."""

import dataclasses
import gc
import json
import pickle
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from faulty import Counted, Device, Host
from rich.console import Console
from rows_made_up import rows_of, write
from trees import bit_equal

from regrow.agents import PPO, SAC, DoubleDQN
from regrow.analysis.conditions import cases
from regrow.diagnosis.conclusion import conclude
from regrow.diagnosis.diagnose import diagnose, probe_means
from regrow.diagnosis.outcomes import Outcome
from regrow.diagnosis.plan import Arm
from regrow.diagnosis.verdict import INCONCLUSIVE
from regrow.environments import Gymnasium
from regrow.errors import FaultyEnvironmentError, NotFiniteError, RegrowError
from regrow.interventions.base import LearnerIntervention
from regrow.records.rows import Happened, Row, read_rows
from regrow.registry import describe
from regrow.report import terminal
from regrow.report.figure import draw_diagnosis
from regrow.sources.native import Diagnosis, Native
from regrow.training import session
from regrow.training.checkpoint import load, save
from regrow.training.evaluate import evaluate
from regrow.training.run import Run, random_policy
from regrow.training.saved import read_training
from regrow.training.train import train
from regrow.types import silent

BRIEF = {"batch_size": 8, "learn_start": 40, "replay_capacity": 300}
AGENT = DoubleDQN(hidden=8, **BRIEF)
PAIR = dataclasses.replace(AGENT, num_envs=2)
ROUND = PPO(hidden=8, batch_size=32, num_envs=4, epochs=2, minibatches=4)
SOFT = SAC(hidden=8, replay_ratio=0.25, **BRIEF)


# What an environment may not do.


@pytest.mark.parametrize("fault", ["reward", "observation"])
@pytest.mark.parametrize(
    ("world", "agent"),
    [
        (Device, AGENT),
        pytest.param(Device, PAIR, marks=pytest.mark.slow),
        (Host, AGENT),
        (Host, PAIR),
    ],
    ids=["Device-one", "Device-two", "Host-one", "Host-two"],
)
def test_what_is_not_finite_is_named_with_environment_and_env_step(world, fault, agent):
    environment = world(fault=fault, at=27)
    # Two environments side by side are both at their 27th at env steps 53 and 54.
    step = 27 if agent.num_envs == 1 else 53
    message = rf"{world.__name__}|faulty.*, env step {step}: the {fault} is .*(nan|finite)"
    with pytest.raises(FaultyEnvironmentError, match=message):
        Run.start(agent, environment, seed=0).advance(80)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("raise", r"step\(\) raised ConnectionResetError: the simulator hung up"),
        ("exit", r"step\(\) raised SystemExit: 3"),
        ("shape", r"the observation is float32\[1, 2\]; declared is float32\[2\]"),
        ("dtype", r"the observation is complex64\[2\]; declared is float32\[2\]"),
    ],
)
def test_what_a_simulation_may_not_do_is_told_in_a_sentence(fault, said):
    Counted.forget()
    with pytest.raises(FaultyEnvironmentError, match=f"env step 9: {said}"):
        Run.start(AGENT, Host(fault=fault, at=9), seed=0).advance(40)
    with pytest.raises(FaultyEnvironmentError, match=said):
        random_policy(Host(fault=fault, at=9), 40, seed=0)
    assert Counted.made == Counted.closed == 2


def test_one_that_does_not_come_back_is_told_and_not_waited_for(monkeypatch):
    monkeypatch.setenv("REGROW_PATIENCE", "0.2")
    with pytest.raises(FaultyEnvironmentError, match=r"env step 9: step\(\) raised TimeoutError"):
        Run.start(AGENT, Host(fault="hang", at=9), seed=0).advance(40)
    monkeypatch.setenv("REGROW_PATIENCE", "soon")
    with pytest.raises(RegrowError, match="REGROW_PATIENCE is 'soon'; it must be a number"):
        Run.start(AGENT, Host(), seed=0)


def test_one_that_cannot_be_closed_is_told_in_a_warning():
    with pytest.warns(UserWarning, match=r"close\(\) raised RuntimeError: the window is gone"):
        random_policy(Host(fault="close"), 20, seed=0)


def test_an_action_that_is_not_finite_does_not_reach_the_environment():
    run = Run.start(SOFT, Host(vectors=True), seed=0).advance(60)[0]
    broken = run.intervene(Blown())
    with pytest.raises(FaultyEnvironmentError, match=r"env step 6\d: the agent's action is nan"):
        broken.advance(20)


# An agent whose own numbers are no longer finite.


@dataclass(frozen=True)
class Blown(LearnerIntervention):
    """Makes every parameter so large that the next update cannot be finite."""

    def change(self, learner, key):
        network = jax.tree.map(
            lambda x: jnp.full_like(x, 1e38) if jnp.issubdtype(x.dtype, jnp.floating) else x,
            learner.network,
        )
        return dataclasses.replace(learner, network=network)


@pytest.mark.parametrize("world", [Device(), Host()], ids=["device", "host"])
def test_parameters_that_are_no_longer_finite_are_named(world):
    wild = dataclasses.replace(AGENT, learning_rate=1e38)
    message = (
        r"double_dqn\(.*\) is no longer finite by env step \d+: \d+% of q\.layers\.0\.\w+ is NaN"
    )
    with pytest.raises(NotFiniteError, match=message):
        Run.start(wild, world, seed=0).advance(400)


@pytest.mark.parametrize("error", [NotFiniteError, FaultyEnvironmentError])
def test_what_a_worker_raises_reaches_its_parent(error):
    assert str(pickle.loads(pickle.dumps(error("q is NaN")))) == "q is NaN"


def test_training_stops_and_the_last_checkpoint_can_be_resumed(tmp_path):
    folder, world = tmp_path / "run", Host(fault="reward", at=150, copied=True)
    train(AGENT, world, folder, env_steps=100, report=silent)
    with pytest.raises(FaultyEnvironmentError, match="env step 150: the reward is nan"):
        train(AGENT, world, folder, env_steps=200, resume=True, report=silent)
    assert load(folder / "run.ckpt").env_steps == 100
    assert np.isfinite(read_training(folder).episodes.returns).all()
    run, _ = train(AGENT, world, folder, env_steps=140, resume=True, report=silent)
    assert run.env_steps == 140


# In a diagnosis.

PLAN = Diagnosis(
    AGENT,
    Device(),
    (*map(Arm.parse, ("nothing", "inject")), Arm("blown", Blown())),
    seeds=2,
    replicates=1,
    fixed=True,
    fork_at=200,
    horizon=200,
)


def test_an_arm_that_is_not_finite_is_told_and_not_averaged(tmp_path):
    verdict = diagnose(PLAN, tmp_path)
    without = diagnose(dataclasses.replace(PLAN, arms=PLAN.arms[:2]))
    assert [c.arm for c in verdict.comparisons] == ["nothing", "inject"]
    assert verdict.comparisons == without.comparisons
    told = {finding.code: finding.text for finding in verdict.findings}
    assert "left out is blown" in told["not_finite"]
    assert "seed 0: double_dqn" in told["not_finite"]
    written = json.loads((tmp_path / "verdict.json").read_text())
    assert "no longer finite" in written["arms"]["blown"][1]["stopped"]
    rows = read_rows(tmp_path).rows
    draw_diagnosis(tmp_path / "curves.png", rows, title="t", subtitle="s")
    console = Console(record=True, width=200)
    terminal.show(console, verdict, rows, probe_means(rows))
    assert "not_finite" in console.export_text()


def test_where_the_control_or_the_injection_is_not_finite_nothing_is_claimed():
    def ran(arm: str, seed: int, stopped: str = "") -> Outcome:
        curve = () if stopped else (8.0 + seed, 9.0)
        return Outcome(arm, seed, curve, curve, 1.0, 1.0, stopped=stopped)

    for broken in ("nothing", "inject"):
        outcomes = [ran("nothing", 0), ran("nothing", 1), ran("inject", 0), ran("inject", 1)]
        outcomes = [o for o in outcomes if (o.arm, o.seed) != (broken, 1)]
        verdict = conclude([*outcomes, ran(broken, 1, stopped="q is NaN")], random_return=1.0)
        assert verdict.claim == INCONCLUSIVE
        assert verdict.reason == f"left out is {broken}. {broken}, seed 1: q is NaN."
        assert json.dumps(verdict.to_dict())


def test_rows_of_an_arm_that_was_stopped_are_told_and_not_averaged(tmp_path):
    rows = rows_of(seeds=4)

    def stopped(row: Row) -> Row:
        events = (*row.events, Happened(100_000, "stopped: q is NaN"))
        return dataclasses.replace(row, returns=(), env_steps=(), predicted=(), events=events)

    whole = (("reset", True), ("inject", False), ("nothing", False), ("again", False))
    for arm, judged in whole:
        odd = [stopped(row) if (row.arm, row.seed) == (arm, 2) else row for row in rows]
        write(tmp_path / arm, odd)
        read = read_rows(tmp_path / arm).rows
        found, problems = cases(read)
        assert problems == [
            f"an arm is left out (generality, minatar/breakout, {arm}, seed 2): q is NaN"
        ]
        (case,) = found
        # The replicate of a control goes with it: what did not diverge is no fair sample.
        gone = "nothing" if arm == "again" else arm
        assert set(case.arms) == {"nothing", "inject", "reset"} - {gone}
        assert case.seeds == (0, 1, 2, 3)
        assert (case.verdict is not None) == judged


# Whose the simulations are.


def test_two_runs_on_one_environment_do_not_disturb_each_other():
    pole = Gymnasium("CartPole-v1")
    alone, log = Run.start(AGENT, pole, seed=0).advance(200)
    first, log_a = Run.start(AGENT, pole, seed=0).advance(100)
    other = Run.start(AGENT, pole, seed=1)
    first, log_b = first.advance(100)
    assert bit_equal(first.state, alone.state)
    assert bit_equal(jax.tree.map(lambda *x: np.concatenate(x), log_a, log_b), log)
    assert other.advance(40)[0].restarts == first.restarts == ()


def test_a_forced_restart_is_kept_with_the_run_and_cuts_off_what_is_remembered(tmp_path):
    pole = Gymnasium("CartPole-v1")
    run, log = Run.start(PAIR, pole, seed=0).advance(100)
    fork, _ = run.fork().advance(20)
    assert fork.restarts == (100,)
    held = fork.state.replay.first(120)
    ended = (log.terminated | log.truncated)[-2:]
    np.testing.assert_array_equal(held.truncated[98:100], ~ended)
    np.testing.assert_array_equal(held.truncated[:98], log.truncated[:98])
    save(fork, tmp_path / "run.ckpt")
    assert load(tmp_path / "run.ckpt").restarts == (100,)
    assert run.advance(20)[0].restarts == ()


def test_what_is_interrupted_is_closed():
    Counted.forget()
    run = Run.start(PAIR, Host(fault="interrupt", at=30), seed=0)
    with pytest.raises(KeyboardInterrupt):
        run.advance(100)
    assert Counted.made == Counted.closed == 2


@pytest.fixture
def brief_chance(monkeypatch):
    """The random policy is measured over fewer env steps."""
    monkeypatch.setattr("regrow.sources.base.RANDOM_STEPS", 3_200)


@pytest.mark.parametrize("copied", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("brief_chance")
def test_everything_that_was_opened_is_closed(copied):
    Counted.forget()
    plan = small.diagnosis_of(AGENT, Host(copied=copied), 200, 200)
    diagnose(plan)
    gc.disable()  # nothing may hang on what collects cycles
    try:
        run, _ = Run.start(PAIR, plan.source.environment, seed=0).advance(40)
        evaluate(run, 2)
        fork = run.fork().advance(40)[0]
        assert Counted.made - Counted.closed == 4
        del run, fork
        assert Counted.made == Counted.closed
    finally:
        gc.enable()
    assert Counted.most == 4


# Episodes are played to their end.


@pytest.mark.parametrize(
    ("world", "agent", "sign"),
    [
        pytest.param(
            *(world, agent, sign),
            id=f"{world.__name__}-{agent.num_envs}-{sign}",
            # What is compiled for each.
            marks=() if world is Host or (agent is PAIR and sign < 0) else pytest.mark.slow,
        )
        for world in (Device, Host)
        for agent in (AGENT, PAIR)
        for sign in (1.0, -1.0)
    ],
)
def test_running_episodes_are_played_to_their_end(world, agent, sign):
    environment = world(length=33, pay=sign)
    run, log = Run.start(agent, environment, seed=0).advance(80)
    assert abs(log.episode_return[-1]) < 33
    before = jax.tree.map(np.array, run.state.agent)
    returns, over = run.play_out()
    np.testing.assert_array_equal(returns, np.full(agent.num_envs, sign * 33))
    assert over.all()
    assert bit_equal(run.state.agent, before)


@pytest.mark.parametrize("world", [Device(length=1_000), Host(length=1_000, copied=True)])
def test_one_that_does_not_end_is_given_up_and_the_run_stays_as_it_was(world):
    run = Run.start(AGENT, world, seed=0).advance(40)[0]
    returns, over = run.play_out(at_most=25)
    assert (returns.tolist(), over.tolist()) == ([65.0], [False])
    whole = Run.start(AGENT, world, seed=0).advance(80)[0]
    assert bit_equal(run.advance(40)[0].state, whole.state)


def test_what_cannot_be_continued_is_not_known():
    run = Run.start(PAIR, Host(), seed=0).advance(40)[0]
    returns, over = run.fork().play_out()
    assert np.isnan(returns).all()
    assert not over.any()


LENGTHS = {
    "within a bin": (AGENT, 7, -1.0),
    "longer than a bin": (AGENT, 90, 1.0),
    "longer than the horizon": (AGENT, 1_000, -1.0),
    "side by side": (ROUND, 170, -1.0),
}
QUICK = {
    ("within a bin", Device),
    ("longer than a bin", Host),
    ("longer than the horizon", Host),
    ("side by side", Host),
}


@pytest.mark.parametrize(
    ("world", "agent", "length", "pay"),
    [
        pytest.param(
            world,
            *LENGTHS[name],
            id=f"{name}-{world.__name__}",
            marks=() if (name, world) in QUICK else pytest.mark.slow,
        )
        for name in LENGTHS
        for world in (Device, Host)
    ],
)
@pytest.mark.usefixtures("brief_chance")
def test_every_arm_earns_what_its_episodes_return(world, pay, agent, length):
    """Every episode returns the same, so every bin of every arm has to say just that."""
    plan = small.diagnosis_of(agent, world(length=length, pay=pay), 320, 640)
    verdict = diagnose(plan)
    for comparison in verdict.comparisons:
        assert comparison.area == comparison.final == pay * length
    assert verdict.random_return == pay * length


def test_the_random_policy_is_played_until_an_episode_ends():
    long = Device(length=12_000, pay=-1.0)
    assert Native(AGENT, long).random_return(60_000, 100_000) == (-12_000, 0)


@pytest.mark.slow
def test_mountain_car_earns_what_its_episodes_return(tmp_path):
    """PPO's defaults, eight environments side by side: bins are shorter than episodes."""
    arms = tuple(map(Arm.parse, ("nothing", "inject")))
    agent = PPO(epochs=1, minibatches=4, hidden=8)
    world = Gymnasium("MountainCarContinuous-v0")
    verdict = diagnose(
        Diagnosis(
            agent,
            world,
            arms,
            2,
            fork_at=2_048,
            horizon=40_960,
            replicates=1,
            fixed=True,
        ),
        tmp_path,
    )
    for comparison in verdict.comparisons:
        assert -60 < comparison.area < -40, describe(world)


@pytest.mark.parametrize("count", [4, 33])
def test_large_numbers_are_finite_and_none_is_missed(count):
    """Of few numbers and of many; squares of 1e30 overflow in float32, which is no fault."""
    numbers = np.full(count, 1e30, np.float32)
    assert session._finite(numbers)
    for odd in (np.nan, np.inf, -np.inf):
        numbers[-1] = odd
        assert not session._finite(numbers)

"""The loop for environments on the host."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from trees import bit_equal

from regrow.agents import PPO, DoubleDQN
from regrow.diagnosis.diagnose import diagnose
from regrow.environments import Atari, Control, Gymnasium
from regrow.environments.base import HostEnvironment, HostStep, Simulator
from regrow.errors import RegrowError
from regrow.interventions import Nothing
from regrow.registry import describe
from regrow.sources.native import Native
from regrow.training.checkpoint import load, save
from regrow.training.device_loop import keys_of
from regrow.training.run import Run, random_policy
from regrow.training.train import train
from regrow.types import Discrete

BRIEF = {"batch_size": 8, "learn_start": 40, "replay_capacity": 300, "target_period": 5}
AGENT = DoubleDQN(hidden=16, **BRIEF)
POLE = Gymnasium("CartPole-v1")
GAME = Atari("breakout", sticky_actions=0.25)


class Corners(HostEnvironment):
    """A task of the suite in which every actuator is at one of its ends: discrete actions."""

    def __init__(self, task: str):
        self.inner = Control(task)

    def __eq__(self, other):
        return isinstance(other, Corners) and self.inner == other.inner

    def __hash__(self):
        return hash(self.inner)

    observation_shape = property(lambda self: self.inner.observation_shape)
    observation_dtype = property(lambda self: self.inner.observation_dtype)
    snapshot_size = property(lambda self: self.inner.snapshot_size)

    @property
    def action_space(self):
        return Discrete(2)

    def simulator(self):
        return CornerSimulator(self.inner.simulator(), self.inner.action_space.size)


class CornerSimulator(Simulator):
    def __init__(self, inner: Simulator, size: int):
        self.inner, self.size = inner, size

    def reset(self, seed):
        return self.inner.reset(seed)

    def step(self, action):
        return self.inner.step(np.full(self.size, 2.0 * int(action) - 1, np.float32))

    def snapshot(self):
        return self.inner.snapshot()

    def restore(self, snapshot):
        self.inner.restore(snapshot)


COPIED = [GAME, Atari("pong"), Corners("cheetah-run"), Corners("reacher-easy")]
COPIED += [Corners("cartpole-swingup")]
NAMES = ["breakout", "pong", "cheetah", "reacher", "cartpole"]
every_copied = pytest.mark.parametrize(
    "environment",
    [
        pytest.param(each, id=name, marks=pytest.mark.slow if name in ("pong", "reacher") else ())
        for each, name in zip(COPIED, NAMES, strict=True)
    ],
)


def started(environment: HostEnvironment, seed: int = 0) -> Run:
    agent = DoubleDQN(**BRIEF) if isinstance(environment, Atari) else AGENT
    return Run.start(agent, environment, seed=seed)


def advanced(run: Run, env_steps: int) -> Run:
    return run.advance(env_steps)[0]


# The loop.


@every_copied
def test_in_pieces_or_in_one_or_forked_it_is_the_same_run(environment):
    one, log = started(environment).advance(60)
    pieces, logs = started(environment), []
    for steps in (16, 4, 28, 12):
        pieces = pieces.fork().intervene(Nothing()) if steps == 28 else pieces
        other = advanced(pieces.fork(replicate=1), 4)  # a stranger in between
        assert not bit_equal(other.state.root, pieces.state.root)
        pieces, part = pieces.advance(steps)
        logs.append(part)
    assert bit_equal(one.state, pieces.state)
    assert bit_equal(jax.tree.map(lambda *parts: np.concatenate(parts), *logs), log)


@pytest.mark.parametrize(
    "environment", [pytest.param(GAME, marks=pytest.mark.slow), POLE], ids=describe
)
def test_saved_and_loaded_it_goes_on_as_if_it_had_never_stopped(environment, tmp_path):
    run = advanced(started(environment), 48)
    if environment == POLE:  # which goes on as a fork does
        run = run.fork()
    save(run, tmp_path / "run.ckpt")
    loaded = load(tmp_path / "run.ckpt")
    assert bit_equal(loaded.state, run.state)
    (on, log), (again, log_again) = run.advance(12), loaded.advance(12)
    assert bit_equal(on.state, again.state)
    assert bit_equal(log, log_again)


def test_what_cannot_be_copied_begins_a_new_episode_alike():
    run = advanced(started(POLE), 400)
    forks = [run.fork(), run.fork().intervene(Nothing()), run.fork(replicate=1)]
    going_on, log = run.advance(40)
    (a, log_a), (b, log_b), (c, _) = (fork.advance(40) for fork in forks)
    assert bit_equal(a.state, b.state)
    assert bit_equal(log_a, log_b)
    assert not bit_equal(a.state.replay, c.state.replay)
    assert not bit_equal(a.state.replay, going_on.state.replay)
    assert log_a.episode_return[0] == 1  # a new episode, where the Run itself goes on with its own
    assert log.episode_return[0] > 1


def test_a_run_that_goes_on_keeps_its_episode():
    whole, log = started(POLE).advance(400)
    pieces = advanced(advanced(started(POLE), 200), 200)
    assert bit_equal(whole.state, pieces.state)
    ended = log.terminated
    np.testing.assert_array_equal(log.episode_return[1:][ended[:-1]], 1)


def test_the_number_of_updates_is_that_of_the_loop_on_the_device():
    for ratio, expected in ((0.25, 15), (2.0, 120)):
        agent = DoubleDQN(hidden=8, learn_start=40, replay_capacity=100, replay_ratio=ratio)
        run, _ = Run.start(agent, POLE, seed=0).advance(100)
        assert int(run.state.updates) == int(run.state.agent.updates) == expected


class Clock(HostEnvironment):
    """Ends in turn: by the clock, for good, and for the agent alone."""

    observation_shape, observation_dtype = (1,), np.dtype(np.float32)
    action_space, snapshot_size = Discrete(2), 0

    def simulator(self):
        return Ticking()


class Ticking(Simulator):
    time = 0

    def reset(self, seed):
        return np.array([self.time], np.float32)

    def step(self, action):
        self.time += 1
        kind = self.time % 6
        seen = np.array([self.time], np.float32)
        return HostStep(seen, 5.0, kind == 2, kind == 4, 1.0 if kind else None, kind == 1)

    def snapshot(self):
        return np.zeros(0, np.uint8)

    def restore(self, snapshot):
        raise AssertionError


def test_the_replay_has_what_is_learnt_from_and_the_log_what_happened():
    run, log = Run.start(AGENT, Clock(), seed=0).advance(60)
    held = run.state.replay.first(60)
    kind = np.asarray(held.obs_t)[:, 0].astype(int) % 6
    np.testing.assert_array_equal(held.discount, ~np.isin(kind, (1, 2)))  # a clock bootstraps
    np.testing.assert_array_equal(held.reward, np.where(kind == 0, 5.0, 1.0))
    np.testing.assert_array_equal(log.reward, 5.0)
    np.testing.assert_array_equal(log.terminated, kind == 2)
    np.testing.assert_array_equal(log.truncated, kind == 4)
    assert set(log.episode_return[log.terminated | log.truncated].tolist()) <= {5.0, 10.0, 20.0}
    np.testing.assert_array_equal(held.obs_t - held.obs_tm1, 1.0)


def test_the_random_policy_is_measured():
    log = random_policy(POLE, 4_000, seed=0)
    returns = log.episode_return[log.terminated]
    assert 15 < returns.mean() < 30
    assert np.isnan(log.value).all()
    assert bit_equal(log, random_policy(POLE, 4_000, seed=0))
    assert np.isfinite(random_policy(Control("cheetah-run"), 50, seed=0).reward).all()


def test_an_intervention_does_not_cut_the_episode_of_what_cannot_be_copied():
    plain = changed = started(POLE)
    returns = []
    for _ in range(4):
        plain, log = plain.advance(4)
        returns.append(log.episode_return)
    changed = started(POLE)
    for expected in returns:
        changed, log = changed.advance(4)
        assert bit_equal(log.episode_return, expected)
        changed = changed.intervene(Nothing())


@pytest.mark.parametrize("num_envs", [1, 2])
def test_lengths_of_episodes_are_right_where_a_run_that_goes_on_begins_new_ones(tmp_path, num_envs):
    """In CartPole every env step earns 1, so a return is a length."""
    agent = DoubleDQN(hidden=16, num_envs=num_envs, **BRIEF)
    for until in (100, 200):
        options = {"resume": until > 100, "report": lambda phase, steps: None}
        _, diary = train(agent, POLE, tmp_path / "run", env_steps=until, **options)
    assert len(diary.episodes.returns) > 5
    np.testing.assert_array_equal(diary.episodes.lengths, diary.episodes.returns)


def test_a_diagnosis_says_that_the_episodes_were_restarted(monkeypatch):
    module = importlib.import_module("regrow.sources.base")
    monkeypatch.setattr(module, "RANDOM_STEPS", 200)
    plan = small.diagnosis_of(AGENT, POLE, 80, 80)
    assert plan.source.restarts
    codes = {finding.code for finding in diagnose(plan).findings}
    assert "episodes_restarted" in codes
    assert not Native(AGENT, GAME).restarts


def test_continuous_actions_are_refused_by_an_agent_for_discrete_ones():
    with pytest.raises(RegrowError, match="double_dqn takes discrete actions, not continuous act"):
        Run.start(AGENT, Control("cartpole-balance"), seed=0)


@pytest.mark.parametrize(
    "environment", [pytest.param(GAME, marks=pytest.mark.slow), POLE], ids=["atari", "pole"]
)
def test_simulations_side_by_side(environment, tmp_path):
    """In pieces, forked, saved or loaded alike, each in an episode of its own."""
    fields = {**BRIEF, "num_envs": 3, "replay_ratio": 0.5}
    agent = DoubleDQN(**fields) if environment == GAME else DoubleDQN(hidden=16, **fields)
    one, log = Run.start(agent, environment, seed=0).advance(72)
    assert (one.env_steps, int(one.state.updates)) == (72, (72 - 42) // 2)
    held = one.state.replay.first(72)
    axes = tuple(range(1, held.obs_t.ndim))
    goes_on = (np.asarray(held.obs_t[:-3]) == np.asarray(held.obs_tm1[3:])).all(axis=axes)
    ended = (log.terminated | log.truncated)[:-3]
    np.testing.assert_array_equal(goes_on, ~ended)
    pieces, _ = Run.start(agent, environment, seed=0).advance(30)
    if environment.snapshot_size:
        save(pieces, tmp_path / "run.ckpt")
        pieces = load(tmp_path / "run.ckpt").fork()
    pieces, _ = pieces.advance(42)
    assert bit_equal(one.state, pieces.state)


def test_an_agent_on_policy_waits_for_its_updates():
    """What it does in a round is what the last update made of it: the learnt batch is its own."""
    agent = PPO(hidden=8, num_envs=2, batch_size=32, epochs=4, minibatches=4)
    run, _ = Run.start(agent, POLE, seed=0).advance(64)
    assert int(run.state.updates) == 2
    before, _ = Run.start(agent, POLE, seed=0).advance(32)
    held, state = run.state.replay.first(32), before.state.agent
    root = run.state.root
    for row in (0, 1, 30, 31):
        turn = 32 + row // 2 * 2
        key = keys_of(root, "act", turn, 2)[row % 2]
        action, _ = agent.act(state, held.obs_tm1[row], jnp.array(turn), key)
        assert int(action) == int(held.action[row])

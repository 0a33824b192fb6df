"""Environments of one's own in JAX: a pair of functions, and those of gymnax and of Brax."""

import dataclasses
import importlib
import pickle
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refused_in_a_line
from trees import bit_equal

import regrow
from regrow.agents import PPO, DoubleDQN
from regrow.diagnosis.diagnose import diagnose
from regrow.diagnosis.plan import Arm
from regrow.environments import JAX
from regrow.environments.base import DeviceEnvironment, Step
from regrow.errors import FaultyEnvironmentError
from regrow.registry import describe, make
from regrow.sources.native import Diagnosis
from regrow.training.checkpoint import load, save
from regrow.training.run import Run
from regrow.types import Continuous, Discrete

EXAMPLES = Path(__file__).parents[1] / "examples"
POLICY = PPO(hidden=8, num_envs=2, batch_size=16, epochs=1, minibatches=2)


class Walk(NamedTuple):
    """A walk on a line."""

    place: jax.Array
    time: Any


def start(key):
    state = Walk(jax.random.uniform(key), 0)  # a number of Python, as people write it
    return state, jnp.stack([state.place, 0.0])


def walk(state, action, key):
    place = state.place + jnp.where(action == 1, 1.0, -1.0)
    after = Walk(place, state.time + 1)
    return after, jnp.stack([place, 1.0]), place, jnp.abs(place) > 3, after.time >= 10


LINE = JAX(start, walk, observation_shape=(2,), actions=Discrete(2))


def push(state, action, key):
    after, seen, _, terminated, truncated = walk(state, 1, key)
    return after, seen, action.sum(), terminated, truncated


def pushed(low, high, size=2):
    return JAX(start, push, observation_shape=(2,), actions=Continuous(size), low=low, high=high)


def test_a_pair_of_functions_is_an_environment():
    run, log = Run.start(POLICY, LINE, seed=0).advance(64)
    held = run.state.replay.first(16)
    assert {bool(one) for one in log.terminated} == {True, False}
    # The state of an episode that ended is never seen again: all others follow on one another.
    ended = (log.terminated | log.truncated)[48:]
    goes_on = (np.asarray(held.obs_t[:-2]) == np.asarray(held.obs_tm1[2:])).all(axis=1)
    np.testing.assert_array_equal(goes_on, ~ended[:-2])
    np.testing.assert_array_equal(np.asarray(held.discount), ~log.terminated[48:])
    np.testing.assert_allclose(np.asarray(held.obs_t)[:, 0], log.reward[48:])
    again = JAX(start, walk, observation_shape=[2], actions=Discrete(2))
    assert again == LINE
    assert hash(again) == hash(LINE)
    assert JAX(start, walk, observation_shape=(2,), actions=Discrete(3)) != LINE


def test_a_clock_truncates_and_both_at_once_terminate():
    state = Walk(jnp.array(0.0), jnp.array(9))
    _, step = LINE.step(state, jnp.array(1), jax.random.key(0))
    assert (bool(step.terminated), bool(step.truncated)) == (False, True)
    _, step = LINE.step(state._replace(place=jnp.array(3.5)), jnp.array(1), jax.random.key(0))
    assert (bool(step.terminated), bool(step.truncated)) == (True, False)


def test_vectors_reach_both_ends_exactly_and_never_pass_them():
    draw = np.random.default_rng(0)
    low = draw.normal(size=50).astype(np.float32)
    high = low + draw.exponential(size=50).astype(np.float32) + np.float32(1e-3)
    seen = []
    environment = JAX(
        start,
        lambda state, action, key: (seen.append(action), push(state, action, key))[1],
        observation_shape=(2,),
        actions=Continuous(50),
        low=low,
        high=high,
    )
    state, _ = environment.reset(jax.random.key(0))
    chosen = [np.ones(50), -np.ones(50), np.full(50, 1.5), draw.uniform(-1, 1, 50)]
    for action in chosen:
        environment.step(state, jnp.array(action, jnp.float32), jax.random.key(0))
    np.testing.assert_array_equal(seen[0], high)
    np.testing.assert_array_equal(seen[1], low)
    np.testing.assert_array_equal(seen[2], high)
    middle, half = (low + high) / 2, (high - low) / 2
    np.testing.assert_allclose(seen[3], middle + half * chosen[3], rtol=1e-5, atol=1e-6)
    assert ((np.asarray(seen[3]) >= low) & (np.asarray(seen[3]) <= high)).all()


# Names.


def test_it_is_named_after_its_module_saved_loaded_and_sent_to_another_process(tmp_path):
    assert describe(LINE) == f"jax/{__name__}:LINE"
    assert make("environments", describe(LINE)) is LINE
    run, _ = Run.start(POLICY, LINE, seed=0).advance(32)
    save(run, tmp_path / "run.ckpt")
    loaded = load(tmp_path / "run.ckpt")
    assert loaded.environment is LINE
    (on, log), (again, log_again) = run.advance(16), loaded.advance(16)
    assert bit_equal(on.state, again.state)
    assert bit_equal(log, log_again)
    assert pickle.loads(pickle.dumps(LINE)) is LINE
    unnamed = JAX(start, walk, observation_shape=(2,), actions=Discrete(2))
    assert describe(unnamed) == "JAX"
    assert pickle.loads(pickle.dumps(unnamed)) == unnamed


@dataclasses.dataclass(frozen=True)
class Still(DeviceEnvironment):
    """Another environment of one's own, by the contract of those of regrow."""

    length: int = 1
    observation_shape, observation_dtype, num_actions = (1,), np.dtype(np.float32), 2

    def reset(self, key):
        return jnp.zeros(()), jnp.zeros(1)

    def step(self, state, action, key):
        return state, Step(jnp.zeros(1), jnp.ones(()), jnp.array(True), jnp.array(False))


STILL = Still(3)


def test_another_environment_of_ones_own_has_a_name_too(tmp_path):
    assert make("environments", f"jax/{__name__}:STILL") is STILL
    assert make("environments", describe(STILL)) == STILL
    run, _ = Run.start(POLICY, STILL, seed=0).advance(16)
    save(run, tmp_path / "run.ckpt")
    assert load(tmp_path / "run.ckpt").environment == STILL


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jax", "jax stands for environments of your own; write jax/module:attribute"),
        ("jax/", "no environment 'jax/'; "),
        ("jax/json", "write jax/module:attribute"),
        (
            "jax/no_such:x",
            "the module 'no_such' cannot be imported: ModuleNotFoundError: No module",
        ),
        (f"jax/{__name__}:LIN", f"no environment in {__name__} 'LIN'; did you mean 'LINE'?"),
        (f"jax/{__name__}:POLICY", "is a PPO; it must be a regrow.environments.JAX or another Env"),
        (f"jax/{__name__}:LINE(size=3)", "jax takes no fields"),
    ],
)
def test_what_is_not_there_is_said(text, message):
    with refused_in_a_line(message):
        make("environments", text)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: pushed(1.0, 1.0), "JAX takes actions from 1 to 1 at [0]; the upper bound must be"),
        (lambda: pushed(-np.inf, 1.0), "JAX has actions without bounds"),
        (lambda: pushed((0.0, 3.0), (1.0, 2.0)), "JAX takes actions from 3 to 2 at [1]"),
        (
            lambda: JAX(start, walk, observation_shape=(2,), actions=2),
            "actions is 2; it must be regrow.types.Discrete(n) or Continuous(n)",
        ),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_made(made, message):
    with refused_in_a_line(message):
        made()


def replaced(place, value):
    """The walk with something else in one of the places of what `step` returns."""

    def step(state, action, key):
        came = list(walk(state, action, key))
        came[place] = value
        return tuple(came)

    return JAX(start, step, observation_shape=(2,), actions=Discrete(2))


FAULTY = [
    (replaced(1, jnp.zeros(3)), "the observation is float32[3]; declared is float32[2]"),
    (replaced(1, 0.5), "the observation is a float; declared is float32[2]"),
    (replaced(2, jnp.zeros(1)), "reward is float32[1]; it must be float32[]"),
    (replaced(3, jnp.zeros(())), "terminated is float32[]; it must be bool[]"),
    (replaced(4, 1), "truncated is int32[]; it must be bool[]"),
    (
        replaced(0, Walk(jnp.zeros(3), 0)),
        "the state.place is float32[3] after a step and float32[]",
    ),
    (replaced(0, (jnp.zeros(()), 0)), "the state after a step is another tree than the one before"),
    (replaced(0, "x"), "a state must be a tree of arrays: TypeError: "),
    (
        JAX(start, lambda s, a, k: (s, jnp.zeros(2)), observation_shape=(2,), actions=Discrete(2)),
        "step returned 2 values; it must return state, observation, reward, terminated, truncated",
    ),
    (
        JAX(lambda key: jnp.zeros(2), walk, observation_shape=(2,), actions=Discrete(2)),
        "reset returned float32[2]; it must return state and observation",
    ),
    (
        JAX(start, walk, observation_shape=(2,), observation_dtype=np.uint8, actions=Discrete(2)),
        "the observation is float32[2]; declared is uint8[2]",
    ),
]


@pytest.mark.parametrize(("environment", "message"), FAULTY, ids=lambda x: str(x)[:40])
def test_what_is_not_as_declared_is_an_error_before_anything_is_done(environment, message):
    for do in (
        lambda: Run.start(POLICY, environment, seed=0).advance(16),
        lambda: regrow.check_environment(environment),
    ):
        with pytest.raises(FaultyEnvironmentError) as caught:
            do()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


# gymnax: its interface, before version 1 and from it on.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PoleState:
    angle: Any
    time: Any

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class PoleParams:
    limit: Any = dataclasses.field(default_factory=lambda: np.ones(2))  # does not hash
    max_steps_in_episode: int = 5


class Box(NamedTuple):
    low: Any
    high: Any
    shape: tuple[int, ...]


class Pole:
    """Falls by what it is pushed with; over at an angle of 3."""

    default_params = PoleParams()

    def action_space(self, params):
        return Box(-2.0, 2.0, (1,))

    def reset_env(self, key, params):
        state = PoleState(jnp.array(0.0), 0)
        return self.seen(state), state

    def reset(self, key, params=None):
        raise AssertionError("resets go through reset_env")

    def step(self, *arguments):
        raise AssertionError("this one resets by itself")

    def seen(self, state):
        return jnp.stack([state.angle, jnp.asarray(state.time, jnp.float32)])

    def is_terminal(self, state, params):
        return (jnp.abs(state.angle) >= 3) | (state.time >= params.max_steps_in_episode)

    def step_env(self, key, state, action, params):
        after = PoleState(state.angle + action[0] * params.limit[0], state.time + 1)
        return self.seen(after), after, after.angle[None], self.is_terminal(after, params), {}


class PoleOfVersion1(Pole):
    def is_terminal(self, state, params):
        return jnp.abs(state.angle) >= 3

    def is_truncated(self, state, params):
        return state.time >= params.max_steps_in_episode


class Numbered(Pole):
    def action_space(self, params):
        return types.SimpleNamespace(n=3, shape=(), dtype=jnp.int32)

    def step_env(self, key, state, action, params):
        return super().step_env(key, state, jnp.array([action - 1.0]), params)


@pytest.mark.parametrize("pole", [Pole(), PoleOfVersion1()], ids=["before 1", "from 1 on"])
def test_one_of_gymnax_does_not_reset_itself_and_its_limit_truncates(pole):
    environment = JAX.from_gymnax(pole)
    assert environment.observation_shape == (2,)
    assert environment.action_space == Continuous(1)
    for action, ends in {
        0.1: [(False, False)] * 4 + [(False, True)],
        0.5: [*[(False, False)] * 2, (True, False)],
    }.items():
        state, seen = environment.reset(jax.random.key(0))
        np.testing.assert_array_equal(seen, [0, 0])
        came = []
        for i in range(len(ends)):
            state, step = environment.step(state, jnp.array([action]), jax.random.key(0))
            came.append((bool(step.terminated), bool(step.truncated)))
            np.testing.assert_allclose(step.observation, [2 * action * (i + 1), i + 1], rtol=1e-6)
            np.testing.assert_allclose(step.reward, 2 * action * (i + 1), rtol=1e-6)
        assert came == ends


POLE, NUMBERED = JAX.from_gymnax(Pole()), JAX.from_gymnax(Numbered(), PoleParams())


def test_one_of_gymnax_is_trained_named_and_sent_to_another_process():
    _, log = Run.start(POLICY, POLE, seed=0).advance(64)
    assert (log.terminated | log.truncated).any()
    assert pickle.loads(pickle.dumps(POLE)) is POLE
    assert hash(POLE) != hash(JAX.from_gymnax(Pole()))
    agent = DoubleDQN(hidden=4, learn_start=8, replay_capacity=50)
    assert NUMBERED.action_space == Discrete(3)
    assert Run.start(agent, NUMBERED, seed=0).advance(16)[0].env_steps == 16


# Brax: its interface.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BraxState:
    obs: Any
    reward: Any
    done: Any
    info: dict[str, Any]


class Ball:
    """Rolls as it is pushed; over, as a float, at a distance of 3."""

    observation_size, action_size = 2, 2

    def reset(self, rng):
        return BraxState(jnp.zeros(2), jnp.zeros(()), jnp.zeros(()), {})

    def step(self, state, action):
        obs = state.obs + action
        return BraxState(obs, obs.sum(), (jnp.abs(obs).max() >= 3).astype(jnp.float32), state.info)


class EpisodeWrapper:
    """Counts in `info`, which it writes into, and is done at its limit."""

    action_size = 2

    def __init__(self, env, limit):
        self.env, self.limit = env, limit

    def reset(self, rng):
        state = self.env.reset(rng)
        state.info["steps"] = state.info["truncation"] = jnp.zeros(())
        return state

    def step(self, state, action):
        after = self.env.step(state, action)
        after.info["steps"] = state.info["steps"] + 1
        over = after.info["steps"] >= self.limit
        after.info["truncation"] = jnp.where(over, 1 - after.done, 0.0)
        return dataclasses.replace(after, done=jnp.where(over, 1.0, after.done))


class AutoResetWrapper(EpisodeWrapper):
    pass


class TwoViews(Ball):
    def reset(self, rng):
        state = super().reset(rng)
        return dataclasses.replace(state, obs={"state": state.obs, "privileged": state.obs})


@pytest.mark.parametrize(
    "environment",
    [JAX.from_brax(Ball(), episode_length=4), JAX.from_brax(EpisodeWrapper(Ball(), 4))],
    ids=["bare", "wrapped"],
)
def test_one_of_brax_terminates_where_it_is_done_and_is_cut_by_its_length(environment):
    expected = {
        0.1: [(False, False)] * 3 + [(False, True)],
        1.0: [(False, False)] * 2 + [(True, False)],
    }
    for action, ends in expected.items():
        state, _ = environment.reset(jax.random.key(0))
        came = []
        for i in range(len(ends)):
            state, step = environment.step(state, jnp.full(2, action), jax.random.key(0))
            came.append((bool(step.terminated), bool(step.truncated)))
            np.testing.assert_allclose(step.observation, np.full(2, action * (i + 1)), rtol=1e-6)
        assert came == ends
    run, _ = Run.start(POLICY, environment, seed=0).advance(32)
    assert run.env_steps == 32


def test_one_of_brax_that_resets_itself_or_shows_several_arrays_is_refused():
    with refused_in_a_line(
        "AutoResetWrapper resets the environment by itself; give it without, as"
    ):
        JAX.from_brax(AutoResetWrapper(Ball(), 4))
    with refused_in_a_line("AutoResetWrapper resets the environment by itself"):
        JAX.from_brax(EpisodeWrapper(AutoResetWrapper(Ball(), 4), 4))
    with refused_in_a_line(
        "the observation is a dict of several arrays; wrap the environment in one"
    ):
        JAX.from_brax(TwoViews())


# The example.


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    yield importlib.import_module("own_jax_environment")
    sys.modules.pop("own_jax_environment")


@pytest.mark.slow
def test_the_example_is_checked_trained_and_diagnosed(example, monkeypatch, tmp_path):
    environment = make("environments", "jax/own_jax_environment:track")
    assert environment is example.track
    report = regrow.check_environment(environment, env_steps=250)
    assert report.environment == "jax/own_jax_environment:track"
    assert not report.warnings
    module = importlib.import_module("regrow.sources.base")
    monkeypatch.setattr(module, "RANDOM_STEPS", 400)
    plan = Diagnosis(
        POLICY,
        environment,
        (Arm.parse("nothing"), Arm.parse("inject")),
        2,
        320,
        320,
        replicates=1,
        fixed=True,
    )
    assert plan.config()["environment"] == "jax/own_jax_environment:track"
    assert diagnose(plan, tmp_path / "out").claim

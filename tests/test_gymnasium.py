"""Environments of Gymnasium: spaces, what comes of them, and ids."""

import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces.utils import flatten
from hypothesis import given
from hypothesis import strategies as st
from own_gym import TWO, ZERO, Scripted, scripted
from refusals import refused_in_a_line

from regrow.agents import PPO, DoubleDQN
from regrow.environments import Gymnasium
from regrow.environments.actions.base import Range, actions
from regrow.environments.observations.base import reader
from regrow.errors import FaultyEnvironmentError, RegrowWarning
from regrow.registry import describe, make
from regrow.training.run import Run
from regrow.training.session import Session
from regrow.types import Continuous, Discrete

BYTES = spaces.Box(0, 255, (4, 5, 3), np.uint8)
IMAGE = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)


def space_of(low=-1.0, high=1.0, shape=(2,), dtype=np.float32):
    return spaces.Box(low, high, shape, dtype)


# What agents see.

SEEN = [
    (space_of(), np.array([0.5, -1], np.float32), np.array([0.5, -1], np.float32)),
    (space_of(dtype=np.float64), np.array([0.5, 0.1]), np.array([0.5, 0.1], np.float32)),
    (space_of(), [0.5, 1], np.array([0.5, 1], np.float32)),
    (space_of(shape=()), np.float32(0.5), np.array([0.5], np.float32)),
    (space_of(0, 9, (2, 2)), np.arange(4.0).reshape(2, 2), np.arange(4, dtype=np.float32)),
    (space_of(0, 255, (3,), np.uint8), np.array([0, 7, 255], np.uint8), np.float32([0, 7, 255])),
    (space_of(-5, 5, (2,), np.int64), np.array([-5, 3]), np.float32([-5, 3])),
    (space_of(0, 1, (2,), np.bool_), np.array([True, False]), np.float32([1, 0])),
    (BYTES, IMAGE, IMAGE),
    (space_of(0, 1, (4, 5, 3)), IMAGE / 255.0, (IMAGE / 255.0).astype(np.float32)),
    (space_of(0, 1, (3, 4, 5), np.bool_), IMAGE.transpose(2, 0, 1) > 9, IMAGE > 9),
    (space_of(0, 255, (3, 4, 5), np.uint8), IMAGE.transpose(2, 0, 1), IMAGE),
    (space_of(0, 255, (4, 5), np.uint8), IMAGE[..., 0], IMAGE[..., :1]),
    (space_of(0, 9, (2, 5, 1), np.int64), np.ones((2, 5, 1), int), np.ones(10, np.float32)),
    (spaces.Discrete(3), 2, np.float32([0, 0, 1])),
    (spaces.Discrete(3, start=-1), np.int64(-1), np.float32([1, 0, 0])),
    (spaces.MultiDiscrete([2, 3]), np.array([1, 0]), np.float32([0, 1, 1, 0, 0])),
    (spaces.MultiDiscrete([2, 2], start=[5, 7]), np.array([6, 7]), np.float32([0, 1, 1, 0])),
    (spaces.MultiBinary(3), np.array([1, 0, 1], np.int8), np.float32([1, 0, 1])),
    (spaces.Dict(image=BYTES), {"image": IMAGE}, IMAGE),
    (
        spaces.Dict({"z": TWO, "a": spaces.Discrete(2)}),
        {"z": np.array([0.5, 1], np.float32), "a": 1},
        np.float32([0, 1, 0.5, 1]),
    ),
    (
        spaces.Tuple([BYTES, spaces.Dict({"x": TWO, "on": spaces.MultiBinary(1)})]),
        (IMAGE, {"x": np.array([0.5, 1], np.float32), "on": np.array([1], np.int8)}),
        np.concatenate(
            [IMAGE.ravel().astype(np.float32) / np.float32(255), np.float32([1, 0.5, 1])]
        ),
    ),
]


@pytest.mark.parametrize(("space", "raw", "expected"), SEEN, ids=lambda x: str(x)[:40])
def test_what_agents_see(space, raw, expected):
    read = reader(space, "x")
    seen = read.read(raw)
    np.testing.assert_array_equal(seen, expected)
    assert seen.dtype == expected.dtype == read.dtype
    assert seen.shape == read.shape
    assert seen.flags.c_contiguous
    assert not any(np.shares_memory(seen, part) for part in _arrays(raw))


def _arrays(raw):
    if isinstance(raw, dict):
        raw = tuple(raw.values())
    if isinstance(raw, tuple):
        return [array for part in raw for array in _arrays(part)]
    return [raw] if isinstance(raw, np.ndarray) else []


NESTED = spaces.Dict(
    {
        "position": space_of(-9, 9, (2, 3)),
        "goal": spaces.Tuple([spaces.Discrete(4, start=2), spaces.MultiBinary(3)]),
        "kind": spaces.MultiDiscrete([2, 3, 4]),
        "battery": space_of(0, 100, (1,), np.int64),
    }
)


def test_parts_stand_in_the_order_of_gymnasium_and_of_stable_baselines3():
    import torch
    from stable_baselines3.common import preprocessing

    read = reader(NESTED, "x")
    for seed in range(20):
        NESTED.seed(seed)
        raw = NESTED.sample()
        np.testing.assert_allclose(read.read(raw), flatten(NESTED, raw).astype(np.float32))
    # Theirs has no Tuple, and images have a convolution of their own; before it they are these.
    flat = spaces.Dict({"z": TWO, "image": BYTES, "kind": NESTED["kind"], "on": spaces.Discrete(2)})
    raw = flat.sample()
    batch = {key: torch.as_tensor(np.asarray(value))[None] for key, value in raw.items()}
    theirs = preprocessing.preprocess_obs(batch, flat)
    joined = np.concatenate([theirs[key].numpy().ravel() for key in flat.spaces])
    np.testing.assert_allclose(reader(flat, "x").read(raw), joined, rtol=1e-6)


def test_where_the_channels_are():
    """As Stable-Baselines3 has it: the smallest axis; where two are, the last."""
    for shape, seen in {
        (84, 84, 3): (84, 84, 3),
        (3, 84, 84): (84, 84, 3),
        (4, 84, 96): (84, 96, 4),
        (7, 7, 20): (7, 7, 20),
        (10, 10, 10): (10, 10, 10),
        (2, 36, 84): (36, 84, 2),
    }.items():
        assert reader(space_of(0, 255, shape, np.uint8), "x").shape == seen, shape
    with refused_in_a_line(
        "x observes Box(0, 255, (84, 3, 84), uint8), whose middle axis is the s"
    ):
        reader(space_of(0, 255, (84, 3, 84), np.uint8), "x")


def test_channels_first_reach_the_kernel_as_channels():
    camera = scripted(
        observation_space=space_of(0, 255, (3, 84, 84), np.uint8),
        first=np.zeros((3, 84, 84), np.uint8),
    )
    agent = PPO(batch_size=8, num_envs=2, minibatches=2, hidden=8)
    run = Run.start(agent, camera, seed=0)
    assert run.state.agent.actor.network.layers[0].weight.shape[2] == 3
    assert run.state.observation.shape == (2, 84, 84, 3)


def test_small_images_of_bytes_have_the_small_network_of_double_dqn():
    """That of MinAtar, for which bytes are divided by 255."""
    agent, shape, key = DoubleDQN(channels=2, hidden=4), (7, 9, 3), jax.random.key(0)
    of_bytes = agent.init(shape, np.dtype(np.uint8), Discrete(2), key).q.network
    of_bools = agent.init(shape, np.dtype(bool), Discrete(2), key).q.network
    lit = jax.random.bernoulli(key, 0.5, shape)
    np.testing.assert_allclose(of_bytes(lit.astype(np.uint8) * 255), of_bools(lit), rtol=1e-5)
    large = jax.eval_shape(
        lambda: DoubleDQN().init((36, 36, 3), np.dtype(np.uint8), Discrete(2), key)
    )
    assert len(of_bytes.layers) == 3
    assert len(large.q.network.layers) == 5


# What is not as its space says.

WRONG = [
    (TWO, np.zeros(3, np.float32), "is float32[3]; its space says float32[2]"),
    (TWO, np.zeros((1, 2), np.float32), "is float32[1, 2]; its space says float32[2]"),
    (TWO, 0.5, "is float64[]; its space says float32[2]"),
    (TWO, None, "is None; its space says float32[2]"),
    (TWO, {"x": 1}, "is a dict; its space says float32[2]"),
    (TWO, (ZERO, {}), "is a tuple; its space says float32[2]"),
    (TWO, [[1.0], [1.0, 2.0]], "is a list; its space says float32[2]"),
    (TWO, np.array(["a", "b"]), "is a ndarray; its space says float32[2]"),
    (TWO, np.zeros(2, complex), "is complex128[2]; its space says float32[2]"),
    (BYTES, IMAGE / 255.0, "is float64[4, 5, 3]; its space says uint8[4, 5, 3]"),
    (BYTES, IMAGE.astype(np.int64), "is int64[4, 5, 3]; its space says uint8[4, 5, 3]"),
    (BYTES, IMAGE.transpose(2, 0, 1), "is uint8[3, 4, 5]; its space says uint8[4, 5, 3]"),
    (
        space_of(0, 1, (2, 3, 3), np.uint8),
        np.full((2, 3, 3), 2, np.uint8),
        "is 2 at [0, 0, 0]; its",
    ),
    (space_of(0, 5, (2,), np.int64), np.array([0, 6]), "is 6 at [1]; its space says 0 to 5"),
    (spaces.Discrete(3), 3, "is 3; its space says 0 to 2"),
    (spaces.Discrete(3, start=1), 0, "is 0; its space says 1 to 3"),
    (spaces.Discrete(3), 1.0, "is float64[]; its space says a whole number"),
    (spaces.Discrete(3), np.array([1]), "is int64[1]; its space says a whole number"),
    (spaces.MultiDiscrete([2, 3]), np.array([1, 3]), "is 3 at [1]; its space says 0 to 2"),
    (spaces.MultiDiscrete([2, 3]), np.array([1]), "is int64[1]; its space says whole numbers[2]"),
    (spaces.MultiBinary(2), np.array([1, 2]), "is 2 at [1]; its space says 0 to 1"),
    (
        spaces.MultiBinary(2),
        np.array([1.0, 0.0]),
        "is float64[2]; its space says zeros and ones[2]",
    ),
    (spaces.Dict(x=TWO), ZERO, "is float32[2]; its space says a dict"),
    (spaces.Dict(x=TWO), {"y": ZERO}, "is a dict of y; its space says one of x"),
    (spaces.Dict(x=TWO, y=TWO), {"x": ZERO, "y": 1}, "at ['y'] is int64[]; its space says float"),
    (spaces.Tuple([TWO, TWO]), (ZERO,), "is a tuple of 1; its space says a tuple of 2"),
    (
        spaces.Dict(a=spaces.Tuple([TWO, spaces.Discrete(2)]), b=TWO),
        {"a": (ZERO, 5), "b": ZERO},
        "the observation at ['a'][1] is 5; its space says 0 to 1",
    ),
]


@pytest.mark.parametrize(("space", "raw", "message"), WRONG, ids=lambda x: str(x)[:40])
def test_what_is_not_as_its_space_says_is_an_error_that_says_both(space, raw, message):
    right = _right(space)
    for first, then, when in ((raw, right, 0), (right, raw, 7)):
        session = Session(scripted(observation_space=space, first=first, then=then), 1)
        with pytest.raises(FaultyEnvironmentError) as caught:
            _begun_and_stepped(session, 7)
        text = str(caught.value)
        assert message in text
        assert f"-v0, env step {when}: the observation" in text
        assert "\n" not in text


def _begun_and_stepped(session, env_step):
    session.reset(0, 0, 0)
    session.step(0, np.asarray(0), env_step)


def _right(space):
    space.seed(0)
    return space.sample()


def test_floats_out_of_range_are_told_once_and_seen_as_they_are():
    environment = scripted(then=np.array([0, 2.5], np.float32))
    with Session(environment, 2) as session:
        session.reset(0, 0, 0)
        with pytest.warns(
            RegrowWarning, match=r"the observation is 2.5 at \[1\]; its space says -1.0 t"
        ):
            seen = session.step(0, np.asarray(0), 1).observation
        np.testing.assert_array_equal(seen, [0, 2.5])
        session.step(0, np.asarray(0), 2)  # a second warning would be an error in tests
        session.reset(1, 0, 2)
        session.step(1, np.asarray(0), 3)


def test_doubles_that_round_to_the_bound_are_within_it():
    environment = scripted(first=np.array([1 + 1e-12, 0]))
    with Session(environment, 1) as session:
        np.testing.assert_array_equal(session.reset(0, 0, 0), np.float32([1, 0]))


@pytest.mark.parametrize("huge", [1e300, np.inf, np.nan])
def test_what_is_not_finite_as_agents_see_it_is_an_error(huge):
    session = Session(scripted(observation_space=space_of(-np.inf, np.inf), first=[0, huge]), 1)
    with pytest.raises(FaultyEnvironmentError, match=r"not finite: (inf|nan) at \[1\]"):
        session.reset(0, 0, 0)


RETURNED = [
    ({"returns": {"reset": ZERO}}, "reset() returned a ndarray; it must return an observation and"),
    ({"returns": {"reset": (ZERO, ZERO)}}, "reset() returned 2 values (ndarray, ndarray); it must"),
    ({"returns": {"step": (ZERO, 1.0, False, {})}}, "step() "),
    ({"returns": {"step": None}}, "step() "),
    ({"returns": {"step": (ZERO, 1.0, False, False, None)}}, "step() returned 5 values (ndarray, "),
    ({"reward": None}, "the reward is None; it must be a number"),
    ({"reward": "1"}, "the reward is '1'; it must be a number"),
    ({"reward": np.zeros(2)}, "the reward is array([0., 0.]); it must be a number"),
    ({"reward": np.nan}, "the reward is nan; it must be a finite number"),
    ({"reward": 1j}, "the reward is 1j; it must be a number"),
    ({"ends": (1, False)}, "terminated is 1; it must be True or False"),
    ({"ends": (False, None)}, "truncated is None; it must be True or False"),
]


@pytest.mark.parametrize("limit", [None, 10], ids=["bare", "limited"])
@pytest.mark.parametrize(("script", "message"), RETURNED, ids=lambda x: str(x)[:40])
def test_what_reset_and_step_must_return(script, message, limit):
    environment = scripted(limit, **script)
    made, closed = Scripted.made, Scripted.closed
    session = Session(environment, 2)
    with pytest.raises(FaultyEnvironmentError) as caught:
        _begun_and_stepped(session, 1)
    assert message in str(caught.value)
    if "step" in script.get("returns", {}):
        assert "must return five values: observation, reward, terminated" in str(caught.value)
    assert Scripted.made - made == Scripted.closed - closed


def test_numbers_and_flags_may_come_as_arrays_of_one():
    environment = scripted(reward=np.array([2.0]), ends=(np.bool_(True), np.array([True])))
    with Session(environment, 1) as session:
        session.reset(0, 0, 0)
        step = session.step(0, np.asarray(0), 1)
    assert step[1:4] == (2.0, True, False)  # both at once: nothing follows
    assert [type(value) for value in step[1:4]] == [float, bool, bool]


# Spaces that are refused.


class Odd(gymnasium.Space):
    """A space that nobody knows."""


REFUSED = [
    (spaces.Text(5), "observes a Text, which agents cannot take; leave it out, or make numbers of"),
    (spaces.Sequence(TWO), "observes a Sequence, which agents cannot take"),
    (spaces.Graph(TWO, None), "observes a Graph, which"),
    (spaces.OneOf([TWO, TWO]), "observes a OneOf, which"),
    (spaces.Dict(x=TWO, mission=spaces.Text(5)), "observes a Text at ['mission'], which agents"),
    (spaces.Tuple([TWO, spaces.Dict(a=Odd())]), "observes a Odd at [1]['a'], which agents"),
    (spaces.Dict(), "which has no parts"),
    (space_of(shape=(0,)), "which has no numbers"),
    (space_of(0, 255, (4, 84, 84, 3), np.uint8), "with 4 axes; an image has three"),
    (None, "its observation_space is None; it must be a space of gymnasium.spaces"),
]


@pytest.mark.parametrize(("space", "message"), REFUSED, ids=lambda x: str(x)[:40])
def test_observations_that_nobody_can_take_are_refused_and_what_was_made_is_closed(space, message):
    environment = scripted(observation_space=space)
    made, closed = Scripted.made, Scripted.closed
    with refused_in_a_line(message):
        environment.simulator()
    with refused_in_a_line(message):
        _ = environment.observation_shape
    assert Scripted.made - made == Scripted.closed - closed == 2


BAD_ACTIONS = [
    (space_of(0, 5, (2,), np.int64), "takes int64[2]; vectors must be of floats, or what an agent"),
    (space_of(0, 1, (2,), np.bool_), "takes bool[2]; vectors must be of floats"),
    (
        space_of(-np.inf, np.inf),
        "has actions without bounds, which nothing can be scaled to: they go",
    ),
    (space_of(-1, np.inf), "they go from -1 to inf at [0]; bound them in a wrapper"),
    (space_of(-1e9, 1e9, dtype=np.float64), "they go from -1e+09 to 1e+09 at [0]"),
    (
        spaces.Box(np.float32([0, 1]), np.float32([1, 1])),
        "takes actions from 1 to 1 at [1]; the upper",
    ),
    (spaces.Text(5), "takes Text(1, 5, "),
    (spaces.Dict(x=TWO), "actions must be Discrete, MultiDiscrete, MultiBinary or a bounded Box"),
    ("none", "its action_space is 'none'; it must be a space"),
]


@pytest.mark.parametrize(("space", "message"), BAD_ACTIONS, ids=lambda x: str(x)[:40])
def test_actions_that_would_not_reach_the_environment_are_refused(space, message):
    with refused_in_a_line(message):
        scripted(action_space=space).simulator()


def test_bounds_that_are_no_numbers_are_refused():
    with refused_in_a_line("they go from nan to 1 at [0]"):
        Range(np.float32([np.nan]), np.float32([1]), "x")
    with refused_in_a_line("takes actions from 2 to 1 at [1]; the upper bound must be above"):
        Range(np.float32([0, 2]), np.float32([1, 1]), "x")


# Actions.

FLOATS = st.sampled_from([np.float16, np.float32, np.float64])


@given(
    FLOATS,
    st.lists(st.tuples(st.floats(-6e4, 6e4), st.floats(-6e4, 6e4)), min_size=1, max_size=4),
    st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4),
)
def test_vectors_reach_both_ends_exactly_and_never_pass_them(dtype, pairs, chosen):
    low, high = (np.array(ends).astype(dtype) for ends in zip(*map(sorted, pairs), strict=True))
    apart = high > low
    low, high = low[apart], high[apart]
    if not low.size:
        return
    given_ = Range(low, high, "x")
    ones = np.ones(low.size, np.float32)
    np.testing.assert_array_equal(given_(ones), high)
    np.testing.assert_array_equal(given_(-ones), low)
    values = np.array(chosen[: low.size], np.float32)
    between = given_(values)
    assert between.dtype == dtype
    assert (low <= between).all()
    assert (between <= high).all()
    middle, half = (low.astype(float) + high) / 2, (high.astype(float) - low) / 2
    step = np.finfo(dtype).eps * np.maximum(abs(low.astype(float)), abs(high.astype(float)))
    np.testing.assert_array_less(abs(between - (middle + half * values)), step + 1e-300)


def test_bounds_whose_middle_is_rounded_are_reached_too():
    """(0.1 + 0.7) / 2 + (0.7 − 0.1) / 2 is not 0.7 in doubles, nor are a few of the others."""
    draw = np.random.default_rng(0)
    low = draw.normal(size=5_000)
    high = low + draw.exponential(size=5_000)
    assert ((low + high) / 2 + (high - low) / 2 != high).any()
    given_ = Range(low, high, "x")
    np.testing.assert_array_equal(given_(np.ones(5_000, np.float32)), high)
    np.testing.assert_array_equal(given_(-np.ones(5_000, np.float32)), low)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_vectors_of_any_shape(shape):
    low, high = np.full(shape, -2, np.float32), np.full(shape, 1, np.float32)
    environment = scripted(action_space=spaces.Box(low, high, shape, np.float32))
    size = int(np.prod(shape))
    assert environment.action_space == Continuous(size)
    simulator = environment.simulator()
    simulator.reset(0)
    simulator.step(np.linspace(-1, 1, size).astype(np.float32))
    (came,) = simulator._environment.unwrapped.actions
    assert came.shape == shape
    assert came.dtype == np.float32
    np.testing.assert_allclose(came.ravel(), -0.5 + 1.5 * np.linspace(-1, 1, size), rtol=1e-6)
    assert simulator._environment.action_space.contains(came)


def test_numbered_actions_begin_where_the_space_does():
    chosen, given_ = actions(spaces.Discrete(3, start=-1), "x")
    assert chosen == Discrete(3)
    assert [given_(np.asarray(n, np.int32)) for n in range(3)] == [-1, 0, 1]


# By its id.

MODULE = """
import gymnasium as gym, numpy as np
from gymnasium import spaces

class Mine(gym.Env):
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)
    def __init__(self, size=1, name="x"):
        self.size, self.name = size, name
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}
    def step(self, action):
        return np.zeros(2, np.float32), float(self.size), False, False, {}

gym.register("%s/Mine-v0", entry_point=Mine, max_episode_steps=10)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    name = f"mine_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE % name.replace("_", "-"))
    (tmp_path / "broken_one.py").write_text("import what_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_an_id_of_a_module_and_what_else_make_is_given(module):
    text = f"gymnasium/{module}:{module.replace('_', '-')}/Mine-v0"
    environment = make("environments", f"{text}(size=3, name='y', max_episode_steps=2)")
    assert describe(environment) == f"{text}(max_episode_steps=2, name='y', size=3)"
    assert make("environments", describe(environment)) == environment
    in_python = Gymnasium(environment.env_id, {"size": 3, "name": "y", "max_episode_steps": 2})
    assert in_python == environment
    assert hash(in_python) == hash(environment)
    assert environment != make("environments", f"{text}(size=3.0, name='y', max_episode_steps=2)")
    simulator = environment.simulator()
    simulator.reset(0)
    steps = [simulator.step(np.asarray(0)) for _ in range(2)]
    assert [step[1:4] for step in steps] == [(3.0, False, False), (3.0, False, True)]
    assert simulator._environment.unwrapped.name == "y"
    assert not make("environments", f"{text}(max_episode_steps=-1)").simulator().sure_to_end


def test_values_come_back_as_they_were():
    values = {"a": [1, (2.5, None)], "b": {"x": True, 1: "y'"}, "c": -0.0, "d": 1e-7}
    environment = Gymnasium("CartPole-v1", values)
    again = make("environments", describe(environment))
    assert again == environment
    from regrow.registry import read_back

    assert repr(read_back(again.kwargs)) == repr(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "gymnasium/CartPol-v1",
            "no id of gymnasium 'CartPol-v1'; did you mean 'CartPole-v1'? What",
        ),
        ("gymnasium/Nowhere-v0", "What a module of yours registers is gymnasium/module:Nowhere-v0"),
        ("gymnasium/no_such:Mine-v0", "the module 'no_such' cannot be imported: ModuleNotFoundErr"),
        ("gymnasium/broken_one:Mine-v0", "the module 'broken_one' cannot be imported: ModuleNotF"),
        ("gymnasium/json:Mine-v0", "the module 'json' registers no id 'Mine-v0' with Gymnasium"),
        (
            "gymnasium/ALE/Pong-v5",
            "is atari/pong, or as Gymnasium has it gymnasium/ale_py:ALE/Pong",
        ),
        ("gymnasium/ALE/MsPacman-v5", "is atari/ms_pacman, or"),
        ("gymnasium/SpaceInvadersNoFrameskip-v4", "is a game of Atari; as DQN sees it, and copied"),
        ("gymnasium/Breakout-ramDeterministic-v4", "it is atari/breakout, or"),
        ("gymnasium/Seaquest-v4", "it is atari/seaquest, or"),
        (
            "gymnasium/CartPole-v1(size=3)",
            "(size=3) cannot be made: TypeError: CartPoleEnv.__init__",
        ),
        ("gymnasium/CartPole-v1(max_episode_steps=0)", "cannot be made: ValueError: Expect the"),
        ("gymnasium/CartPole-v1(id='x')", "gymnasium/CartPole-v1: id is given twice, in the name"),
        ("gymnasium/CartPole-v1(a=1e999)", "a is inf; it must be made of finite numbers, words"),
        ("gymnasium/CartPole-v1(a=print)", "a field takes a number, a word in quotes"),
    ],
)
def test_what_is_not_there_is_said(text, message, module):
    with refused_in_a_line(message):
        make("environments", text).simulator()


def test_the_game_that_is_pointed_to_is_there():
    from regrow.environments.gymnasium import _game

    for env_id, game in {
        "ALE/Pong-v5": "pong",
        "MontezumaRevengeNoFrameskip-v4": "montezuma_revenge",
        "Qbert-ram-v5": "qbert",
        "CartPole-v1": "",
        "Ant-v5": "",
    }.items():
        assert _game(env_id) == game
        if game:
            assert make("environments", f"atari/{game}").action_space.number > 1


def test_without_a_version_it_is_the_last_and_that_is_said():
    with pytest.warns(RegrowWarning, match="gymnasium/CartPole: Using the latest versioned"):
        assert Gymnasium("CartPole").observation_shape == (4,)


def test_what_gymnasium_warns_of_is_told_in_a_line_and_once():
    with pytest.warns(RegrowWarning, match="The environment CartPole-v0 is out of date") as told:
        Gymnasium("CartPole-v0").simulator()
    Gymnasium("CartPole-v0").simulator()
    (warning,) = told
    assert "\n" not in str(warning.message)
    assert "\x1b" not in str(warning.message)


def test_an_id_that_is_registered_anew_is_looked_at_anew():
    environment = scripted()
    assert environment.observation_shape == (2,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gymnasium.register(
            environment.env_id, entry_point=lambda: Scripted(observation_space=space_of(shape=(3,)))
        )
    assert environment.observation_shape == (3,)


def test_one_that_cannot_be_closed_is_told_of():
    environment = scripted(on_close=OSError("stuck"))
    with pytest.warns(RegrowWarning, match="close\\(\\) raised OSError: stuck"):
        assert environment.observation_shape == (2,)


SCRIPT = """
import sys
import gymnasium, numpy as np
from gymnasium import spaces
import regrow
from regrow.execution.processes import Processes
from regrow.diagnosis.plan import Arm
{definition}

def work():
    plan = regrow.Diagnosis(
        regrow.agents.DoubleDQN(hidden=4, learn_start=40, replay_capacity=100),
        regrow.environments.Gymnasium("Own-v0", {{"max_episode_steps": 9}}),
        tuple(map(Arm.parse, ("nothing", "inject"))), seeds=2, fork_at=80, horizon=80,
        replicates=1, fixed=True,
    )
    print(regrow.diagnose(plan, execute=Processes(1)).claim)

if __name__ == "__main__":
    {register}
    work()
"""
DEFINITION = """
class Own(gymnasium.Env):
    observation_space, action_space = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}
    def step(self, action):
        return np.zeros(2, np.float32), float(action), False, False, {}
"""
REGISTER = "gymnasium.register('Own-v0', entry_point=Own)"


@pytest.mark.slow
@pytest.mark.parametrize("under_guard", [False, True])
def test_what_a_script_registers_is_known_in_workers_or_it_is_said_why_not(tmp_path, under_guard):
    definition = DEFINITION if under_guard else f"{DEFINITION}\n{REGISTER}"
    text = SCRIPT.format(definition=definition, register=REGISTER if under_guard else "pass")
    (tmp_path / "script.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    if under_guard:  # which a worker does not carry out
        assert done.returncode != 0
        assert "no id of gymnasium 'Own-v0'" in done.stderr
        assert "gymnasium/module:Own-v0" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
    assert Path(tmp_path / "script.py").is_file()

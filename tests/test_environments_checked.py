"""`check_environment`: what it finds, what it tells of, and that nothing stays open."""

import importlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from own_gym import TWO, Scripted, scripted
from refusals import refused_in_a_line
from small import DQN

import regrow
from regrow.cli import entry as cli
from regrow.environments import JAX
from regrow.environments.base import DeviceEnvironment, HostEnvironment, HostStep, Simulator, Step
from regrow.errors import FaultyEnvironmentError, RegrowWarning
from regrow.registry import members
from regrow.training.environment_checks import check_before_training, check_environment
from regrow.training.train import train
from regrow.types import Discrete, silent

OURS = sorted(
    name
    for name, member in members("environments").items()
    if issubclass(member, DeviceEnvironment) and member is not JAX
)
COMPILED = ("minatar/breakout", "toy/reach", "shifting/relabelled_actions")


@pytest.mark.parametrize("name", OURS)
def test_every_environment_on_the_device_keeps_its_contract(name):
    check_before_training(regrow.make("environments", name))
    if name in COMPILED:
        report = check_environment(name, env_steps=60)
        assert report.environment == name
        assert not report.warnings
        assert any("60 env steps" in line for line in report.looked_at)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OURS if name not in COMPILED])
def test_every_environment_on_the_device_is_carried_out(name):
    assert not check_environment(name).warnings


HOSTED = ["gymnasium/CartPole-v1", "gymnasium/Pendulum-v1", "gymnasium/FrozenLake-v1"]
HOSTED += ["control/walker-walk", "atari/breakout(sticky_actions=0.25)"]


@pytest.mark.parametrize("name", HOSTED)
def test_environments_on_the_host_keep_their_contract(name):
    report = check_environment(name, env_steps=60)
    assert not report.warnings
    copied = not name.startswith("gymnasium")
    assert any("a copy from a snapshot" in line for line in report.looked_at) == copied
    assert str(report).splitlines()[0] == name


@pytest.mark.slow
def test_pixels_keep_their_contract():
    assert not check_environment("pixels/walker-walk", env_steps=20).warnings


def test_the_ends_of_every_action_are_carried_out():
    seen = []

    class Noting(Scripted):
        def step(self, action):
            seen.append(action)
            return super().step(action)

    box = spaces.Box(np.float32([0.1, -3]), np.float32([0.7, 5]))
    check_environment(scripted(cls=Noting, action_space=box), env_steps=10)
    for end in (box.low, box.high):
        assert any(np.array_equal(action, end) for action in seen)
    assert all(box.contains(action) for action in seen)
    seen.clear()
    check_environment(scripted(cls=Noting, action_space=spaces.Discrete(4, start=3)), env_steps=20)
    assert set(seen) == {3, 4, 5, 6}


# Errors.


class Late(Scripted):
    """Is wrong at its fifth env step."""

    steps = 0

    def step(self, action):
        self.steps += 1
        seen, reward, *rest = super().step(action)
        return seen, np.nan if self.steps == 5 else reward, *rest


def test_what_an_environment_may_not_do_is_an_error_and_all_is_closed():
    made, closed = Late.made, Late.closed
    environment = scripted(cls=Late)
    with pytest.raises(
        FaultyEnvironmentError, match=r"-v0 \(in a check\), env step 5: the reward is"
    ):
        check_environment(environment)
    for script, message in (
        (
            {"first": np.zeros(3)},
            "env step 0: the observation is float64[3]; its space says float32",
        ),
        ({"reward": "much"}, "env step 1: the reward is 'much'; it must be a number"),
        ({"observation_space": spaces.Text(3)}, "observes a Text"),
        (
            {"action_space": spaces.Box(0, 9, (1,), np.int64)},
            "takes int64[1]; vectors must be of f",
        ),
    ):
        with refused_in_a_line(message):
            check_environment(scripted(**script))
    assert Late.made - made == Late.closed - closed
    assert Late.made > made


class Unsure(HostEnvironment):
    """A count to ten; `keeps`: whether a snapshot brings the count back."""

    observation_shape, observation_dtype = (1,), np.dtype(np.float32)
    action_space, snapshot_size = Discrete(2), 1

    def __init__(self, keeps=True, size=1):
        self.keeps, self.size = keeps, size

    def simulator(self):
        return Counting(self)


class Counting(Simulator):
    count = 0

    def __init__(self, options):
        self.options = options

    def reset(self, seed):
        self.count = 0
        return np.zeros(1, np.float32)

    def step(self, action):
        self.count += 1
        return HostStep(np.full(1, self.count, np.float32), 1.0, self.count == 10, False)

    def snapshot(self):
        return np.full(self.options.size, self.count, np.uint8)

    def restore(self, snapshot):
        if self.options.keeps:
            self.count = int(snapshot[0])


def test_a_snapshot_must_bring_a_simulation_back():
    assert not check_environment(Unsure()).warnings
    with refused_in_a_line(
        "what follows a snapshot is not the same twice; `restore` must bring back"
    ):
        check_environment(Unsure(keeps=False))
    with refused_in_a_line("its snapshot is uint8[2]; its snapshot_size says uint8[1]"):
        check_environment(Unsure(size=2))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "observation_shape",
            (),
            "its observation_shape is (); it must be a tuple of whole numbers",
        ),
        (
            "observation_shape",
            (2.0,),
            "its observation_shape is (2.0,); it must be a tuple of whole",
        ),
        (
            "observation_dtype",
            np.dtype(object),
            "its observation_dtype is object; it must be of num",
        ),
        ("action_space", Discrete(0), "its action_space is Discrete(number=0); it must be"),
        (
            "action_space",
            3,
            "its action_space is 3; it must be regrow.types.Discrete or Continuous",
        ),
        ("frames", 3, "its frames is 3; the last axis of (1,) must be so many times as long"),
    ],
)
def test_what_is_declared_must_make_sense(name, value, message):
    environment = type("Declared", (Unsure,), {name: value})()
    with refused_in_a_line(message):
        check_environment(environment)


class OnDevice(DeviceEnvironment):
    """One that does what `kind` says."""

    observation_shape, observation_dtype, num_actions = (1,), np.dtype(np.float32), 2

    def __init__(self, kind):
        self.kind = kind

    def reset(self, key):
        return jnp.zeros(2 if self.kind == "state" else ()), jnp.zeros(1)

    def step(self, state, action, key):
        if self.kind == "raises":
            raise KeyError("lost")
        if self.kind == "branches":
            state = jnp.zeros(()) if action > 0 else state
        seen = jnp.zeros(2 if self.kind == "shape" else 1)
        seen = seen / 0 if self.kind == "nan" else seen
        reward = jnp.where(self.kind == "infinite", jnp.inf, 1.0)
        reward = jnp.array(1) if self.kind == "reward" else reward
        return jnp.zeros(()), Step(seen, reward, jnp.array(True), jnp.array(False))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("shape", "OnDevice: the observation of step is float32[2]; it must be float32[1]"),
        ("reward", "OnDevice: the reward is int32[]; it must be float32[]"),
        ("state", "OnDevice: the state is float32[] after step() and float32[2] after reset()"),
        ("raises", "OnDevice: step() raised KeyError: 'lost'"),
        ("branches", "OnDevice: step() raised TracerBoolConversionError: Attempted boolean"),
        ("nan", "OnDevice (in a check), env step 1: the observation is not finite"),
        ("infinite", "OnDevice (in a check), env step 1: the reward is inf; it must be a finite"),
    ],
)
def test_what_is_wrong_on_the_device_is_found(kind, message):
    with refused_in_a_line(message):
        check_environment(OnDevice(kind), env_steps=4)


# Warnings.


class Moody(Scripted):
    """Draws from a generator of its own."""

    draw = np.random.default_rng(0)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.draw.uniform(-1, 1, 2).astype(np.float32), {}


FLOATS = {"observation_space": spaces.Box(0, 255, (9, 9, 3)), "first": np.full((9, 9, 3), 200.0)}
UNBOUNDED = {"observation_space": spaces.Box(-np.inf, np.inf, (9, 9, 3))}
BYTES = spaces.Box(0, 1, (9, 9, 3), np.uint8)
SEVERAL = spaces.Dict(image=spaces.Box(0, 255, (30, 30, 3), np.uint8), x=TWO)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            {"cls": Moody},
            "two episodes from the same seed, with the same actions, are not the same",
        ),
        ({"reward": -5000.0}, "rewards of up to 5,000; values learn slowly what is so far from 0"),
        ({"limit": None}, "no episode ended in 200 env steps, and it has no time limit that is kn"),
        (FLOATS, "its image has float32 from 0 to 255, and agents divide nothing but bytes by 255"),
        (
            {**UNBOUNDED, "first": np.full((9, 9, 3), 200.0)},
            "an image of floats with numbers of up to 200; networks are made for numbers about 1",
        ),
        (
            {"observation_space": BYTES, "first": np.zeros((9, 9, 3), np.uint8)},
            "its image has bytes from 0 to 1, and agents divide bytes by 255; spread them over",
        ),
        (
            {"observation_space": spaces.Box(-1e9, 1e9, (2,)), "first": np.array([0, 3e4])},
            "observations with numbers of up to 30,000; networks are made for numbers about 1",
        ),
        (
            {"observation_space": SEVERAL, "first": SEVERAL.sample()},
            "its image at ['image'] is seen as 2,700 numbers of one vector, without a convolution",
        ),
    ],
    ids=lambda x: str(x)[:40],
)
def test_what_is_seldom_meant_is_told(script, message):
    environment = scripted(**script)
    (warning, *others) = [w for w in check_environment(environment).warnings if message in w]
    assert not others
    assert "\n" not in warning
    if "rewards" in message or "no episode" in message:
        return
    with pytest.warns(RegrowWarning) as told:
        check_before_training(environment)
    assert any(message in str(one.message) for one in told)
    check_before_training(environment)  # told once: again would be an error in tests


def test_a_small_image_within_a_dict_is_not_worth_a_word():
    small = spaces.Dict(image=spaces.Box(0, 255, (7, 7, 3), np.uint8), x=TWO)
    assert not check_environment(scripted(observation_space=small, first=small.sample())).warnings


# Before training.


def test_training_and_diagnosing_begin_with_it(tmp_path):
    environment = scripted(cls=Late)
    closed = Late.closed
    with refused_in_a_line(
        "(in a check), env step 5: the reward is nan; it must be a finite number"
    ):
        train(DQN, environment, tmp_path / "a", env_steps=40, report=silent)
    plan = regrow.Diagnosis(
        DQN, environment, seeds=2, fork_at=80, horizon=80, replicates=1, fixed=True
    )
    with refused_in_a_line("(in a check), env step 5: the reward is nan"):
        regrow.diagnose(plan, tmp_path / "b")
    assert not list(tmp_path.iterdir())  # nothing is begun
    assert Late.closed > closed


def test_it_stops_where_an_environment_is_slow(monkeypatch):
    module = importlib.import_module("regrow.training.environment_checks")
    now = iter(range(1_000))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(now)))
    taken = []

    class Slow(Scripted):
        def step(self, action):
            taken.append(action)
            return super().step(action)

    check_before_training(scripted(cls=Slow))
    assert len(taken) == 2 * 3


def test_the_command_prints_what_it_looked_at(capsys):
    assert cli.run(["check", "gymnasium/CartPole-v1", "--env-steps", "30"]) is None
    out = capsys.readouterr().out
    assert out.startswith("gymnasium/CartPole-v1\n  observations: float32[4], of Box(")
    assert "30 env steps: every action and others at random" in out
    problem = cli.run(["check", "gymnasium/CartPol-v1"])
    assert problem is not None
    assert "did you mean 'CartPole-v1'?" in problem
    assert cli.run(["check", scripted(limit=None).env_id.join(["gymnasium/", ""])]) is None
    assert "  warning: no episode ended in 200 env steps" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["StackedPendulum-v0", "Room-v0", "Room-v0(size=6)"])
def test_the_examples_pass(name, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    report = check_environment(f"gymnasium/own_gymnasium_environment:{name}")
    assert not report.warnings
    assert ("float32[9]" if "Pendulum" in name else "float32[10]") in report.looked_at[0]

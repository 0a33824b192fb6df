"""Simulations on the host: their copies, and each beside its package used directly."""

import sys

import numpy as np
import pytest
from PIL import Image
from refusals import refused_in_a_line

from regrow.environments import Atari, Control, Gymnasium
from regrow.environments.actions.base import actions as actions_of
from regrow.environments.atari import NO_OPS, grey, resized
from regrow.environments.base import HostEnvironment, HostStep, Simulator
from regrow.errors import RegrowError
from regrow.registry import describe, make
from regrow.types import Continuous, MultiDiscrete

GAME = Atari("breakout", sticky_actions=0.25)


def actions(environment: HostEnvironment, count: int, seed: int = 0) -> list[np.ndarray]:
    draw, space = np.random.default_rng(seed), environment.action_space
    if isinstance(space, Continuous):
        return list(draw.uniform(-1, 1, (count, space.size)).astype(np.float32))
    return [np.asarray(n, np.int32) for n in draw.integers(space.number, size=count)]


def played(simulator: Simulator, chosen: list[np.ndarray]) -> list[HostStep]:
    """Steps, with a new episode where one ends."""
    steps = []
    for i, action in enumerate(chosen):
        steps.append(simulator.step(action))
        if steps[-1].terminated or steps[-1].truncated:
            simulator.reset(i)
    return steps


def same(a: list[HostStep], b: list[HostStep]) -> bool:
    return all(
        x[1:] == y[1:] and x.observation.tobytes() == y.observation.tobytes()
        for x, y in zip(a, b, strict=True)
    )


# Copies of simulations.

TASKS = ["walker-walk", "finger-turn_easy", "point_mass-hard", "manipulator-bring_ball"]
TASKS += ["swimmer-swimmer6", "ball_in_cup-catch"]


@pytest.mark.parametrize(
    "environment",
    [*(Control(task) for task in TASKS), GAME, Atari("pong"), Atari("assault", sticky_actions=0.5)],
    ids=describe,
)
def test_a_copy_goes_on_as_the_original_and_a_seed_is_all_the_chance(environment):
    original, copy = environment.simulator(), environment.simulator()
    first = original.reset(5)
    played(original, actions(environment, 40))
    snapshot = original.snapshot()
    assert snapshot.size == environment.snapshot_size
    assert snapshot.dtype == np.uint8
    copy.reset(9)
    copy.restore(snapshot)
    np.testing.assert_array_equal(copy.snapshot(), snapshot)
    chosen = actions(environment, 40, seed=1)
    assert same(played(original, chosen), played(copy, chosen))
    np.testing.assert_array_equal(original.snapshot(), copy.snapshot())
    np.testing.assert_array_equal(original.reset(5), first)
    if isinstance(environment, Control):  # a game may look the same for a while
        assert not np.array_equal(original.reset(6), first)


@pytest.mark.slow
def test_every_task_of_the_suite_is_copied_and_keeps_nothing_elsewhere():
    from dm_control import suite

    for domain, name in suite.ALL_TASKS:
        environment = Control(f"{domain}-{name}")
        if domain == "lqr" or name == "escape":  # refused; needs a renderer
            continue
        original, copy = environment.simulator(), environment.simulator()
        original.reset(5)
        chosen = actions(environment, 60)
        played(original, chosen[:30])
        copy.restore(original.snapshot())
        assert same(played(original, chosen[30:]), played(copy, chosen[30:])), name
        mine, other = (_model(simulator) for simulator in (original, copy))
        assert mine.keys() == other.keys()
        assert [k for k in mine if not np.array_equal(mine[k], other[k], equal_nan=True)] == []


def _model(simulator: Simulator) -> dict[str, np.ndarray]:
    """Every array of a MuJoCo model."""
    model = simulator._environment.physics.model.ptr
    names = [name for name in dir(model) if not name.startswith("_")]
    return {n: getattr(model, n) for n in names if isinstance(getattr(model, n), np.ndarray)}


# Simulations beside their packages.


@pytest.mark.parametrize(
    ("task", "repeat"), [("cheetah-run", 1), ("quadruped-walk", 2), ("reacher-easy", 4)]
)
def test_control_is_dm_control(task, repeat):
    from dm_control import suite

    environment = Control(task, action_repeat=repeat)
    simulator = environment.simulator()
    theirs = suite.load(*task.split("-"), task_kwargs={"random": 7})
    seen = simulator.reset(7)
    now = theirs.reset()
    np.testing.assert_array_equal(seen, _concatenated(now))
    spec = theirs.action_spec()
    for action in actions(environment, 30):
        step = simulator.step(action)
        share = (action.astype(np.float64) + 1) / 2
        scaled = spec.minimum + share * (spec.maximum - spec.minimum)
        reward = 0.0
        for _ in range(repeat):
            now = theirs.step(scaled)
            reward += now.reward
        np.testing.assert_allclose(step.observation, _concatenated(now), rtol=1e-6, atol=1e-9)
        assert step.reward == pytest.approx(reward, rel=1e-9)
        assert step[2:4] == (False, False)


def _concatenated(step) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in step.observation.values()]).astype(np.float32)


def test_a_clock_truncates_and_a_task_that_is_over_terminates():
    simulator = Control("cartpole-balance", action_repeat=250).simulator()
    simulator.reset(0)
    steps = [simulator.step(np.zeros(1, np.float32)) for _ in range(4)]
    assert [step.truncated for step in steps] == [False, False, False, True]
    assert not any(step.terminated for step in steps)
    simulator = Control("walker-walk").simulator()
    simulator.reset(0)
    simulator._environment.task.get_termination = lambda physics: 0.0
    step = simulator.step(np.zeros(6, np.float32))
    assert (step.terminated, step.truncated) == (True, False)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0"])
def test_gymnasium_is_gymnasium(env_id):
    import gymnasium

    environment = Gymnasium(env_id)
    simulator, theirs = environment.simulator(), gymnasium.make(env_id)
    np.testing.assert_array_equal(simulator.reset(3), theirs.reset(seed=3)[0])
    for i, action in enumerate(actions(environment, 300)):
        step = simulator.step(action)
        given = int(action) if action.ndim == 0 else action * theirs.action_space.high
        seen, reward, terminated, truncated, _ = theirs.step(given)
        np.testing.assert_array_equal(step.observation, seen.astype(np.float32))
        assert step[1:4] == (float(reward), terminated, truncated)
        if env_id == "Pendulum-v1":
            assert step.truncated == (i == 199)
        if terminated or truncated:
            simulator.reset(i)
            theirs.reset(seed=i)


class Levers:
    """Made for each of its two spaces in turn: keeps what reaches it."""

    def __init__(self, space):
        import gymnasium

        self.observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.action_space, self.pulled = space, []

    def reset(self, seed=None):
        del seed
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.pulled.append(action)
        return np.zeros(2, np.float32), 0.0, False, False, {}

    def close(self):
        pass


def test_several_choices_reach_gymnasium_as_its_space_has_them():
    from gymnasium import spaces

    for space, numbers in (
        (spaces.MultiDiscrete([2, 3], start=[5, -1]), (2, 3)),
        (spaces.MultiDiscrete([3, 4], dtype=np.int32), (3, 4)),
        (spaces.MultiBinary(3), (2, 2, 2)),
    ):
        made = actions_of(space, "levers")
        assert made.space == MultiDiscrete(numbers)
        low, top = np.zeros(len(numbers), np.int32), np.array(numbers, np.int32) - 1
        for chosen in (low, top):
            given = made.given(chosen)
            assert space.contains(given)
            assert given.dtype == space.dtype
            np.testing.assert_array_equal(given, chosen + getattr(space, "start", 0))
    for space in (spaces.MultiBinary([2, 2]), spaces.MultiDiscrete([[2, 2]])):
        made = actions_of(space, "levers")
        assert space.contains(made.given(np.ones(len(made.space.numbers), np.int32)))


def test_atari_is_the_emulator_seen_as_dqn_zoo_sees_it():
    import ale_py

    environment = Atari("breakout", clip_rewards=False)
    simulator = environment.simulator()
    seen = simulator.reset(11)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.setInt("random_seed", 0)
    ale.loadROM(ale_py.roms.get_rom_path("breakout"))
    ale.reset_game()
    chance = np.random.Generator(np.random.PCG64(11))
    for _ in range(1 + int(chance.random() * NO_OPS)):
        ale.act(0)
    small = [resized(grey(ale.getScreenRGB()))]
    zero = np.zeros((84, 84), np.uint8)
    np.testing.assert_array_equal(seen, np.stack([small[0], zero, zero, zero], -1))
    lost, scores = 0, 0.0
    assert len(ale.getMinimalActionSet()) == environment.action_space.number == 4
    for action in actions(environment, 150, seed=1):
        step = simulator.step(action)
        score, screens, lives = 0, [], ale.lives()
        for _ in range(4):
            score += ale.act(ale.getMinimalActionSet()[int(action)])
            screens.append(ale.getScreenRGB())
        small = [*small, resized(grey(np.maximum(*screens[-2:])))][-4:]
        shown = [*small, *[zero] * (4 - len(small))]
        np.testing.assert_array_equal(step.observation, np.stack(shown, -1))
        assert step.reward == step.learned_reward == score
        assert step.life_lost == (ale.lives() < lives)
        assert step.terminated == ale.game_over()
        lost, scores = lost + step.life_lost, scores + score
    assert lost >= 2
    assert scores > 0


def test_a_game_ends_where_it_is_over_or_after_108_000_frames():
    simulator = Atari("pong", lives_are_ends=False).simulator()
    simulator.reset(0)
    simulator._counters = simulator._counters._replace(env_steps=26_998)
    noop = np.asarray(0, np.int32)
    assert [simulator.step(noop).truncated for _ in range(2)] == [False, True]
    simulator.reset(0)
    for _ in range(1_200):
        step = simulator.step(noop)
        assert step.learned_reward == max(-1, min(1, step.reward))
        assert step.learned_reward == Atari("pong").learned(np.array([step.reward]))
        if step.terminated:
            break
    assert step.terminated
    assert not step.truncated
    assert not step.life_lost


def test_sticky_actions_repeat_the_last_one_so_often():
    simulator = Atari("pong", sticky_actions=0.25).simulator()
    simulator.reset(0)
    done = [simulator._done(i % 2) for i in range(20_000)]
    late = np.mean([action != i % 2 for i, action in enumerate(done)])
    assert late == pytest.approx(0.25 / 1.25, abs=0.01)  # two repeats in a row are right again


def test_no_ops_are_from_1_to_30():
    simulator = Atari("pong").simulator()
    counts = set()
    for seed in range(150):
        simulator.reset(seed)
        counts.add(simulator._ale.getEpisodeFrameNumber())
    assert min(counts) == 1
    assert max(counts) == 30


def test_the_resize_is_a_triangle_filter_close_to_the_mean_over_areas():
    simulator = Atari("space_invaders").simulator()
    simulator.reset(0)
    played(simulator, actions(Atari("space_invaders"), 20))
    image = grey(simulator._screens[0])
    assert image.shape == (210, 160)
    small = resized(image).astype(float)
    triangle = _weights(210, _triangle) @ image @ _weights(160, _triangle).T
    area = _weights(210, _overlap) @ image @ _weights(160, _overlap).T
    assert np.abs(small - triangle).max() <= 1  # Pillow rounds twice, to bytes
    assert np.abs(small - area).mean() < 4
    assert np.abs(area - np.asarray(_box(image), float)).mean() < 4


def _weights(size: int, weight) -> np.ndarray:
    """What each of 84 pixels takes of each of `size`; rows sum to one."""
    scale = size / 84
    rows = np.array([[weight(i, j, scale) for j in range(size)] for i in range(84)])
    return rows / rows.sum(1, keepdims=True)


def _triangle(i: int, j: int, scale: float) -> float:
    return max(0.0, 1 - abs((j + 0.5) / scale - (i + 0.5)))


def _overlap(i: int, j: int, scale: float) -> float:
    return max(0.0, min((i + 1) * scale, j + 1) - max(i * scale, j))


def _box(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image).resize((84, 84), Image.Resampling.BOX)


# What is refused.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("control/walkr-walk", "no task of control 'walkr-walk'; did you mean 'walker-walk'?"),
        ("control/lqr-lqr_2_1", "control/lqr-lqr_2_1 has actions without bounds"),
        ("atari/pongg", "no game of atari 'pongg'; did you mean 'pong'?"),
        ("atari/combat", "no game of atari 'combat'; there are: adventure, "),
        ("gymnasium/CartPol-v1", "no id of gymnasium 'CartPol-v1'; did you mean 'CartPole-v1'?"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(name, message):
    environment = make("environments", name)
    assert describe(environment) == name
    with refused_in_a_line(message):
        environment.simulator()


@pytest.mark.parametrize(
    ("environment", "module", "message"),
    [
        (
            Control(),
            "dm_control.suite",
            "control/walker-walk needs dm_control: pip install 'regrow[",
        ),
        (Atari(), "ale_py", "atari/pong needs ale-py: pip install 'regrow[atari]'"),
        (
            Gymnasium(),
            "gymnasium",
            "gymnasium/CartPole-v1 needs gymnasium: pip install 'regrow[gym",
        ),
    ],
    ids=["control", "atari", "gymnasium"],
)
def test_a_package_that_is_not_there_is_named(environment, module, message, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RegrowError) as caught:
        environment.simulator()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("control/walker-walk(action_repeat=0)", "action_repeat is 0; it must be at least 1"),
        ("atari/pong(sticky_actions=1.0)", "sticky_actions is 1.0; it must be in [0, 1)"),
        ("atari/pong(game='breakout')", "game is given twice, in the name and in brackets"),
    ],
)
def test_fields_are_checked(text, message):
    with refused_in_a_line(message):
        make("environments", text)

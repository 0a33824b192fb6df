"""Control from pixels: pictures, copies, and the loop with DrQ."""

import importlib
import itertools
import sys

import jax
import numpy as np
import pytest
from refusals import refused_in_a_line
from trees import bit_equal

from regrow.agents import DrQ
from regrow.environments import Control, Pixels
from regrow.environments.base import Simulator
from regrow.environments.pixels import PLANET_REPEATS, grey
from regrow.errors import RegrowError
from regrow.interventions import Nothing
from regrow.registry import describe, make
from regrow.training.checkpoint import load, save
from regrow.training.run import Run, random_policy

CARTPOLE = Pixels("cartpole-swingup")
LIKE_DM_CONTROL = {"shadows": True, "reflections": True, "smooth_edges": True}


def drawable() -> str:
    """What is missing here to draw with, if anything."""
    try:
        CARTPOLE.simulator()
    except RegrowError as error:
        return str(error)
    return ""


MISSING = drawable()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


def actions(environment: Pixels, count: int, seed: int = 0) -> np.ndarray:
    draw, size = np.random.default_rng(seed), environment.action_space.size
    return draw.uniform(-1, 1, (count, size)).astype(np.float32)


def filmed(simulator: Simulator, chosen: np.ndarray) -> list:
    steps = [simulator.step(action) for action in chosen]
    return [(step.observation.tobytes(), *step[1:]) for step in steps]


@pytest.mark.parametrize("task", ["cartpole-swingup", "reacher-easy", "quadruped-walk"])
def test_with_everything_drawn_a_picture_is_that_of_dm_control(task, monkeypatch):
    # Where no screen is, dm_control finds that out only when it draws.
    egl = importlib.import_module("dm_control._render.pyopengl.egl_renderer")
    monkeypatch.setattr(importlib.import_module("dm_control._render"), "Renderer", egl.EGLContext)
    from dm_control import suite

    environment = Pixels(task, **LIKE_DM_CONTROL)
    simulator, theirs = environment.simulator(), suite.load(*task.split("-"))
    theirs.task.random.seed(7)
    first, repeat = simulator.reset(7), PLANET_REPEATS.get(task, 2)
    theirs.reset()
    camera = 2 if task == "quadruped-walk" else 0
    pictures = [theirs.physics.render(64, 64, camera_id=camera)] * 3
    spec = theirs.action_spec()
    for action in [None, *actions(environment, 4)]:
        if action is None:
            seen = first
        else:
            step = simulator.step(action)
            share = (action.astype(np.float64) + 1) / 2
            reward = 0.0
            for _ in range(repeat):
                now = theirs.step(spec.minimum + share * (spec.maximum - spec.minimum))
                reward += now.reward
            pictures.append(theirs.physics.render(64, 64, camera_id=camera))
            seen = step.observation
            assert step.reward == pytest.approx(reward, rel=1e-9)
        luminance = [p @ np.array([0.299, 0.587, 0.114]) for p in pictures[-3:]]
        np.testing.assert_array_equal(seen, np.stack(luminance, -1).astype(np.uint8))
    theirs.close()


def test_the_sky_is_above_and_the_cart_goes_where_it_is_pushed():
    environment = Pixels("cartpole-balance")
    simulator = environment.simulator()
    seen = simulator.reset(0)
    assert seen.shape == environment.observation_shape == (64, 64, 3)
    assert seen.dtype == environment.observation_dtype == np.uint8
    assert seen[:8].mean() > seen[-20:].mean() + 10  # the floor is dark
    pole = seen[20:40, :, -1]  # it stands on the cart
    assert pole.max() > 150
    for _ in range(12):
        simulator.step(np.ones(1, np.float32))
    after = simulator.step(np.ones(1, np.float32)).observation
    bright = [
        np.argwhere(picture > 150)[:, 1].mean() for picture in (seen[..., -1], after[..., -1])
    ]
    assert bright[1] > bright[0] + 2


def test_an_observation_is_the_last_three_pictures_oldest_first():
    simulator = CARTPOLE.simulator()
    seen = [simulator.reset(1)]
    assert all(np.array_equal(seen[0][..., i], seen[0][..., 0]) for i in range(3))
    seen += [simulator.step(action).observation for action in actions(CARTPOLE, 5)]
    for before, after in itertools.pairwise(seen):
        np.testing.assert_array_equal(after[..., :2], before[..., 1:])
        assert not np.array_equal(after[..., 2], before[..., 2])


def test_luminance_is_rounded_down():
    picture = np.array([[[200, 100, 50], [0, 0, 255], [10, 20, 30]]], np.uint8)
    np.testing.assert_array_equal(grey(picture), [[124, 29, 18]])


def test_actions_are_repeated_as_published_unless_told_otherwise():
    assert (CARTPOLE.repeat, Pixels("reacher-easy").repeat, Pixels("hopper-hop").repeat) == (
        8,
        4,
        2,
    )
    assert Pixels("cartpole-swingup", action_repeat=3).repeat == 3
    simulator = CARTPOLE.simulator()
    simulator.reset(0)
    steps = [simulator.step(action) for action in actions(CARTPOLE, 125)]
    assert [step.truncated for step in steps] == [False] * 124 + [True]
    assert not any(step.terminated for step in steps)


@pytest.mark.parametrize("task", ["cartpole-swingup", "finger-turn_easy", "ball_in_cup-catch"])
def test_a_copy_goes_on_as_the_original_and_a_seed_is_all_the_chance(task):
    environment = Pixels(task)
    original, copy = environment.simulator(), environment.simulator()
    first = original.reset(5)
    filmed(original, actions(environment, 10))
    snapshot = original.snapshot()
    assert snapshot.size == environment.snapshot_size
    assert snapshot.dtype == np.uint8
    copy.reset(9)
    copy.restore(snapshot)
    np.testing.assert_array_equal(copy.snapshot(), snapshot)
    chosen = actions(environment, 10, seed=1)
    assert filmed(original, chosen) == filmed(copy, chosen)
    np.testing.assert_array_equal(original.snapshot(), copy.snapshot())
    np.testing.assert_array_equal(original.reset(5), first)
    assert not np.array_equal(original.reset(6), first)


def test_a_camera_that_is_gone_takes_nothing_from_the_others():
    kept = CARTPOLE.simulator()
    before = kept.reset(3)
    gone = [CARTPOLE.simulator() for _ in range(3)]
    for one in gone:
        one.reset(4)
    del one, gone
    np.testing.assert_array_equal(kept.reset(3), before)
    assert len(np.unique(before)) > 50  # textures are there


SMALL = DrQ(
    channels=2,
    convolutions=1,
    hidden=8,
    latent=4,
    batch_size=4,
    learn_start=20,
    replay_capacity=100,
)


@pytest.mark.slow
def test_in_pieces_or_forked_or_from_a_file_it_is_the_same_run(tmp_path):
    one, log = Run.start(SMALL, CARTPOLE, seed=0).advance(40)
    pieces, logs = Run.start(SMALL, CARTPOLE, seed=0), []
    for steps in (12, 11, 17):
        pieces = pieces.fork().intervene(Nothing()) if steps == 11 else pieces
        pieces.fork(replicate=1).advance(3)  # a stranger in between
        if steps == 17:
            save(pieces, tmp_path / "run.ckpt")
            pieces = load(tmp_path / "run.ckpt")
        pieces, part = pieces.advance(steps)
        logs.append(part)
    assert bit_equal(one.state, pieces.state)
    assert bit_equal(jax.tree.map(lambda *parts: np.concatenate(parts), *logs), log)
    assert int(one.state.updates) == 20


def test_the_random_policy_is_measured():
    assert np.isfinite(random_policy(CARTPOLE, 30, seed=0).reward).all()


# What is refused.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pixels/walkr-walk", "no task of pixels 'walkr-walk'; did you mean 'walker-walk'?"),
        ("pixels/lqr-lqr_2_1", "pixels/lqr-lqr_2_1 has actions without bounds"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(name, message):
    environment = make("environments", name)
    assert describe(environment) == name
    with refused_in_a_line(message):
        environment.simulator()


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control.suite", None)
    with refused_in_a_line("pixels/walker-walk needs dm_control: pip install 'regrow[pixels]'"):
        Pixels().simulator()


def test_where_nothing_can_be_drawn_with_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egll")
    with refused_in_a_line("pixels/walker-walk has nothing to draw with (No module named 'mujoco"):
        Pixels().simulator()
    with refused_in_a_line("apt install libegl1 libgl1-mesa-dri, or libosmesa6 and MUJOCO_GL=osm"):
        Pixels().simulator()
    assert Control().simulator().reset(0).shape == (24,)  # which draws nothing


def test_fields_are_checked():
    with refused_in_a_line("action_repeat is 0; it must be at least 1"):
        make("environments", "pixels/walker-walk(action_repeat=0)")

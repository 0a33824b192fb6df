"""Shifting environments are their games, changed when and as they say and in nothing else.

Every test of what they do replays the plain game in a Python loop, with branches and counters of
its own, on the keys and actions that the wrapped one had inside a compiled loop.
"""

import dataclasses
import itertools
from functools import partial
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refused_in_a_line
from replaying import STEPS, at, check_step, compiled, play, played
from small import DQN
from trees import bit_equal

from regrow.environments import (
    Breakout,
    Freeway,
    PermutedObservations,
    RelabelledActions,
    SwitchedGames,
    TimeLimitReward,
)
from regrow.environments.base import DeviceEnvironment, Step
from regrow.errors import RegrowError
from regrow.registry import describe, make
from regrow.training.checkpoint import load, save
from regrow.training.run import Run, random_policy

SHIFTING = [
    PermutedObservations(period=150),
    RelabelledActions(game="minatar/asterix", period=150),
    SwitchedGames(games="breakout asterix", period=150),
]
named = pytest.mark.parametrize("env", SHIFTING, ids=lambda env: type(env).__name__)
# What is not of a game is as well seen in a small one.
small = pytest.mark.parametrize(
    "env",
    [
        pytest.param(SHIFTING[0], marks=pytest.mark.slow),
        RelabelledActions(game="toy/delayed_reward", period=150),
        pytest.param(SHIFTING[2], marks=pytest.mark.slow),
    ],
    ids=lambda env: type(env).__name__,
)


def check_orders(orders: np.ndarray, period: int) -> None:
    """Permutations that change at every multiple of the period and nowhere else."""
    numbers = np.arange(orders.shape[1])
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(numbers, (len(orders), 1)))
    np.testing.assert_array_equal(orders[:period], np.tile(numbers, (period, 1)))
    (changes,) = np.nonzero((orders[1:] != orders[:-1]).any(axis=1))
    np.testing.assert_array_equal(changes + 1, np.arange(period, len(orders), period))


# -------------------------------------------------------------------------------------------------
# Permuted observations
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("game", [pytest.param("breakout", marks=pytest.mark.slow), "asterix"])
def test_permuted_observations_are_the_games_with_their_cells_elsewhere(game):
    period = 700
    env = PermutedObservations(game=f"minatar/{game}", period=period)
    first, record, keys = play(env)
    orders = record.state.order
    check_orders(orders, period)
    # What is seen after the last step of a phase is of the next phase already.
    after = np.concatenate([orders[1:], orders[-1:]])

    def moved(observation: Any, order: np.ndarray) -> np.ndarray:
        return np.asarray(observation)[order // 10, order % 10].reshape(10, 10, -1)

    def unmoved(observation: np.ndarray, order: np.ndarray) -> np.ndarray:
        plain = np.empty_like(observation)
        plain[order // 10, order % 10] = observation.reshape(100, -1)
        return plain

    reset, step = compiled(make("environments", f"minatar/{game}"))
    state, seen = reset(first)
    episodes = 0
    for t in range(STEPS):
        assert bit_equal(at(record.state.game, t), state)
        np.testing.assert_array_equal(record.seen[t], moved(seen, orders[t]))
        np.testing.assert_array_equal(unmoved(record.seen[t], orders[t]), seen)
        state, theirs = step(state, record.action[t], keys.step[t])
        mine = at(record.step, t)
        observation = moved(theirs.observation, after[t])
        check_step(mine, theirs._replace(observation=observation))
        seen = theirs.observation
        if theirs.terminated:
            state, seen = reset(keys.reset[t])
            episodes += 1
    assert episodes > 20
    assert (orders[period] != orders[2 * period]).any()
    np.testing.assert_array_equal(record.state.env_steps, np.arange(STEPS))


class Numbered(DeviceEnvironment):
    """Every entry of the observation has a number of its own."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape

    observation_shape = property(lambda self: self.shape)
    observation_dtype = property(lambda self: np.dtype(np.float32))
    num_actions = 2

    def reset(self, key):
        return (), jnp.arange(np.prod(self.shape), dtype=jnp.float32).reshape(self.shape)

    def step(self, state, action, key):
        ends = jnp.bool_(False)
        return (), Step(self.reset(key)[1], jnp.float32(0), ends, ends)


@pytest.mark.parametrize(
    "shape",
    [(7,), (3, 4, 2), *(pytest.param(s, marks=pytest.mark.slow) for s in ((2,), (4, 2, 1)))],
)
def test_an_order_moves_vectors_and_whole_cells_of_images(shape):
    env = PermutedObservations(period=1)
    vars(env)["inner"] = Numbered(shape)
    state, plain = env.reset(jax.random.key(0))
    assert plain.ravel().tolist() == list(range(plain.size))
    channels = shape[2] if len(shape) == 3 else 1
    before = plain
    for _ in range(8):
        state, step = env.step(state, jnp.int32(0), jax.random.key(0))
        assert step.observation.shape == shape
        cells = np.asarray(step.observation).reshape(-1, channels)
        for channel in range(channels):
            np.testing.assert_array_equal(cells[:, channel] - channel, cells[:, 0])
        places = cells[:, 0] // channels
        np.testing.assert_array_equal(np.sort(places), np.arange(len(cells)))
        assert (step.observation != before).any()
        before = step.observation
        np.testing.assert_array_equal(env.restart(state, jax.random.key(1))[1], before)


# -------------------------------------------------------------------------------------------------
# Relabelled actions
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("game", [pytest.param("breakout", marks=pytest.mark.slow), "asterix"])
def test_relabelled_actions_act_as_the_action_they_stand_for(game):
    period = 450
    env = RelabelledActions(game=f"minatar/{game}", period=period, seed=3)
    first, record, keys = play(env)
    orders = record.state.order
    check_orders(orders, period)
    reset, step = compiled(make("environments", f"minatar/{game}"))
    state, seen = reset(first)
    relabelled = 0
    for t in range(STEPS):
        assert bit_equal(at(record.state.game, t), state)
        np.testing.assert_array_equal(record.seen[t], seen)
        meant = orders[t][record.action[t]]
        relabelled += meant != record.action[t]
        state, theirs = step(state, meant, keys.step[t])
        check_step(at(record.step, t), theirs)
        seen = theirs.observation
        if theirs.terminated:
            state, seen = reset(keys.reset[t])
    assert relabelled > STEPS / 4
    np.testing.assert_array_equal(record.state.env_steps, np.arange(STEPS))


def test_the_period_counts_env_steps_over_episodes():
    """Two actions swap at every change; every episode is one step long."""
    env = RelabelledActions(game="toy/action_reward", period=3)
    _, record, _ = play(env, 30)
    swapped = np.arange(30) // 3 % 2
    np.testing.assert_array_equal(record.step.reward, record.action ^ swapped)
    assert record.step.terminated.all()


# -------------------------------------------------------------------------------------------------
# Orders
# -------------------------------------------------------------------------------------------------


def test_orders_follow_from_the_seed_alone_and_differ_from_phase_to_phase():
    def orders(seed: int, key: int) -> np.ndarray:
        env = RelabelledActions(game="minatar/breakout", period=1, seed=seed)
        return play(env, 300, key)[1].state.order

    mine = orders(0, 0)
    np.testing.assert_array_equal(mine, orders(0, 1))
    assert (mine != orders(1, 0)).any()
    assert (mine[1:] != mine[:-1]).any(axis=1).all()
    _, counts = np.unique(mine, axis=0, return_counts=True)
    assert len(counts) == 6  # all there are of three actions
    assert counts.min() > 20
    order = [0, 1, 2]
    root = jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), crc32(b"order"))
    for k in range(1, 60):
        drawn = jax.random.permutation(jax.random.fold_in(root, k), 3).tolist()
        order = [drawn[-1], *drawn[:-1]] if drawn == order else drawn
        assert mine[k].tolist() == order


# -------------------------------------------------------------------------------------------------
# In the house
# -------------------------------------------------------------------------------------------------


@named
def test_what_is_declared_is_what_is_given(env):
    state, observation = env.reset(jax.random.key(0))
    after, step = env.step(state, jnp.int32(0), jax.random.key(1))
    again, first = env.restart(after, jax.random.key(2))
    for seen in (observation, step.observation, first):
        assert seen.shape == env.observation_shape
        assert seen.dtype == env.observation_dtype
    for other in (after, again):
        assert jax.tree.structure(state) == jax.tree.structure(other)
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
            assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)


@small
def test_many_at_once_are_each_by_itself(env):
    keys = jax.random.split(jax.random.key(0), 3)
    _, together, _ = jax.vmap(partial(played, env, 400))(keys)
    for i, key in enumerate(keys):
        assert bit_equal(at(together, i), played(env, 400, key)[1])


@pytest.mark.parametrize("env", [Breakout(), TimeLimitReward()], ids=str)
def test_by_default_a_restart_is_a_reset(env):
    state, _ = env.reset(jax.random.key(0))
    key = jax.random.key(1)
    assert bit_equal(env.restart(state, key), env.reset(key))


@small
def test_a_run_with_it_learns_and_goes_on_from_a_file_or_a_fork_as_if_nothing_had_been(
    env, tmp_path
):
    run = Run.start(DQN, env, seed=0)
    fresh = jax.tree.map(np.asarray, run.state.agent.q.network)
    run, log = run.advance(400)  # two changes
    assert int(run.state.environment.env_steps) == run.env_steps == 400
    assert int(run.state.updates) == 90
    assert not bit_equal(run.state.agent.q.network, fresh)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.state.agent.q.network))
    assert np.isfinite(log.value).all()
    save(run, tmp_path / "run.ckpt")
    loaded, fork = load(tmp_path / "run.ckpt"), run.fork()
    assert loaded.environment == env
    assert bit_equal(loaded.state, run.state)
    on = run.advance(320)  # another two, of which one falls into the first piece below
    begun, first = loaded.advance(52)
    again, rest = begun.advance(268)
    assert bit_equal(on[0].state, again.state)
    assert bit_equal(on[1], jax.tree.map(lambda *logs: np.concatenate(logs), first, rest))
    assert bit_equal(on[0].state, fork.advance(320)[0].state)


def test_side_by_side_a_period_is_env_steps_of_all():
    env = PermutedObservations(
        game="shifting/relabelled_actions(game='minatar/breakout', period=32)", period=48
    )
    agent = dataclasses.replace(DQN, num_envs=4)
    changed = []
    run = Run.start(agent, env, seed=0)
    for _ in range(12):
        world = run.state.environment
        changed.append((np.asarray(world.order), np.asarray(world.game.order)))
        run = run.advance(8)[0]
    for orders, period in zip(zip(*changed, strict=True), (48, 32), strict=True):
        for step, (one, other) in enumerate(itertools.pairwise(orders)):
            assert (one == one[0]).all()  # alike in all four
            assert bit_equal(one, other) == (8 * (step + 1) % period > 0)
    assert run.environment == env


@pytest.mark.parametrize("env", [PermutedObservations(), SwitchedGames()], ids=describe)
def test_a_period_that_many_cannot_share_is_refused(env):
    with pytest.raises(
        RegrowError, match=r"with 64 environments .* multiple of 64, such as 99968 or 100032"
    ):
        Run.start(dataclasses.replace(DQN, num_envs=64), env, seed=0)


def test_the_random_policy_plays_them():
    relabelled = random_policy(RelabelledActions(game="toy/action_reward"), 300, seed=0)
    assert 0.3 < relabelled.reward.mean() < 0.7


def test_they_wrap_each_other():
    text = (
        "shifting/permuted_observations("
        "game=\"shifting/relabelled_actions(game='minatar/asterix', period=70)\", period=110)"
    )
    env = make("environments", text)
    assert describe(env) == text
    _, record, _ = play(env, 600)
    assert record.step.terminated.any()
    check_orders(record.state.order, 110)
    check_orders(record.state.game.order, 70)
    around = PermutedObservations(game="shifting/switched_games(period=50)", period=120)
    _, record, _ = play(around, 300)
    assert record.step.truncated[49]
    np.testing.assert_array_equal(record.state.game.env_steps, np.arange(300))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "permuted_observations(game='minatar/brekout')",
            "no environment 'minatar/brekout'; did you mean 'minatar/breakout'?",
        ),
        (
            "permuted_observations(period=0)",
            "period is a number of env steps, from 1 to 2147483647",
        ),
        ("relabelled_actions(period=-5)", "received -5"),
        ("relabelled_actions(period=2147483648)", "it must be below 2^31"),
        ("relabelled_actions(seed=-1)", "seed is a whole number from 0 to 4294967295; received -1"),
        (
            "permuted_observations(game='toy/constant_reward')",
            "toy/constant_reward has too few places in an observation to reorder: 1; it must have",
        ),
        ("switched_games(period=0)", "period is a number of env steps"),
        ("switched_games(games='breakout')", "two or more MinAtar games with blanks between them"),
        ("switched_games(games='')", "received ''"),
        (
            "switched_games(games='breakout asterx')",
            "no environment 'minatar/asterx'; did you mean 'minatar/asterix'?",
        ),
        ("switched_games(games='breakout asterix(a=1)')", "no field of minatar/asterix 'a'"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(text, message):
    with refused_in_a_line(message):
        make("environments", f"shifting/{text}")


def test_observations_that_are_neither_vector_nor_image_are_refused(monkeypatch):
    monkeypatch.setattr(Freeway, "observation_shape", property(lambda self: (10, 10)))
    with pytest.raises(RegrowError, match=r"minatar/freeway has observations of shape \(10, 10\)"):
        PermutedObservations(game="minatar/freeway")

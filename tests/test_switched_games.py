"""Switched games are the games in turn, cut at the switch and nowhere else."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from replaying import STEPS, at, check_step, compiled, play
from trees import bit_equal

from regrow.agents import DoubleDQN
from regrow.environments import Asterix, SwitchedGames
from regrow.registry import make
from regrow.training.run import Run, random_policy

REFERENCE = ("noop", "left", "up", "right", "down", "fire")


@pytest.mark.parametrize(
    ("games", "period"),
    [
        pytest.param("breakout asterix freeway space_invaders", 333, id="four"),
        pytest.param("seaquest breakout(sticky_actions=0)", 41, id="two", marks=pytest.mark.slow),
    ],
)
def test_switched_games_are_the_games_in_turn(games, period):
    env = SwitchedGames(games=games, period=period)
    plain = [make("environments", f"minatar/{name}") for name in games.split()]
    channels = max(len(game.channels) for game in plain)
    assert env.observation_shape == (10, 10, channels)
    assert env.num_actions == 6
    first, record, keys = play(env)

    def padded(observation: Any) -> np.ndarray:
        full = np.zeros((10, 10, channels), bool)
        full[:, :, : observation.shape[2]] = observation
        return full

    functions = [compiled(game) for game in plain]
    turn, left = 0, period
    state, seen = functions[0][0](first)
    cut = 0
    for t in range(STEPS):
        assert bit_equal(at(record.state.games[turn], t), state)
        np.testing.assert_array_equal(record.seen[t], padded(seen))
        assert not record.seen[t][:, :, len(plain[turn].channels) :].any()
        name = REFERENCE[record.action[t]]
        known = plain[turn].actions
        meant = np.int32(known.index(name) if name in known else known.index("noop"))
        state, theirs = functions[turn][1](state, meant, keys.step[t])
        left -= 1
        switches = left == 0
        truncated = np.bool_(switches and not theirs.terminated)
        cut += truncated
        observation = padded(theirs.observation)
        check_step(
            at(record.step, t), theirs._replace(observation=observation, truncated=truncated)
        )
        seen = theirs.observation
        if switches:
            turn, left = (turn + 1) % len(plain), period
        if theirs.terminated or truncated:
            state, seen = functions[turn][0](keys.reset[t])
    assert cut > 2
    assert (record.step.reward != 0).sum() > 20


def test_a_game_that_ends_at_the_switch_is_terminated_and_not_truncated():
    env = SwitchedGames(games="breakout asterix", period=1)
    state, _ = env.reset(jax.random.key(0))
    lost = state.games[0].game._replace(ball_y=jnp.int32(8), paddle=jnp.int32(9))
    state = state._replace(games=(state.games[0]._replace(game=lost), state.games[1]))
    state, step = env.step(state, jnp.int32(0), jax.random.key(1))
    assert (bool(step.terminated), bool(step.truncated)) == (True, False)
    restarted, observation = env.restart(state, jax.random.key(2))
    begun, expected = Asterix().reset(jax.random.key(2))
    assert bit_equal(restarted.games[1], begun)
    np.testing.assert_array_equal(observation, expected)


def test_the_replay_holds_what_was_seen():
    """At a cut: the old game's last observation, and a discount that bootstraps."""
    env = SwitchedGames(games="freeway breakout", period=50)
    filling = DoubleDQN(hidden=8, channels=2, learn_start=1_000, replay_capacity=300)
    run, log = Run.start(filling, env, seed=0).advance(200)
    held = run.state.replay.first(200)
    assert log.truncated[49]
    assert not log.terminated[:50].any()
    np.testing.assert_array_equal(held.discount == 0, log.terminated)
    before, after = np.asarray(held.obs_tm1), np.asarray(held.obs_t)
    speeds = slice(4, 7)  # the channels that Freeway has and Breakout has not
    assert after[:50, :, :, speeds].any()
    assert not after[50:100, :, :, speeds].any()
    assert after[49, :, 4, 0].sum() == 1  # the chicken: the last that is seen is of the old game
    assert after[49, :, :, 1].sum() == 8  # and eight cars
    assert before[50, 1:4, :, 3].all()  # then three rows of bricks
    assert before[50, 9, 4, 0]  # and a paddle


def test_the_random_policy_plays_all_of_them():
    log = random_policy(SwitchedGames(games="breakout asterix", period=100), 1_000, seed=0)
    assert log.terminated.sum() > 10
    cut = np.flatnonzero(log.truncated).tolist()
    assert len(cut) > 5
    assert set(cut) <= set(range(99, 1_000, 100))

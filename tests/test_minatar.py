"""The MinAtar games in lock-step with the published implementation, on the same draws."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import minatar
import numpy as np
import pytest

from regrow.environments.minatar import asterix, breakout, freeway, seaquest, space_invaders
from regrow.environments.minatar.asterix import Asterix
from regrow.environments.minatar.base import MinAtar
from regrow.environments.minatar.breakout import Breakout
from regrow.environments.minatar.freeway import Freeway
from regrow.environments.minatar.seaquest import Seaquest
from regrow.environments.minatar.space_invaders import SpaceInvaders
from regrow.errors import RegrowError

STEPS = 5000  # per game and variant
NAMES = {
    Asterix: "asterix",
    Breakout: "breakout",
    Freeway: "freeway",
    Seaquest: "seaquest",
    SpaceInvaders: "space_invaders",
}
GAMES = list(NAMES)

# -------------------------------------------------------------------------------------------------
# Policies that reach further than chance: (state of the game, key) -> action.
# -------------------------------------------------------------------------------------------------


def play_breakout(game: Any, key: Any) -> Any:
    """The paddle follows the ball."""
    left, right = game.ball_x < game.paddle, game.ball_x > game.paddle
    return jnp.where(left, breakout.LEFT, jnp.where(right, breakout.RIGHT, 0))


def play_freeway(game: Any, key: Any) -> Any:
    """The player walks up, and waits while the car ahead is close."""
    ahead = game.player_y - 1 == asterix.LANE_ROWS
    near = jnp.any(ahead & (jnp.abs(game.x - freeway.PLAYER_X) <= 1))
    return jnp.where(near, 0, freeway.UP)


def play_asterix(game: Any, key: Any) -> Any:
    """The player goes where no enemy is near and, if it can, where gold is."""
    x = jnp.clip(game.player_x + jnp.array([0, -1, 0, 1, 0]), 0, 9)
    y = jnp.clip(game.player_y + jnp.array([0, 0, -1, 0, 1]), 1, 8)
    distance = jnp.abs(game.x[None] - x[:, None]).astype(jnp.float32)
    in_lane = game.occupied[None] & (asterix.LANE_ROWS[None] == y[:, None])
    danger = jnp.any(in_lane & ~game.gold[None] & (distance <= 1), axis=1)
    lanes = jnp.abs(asterix.LANE_ROWS[None] - y[:, None]).astype(jnp.float32)
    gold = jnp.where((game.occupied & game.gold)[None], 9 - jnp.maximum(distance, lanes), 0)
    score = jnp.max(gold, axis=1) - 20 * danger.astype(jnp.float32)
    return jnp.argmax(score + jax.random.uniform(key, (5,))).astype(jnp.int32)


def play_space_invaders(game: Any, key: Any) -> Any:
    """The cannon fires at once, steps out of the way of bullets, and roams."""
    falling = jnp.any(game.alien_bullets[6:] & (jnp.arange(10) == game.cannon)[None])
    roam = jax.random.randint(key, (), 0, 3)
    inward = jnp.where(game.cannon > 4, space_invaders.LEFT, space_invaders.RIGHT)
    return jnp.where(falling, inward, jnp.where(game.fire_timer == 0, space_invaders.FIRE, roam))


def play_seaquest(game: Any, key: Any) -> Any:
    """The player turns to shoot, gathers divers, and surfaces when it must or can be paid."""
    must = (game.rescued == 6) | ((game.oxygen < 60) & (game.rescued != 0))
    enemies, divers = game.enemies, game.divers
    in_row = enemies.alive & (enemies.y == game.y)
    near = in_row & (jnp.abs(enemies.x - game.x) <= 4)
    on_left, on_right = jnp.any(near & (enemies.x < game.x)), jnp.any(near & (enemies.x > game.x))
    shoots = (game.fire_timer == 0) & (on_left | on_right)
    faces = jnp.where(game.right, on_right, on_left)
    aim = jnp.where(faces, seaquest.FIRE, jnp.where(on_left, seaquest.LEFT, seaquest.RIGHT))
    target = jnp.where(divers.alive[0], 0, 1)
    dx, dy = divers.x[target] - game.x, divers.y[target] - game.y
    across = jnp.where(dx < 0, seaquest.LEFT, seaquest.RIGHT)
    along = jnp.where(dy < 0, seaquest.UP, seaquest.DOWN)
    chase = jnp.where(dy != 0, along, across)
    idle = jnp.where(game.y < 4, seaquest.DOWN, 0)
    rest = jnp.where(jnp.any(divers.alive), chase, idle)
    return jnp.where(must, seaquest.UP, jnp.where(shoots, aim, rest))


PLAY: dict[type[MinAtar], Callable[[Any, Any], Any]] = {
    Asterix: play_asterix,
    Breakout: play_breakout,
    Freeway: play_freeway,
    Seaquest: play_seaquest,
    SpaceInvaders: play_space_invaders,
}


# -------------------------------------------------------------------------------------------------
# Ours, in one scan
# -------------------------------------------------------------------------------------------------


class Record(NamedTuple):
    """All that one step had and gave; with a leading axis, of many steps."""

    action: Any
    chance: Any
    observation: Any
    reward: Any
    terminated: Any
    truncated: Any
    start_chance: Any  # of the episode that follows, should this one end
    start_observation: Any
    game: Any


@partial(jax.jit, static_argnames=("env", "steps"))
def rollout(env: MinAtar, key: Any, skill: float, immortal: bool, steps: int = STEPS) -> Any:
    """Plays with a share `skill` of skilled actions; `immortal`: goes on after an episode's end."""

    def body(state: Any, key: Any) -> Any:
        policy_key, chance_key, start_key = jax.random.split(key, 3)
        which, random, skilled = jax.random.split(policy_key, 3)
        action = jnp.where(
            jax.random.uniform(which) < skill,
            PLAY[type(env)](state.game, skilled),
            jax.random.randint(random, (), 0, env.num_actions),
        )
        state, step = env.step(state, action, chance_key)
        start, observation = env.reset(start_key)
        ends = step.terminated & ~immortal
        after = jax.tree.map(lambda new, old: jnp.where(ends, new, old), start, state)
        record = Record(
            action,
            env.chance(chance_key),
            *step,
            env.chance(start_key),
            observation,
            state.game,
        )
        return after, record

    first_key, key = jax.random.split(key)
    state, observation = env.reset(first_key)
    _, records = jax.lax.scan(body, state, jax.random.split(key, steps))
    return (env.chance(first_key), observation), records


# -------------------------------------------------------------------------------------------------
# Theirs, on our draws
# -------------------------------------------------------------------------------------------------


@dataclass
class Tape:
    """Stands in for the reference's random numbers: hands out what it was given, in order."""

    values: list[Any] = field(default_factory=list)

    def rand(self, *size: int) -> Any:
        return self.values.pop(0)

    def randint(self, *args: int, **kwargs: int) -> Any:
        return self.values.pop(0)


def coin(outcome: Any) -> float:
    """A uniform number that is below any probability, or above."""
    return 0.0 if outcome else 1.0


def tape_of(game: Any, name: str, draws: Any) -> list[Any]:
    """The random numbers that the reference needs to decide as `replicate` does, in its order."""
    if name == "breakout":
        return [int(draws.from_right)]
    if name == "freeway":
        return [np.abs(draws.speed).astype(int), np.where(draws.speed > 0, 0.9, 0.1)]
    if name == "asterix":
        free = np.float32(sum(entity is None for entity in game.entities))
        return [coin(draws.right), coin(draws.gold), int(np.floor(draws.lane * free))]
    if name == "seaquest":
        enemy = [coin(draws.enemy_right), coin(draws.enemy_armed), int(draws.enemy_y)]
        diver = [coin(draws.diver_right), int(draws.diver_y)]
        return (enemy if game.e_spawn_timer == 0 else []) + diver
    return []


def begin(reference: minatar.Environment, name: str, chance: Any) -> None:
    tape = Tape() if name == "seaquest" else Tape(tape_of(reference.env, name, chance.draws))
    reference.random = reference.env.random = tape
    reference.reset()
    reference.last_action = 0  # ours does not carry it over from the episode before


def check(env: MinAtar, key: int, skill: float, immortal: bool, steps: int = STEPS) -> Record:
    """Plays, replays in the reference, and compares every step."""
    name = NAMES[type(env)]
    first, records = jax.device_get(rollout(env, jax.random.key(key), skill, immortal, steps))
    reference = minatar.Environment(name, env.sticky_actions, env.difficulty_ramping)
    actions = reference.minimal_action_set()
    assert tuple(reference.state_shape()) == env.observation_shape
    assert len(actions) == env.num_actions
    begin(reference, name, first[0])
    np.testing.assert_array_equal(reference.state(), first[1])
    leaves, treedef = jax.tree.flatten(records._replace(game=None))
    for t, row in enumerate(zip(*leaves, strict=True)):
        record = treedef.unflatten(row)
        tape = tape_of(reference.env, name, record.chance.draws)
        reference.random = reference.env.random = Tape([coin(record.chance.sticky), *tape])
        reward, terminal = reference.act(actions[record.action])
        same = np.array_equal(reference.state(), record.observation)
        assert same, f"observation {t} differs"
        assert reward == record.reward, f"reward {t} differs"
        assert terminal == record.terminated, f"terminated {t} differs"
        if terminal and immortal:
            reference.env.terminal = False
        elif terminal:
            begin(reference, name, record.start_chance)
            assert np.array_equal(reference.state(), record.start_observation)
    assert not records.truncated.any()
    return records


# -------------------------------------------------------------------------------------------------


PLAIN = {"sticky_actions": 0.0, "difficulty_ramping": False}


VARIANTS = {
    "default-random": ({}, 0.0),
    "default-skilled": ({}, 0.9),
    "plain-skilled": (PLAIN, 0.9),
    "plain-random": (PLAIN, 0.0),
}


def quick(game: Any, variant: str) -> bool:
    """What is compiled once more is compiled for two games only; the rest is slow."""
    fast = game in (Breakout, Freeway)
    return "default" in variant or (fast and variant == "plain-skilled")


@pytest.mark.parametrize(
    ("game", "options", "skill"),
    [
        pytest.param(
            *(game, *VARIANTS[name]),
            id=f"{game.__name__}-{name}",
            marks=() if quick(game, name) else pytest.mark.slow,
        )
        for game in GAMES
        for name in VARIANTS
    ],
)
def test_every_step_is_that_of_the_reference(game: Any, options: Any, skill: float) -> None:
    records = check(game(**options), key=1, skill=skill, immortal=False)
    assert records.terminated.any()
    assert bool(records.chance.sticky.any()) == (not options)


# A Breakout ball that is lost leaves the board, where the reference fails.
@pytest.mark.parametrize("skill", [0.0, 0.9])
@pytest.mark.parametrize("game", [game for game in GAMES if game is not Breakout])
def test_every_step_is_that_of_the_reference_deep_into_a_game(game: Any, skill: float) -> None:
    records = check(game(), key=2, skill=skill, immortal=True)
    if game is Asterix:
        assert (records.game.spawn_interval[-1], records.game.move_interval[-1]) == (1, 1)
        assert records.game.occupied.all(axis=1).any()
    if game is Seaquest and skill > 0:
        assert (records.game.spawn_interval[-1], records.game.move_interval[-1]) == (1, 2)
        assert records.game.enemies.alive.sum(axis=1).max() > 12
        assert (records.game.rescued == 6).any()
    if game is SpaceInvaders:
        assert records.game.move_interval[-1] == space_invaders.MIN_MOVE_INTERVAL


def test_the_last_observation_is_the_one_after_the_last_action() -> None:
    """The ball that ends an episode of Breakout is seen where it fell, not where one starts."""
    _, records = rollout(Breakout(), jax.random.key(1), 0.0, False)
    last = np.asarray(records.observation)[np.asarray(records.terminated)]
    ball = last[..., Breakout.channels.index("ball")]
    assert (ball.sum(axis=(1, 2)) == 1).all()
    assert ball[:, 9].any(axis=1).all()


@pytest.mark.parametrize(
    "game", [pytest.param(g, marks=pytest.mark.slow if g is Seaquest else ()) for g in GAMES]
)
def test_jit_and_vmap_change_nothing(game: Any) -> None:
    env = game()
    keys = jax.random.split(jax.random.key(0), 3)
    actions = jnp.array([0, 1, 2])
    states, observations = jax.jit(jax.vmap(env.reset))(keys)
    batch = jax.jit(jax.vmap(env.step))(states, actions, keys)
    state, observation = env.reset(keys[1])
    np.testing.assert_array_equal(observation, observations[1])
    one = env.step(state, actions[1], keys[1])
    for plain, batched in zip(jax.tree.leaves(one), jax.tree.leaves(batch), strict=True):
        assert plain.dtype == batched.dtype
        np.testing.assert_array_equal(plain, batched[1])


@pytest.mark.parametrize("game", GAMES)
def test_what_is_declared_is_what_is_given(game: Any) -> None:
    env = game()
    state, observation = jax.eval_shape(env.reset, jax.random.key(0))
    after, step = jax.eval_shape(env.step, state, jnp.int32(0), jax.random.key(1))
    for seen in (observation, step.observation):
        assert seen.shape == env.observation_shape
        assert seen.dtype == env.observation_dtype
    assert (step.reward.dtype, step.terminated.dtype) == (jnp.float32, jnp.bool_)
    assert state == after
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} <= {np.dtype("int32"), np.dtype("bool")}
    assert env == game()
    assert hash(env) == hash(game())


def test_draws_have_the_published_distribution() -> None:
    keys = jax.random.split(jax.random.key(0), 20_000)
    speed = np.asarray(jax.vmap(Freeway().chance)(keys).draws.speed)
    values, counts = np.unique(speed, return_counts=True)
    assert values.tolist() == [-5, -4, -3, -2, -1, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(counts / speed.size, 0.1, atol=0.004)
    chance = jax.vmap(Seaquest().chance)(keys)
    assert np.mean(chance.sticky) == pytest.approx(0.1, abs=0.01)
    assert np.mean(chance.draws.enemy_armed) == pytest.approx(1 / 3, abs=0.015)
    rows, counts = np.unique(chance.draws.enemy_y, return_counts=True)
    assert rows.tolist() == list(range(1, 9))
    np.testing.assert_allclose(counts / len(keys), 1 / 8, atol=0.012)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_wrong_probability_is_refused(value: float) -> None:
    with pytest.raises(RegrowError, match=f"received {value}"):
        Asterix(sticky_actions=value)

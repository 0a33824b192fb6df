"""Seaquest where play reaches rarely: a full ring of enemies, and crowds, beside the reference."""

from typing import Any

import jax
import jax.numpy as jnp
import minatar
import numpy as np

from regrow.environments.minatar import seaquest
from regrow.environments.minatar.seaquest import Seaquest

CROWDED = 1000  # states


def test_seaquest_has_room_for_all_that_can_live() -> None:
    """Enemies that are never shot and come every step: the ring does not overtake them."""
    env = Seaquest()
    draws = env.chance(jax.random.key(0)).draws
    game = env.start(draws)._replace(spawn_interval=jnp.int32(1), move_interval=jnp.int32(2))
    game = game._replace(spawn_timer=jnp.int32(0))
    # all in one row, away from the player, which stays at the surface
    draws = draws._replace(enemy_right=jnp.bool_(True), enemy_y=jnp.int32(8))
    draws = draws._replace(enemy_armed=jnp.bool_(True))

    def body(game: Any, _: None) -> Any:
        game, _, _ = env.transition(game, jnp.int32(0), draws)
        return game, (game.enemies.alive.sum(), game.enemies.alive[game.next_slot])

    _, (alive, overtaken) = jax.lax.scan(body, game, None, length=100)
    assert alive.max() == 29
    assert not overtaken.any()


def crowd(rng: np.random.Generator, reference: Any, enemies: Any, next_slot: int) -> None:
    """Puts many enemies in few cells, into the reference and, in place, into ours."""
    facing = rng.random(10) < 0.5  # by row
    cells = [(x, y, timer) for x in range(2, 6) for y in range(2, 4) for timer in range(3)]
    chosen = rng.permutation(len(cells))[: rng.integers(1, len(cells) + 1)]
    for age, index in enumerate(chosen):  # the oldest first
        slot = (next_slot + age) % seaquest.NUM_ENEMIES
        x, y, timer = cells[index]
        armed, right, fire_timer = bool(rng.random() < 0.5), bool(facing[y]), int(rng.integers(3))
        flies = armed and fire_timer > 0 and rng.random() < 0.1
        bullet_x = int(rng.integers(10)) if flies else 10 if right else -1
        values = (True, x, y, right, armed, timer, fire_timer, bullet_x)
        for leaf, value in zip(enemies, values, strict=True):
            leaf[slot] = value
        if armed:
            reference.e_subs.append([x, y, right, timer, fire_timer])
            reference.e_bullets += [[bullet_x, y, right]] if flies else []
        else:
            reference.e_fish.append([x, y, right, timer])


def crowded_sea(rng: np.random.Generator, reference: Any, start: Any) -> Any:
    """A Seaquest state that play reaches rarely, put into the reference and returned as ours.

    Many enemies in few rows, with bullets and divers on top of them and of each other.
    """
    reference.reset()
    game = jax.tree.map(np.array, start)
    next_slot = int(rng.integers(seaquest.NUM_ENEMIES))
    crowd(rng, reference, game.enemies, next_slot)
    x, y = (int(rng.integers(1, 7)) for _ in range(2))
    for i in range(2):
        # bullets in opposite directions that may meet in this step; divers in the same cell
        bullet = [x + 2 * i + int(rng.integers(2)), y // 2 + 1, i == 0]
        diver = [x, y, bool(rng.random() < 0.5), int(rng.integers(2))]
        for pair, one in ((game.bullets, bullet), (game.divers, diver)):
            for leaf, value in zip(pair, [True, *one], strict=True):
                leaf[i] = value
        reference.f_bullets.append(bullet)
        reference.divers.append(diver)
    rescued = int(rng.integers(4, 7))
    reference.sub_x, reference.sub_y, reference.diver_count = x, y - 1, rescued
    reference.move_speed = 2
    reference.shot_timer = 1  # never 0 while two bullets fly
    scalars = {"next_slot": next_slot, "x": x, "y": y - 1, "rescued": rescued}
    scalars |= {"move_interval": 2, "fire_timer": 1}
    return game._replace(**{name: np.int32(value) for name, value in scalars.items()})


def test_seaquest_settles_every_collision_as_the_reference() -> None:
    env, rng = Seaquest(), np.random.default_rng(0)
    references = [minatar.Environment("seaquest", 0.0) for _ in range(CROWDED)]
    draws = env.chance(jax.random.key(0)).draws  # nothing appears in a first step
    start = jax.device_get(env.start(draws))
    games = [crowded_sea(rng, reference.env, start) for reference in references]
    batch = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *games)
    actions = rng.integers(6, size=len(games)).astype(np.int32)

    @jax.jit
    def step(game: Any, action: Any) -> Any:
        after, reward, terminated = env.transition(game, action, draws)
        return env.observe(after), reward, terminated, after.rescued

    result = jax.device_get(jax.vmap(step)(batch, jnp.asarray(actions)))
    for t, reference in enumerate(references):
        reward, terminal = reference.act(int(actions[t]))
        assert (reward, terminal) == (result[1][t], result[2][t]), f"state {t} differs"
        assert np.array_equal(reference.state(), result[0][t]), f"observation {t} differs"
        assert reference.env.diver_count == result[3][t]
    assert result[1].max() >= 2

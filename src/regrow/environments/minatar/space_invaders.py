"""Space Invaders: shoot a block of aliens that comes down from the top of the screen.

The aliens move sideways and, whenever they meet an edge, turn around and come one row down; the
fewer are left, the faster they move. The one nearest to the cannon shoots. Every alien is worth 1,
and when all are gone a new block appears. The episode ends when an alien or one of its bullets
reaches the cannon, or when the aliens would leave the screen at the bottom. The difficulty ramps
with each cleared block, by a shorter interval between moves. After Young & Tian 2019 (arXiv
1903.03176).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from regrow.environments.minatar.base import COLUMNS, ROWS, SIZE, MinAtar, cell, countdown, shifted

LEFT, RIGHT, FIRE = 1, 2, 3
FLOOR = SIZE - 1  # the row of the cannon
FIRE_INTERVAL = 5
ALIEN_FIRE_INTERVAL = 10
MOVE_INTERVAL = 12  # at the start, and at most
MIN_MOVE_INTERVAL = 6  # where the ramp ends
BLOCK = (ROWS < 4) & (COLUMNS >= 2) & (COLUMNS < 8)


class SpaceInvadersState(NamedTuple):
    """The board of Space Invaders."""

    cannon: Int[Array, ""]
    bullets: Bool[Array, "10 10"]
    alien_bullets: Bool[Array, "10 10"]
    aliens: Bool[Array, "10 10"]
    direction: Int[Array, ""]  # of the aliens: -1 left, 1 right
    # timers
    fire_timer: Int[Array, ""]
    alien_fire_timer: Int[Array, ""]
    move_timer: Int[Array, ""]
    move_interval: Int[Array, ""]


class SpaceInvadersDraws(NamedTuple):
    """Empty: Space Invaders has no randomness."""


@dataclass(frozen=True)
class SpaceInvaders(MinAtar[SpaceInvadersState, SpaceInvadersDraws]):
    """Shoots aliens that come down; see `MinAtar` for the options."""

    actions: ClassVar[tuple[str, ...]] = ("noop", "left", "right", "fire")
    channels: ClassVar[tuple[str, ...]] = (
        "cannon",
        "alien",
        "alien left",
        "alien right",
        "friendly bullet",
        "enemy bullet",
    )
    num_uniforms: ClassVar[int] = 0

    def draw(self, uniforms: Float[Array, " 0"]) -> SpaceInvadersDraws:
        """Empty: nothing is random."""
        del uniforms
        return SpaceInvadersDraws()

    def start(self, draws: SpaceInvadersDraws) -> SpaceInvadersState:
        """The first block of aliens, above the cannon."""
        del draws
        empty = jnp.zeros((SIZE, SIZE), jnp.bool_)
        return SpaceInvadersState(
            cannon=jnp.int32(5),
            bullets=empty,
            alien_bullets=empty,
            aliens=jnp.asarray(BLOCK),
            direction=jnp.int32(-1),
            fire_timer=jnp.int32(0),
            alien_fire_timer=jnp.int32(ALIEN_FIRE_INTERVAL),
            move_timer=jnp.int32(MOVE_INTERVAL),
            move_interval=jnp.int32(MOVE_INTERVAL),
        )

    def transition(
        self, game: SpaceInvadersState, action: Int[Array, ""], draws: SpaceInvadersDraws
    ) -> tuple[SpaceInvadersState, Float[Array, ""], Bool[Array, ""]]:
        """Cannon, bullets, aliens: (next state, aliens killed, terminated)."""
        del draws
        cannon = shifted(game.cannon, action, LEFT, RIGHT, 0, SIZE - 1)
        fires = (action == FIRE) & (game.fire_timer == 0)
        # A new bullet is in the row above the cannon by the end of its first step.
        bullets = _rolled_up(game.bullets) & (ROWS != FLOOR)
        bullets = bullets | (fires & cell(cannon, jnp.int32(FLOOR - 1)))
        alien_bullets = jnp.roll(game.alien_bullets, 1, axis=0) & (ROWS != 0)

        moves = game.move_timer == 0
        aliens, direction, landed = _march(game.aliens, game.direction, moves)
        at_cannon = cell(cannon, jnp.int32(FLOOR))
        hit = jnp.any(at_cannon & (alien_bullets | game.aliens | aliens))
        pace = jnp.minimum(jnp.sum(game.aliens, dtype=jnp.int32), game.move_interval)

        alien_fires = game.alien_fire_timer == 0
        alien_bullets = alien_bullets | (alien_fires & _nearest(aliens, cannon))
        killed = aliens & bullets
        aliens = aliens & ~killed
        cleared = ~jnp.any(aliens)
        harder = cleared & (game.move_interval > MIN_MOVE_INTERVAL) & self.difficulty_ramping
        after = SpaceInvadersState(
            cannon=cannon,
            bullets=bullets & ~killed,
            alien_bullets=alien_bullets,
            aliens=aliens | (cleared & BLOCK),
            direction=direction,
            fire_timer=countdown(jnp.where(fires, FIRE_INTERVAL, game.fire_timer)),
            alien_fire_timer=jnp.where(alien_fires, ALIEN_FIRE_INTERVAL, game.alien_fire_timer) - 1,
            move_timer=jnp.where(moves, pace, game.move_timer) - 1,
            move_interval=game.move_interval - harder.astype(jnp.int32),
        )
        return after, jnp.sum(killed, dtype=jnp.float32), hit | landed

    def observe(self, game: SpaceInvadersState) -> Bool[Array, "10 10 6"]:
        """The six planes, in the order of `channels`."""
        left = game.direction < 0
        planes = [
            cell(game.cannon, jnp.int32(FLOOR)),
            game.aliens,
            game.aliens & left,
            game.aliens & ~left,
            game.bullets,
            game.alien_bullets,
        ]
        return jnp.stack(planes, axis=-1)


def _rolled_up(plane: Bool[Array, "10 10"]) -> Bool[Array, "10 10"]:
    return jnp.roll(plane, -1, axis=0)


def _march(
    aliens: Bool[Array, "10 10"], direction: Int[Array, ""], moves: Bool[Array, ""]
) -> tuple[Bool[Array, "10 10"], Int[Array, ""], Bool[Array, ""]]:
    """What follows if the aliens move: (aliens, direction, whether they left at the bottom)."""
    edge = jnp.where(direction < 0, 0, SIZE - 1)
    turns = moves & jnp.any(aliens & (edge == COLUMNS))
    sideways = jnp.where(direction < 0, jnp.roll(aliens, -1, axis=1), jnp.roll(aliens, 1, axis=1))
    # Aliens that leave at the bottom reappear at the top, which the final observation shows.
    down = jnp.roll(aliens, 1, axis=0)
    landed = turns & jnp.any(aliens & (ROWS == FLOOR))
    moved = jnp.where(turns, down, jnp.where(moves, sideways, aliens))
    return moved, jnp.where(turns, -direction, direction), landed


def _nearest(aliens: Bool[Array, "10 10"], x: Int[Array, ""]) -> Bool[Array, "10 10"]:
    """The cell of the alien that shoots: the lowest one of the nearest column, the left of two."""
    distance = 2 * jnp.abs(COLUMNS - x) + (x < COLUMNS).astype(jnp.int32)
    order = SIZE * distance + (FLOOR - ROWS)
    rank = jnp.where(aliens, order, SIZE**3)
    return aliens & (rank == jnp.min(rank))

"""Asterix: collect gold and keep away from enemies, both of which cross the screen.

The player moves in four directions. Gold and enemies appear at the sides, at most one in each of
the eight middle rows, and all move at the same moments. Touching gold is worth 1 and takes it;
touching an enemy ends the episode. The difficulty ramps by shorter intervals between spawns and
between moves. After Young & Tian 2019 (arXiv 1903.03176).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from regrow.environments.minatar.base import (
    COLUMNS,
    SIZE,
    MinAtar,
    ahead,
    behind,
    below,
    cell,
    entry,
    on_screen,
    shifted,
)

LEFT, UP, RIGHT, DOWN = 1, 2, 3, 4
RAMP_INTERVAL = 100
SPAWN_INTERVAL = 10  # at the start; the ramp shortens it to 1
MOVE_INTERVAL = 5  # likewise

NUM_LANES = 8  # lane i is row i + 1 and holds at most one thing, so no more than these can exist
LANE_ROWS = np.arange(1, NUM_LANES + 1, dtype=np.int32)
EARLIER = np.tri(NUM_LANES, k=-1, dtype=np.bool_)  # [i, j]: lane j comes before lane i


class AsterixState(NamedTuple):
    """The board of Asterix."""

    player_x: Int[Array, ""]
    player_y: Int[Array, ""]
    # what is in each lane
    occupied: Bool[Array, " 8"]
    x: Int[Array, " 8"]
    right: Bool[Array, " 8"]  # which way it moves
    gold: Bool[Array, " 8"]  # gold, else an enemy
    # timers
    spawn_timer: Int[Array, ""]
    spawn_interval: Int[Array, ""]
    move_timer: Int[Array, ""]
    move_interval: Int[Array, ""]
    ramp_timer: Int[Array, ""]
    ramp_index: Int[Array, ""]


class AsterixDraws(NamedTuple):
    """What appears if something spawns."""

    right: Bool[Array, ""]
    gold: Bool[Array, ""]
    lane: Float[Array, ""]  # uniform on [0, 1): selects one of the free lanes


@dataclass(frozen=True)
class Asterix(MinAtar[AsterixState, AsterixDraws]):
    """Collects gold and avoids enemies; see `MinAtar` for the options."""

    actions: ClassVar[tuple[str, ...]] = ("noop", "left", "up", "right", "down")
    channels: ClassVar[tuple[str, ...]] = ("player", "enemy", "trail", "gold")
    num_uniforms: ClassVar[int] = 3

    def draw(self, uniforms: Float[Array, " 3"]) -> AsterixDraws:
        """What appears, and where."""
        return AsterixDraws(uniforms[0] < 1 / 2, uniforms[1] < 1 / 3, uniforms[2])

    def start(self, draws: AsterixDraws) -> AsterixState:
        """The player in the middle of an empty screen."""
        del draws
        nothing = jnp.zeros(NUM_LANES, jnp.bool_)
        spawn, move = jnp.int32(SPAWN_INTERVAL), jnp.int32(MOVE_INTERVAL)
        return AsterixState(
            player_x=jnp.int32(5),
            player_y=jnp.int32(5),
            occupied=nothing,
            x=jnp.zeros(NUM_LANES, jnp.int32),
            right=nothing,
            gold=nothing,
            spawn_timer=spawn,
            spawn_interval=spawn,
            move_timer=move,
            move_interval=move,
            ramp_timer=jnp.int32(RAMP_INTERVAL),
            ramp_index=jnp.int32(0),
        )

    def transition(
        self, game: AsterixState, action: Int[Array, ""], draws: AsterixDraws
    ) -> tuple[AsterixState, Float[Array, ""], Bool[Array, ""]]:
        """Spawn, player, objects: (next state, 1 for gold, whether an enemy was touched)."""
        spawns = game.spawn_timer == 0
        moves = game.move_timer == 0
        game = _spawn(game, draws, spawns)
        player_x = shifted(game.player_x, action, LEFT, RIGHT, 0, SIZE - 1)
        player_y = shifted(game.player_y, action, UP, DOWN, 1, SIZE - 2)

        # The player may touch an object where it was or where it moves to. Gold is taken on the
        # first touch, and an enemy ends the episode: either way two touches count once.
        mine = game.occupied & (player_y == LANE_ROWS)
        x = jnp.where(moves, ahead(game.x, game.right), game.x)
        touched = mine & ((game.x == player_x) | (x == player_x))
        taken = touched & game.gold
        occupied = game.occupied & ~taken & on_screen(x)

        after = game._replace(
            player_x=player_x,
            player_y=player_y,
            occupied=occupied,
            x=x,
            spawn_timer=jnp.where(spawns, game.spawn_interval, game.spawn_timer) - 1,
            move_timer=jnp.where(moves, game.move_interval, game.move_timer) - 1,
        )
        if self.difficulty_ramping:
            after = _ramp(after)
        return after, jnp.any(taken).astype(jnp.float32), jnp.any(touched & ~game.gold)

    def observe(self, game: AsterixState) -> Bool[Array, "10 10 4"]:
        """The four planes, in the order of `channels`."""
        here = game.occupied[:, None] & (game.x[:, None] == COLUMNS)
        trail = game.occupied[:, None] & (behind(game.x, game.right)[:, None] == COLUMNS)
        gold = game.gold[:, None]
        lanes = jnp.stack([here & ~gold, trail, here & gold], axis=-1)
        player = cell(game.player_x, game.player_y)[:, :, None]
        return jnp.concatenate([player, jnp.pad(lanes, ((1, 1), (0, 0), (0, 0)))], axis=-1)


def _spawn(game: AsterixState, draws: AsterixDraws, spawns: Bool[Array, ""]) -> AsterixState:
    """Puts what was drawn in a free lane; nothing happens if there is none."""
    free = ~game.occupied
    rank = jnp.sum(EARLIER & free[None, :], axis=1, dtype=jnp.int32)
    chosen = below(draws.lane, jnp.sum(free, dtype=jnp.int32))
    new = spawns & free & (rank == chosen)
    return game._replace(
        occupied=game.occupied | new,
        x=jnp.where(new, entry(draws.right), game.x),
        right=jnp.where(new, draws.right, game.right),
        gold=jnp.where(new, draws.gold, game.gold),
    )


def _ramp(game: AsterixState) -> AsterixState:
    """Shortens the intervals when due: of spawns every time, of moves every second time."""
    can = (game.spawn_interval > 1) | (game.move_interval > 1)
    due = can & (game.ramp_timer < 0)
    faster = due & (game.move_interval > 1) & (game.ramp_index % 2 == 1)
    denser = due & (game.spawn_interval > 1)
    waiting = jnp.where(can, game.ramp_timer - 1, game.ramp_timer)
    return game._replace(
        move_interval=game.move_interval - faster.astype(jnp.int32),
        spawn_interval=game.spawn_interval - denser.astype(jnp.int32),
        ramp_index=game.ramp_index + due.astype(jnp.int32),
        ramp_timer=jnp.where(due, RAMP_INTERVAL, waiting),
    )

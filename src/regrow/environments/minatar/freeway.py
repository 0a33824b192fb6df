"""Freeway: cross eight lanes of cars from the bottom of the screen to the top.

The player moves up and down, at most once in three steps. Reaching the top is worth 1 and draws
new speeds for all cars; being hit puts the player back at the bottom. Each lane has one car, which
moves once in two to six steps and wraps around; five trail channels show its direction and speed.
The episode ends, as a rule of the game, on step 2501. The difficulty does not ramp. After Young &
Tian 2019 (arXiv 1903.03176).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from regrow.environments.minatar.base import COLUMNS, SIZE, MinAtar, below, cell, countdown, shifted

UP, DOWN = 1, 2
PLAYER_X = 4
PLAYER_INTERVAL = 3
TIME_LIMIT = 2500
MAX_SPEED = 5

NUM_CARS = 8
CAR_ROWS = np.arange(1, NUM_CARS + 1, dtype=np.int32)
SPEEDS = np.arange(1, MAX_SPEED + 1, dtype=np.int32)


class FreewayState(NamedTuple):
    """The board of Freeway."""

    player_y: Int[Array, ""]
    player_timer: Int[Array, ""]  # steps until the player may move again
    time_left: Int[Array, ""]
    # the cars
    x: Int[Array, " 8"]
    speed: Int[Array, " 8"]  # -5, ..., -1, 1, ..., 5: steps that a car waits, signed by direction
    timer: Int[Array, " 8"]


class FreewayDraws(NamedTuple):
    """The cars' speeds if they change."""

    speed: Int[Array, " 8"]


@dataclass(frozen=True)
class Freeway(MinAtar[FreewayState, FreewayDraws]):
    """Crosses lanes of cars; see `MinAtar` for the options."""

    actions: ClassVar[tuple[str, ...]] = ("noop", "up", "down")
    channels: ClassVar[tuple[str, ...]] = (
        "chicken",
        "car",
        *(f"speed {speed}" for speed in range(1, MAX_SPEED + 1)),
    )
    num_uniforms: ClassVar[int] = NUM_CARS

    def draw(self, uniforms: Float[Array, " 8"]) -> FreewayDraws:
        """A speed and direction for each car, all ten equally likely."""
        index = below(uniforms, 2 * MAX_SPEED)
        return FreewayDraws(jnp.where(index < MAX_SPEED, index - MAX_SPEED, index - MAX_SPEED + 1))

    def start(self, draws: FreewayDraws) -> FreewayState:
        """The player at the bottom and all cars at the left."""
        return FreewayState(
            player_y=jnp.int32(SIZE - 1),
            player_timer=jnp.int32(PLAYER_INTERVAL),
            time_left=jnp.int32(TIME_LIMIT),
            x=jnp.zeros(NUM_CARS, jnp.int32),
            speed=draws.speed,
            timer=jnp.abs(draws.speed),
        )

    def transition(
        self, game: FreewayState, action: Int[Array, ""], draws: FreewayDraws
    ) -> tuple[FreewayState, Float[Array, ""], Bool[Array, ""]]:
        """Player, then cars: (next state, 1 for a crossing, whether time is up)."""
        may_move = game.player_timer == 0
        moved = may_move & ((action == UP) | (action == DOWN))
        y = jnp.where(
            may_move, shifted(game.player_y, action, UP, DOWN, 0, SIZE - 1), game.player_y
        )
        won = y == 0
        y = jnp.where(won, SIZE - 1, y)
        speed = jnp.where(won, draws.speed, game.speed)
        timer = jnp.where(won, jnp.abs(draws.speed), game.timer)

        drives = timer == 0
        x = game.x + jnp.where(drives, jnp.sign(speed), 0)
        x = jnp.where(x < 0, SIZE - 1, jnp.where(x >= SIZE, 0, x))
        # Only the car in the player's row can hit, and none is in the bottom row, so the order of
        # the cars does not matter.
        hit = jnp.any((y == CAR_ROWS) & ((game.x == PLAYER_X) | (x == PLAYER_X)))

        time_left = game.time_left - 1
        after = FreewayState(
            player_y=jnp.where(hit, SIZE - 1, y),
            player_timer=countdown(jnp.where(moved, PLAYER_INTERVAL, game.player_timer)),
            time_left=time_left,
            x=x,
            speed=speed,
            timer=jnp.where(drives, jnp.abs(speed), timer - 1),
        )
        return after, won.astype(jnp.float32), time_left < 0

    def observe(self, game: FreewayState) -> Bool[Array, "10 10 7"]:
        """The seven planes, in the order of `channels`."""
        player = cell(jnp.int32(PLAYER_X), game.player_y)[:, :, None]
        car = game.x[:, None] == COLUMNS
        behind = game.x - jnp.sign(game.speed)
        behind = jnp.where(behind < 0, SIZE - 1, jnp.where(behind >= SIZE, 0, behind))
        trail = behind[:, None] == COLUMNS
        at_speed = jnp.abs(game.speed)[:, None] == SPEEDS[None, :]
        trails = trail[:, :, None] & at_speed[:, None, :]
        lanes = jnp.concatenate([car[:, :, None], trails], axis=-1)
        return jnp.concatenate([player, jnp.pad(lanes, ((1, 1), (0, 0), (0, 0)))], axis=-1)

"""Breakout: bounce a ball off a paddle to break three rows of bricks.

The ball moves along diagonals and reflects from walls, bricks and paddle; the side on which it
meets the paddle decides whether it returns the way it came. Every brick is worth 1. When the last
brick is gone, three new rows appear as the ball comes down. The episode ends when the ball passes
the paddle. The difficulty does not ramp. After Young & Tian 2019 (arXiv 1903.03176).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from regrow.environments.minatar.base import COLUMNS, ROWS, SIZE, MinAtar, cell, shifted

LEFT, RIGHT = 1, 2
FLOOR = SIZE - 1  # the row of the paddle
WALL = (ROWS >= 1) & (ROWS <= 3) & (COLUMNS >= 0)


class BreakoutState(NamedTuple):
    """The board of Breakout."""

    paddle: Int[Array, ""]
    ball_x: Int[Array, ""]
    ball_y: Int[Array, ""]
    dx: Int[Array, ""]  # the ball's direction, -1 or 1 on both axes
    dy: Int[Array, ""]
    last_x: Int[Array, ""]  # where the ball was one step before
    last_y: Int[Array, ""]
    bricks: Bool[Array, "10 10"]
    strike: Bool[Array, ""]  # the ball is passing through bricks after it broke one


class BreakoutDraws(NamedTuple):
    """The random values of Breakout; they are used only at the start."""

    from_right: Bool[Array, ""]


@dataclass(frozen=True)
class Breakout(MinAtar[BreakoutState, BreakoutDraws]):
    """Breaks bricks with a ball and a paddle; see `MinAtar` for the options."""

    actions: ClassVar[tuple[str, ...]] = ("noop", "left", "right")
    channels: ClassVar[tuple[str, ...]] = ("paddle", "ball", "trail", "brick")
    num_uniforms: ClassVar[int] = 1

    def draw(self, uniforms: Float[Array, " 1"]) -> BreakoutDraws:
        """From which side the ball starts."""
        return BreakoutDraws(uniforms[0] < 0.5)

    def start(self, draws: BreakoutDraws) -> BreakoutState:
        """A full wall of bricks and the ball in flight below it."""
        x = jnp.where(draws.from_right, SIZE - 1, 0).astype(jnp.int32)
        y = jnp.full((), 3, jnp.int32)
        dx = jnp.where(draws.from_right, -1, 1).astype(jnp.int32)
        dy = jnp.ones((), jnp.int32)
        paddle = jnp.full((), 4, jnp.int32)
        strike = jnp.zeros((), jnp.bool_)
        return BreakoutState(paddle, x, y, dx, dy, x, y, jnp.asarray(WALL), strike)

    def transition(
        self, game: BreakoutState, action: Int[Array, ""], draws: BreakoutDraws
    ) -> tuple[BreakoutState, Float[Array, ""], Bool[Array, ""]]:
        """Paddle, then ball: (next state, 1 for a brick, whether the ball is lost)."""
        del draws
        paddle = shifted(game.paddle, action, LEFT, RIGHT, 0, SIZE - 1)

        ahead = game.ball_x + game.dx
        x = jnp.clip(ahead, 0, SIZE - 1)
        dx = jnp.where(ahead == x, game.dx, -game.dx)

        y = game.ball_y + game.dy
        ceiling = y < 0
        target = cell(x, y)
        on_brick = jnp.any(game.bricks & target)
        broken = on_brick & ~game.strike
        on_floor = ~on_brick & (y == FLOOR)
        straight = on_floor & (game.ball_x == paddle)
        corner = on_floor & ~straight & (x == paddle)
        terminated = on_floor & ~straight & ~corner

        dy = jnp.where(ceiling | broken | straight | corner, -game.dy, game.dy)
        dx = jnp.where(corner, -dx, dx)
        y = jnp.where(ceiling, 0, jnp.where(broken | straight | corner, game.ball_y, y))

        cleared = on_floor & ~jnp.any(game.bricks)
        bricks = (game.bricks & ~(broken & target)) | (cleared & WALL)
        after = BreakoutState(paddle, x, y, dx, dy, game.ball_x, game.ball_y, bricks, on_brick)
        return after, broken.astype(jnp.float32), terminated

    def observe(self, game: BreakoutState) -> Bool[Array, "10 10 4"]:
        """The four planes, in the order of `channels`."""
        paddle = (ROWS == FLOOR) & (game.paddle == COLUMNS)
        ball = cell(game.ball_x, game.ball_y)
        trail = cell(game.last_x, game.last_y)
        return jnp.stack([paddle, ball, trail, game.bricks], axis=-1)

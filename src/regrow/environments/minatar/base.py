"""What the MinAtar games share: sticky actions, options and the 10x10 grid.

MinAtar (Young & Tian 2019, arXiv 1903.03176) plays simplified Atari games on a 10x10 grid with one
boolean plane per kind of object. The games here follow its reference implementation exactly, step
by step, with two differences. The actions are the game's minimal set, numbered in the reference's
order. A sticky first step always repeats the no-op (the reference repeats the last action of the
previous episode).

How to add a game: write one module with

1. a NamedTuple of int32 and bool arrays for the state of the game;
2. a NamedTuple of all random values of one step or of a start;
3. a frozen dataclass that subclasses `MinAtar` with these two as its type arguments, names its
   `actions` and `channels`, says how many uniform numbers one step consumes (`num_uniforms`) and
   defines `draw`, `start`, `transition` and `observe`.

Random values are drawn before the rules run, whether or not the rules use them. So the rules are a
deterministic function of the draws, and a test can pass the same draws to another implementation.
"""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from regrow.environments.base import DeviceEnvironment, Step
from regrow.errors import require
from regrow.types import Key

SIZE = 10
ROWS = np.arange(SIZE, dtype=np.int32)[:, None]
COLUMNS = np.arange(SIZE, dtype=np.int32)[None, :]

Game = TypeVar("Game")  # the state of one game
Draws = TypeVar("Draws")  # all random values of one step of it


class MinAtarState(NamedTuple):
    """The state of a game, and the action that a sticky step would repeat."""

    game: Any
    last_action: Int[Array, ""]


class Chance(NamedTuple):
    """All random values of one step."""

    sticky: Bool[Array, ""]  # whether the last action replaces the requested one
    draws: Any  # of the game


@dataclass(frozen=True)
class MinAtar(DeviceEnvironment, Generic[Game, Draws]):
    """A MinAtar game.

    Arguments:
        sticky_actions: the probability that a step repeats the previous action.
        difficulty_ramping: whether the game gets harder with time, in the games that can.
    """

    sticky_actions: float = 0.1
    difficulty_ramping: bool = True

    actions: ClassVar[tuple[str, ...]]
    channels: ClassVar[tuple[str, ...]]
    num_uniforms: ClassVar[int]

    def __post_init__(self) -> None:
        require(
            0.0 <= self.sticky_actions <= 1.0,
            f"sticky_actions is a probability, from 0 to 1; received {self.sticky_actions!r}",
        )
        require(
            isinstance(self.difficulty_ramping, bool),
            f"difficulty_ramping is True or False; received {self.difficulty_ramping!r}",
        )

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Rows, columns, channels."""
        return (SIZE, SIZE, len(self.channels))

    @property
    def observation_dtype(self) -> np.dtype[Any]:
        """Bool: whether a cell contains such an object."""
        return np.dtype(np.bool_)

    @property
    def num_actions(self) -> int:
        """The size of the game's minimal action set."""
        return len(self.actions)

    @abc.abstractmethod
    def draw(self, uniforms: Float[Array, " num_uniforms"]) -> Draws:
        """The random values of a step, from numbers uniform on [0, 1)."""

    @abc.abstractmethod
    def start(self, draws: Draws) -> Game:
        """The first state of an episode."""

    @abc.abstractmethod
    def transition(
        self, game: Game, action: Int[Array, ""], draws: Draws
    ) -> tuple[Game, Float[Array, ""], Bool[Array, ""]]:
        """The rules of the game: (next state, reward, terminated)."""

    @abc.abstractmethod
    def observe(self, game: Game) -> Bool[Array, "10 10 channels"]:
        """The observation of a state."""

    def chance(self, key: Key) -> Chance:
        """The random values of the step, or of the reset, with this key."""
        # One call for everything: a call of the generator costs more than most games' rules.
        uniforms = jax.random.uniform(key, (1 + self.num_uniforms,), jnp.float32)
        return Chance(uniforms[0] < self.sticky_actions, self.draw(uniforms[1:]))

    def reset(self, key: Key) -> tuple[MinAtarState, Bool[Array, "10 10 channels"]]:
        """Starts an episode: (state, first observation)."""
        game = self.start(self.chance(key).draws)
        return MinAtarState(game, jnp.zeros((), jnp.int32)), self.observe(game)

    def step(
        self, state: MinAtarState, action: Int[Array, ""], key: Key
    ) -> tuple[MinAtarState, Step]:
        """One env step, including sticky actions: (next state, result of the step)."""
        chance = self.chance(key)
        action = jnp.where(chance.sticky, state.last_action, action.astype(jnp.int32))
        game, reward, terminated = self.transition(state.game, action, chance.draws)
        # The reference has no time limit: even the end of Freeway is a rule of the game.
        truncated = jnp.zeros((), jnp.bool_)
        step = Step(self.observe(game), reward, terminated, truncated)
        return MinAtarState(game, action), step


def cell(x: Int[Array, ""], y: Int[Array, ""]) -> Bool[Array, "10 10"]:
    """The plane on which only the cell in column x and row y is set."""
    return (y == ROWS) & (x == COLUMNS)


def shifted(
    position: Int[Array, ""], action: Int[Array, ""], less: int, more: int, low: int, high: int
) -> Int[Array, ""]:
    """A coordinate after an action: `less` and `more` move it by one, between low and high."""
    change = (action == more).astype(jnp.int32) - (action == less).astype(jnp.int32)
    return jnp.clip(position + change, low, high)


def below(uniform: Float[Array, "*shape"], count: int | Int[Array, ""]) -> Int[Array, "*shape"]:
    """A number uniform on 0, ..., count - 1 from one uniform on [0, 1); count is at most 16."""
    # In float32 the largest uniform is 1 - 2^-23, so the product does not round up to so small a
    # count.
    return jnp.floor(uniform * jnp.asarray(count, jnp.float32)).astype(jnp.int32)


def countdown(timer: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
    """A timer one step later; it stays at 0."""
    return jnp.maximum(timer - 1, 0)


def entry(right: Bool[Array, ""]) -> Int[Array, ""]:
    """The column in which an object that moves this way appears."""
    return jnp.where(right, 0, SIZE - 1).astype(jnp.int32)


def ahead(x: Int[Array, "*n"], right: Bool[Array, "*n"]) -> Int[Array, "*n"]:
    """The next column in the direction of motion."""
    return x + jnp.where(right, 1, -1)


def behind(x: Int[Array, "*n"], right: Bool[Array, "*n"]) -> Int[Array, "*n"]:
    """The previous column, where the trail is shown."""
    return x - jnp.where(right, 1, -1)


def on_screen(x: Int[Array, "*n"]) -> Bool[Array, "*n"]:
    """Whether a column is on the grid; an object that leaves it is removed."""
    return (x >= 0) & (x < SIZE)


def planes(
    y: Int[Array, " n"], layers: list[tuple[Bool[Array, " n"] | None, Int[Array, " n"]]]
) -> Bool[Array, "layers 10 10"]:
    """One plane per layer (on, x) of the cells (x, y) that are on; all layers share y.

    If `on` is None, all are on. Each row of a plane is first a bit mask, the bits of its cells
    or-ed together: that is ten times less work than or-ing planes. Columns are -1 to 10; the first
    and the last are not shown.
    """
    bits = jnp.stack(
        [1 << (x + 1) if on is None else jnp.where(on, 1 << (x + 1), 0) for on, x in layers]
    )
    in_row = ROWS[None] == y[None, None]
    masks = jnp.bitwise_or.reduce(jnp.where(in_row, bits[:, None], 0), axis=2)
    return (masks[:, :, None] >> (COLUMNS + 1)[None]) & 1 != 0

"""What the shifting environments share: a clock of env steps that episodes do not reset.

A shifting environment wraps a game and changes one thing about it every `period` env steps. The
clock t counts the env steps of the whole training and lives in the environment's state, which
`restart` hands on from episode to episode. The phase is

    k = t // period,

so what is seen after t steps, and what is done next, belong to phase t // period. Of the
transitions in a replay one per period straddles a change: its first observation is of phase k − 1
and its last of phase k. Phase 0 is the game as it is. Of several side by side each has a clock of
its own and a period that is as much shorter, so that a period counts the env steps of all.

The game itself is played with the keys that it would be given on its own, so it can be compared
with itself bit for bit.
"""

import abc
import functools
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree, Shaped

from regrow.environments.base import DeviceEnvironment, Step
from regrow.errors import require
from regrow.prng import key_at
from regrow.registry import describe, make
from regrow.types import ActionSpace, Key

MAX_PERIOD = 2**31 - 1  # env steps are counted in int32


def require_period(period: int) -> None:
    """Raises `RegrowError` unless `period` can be counted to."""
    require(
        1 <= period <= MAX_PERIOD,
        f"period is a number of env steps, from 1 to {MAX_PERIOD}; received {period!r}",
    )


def own_period(period: int, count: int) -> int:
    """Env steps of each in a period, where `count` environments are stepped side by side."""
    whole = max(count, period // count * count)
    require(
        period % count == 0,
        f"period is {period}; with {count} environments side by side it must be a multiple of "
        f"{count}, such as {whole} or {whole + count}",
    )
    return period // count


class ReorderedState(NamedTuple):
    """A game in play, the training's clock, and the order that holds now."""

    game: PyTree[Any]
    env_steps: Int[Array, ""]  # its own since the first reset, over all episodes
    order: Int[Array, " count"]


@dataclass(frozen=True)
class Reordered(DeviceEnvironment):
    """A game of which something that can be numbered is put into another order now and then.

    The order of phase 0 is 0, 1, …; that of phase k is drawn from (`seed`, k) alone, uniformly, so
    all runs and all forks of a run meet the same orders. A draw that is the order which held before
    is moved on by one place: with few entries that is likely, and every change must be one.

    Arguments:
        game: the environment that is wrapped, as `regrow list environments` names it, with fields
            if need be; another shifting one is welcome, and keeps its own clock.
        period: env steps of training between two changes, of all environments side by side.
        seed: what the orders are drawn from; the run's own seed has no part in it.
    """

    shifts: ClassVar[bool] = True

    game: str = "minatar/breakout"
    period: int = 100_000
    seed: int = 0

    def __post_init__(self) -> None:
        require_period(self.period)
        require(
            0 <= self.seed < 2**32,
            f"seed is a whole number from 0 to {2**32 - 1}; received {self.seed!r}",
        )
        require(
            self.count >= 2,
            f"{self.game} has too few {self.noun} to reorder: {self.count}; it must have 2 or more",
        )

    @functools.cached_property
    def inner(self) -> DeviceEnvironment:
        """The game that is wrapped."""
        return make("environments", self.game)

    def with_num_envs(self, count: int) -> DeviceEnvironment:
        """One of `count`: it changes after its share of the period, and so does its game."""
        game = self.inner.with_num_envs(count)
        within = {} if game == self.inner else {"game": describe(game)}
        return replace(self, period=own_period(self.period, count), **within)

    @property
    @abc.abstractmethod
    def count(self) -> int:
        """How many entries an order has."""

    @property
    @abc.abstractmethod
    def noun(self) -> str:
        """What the entries are, for messages."""

    @abc.abstractmethod
    def meant(
        self, action: Shaped[Array, "*action"], order: Int[Array, " count"]
    ) -> Shaped[Array, "*action"]:
        """The game's action that an action stands for."""

    @abc.abstractmethod
    def shown(
        self, observation: Shaped[Array, "*obs"], order: Int[Array, " count"]
    ) -> Shaped[Array, "*obs"]:
        """What is seen of the game's observation."""

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """The game's."""
        return self.inner.observation_shape

    @property
    def observation_dtype(self) -> np.dtype[Any]:
        """The game's."""
        return self.inner.observation_dtype

    @property
    def num_actions(self) -> int:
        """The game's."""
        return self.inner.num_actions

    @property
    def action_space(self) -> ActionSpace:
        """The game's."""
        return self.inner.action_space

    def next_order(
        self, order: Int[Array, " count"], phase: Int[Array, ""]
    ) -> Int[Array, " count"]:
        """The order of a phase from 1 on, given that of the phase before."""
        # The generator is named: what a seed means must not hang on a setting of JAX.
        root = jax.random.key(self.seed, impl="threefry2x32")
        numbers = jnp.arange(self.count, dtype=jnp.int32)
        drawn = jax.random.permutation(key_at(root, "order", phase), numbers)
        return jnp.where(jnp.all(drawn == order), jnp.roll(drawn, 1), drawn)

    def reset(self, key: Key) -> tuple[ReorderedState, Shaped[Array, "*obs"]]:
        """Starts the first episode of a training: the clock at 0, the game as it is."""
        game, observation = self.inner.reset(key)
        order = jnp.arange(self.count, dtype=jnp.int32)
        return ReorderedState(game, jnp.zeros((), jnp.int32), order), observation

    def restart(
        self, state: ReorderedState, key: Key
    ) -> tuple[ReorderedState, Shaped[Array, "*obs"]]:
        """Starts the next episode; clock and order go on."""
        game, observation = self.inner.restart(state.game, key)
        return state._replace(game=game), self.shown(observation, state.order)

    def step(
        self, state: ReorderedState, action: Shaped[Array, "*action"], key: Key
    ) -> tuple[ReorderedState, Step]:
        """One env step of the game; the order changes after every `period` of them."""
        game, step = self.inner.step(state.game, self.meant(action, state.order), key)
        env_steps = state.env_steps + 1
        # A branch, not a select: a sort in every env step would cost more than most games.
        order = jax.lax.cond(
            env_steps % self.period == 0,
            lambda: self.next_order(state.order, env_steps // self.period),
            lambda: state.order,
        )
        after = ReorderedState(game, env_steps, order)
        return after, step._replace(observation=self.shown(step.observation, order))

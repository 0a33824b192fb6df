"""What the shifting environments share: a clock of env steps that episodes do not reset.

A shifting environment wraps a game and changes one thing about it every `period` env steps. The
clock t counts the env steps of the whole training run. It is part of the environment's state, which
`restart` passes from episode to episode. The phase is

    k = t // period,

so the observation after t steps, and the next action, belong to phase t // period. In a replay, one
transition per period spans a change: its first observation is of phase k − 1 and its last of phase
k. Phase 0 is the game as it is. Of several parallel environments, each has its own clock, and a
period divided by their number, so that a period counts the env steps of all.

The game is given the same keys as without the wrapper, so the two can be compared bit for bit.
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
    """Raises `RegrowError` unless `period` is from 1 to `MAX_PERIOD`."""
    require(
        1 <= period <= MAX_PERIOD,
        f"period is a number of env steps, from 1 to {MAX_PERIOD}; received {period!r}",
    )


def own_period(period: int, count: int) -> int:
    """The env steps of a period for each of `count` parallel environments."""
    whole = max(count, period // count * count)
    require(
        period % count == 0,
        f"period is {period}; with {count} environments side by side it must be a multiple of "
        f"{count}, such as {whole} or {whole + count}",
    )
    return period // count


class ReorderedState(NamedTuple):
    """The state of a game, the clock of the training run, and the current order."""

    game: PyTree[Any]
    env_steps: Int[Array, ""]  # of this environment since the first reset, over all episodes
    order: Int[Array, " count"]


@dataclass(frozen=True)
class Reordered(DeviceEnvironment):
    """A game in which something that can be numbered is reordered every `period` env steps.

    The order of phase 0 is 0, 1, …. That of phase k is drawn uniformly from (`seed`, k) alone, so
    all runs and all forks of a run have the same orders. If it equals the order before, it is
    rotated by one place: with few entries that is likely, and every phase must be a change.

    Arguments:
        game: the wrapped environment, as `regrow list environments` names it, with fields if
            needed. It may be a shifting environment too, and then has its own clock.
        period: env steps of training between two changes, summed over all parallel environments.
        seed: the seed of the orders; the seed of the run has no influence on them.
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
        """The wrapped game."""
        return make("environments", self.game)

    def with_num_envs(self, count: int) -> DeviceEnvironment:
        """One of `count` parallel copies: its period and that of its game are divided by it."""
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
        """The observation that agents see for one of the game."""

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
        """The order of a phase from 1 on, given that of the previous phase."""
        # The generator is fixed: the orders of a seed must not depend on a setting of JAX.
        root = jax.random.key(self.seed, impl="threefry2x32")
        numbers = jnp.arange(self.count, dtype=jnp.int32)
        drawn = jax.random.permutation(key_at(root, "order", phase), numbers)
        return jnp.where(jnp.all(drawn == order), jnp.roll(drawn, 1), drawn)

    def reset(self, key: Key) -> tuple[ReorderedState, Shaped[Array, "*obs"]]:
        """Starts the first episode of a training run: the clock at 0, the game as it is."""
        game, observation = self.inner.reset(key)
        order = jnp.arange(self.count, dtype=jnp.int32)
        return ReorderedState(game, jnp.zeros((), jnp.int32), order), observation

    def restart(
        self, state: ReorderedState, key: Key
    ) -> tuple[ReorderedState, Shaped[Array, "*obs"]]:
        """Starts the next episode; the clock and the order are kept."""
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

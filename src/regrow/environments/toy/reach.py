"""Reach: one-step episodes in which the action should match a goal given by the observation.

    r = −|a − a*(x)|²,    a*(x) = −x / 2

The value of an action is its reward; the best action is a*, with value 0. If a policy stays away
from it, the action does not reach the values, or the values do not reach the actor. Uniformly
random actions have a mean reward of −5/12 per dimension of the action.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from regrow.environments.base import DeviceEnvironment, Step
from regrow.errors import require
from regrow.types import ActionSpace, Continuous, Key


class ReachState(NamedTuple):
    """The observation."""

    shown: Float[Array, " size"]


@dataclass(frozen=True)
class Reach(DeviceEnvironment):
    """One-step episodes with minus the squared distance between action and goal as reward.

    `size`: the dimension of an observation, and of an action.
    """

    size: int = 2

    def __post_init__(self) -> None:
        require(self.size >= 1, f"size is {self.size}; it must be at least 1")

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """A vector, drawn uniformly from [−1, 1]."""
        return (self.size,)

    @property
    def observation_dtype(self) -> np.dtype[Any]:
        """Float32."""
        return np.dtype(np.float32)

    @property
    def action_space(self) -> ActionSpace:
        """A vector as long as the observation."""
        return Continuous(self.size)

    @staticmethod
    def best(observation: Float[Array, "*batch size"]) -> Float[Array, "*batch size"]:
        """a*, the action of reward 0."""
        return -observation / 2

    def reset(self, key: Key) -> tuple[ReachState, Float[Array, " size"]]:
        """A random vector and its observation."""
        shown = jax.random.uniform(key, (self.size,), minval=-1.0, maxval=1.0)
        return ReachState(shown), shown

    def step(
        self, state: ReachState, action: Float[Array, " size"], key: Key
    ) -> tuple[ReachState, Step]:
        """The episode ends with minus the squared distance to a*."""
        del key
        reward = -jnp.sum((action - self.best(state.shown)) ** 2)
        return state, Step(state.shown, reward, jnp.bool_(True), jnp.bool_(False))

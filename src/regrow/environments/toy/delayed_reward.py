"""Delayed reward: episodes of two steps, of which only the second is worth 1.

The value of the second state is 1 and that of the first is the discount (another value: the target
does not discount).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from regrow.environments.base import Environment, Step
from regrow.types import Key


class DelayedRewardState(NamedTuple):
    """Whether the first step is done."""

    halfway: Bool[Array, ""]


@dataclass(frozen=True)
class DelayedReward(Environment):
    """Two-step episodes of rewards 0 and 1, whatever the actions; the observation is -1, then 1."""

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """A vector of one number."""
        return (1,)

    @property
    def observation_dtype(self) -> np.dtype[Any]:
        """Float32."""
        return np.dtype(np.float32)

    @property
    def num_actions(self) -> int:
        """Two."""
        return 2

    def reset(self, key: Key) -> tuple[DelayedRewardState, Float[Array, " 1"]]:
        """The first of the two states."""
        del key
        return DelayedRewardState(jnp.bool_(False)), -jnp.ones(1)

    def step(
        self, state: DelayedRewardState, action: Int[Array, ""], key: Key
    ) -> tuple[DelayedRewardState, Step]:
        """The second state with reward 0, or the end with reward 1."""
        del action, key
        reward = state.halfway.astype(jnp.float32)
        after = DelayedRewardState(jnp.bool_(True))
        return after, Step(jnp.ones(1), reward, state.halfway, jnp.bool_(False))

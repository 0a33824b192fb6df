"""Delayed reward: episodes of two steps, with reward 1 for the second only.

The value of the second state is 1, and that of the first is the discount. Any other estimate means
that the target does not discount.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from regrow.environments.base import Step
from regrow.environments.toy.base import Toy
from regrow.types import Key


class DelayedRewardState(NamedTuple):
    """Whether the first step is done."""

    halfway: Bool[Array, ""]


@dataclass(frozen=True)
class DelayedReward(Toy):
    """Two-step episodes with rewards 0 and 1, whatever the actions; observations are -1, then 1."""

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

"""Action reward: one-step episodes with reward 1 for action 1 and 0 for action 0.

The values of the actions are 0 and 1, so action 1 is best. If the policy does not find it, actions
get no credit for their rewards.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from regrow.environments.base import Step
from regrow.environments.toy.base import Toy
from regrow.types import Key


class ActionRewardState(NamedTuple):
    """The state, which is empty."""


@dataclass(frozen=True)
class ActionReward(Toy):
    """One-step episodes whose reward is the number of the action, 0 or 1."""

    def reset(self, key: Key) -> tuple[ActionRewardState, Float[Array, " 1"]]:
        """Always the same observation."""
        del key
        return ActionRewardState(), jnp.ones(1)

    def step(
        self, state: ActionRewardState, action: Int[Array, ""], key: Key
    ) -> tuple[ActionRewardState, Step]:
        """The episode ends with the reward of the action."""
        del key
        reward = (action == 1).astype(jnp.float32)
        return state, Step(jnp.ones(1), reward, jnp.bool_(True), jnp.bool_(False))

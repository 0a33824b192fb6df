"""Constant reward: every episode is one step with reward 1.

The value is 1. Any other estimate means that the critic or its target is wrong.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from regrow.environments.base import Step
from regrow.environments.toy.base import Toy
from regrow.types import Key


class ConstantRewardState(NamedTuple):
    """The state, which is empty."""


@dataclass(frozen=True)
class ConstantReward(Toy):
    """One-step episodes with reward 1, whatever the action."""

    def reset(self, key: Key) -> tuple[ConstantRewardState, Float[Array, " 1"]]:
        """Always the same observation."""
        del key
        return ConstantRewardState(), jnp.ones(1)

    def step(
        self, state: ConstantRewardState, action: Int[Array, ""], key: Key
    ) -> tuple[ConstantRewardState, Step]:
        """The episode ends with reward 1."""
        del action, key
        return state, Step(jnp.ones(1), jnp.ones(()), jnp.bool_(True), jnp.bool_(False))

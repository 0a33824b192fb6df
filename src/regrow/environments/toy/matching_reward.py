"""Matching reward: one-step episodes with reward 1 if the action is the one shown.

The observation is -1 for action 0 and 1 for action 1. The value of an action is 1 if it is the one
shown, and 0 otherwise. If the return stays at 0.5, the observation does not reach the values, as
with a dead layer in between.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from regrow.environments.base import Step
from regrow.environments.toy.base import Toy
from regrow.types import Key


class MatchingRewardState(NamedTuple):
    """The sign that is observed."""

    sign: Float[Array, ""]


@dataclass(frozen=True)
class MatchingReward(Toy):
    """One-step episodes with reward 1 for the action shown, and 0 for the other."""

    def reset(self, key: Key) -> tuple[MatchingRewardState, Float[Array, " 1"]]:
        """A random sign and its observation."""
        sign = jax.random.rademacher(key, (), jnp.float32)
        return MatchingRewardState(sign), sign[None]

    def step(
        self, state: MatchingRewardState, action: Int[Array, ""], key: Key
    ) -> tuple[MatchingRewardState, Step]:
        """The episode ends with 1 for the right action."""
        del key
        reward = ((action == 1) == (state.sign > 0)).astype(jnp.float32)
        return state, Step(state.sign[None], reward, jnp.bool_(True), jnp.bool_(False))

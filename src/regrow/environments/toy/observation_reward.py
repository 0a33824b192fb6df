"""Observation reward: one-step episodes whose reward is the observation, 1 or -1 at random.

The value is the observation. A value that ignores it means that the observation does not reach the
critic.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from regrow.environments.base import Step
from regrow.environments.toy.base import Toy
from regrow.types import Key


class ObservationRewardState(NamedTuple):
    """The sign that is observed."""

    sign: Float[Array, ""]


@dataclass(frozen=True)
class ObservationReward(Toy):
    """One-step episodes with reward 1 or -1, as observed, whatever the action."""

    def reset(self, key: Key) -> tuple[ObservationRewardState, Float[Array, " 1"]]:
        """A random sign and its observation."""
        sign = jax.random.rademacher(key, (), jnp.float32)
        return ObservationRewardState(sign), sign[None]

    def step(
        self, state: ObservationRewardState, action: Int[Array, ""], key: Key
    ) -> tuple[ObservationRewardState, Step]:
        """The episode ends with the observed reward."""
        del action, key
        return state, Step(state.sign[None], state.sign, jnp.bool_(True), jnp.bool_(False))

"""Observation reward: one-step episodes whose reward is the observation, 1 or -1 at random.

The value is the observation (a value that ignores it: the observation does not reach the critic).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from regrow.environments.base import Environment, Step
from regrow.types import Key


class ObservationRewardState(NamedTuple):
    """The sign that was shown."""

    sign: Float[Array, ""]


@dataclass(frozen=True)
class ObservationReward(Environment):
    """One-step episodes of reward 1 or -1, as observed, whatever the action."""

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

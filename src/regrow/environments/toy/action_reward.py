"""Action reward: one-step episodes worth 1 for action 1 and 0 for action 0, so action 1 is best and
the values of the actions are 0 and 1 (a policy that does not find it: the action is not credited)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from regrow.environments.base import Environment, Step
from regrow.types import Key


class ActionRewardState(NamedTuple):
    """Nothing is remembered."""


@dataclass(frozen=True)
class ActionReward(Environment):
    """One-step episodes whose reward is the number of the action, 0 or 1."""

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (1,)

    @property
    def observation_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    @property
    def num_actions(self) -> int:
        return 2

    def reset(self, key: Key) -> tuple[ActionRewardState, Float[Array, " 1"]]:
        del key
        return ActionRewardState(), jnp.ones(1)

    def step(
        self, state: ActionRewardState, action: Int[Array, ""], key: Key
    ) -> tuple[ActionRewardState, Step]:
        del key
        reward = (action == 1).astype(jnp.float32)
        return state, Step(jnp.ones(1), reward, jnp.bool_(True), jnp.bool_(False))

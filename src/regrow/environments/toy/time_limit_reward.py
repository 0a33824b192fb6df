"""Time-limit reward: reward 1 at every step, without end, truncated by a time limit.

The value is 1 / (1 - discount) in every state. A smaller value means that truncation is treated as
termination.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from regrow.environments.base import Step
from regrow.environments.toy.base import Toy
from regrow.errors import require
from regrow.types import Key


class TimeLimitRewardState(NamedTuple):
    """The env steps of the episode so far; the observation does not show them."""

    env_steps: Int[Array, ""]


@dataclass(frozen=True)
class TimeLimitReward(Toy):
    """Reward 1 at every step, whatever the action; truncated after `time_limit` env steps."""

    time_limit: int = 2

    def __post_init__(self) -> None:
        require(
            self.time_limit >= 1,
            f"time_limit is a number of env steps, 1 or more; received {self.time_limit!r}",
        )

    def reset(self, key: Key) -> tuple[TimeLimitRewardState, Float[Array, " 1"]]:
        """A step count of 0 and the only observation."""
        del key
        return TimeLimitRewardState(jnp.int32(0)), jnp.ones(1)

    def step(
        self, state: TimeLimitRewardState, action: Int[Array, ""], key: Key
    ) -> tuple[TimeLimitRewardState, Step]:
        """Reward 1; truncated at the time limit."""
        del action, key
        env_steps = state.env_steps + 1
        truncated = env_steps >= self.time_limit
        step = Step(jnp.ones(1), jnp.ones(()), jnp.bool_(False), truncated)
        return TimeLimitRewardState(env_steps), step

"""Shapes that cross floors.

Time subscripts follow the convention of dqn_zoo: `obs_tm1`, `action` and then `reward`, `discount`,
`obs_t`. `discount` is 0 where the environment terminated and 1 elsewhere, so an episode cut by a
time limit (truncation) still bootstraps; the agent multiplies by its own discount factor.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped
from jaxtyping import Key as KeyArray

Key = PRNGKeyArray
Keys = KeyArray[Array, " count"]
Scalar = Float[Array, ""]


class Discrete(NamedTuple):
    """Actions numbered from 0."""

    number: int

    def __str__(self) -> str:
        return f"{self.number} discrete actions"


class Continuous(NamedTuple):
    """Actions that are vectors with every entry in [−1, 1]."""

    size: int

    def __str__(self) -> str:
        return f"continuous actions (vectors of {self.size})"


ActionSpace = Discrete | Continuous

Report = Callable[[str, int], None]
"""`report(phase, env_steps)`: so many more env steps are done. It may raise to stop the work."""


class Transition(NamedTuple):
    """One step of experience; with a leading axis on every field, a batch of them."""

    obs_tm1: Shaped[Array, "*batch_and_obs"]
    action: Shaped[Array, "*batch_and_action"]  # a number, or a vector where it is continuous
    reward: Float[Array, "*batch"]
    discount: Float[Array, "*batch"]
    obs_t: Shaped[Array, "*batch_and_obs"]


class Log(NamedTuple):
    """What one env step reports; from `advance`, NumPy arrays with an axis of env steps."""

    reward: Float[Array | np.ndarray, "*steps"]
    terminated: Bool[Array | np.ndarray, "*steps"]
    truncated: Bool[Array | np.ndarray, "*steps"]
    episode_return: Float[Array | np.ndarray, "*steps"]  # undiscounted, this step included
    value: Float[Array | np.ndarray, "*steps"]  # what the agent predicted before this step

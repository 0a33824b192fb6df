"""Shapes that cross floors.

Time subscripts follow the convention of dqn_zoo: `obs_tm1`, `action` and then `reward`, `discount`,
`obs_t`. `discount` is 0 where the environment terminated and 1 elsewhere, so an episode cut by a
time limit (truncation) still bootstraps; the agent multiplies by its own discount factor.
"""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

Key = PRNGKeyArray
Observation = Shaped[Array, "*obs"]
Scalar = Float[Array, ""]


class Transition(NamedTuple):
    """One step of experience; with a leading axis on every field, a batch of them."""

    obs_tm1: Shaped[Array, "*batch_and_obs"]
    action: Int[Array, "*batch"]
    reward: Float[Array, "*batch"]
    discount: Float[Array, "*batch"]
    obs_t: Shaped[Array, "*batch_and_obs"]


class Log(NamedTuple):
    """What one env step reports; `advance` returns it with a leading axis of env steps."""

    reward: Float[Array, "*steps"]
    terminated: Bool[Array, "*steps"]
    truncated: Bool[Array, "*steps"]
    episode_return: Float[Array, "*steps"]  # undiscounted, up to and including this step
    value: Float[Array, "*steps"]  # what the agent predicted before this step

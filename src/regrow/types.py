"""Shapes that cross floors.

Time subscripts follow the convention of dqn_zoo: `obs_tm1`, `action` and then `reward`, `discount`,
`obs_t`. `discount` is 0 where the environment terminated and 1 elsewhere, so an episode cut by a
time limit (truncation) still bootstraps; the agent multiplies by its own discount factor.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped
from jaxtyping import Key as KeyArray

Key = PRNGKeyArray
Keys = KeyArray[Array, " count"]
Scalar = Float[Array, ""]


class Discrete(NamedTuple):
    """Actions numbered from 0."""

    number: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an action: a number."""
        return ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """As actions are remembered."""
        return np.dtype(np.int32)

    def __str__(self) -> str:
        return f"{self.number} discrete actions"


class MultiDiscrete(NamedTuple):
    """Several choices at once: entry i of an action is a whole number from 0 to numbers[i] − 1.

    `(2,) * n` is what Gymnasium calls MultiBinary(n).
    """

    numbers: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an action: a number for every choice."""
        return (len(self.numbers),)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As actions are remembered."""
        return np.dtype(np.int32)

    def __str__(self) -> str:
        return f"several discrete actions at once {self.numbers}"


class Continuous(NamedTuple):
    """Actions that are vectors; an environment sees every entry clipped to [−1, 1]."""

    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an action: a vector."""
        return (self.size,)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As actions are remembered."""
        return np.dtype(np.float32)

    def __str__(self) -> str:
        return f"continuous actions (vectors of {self.size})"


ActionSpace = Discrete | MultiDiscrete | Continuous

Report = Callable[[str, int], None]
"""`report(phase, env_steps)`: so many more env steps are done. It may raise to stop the work."""


def silent(phase: str, env_steps: int) -> None:
    """A report to nobody."""
    del phase, env_steps


class Transition(NamedTuple):
    """One step of experience; with a leading axis on every field, a batch of them."""

    obs_tm1: Shaped[Array, "*batch_and_obs"]
    action: Shaped[Array, "*batch_and_action"]  # a number, or a vector of choices or of floats
    reward: Float[Array, "*batch"]
    discount: Float[Array, "*batch"]
    obs_t: Shaped[Array, "*batch_and_obs"]
    truncated: Bool[Array, "*batch"]  # a clock ended the episode here; what follows is another one


@runtime_checkable
class Experience(Protocol):
    """Where an agent, an intervention or a probe looks for data."""

    @property
    def capacity(self) -> int:
        """How many transitions there is room for."""
        ...

    def sample(self, key: Key, count: int) -> Transition:
        """`count` transitions, uniformly and with replacement."""
        ...

    def first(self, count: int) -> Transition:
        """The `count` oldest transitions, in order; where fewer are held, they repeat."""
        ...


@runtime_checkable
class Memory(Experience, Protocol):
    """Experience that grows, as in `regrow.experience`.

    `regrow.experience.normalization` has one that stands around another.
    """

    @property
    def size(self) -> Int[Array, ""]:
        """How many transitions are held."""
        ...

    def add(self, transition: Transition) -> "Memory":
        """With one more transition, or with one of every environment, in place of the oldest."""
        ...

    def cut_off(self, count: int) -> "Memory":
        """With the last `count` transitions marked as truncated: others do not follow on them."""
        ...


class Event(NamedTuple):
    """An intervention that was carried out, as the grammar of `regrow.registry` writes it."""

    env_steps: int
    intervention: str


class Log(NamedTuple):
    """What one env step reports; from `advance`, NumPy arrays with an axis of env steps.

    Environments side by side take turns: of N, the first has the entries 0, N, 2N, …
    """

    reward: Float[Array | np.ndarray, "*steps"]
    terminated: Bool[Array | np.ndarray, "*steps"]
    truncated: Bool[Array | np.ndarray, "*steps"]
    episode_return: Float[Array | np.ndarray, "*steps"]  # undiscounted, this step included
    value: Float[Array | np.ndarray, "*steps"]  # what the agent predicted before this step

    def by_environment(self, num_envs: int) -> "list[Log]":
        """The log of each environment by itself."""
        return [Log(*(entries[n::num_envs] for entries in self)) for n in range(num_envs)]

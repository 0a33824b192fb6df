"""Types that several packages share.

Time subscripts follow dqn_zoo: `obs_tm1`, `action` and then `reward`, `discount`, `obs_t`.
`discount` is 0 where the environment terminated and 1 elsewhere, so an episode cut by a time limit
(truncation) still bootstraps. The agent multiplies by its own discount factor.
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
        """The shape of an action: a scalar."""
        return ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype in which actions are stored."""
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
        """The shape of an action: one number per choice."""
        return (len(self.numbers),)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype in which actions are stored."""
        return np.dtype(np.int32)

    def __str__(self) -> str:
        return f"several discrete actions at once {self.numbers}"


class Continuous(NamedTuple):
    """Actions that are vectors; an environment sees every entry clipped to [−1, 1]."""

    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an action: a vector."""
        return (self.size,)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype in which actions are stored."""
        return np.dtype(np.float32)

    def __str__(self) -> str:
        return f"continuous actions (vectors of {self.size})"


ActionSpace = Discrete | MultiDiscrete | Continuous

Report = Callable[[str, int], None]
"""`report(phase, env_steps)`: that many more env steps are done. It may raise to stop the work."""


def silent(phase: str, env_steps: int) -> None:
    """A report that does nothing."""
    del phase, env_steps


class Transition(NamedTuple):
    """One step of experience; with a leading axis on every field, a batch of steps."""

    obs_tm1: Shaped[Array, "*batch_and_obs"]
    action: Shaped[Array, "*batch_and_action"]  # a number, or a vector of choices or of floats
    reward: Float[Array, "*batch"]
    discount: Float[Array, "*batch"]
    obs_t: Shaped[Array, "*batch_and_obs"]
    truncated: Bool[Array, "*batch"]  # a time limit ended the episode here; another one follows


@runtime_checkable
class Experience(Protocol):
    """Where an agent, an intervention or a probe gets its data."""

    @property
    def capacity(self) -> int:
        """The maximum number of transitions."""
        ...

    def sample(self, key: Key, count: int) -> Transition:
        """`count` transitions, uniformly and with replacement."""
        ...

    def first(self, count: int) -> Transition:
        """The `count` oldest transitions, in order; if fewer are stored, they repeat."""
        ...


@runtime_checkable
class Memory(Experience, Protocol):
    """Experience that grows, as in `regrow.experience`.

    `regrow.experience.normalization` has one that wraps another.
    """

    @property
    def size(self) -> Int[Array, ""]:
        """The number of stored transitions."""
        ...

    def add(self, transition: Transition) -> "Memory":
        """Adds one transition, or one of every environment; when full, it replaces the oldest."""
        ...

    def cut_off(self, count: int) -> "Memory":
        """Marks the last `count` transitions as truncated: the next ones do not continue them."""
        ...


class Event(NamedTuple):
    """An intervention that was carried out, in the grammar of `regrow.registry`."""

    env_steps: int
    intervention: str


class Log(NamedTuple):
    """What one env step reports; from `advance`, NumPy arrays with an axis of env steps.

    Parallel environments take turns: of N, the first has the entries 0, N, 2N, …
    """

    reward: Float[Array | np.ndarray, "*steps"]
    terminated: Bool[Array | np.ndarray, "*steps"]
    truncated: Bool[Array | np.ndarray, "*steps"]
    episode_return: Float[Array | np.ndarray, "*steps"]  # undiscounted, this step included
    value: Float[Array | np.ndarray, "*steps"]  # what the agent predicted before this step

    def by_environment(self, num_envs: int) -> "list[Log]":
        """The log of each environment."""
        return [Log(*(entries[n::num_envs] for entries in self)) for n in range(num_envs)]

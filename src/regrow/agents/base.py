"""The contract of an agent: pure functions of a state, with hyperparameters as fields.

An agent is a frozen dataclass. Its state is a pytree that holds Learners; interventions and probes
find them there (`regrow.learner.learners`) and never ask which agent they belong to.
"""

import abc
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int, PyTree, Shaped

from regrow.errors import require
from regrow.types import ActionSpace, Key, Transition

State = PyTree[Any]


@dataclass(frozen=True)
class Agent(abc.ABC):
    """Fields that the loop needs of every agent.

    `discount`: per env step. `batch_size`: transitions per update. `replay_capacity` and
    `learn_start`: transitions, and env steps before the first update. `replay_ratio`: updates per
    env step; below 1 it is one update every 1 / replay_ratio env steps.
    """

    discount: float = 0.99
    batch_size: int = 32
    replay_capacity: int = 100_000
    learn_start: int = 1_000
    replay_ratio: float = 0.25

    def __post_init__(self) -> None:
        require(0 <= self.discount < 1, f"discount is {self.discount}; it must be in [0, 1)")
        require(self.batch_size >= 1, f"batch_size is {self.batch_size}; it must be at least 1")
        require(
            self.replay_capacity >= 1,
            f"replay_capacity is {self.replay_capacity}; it must be at least 1",
        )
        require(self.learn_start >= 1, f"learn_start is {self.learn_start}; it must be at least 1")
        ratio = self.replay_ratio
        times = max(ratio, 1 / ratio) if 1e-9 <= ratio <= 1e9 else 0.5
        whole = abs(times - round(times)) < 1e-9
        require(
            whole, f"replay_ratio is {ratio}; it must be a whole number or one over a whole number"
        )

    @property
    def env_steps_per_round(self) -> int:
        """A round is the unit of the training loop: so many env steps, then the updates."""
        return max(1, round(1 / self.replay_ratio))

    @property
    def updates_per_round(self) -> int:
        """Updates at the end of a round."""
        return max(1, round(self.replay_ratio))

    @abc.abstractmethod
    def init(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], actions: ActionSpace, key: Key
    ) -> State:
        """The state before training, for observations of `shape` and `dtype`.

        Raises `RegrowError` for observations or actions that the agent does not handle.
        """

    @abc.abstractmethod
    def act(
        self, state: State, obs: Shaped[Array, "*obs"], env_steps: Int[Array, ""], key: Key
    ) -> tuple[Shaped[Array, "*action"], Float[Array, ""]]:
        """(action, the value predicted for taking it), exploring as at `env_steps` of training."""

    @abc.abstractmethod
    def inputs(self, batch: Transition) -> dict[str, Array]:
        """What the network of each Learner sees of a batch, by the Learner's name."""

    @abc.abstractmethod
    def gradients(self, state: State, batch: Transition, key: Key) -> dict[str, PyTree]:
        """The gradient of each Learner on a batch, by the Learner's name."""

    @abc.abstractmethod
    def update(self, state: State, batch: Transition, key: Key) -> State:
        """One update of every Learner on a batch."""

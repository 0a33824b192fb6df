"""The contract of an agent: pure functions of a state, with hyperparameters as fields.

An agent is a frozen dataclass. Its state is a pytree that contains Learners. Interventions and
probes find the Learners with `regrow.learners.learner.learners`, whichever agent they belong to.

The training loop works in rounds: a number of env steps, then a number of updates. Each update uses
a batch that the agent takes from its stored experience. `OffPolicy` agents sample from a replay
buffer. `regrow.agents.ppo` stores one round and uses all of it.
"""

import abc
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Array, Float, Int, PyTree, Shaped

from regrow.errors import require
from regrow.types import ActionSpace, Experience, Key, Scalar, Transition

State = PyTree[Any]


class Agent(abc.ABC):
    """The interface that the training loop, interventions and probes use."""

    discount: float
    """Discount factor per env step."""

    batch_size: int
    """Transitions per update."""

    num_envs: int
    """Number of parallel environments. Env steps are counted over all of them."""

    normalize_observations: bool = False
    """Whether observations are normalised by their running mean and variance."""

    normalize_rewards: bool = False
    """Whether rewards are divided by the running standard deviation of discounted returns."""

    waits_for_updates: ClassVar[bool] = False
    """Whether acting must wait for the updated parameters, as on policy.

    If False, a simulation on the host may keep stepping while the device learns.
    """

    @property
    def rows_per_update(self) -> int:
        """Transitions per update: `batch_size`, plus any used only for a churn penalty."""
        return self.batch_size

    @property
    @abc.abstractmethod
    def capacity(self) -> int:
        """Maximum number of stored transitions."""

    @property
    @abc.abstractmethod
    def env_steps_per_round(self) -> int:
        """Env steps per round, the unit of the training loop: env steps, then updates."""

    @property
    @abc.abstractmethod
    def updates_per_round(self) -> int:
        """Updates at the end of a round."""

    @property
    @abc.abstractmethod
    def first_learning_round(self) -> int:
        """The env step at which the first round with updates begins."""

    @abc.abstractmethod
    def batch(self, experience: Experience, key: Key) -> Transition:
        """The batch for one update, taken from the stored experience."""

    @abc.abstractmethod
    def init(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], actions: ActionSpace, key: Key
    ) -> State:
        """The initial state, for observations of `shape` and `dtype`.

        Raises `RegrowError` for observations or actions that the agent does not support.
        """

    @abc.abstractmethod
    def act(
        self, state: State, obs: Shaped[Array, "*obs"], env_steps: Int[Array, ""], key: Key
    ) -> tuple[Shaped[Array, "*action"], Float[Array, ""]]:
        """(action, its predicted value), with the exploration scheduled at `env_steps`."""

    @abc.abstractmethod
    def exploit(
        self, state: State, obs: Shaped[Array, "*obs"], key: Key
    ) -> Shaped[Array, "*action"]:
        """The action for evaluation, without exploration."""

    @abc.abstractmethod
    def inputs(self, state: State, batch: Transition) -> dict[str, Array]:
        """The input of each Learner's network for a batch, by Learner name."""

    @abc.abstractmethod
    def gradients(self, state: State, batch: Transition, key: Key) -> dict[str, PyTree]:
        """The gradient for each Learner on a batch, by Learner name."""

    @abc.abstractmethod
    def losses(self, state: State, batch: Transition, key: Key) -> dict[str, Scalar]:
        """Every training loss on a batch, by the name of a Learner that it trains.

        Their gradients are those of `gradients` with the same key.
        """

    @abc.abstractmethod
    def update(self, state: State, batch: Transition, key: Key) -> State:
        """One update of every Learner on a batch."""


@dataclass(frozen=True)
class OffPolicy(Agent):
    """Fields of an agent that learns from a replay buffer.

    `discount`: per env step. `batch_size`: transitions per update. `replay_capacity`: transitions.
    `learn_start`: env steps before the first update. `replay_ratio`: updates per env step; below 1,
    one update every 1 / replay_ratio env steps. `num_envs`: parallel environments; env steps are
    counted over all of them. `normalize_observations` and `normalize_rewards`: by running
    statistics, see `regrow.experience.normalization`.
    """

    discount: float = 0.99
    batch_size: int = 32
    replay_capacity: int = 100_000
    learn_start: int = 1_000
    replay_ratio: float = 0.25
    num_envs: int = 1
    normalize_observations: bool = False
    normalize_rewards: bool = False

    def __post_init__(self) -> None:
        require(0 <= self.discount < 1, f"discount is {self.discount}; it must be in [0, 1)")
        for name in ("batch_size", "replay_capacity", "learn_start", "num_envs"):
            value = getattr(self, name)
            require(value >= 1, f"{name} is {value}; it must be at least 1")
        require(
            self.replay_capacity >= self.num_envs,
            f"replay_capacity is {self.replay_capacity}; it must be at least num_envs, "
            f"{self.num_envs}",
        )
        ratio = self.replay_ratio
        times = max(ratio, 1 / ratio) if 1e-9 <= ratio <= 1e9 else 0.5
        whole = abs(times - round(times)) < 1e-9
        require(
            whole, f"replay_ratio is {ratio}; it must be a whole number or one over a whole number"
        )

    @property
    def capacity(self) -> int:
        """Capacity of the replay buffer, in transitions."""
        return self.replay_capacity

    @property
    def env_steps_per_round(self) -> int:
        """The fewest env steps that step every environment and give whole updates."""
        return math.lcm(max(1, round(1 / self.replay_ratio)), self.num_envs)

    @property
    def updates_per_round(self) -> int:
        """Updates at the end of a round."""
        return round(self.env_steps_per_round * self.replay_ratio)

    @property
    def first_learning_round(self) -> int:
        """The env step at which the first round with updates begins."""
        return -(-self.learn_start // self.env_steps_per_round) * self.env_steps_per_round

    def batch(self, experience: Experience, key: Key) -> Transition:
        """Transitions sampled uniformly from the replay buffer, with replacement."""
        return experience.sample(key, self.rows_per_update)

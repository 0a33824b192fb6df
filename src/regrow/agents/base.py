"""The contract of an agent: pure functions of a state, with hyperparameters as fields.

An agent is a frozen dataclass. Its state is a pytree that holds Learners; interventions and probes
find them there (`regrow.learners.learner.learners`) and never ask which agent they belong to.

What the loop needs to know of an agent is its round: so many env steps, then so many updates, each
on a batch that the agent takes from what it remembers. `OffPolicy` agents remember long and sample;
`regrow.agents.ppo` remembers one round and takes all of it.
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
    """What the loop, interventions and probes need of every agent."""

    discount: float
    """Per env step."""

    batch_size: int
    """Transitions per update."""

    num_envs: int
    """How many copies of the environment are stepped side by side; env steps count all of them."""

    normalize_observations: bool = False
    """Whether observations are normalised by their running mean and variance."""

    normalize_rewards: bool = False
    """Whether rewards are divided by the running deviation of discounted returns."""

    waits_for_updates: ClassVar[bool] = False
    """Whether what follows an update must be done with what it learnt, as on policy.

    Elsewhere a simulation on the host may step on while the device learns.
    """

    @property
    def rows_per_update(self) -> int:
        """Transitions that an update takes: `batch_size`, and those that it only looks at."""
        return self.batch_size

    @property
    @abc.abstractmethod
    def capacity(self) -> int:
        """How many transitions are remembered."""

    @property
    @abc.abstractmethod
    def env_steps_per_round(self) -> int:
        """A round is the unit of the training loop: so many env steps, then the updates."""

    @property
    @abc.abstractmethod
    def updates_per_round(self) -> int:
        """Updates at the end of a round."""

    @property
    @abc.abstractmethod
    def first_learning_round(self) -> int:
        """The env step at which the first round begins that ends in updates."""

    @abc.abstractmethod
    def batch(self, experience: Experience, key: Key) -> Transition:
        """What an update learns from, of what is remembered."""

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
    def exploit(
        self, state: State, obs: Shaped[Array, "*obs"], key: Key
    ) -> Shaped[Array, "*action"]:
        """The action of an agent that is evaluated and does not explore."""

    @abc.abstractmethod
    def inputs(self, state: State, batch: Transition) -> dict[str, Array]:
        """What the network of each Learner sees of a batch, by the Learner's name."""

    @abc.abstractmethod
    def gradients(self, state: State, batch: Transition, key: Key) -> dict[str, PyTree]:
        """The gradient of each Learner on a batch, by the Learner's name."""

    @abc.abstractmethod
    def losses(self, state: State, batch: Transition, key: Key) -> dict[str, Scalar]:
        """Every loss that is descended, on a batch, by the name of a Learner that it trains.

        The gradient of each is that of `gradients` with the same key.
        """

    @abc.abstractmethod
    def update(self, state: State, batch: Transition, key: Key) -> State:
        """One update of every Learner on a batch."""


@dataclass(frozen=True)
class OffPolicy(Agent):
    """Fields of an agent that learns from samples of a replay.

    `discount`: per env step. `batch_size`: transitions per update. `replay_capacity` and
    `learn_start`: transitions, and env steps before the first update. `replay_ratio`: updates per
    env step; below 1 it is one update every 1 / replay_ratio env steps. `num_envs`: environments
    side by side; env steps count all of them. `normalize_observations` and `normalize_rewards`: by
    running statistics, see `regrow.experience.normalization`.
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
        """How many transitions are remembered."""
        return self.replay_capacity

    @property
    def env_steps_per_round(self) -> int:
        """The fewest env steps that are a step of every environment and give whole updates."""
        return math.lcm(max(1, round(1 / self.replay_ratio)), self.num_envs)

    @property
    def updates_per_round(self) -> int:
        """Updates at the end of a round."""
        return round(self.env_steps_per_round * self.replay_ratio)

    @property
    def first_learning_round(self) -> int:
        """The env step at which the first round begins that ends in updates."""
        return -(-self.learn_start // self.env_steps_per_round) * self.env_steps_per_round

    def batch(self, experience: Experience, key: Key) -> Transition:
        """Transitions from the replay, uniformly and with replacement."""
        return experience.sample(key, self.rows_per_update)

"""The contract of an intervention: a discrete event that changes an agent's Learners.

An intervention is a frozen dataclass, called with the agent's state; it maps over the Learners it
finds there and never names an agent. It declares what it keeps, and one test measures whether it
does.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import PyTree

from regrow.learner import Learner, map_learners
from regrow.types import Key, Transition

State = PyTree[Any]


@runtime_checkable
class Experience(Protocol):
    """Where an intervention may look for data; a Replay is one."""

    def sample(self, key: Key, count: int) -> Transition:
        """`count` transitions, uniformly and with replacement."""
        ...

    def first(self, count: int) -> Transition:
        """The `count` oldest transitions."""
        ...


@runtime_checkable
class Updates(Protocol):
    """What an intervention may ask of an agent: to learn from a batch."""

    @property
    def batch_size(self) -> int:
        """Transitions per update."""
        ...

    def update(self, state: State, batch: Transition, key: Key) -> State:
        """One update of every Learner on a batch."""
        ...


class Intervention(abc.ABC):
    """Something done to an agent at one moment of its training."""

    needs_experience: ClassVar[bool] = False

    @property
    def keeps_output(self) -> bool:
        """Whether what every network predicts stays as it was, bit for bit.

        After injections at several splits, another one may regroup the sum: then to rounding.
        """
        return False

    @property
    def keeps_optimizer_tree(self) -> bool:
        """Whether the optimizer state keeps its structure (an old head set free adds to it)."""
        return True

    @abc.abstractmethod
    def __call__(self, state: State, *, agent: Updates, experience: Experience, key: Key) -> State:
        """The agent's state afterwards."""


class LearnerIntervention(Intervention):
    """An intervention that treats every Learner alike and needs nothing else."""

    @abc.abstractmethod
    def change(self, learner: Learner, key: Key) -> Learner:
        """One Learner afterwards."""

    def __call__(self, state: State, *, agent: Updates, experience: Experience, key: Key) -> State:
        """The agent's state with every Learner changed, each with its own key."""
        del agent, experience
        change: Callable[[Learner, Key], Learner] = self.change
        return map_learners(change, state, key)

"""The contract of an intervention: a discrete event that changes an agent's Learners.

An intervention is a frozen dataclass, called with the agent's state; it maps over the Learners it
finds there and never names an agent. It declares what it keeps, and one test measures whether it
does.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Array, PyTree

from regrow.learner import Knob, Learner, map_knobs, map_named
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
    """What an intervention may ask of an agent: what it makes of a batch, and to learn from it."""

    @property
    def batch_size(self) -> int:
        """Transitions per update."""
        ...

    def update(self, state: State, batch: Transition, key: Key) -> State:
        """One update of every Learner on a batch."""
        ...

    def inputs(self, batch: Transition) -> dict[str, Array]:
        """What the network of each Learner sees of a batch, by the Learner's name."""
        ...

    def gradients(self, state: State, batch: Transition, key: Key) -> dict[str, PyTree]:
        """The gradient of each Learner on a batch, by the Learner's name."""
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


@dataclass(frozen=True)
class LearnerIntervention(Intervention):
    """An intervention that treats every Learner alike.

    `only`: the Learners to treat, by name, e.g. "critic" or "actor critic"; empty means all, and
    the learned numbers beside them.
    """

    only: str = field(default="", kw_only=True)

    def change(self, learner: Learner, key: Key) -> Learner:
        """One Learner afterwards; for those that need nothing but the Learner."""
        raise NotImplementedError(f"{type(self).__name__} treats Learners in its own __call__")

    def turn(self, knob: Knob) -> Knob:
        """A learned number afterwards: as it was, unless an intervention says otherwise."""
        return knob

    def mapped(
        self, change: Callable[[str, Learner, Key], Learner], state: State, key: Key
    ) -> State:
        """The agent's state with `change(name, learner, key)` for the chosen Learners."""
        return map_named(change, state, key, only=self.only.split())

    def __call__(self, state: State, *, agent: Updates, experience: Experience, key: Key) -> State:
        """The agent's state with the chosen Learners changed, each with its own key."""
        del agent, experience
        state = self.mapped(lambda _, learner, key: self.change(learner, key), state, key)
        return state if self.only else map_knobs(self.turn, state)

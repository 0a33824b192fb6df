"""The contract of an intervention: a discrete event that changes an agent's Learners.

An intervention is a frozen dataclass, called with the agent's state; it maps over the Learners it
finds there and never names an agent. It declares what it keeps, and one test measures whether it
does.

Most are done at one moment. A `Hook` one installs itself then, and acts after every update.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, PyTree, Shaped

from regrow.errors import require
from regrow.learners.learner import LearnedScalar, Learner, learners, map_knobs, map_named
from regrow.learners.recycling import quiet, recycled, recycled_where_any, require_recyclable
from regrow.networks.network import Network
from regrow.registry import name_of
from regrow.types import Experience, Key, Transition

State = PyTree[Any]
Scores = Sequence[Float[Array, " _"]]


@runtime_checkable
class Updates(Protocol):
    """What an intervention may ask of an agent: what it makes of a batch, and to learn from it."""

    @property
    def rows_per_update(self) -> int:
        """Transitions that an update takes."""
        ...

    def update(self, state: State, batch: Transition, key: Key) -> State:
        """One update of every Learner on a batch; their hooks do not act, those are the Run's."""
        ...

    def inputs(self, state: State, batch: Transition) -> dict[str, Array]:
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

    @property
    def is_random(self) -> bool:
        """Whether the result depends on the key."""
        return True

    @abc.abstractmethod
    def __call__(self, state: State, *, agent: Updates, experience: Experience, key: Key) -> State:
        """The agent's state afterwards."""


@dataclass(frozen=True)
class SelectiveIntervention(Intervention):
    """An intervention that treats the Learners that it is told to, each by itself.

    `only`: the Learners to treat, by name, e.g. "critic" or "actor critic"; empty means all, and
    the learned numbers beside them.
    """

    only: str = field(default="", kw_only=True)

    @property
    def needs_hidden_units(self) -> bool:
        """Whether it can do nothing to a network without hidden units, which then stays as it is.

        It is an error where no other network is to be treated, or where that one was named.
        """
        return False

    def mapped(
        self, change: Callable[[str, Learner, Key], Learner], state: State, key: Key
    ) -> State:
        """The agent's state with `change(name, learner, key)` for the chosen Learners.

        Raises `RegrowError` for an unknown name, or for want of hidden units.
        """
        named = self.only.split()
        left_out = self._without_hidden_units(named or list(learners(state)), state)
        return map_named(
            lambda name, learner, key: learner if name in left_out else change(name, learner, key),
            state,
            key,
            only=named,
        )

    def _without_hidden_units(self, names: Sequence[str], state: State) -> list[str]:
        """Of the Learners to treat those that have none, if it needs them."""
        if not self.needs_hidden_units:
            return []
        flat = [
            name
            for name, learner in learners(state).items()
            if name in names and len(learner.network.layers) == 1
        ]
        require(
            not flat or (not self.only and len(flat) < len(names)),
            f"{name_of(self)}: the network of '{''.join(flat[:1])}' has no hidden units",
        )
        return flat


@dataclass(frozen=True)
class LearnerIntervention(SelectiveIntervention):
    """An intervention that needs nothing but the Learner, and treats every one alike."""

    @abc.abstractmethod
    def change(self, learner: Learner, key: Key) -> Learner:
        """One Learner afterwards."""

    def turn(self, scalar: LearnedScalar) -> LearnedScalar:
        """A learned number afterwards: as it was, unless an intervention says otherwise."""
        return scalar

    def __call__(self, state: State, *, agent: Updates, experience: Experience, key: Key) -> State:
        """The agent's state with the chosen Learners changed, each with its own key."""
        del agent, experience
        state = self.mapped(lambda _, learner, key: self.change(learner, key), state, key)
        return state if self.only else map_knobs(self.turn, state)


@dataclass(frozen=True)
class Recycling(SelectiveIntervention):
    """An intervention that draws quiet hidden units anew and silences what they send.

    A member says by which score units are quiet, and calls `renewed` with it. `tau`: the share of
    the layer's mean score up to which a unit is quiet. `transitions`: how many, from the replay,
    the score is measured on.
    """

    tau: float = 0.0
    transitions: int = 256

    needs_experience: ClassVar[bool] = True

    def __post_init__(self) -> None:
        name = name_of(self)
        require(self.tau >= 0, f"{name}: tau is {self.tau}; it must be 0 or more")
        require(
            self.transitions >= 1,
            f"{name}: transitions is {self.transitions}; it must be at least 1",
        )

    @property
    def keeps_optimizer_tree(self) -> bool:
        """False: the elements that are new have ages of their own."""
        return False

    @property
    def needs_hidden_units(self) -> bool:
        """True."""
        return True

    def renewed(self, state: State, scores: Mapping[str, Scores], key: Key) -> State:
        """The agent's state with its quiet units drawn anew.

        `scores`: by Learner, for every hidden layer one number per unit. Raises `RegrowError` as
        `mapped` does.
        """

        def change(name: str, learner: Learner, key: Key) -> Learner:
            masks = [quiet(score, self.tau) for score in scores[name]]
            return recycled(learner, masks, key).with_fresh_hooks()

        return self.mapped(change, state, key)


@dataclass(frozen=True)
class Hook(SelectiveIntervention):
    """An intervention that goes on acting: carried out, it is a hook of the Learners it treats.

    From then on it acts after every update that a Run makes (not after those that another
    intervention or a probe makes), on the batch of that update and with draws of its own. A second
    one of the same kind takes the place of the first. Its memory is part of the Learner; it begins
    anew when another intervention replaces layers or single units. A member writes `init` and
    `after_update`.
    """

    renews_units: ClassVar[bool] = False
    """Whether it draws single units anew: the optimizer then counts ages by element."""

    @property
    def keeps_output(self) -> bool:
        """True: it acts after the next update."""
        return True

    @property
    def keeps_optimizer_tree(self) -> bool:
        """Whether it leaves units as old as they are."""
        return not self.renews_units

    @property
    def is_random(self) -> bool:
        """Installing a hook draws nothing."""
        return False

    @property
    def needs_hidden_units(self) -> bool:
        """Whether it renews units."""
        return self.renews_units

    @abc.abstractmethod
    def init(self, learner: Learner) -> PyTree:
        """What it remembers at first: a tree of arrays."""

    @abc.abstractmethod
    def after_update(
        self, learner: Learner, memory: PyTree, inputs: Shaped[Array, "batch *obs"], key: Key
    ) -> tuple[Learner, PyTree]:
        """(the Learner, the memory) after an update on `inputs`; trees and shapes as they were."""

    def __call__(self, state: State, *, agent: Updates, experience: Experience, key: Key) -> State:
        """The agent's state with the hook installed.

        Raises `RegrowError` where it renews units and there are none that could be.
        """
        del agent, experience

        def change(name: str, learner: Learner, key: Key) -> Learner:
            del name, key
            if self.renews_units:
                require_recyclable(learner.network)
            return learner.with_hook(self)

        return self.mapped(change, state, key)


@dataclass(frozen=True)
class UnitRecyclingHook(Hook):
    """A hook that draws single hidden units anew: layer by layer it keeps a record and judges.

    A member writes `init_record`, `scores` and `select`.
    """

    renews_units: ClassVar[bool] = True

    @abc.abstractmethod
    def init_record(self, units: int) -> PyTree:
        """The record of a hidden layer with so many units, at first: a tree of arrays."""

    @abc.abstractmethod
    def scores(self, network: Network, inputs: Shaped[Array, "batch *obs"]) -> Sequence[Array]:
        """What each hidden layer is judged by: an array whose last axis is its units."""

    @abc.abstractmethod
    def select(
        self, record: PyTree, scores: Float[Array, "... units"]
    ) -> tuple[PyTree, Bool[Array, " units"]]:
        """(the record of a layer after an update, which of its units go)."""

    def init(self, learner: Learner) -> tuple[PyTree, ...]:
        """A record for every hidden layer."""
        return tuple(self.init_record(layer.units) for layer in learner.network.layers[:-1])

    def after_update(
        self,
        learner: Learner,
        memory: Sequence[PyTree],
        inputs: Shaped[Array, "batch *obs"],
        key: Key,
    ) -> tuple[Learner, tuple[PyTree, ...]]:
        """(the Learner with the units drawn anew that go, the memory)."""
        scores = self.scores(learner.network, inputs)
        selected = [self.select(*each) for each in zip(memory, scores, strict=True)]
        masks = [mask for _, mask in selected]
        return recycled_where_any(learner, masks, key), tuple(record for record, _ in selected)

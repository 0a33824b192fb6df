"""The contract of an intervention: a discrete event that changes an agent's Learners.

An intervention is a frozen dataclass that is called with the agent's state. It maps over the
Learners it finds there and does not depend on the agent. It declares what it preserves, and one
test checks these declarations.

Most interventions act once. A `Hook` is installed once and then acts after every update.
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
    """What an intervention may use of an agent: network inputs, gradients and updates."""

    @property
    def rows_per_update(self) -> int:
        """Transitions per update."""
        ...

    def update(self, state: State, batch: Transition, key: Key) -> State:
        """One update of every Learner on a batch. Hooks do not act: only a Run calls them."""
        ...

    def inputs(self, state: State, batch: Transition) -> dict[str, Array]:
        """The input of each Learner's network for a batch, by Learner name."""
        ...

    def gradients(self, state: State, batch: Transition, key: Key) -> dict[str, PyTree]:
        """The gradient for each Learner on a batch, by Learner name."""
        ...


class Intervention(abc.ABC):
    """A change of an agent's state at one point in training."""

    needs_experience: ClassVar[bool] = False

    @property
    def keeps_output(self) -> bool:
        """Whether every network's output is unchanged, bit for bit.

        After injections at several splits, another injection may change the order of the sum. The
        output is then unchanged up to rounding.
        """
        return False

    @property
    def keeps_optimizer_tree(self) -> bool:
        """Whether the optimizer state keeps its tree structure; an unfrozen old head extends it."""
        return True

    @property
    def is_random(self) -> bool:
        """Whether the result depends on the key."""
        return True

    @abc.abstractmethod
    def __call__(self, state: State, *, agent: Updates, experience: Experience, key: Key) -> State:
        """The agent's state after the intervention."""


@dataclass(frozen=True)
class SelectiveIntervention(Intervention):
    """An intervention on selected Learners, each treated separately.

    `only`: the names of the Learners to treat, e.g. "critic" or "actor critic". Empty means all
    Learners and all LearnedScalars.
    """

    only: str = field(default="", kw_only=True)

    @property
    def needs_hidden_units(self) -> bool:
        """Whether it skips networks without hidden units.

        It is an error if every network would be skipped, or one that `only` names.
        """
        return False

    def mapped(
        self, change: Callable[[str, Learner, Key], Learner], state: State, key: Key
    ) -> State:
        """The agent's state with `change(name, learner, key)` applied to the selected Learners.

        Raises `RegrowError` for an unknown name, or if hidden units are needed and missing.
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
        """The names of the Learners to skip for lack of hidden units."""
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
    """An intervention that uses only the Learner, and treats every Learner alike."""

    @abc.abstractmethod
    def change(self, learner: Learner, key: Key) -> Learner:
        """One Learner after the intervention."""

    def turn(self, scalar: LearnedScalar) -> LearnedScalar:
        """A LearnedScalar after the intervention; unchanged by default."""
        return scalar

    def __call__(self, state: State, *, agent: Updates, experience: Experience, key: Key) -> State:
        """The agent's state with the selected Learners changed, each with its own key."""
        del agent, experience
        state = self.mapped(lambda _, learner, key: self.change(learner, key), state, key)
        return state if self.only else map_knobs(self.turn, state)


@dataclass(frozen=True)
class Recycling(SelectiveIntervention):
    """An intervention that re-initialises hidden units with low scores, outgoing weights zeroed.

    A subclass computes the scores and calls `renewed` with them. `tau`: a unit is re-initialised if
    its score is at most `tau` times the mean of its layer. `transitions`: how many to sample from
    the replay buffer for the scores.
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
        """False: new elements have their own step counts."""
        return False

    @property
    def needs_hidden_units(self) -> bool:
        """Always True: it acts on hidden units only."""
        return True

    def renewed(self, state: State, scores: Mapping[str, Scores], key: Key) -> State:
        """The agent's state with its low-score units re-initialised.

        `scores`: by Learner, one number per unit for every hidden layer. Raises `RegrowError` as
        `mapped` does.
        """

        def change(name: str, learner: Learner, key: Key) -> Learner:
            masks = [quiet(score, self.tau) for score in scores[name]]
            return recycled(learner, masks, key).with_fresh_hooks()

        return self.mapped(change, state, key)


@dataclass(frozen=True)
class Hook(SelectiveIntervention):
    """An intervention that installs an update hook in the Learners it treats.

    The hook acts after every update of a Run, on the batch of that update and with its own random
    key. It does not act after updates made by another intervention or a probe. A second hook of the
    same kind replaces the first. The hook's state is stored in the Learner. It is re-initialised
    when another intervention replaces layers or single units. A subclass implements `init` and
    `after_update`.
    """

    renews_units: ClassVar[bool] = False
    """Whether it re-initialises single units: the optimizer then counts steps per element."""

    @property
    def keeps_output(self) -> bool:
        """Always True: the hook first acts after the next update."""
        return True

    @property
    def keeps_optimizer_tree(self) -> bool:
        """False if it re-initialises units: steps are then counted per element."""
        return not self.renews_units

    @property
    def is_random(self) -> bool:
        """Always False: installing a hook uses no random numbers."""
        return False

    @property
    def needs_hidden_units(self) -> bool:
        """Whether it re-initialises hidden units."""
        return self.renews_units

    @abc.abstractmethod
    def init(self, learner: Learner) -> PyTree:
        """The initial state of the hook: a tree of arrays."""

    @abc.abstractmethod
    def after_update(
        self, learner: Learner, memory: PyTree, inputs: Shaped[Array, "batch *obs"], key: Key
    ) -> tuple[Learner, PyTree]:
        """(Learner, hook state) after an update on `inputs`; tree structures and shapes stay."""

    def __call__(self, state: State, *, agent: Updates, experience: Experience, key: Key) -> State:
        """The agent's state with the hook installed.

        Raises `RegrowError` if the hook re-initialises units and the network has none that can be.
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
    """A hook that re-initialises single hidden units, selected from a record kept per layer.

    A subclass implements `init_record`, `scores` and `select`.
    """

    renews_units: ClassVar[bool] = True

    @abc.abstractmethod
    def init_record(self, units: int) -> PyTree:
        """The initial record of a hidden layer with this number of units: a tree of arrays."""

    @abc.abstractmethod
    def scores(self, network: Network, inputs: Shaped[Array, "batch *obs"]) -> Sequence[Array]:
        """The scores of each hidden layer: an array whose last axis is its units."""

    @abc.abstractmethod
    def select(
        self, record: PyTree, scores: Float[Array, "... units"]
    ) -> tuple[PyTree, Bool[Array, " units"]]:
        """(record of a layer after an update, mask of the units to re-initialise)."""

    def init(self, learner: Learner) -> tuple[PyTree, ...]:
        """The initial record of every hidden layer."""
        return tuple(self.init_record(layer.units) for layer in learner.network.layers[:-1])

    def after_update(
        self,
        learner: Learner,
        memory: Sequence[PyTree],
        inputs: Shaped[Array, "batch *obs"],
        key: Key,
    ) -> tuple[Learner, tuple[PyTree, ...]]:
        """(Learner with the selected units re-initialised, records)."""
        scores = self.scores(learner.network, inputs)
        selected = [self.select(*each) for each in zip(memory, scores, strict=True)]
        masks = [mask for _, mask in selected]
        return recycled_where_any(learner, masks, key), tuple(record for record, _ in selected)

"""The optimizer of a network: one Optax state per part, with gradient terms chained to it.

Every layer is a part, with its own moments and step count, so that its state can be reset, kept or
handed over as a whole. With fresh moments and an old count Adam's steps would be up to 6.5 times
too large; with old moments and a fresh count, several times too small. Here moments and count
always change together.

A state still may not fit a layer. A new layer starts with a fresh state, so that Adam's first step
equals the learning rate. A layer that takes over the state of the layer it replaces
(`Learner.with_network`, `fresh="keep"`) has moments of other gradients. If those had vanished, its
first step is up to (1 - b1) / sqrt(1 - b2) = 3.2 times the learning rate, and the next steps are
larger still.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, cast, runtime_checkable

import equinox as eqx
import jax
import optax
from jaxtyping import PyTree

from regrow.errors import require
from regrow.learners.adam import adam, is_adam_state
from regrow.learners.rmsprop import centred_rmsprop
from regrow.types import Scalar


class Anchor(NamedTuple):
    """State of a term that depends on the initial parameters of a part.

    It belongs to the parameters. It is kept when the optimizer state is reset. It is re-initialised
    when a re-initialised layer keeps the optimizer state of the layer it replaces.
    """

    first: PyTree


class Trail(NamedTuple):
    """State of a term that depends on the path of a part since its initialisation.

    It is re-initialised when the optimizer state is reset, and also when a re-initialised layer
    keeps the optimizer state of the layer it replaces.
    """

    so_far: PyTree


@runtime_checkable
class Term(Protocol):
    """A transformation of one part's gradient or update, chained to the optimizer.

    `regrow.gradients` contains the terms.
    """

    acts_on: ClassVar[Literal["gradient", "update"]]
    """Whether it comes before the optimizer ("gradient") or after it ("update")."""

    def transform(self, *, learning_rate: float, output: bool) -> optax.GradientTransformation:
        """The transformation for one part; its state must not depend on `output`."""
        ...


@runtime_checkable
class NetworkTerm(Term, Protocol):
    """A term on the update that uses a network-wide statistic, computed before any part steps.

    The `update` of its transformation takes two more arguments. `gradient`: the part's gradient,
    after clipping and before any term. `told`: the network-wide number of each such term.
    """

    def read(self, gradient: PyTree, state: Any, part: PyTree) -> Scalar:
        """The number of one part."""
        ...

    def gather(self, numbers: Sequence[Scalar]) -> Scalar:
        """The network-wide number, combined from those of all parts."""
        ...


@dataclass(frozen=True)
class Optimizer:
    """The optimizer of a Learner: printable and hashable, unlike the Optax transformation of it.

    `kind`: "adam", or "rmsprop" (centred, as in Double DQN; see `regrow.learners.rmsprop`).
    `decay` and `momentum` are RMSProp's; `momentum` is the share of a step added to the next.
    `epsilon` is outside the square root, or inside for RMSProp with `epsilon_in_root`.
    `max_gradient_norm`: clips the gradient by its global norm over all parts; None disables it.
    `terms`: applied in the given order, those on the (clipped) gradient before the optimizer, those
    on the update after it.
    """

    kind: Literal["adam", "rmsprop"] = "adam"
    learning_rate: float = 1e-3
    epsilon: float = 1e-5
    b1: float = 0.9
    b2: float = 0.999
    decay: float = 0.95
    momentum: float = 0.0
    epsilon_in_root: bool = False
    max_gradient_norm: float | None = None
    terms: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        require(
            self.kind in ("adam", "rmsprop"),
            f"no optimizer '{self.kind}'; there are: adam, rmsprop",
        )
        require(self.learning_rate > 0, f"learning_rate is {self.learning_rate}; it must be > 0")
        require(0 <= self.momentum < 1, f"momentum is {self.momentum}; it must be in [0, 1)")
        require(
            self.momentum == 0 or self.kind == "rmsprop",
            f"momentum is {self.momentum}; it is RMSProp's, {self.kind} has none",
        )
        for term in self.terms:
            require(
                not isinstance(term, NetworkTerm) or self.terms.count(term) == 1,
                f"{term} stands among the terms more than once; what hears the whole network "
                "stands there once",
            )

    @functools.cached_property
    def transform(self) -> optax.GradientTransformation:
        """The Optax transformation of one part, without the terms."""
        if self.kind == "adam":
            return adam(self.learning_rate, b1=self.b1, b2=self.b2, eps=self.epsilon)
        return centred_rmsprop(
            self.learning_rate,
            decay=self.decay,
            eps=self.epsilon,
            eps_in_root=self.epsilon_in_root,
            momentum=self.momentum,
        )

    def transform_of(self, *, output: bool) -> optax.GradientTransformationExtraArgs:
        """The Optax transformation of one part, terms included; it may differ for output layers.

        The state has the same form for both.
        """
        if not self.terms:
            return optax.with_extra_args_support(self.transform)
        made = [
            self.transform
            if link is None
            else link.transform(learning_rate=self.learning_rate, output=output)
            for link in self._chain
        ]
        return optax.with_extra_args_support(optax.chain(*made))

    @functools.cached_property
    def _chain(self) -> tuple[Term | None, ...]:
        """The terms in the order they act; None stands for the optimizer between them."""
        before = (term for term in self.terms if term.acts_on == "gradient")
        after = (term for term in self.terms if term.acts_on == "update")
        return (*before, None, *after)

    def steps(
        self,
        gradients: Sequence[PyTree],
        states: Sequence[optax.OptState],
        parts: Sequence[PyTree],
        outputs: Sequence[bool],
    ) -> tuple[tuple[PyTree, optax.OptState], ...]:
        """(update, next state) for every part of a network, from the gradients of the parts."""
        told: dict[Term, Scalar] = {}
        for at, term in enumerate(self._chain):
            if isinstance(term, NetworkTerm):
                linked: list[Any] = [cast(tuple, state)[at] for state in states]
                each = zip(gradients, linked, parts, strict=True)
                told[term] = term.gather([term.read(g, state, part) for g, state, part in each])
        return tuple(
            self.transform_of(output=output).update(g, state, part, gradient=g, told=told)
            for g, state, part, output in zip(gradients, states, parts, outputs, strict=True)
        )

    def init(self, part: PyTree) -> optax.OptState:
        """A fresh state for one part."""
        return self.transform_of(output=False).init(eqx.filter(part, eqx.is_inexact_array))


def anchored(state: optax.OptState, source: optax.OptState) -> optax.OptState:
    """A fresh `state` with the anchors of `source`, because the parameters were kept."""
    return _with_marked(Anchor, state, source)


def redrawn(state: optax.OptState, first: optax.OptState) -> optax.OptState:
    """A `state` kept for a re-initialised layer, with anchors and trails from its `first` state."""
    return _with_marked(Anchor | Trail, state, first)


def _with_marked(marked: Any, state: optax.OptState, source: optax.OptState) -> optax.OptState:
    def is_whole(node: Any) -> bool:
        # One of the two may be an Adam state that counts per element, and the other not.
        return isinstance(node, marked) or is_adam_state(node)

    return jax.tree.map(
        lambda own, other: other if isinstance(own, marked) else own,
        state,
        source,
        is_leaf=is_whole,
    )

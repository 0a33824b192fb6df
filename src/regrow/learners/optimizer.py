"""How a network steps: one Optax state for each of its parts, with terms beside the optimizer.

Every layer is a part, with moments and a step count of its own, so that one can be reset, kept or
handed over whole. Fresh moments under an old count would make Adam step up to 6.5 times too far, an
old moment under a fresh count several times too short: moments and count always change together
here.

That does not make every state right for every layer. A new layer begins with a fresh state, so that
the first step of Adam is the learning rate. One that takes over the state of the layer before it
(`Learner.with_network`, `fresh="keep"`) has moments of other gradients: where those had died away,
its first step is up to (1 - b1) / sqrt(1 - b2) = 3.2 times the learning rate, and the steps that
follow are larger still.
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
    """What a term remembers, in its state, of the parameters that a part began with.

    It goes with the parameters: it stays where statistics start anew, and starts anew where a newly
    drawn layer keeps the statistics of the one before.
    """

    first: PyTree


class Trail(NamedTuple):
    """What a term remembers, in its state, of the way that a part has gone since it was drawn.

    It starts anew wherever one of the two does: with the statistics, and with a newly drawn layer
    that keeps the statistics of the one before.
    """

    so_far: PyTree


@runtime_checkable
class Term(Protocol):
    """What may stand beside the optimizer, on the way of one part's gradient.

    `regrow.gradients` holds the members of this family.
    """

    acts_on: ClassVar[Literal["gradient", "update"]]
    """Whether it comes before the optimizer or after it."""

    def transform(self, *, learning_rate: float, output: bool) -> optax.GradientTransformation:
        """For one part; its state may not depend on whether the part is an output layer."""
        ...


@runtime_checkable
class NetworkTerm(Term, Protocol):
    """A term on the update that is told one number of the whole network before any part steps.

    The `update` of its transformation takes `gradient`, the part's, as clipped and before any term,
    and `told`: for each such term, what its numbers of all parts came to.
    """

    def read(self, gradient: PyTree, state: Any, part: PyTree) -> Scalar:
        """Its number of one part."""
        ...

    def gather(self, numbers: Sequence[Scalar]) -> Scalar:
        """What the numbers of all parts come to."""
        ...


@dataclass(frozen=True)
class Optimizer:
    """How a learner steps; printable and hashable, unlike the Optax transformation it builds.

    `kind`: "adam", or "rmsprop" (centred, as Double DQN has it; see `regrow.learners.rmsprop`).
    `decay` is RMSProp's, and so is `momentum`: the share of a step that is added to the next.
    `epsilon` stands outside the square root, for RMSProp within it with `epsilon_in_root`.
    `max_gradient_norm`: clip the gradient of all parts by their global norm; None leaves it alone.
    `terms`: in the order given, those on the gradient (as clipped) before the optimizer, those on
    the update after it.
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
        """The Optax transformation of one part, terms included; an output layer may have its own.

        The state is the same for both.
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
        """The terms in the order they act; None is the optimizer between them."""
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
        """(update, next state) for every part of a network, from the gradient of each."""
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
    """A state whose statistics began anew, with the anchors of `source`: the parameters stayed."""
    return _with_marked(Anchor, state, source)


def redrawn(state: optax.OptState, first: optax.OptState) -> optax.OptState:
    """A state kept for a newly drawn layer, with anchors and trails of its `first` state."""
    return _with_marked(Anchor | Trail, state, first)


def _with_marked(marked: Any, state: optax.OptState, source: optax.OptState) -> optax.OptState:
    def is_whole(node: Any) -> bool:
        # Adam's state may count by element here and at once there.
        return isinstance(node, marked) or is_adam_state(node)

    return jax.tree.map(
        lambda own, other: other if isinstance(own, marked) else own,
        state,
        source,
        is_leaf=is_whole,
    )

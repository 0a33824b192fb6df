"""The contract of a gradient term: an Optax transformation of one part, chained to the optimizer.

    g → terms on the gradient → optimizer → u → terms on the update → θ + u

A term is a frozen dataclass. A part is one layer of the chain: a `Dense`, a `Conv`, or a residual
block, which contains two `Dense` layers. Weights and biases are a layer's own parameters; a
normalisation has scale and offset. Frozen parameters are in no part, so no term can change them.
The gradient is clipped by its global norm before the first term.

A term may use network-wide statistics. A `regrow.learners.optimizer.NetworkTerm` reads one number
from every part before any part steps, combines them, and receives the result in its update.

State that depends on a part's initial parameters goes into an `Anchor`. It is kept when the
optimizer state is reset. It is re-initialised when the layer is re-initialised but keeps its
optimizer state. State that depends on the path since then goes into a `Trail`, which is
re-initialised in both cases.
"""

import abc
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import optax
from jaxtyping import PyTree

from regrow.learners.optimizer import Term
from regrow.networks.layers import Affine


class GradientTerm(Term, abc.ABC):
    """A transformation of the gradient of one part, or of its update, at every step."""

    @abc.abstractmethod
    def transform(self, *, learning_rate: float, output: bool) -> optax.GradientTransformation:
        """The transformation for one part of a learner with this `learning_rate`.

        `output`: whether the part is an output layer. The state must not depend on it.
        """


if TYPE_CHECKING:
    Terms = tuple[GradientTerm, ...]
    """The type of an agent's `gradient` field: always a tuple once constructed."""
else:
    # What the constructor accepts; `regrow.registry.compose` turns it into a tuple.
    Terms = tuple[GradientTerm, ...] | list[GradientTerm] | GradientTerm | str


def own(part: PyTree) -> PyTree[bool]:
    """A tree like `part`: True for weights and biases, False for scale and offset."""
    return jax.tree.map(
        lambda node: jax.tree.map(lambda _: not _is_norm(node), node), part, is_leaf=_is_norm
    )


def weights(part: PyTree) -> PyTree[bool]:
    """A tree like `part`: True for weights that multiply the input, with units on the last axis."""
    return jax.tree.map(lambda is_own, leaf: is_own and leaf.ndim >= 2, own(part), part)


def fan_in(part: PyTree) -> PyTree[int]:
    """A tree like `part`: the fan-in of the layer for weights and biases, else 0.

    For a convolution it is the number of inputs to a unit at one position.
    """

    def one(node: PyTree) -> PyTree[int]:
        reads = 0
        if _is_affine(node):
            reads = node.weight.size // node.weight.shape[-1]
        return jax.tree.map(lambda _: reads, node)

    return jax.tree.map(one, part, is_leaf=_is_affine)


def affine(part: PyTree) -> list[Affine]:
    """The dense and convolutional layers in a part."""
    return [node for node in jax.tree.leaves(part, is_leaf=_is_affine) if _is_affine(node)]


def _is_affine(node: PyTree) -> bool:
    return isinstance(node, Affine)


def _is_norm(node: PyTree) -> bool:
    return isinstance(node, eqx.nn.LayerNorm)

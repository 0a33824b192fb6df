"""The contract of a gradient term: an Optax transformation of one part, chained to the optimizer.

    g → terms on the gradient → optimizer → u → terms on the update → θ + u

A term is a frozen dataclass. A part is one layer of the chain: a `Dense`, a `Conv`, or a residual
block, which holds two of the first. A weight and a bias are own parameters of a layer; what a
normalisation holds are scale and offset. Frozen parameters are in no part, so no term can move
them. The gradient is clipped by its global norm before the first term.

A term may hear of the whole network: a `regrow.learners.optimizer.NetworkTerm` reads one number off
every part before any of them steps, and is told what they come to.

Whatever a term remembers of a part's first parameters goes into an `Anchor`: they stay when the
statistics start anew, and start anew where a layer is newly drawn and keeps its statistics. What it
remembers of the way since goes into a `Trail`, which starts anew in both.
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
    """Something added to the gradient of one part, or done to its update, at every step."""

    @abc.abstractmethod
    def transform(self, *, learning_rate: float, output: bool) -> optax.GradientTransformation:
        """For one part of a learner that steps by `learning_rate`.

        `output`: whether the part is an output layer; the state may not depend on it.
        """


if TYPE_CHECKING:
    Terms = tuple[GradientTerm, ...]
    """The type of an agent's field of terms: a tuple, whatever it was given as."""
else:
    # What the constructor takes: `regrow.registry.compose` makes a tuple of it.
    Terms = tuple[GradientTerm, ...] | list[GradientTerm] | GradientTerm | str


def own(part: PyTree) -> PyTree[bool]:
    """A tree like `part`: True for weights and biases, False for scale and offset."""
    return jax.tree.map(
        lambda node: jax.tree.map(lambda _: not _is_norm(node), node), part, is_leaf=_is_norm
    )


def weights(part: PyTree) -> PyTree[bool]:
    """A tree like `part`: True for what multiplies the input, its last axis being the units."""
    return jax.tree.map(lambda is_own, leaf: is_own and leaf.ndim >= 2, own(part), part)


def fan_in(part: PyTree) -> PyTree[int]:
    """A tree like `part`: how many numbers a unit reads of the weight or bias, else 0.

    Of a convolution it is the numbers at one position.
    """

    def one(node: PyTree) -> PyTree[int]:
        reads = 0
        if _is_affine(node):
            reads = node.weight.size // node.weight.shape[-1]
        return jax.tree.map(lambda _: reads, node)

    return jax.tree.map(one, part, is_leaf=_is_affine)


def affine(part: PyTree) -> list[Affine]:
    """The dense and convolutional layers that a part is made of."""
    return [node for node in jax.tree.leaves(part, is_leaf=_is_affine) if _is_affine(node)]


def _is_affine(node: PyTree) -> bool:
    return isinstance(node, Affine)


def _is_norm(node: PyTree) -> bool:
    return isinstance(node, eqx.nn.LayerNorm)

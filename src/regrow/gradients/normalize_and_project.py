"""Normalize-and-Project, its projection (Lyle et al. 2024, arXiv 2407.01800).

    W ← ‖W₀‖_F · (W + u) / ‖W + u‖_F

for the weights of hidden layers: those are followed by a normalisation, so that their length has no
effect but on the effective learning rate. The output layer, which is not, is left alone, and so are
biases, scale and offset (for these the paper weighs several treatments).

The normalisation is the network's own: `layer_norm=True`, or blocks of BRO, which have one after
each weight. Those of SimBa have it before.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from regrow.errors import require
from regrow.gradients.base import GradientTerm, affine, weights
from regrow.learners.optimizer import Anchor


@dataclass(frozen=True)
class NormalizeAndProject(GradientTerm):
    """Keeps the weights of hidden layers at their first length; needs a network with layer norm."""

    acts_on = "update"

    def transform(self, *, learning_rate: float, output: bool) -> optax.GradientTransformation:
        """Its state is ‖W₀‖ of each weight. Raises `RegrowError` for one without normalisation."""
        del learning_rate

        def init(params: PyTree) -> Anchor:
            return Anchor(tuple(optax.tree.norm(layer.weight) for layer in affine(params)))

        def update(updates: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, Any]:
            if output:
                return updates, state
            require(
                all(layer.norm is not None for layer in affine(params)),
                "normalize_and_project needs a network with layer_norm=True; "
                "a hidden layer has no normalisation",
            )
            lengths = iter(state.first)

            def projected(is_weight: bool, u: Array, now: Array) -> Array:
                if not is_weight:
                    return u
                moved = now + u
                return next(lengths) * moved / jnp.maximum(optax.tree.norm(moved), 1e-12) - now

            return jax.tree.map(projected, weights(params), updates, params), state

        return optax.GradientTransformation(init, update)

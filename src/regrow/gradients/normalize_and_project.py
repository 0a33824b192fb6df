"""Normalize-and-Project, its projection (Lyle et al. 2024, arXiv 2407.01800).

    W ← ‖W₀‖_F · (W + u) / ‖W + u‖_F

for the weights of hidden layers. A normalisation follows them, so their norm only affects the
effective learning rate. The output layer has none after it and is not projected. Biases, scale and
offset are not projected either (the paper compares several treatments of them).

The network must have the normalisation: `layer_norm=True`, or BRO blocks, which have one after each
weight. SimBa blocks have it before the weights.
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
    """Keeps the norm of hidden layers' weights at its initial value; needs layer norm."""

    acts_on = "update"

    def transform(self, *, learning_rate: float, output: bool) -> optax.GradientTransformation:
        """The state is ‖W₀‖ of each weight.

        `update` raises `RegrowError` for a hidden layer without normalisation.
        """
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

"""Parseval regularisation (Chung et al. 2024, arXiv 2412.07224).

    L ← L + λ (64/n)² ‖W Wᵀ − s I‖_F²,     so  g ← g + 4λ (64/n)² (W Wᵀ − s I) W

for the weights of hidden layers. W has one row for each of the n units; s is the squared gain of
the orthogonal initialiser. As in the authors' code the first layer is included and the output layer
is not. Their networks have no convolutions; here a row is a unit's flattened kernel.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from regrow.errors import require
from regrow.gradients.base import GradientTerm, weights


@dataclass(frozen=True)
class Parseval(GradientTerm):
    """Pulls the weights of hidden layers towards orthogonal rows of squared norm `scale`."""

    acts_on = "gradient"

    strength: float = 1e-3
    scale: float = 2.0

    def __post_init__(self) -> None:
        require(self.strength >= 0, f"parseval: strength is {self.strength}; it must be 0 or more")
        require(self.scale > 0, f"parseval: scale is {self.scale}; it must be > 0")

    def transform(self, *, learning_rate: float, output: bool) -> optax.GradientTransformation:
        """The identity for an output layer."""
        del learning_rate
        if output:
            return optax.identity()

        def one(is_weight: bool, g: Array, weight: Array) -> Array:
            return g + self._pull(weight) if is_weight else g

        def pulled(gradient: PyTree, part: PyTree) -> PyTree:
            return jax.tree.map(one, weights(part), gradient, part)

        return optax.stateless(pulled)

    def _pull(self, weight: Array) -> Array:
        units = weight.shape[-1]
        columns = weight.reshape(-1, units)  # the transpose of the paper's W
        excess = columns.T @ columns - self.scale * jnp.eye(units)
        pull = 4 * self.strength * (64 / units) ** 2 * (columns @ excess)
        return pull.reshape(weight.shape)

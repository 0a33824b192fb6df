"""Weight clipping (Elsayed et al. 2024, arXiv 2407.01704).

    θ ← clip(θ + u, ±κ/√fan_in)

for weights and biases of every layer, the output included, a bias by the fan-in of its layer. The
source has no normalisation layers: scale and offset are left alone here, which the bound of their
layer would crush. κ/√fan_in at κ = 1 is what PyTorch draws within. LeCun's draw, which this
library's layers start from, reaches √3 times as far, so that the first step clips 42% of it.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from regrow.errors import require
from regrow.gradients.base import GradientTerm, fan_in, own


@dataclass(frozen=True)
class WeightClipping(GradientTerm):
    """Clips weights and biases to ±kappa/√fan_in after every step."""

    acts_on = "update"

    kappa: float = 1.0

    def __post_init__(self) -> None:
        require(self.kappa > 0, f"weight_clipping: kappa is {self.kappa}; it must be > 0")

    def transform(self, *, learning_rate: float, output: bool) -> optax.GradientTransformation:
        """Bounds hold to rounding; what lies within them moves as it would have."""
        del learning_rate, output

        def clipped(update: PyTree, part: PyTree) -> PyTree:
            def one(is_own: bool, reads: int, u: Array, now: Array) -> Array:
                if not is_own:
                    return u
                bound = self.kappa / reads**0.5
                moved = now + u
                return jnp.where(jnp.abs(moved) > bound, jnp.clip(moved, -bound, bound) - now, u)

            return jax.tree.map(one, own(part), fan_in(part), update, part)

        return optax.stateless(clipped)

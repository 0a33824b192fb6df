"""Weight clipping (Elsayed et al. 2024, arXiv 2407.01704).

    θ ← clip(θ + u, ±κ/√fan_in)

for weights and biases of every layer, the output included. A bias uses the fan-in of its layer. The
source has no normalisation layers. Here scale and offset are not clipped, because the bound of
their layer would be far too small for them. With κ = 1, κ/√fan_in is the range of PyTorch's default
initialisation. LeCun's uniform initialisation, this library's default, reaches √3 times as far, so
the first step clips 42% of the weights.
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
        """Bounds hold up to rounding; updates that stay within them are unchanged."""
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

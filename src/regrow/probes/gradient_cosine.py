"""Alignment of per-transition gradients."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from regrow.errors import require
from regrow.probes.base import NOTHING_THERE, Probe, View, vector
from regrow.types import Scalar


@dataclass(frozen=True)
class GradientCosine(Probe):
    """Mean cosine between the gradients of pairs of transitions.

    C_ij = ⟨∇ℓ_i, ∇ℓ_j⟩ / (‖∇ℓ_i‖ ‖∇ℓ_j‖), with ℓ_i the agent's loss on transition i. Lyle et al.
    2023 (arXiv 2303.01486) look at this gradient covariance as a whole matrix. Its mean over i ≠ j
    is our summary, not the paper's. It uses the first `samples` transitions and all live
    parameters.
    """

    samples: int = 64

    costly: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.samples >= 2, f"samples is {self.samples}; it must be at least 2")

    def measure(self, view: View) -> Scalar:
        """From −1 to 1; NaN if fewer than two transitions have a nonzero gradient."""
        gradients = jax.vmap(vector)(view.gradients_of_samples(view.network.layers, self.samples))
        # Normalised twice: the square of a gradient may overflow or underflow.
        scale = jnp.max(jnp.abs(gradients), axis=1, keepdims=True)
        gradients = gradients / jnp.where(scale > 0, scale, 1.0)
        norms = jnp.linalg.norm(gradients, axis=1, keepdims=True)
        units = gradients / jnp.where(norms > 0, norms, 1.0)
        cosines = units @ units.T
        pull = jnp.sum(norms > 0)
        pairs = pull * (pull - 1)
        mean = (jnp.sum(cosines) - jnp.trace(cosines)) / jnp.maximum(pairs, 1)
        return jnp.where(pairs > 0, mean, NOTHING_THERE)

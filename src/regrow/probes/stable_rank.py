"""Stable rank of the features."""

from dataclasses import dataclass

import jax.numpy as jnp

from regrow.probes.base import NOTHING_THERE, PartProbe, View
from regrow.types import Scalar


@dataclass(frozen=True)
class StableRank(PartProbe):
    """Stable rank ‖Φ‖_F² / ‖Φ‖₂² = Σ σ_i² / σ_1² of the features Φ.

    This is the standard definition. Some code uses this name for `srank`.
    """

    def measure(self, view: View) -> Scalar:
        """From 1 to min(batch, features); 0 if all features are 0."""
        sigma = self.singular_values(view)
        if sigma is None:
            return jnp.array(NOTHING_THERE)
        return jnp.sum(jnp.square(sigma / jnp.where(sigma[0] > 0, sigma[0], 1.0)))

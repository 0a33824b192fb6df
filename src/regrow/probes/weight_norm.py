"""Norm of the parameters."""

from dataclasses import dataclass

import jax.numpy as jnp

from regrow.probes.base import NOTHING_THERE, PartProbe, View
from regrow.types import Scalar


@dataclass(frozen=True)
class WeightNorm(PartProbe):
    """‖θ‖₂ over all live parameters of the part, biases included."""

    def measure(self, view: View) -> Scalar:
        """In units of the parameters."""
        weights = self.parameters(view.network)
        return jnp.linalg.norm(weights) if weights.size else jnp.array(NOTHING_THERE)

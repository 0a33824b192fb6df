"""Mean magnitude of the parameters."""

from dataclasses import dataclass

import jax.numpy as jnp

from regrow.probes.base import NOTHING_THERE, PartProbe, View
from regrow.types import Scalar


@dataclass(frozen=True)
class WeightMagnitude(PartProbe):
    """Mean |θ| over all live parameters of the part, biases included.

    Dohare et al. (arXiv 2306.13812).
    """

    def measure(self, view: View) -> Scalar:
        """In units of the parameters."""
        weights = self.parameters(view.network)
        return jnp.mean(jnp.abs(weights)) if weights.size else jnp.array(NOTHING_THERE)

"""Distance of the parameters from their initial values."""

from dataclasses import dataclass

import jax.numpy as jnp

from regrow.probes.base import NOTHING_THERE, PartProbe, View
from regrow.types import Scalar


@dataclass(frozen=True)
class DistanceFromInit(PartProbe):
    """‖θ − θ_0‖₂ over all live parameters of the part, with θ_0 their values before training."""

    def measure(self, view: View) -> Scalar:
        """In units of the parameters."""
        initial = view.back_then(view.past.initial)
        weights = self.parameters(view.network)
        if initial is None or not weights.size:
            return jnp.array(NOTHING_THERE)
        return jnp.linalg.norm(weights - self.parameters(initial))

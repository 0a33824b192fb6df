"""Root mean square change of the parameters since an earlier state."""

from dataclasses import dataclass

import jax.numpy as jnp

from regrow.probes.base import NOTHING_THERE, PartProbe, View
from regrow.types import Scalar


@dataclass(frozen=True)
class WeightChange(PartProbe):
    """√(Σ (θ − θ_prev)² / N) over the N live parameters of the part, biases included.

    θ_prev are the parameters in the earlier state. A re-initialisation in between counts as a
    change.
    """

    def measure(self, view: View) -> Scalar:
        """In units of the parameters."""
        earlier = view.back_then(view.past.previous)
        weights = self.parameters(view.network)
        if earlier is None or not weights.size:
            return jnp.array(NOTHING_THERE)
        return jnp.sqrt(jnp.mean(jnp.square(weights - self.parameters(earlier))))

"""Norm of the features."""

from dataclasses import dataclass

import jax.numpy as jnp

from regrow.probes.base import NOTHING_THERE, PartProbe, View
from regrow.types import Scalar


@dataclass(frozen=True)
class FeatureNorm(PartProbe):
    """mean_x ‖φ(x)‖₂ over the inputs, with φ the encoder's output or the head's last features."""

    def measure(self, view: View) -> Scalar:
        """In units of the features."""
        features = self.representation(view.network, view.inputs)
        if features is None:
            return jnp.array(NOTHING_THERE)
        return jnp.mean(jnp.linalg.norm(features, axis=-1))

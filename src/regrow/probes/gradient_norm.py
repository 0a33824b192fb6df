"""Norm of the gradient."""

from dataclasses import dataclass

import jax.numpy as jnp
import optax

from regrow.probes.base import NOTHING_THERE, PartProbe, View
from regrow.types import Scalar


@dataclass(frozen=True)
class GradientNorm(PartProbe):
    """‖∇‖₂ of the agent's loss on the batch over the part's live parameters, before clipping."""

    def measure(self, view: View) -> Scalar:
        """In units of loss per parameter."""
        gradient = view.agent.gradients(view.state, view.batch, view.key)[view.name]
        layers = self.layers(gradient)
        return jnp.asarray(optax.tree.norm(layers)) if layers else jnp.array(NOTHING_THERE)

"""How large the parameters have grown."""

from dataclasses import dataclass

import jax.numpy as jnp
import optax
from jaxtyping import Array, Shaped

from regrow.learner import Learner
from regrow.network import Network
from regrow.probes.base import NOTHING_THERE, Probe, layers_of
from regrow.types import Scalar


@dataclass(frozen=True)
class WeightNorm(Probe):
    """‖θ‖₂ over all live parameters of the part, biases included."""

    def measure(
        self, learner: Learner, inputs: Shaped[Array, "batch *obs"], gradient: Network | None
    ) -> Scalar:
        """In the units of the parameters."""
        del inputs, gradient
        layers = layers_of(learner.network, self.part)
        return jnp.asarray(optax.tree.norm(layers)) if layers else jnp.array(NOTHING_THERE)

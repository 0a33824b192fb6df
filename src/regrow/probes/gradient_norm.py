"""How strongly the loss pulls."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import optax
from jaxtyping import Array, Shaped

from regrow.learner import Learner
from regrow.network import Network
from regrow.probes.base import NOTHING_THERE, Probe, layers_of
from regrow.types import Scalar


@dataclass(frozen=True)
class GradientNorm(Probe):
    """‖∇‖₂ of the agent's own loss on the batch, over the live parameters, before any clipping."""

    needs_gradient: ClassVar[bool] = True

    def measure(
        self, learner: Learner, inputs: Shaped[Array, "batch *obs"], gradient: Network | None
    ) -> Scalar:
        """In the units of loss per parameter."""
        del learner, inputs
        assert gradient is not None, "gradient_norm declares that it needs the gradient"
        layers = layers_of(gradient, self.part)
        return jnp.asarray(optax.tree.norm(layers)) if layers else jnp.array(NOTHING_THERE)

"""Units that never fire."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Shaped

from regrow.learner import Learner
from regrow.network import Network
from regrow.probes.base import Probe, activations, share
from regrow.types import Scalar


@dataclass(frozen=True)
class DeadUnits(Probe):
    """Share of hidden units that fire on no more than `threshold` of the inputs (0: on none).

    A unit fires where its activation is above 0. Dohare et al. (arXiv 2306.13812) count units below
    1%.
    """

    threshold: float = 0.0

    def measure(
        self, learner: Learner, inputs: Shaped[Array, "batch *obs"], gradient: Network | None
    ) -> Scalar:
        """A share between 0 and 1, pooled over the hidden units of the part."""
        del gradient
        layers = activations(learner.network, self.part, inputs)
        return share([jnp.mean(units > 0, axis=0) <= self.threshold for units in layers])

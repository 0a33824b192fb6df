"""Units that do little beside the rest of their layer."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from regrow.errors import require
from regrow.learner import Learner
from regrow.network import Network
from regrow.probes.base import Probe, activations, share
from regrow.types import Scalar


@dataclass(frozen=True)
class DormantUnits(Probe):
    """Share of hidden units that are τ-dormant: E|h_i| ≤ τ · mean_k E|h_k| of their layer.

    Sokar et al. 2023 (arXiv 2302.12902); units of all layers are pooled, outputs excluded.
    """

    tau: float = 0.025

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.tau >= 0, f"tau is {self.tau}; it must be 0 or more")

    def measure(
        self, learner: Learner, inputs: Shaped[Array, "batch *obs"], gradient: Network | None
    ) -> Scalar:
        """A share between 0 and 1; in a layer that is wholly dead every unit counts."""
        del gradient
        layers = activations(learner.network, self.part, inputs)
        return share([self._dormant(units) for units in layers])

    def _dormant(self, units: Float[Array, "samples units"]) -> Bool[Array, " units"]:
        score = jnp.mean(jnp.abs(units), axis=0)
        return score <= self.tau * jnp.mean(score)

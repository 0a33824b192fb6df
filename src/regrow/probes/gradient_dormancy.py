"""Units with little gradient compared to the rest of their layer."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from regrow.errors import require
from regrow.learners.recycling import quiet, sensitivity
from regrow.probes.base import NOTHING_THERE, PartProbe, View, share
from regrow.types import Scalar


@dataclass(frozen=True)
class GradientDormancy(PartProbe):
    """Share of hidden units whose gradient is small: G_i = E|∂L/∂z_i| / mean_k E|∂L/∂z_k| ≤ τ.

    GraMa (arXiv 2505.24061). z is the pre-activation, after layer normalisation if there is one. L
    is the agent's loss on one transition. E is a mean over transitions and, for a convolution, over
    positions. Units of all layers are pooled, outputs excluded. If a loss evaluates the network
    more than once per transition, the gradients of a unit are summed.
    """

    tau: float = 0.01

    costly: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.tau >= 0, f"tau is {self.tau}; it must be 0 or more")

    def measure(self, view: View) -> Scalar:
        """A share between 0 and 1; in a layer without any gradient every unit counts."""
        scores = sensitivity(view.state, view.agent, view.batch, view.key)[view.name]
        part = self.chosen(scores, view.network)
        finite = jnp.array([jnp.all(jnp.isfinite(score)) for score in part])
        value = share([quiet(score, self.tau) for score in part])
        return jnp.where(jnp.all(finite), value, NOTHING_THERE)

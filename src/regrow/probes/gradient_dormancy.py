"""Units that get little gradient beside the rest of their layer."""

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

    GraMa (arXiv 2505.24061). z is what the activation function takes (after layer normalisation,
    where there is one), L the agent's loss on one transition, E a mean over transitions and, for a
    convolution, over positions; units of all layers are pooled, outputs excluded. Where a loss
    evaluates the network more than once per transition, the gradients of one unit add up.
    """

    tau: float = 0.01

    costly: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.tau >= 0, f"tau is {self.tau}; it must be 0 or more")

    def measure(self, view: View) -> Scalar:
        """A share between 0 and 1; in a layer that gets no gradient every unit counts."""
        scores = sensitivity(view.state, view.agent, view.batch, view.key)[view.name]
        part = self.chosen(scores, view.network)
        finite = jnp.array([jnp.all(jnp.isfinite(score)) for score in part])
        value = share([quiet(score, self.tau) for score in part])
        return jnp.where(jnp.all(finite), value, NOTHING_THERE)

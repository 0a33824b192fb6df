"""Rank of the neural tangent kernel."""

from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from regrow.errors import require
from regrow.probes.base import NOTHING_THERE, Layers, Probe, View, vector
from regrow.types import Scalar


@dataclass(frozen=True)
class NtkRank(Probe):
    """Rank of the neural tangent kernel J Jᵀ: number of eigenvalues > `threshold` × the largest.

    Row i of J is the gradient of the largest output (for action values, the greedy one) on input i,
    with respect to all live parameters. The inputs are those of the first `samples` transitions.
    Tang et al. 2025 (arXiv 2506.00592) relate a fall of this rank to churn. The threshold is our
    choice.
    """

    samples: int = 64
    threshold: float = 0.001

    costly: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.samples >= 1, f"samples is {self.samples}; it must be at least 1")
        require(
            0 < self.threshold < 1,
            f"threshold is {self.threshold}; it must be between 0 and 1",
        )

    def measure(self, view: View) -> Scalar:
        """An integer up to `samples`; 0 if all gradients are 0."""

        def largest(layers: Layers, x: Array) -> Scalar:
            network = eqx.tree_at(lambda one: one.layers, view.network, layers)
            return jnp.max(network(x))

        rows = jax.vmap(jax.grad(largest), in_axes=(None, 0))
        jacobian = jax.vmap(vector)(rows(view.network.layers, view.inputs[: self.samples]))
        largest_entry = jnp.max(jnp.abs(jacobian))
        jacobian = jacobian / jnp.where(largest_entry > 0, largest_entry, 1.0)
        eigenvalues = jnp.linalg.eigvalsh(jacobian @ jacobian.T)
        rank = jnp.sum(eigenvalues > self.threshold * eigenvalues[-1]).astype(jnp.float32)
        rank = jnp.where(largest_entry > 0, rank, 0.0)
        return jnp.where(jnp.isfinite(largest_entry), rank, NOTHING_THERE)

"""How firmly churn is held down, found in the course of training (C-CHAIN, arXiv 2506.00592).

    λ = share · mean(L) / (mean(R) + 1e-8)

L is the loss that is learned from, R the mean square of how far the last update moved the values on
other transitions. The means go over the last 50,000 updates, and over all while there are fewer;
for the first 10,000 λ is what the agent says. These numbers, 1e-8 too, are those of the authors'
code on MinAtar (Tang et al. 2025).
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from regrow.types import Scalar

SMALL = 1e-8


class ChurnBalance(eqx.Module):
    """What L and R were; `recent` is a ring of them, `patience` is in updates."""

    recent: Float[Array, "2 window"]
    updates: Int[Array, ""]
    patience: int = eqx.field(static=True)

    @staticmethod
    def create(window: int = 50_000, patience: int = 10_000) -> "ChurnBalance":
        """Before the first update."""
        return ChurnBalance(jnp.zeros((2, window)), jnp.array(0), patience)

    def strength(self, first: float, share: float) -> Scalar:
        """λ of the next update: `first`, until there has been patience."""
        held = jnp.clip(self.updates, 1, self.recent.shape[1])
        loss, churn = jnp.sum(self.recent, axis=1) / held
        return jnp.where(self.updates < self.patience, first, share * loss / (churn + SMALL))

    def after(self, loss: Scalar, churn: Scalar) -> "ChurnBalance":
        """With L and R of an update."""
        at = self.updates % self.recent.shape[1]
        recent = self.recent.at[:, at].set(jnp.stack([loss, churn]))
        return ChurnBalance(recent, self.updates + 1, self.patience)

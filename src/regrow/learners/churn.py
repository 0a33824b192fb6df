"""Adaptive strength of the churn penalty (C-CHAIN, arXiv 2506.00592).

    λ = share · mean|L| / (mean(R) + 1e-8)

L is the training loss. R is how far the last step moved the network's outputs on other transitions.
Agents define both. The means are over the last `window` updates, or over all while there are fewer.
For the first `patience` updates λ is a value chosen by the agent. All constants, 1e-8 included, are
those of the authors' code (Tang et al. 2025), which has different ones for each kind of agent.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from regrow.errors import require
from regrow.types import Scalar, Transition

SMALL = 1e-8


class ChurnBalance(eqx.Module):
    """The recent values of L and R: `recent` is a ring buffer. `patience` is in updates."""

    recent: Float[Array, "2 window"]
    updates: Int[Array, ""]
    patience: int = eqx.field(static=True)

    @staticmethod
    def create(window: int, patience: int) -> "ChurnBalance":
        """The state before the first update."""
        return ChurnBalance(jnp.zeros((2, window), jnp.float32), jnp.array(0, jnp.int32), patience)

    def strength(self, first: float, share: float, least: float = 0.0) -> Scalar:
        """λ of the next update: `first` for `patience` updates, then adaptive, at least `least`."""
        held = jnp.clip(self.updates, 1, self.recent.shape[1])
        loss, churn = jnp.sum(self.recent, axis=1) / held
        found = jnp.maximum(share * loss / (churn + SMALL), least)
        return jnp.where(self.updates < self.patience, first, found)

    def after(self, loss: Scalar, churn: Scalar) -> "ChurnBalance":
        """The state after an update with loss L and churn R."""
        at = self.updates % self.recent.shape[1]
        recent = self.recent.at[:, at].set(jnp.stack([jnp.abs(loss), churn]))
        return ChurnBalance(recent, self.updates + 1, self.patience)


def halves(batch: Transition) -> tuple[Transition, Transition]:
    """(rows for the loss, rows for the churn penalty): the first half of a batch, and the rest."""
    count = len(batch.reward) // 2
    return jax.tree.map(lambda x: x[:count], batch), jax.tree.map(lambda x: x[count:], batch)


def check_churn(**strengths: float) -> None:
    """Raises `RegrowError` unless every strength is finite and at least 0."""
    for name, value in strengths.items():
        require(0 <= value < math.inf, f"{name} is {value}; it must be 0 or more, and finite")


def check_share(churn: float, share: float, example: str) -> None:
    """Raises `RegrowError` for an invalid λ or share; `example`: a valid initial λ to suggest."""
    check_churn(churn=churn, churn_share=share)
    require(
        share == 0 or churn > 0,
        f"churn_share is {share} and churn is 0; with a share, churn is the strength at first and "
        f"must be above 0, e.g. {example}",
    )

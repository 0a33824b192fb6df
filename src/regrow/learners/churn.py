"""How firmly churn is held down, found in the course of training (C-CHAIN, arXiv 2506.00592).

    λ = share · mean|L| / (mean(R) + 1e-8)

L is the loss that is learned from, R how far the last step moved the network's outputs on other
transitions; agents say which. The means go over the last `window` updates, and over all while there
are fewer; for the first `patience` of them λ is what the agent says. The numbers, 1e-8 too, are
those of the authors' code (Tang et al. 2025), which for each kind of agent has its own.
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
    """What L and R were; `recent` is a ring of them, `patience` is in updates."""

    recent: Float[Array, "2 window"]
    updates: Int[Array, ""]
    patience: int = eqx.field(static=True)

    @staticmethod
    def create(window: int, patience: int) -> "ChurnBalance":
        """Before the first update."""
        return ChurnBalance(jnp.zeros((2, window), jnp.float32), jnp.array(0, jnp.int32), patience)

    def strength(self, first: float, share: float, least: float = 0.0) -> Scalar:
        """λ of the next update: `first` until there has been patience, then `least` or more."""
        held = jnp.clip(self.updates, 1, self.recent.shape[1])
        loss, churn = jnp.sum(self.recent, axis=1) / held
        found = jnp.maximum(share * loss / (churn + SMALL), least)
        return jnp.where(self.updates < self.patience, first, found)

    def after(self, loss: Scalar, churn: Scalar) -> "ChurnBalance":
        """With L and R of an update."""
        at = self.updates % self.recent.shape[1]
        recent = self.recent.at[:, at].set(jnp.stack([jnp.abs(loss), churn]))
        return ChurnBalance(recent, self.updates + 1, self.patience)


def halves(batch: Transition) -> tuple[Transition, Transition]:
    """(what is learned from, what is held): the first half of the rows, and the others."""
    count = len(batch.reward) // 2
    return jax.tree.map(lambda x: x[:count], batch), jax.tree.map(lambda x: x[count:], batch)


def check_churn(**strengths: float) -> None:
    """Raises `RegrowError` unless each is a strength."""
    for name, value in strengths.items():
        require(0 <= value < math.inf, f"{name} is {value}; it must be 0 or more, and finite")


def check_share(churn: float, share: float, example: str) -> None:
    """Raises `RegrowError` unless λ can follow from a share; `example`: a λ to begin with."""
    check_churn(churn=churn, churn_share=share)
    require(
        share == 0 or churn > 0,
        f"churn_share is {share} and churn is 0; with a share, churn is the strength at first and "
        f"must be above 0, e.g. {example}",
    )

"""Effective rank: how evenly the features spread over their principal directions."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax.scipy.special import entr

from regrow.probes.base import NOTHING_THERE, PartProbe, View
from regrow.types import Scalar


@dataclass(frozen=True)
class EffectiveRank(PartProbe):
    """Exponential of the entropy of the features' normalised singular values.

    exp(−Σ p_i log p_i) with p_i = σ_i / Σ σ (Roy & Vetterli 2007).
    """

    def measure(self, view: View) -> Scalar:
        """From 1 to min(batch, features); 0 if all features are 0."""
        sigma = self.singular_values(view)
        if sigma is None:
            return jnp.array(NOTHING_THERE)
        total = jnp.sum(sigma)
        p = sigma / jnp.where(total > 0, total, 1.0)
        return jnp.where(total > 0, jnp.exp(jnp.sum(entr(p))), 0.0)

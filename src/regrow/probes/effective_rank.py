"""How evenly the features fill their directions."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax.scipy.special import entr
from jaxtyping import Array, Shaped

from regrow.learner import Learner
from regrow.network import Network
from regrow.probes.base import NOTHING_THERE, Probe, singular_values
from regrow.types import Scalar


@dataclass(frozen=True)
class EffectiveRank(Probe):
    """exp of the entropy of the normalised singular values of the features.

    exp(−Σ p_i log p_i) with p_i = σ_i / Σ σ (Roy & Vetterli 2007).
    """

    def measure(
        self, learner: Learner, inputs: Shaped[Array, "batch *obs"], gradient: Network | None
    ) -> Scalar:
        """From 1 to the lesser of batch and features; 0 where all features are 0."""
        del gradient
        sigma = singular_values(learner.network, self.part, inputs)
        if sigma is None:
            return jnp.array(NOTHING_THERE)
        total = jnp.sum(sigma)
        p = sigma / jnp.where(total > 0, total, 1.0)
        return jnp.where(total > 0, jnp.exp(jnp.sum(entr(p))), 0.0)

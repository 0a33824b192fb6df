"""Approximate rank: the number of directions with most of the features' energy."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from regrow.probes.base import RankProbe


@dataclass(frozen=True)
class ApproximateRank(RankProbe):
    """Number of principal directions with 99% of the energy of the features Φ: `srank` with σ².

    The least k with Σ_{i≤k} σ_i² ≥ (1 − δ) Σ σ_i² (Yang et al. 2020, arXiv 1909.12255). Features
    are not centred.
    """

    def sizes(self, sigma: Float[Array, " rank"]) -> Float[Array, " rank"]:
        """The squares of the singular values, in units of the largest."""
        return jnp.square(sigma / jnp.where(sigma[0] > 0, sigma[0], 1.0))

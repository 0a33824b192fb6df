"""How many directions hold most of the features' energy."""

from dataclasses import dataclass

import jax.numpy as jnp

from regrow.errors import require
from regrow.probes.base import NOTHING_THERE, PartProbe, View, enough
from regrow.types import Scalar


@dataclass(frozen=True)
class ApproximateRank(PartProbe):
    """Principal directions of the features Φ that hold 99% of their energy: `srank` with σ².

    The least k with Σ_{i≤k} σ_i² ≥ (1 − δ) Σ σ_i² (Yang et al. 2020, arXiv 1909.12255). Features
    are not centred.
    """

    delta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.delta < 1, f"delta is {self.delta}; it must be between 0 and 1")

    def measure(self, view: View) -> Scalar:
        """A whole number, at most the lesser of batch and features; 0 where all features are 0."""
        sigma = self.singular_values(view)
        if sigma is None:
            return jnp.array(NOTHING_THERE)
        energy = jnp.square(sigma / jnp.where(sigma[0] > 0, sigma[0], 1.0))
        return enough(energy, 1 - self.delta)

"""How many directions the features fill, by their singular values."""

from dataclasses import dataclass

import jax.numpy as jnp

from regrow.errors import require
from regrow.probes.base import NOTHING_THERE, PartProbe, View, enough
from regrow.types import Scalar


@dataclass(frozen=True)
class Srank(PartProbe):
    """srank_δ of the features Φ: the least k with Σ_{i≤k} σ_i ≥ (1 − δ) Σ σ_i.

    Kumar et al. 2021 (arXiv 2010.14498). It is not the stable rank ‖Φ‖_F² / ‖Φ‖₂², which is
    `stable_rank`.
    """

    delta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.delta < 1, f"delta is {self.delta}; it must be between 0 and 1")

    def measure(self, view: View) -> Scalar:
        """A whole number, at most the lesser of batch and features; 0 where all features are 0."""
        sigma = self.singular_values(view)
        return jnp.array(NOTHING_THERE) if sigma is None else enough(sigma, 1 - self.delta)

"""Feature rank: singular values of the features above a fixed threshold."""

from dataclasses import dataclass

import jax.numpy as jnp

from regrow.errors import require
from regrow.probes.base import NOTHING_THERE, PartProbe, View
from regrow.types import Scalar


@dataclass(frozen=True)
class FeatureRank(PartProbe):
    """Number of singular values of the features Φ/√n above ε: #{i: σ_i(Φ/√n) > ε}.

    Lyle et al. 2022 (arXiv 2204.09560). Φ has a row for each of n inputs. By definition it depends
    on the scale of the features: larger features have a higher rank.
    """

    epsilon: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.epsilon > 0, f"epsilon is {self.epsilon}; it must be > 0")

    def measure(self, view: View) -> Scalar:
        """An integer, at most min(batch, features)."""
        sigma = self.singular_values(view)
        if sigma is None:
            return jnp.array(NOTHING_THERE)
        inputs = len(view.inputs)
        return jnp.sum(sigma / inputs**0.5 > self.epsilon).astype(jnp.float32)

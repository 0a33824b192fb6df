"""srank: the number of singular values with most of their sum."""

from dataclasses import dataclass

from jaxtyping import Array, Float

from regrow.probes.base import RankProbe


@dataclass(frozen=True)
class Srank(RankProbe):
    """srank_δ of the features Φ: the least k with Σ_{i≤k} σ_i ≥ (1 − δ) Σ σ_i.

    Kumar et al. 2021 (arXiv 2010.14498). The stable rank ‖Φ‖_F² / ‖Φ‖₂² is another probe,
    `stable_rank`.
    """

    def sizes(self, sigma: Float[Array, " rank"]) -> Float[Array, " rank"]:
        """The singular values themselves."""
        return sigma

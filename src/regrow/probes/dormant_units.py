"""Units with little activity compared to the rest of their layer."""

from dataclasses import dataclass

from regrow.errors import require
from regrow.learners.recycling import mean_size, quiet
from regrow.probes.base import PartProbe, View, share
from regrow.types import Scalar


@dataclass(frozen=True)
class DormantUnits(PartProbe):
    """Share of hidden units that are τ-dormant: E|h_i| ≤ τ · mean_k E|h_k| of their layer.

    Sokar et al. 2023 (arXiv 2302.12902). Units of all layers are pooled, outputs excluded.
    """

    tau: float = 0.025

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.tau >= 0, f"tau is {self.tau}; it must be 0 or more")

    def measure(self, view: View) -> Scalar:
        """A share between 0 and 1; in an entirely dead layer every unit counts."""
        layers = self.activations(view.network, view.inputs)
        return share([quiet(mean_size(units), self.tau) for units in layers])

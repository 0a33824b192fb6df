"""Units that fire on few inputs."""

from dataclasses import dataclass

import jax.numpy as jnp

from regrow.errors import require
from regrow.probes.base import PartProbe, View, share
from regrow.types import Scalar


@dataclass(frozen=True)
class DeadByFiring(PartProbe):
    """Share of hidden units that fire on less than `tau` of the inputs: 1% by default.

    P(h_i ≠ 0) < τ is how Dohare et al. (arXiv 2306.13812) count dead ReLU units. For other
    activations see `dead_units`. For a convolution, every position of every image is an input. With
    at most 1/τ inputs the value equals `dead_units`.
    """

    tau: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.tau <= 1, f"tau is {self.tau}; it must be above 0 and at most 1")

    def measure(self, view: View) -> Scalar:
        """A share between 0 and 1, pooled over the hidden units of the part."""
        layers = self.activations(view.network, view.inputs)
        return share([jnp.sum(units > 0, axis=0) < self.tau * len(units) for units in layers])

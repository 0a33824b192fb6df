"""Units that never fire."""

from dataclasses import dataclass

import jax.numpy as jnp

from regrow.errors import require
from regrow.probes.base import PartProbe, View, share
from regrow.types import Scalar


@dataclass(frozen=True)
class DeadUnits(PartProbe):
    """Share of hidden units that fire on no more than `threshold` of the inputs (0: on none).

    A unit fires if any of its output features is not 0: with ReLU, if its activation is above 0;
    with CReLU, if one of its two features is. A tanh, a Fourier pair and a residual stream are
    almost never 0, so they do not die in this sense; `gradient_dormancy` detects saturated ones.
    `dead_by_firing` is the rule of Dohare et al.
    """

    threshold: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 <= self.threshold <= 1,
            f"threshold is {self.threshold}; it must be between 0 and 1",
        )

    def measure(self, view: View) -> Scalar:
        """A share between 0 and 1, pooled over the hidden units of the part."""
        layers = self.activations(view.network, view.inputs)
        return share([jnp.mean(units > 0, axis=0) <= self.threshold for units in layers])

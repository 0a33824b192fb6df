"""Whether dormant units stay dormant."""

from dataclasses import dataclass

import jax.numpy as jnp

from regrow.errors import require
from regrow.learners.recycling import mean_size, quiet
from regrow.probes.base import NOTHING_THERE, PartProbe, View
from regrow.types import Scalar


@dataclass(frozen=True)
class DeadOverlap(PartProbe):
    """Share of the τ-dormant units of the earlier state that are still dormant.

    |D_prev ∩ D_now| / |D_prev|, with D the units that `dormant_units` counts, both on the current
    inputs. The code of Sokar et al. 2023 (arXiv 2302.12902) logs this per layer; here layers are
    pooled. (The overlap coefficient divides by the smaller set, which is D_prev while the number of
    dormant units grows.)
    """

    tau: float = 0.025

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.tau >= 0, f"tau is {self.tau}; it must be 0 or more")

    def measure(self, view: View) -> Scalar:
        """A share between 0 and 1; NaN if no unit was dormant."""
        earlier = view.back_then(view.past.previous)
        if earlier is None:
            return jnp.array(NOTHING_THERE)
        then, now = (
            [quiet(mean_size(h), self.tau) for h in self.activations(network, view.inputs)]
            for network in (earlier, view.network)
        )
        both = sum((jnp.sum(a & b) for a, b in zip(then, now, strict=True)), jnp.array(0))
        before = sum((jnp.sum(a) for a in then), jnp.array(0))
        share = both.astype(jnp.float32) / jnp.maximum(before, 1)
        return jnp.where(before > 0, share, NOTHING_THERE)

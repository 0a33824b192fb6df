"""How far one update changes the outputs on other observations."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from regrow.probes.base import Probe, View
from regrow.types import Scalar


@dataclass(frozen=True)
class ValueChurn(Probe):
    """E (Q'(s, a) − Q(s, a))² over observations and outputs, Q' after one update on other data.

    Value churn (Tang et al. 2025, arXiv 2506.00592) of one update of the agent. Observations are
    the first half of the batch. The update uses the second half, up to the number of transitions of
    one update. Raises `RegrowError` on fewer than two transitions.
    """

    costly: ClassVar[bool] = True

    def measure(self, view: View) -> Scalar:
        """In units of the output, squared."""
        before, after = view.updated()
        return jnp.mean(jnp.square(after - before))

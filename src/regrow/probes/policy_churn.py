"""How often one update changes the greedy action on other observations."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from regrow.probes.base import NOTHING_THERE, Probe, View
from regrow.types import Scalar


@dataclass(frozen=True)
class PolicyChurn(Probe):
    """Share of observations whose greedy action changes after one update on other transitions.

    Policy churn (Tang et al. 2025, arXiv 2506.00592) of one update of the agent, for networks with
    one output per action; NaN for multi-discrete actions. Observations are the first half of the
    batch. The update uses the second half, up to the number of transitions of one update. Raises
    `RegrowError` on fewer than two transitions.
    """

    costly: ClassVar[bool] = True

    def measure(self, view: View) -> Scalar:
        """A share between 0 and 1; NaN for a network without one output per action."""
        action = view.batch.action
        numbered = jnp.issubdtype(action.dtype, jnp.integer) and action.ndim == 1
        before, after = view.updated()
        if not numbered or before.ndim != 2 or before.shape[-1] == 1:
            return jnp.array(NOTHING_THERE)
        changed = jnp.argmax(after, axis=-1) != jnp.argmax(before, axis=-1)
        value = jnp.mean(changed.astype(jnp.float32))
        return jnp.where(jnp.all(jnp.isfinite(after)), value, NOTHING_THERE)

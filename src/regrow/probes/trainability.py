"""How well the network can still fit new targets."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from regrow.errors import require
from regrow.learners.learner import Learner
from regrow.networks.network import Network
from regrow.probes.base import Probe, View
from regrow.types import Scalar


@dataclass(frozen=True)
class Trainability(Probe):
    """How well a copy of the network fits random targets: 1 − MSE_after / MSE_before.

    Targets are the copy's own outputs on the batch plus N(0, 1) noise, sampled once for every input
    and output. The copy makes `updates` updates on the whole batch with the Learner's optimizer,
    its state fresh. This follows the idea of target-fitting capacity in Lyle et al. 2022 (arXiv
    2204.09560); targets, loss and scale are ours. Normal values depend on all of them, so compare
    with a newly initialised network.
    """

    updates: int = 200

    costly: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.updates >= 1, f"updates is {self.updates}; it must be at least 1")

    def measure(self, view: View) -> Scalar:
        """At most 1: 1 for a perfect fit, 0 for no improvement, negative if the fit gets worse."""
        inputs, outputs = view.inputs, view.network(view.inputs)
        targets = outputs + jax.random.normal(view.key, outputs.shape, outputs.dtype)

        def loss(network: Network) -> Scalar:
            return jnp.mean(jnp.square(network(inputs) - targets))

        def update(learner: Learner, _: None) -> tuple[Learner, None]:
            return learner.descend(learner.gradient(loss)[1]), None

        start = view.learner.with_fresh_statistics()
        end, _ = jax.lax.scan(update, start, length=self.updates)
        return 1 - loss(end.network) / loss(view.network)

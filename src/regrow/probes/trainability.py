"""How well the network can still learn something new."""

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

    Targets are the copy's own outputs on the batch plus N(0, 1), drawn once for every input and
    output. The copy makes `updates` updates on the whole batch with the Learner's own optimizer,
    its statistics fresh. In the spirit of the capacity of Lyle et al. 2022 (arXiv 2204.09560) to
    fit new targets; targets, loss and scale are ours. What is normal depends on all of them, so
    read it beside a fresh network.
    """

    updates: int = 200

    costly: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.updates >= 1, f"updates is {self.updates}; it must be at least 1")

    def measure(self, view: View) -> Scalar:
        """At most 1, where all is learnt; 0 where nothing is, below where it gets worse."""
        inputs, outputs = view.inputs, view.network(view.inputs)
        targets = outputs + jax.random.normal(view.key, outputs.shape, outputs.dtype)

        def loss(network: Network) -> Scalar:
            return jnp.mean(jnp.square(network(inputs) - targets))

        def update(learner: Learner, _: None) -> tuple[Learner, None]:
            return learner.descend(learner.gradient(loss)[1]), None

        start = view.learner.with_fresh_statistics()
        end, _ = jax.lax.scan(update, start, length=self.updates)
        return 1 - loss(end.network) / loss(view.network)

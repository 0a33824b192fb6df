"""Hare & Tortoise (Lee et al. 2024, arXiv 2406.02596): back, now and then, to the average.

    tortoise ← m·tortoise + (1 − m)·hare    after every update
    hare ← tortoise                         every `period` updates

The hare is the network that learns. As in the authors' code (hare-tortoise, BaseTrainer.train),
m = 0.999, the average is taken after the optimizer's step, and a switch leaves the optimizer's
statistics as they are. That code is for supervised training and switches every 10 epochs, the first
time after one. What the authors have in reinforcement learning was not found: neither how many
updates, so that 2,000 is ours, nor whether the target network serves as the tortoise. Here the
tortoise is apart from the target, which follows the network as its agent has it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree, Shaped

from regrow.errors import require
from regrow.interventions.base import Hook
from regrow.learners.learner import Learner
from regrow.types import Key


class _Tortoise(NamedTuple):
    """The average of what learns, part by part, and how many updates ago the hare went back."""

    parts: tuple[PyTree, ...]
    since: Int[Array, ""]


@dataclass(frozen=True)
class HareTortoise(Hook):
    """From here on puts the network back, every so often, to the average of where it has been.

    `momentum` m of the average, per update; `period` between two switches, in updates. Frozen heads
    stay; old heads that go on learning are averaged too.
    """

    momentum: float = 0.999
    period: int = 2_000

    def __post_init__(self) -> None:
        require(
            0 <= self.momentum <= 1,
            f"hare_tortoise: momentum is {self.momentum}; it must be between 0 and 1",
        )
        require(self.period >= 1, f"hare_tortoise: period is {self.period}; it must be at least 1")

    def init(self, learner: Learner) -> _Tortoise:
        """The tortoise where the hare is."""
        return _Tortoise(learner.network.parts(), jnp.array(0))

    def after_update(
        self,
        learner: Learner,
        memory: _Tortoise,
        inputs: Shaped[Array, "batch *obs"],
        key: Key,
    ) -> tuple[Learner, _Tortoise]:
        """(the Learner, put back where that is due, the memory with the average moved on)."""
        del inputs, key
        hare = learner.network.parts()
        tortoise = jax.tree.map(lambda t, h: t + (1 - self.momentum) * (h - t), memory.parts, hare)
        since = memory.since + 1
        due = since == self.period
        # A select and no branch, as in `Learner.sync`.
        parts = jax.tree.map(lambda t, h: jnp.where(due, t, h), tortoise, hare)
        network = learner.network.with_parts(parts)
        return learner.moved_to(network), _Tortoise(tortoise, jnp.where(due, 0, since))

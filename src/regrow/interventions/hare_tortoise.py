"""Hare & Tortoise (Lee et al. 2024, arXiv 2406.02596): periodic resets to a moving average.

    tortoise ← m·tortoise + (1 − m)·hare    after every update
    hare ← tortoise                         every `period` updates

The hare is the network that is trained. As in the authors' code (hare-tortoise, BaseTrainer.train),
m = 0.999, the average is taken after the optimizer's step, and a switch keeps the optimizer state.
That code is for supervised training; it switches every 10 epochs, the first time after one epoch.
The authors' code for reinforcement learning was not found. So the period of 2,000 updates is our
choice, and we do not know whether they use the target network as the tortoise. Here the tortoise is
separate from the target network, which the agent updates as usual.
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
    """The average of the trainable parts, and the number of updates since the last switch."""

    parts: tuple[PyTree, ...]
    since: Int[Array, ""]


@dataclass(frozen=True)
class HareTortoise(Hook):
    """Installs a hook that periodically resets the network to the moving average of its weights.

    `momentum` m: of the average, per update. `period`: updates between two switches. Frozen heads
    are unchanged; unfrozen old heads are averaged too.
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
        """The tortoise as a copy of the hare."""
        return _Tortoise(learner.network.parts(), jnp.array(0))

    def after_update(
        self,
        learner: Learner,
        memory: _Tortoise,
        inputs: Shaped[Array, "batch *obs"],
        key: Key,
    ) -> tuple[Learner, _Tortoise]:
        """(Learner, set to the average if due; the hook state with the average updated)."""
        del inputs, key
        hare = learner.network.parts()
        tortoise = jax.tree.map(lambda t, h: t + (1 - self.momentum) * (h - t), memory.parts, hare)
        since = memory.since + 1
        due = since == self.period
        # A select instead of a branch, as in `Learner.sync`.
        parts = jax.tree.map(lambda t, h: jnp.where(due, t, h), tortoise, hare)
        network = learner.network.with_parts(parts)
        return learner.moved_to(network), _Tortoise(tortoise, jnp.where(due, 0, since))

"""Resets (Nikishin et al. 2022, arXiv 2205.07802): new parameters, the replay buffer kept."""

from dataclasses import dataclass
from typing import Literal

from regrow.interventions.base import LearnerIntervention
from regrow.learners.learner import LearnedScalar, Learner
from regrow.types import Key


@dataclass(frozen=True)
class Reset(LearnerIntervention):
    """Re-initialises the head, the last layer or everything; the target becomes a copy.

    `optimizer`: "reset" also resets the optimizer state of those layers, step count included, as
    published; "keep" keeps it. Frozen heads of earlier injections are dropped, because they would
    preserve the old predictions. A network that is all encoder is unchanged, its target too, unless
    everything is reset. Resetting the head or everything also resets learned scalars such as a
    temperature, as in the published SAC (everything) and DrQ (heads).
    """

    where: Literal["head", "last", "everything"] = "head"
    optimizer: Literal["keep", "reset"] = "reset"

    def change(self, learner: Learner, key: Key) -> Learner:
        """The Learner with the selected layers re-initialised."""
        split, layers = learner.network.split, len(learner.network.layers)
        start = {"head": split, "last": max(split, layers - 1), "everything": 0}[self.where]
        if start == layers:
            return learner
        network, origins = learner.network.reset_with_origins(start, key)
        target = None if learner.target is None else network
        return learner.with_network(network, target, origins=origins, fresh=self.optimizer)

    def turn(self, scalar: LearnedScalar) -> LearnedScalar:
        """The scalar at its initial value, or unchanged if only last layers are reset."""
        if self.where == "last":
            return scalar
        return scalar.fresh() if self.optimizer == "reset" else scalar.with_initial_value()

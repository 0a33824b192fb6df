"""Resets (Nikishin et al. 2022, arXiv 2205.07802): parameters drawn anew, the replay kept."""

from dataclasses import dataclass
from typing import Literal

from regrow.interventions.base import LearnerIntervention
from regrow.learners.learner import LearnedScalar, Learner
from regrow.types import Key


@dataclass(frozen=True)
class Reset(LearnerIntervention):
    """Draws the head, the last layer or everything anew; the target becomes a copy of the network.

    `optimizer`: "reset" starts the statistics of those layers anew, step count included, as
    published; "keep" leaves them. Earlier injections end: what they froze would keep the old
    predictions alive. A network that is all encoder stays as it is, its target too, unless
    everything is drawn anew. With the head or everything a learned number (a temperature) begins
    anew too, as in the published SAC (everything) and DrQ (heads).
    """

    where: Literal["head", "last", "everything"] = "head"
    optimizer: Literal["keep", "reset"] = "reset"

    def change(self, learner: Learner, key: Key) -> Learner:
        """The Learner with fresh layers."""
        split, layers = learner.network.split, len(learner.network.layers)
        start = {"head": split, "last": max(split, layers - 1), "everything": 0}[self.where]
        if start == layers:
            return learner
        network, origins = learner.network.reset_with_origins(start, key)
        target = None if learner.target is None else network
        return learner.with_network(network, target, origins=origins, fresh=self.optimizer)

    def turn(self, scalar: LearnedScalar) -> LearnedScalar:
        """The number as at the start, unless only last layers are drawn anew."""
        if self.where == "last":
            return scalar
        return scalar.fresh() if self.optimizer == "reset" else scalar.with_initial_value()

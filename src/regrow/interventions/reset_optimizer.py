"""Optimizer resets: is the problem in the weights, or in the statistics of their gradients?"""

from dataclasses import dataclass
from typing import Literal

from regrow.interventions.base import LearnerIntervention
from regrow.learners.learner import LearnedScalar, Learner
from regrow.types import Key


@dataclass(frozen=True)
class ResetOptimizer(LearnerIntervention):
    """Resets the optimizer state, step count included; parameters are kept.

    `where`: "head", or "everything", which includes learned scalars such as a temperature.
    """

    where: Literal["head", "everything"] = "everything"

    @property
    def keeps_output(self) -> bool:
        """Always True: parameters are kept."""
        return True

    @property
    def is_random(self) -> bool:
        """Always False: a fresh optimizer state is not random."""
        return False

    def change(self, learner: Learner, key: Key) -> Learner:
        """The Learner with a fresh optimizer state."""
        del key
        start = learner.network.split if self.where == "head" else 0
        return learner.with_fresh_statistics(start)

    def turn(self, scalar: LearnedScalar) -> LearnedScalar:
        """The scalar, with a fresh optimizer state if `where` is "everything"."""
        return scalar.with_fresh_statistics() if self.where == "everything" else scalar

"""The optimizer alone: was it the weights, or the statistics of their gradients?"""

from dataclasses import dataclass
from typing import Literal

from regrow.interventions.base import LearnerIntervention
from regrow.learners.learner import LearnedScalar, Learner
from regrow.types import Key


@dataclass(frozen=True)
class ResetOptimizer(LearnerIntervention):
    """Starts the optimizer's statistics anew, step count included; parameters stay.

    `where`: the layers of the "head", or "everything", learned numbers (a temperature) included.
    """

    where: Literal["head", "everything"] = "everything"

    @property
    def keeps_output(self) -> bool:
        """True."""
        return True

    @property
    def is_random(self) -> bool:
        """Fresh statistics are zeros."""
        return False

    def change(self, learner: Learner, key: Key) -> Learner:
        """The Learner with fresh statistics."""
        del key
        start = learner.network.split if self.where == "head" else 0
        return learner.with_fresh_statistics(start)

    def turn(self, scalar: LearnedScalar) -> LearnedScalar:
        """The number with fresh statistics, where everything gets them."""
        return scalar.with_fresh_statistics() if self.where == "everything" else scalar

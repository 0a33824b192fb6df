"""The control arm."""

from dataclasses import dataclass

from regrow.interventions.base import LearnerIntervention
from regrow.learners.learner import Learner
from regrow.types import Key


@dataclass(frozen=True)
class Nothing(LearnerIntervention):
    """Leaves the agent as it is: the control arm."""

    @property
    def keeps_output(self) -> bool:
        """True."""
        return True

    @property
    def is_random(self) -> bool:
        """The state stays."""
        return False

    def change(self, learner: Learner, key: Key) -> Learner:
        """The same Learner."""
        del key
        return learner

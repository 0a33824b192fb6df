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
        """Always True: nothing changes."""
        return True

    @property
    def is_random(self) -> bool:
        """Always False: nothing changes."""
        return False

    def change(self, learner: Learner, key: Key) -> Learner:
        """The Learner, unchanged."""
        del key
        return learner

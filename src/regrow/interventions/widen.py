"""Widening a network: a baseline for injection (arXiv 2305.15555)."""

from dataclasses import dataclass

from regrow.errors import require
from regrow.interventions.base import LearnerIntervention
from regrow.learners.learner import Learner
from regrow.learners.widening import widened
from regrow.types import Key


@dataclass(frozen=True)
class Widen(LearnerIntervention):
    """Makes every hidden layer wider, with the same output up to rounding.

    `factor` > 1 multiplies the number of units. New elements start with a fresh optimizer state;
    old ones keep theirs. Raises `RegrowError` for networks with layer normalisation, spectral
    normalisation or residual blocks, and if no layer would gain a unit.
    """

    factor: float = 2.0

    def __post_init__(self) -> None:
        require(
            1 < self.factor <= 64, f"widen: factor is {self.factor}; it must be above 1, at most 64"
        )

    @property
    def keeps_optimizer_tree(self) -> bool:
        """False: new elements have their own step counts."""
        return False

    @property
    def needs_hidden_units(self) -> bool:
        """Always True: it acts on hidden units only."""
        return True

    def change(self, learner: Learner, key: Key) -> Learner:
        """The widened Learner."""
        return widened(learner, self.factor, key)

"""A bigger network from here on: what injection is compared with (arXiv 2305.15555)."""

from dataclasses import dataclass

from regrow.errors import require
from regrow.interventions.base import LearnerIntervention
from regrow.learners.learner import Learner
from regrow.learners.widening import widened
from regrow.types import Key


@dataclass(frozen=True)
class Widen(LearnerIntervention):
    """Makes every hidden layer wider, with the output as it was up to rounding.

    `factor` > 1: how many times as many units. New elements begin with fresh optimizer statistics,
    old ones keep theirs. Raises `RegrowError` for networks with layer or spectral normalisation or
    with residual blocks, and where no layer would gain a unit.
    """

    factor: float = 2.0

    def __post_init__(self) -> None:
        require(
            1 < self.factor <= 64, f"widen: factor is {self.factor}; it must be above 1, at most 64"
        )

    @property
    def keeps_optimizer_tree(self) -> bool:
        """False: the elements that are new have ages of their own."""
        return False

    @property
    def needs_hidden_units(self) -> bool:
        """True."""
        return True

    def change(self, learner: Learner, key: Key) -> Learner:
        """The wider Learner."""
        return widened(learner, self.factor, key)

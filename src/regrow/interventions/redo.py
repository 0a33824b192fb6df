"""ReDo: recycling dormant neurons (Sokar et al. 2023, arXiv 2302.12902).

    s_i = E|h_i| / mean_k E|h_k|  within a layer;   unit i is dormant if s_i ≤ τ

Dormant units get new incoming weights from the layer's own initialiser and a bias as at the start;
their outgoing weights become 0. The published implementation keeps the old step count for the new
weights, which makes them step several times too far; here each of their elements is as old as it
is.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax

from regrow.errors import require
from regrow.interventions.base import Experience, LearnerIntervention, State, Updates
from regrow.learner import Learner
from regrow.types import Key
from regrow.units import activity, recycled, relative


@dataclass(frozen=True)
class Redo(LearnerIntervention):
    """Draws dormant hidden units anew and silences what they send (ReDo).

    `tau`: 0.025 as in the paper's default, 0.1 for high replay ratios, 0 for dead units alone.
    `transitions`: how many, from the replay, the activity is measured on. Raises `RegrowError` for
    a network without hidden units or with residual blocks.
    """

    tau: float = 0.025
    transitions: int = 256

    needs_experience: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.tau >= 0, f"redo: tau is {self.tau}; it must be 0 or more")
        require(
            self.transitions >= 1,
            f"redo: transitions is {self.transitions}; it must be at least 1",
        )

    @property
    def keeps_optimizer_tree(self) -> bool:
        """False: the elements that are new have ages of their own."""
        return False

    def __call__(self, state: State, *, agent: Updates, experience: Experience, key: Key) -> State:
        """The agent's state with its dormant units recycled."""
        sampling, drawing = jax.random.split(key)
        inputs = agent.inputs(experience.sample(sampling, self.transitions))

        def change(name: str, learner: Learner, key: Key) -> Learner:
            require(
                len(learner.network.layers) > 1,
                f"redo: the network of '{name}' has no hidden units",
            )
            scores = [relative(score) for score in activity(learner.network, inputs[name])]
            return recycled(learner, [score <= self.tau for score in scores], key)

        return self.mapped(change, state, drawing)

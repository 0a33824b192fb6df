"""ReDo: recycling dormant neurons (Sokar et al. 2023, arXiv 2302.12902).

    s_i = E|h_i| / mean_k E|h_k|  within a layer;   unit i is dormant if s_i ≤ τ

Dormant units get new incoming weights from the layer's initialiser and an initial bias. Their
outgoing weights become 0, and Adam's moments of both start at 0. The published implementation keeps
the old step count for the new weights, which makes their steps several times too large. Here each
new element has its own step count, starting at 0.
"""

from dataclasses import dataclass

import jax

from regrow.interventions.base import Recycling, State, Updates
from regrow.learners.learner import learners
from regrow.learners.recycling import activity
from regrow.types import Experience, Key


@dataclass(frozen=True)
class Redo(Recycling):
    """Re-initialises dormant hidden units and zeroes their outgoing weights (ReDo).

    `tau`: 0.025 is the paper's default, 0.1 its value for high replay ratios; 0 selects only dead
    units. `transitions`: how many to sample from the replay buffer to measure activity. Raises
    `RegrowError` for a network without hidden units or with residual blocks.
    """

    tau: float = 0.025

    def __call__(self, state: State, *, agent: Updates, experience: Experience, key: Key) -> State:
        """The agent's state with its dormant units recycled."""
        sampling, drawing = jax.random.split(key)
        inputs = agent.inputs(state, experience.sample(sampling, self.transitions))
        scores = {
            name: activity(learner.network, inputs[name])
            for name, learner in learners(state).items()
        }
        return self.renewed(state, scores, drawing)

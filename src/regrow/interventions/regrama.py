"""ReGraMa: recycling units that get little gradient (arXiv 2505.24061).

    G_i = E|∂L/∂z_i| / mean_k E|∂L/∂z_k|  within a layer;   unit i is recycled if G_i ≤ τ

The same as ReDo (see `redo`), including the optimizer state, but with a unit's gradient magnitude
in place of its activity. A unit may be active and no longer learn. Where activations are never
small (layer normalisation, smooth activations), only the gradient shows this.
"""

from dataclasses import dataclass

import jax

from regrow.interventions.base import Recycling, State, Updates
from regrow.learners.recycling import sensitivity
from regrow.types import Experience, Key


@dataclass(frozen=True)
class Regrama(Recycling):
    """Re-initialises hidden units that get almost no gradient (ReGraMa).

    `tau`: a unit is recycled if its gradient is at most `tau` times the mean of its layer.
    `transitions`: how many to sample from the replay buffer to measure gradients. Raises
    `RegrowError` for a network without hidden units or with residual blocks.
    """

    tau: float = 0.01

    def __call__(self, state: State, *, agent: Updates, experience: Experience, key: Key) -> State:
        """The agent's state with its low-gradient units recycled."""
        sampling, measuring, drawing = jax.random.split(key, 3)
        batch = experience.sample(sampling, self.transitions)
        return self.renewed(state, sensitivity(state, agent, batch, measuring), drawing)

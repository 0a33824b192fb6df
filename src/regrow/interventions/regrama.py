"""ReGraMa: recycling units that learn nothing (arXiv 2505.24061).

    G_i = E|∂L/∂z_i| / mean_k E|∂L/∂z_k|  within a layer;   unit i is quiet if G_i ≤ τ

As ReDo (see `redo`), in the optimizer too, with the size of the gradient for a unit in place of
its activity: a unit may be active and no longer learn, and where activations are never small (layer
normalisation, smooth activations) only the gradient shows it.
"""

from dataclasses import dataclass

import jax

from regrow.interventions.base import Recycling, State, Updates
from regrow.learners.recycling import sensitivity
from regrow.types import Experience, Key


@dataclass(frozen=True)
class Regrama(Recycling):
    """Draws hidden units anew that get next to no gradient (ReGraMa).

    `tau`: the share of the layer's mean below which a unit is quiet. `transitions`: how many, from
    the replay, the gradient is measured on. Raises `RegrowError` for a network without hidden
    units or with residual blocks.
    """

    tau: float = 0.01

    def __call__(self, state: State, *, agent: Updates, experience: Experience, key: Key) -> State:
        """The agent's state with its quiet units recycled."""
        sampling, measuring, drawing = jax.random.split(key, 3)
        batch = experience.sample(sampling, self.transitions)
        return self.renewed(state, sensitivity(state, agent, batch, measuring), drawing)

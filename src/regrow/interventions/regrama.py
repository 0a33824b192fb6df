"""ReGraMa: recycling units that learn nothing (arXiv 2505.24061).

    G_i = E|∂L/∂z_i| / mean_k E|∂L/∂z_k|  within a layer;   unit i is quiet if G_i ≤ τ

As ReDo (see `redo`), with the size of the gradient for a unit in place of its activity: a unit may
be active and no longer learn, and where activations are never small (layer normalisation, smooth
activations) only the gradient shows it.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax

from regrow.errors import require
from regrow.interventions.base import Experience, LearnerIntervention, State, Updates
from regrow.learner import Learner
from regrow.types import Key
from regrow.units import recycled, relative, sensitivity


@dataclass(frozen=True)
class Regrama(LearnerIntervention):
    """Draws hidden units anew that get next to no gradient (ReGraMa).

    `tau`: the share of the layer's mean below which a unit is quiet. `transitions`: how many, from
    the replay, the gradient is measured on. Raises `RegrowError` for a network without hidden
    units or with residual blocks.
    """

    tau: float = 0.01
    transitions: int = 256

    needs_experience: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.tau >= 0, f"regrama: tau is {self.tau}; it must be 0 or more")
        require(
            self.transitions >= 1,
            f"regrama: transitions is {self.transitions}; it must be at least 1",
        )

    @property
    def keeps_optimizer_tree(self) -> bool:
        """False: the elements that are new have ages of their own."""
        return False

    def __call__(self, state: State, *, agent: Updates, experience: Experience, key: Key) -> State:
        """The agent's state with its quiet units recycled."""
        sampling, measuring, drawing = jax.random.split(key, 3)
        batch = experience.sample(sampling, self.transitions)
        scores = sensitivity(state, agent, batch, measuring)

        def change(name: str, learner: Learner, key: Key) -> Learner:
            require(
                len(learner.network.layers) > 1,
                f"regrama: the network of '{name}' has no hidden units",
            )
            return recycled(learner, [relative(s) <= self.tau for s in scores[name]], key)

        return self.mapped(change, state, drawing)

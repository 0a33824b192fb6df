"""A stressor that takes the plasticity of one layer away: its units never fire again."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp

from regrow.errors import require
from regrow.interventions.base import LearnerIntervention
from regrow.learners.learner import Learner
from regrow.learners.recycling import shift_of
from regrow.networks.layers import Affine
from regrow.types import Key


@dataclass(frozen=True)
class Deaden(LearnerIntervention):
    """Kills units of one hidden layer: before their ReLU they are always far below zero.

    `layer`: which, from 0; `share` of its units, drawn at random. A dead unit sends nothing, gets
    no gradient and stays dead: a loss of plasticity of which the place is known, so that `regrow
    diagnose --where` can be checked. Raises `RegrowError` for a layer that is not hidden, or not of
    ReLUs.
    """

    layer: int = 1
    share: float = 1.0

    def __post_init__(self) -> None:
        require(self.layer >= 0, f"deaden: layer is {self.layer}; it must be 0 or more")
        require(0 < self.share <= 1, f"deaden: share is {self.share}; it must be in (0, 1]")

    @property
    def needs_hidden_units(self) -> bool:
        """True."""
        return True

    def change(self, learner: Learner, key: Key) -> Learner:
        """The Learner with dead units, and its target a copy."""
        hidden = len(learner.network.layers) - 1
        require(
            self.layer < hidden,
            f"deaden: layer is {self.layer}; the hidden layers are 0 to {hidden - 1}",
        )
        layer = learner.network.layers[self.layer]
        kind = layer.activation if isinstance(layer, Affine) else "residual"
        require(
            kind == "relu",
            f"deaden: layer {self.layer} is {kind!r}; it must be 'relu', silent far below zero",
        )
        count = max(round(self.share * layer.units), 1)
        dead = jax.random.permutation(key, layer.units) < count
        shift = shift_of(layer)
        lowered = jnp.where(jnp.expand_dims(dead, range(shift.ndim - 1)), _FAR_BELOW, shift)
        killed = eqx.tree_at(shift_of, layer, lowered)
        network = eqx.tree_at(lambda one: one.layers[self.layer], learner.network, killed)
        # What hooks remember is of units that lived: an average would wake them again.
        changed = learner.moved_to(network).with_fresh_hooks()
        return changed if changed.target is None else changed.sync()


_FAR_BELOW = -1e4

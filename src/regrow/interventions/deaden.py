"""A stressor that removes the plasticity of one layer: its units never fire again."""

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
    """Kills ReLU units of one hidden layer by setting their biases far below zero.

    `layer`: index of the layer, from 0. `share`: of its units, chosen at random. A dead unit
    outputs 0, gets no gradient and stays dead. This is a loss of plasticity in a known place, to
    test `regrow diagnose --where`. Raises `RegrowError` if the layer is not hidden or its
    activation is not ReLU.
    """

    layer: int = 1
    share: float = 1.0

    def __post_init__(self) -> None:
        require(self.layer >= 0, f"deaden: layer is {self.layer}; it must be 0 or more")
        require(0 < self.share <= 1, f"deaden: share is {self.share}; it must be in (0, 1]")

    @property
    def needs_hidden_units(self) -> bool:
        """Always True: it acts on hidden units only."""
        return True

    def change(self, learner: Learner, key: Key) -> Learner:
        """The Learner with dead units; its target becomes a copy."""
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
        lowered = jnp.where(jnp.expand_dims(dead, range(shift.ndim - 1)), FAR_BELOW, shift)
        killed = eqx.tree_at(shift_of, layer, lowered)
        network = eqx.tree_at(lambda one: one.layers[self.layer], learner.network, killed)
        # Hook state describes live units: a weight average, for example, would revive dead ones.
        changed = learner.moved_to(network).with_fresh_hooks()
        return changed if changed.target is None else changed.sync()


FAR_BELOW = -1e4
"""The bias of a dead unit."""

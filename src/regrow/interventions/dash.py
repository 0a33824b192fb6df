"""DASH: direction-aware shrinking (Shin et al. 2024, arXiv 2410.23495).

    e ← (1 − α)·e − α·∇L over batches;    w ← w · clamp(cos(e, w), λ, 1)

A unit's weights shrink if the negative gradient no longer points along them. The cosine is taken
over all incoming weights of a dense unit, over the kernel of each input channel of a convolutional
unit, and over all biases of a layer together, as in the authors' implementation.
"""

from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from regrow.errors import require
from regrow.interventions.base import SelectiveIntervention, State, Updates
from regrow.learners.learner import Learner
from regrow.networks.network import Network
from regrow.networks.residual import Layer, Residual
from regrow.types import Experience, Key

_TINY = 1e-16  # the published code guards each norm with 1e-8


@dataclass(frozen=True)
class Dash(SelectiveIntervention):
    """Shrinks each unit's weights the less they align with the negative gradient (DASH).

    `floor` λ: the smallest factor. `smoothing` α: of the moving average of the negative gradient
    over `batches` batches from the replay buffer. Normalisation and frozen heads are unchanged. The
    optimizer state is kept, as in the authors' code. The target becomes a copy of the network.
    """

    floor: float = 0.3
    smoothing: float = 0.3
    batches: int = 32

    needs_experience: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("floor", "smoothing"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"dash: {name} is {value}; it must be between 0 and 1")
        require(self.batches >= 1, f"dash: batches is {self.batches}; it must be at least 1")

    def __call__(self, state: State, *, agent: Updates, experience: Experience, key: Key) -> State:
        """The agent's state with its weights shrunk."""

        def one_batch(average: dict[str, PyTree], key: Key) -> tuple[dict[str, PyTree], None]:
            sampling, measuring = jax.random.split(key)
            batch = experience.sample(sampling, agent.rows_per_update)
            gradients = agent.gradients(state, batch, measuring)
            return jax.tree.map(self._followed, average, gradients), None

        keys = jax.random.split(key, self.batches)
        start = jax.eval_shape(
            lambda: agent.gradients(state, experience.sample(key, agent.rows_per_update), key)
        )
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), start)
        direction, _ = jax.lax.scan(one_batch, zeros, keys)

        def change(name: str, learner: Learner, key: Key) -> Learner:
            del key
            network = self._shrunk(learner.network, direction[name])
            target = None if learner.target is None else network
            moved = range(len(network.layers))
            return learner.with_moved_layers(network, target, moved=moved, moments="keep")

        return self.mapped(change, state, key)

    def _followed(self, average: Array, gradient: Array) -> Array:
        return (1 - self.smoothing) * average - self.smoothing * gradient

    def _shrunk(self, network: Network, direction: Network) -> Network:
        layers = [
            self._layer(layer, pull)
            for layer, pull in zip(network.layers, direction.layers, strict=True)
        ]
        return Network(layers, split=network.split, residual=network.residual)

    def _layer(self, layer: Layer, pull: Layer) -> Layer:
        if isinstance(layer, Residual):
            assert isinstance(pull, Residual), "a gradient has the layers of its network"
            both = self._layer(layer.inner, pull.inner), self._layer(layer.outer, pull.outer)
            return eqx.tree_at(lambda one: (one.inner, one.outer), layer, both)
        assert not isinstance(pull, Residual), "a gradient has the layers of its network"
        weight, bias = layer.weight, layer.bias
        # Per unit of a dense layer; per channel and unit of a convolution.
        axes = tuple(range(max(weight.ndim - 2, 1)))
        weight = weight * self._factor(pull.weight, weight, axes)
        bias = bias * self._factor(pull.bias, bias, (0,))
        return eqx.tree_at(lambda one: (one.weight, one.bias), layer, (weight, bias))

    def _factor(
        self, pull: Float[Array, "..."], weight: Float[Array, "..."], axes: tuple[int, ...]
    ) -> Float[Array, "..."]:
        dot = jnp.sum(pull * weight, axes, keepdims=True)
        norms = [jnp.sqrt(jnp.sum(x * x, axes, keepdims=True)) for x in (pull, weight)]
        return jnp.clip(dot / jnp.maximum(norms[0] * norms[1], _TINY), self.floor, 1.0)

"""Single units of a network: measuring their activity and re-initialising some of them.

In every array of a layer the last axis is its units. The next layer reads them along one axis of
its weight (after a convolution: at every position, with the channel varying fastest). Units are
handled by masks over the elements of a layer: the columns that compute a unit, and the rows that
read it. A unit with two output features is read along two rows. The units of a residual block are
not columns and rows of a single weight, so they can be measured but not recycled.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from regrow.errors import require
from regrow.learners.adam import renewed
from regrow.learners.learner import Learner, map_learners
from regrow.networks.layers import Conv
from regrow.networks.network import Network, Pair
from regrow.networks.residual import Layer, Residual
from regrow.types import Key, Transition

Masks = Sequence[Bool[Array, " _"]]


@runtime_checkable
class Gradients(Protocol):
    """What an agent must provide: gradients of its Learners."""

    def gradients(self, state: PyTree, batch: Transition, key: Key) -> dict[str, PyTree]:
        """The gradient for each Learner on a batch, by Learner name."""
        ...


def activity(
    network: Network, inputs: Shaped[Array, "batch *obs"]
) -> tuple[Float[Array, " _"], ...]:
    """E|h_i| for every unit of every hidden layer; for a convolution also over positions.

    For a unit with two output features it is the sum of both.
    """
    features = network.features(inputs)[1:-1]
    sizes = (layer.sizes(sent) for layer, sent in zip(network.layers, features, strict=False))
    return tuple(mean_size(size) for size in sizes)


def sensitivity(
    state: PyTree, agent: Gradients, batch: Transition, key: Key
) -> dict[str, tuple[Float[Array, " _"], ...]]:
    """E|∂L/∂z_i| for every hidden unit of every Learner, with z the pre-activation.

    The gradient for a bias is the gradient for z, summed over positions and transitions. To avoid
    the sums, every layer gets one bias per position, and every transition is a separate batch.
    """

    def wide(learner: Learner, key: Key) -> Learner:
        del key
        layers = tuple(with_shift_per_position(layer) for layer in learner.network.layers)
        return eqx.tree_at(lambda one: one.network.layers, learner, layers)

    state = map_learners(wide, state, key)
    singles = jax.tree.map(lambda x: x[:, None], batch)
    keys = jax.random.split(key, len(batch.action))
    gradients = jax.vmap(lambda one, key: agent.gradients(state, one, key))(singles, keys)
    return {
        name: tuple(mean_size(shift_of(layer)) for layer in gradient.layers[:-1])
        for name, gradient in gradients.items()
    }


def quiet(score: Float[Array, " units"], tau: float) -> Bool[Array, " units"]:
    """s_i ≤ τ · mean_k s_k within a layer; True for every unit if all scores are 0."""
    return score <= tau * score.mean()


def mean_size(values: Float[Array, "... units"]) -> Float[Array, " units"]:
    """E|x_i| for every unit, over all axes but the last."""
    return jnp.abs(values).reshape(-1, values.shape[-1]).mean(axis=0)


def shift_of(layer: Any) -> Any:
    """The last bias before a layer's activation; its gradient on one transition is that for z.

    A residual block has no activation after its sum, so there it is the gradient for the stream.
    Untyped, because `eqx.tree_at` calls it with placeholders instead of arrays.
    """
    if isinstance(layer, Residual):
        return shift_of(layer.outer) if layer.final is None else layer.final.bias
    return layer.bias if layer.norm is None else layer.norm.bias


def with_shift_per_position(layer: Layer) -> Layer:
    """The same layer with a separate bias for every unit at every position."""
    shift = shift_of(layer)
    if not isinstance(layer, Conv) or shift.ndim == 3:
        return layer
    wide = jnp.broadcast_to(shift[None, None], (*layer.image, layer.units))
    return eqx.tree_at(shift_of, layer, wide)


def columns(layer: Layer, units: Bool[Array, " units"]) -> PyTree:
    """Mask of the elements of a layer that compute the given units, with the layer's shapes."""

    def marked(leaf: Array) -> Bool[Array, "..."]:
        # A bias shared by all units is re-initialised only together with all of them.
        own = units if leaf.shape[-1] == len(units) else jnp.all(units, keepdims=True)
        return jnp.broadcast_to(jnp.expand_dims(own, range(leaf.ndim - 1)), leaf.shape)

    return jax.tree.map(marked, layer)


def rows(layer: Layer, units: Bool[Array, " units"]) -> PyTree:
    """Mask of the elements of a layer that read the given units of the layer below."""
    assert not isinstance(layer, Residual), "a block passes on what it reads"
    weight = layer.weight
    read = jnp.tile(units, weight.size // weight.shape[-1] // len(units))
    read = jnp.broadcast_to(read.reshape(*weight.shape[:-1], 1), weight.shape)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, bool), layer)
    return eqx.tree_at(lambda one: one.weight, nothing, read)


def require_recyclable(network: Network) -> None:
    """Raises `RegrowError` for residual blocks: units are then read beyond the next layer."""
    require(
        not any(isinstance(layer, Residual) for layer in network.layers),
        "this network has residual blocks, past which every unit is heard: none can be recycled",
    )


def recycled(learner: Learner, masks: Masks, key: Key) -> Learner:
    """A Learner with the masked hidden units re-initialised and their outgoing weights zeroed.

    `masks`: one per hidden layer. Incoming weights are drawn by the layer's initialiser. Outgoing
    weights become 0, also in frozen heads that read the unit. The optimizer statistics of both are
    reset, each element's age included. The target is unchanged until it is next updated. The state
    of hooks is kept. If the next layer has spectral normalisation, zeroing weights changes its
    spectral norm.

    Raises `RegrowError` for a network with residual blocks.
    """
    network = learner.network
    require_recyclable(network)
    layers, fresh = list(network.layers), network.fresh(key).layers
    new = [columns(layer, jnp.zeros(layer.units, bool)) for layer in layers]
    for i, mask in enumerate(masks):
        incoming, outgoing = columns(layers[i], mask), rows(layers[i + 1], mask)
        layers[i] = _where(incoming, fresh[i], layers[i])
        layers[i + 1] = _without(layers[i + 1], mask)
        new[i] = jax.tree.map(jnp.logical_or, new[i], incoming)
        new[i + 1] = jax.tree.map(jnp.logical_or, new[i + 1], outgoing)
    residual = tuple(
        _deaf(pair, masks[pair.depth - 1]) if pair.depth else pair for pair in network.residual
    )
    network = Network(layers, split=network.split, residual=residual)
    fresh_statistics = [learner.optimizer.init(layer) for layer in layers]
    live = [
        renewed(*each)
        for each in zip(learner.statistics, fresh_statistics, new, layers, strict=False)
    ]
    statistics = (*live, *learner.statistics[len(layers) :])
    return learner.moved_to(network, statistics=statistics)


def recycled_where_any(learner: Learner, masks: Masks, key: Key) -> Learner:
    """`recycled` if any unit is masked; ages must already be counted per element.

    It branches, because `recycled` initialises a whole network to select from. Use it for hooks,
    which run at every update but rarely re-initialise a unit.
    """
    some = jnp.any(jnp.concatenate(masks))
    return jax.lax.cond(
        some, lambda learner: recycled(learner, masks, key), lambda learner: learner, learner
    )


def _deaf(pair: Pair, units: Bool[Array, " units"]) -> Pair:
    """A frozen pair with zero weights for some units of the layer it reads."""
    old = pair.old
    layers = (_without(old.layers[0], units), *old.layers[1:])
    inner = tuple(_deaf(inner, units) if inner.depth == 0 else inner for inner in old.residual)
    old = Network(layers, split=old.split, residual=inner)
    copy = pair.copy and (_without(pair.copy[0], units), *pair.copy[1:])
    return Pair(old, copy, pair.depth, pair.frozen)


def _without(layer: Layer, units: Bool[Array, " units"]) -> Layer:
    """A layer with zero weights for some units of the layer below."""
    read = rows(layer, units)
    return jax.tree.map(lambda leaf, gone: jnp.where(gone, 0.0, leaf), layer, read)


def _where(mask: PyTree, yes: PyTree, no: PyTree) -> PyTree:
    return jax.tree.map(jnp.where, mask, yes, no)

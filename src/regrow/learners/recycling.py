"""Single units of a network: how much each does, and drawing some of them anew.

In every array of a layer the last axis is its units, and what follows a layer reads them along one
axis of its weight (after a convolution: at every position, the channel fastest). All that is done
to units here is a mask over the elements of a layer: the columns that make a unit, the rows that
read it. A unit that sends two features is read along two rows. The units of a residual block are no
columns and rows of one weight; they are measured, and not recycled.
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
    """What an agent must offer: the gradient of each Learner on a batch, by its name."""

    def gradients(self, state: PyTree, batch: Transition, key: Key) -> dict[str, PyTree]:
        """The gradient of each Learner on a batch."""
        ...


def activity(
    network: Network, inputs: Shaped[Array, "batch *obs"]
) -> tuple[Float[Array, " _"], ...]:
    """E|h_i| for every unit of every hidden layer; over positions too for a convolution.

    Of a unit that sends two features it is the sum of both.
    """
    features = network.features(inputs)[1:-1]
    sizes = (layer.sizes(sent) for layer, sent in zip(network.layers, features, strict=False))
    return tuple(mean_size(size) for size in sizes)


def sensitivity(
    state: PyTree, agent: Gradients, batch: Transition, key: Key
) -> dict[str, tuple[Float[Array, " _"], ...]]:
    """E|∂L/∂z_i| for every unit of every hidden layer of every Learner, z before the activation.

    The gradient for a bias is that for z summed over positions. So every layer gets one for each
    position, and every transition is a batch of its own.
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
    """s_i ≤ τ · mean_k s_k within a layer; in one that does nothing at all every unit counts."""
    return score <= tau * score.mean()


def mean_size(values: Float[Array, "... units"]) -> Float[Array, " units"]:
    """E|x_i| for every unit, over all axes but the last."""
    return jnp.abs(values).reshape(-1, values.shape[-1]).mean(axis=0)


def shift_of(layer: Any) -> Any:
    """What a layer adds last before its activation: its gradient on a transition is that for z.

    A block has no activation after its sum, so there it is the gradient for the stream. Untyped,
    since `eqx.tree_at` asks it for the place and not for the array.
    """
    if isinstance(layer, Residual):
        return shift_of(layer.outer) if layer.final is None else layer.final.bias
    return layer.bias if layer.norm is None else layer.norm.bias


def with_shift_per_position(layer: Layer) -> Layer:
    """The same layer with a shift of its own for every unit at every position."""
    shift = shift_of(layer)
    if not isinstance(layer, Conv) or shift.ndim == 3:
        return layer
    wide = jnp.broadcast_to(shift[None, None], (*layer.image, layer.units))
    return eqx.tree_at(shift_of, layer, wide)


def columns(layer: Layer, units: Bool[Array, " units"]) -> PyTree:
    """Which elements of a layer make some of its units: booleans of the layer's shape."""

    def marked(leaf: Array) -> Bool[Array, "..."]:
        # A bias that all units share is made anew with all of them.
        own = units if leaf.shape[-1] == len(units) else jnp.all(units, keepdims=True)
        return jnp.broadcast_to(jnp.expand_dims(own, range(leaf.ndim - 1)), leaf.shape)

    return jax.tree.map(marked, layer)


def rows(layer: Layer, units: Bool[Array, " units"]) -> PyTree:
    """Which elements of a layer read some units of the layer below, all that they send."""
    assert not isinstance(layer, Residual), "a block passes on what it reads"
    weight = layer.weight
    read = jnp.tile(units, weight.size // weight.shape[-1] // len(units))
    read = jnp.broadcast_to(read.reshape(*weight.shape[:-1], 1), weight.shape)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, bool), layer)
    return eqx.tree_at(lambda one: one.weight, nothing, read)


def require_recyclable(network: Network) -> None:
    """Raises `RegrowError` where a unit is heard past the next layer: none can be renewed then."""
    require(
        not any(isinstance(layer, Residual) for layer in network.layers),
        "this network has residual blocks, past which every unit is heard: none can be recycled",
    )


def recycled(learner: Learner, masks: Masks, key: Key) -> Learner:
    """A Learner in which the masked hidden units are drawn anew and nobody listens to them yet.

    `masks`: one per hidden layer. What comes in is drawn by the layer's own initialiser; what goes
    out is 0, in frozen heads that read the unit too. The statistics of both start anew, each
    element's age included. A target follows when it is next copied; memories of hooks
    stay. Where the layer above divides
    by its spectral norm, that is another one without those weights.

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
    """`recycled`, but only where some unit is masked; ages must be counted by element already.

    A branch, where `recycled` itself draws a whole network to choose from. It is for what acts at
    every update and renews a unit now and then.
    """
    some = jnp.any(jnp.concatenate(masks))
    return jax.lax.cond(
        some, lambda learner: recycled(learner, masks, key), lambda learner: learner, learner
    )


def _deaf(pair: Pair, units: Bool[Array, " units"]) -> Pair:
    """A pair that no longer hears some units of the layer it reads."""
    old = pair.old
    layers = (_without(old.layers[0], units), *old.layers[1:])
    inner = tuple(_deaf(inner, units) if inner.depth == 0 else inner for inner in old.residual)
    old = Network(layers, split=old.split, residual=inner)
    copy = pair.copy and (_without(pair.copy[0], units), *pair.copy[1:])
    return Pair(old, copy, pair.depth, pair.frozen)


def _without(layer: Layer, units: Bool[Array, " units"]) -> Layer:
    """A layer that reads nothing from some units below."""
    read = rows(layer, units)
    return jax.tree.map(lambda leaf, gone: jnp.where(gone, 0.0, leaf), layer, read)


def _where(mask: PyTree, yes: PyTree, no: PyTree) -> PyTree:
    return jax.tree.map(jnp.where, mask, yes, no)

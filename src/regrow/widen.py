"""Growing a network in width: more hidden units from here on, and the output stays.

Old units do not hear new ones (those weights are 0), so nothing changes at first; but a weight that
is 0 learns, for its gradient is not. Frozen heads of earlier injections never hear the new units.
"""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from regrow.adam import aged, over_part
from regrow.errors import require
from regrow.layers import Layer
from regrow.learner import Learner
from regrow.network import Network, Pair
from regrow.types import Key


def widened(learner: Learner, factor: float, key: Key) -> Learner:
    """A Learner with `factor` times as many units in every hidden layer, that computes what it did.

    What is new is drawn by the layers' own initialisers and its statistics start with it. The
    target gets the same units, and memories of habits begin anew. Raises `RegrowError` for a
    network without hidden units, or with layer normalisation, whose means the new units would move.
    """
    layers = learner.network.layers
    require(len(layers) > 1, "widen: this network has no hidden units")
    require(
        all(layer.norm is None for layer in layers),
        "widen: this network has layer normalisation, so new units would change its output",
    )
    counts = [round(factor * layer.units) for layer in layers[:-1]]
    drawn = [
        layer.fresh(k, below=below, units=units)
        for layer, below, units, k in zip(
            layers,
            [None, *counts],
            [*counts, None],
            jax.random.split(key, len(layers)),
            strict=True,
        )
    ]
    network = _grown(learner.network, drawn, counts)
    target = None if learner.target is None else _grown(learner.target, drawn, counts)
    live = [
        over_part(_corner, (aged(state, old), aged(learner.optimizer.init(new), new)), old)
        for state, old, new in zip(learner.statistics, layers, network.layers, strict=False)
    ]
    statistics = (*live, *learner.statistics[len(live) :])
    wider = replace(learner, network=network, target=target, statistics=statistics)
    return wider.with_memories_anew()


def _grown(network: Network, drawn: list[Layer], counts: list[int]) -> Network:
    layers = [_corner(old, new) for old, new in zip(network.layers, drawn, strict=True)]
    residual = tuple(
        _unhearing(pair, counts[pair.depth - 1]) if pair.depth else pair
        for pair in network.residual
    )
    return Network(layers, split=network.split, residual=residual)


def _corner(old: Layer, drawn: Layer) -> Layer:
    """A wider layer, or its statistics, with the old ones in the corner that they fill.

    Between, where old units read new ones below, are zeros.
    """
    units = old.units
    was, into = _by_channel(old), _by_channel(drawn)
    below = was.shape[1]
    weight = into.at[:, below:, :units].set(0).at[:, :below, :units].set(was)
    bias = drawn.bias.at[:units].set(old.bias)
    return _with(drawn, weight, bias)


def _by_channel(layer: Layer) -> Array:
    """The weight with axes (position, channel below, unit)."""
    weight = layer.weight
    return weight.reshape(-1, layer.below, weight.shape[-1])


def _with(layer: Layer, weight: Array, bias: Array) -> Layer:
    weight = weight.reshape(layer.weight.shape)
    return eqx.tree_at(lambda one: (one.weight, one.bias), layer, (weight, bias))


def _unhearing(pair: Pair, below: int) -> Pair:
    """A frozen pair above a layer that grew to `below` units, of which it reads the old ones."""
    old = pair.old
    inner = tuple(_unhearing(one, below) if one.depth == 0 else one for one in old.residual)
    layers = (_padded(old.layers[0], below), *old.layers[1:])
    copy = pair.copy and (_padded(pair.copy[0], below), *pair.copy[1:])
    return Pair(Network(layers, split=old.split, residual=inner), copy, pair.depth, pair.frozen)


def _padded(layer: Layer, below: int) -> Layer:
    drawn = layer.fresh(jax.random.key(0), below=below)
    was = _by_channel(layer)
    weight = jnp.zeros(_by_channel(drawn).shape).at[:, : was.shape[1]].set(was)
    return eqx.tree_at(
        lambda one: one.norm, _with(drawn, weight, layer.bias), layer.norm, is_leaf=_is_none
    )


def _is_none(node: PyTree) -> bool:
    return node is None

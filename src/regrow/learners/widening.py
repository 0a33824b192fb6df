"""Widening a network: more hidden units, with the same output.

The weights from new units to old ones are 0, so the output is unchanged at first. These weights
still learn, because their gradient is not 0. Frozen heads of earlier injections never read the new
units.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from regrow.errors import RegrowError, require
from regrow.learners.adam import aged, over_part
from regrow.learners.learner import Learner
from regrow.networks.layers import Conv, Dense
from regrow.networks.network import Network, Pair
from regrow.networks.residual import Layer, Residual
from regrow.types import Key

Plain = Dense | Conv


def widened(learner: Learner, factor: float, key: Key) -> Learner:
    """A Learner with `factor` times as many units in every hidden layer and the same output.

    New parameters are drawn by the layers' initialisers, with fresh optimizer statistics. The
    target gets the same new units. The state of hooks is re-initialised. Raises `RegrowError` for a
    network without hidden units, for one in which new units would affect old ones (residual blocks,
    layer or spectral normalisation), and if no layer would gain a unit.
    """
    layers = _plain(learner.network)
    counts = [round(factor * layer.units) for layer in layers[:-1]]
    widest = max(layer.units for layer in layers[:-1])
    require(
        max(counts) > widest,
        f"widen: factor is {factor}, by which no hidden layer gains a unit; "
        f"{(widest + 1) / widest:.6g} gives one to the widest, of {widest}",
    )
    sent = [layer.copies * count for layer, count in zip(layers, counts, strict=False)]
    drawn = [
        layer.fresh(k, below=below, units=units)
        for layer, below, units, k in zip(
            layers,
            [None, *sent],
            [*counts, None],
            jax.random.split(key, len(layers)),
            strict=True,
        )
    ]
    network = _grown(learner.network, drawn, counts)
    target = None if learner.target is None else _grown(learner.target, drawn, counts)
    live = [
        over_part(
            functools.partial(_corner, copies=copies),
            (aged(state, old), aged(learner.optimizer.init(new), new)),
            old,
        )
        for state, old, new, copies in zip(
            learner.statistics, layers, network.layers, _copies_below(layers), strict=False
        )
    ]
    statistics = (*live, *learner.statistics[len(live) :])
    wider = learner.moved_to(network, target=target, statistics=statistics)
    return wider.with_fresh_hooks()


def _plain(network: Network) -> tuple[Plain, ...]:
    """The layers, if all of them can be widened without changing the output."""
    refusal = "so new units would change its output"
    plain: list[Plain] = []
    for layer in network.layers:
        if isinstance(layer, Residual):
            raise RegrowError(f"widen: this network has residual blocks, {refusal}")
        require(layer.norm is None, f"widen: this network has layer normalisation, {refusal}")
        require(
            not layer.spectral_norm, f"widen: this network has spectral normalisation, {refusal}"
        )
        plain.append(layer)
    require(len(plain) > 1, "widen: this network has no hidden units")
    return tuple(plain)


def _copies_below(layers: tuple[Plain, ...]) -> list[int]:
    """For every layer, the number of output features per unit of the layer below."""
    return [1, *(layer.copies for layer in layers[:-1])]


def _grown(network: Network, drawn: list[Plain], counts: list[int]) -> Network:
    layers = _plain(network)
    copies = _copies_below(layers)
    wider = [_corner(*each) for each in zip(layers, drawn, copies, strict=True)]
    residual = tuple(
        _unhearing(pair, counts[pair.depth - 1], copies[pair.depth]) if pair.depth else pair
        for pair in network.residual
    )
    return Network(wider, split=network.split, residual=residual)


def _corner(old: Plain, drawn: Plain, copies: int) -> Plain:
    """A wider layer, or its statistics, with the old values in one corner.

    The weights with which old units read new units below are 0.
    """
    units = old.units
    was, into = _by_unit_below(old, copies), _by_unit_below(drawn, copies)
    below = was.shape[2]
    weight = into.at[:, :, below:, :units].set(0).at[:, :, :below, :units].set(was)
    bias = drawn.bias.at[:units].set(old.bias)
    return _with(drawn, weight, bias)


def _by_unit_below(layer: Plain, copies: int) -> Array:
    """The weight with axes (position, feature of a unit below, unit below, unit)."""
    weight = layer.weight
    return weight.reshape(-1, copies, layer.below // copies, weight.shape[-1])


def _with(layer: Plain, weight: Array, bias: Array) -> Plain:
    weight = weight.reshape(layer.weight.shape)
    return eqx.tree_at(lambda one: (one.weight, one.bias), layer, (weight, bias))


def _unhearing(pair: Pair, below: int, copies: int) -> Pair:
    """A frozen pair above a layer widened to `below` units; it reads only the old ones."""
    old = pair.old
    inner = tuple(_unhearing(one, below, copies) if one.depth == 0 else one for one in old.residual)
    layers = (_padded(old.layers[0], below, copies), *old.layers[1:])
    copy = pair.copy and (_padded(pair.copy[0], below, copies), *pair.copy[1:])
    return Pair(Network(layers, split=old.split, residual=inner), copy, pair.depth, pair.frozen)


def _padded(layer: Layer, below: int, copies: int) -> Layer:
    assert not isinstance(layer, Residual), "a live network of plain layers has plain frozen ones"
    drawn = layer.fresh(jax.random.key(0), below=copies * below)
    was = _by_unit_below(layer, copies)
    weight = jnp.zeros(_by_unit_below(drawn, copies).shape).at[:, :, : was.shape[2]].set(was)
    return _with(drawn, weight, layer.bias)

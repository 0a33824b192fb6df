"""Networks of an encoder, a head and a frozen residual, for plasticity injection.

    out(x) = R(φ(x)) + h(φ(x)),        R = 0 before the first injection

Plasticity injection (Nikishin et al. 2023, arXiv 2305.15555, expression 1) draws a new head θ'. It
replaces R by R + (h_θ − h_θ'), with both frozen, and h by a copy of h_θ' that learns. The output
does not change, *not even in the last bit*: terms are summed as old + (live − copy), and the
bracket is exactly zero at the moment of injection.

A network is a chain of layers; `split` is where the encoder ends and the head begins. Every frozen
pair stores the depth of the chain at which it reads, so each injection may have its own split. If
splits differ, pairs may move and the sum is regrouped, which is equal up to rounding.

Calls take one observation or a batch of them.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Shaped

from regrow.errors import require
from regrow.networks.architecture import PLAIN, Architecture
from regrow.networks.initialisers import Initialiser
from regrow.networks.layers import Conv, Dense
from regrow.networks.residual import Layer
from regrow.types import Key


def _through(layers: Sequence[Layer], x: Array) -> Array:
    return functools.reduce(lambda features, layer: layer(features), layers, x)


def _fresh(layers: Sequence[Layer], key: Key) -> tuple[Layer, ...]:
    keys = jax.random.split(key, len(layers))
    return tuple(layer.fresh(k) for layer, k in zip(layers, keys, strict=True))


class Pair(eqx.Module):
    """What one injection adds: the old head, and the copy that is subtracted.

    Both read the features at `depth`. `copy` is None if the third term is left out
    (`subtract=False`); `frozen` is False if the old head continues to learn (`freeze=False`).
    """

    old: "Network"
    copy: tuple[Layer, ...] | None
    depth: int = eqx.field(static=True)
    frozen: bool = eqx.field(static=True)


class Network(eqx.Module):
    """A chain of layers, cut into encoder and head at `split`, plus frozen pairs.

    **Arguments:** `layers`: the chain; `split`: how many of them are the encoder, from 0 (an
    injected head shares nothing) to all of them (a network without a head, which other networks
    read). **Raises** `RegrowError` for another split.
    """

    layers: tuple[Layer, ...]
    residual: tuple[Pair, ...]
    split: int = eqx.field(static=True)

    def __init__(self, layers: Sequence[Layer], *, split: int = 0, residual: tuple[Pair, ...] = ()):
        self.layers = tuple(layers)
        self.residual = residual
        require(
            0 <= split <= len(self.layers),
            f"split is {split}; with {len(self.layers)} layers it must be 0 to {len(self.layers)}",
        )
        self.split = split

    @property
    def encoder(self) -> tuple[Layer, ...]:
        """The layers below the split."""
        return self.layers[: self.split]

    @property
    def head(self) -> tuple[Layer, ...]:
        """The layers from the split on, which an injection or a reset of the head replaces."""
        return self.layers[self.split :]

    def features(self, x: Shaped[Array, "..."]) -> tuple[Array, ...]:
        """The input, then the output of every layer of the live chain."""
        features: list[Array] = [x.astype(jnp.float32)]
        for layer in self.layers:
            features.append(layer(features[-1]))
        return tuple(features)

    def __call__(self, x: Shaped[Array, "..."]) -> Float[Array, "*batch outputs"]:
        """The outputs for observations; after an injection, old + (live − copy)."""
        features = self.features(x)
        if not self.residual:
            return features[-1]
        heads = [pair.old(features[pair.depth]) for pair in self.residual] + [features[-1]]
        out = heads[0]
        for pair, head in zip(self.residual, heads[1:], strict=True):
            if pair.copy is not None:
                head = head - _through(pair.copy, features[pair.depth])
            out = out + head
        return out

    def parts(self) -> tuple[PyTree, ...]:
        """The trainable parts: every live layer, then the layers of unfrozen old heads.

        The optimizer has a state, with its own step count, for each of them.
        """
        thawed = [pair.old.parts() for pair in self.residual if not pair.frozen]
        return (*self.layers, *(part for parts in thawed for part in parts))

    def trainable(self) -> PyTree[bool]:
        """A pytree like this one: True for trainable parameters, False for frozen ones."""
        everything = [jax.tree.map(lambda _: True, part) for part in self.parts()]
        return jax.tree.map(lambda _: False, self).with_parts(everything)

    def with_parts(self, parts: Sequence[PyTree]) -> "Network":
        """This network, or a pytree of its shape, with its trainable parts replaced."""
        layers, rest = parts[: len(self.layers)], list(parts[len(self.layers) :])
        residual: list[Pair] = []
        for pair in self.residual:
            old = pair.old
            if not pair.frozen:
                count = len(old.parts())
                old, rest = old.with_parts(rest[:count]), rest[count:]
            residual.append(Pair(old, pair.copy, pair.depth, pair.frozen))
        return Network(layers, split=self.split, residual=tuple(residual))

    def fresh(self, key: Key) -> "Network":
        """A newly initialised network of the same architecture, without injections."""
        return Network(_fresh(self.layers, key), split=self.split)

    def reset(self, start: int, key: Key) -> "Network":
        """Re-initialises the layers from `start` on, and drops the residual.

        Predictions are meant to start over, so no frozen pair may keep the old ones.
        """
        return self.reset_with_origins(start, key).network

    def reset_with_origins(self, start: int, key: Key) -> "Rebuilt":
        """`reset`, and where the parts of the new network come from."""
        start = _checked_split(start, len(self.layers))
        fresh = _fresh(self.layers[start:], key)
        network = Network((*self.layers[:start], *fresh), split=self.split)
        return Rebuilt(network, (*range(start), *(None for _ in fresh)))

    def inject(
        self, key: Key, *, split: int | None = None, subtract: bool = True, freeze: bool = True
    ) -> "Network":
        """Plasticity injection (arXiv 2305.15555, expression 1) with a new head drawn from `key`.

        `subtract=False` leaves out the third term, so the output changes by h_θ'(φ). `freeze=False`
        lets the old head continue to learn. Raises `RegrowError` for a split that leaves no head.
        """
        injected = self.inject_with_origins(key, split=split, subtract=subtract, freeze=freeze)
        return injected.network

    def inject_with_origins(
        self, key: Key, *, split: int | None = None, subtract: bool = True, freeze: bool = True
    ) -> "Rebuilt":
        """`inject`, and where the parts of the new network come from."""
        split = _checked_split(self.split if split is None else split, len(self.layers))
        fresh = _fresh(self.layers[split:], key)
        # Pairs that read above the new split read features that are frozen now, so they move into
        # the old head.
        above = [
            Pair(pair.old, pair.copy, pair.depth - split, pair.frozen)
            for pair in self.residual
            if pair.depth > split
        ]
        below = [pair for pair in self.residual if pair.depth <= split]
        old = Network(self.layers[split:], residual=tuple(above))
        pair = Pair(old, fresh if subtract else None, split, freeze)
        network = Network((*self.layers[:split], *fresh), split=split, residual=(*below, pair))
        thawed_below, thawed_above = self._thawed(split)
        in_old_head = () if freeze else (*range(split, len(self.layers)), *thawed_above)
        origins = (*range(split), *(None for _ in fresh), *thawed_below, *in_old_head)
        return Rebuilt(network, origins)

    def _thawed(self, split: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The parts of unfrozen old heads that read at or below a split, and those above it."""
        below, above, at = list[int](), list[int](), len(self.layers)
        for pair in self.residual:
            if not pair.frozen:
                count = len(pair.old.parts())
                (below if pair.depth <= split else above).extend(range(at, at + count))
                at += count
        return tuple(below), tuple(above)


Origins = tuple[int | None, ...]
"""For every part of a new network, the index of its old part, or None if newly initialised."""


class Rebuilt(NamedTuple):
    """A network made from another one, and where its parts come from."""

    network: Network
    origins: Origins


def _checked_split(split: int, layers: int) -> int:
    require(
        0 <= split < layers,
        f"split {split} is outside the network: its {layers} layers can be cut "
        f"at 0 to {layers - 1}",
    )
    return split


def mlp(
    inputs: int,
    hidden: Sequence[int],
    outputs: int,
    style: Architecture = PLAIN,
    *,
    key: Key,
) -> Network:
    """Dense layers, or residual blocks, and a linear output; the head is all but the first layer.

    Raises `RegrowError` for impossible sizes.
    """
    keys = tuple(jax.random.split(key, len(hidden) + 1))
    return Network(style.chain((inputs,), hidden, outputs, keys), split=min(1, len(hidden)))


def convolutional(
    image: tuple[int, int, int],
    channels: int,
    hidden: int | Sequence[int],
    outputs: int,
    style: Architecture = PLAIN,
    *,
    divisor: float = 1.0,
    key: Key,
) -> Network:
    """The MinAtar network of Young & Tian 2019 (arXiv 1903.03176): 3×3 conv, hidden layer, output.

    The convolution is the encoder; the dense layers (or blocks) are the head. `divisor`: what
    images are divided by. Raises `RegrowError` for impossible sizes.
    """
    hidden = (hidden,) if isinstance(hidden, int) else hidden
    keys = tuple(jax.random.split(key, len(hidden) + 2))
    conv = style.conv(image, channels, divisor=divisor, key=keys[0])
    shape = (*conv.image, conv.width)
    return Network([conv, *style.chain(shape, hidden, outputs, keys[1:])], split=1)


def with_output(network: Network, init: Initialiser, key: Key) -> Network:
    """The network with its linear output re-initialised by another initialiser."""
    last = network.layers[-1]
    assert isinstance(last, Dense), "networks end in a dense layer"
    output = Dense(last.shape, last.units, activation="linear", init=init, key=key)
    return Network([*network.layers[:-1], output], split=network.split)


def dqn_zoo(image: tuple[int, int, int], outputs: int, *, key: Key) -> Network:
    """The Atari network of DQN Zoo's Double DQN, for uint8 frames, which it divides by 255.

    Convolutions: 32 of 8×8 with stride 4, 64 of 4×4 with stride 2, 64 of 3×3 with stride 1. Then
    512 hidden units, and an output with one bias for all actions. Every weight and bias is
    U(±1/√n), with n the fan-in. The convolutions are the encoder. Raises `RegrowError` for an image
    that is too small.
    """
    keys = jax.random.split(key, 5)
    layers: list[Layer] = []
    divisor = 255.0
    for (units, size, stride), one in zip(
        ((32, 8, 4), (64, 4, 2), (64, 3, 1)), keys[:3], strict=True
    ):
        conv = Conv(image, units, size=size, stride=stride, init="torch", divisor=divisor, key=one)
        layers.append(conv)
        image, divisor = (*conv.image, units), 1.0
    layers.append(Dense(image, 512, init="torch", key=keys[3]))
    out = Dense(512, outputs, activation="linear", init="torch", shared_bias=True, key=keys[4])
    return Network([*layers, out], split=3)

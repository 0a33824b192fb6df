"""Architecture: the options that the layers of a network share, and the chain made of them.

Sizes are counted in features, which the next layer reads. "crelu" and "fourier" output two features
per unit, so a layer with them has half as many units and all widths stay the same (as in
awjuliani's deep-rl-plasticity; others let widths double, which here means twice the size).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from regrow.errors import require
from regrow.networks.activations import Activation, units_for
from regrow.networks.initialisers import Initialiser
from regrow.networks.layers import Conv, Dense
from regrow.networks.residual import Block, Layer, Residual
from regrow.types import Key

Kind = Literal["dense", "simba", "bro"]


@dataclass(frozen=True)
class Architecture:
    """The options that the layers of a network share.

    `activation`: of hidden layers, also within blocks. `layer_norm`: before the activation, in
    every hidden layer outside of blocks. `block`: "dense", or the kind of residual block that
    replaces the hidden dense layers after the first. `spectral_norm`: of the last hidden dense
    layer, which is enough (arXiv 2105.05246), or of the weights of every block. `initialiser`: of
    every layer; None is "lecun_uniform", and with blocks that of their authors.
    """

    activation: Activation = "relu"
    layer_norm: bool = False
    spectral_norm: bool = False
    block: Kind = "dense"
    initialiser: Initialiser | None = None

    def conv(
        self, image: tuple[int, int, int], channels: int, *, divisor: float = 1.0, key: Key
    ) -> Conv:
        """A 3×3 convolution with `channels` output channels."""
        return Conv(
            image,
            units_for(channels, self.activation, "channels"),
            activation=self.activation,
            layer_norm=self.layer_norm,
            init=self.initialiser or "lecun_uniform",
            divisor=divisor,
            key=key,
        )

    def chain(
        self, shape: tuple[int, ...], hidden: Sequence[int], outputs: int, keys: Sequence[Key]
    ) -> list[Layer]:
        """The hidden layers and the linear output, for inputs of `shape`; one key per layer."""
        if self.block != "dense":
            return self._blocks(self.block, shape, hidden, outputs, keys)
        layers: list[Layer] = []
        for i, (features, key) in enumerate(zip(hidden, keys[:-1], strict=True)):
            layer = Dense(
                shape,
                units_for(features, self.activation, "hidden"),
                activation=self.activation,
                layer_norm=self.layer_norm,
                spectral_norm=self.spectral_norm and i == len(hidden) - 1,
                init=self.initialiser or "lecun_uniform",
                key=key,
            )
            layers.append(layer)
            shape = (layer.width,)
        init = self.initialiser or "lecun_uniform"
        return [*layers, Dense(shape, outputs, activation="linear", init=init, key=keys[-1])]

    def _blocks(
        self,
        block: Block,
        shape: tuple[int, ...],
        hidden: Sequence[int],
        outputs: int,
        keys: Sequence[Key],
    ) -> list[Layer]:
        """The dense layer in front of the stream, the blocks, and the output.

        SimBa's first layer is linear and its last block is normalised; BRO's first is
        Dense-LN-ReLU.
        """
        width = hidden[0] if hidden else 0
        require(
            len(hidden) > 1 and set(hidden) == {width},
            f"hidden is {tuple(hidden)}; with block '{block}' it must be the width of the stream, "
            "once for its first layer and once for each block",
        )
        simba = block == "simba"
        first: Activation = "linear" if simba else self.activation
        init: Initialiser = self.initialiser or ("orthonormal" if simba else "orthogonal")
        stem = Dense(
            shape,
            units_for(width, first, "hidden"),
            activation=first,
            layer_norm=not simba or self.layer_norm,
            init=init,
            key=keys[0],
        )
        blocks = [
            Residual(
                width,
                kind=block,
                activation=self.activation,
                final=simba and i == len(hidden) - 2,
                spectral_norm=self.spectral_norm,
                init=self.initialiser,
                key=key,
            )
            for i, key in enumerate(keys[1:-1])
        ]
        return [stem, *blocks, Dense(width, outputs, activation="linear", init=init, key=keys[-1])]


PLAIN = Architecture()

"""Architecture: what the layers of a network have in common, and the chain that comes of it.

Sizes are counted in features, what the next layer reads: with "crelu" and "fourier", of which a
unit sends two, a layer has half as many units, and all widths stay (as awjuliani's
deep-rl-plasticity has it; others let widths double, which here is twice the size).
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
    """What the layers of a network have in common.

    `activation`: of hidden layers, within blocks too. `layer_norm`: before the activation, in every
    hidden layer outside of blocks. `block`: "dense", or which residual blocks stand in place of the
    hidden dense layers but the first. `spectral_norm`: of the last hidden dense layer, which is
    enough (arXiv 2105.05246), or of the weights of every block. `initialiser`: of every layer; None
    is "lecun_uniform", and with blocks that of their authors.
    """

    activation: Activation = "relu"
    layer_norm: bool = False
    spectral_norm: bool = False
    block: Kind = "dense"
    initialiser: Initialiser | None = None

    def conv(
        self, image: tuple[int, int, int], channels: int, *, divisor: float = 1.0, key: Key
    ) -> Conv:
        """A convolution of 3×3 that sends so many channels."""
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
        """The hidden layers and the linear output, for inputs of `shape`; a key for each."""
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
        """A dense layer that begins the stream, the blocks on it, and the output.

        SimBa's first layer is linear and its last block normalised; BRO's first is Dense-LN-ReLU.
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

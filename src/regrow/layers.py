"""Layers: what a network is a chain of.

Every call takes any number of leading batch axes, none included.
"""

import abc
import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from regrow.errors import require
from regrow.types import Key

Activation = Literal["relu", "linear"]


def _lecun_uniform(key: Key, shape: tuple[int, ...], fan_in: int) -> Float[Array, "..."]:
    """U(±√(3 / fan_in)): unit variance in, unit variance out (LeCun et al. 1998)."""
    bound = (3.0 / fan_in) ** 0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


class Affine(eqx.Module):
    """What dense and convolutional layers have in common: x ↦ activation(norm(x·W + b)).

    The last axis of every array is the units.
    """

    weight: Float[Array, "*reads units"]
    bias: Float[Array, " units"]
    norm: eqx.nn.LayerNorm | None
    activation: Activation = eqx.field(static=True)

    @property
    def units(self) -> int:
        """How many units (of a convolution: at every position)."""
        return self.weight.shape[-1]

    @property
    @abc.abstractmethod
    def below(self) -> int:
        """How many channels it reads at every position."""

    def _finished(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """What becomes of the products x·W of inputs and weights."""
        z = z + jnp.expand_dims(self.bias, range(z.ndim - self.bias.ndim))
        if self.norm is not None:
            norm = self.norm
            for _ in range(z.ndim - len(norm.shape)):
                norm = jax.vmap(norm)
            z = norm(z)
        return jax.nn.relu(z) if self.activation == "relu" else z


class Dense(Affine):
    """A dense layer; an image is flattened first, its last axis fastest."""

    shape: tuple[int, ...] = eqx.field(static=True)  # of one input

    def __init__(
        self,
        shape: int | tuple[int, ...],
        units: int,
        *,
        activation: Activation = "relu",
        layer_norm: bool = False,
        key: Key,
    ):
        self.shape = (shape,) if isinstance(shape, int) else shape
        inputs = math.prod(self.shape)
        self.weight = _lecun_uniform(key, (inputs, units), inputs)
        self.bias = jnp.zeros(units)
        self.norm = eqx.nn.LayerNorm(units) if layer_norm else None
        self.activation = activation

    @property
    def below(self) -> int:
        """How many channels it reads at every position."""
        return self.shape[-1]

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "*batch units"]:
        """The units for inputs of shape (*batch, *shape)."""
        batch = x.shape[: x.ndim - len(self.shape)]
        return self._finished(x.reshape(*batch, -1) @ self.weight)

    def fresh(self, key: Key, *, below: int | None = None, units: int | None = None) -> "Dense":
        """A layer of this architecture with parameters newly drawn by its own initialiser.

        `below`, `units`: other numbers of channels that it reads, and of units, than it has.
        """
        return Dense(
            (*self.shape[:-1], below or self.below),
            units or self.units,
            activation=self.activation,
            layer_norm=self.norm is not None,
            key=key,
        )


class Conv(Affine):
    """A square convolution without padding, on images of shape (height, width, channels).

    It is written as shifted slices and one matrix product, which XLA runs about twice as fast on a
    CPU as its own convolution at these sizes.
    """

    stride: int = eqx.field(static=True)
    image: tuple[int, int] = eqx.field(static=True)  # height and width of the output

    def __init__(
        self,
        image: tuple[int, int, int],
        units: int,
        *,
        size: int = 3,
        stride: int = 1,
        activation: Activation = "relu",
        layer_norm: bool = False,
        key: Key,
    ):
        height, width, inputs = image
        require(
            min(height, width) >= size,
            f"an image of {height}×{width} is smaller than the kernel of {size}×{size}",
        )
        self.weight = _lecun_uniform(key, (size, size, inputs, units), size * size * inputs)
        self.bias = jnp.zeros(units)
        self.stride = stride
        self.image = ((height - size) // stride + 1, (width - size) // stride + 1)
        self.norm = eqx.nn.LayerNorm((*self.image, units)) if layer_norm else None
        self.activation = activation

    @property
    def below(self) -> int:
        """How many channels it reads at every position."""
        return self.weight.shape[2]

    def __call__(
        self, x: Float[Array, "*batch height width inputs"]
    ) -> Float[Array, "*batch h w units"]:
        """The units at every position of images."""
        rows, columns = (self._shifts(length) for length in self.image)
        patches = jnp.concatenate(
            [x[..., row, column, :] for row in rows for column in columns], axis=-1
        )
        return self._finished(patches @ self.weight.reshape(-1, self.units))

    def _shifts(self, length: int) -> list[slice]:
        """For every offset within the kernel, where it falls as the kernel slides."""
        span = self.stride * (length - 1) + 1
        return [slice(at, at + span, self.stride) for at in range(self.weight.shape[0])]

    def fresh(self, key: Key, *, below: int | None = None, units: int | None = None) -> "Conv":
        """A layer of this architecture with parameters newly drawn by its own initialiser.

        `below`, `units`: other numbers of channels that it reads, and of units, than it has.
        """
        size = self.weight.shape[0]
        height, width = (self.stride * (side - 1) + size for side in self.image)
        return Conv(
            (height, width, below or self.below),
            units or self.units,
            size=size,
            stride=self.stride,
            activation=self.activation,
            layer_norm=self.norm is not None,
            key=key,
        )


Layer = Dense | Conv

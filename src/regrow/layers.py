"""Layers: what a network is a chain of.

Every call takes any number of leading batch axes, none included.
"""

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


@jax.custom_vjp
def product(x: Float[Array, "*batch inputs"], w: Float[Array, "inputs units"]) -> Array:
    """x·w, with the two products of its gradient in the order that XLA's CPU backend is fast at.

    Any number of batch axes; give it the whole batch rather than a `vmap` of it. As with every
    `custom_vjp` there is no forward mode on it; forward over reverse (`jvp` of `grad`) works.
    """
    return x @ w


def _product_forward(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ w, (x, w)


def _product_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    # XLA's fast path takes row-major a·b only: a transposed operand costs up to twice the time, and
    # a transposition left in sight is folded into the product. `hold` hides it. Measured with 1024
    # inputs, 128 units and 32 rows: dx 200 → 85 µs, dw 142 → 91 µs; dw of the convolution 103 → 54.
    x, w = saved
    rows, columns = x.reshape(-1, w.shape[0]), g.reshape(-1, w.shape[1])
    hold = jax.lax.optimization_barrier
    dx = hold(w @ hold(columns.T)).T.reshape(x.shape)
    if rows.size > columns.size + w.size:  # what each way has to transpose
        return dx, hold(hold(columns.T) @ rows).T
    # Alone, the transposition would be fused with the activation before it and read memory in
    # strides of 4 kB (65 µs); a concatenation is never fused (4 + 10 µs).
    wide = hold(jnp.concatenate([rows, rows[:, :16]], axis=-1))
    return dx, hold(wide[:, : w.shape[0]].T) @ columns


product.defvjp(_product_forward, _product_backward)


def _normalised(norm: eqx.nn.LayerNorm | None, z: Float[Array, "..."]) -> Float[Array, "..."]:
    if norm is None:
        return z
    for _ in range(z.ndim - len(norm.shape)):
        norm = jax.vmap(norm)
    return norm(z)


def _activated(activation: Activation, z: Float[Array, "..."]) -> Float[Array, "..."]:
    return jax.nn.relu(z) if activation == "relu" else z


class Dense(eqx.Module):
    """x ↦ activation(norm(x·W + b)); an image is flattened first, its last axis fastest."""

    weight: Float[Array, "inputs units"]
    bias: Float[Array, " units"]
    norm: eqx.nn.LayerNorm | None
    shape: tuple[int, ...] = eqx.field(static=True)  # of one input
    activation: Activation = eqx.field(static=True)

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
    def units(self) -> int:
        """How many units (of a convolution: at every position)."""
        return self.weight.shape[-1]

    @property
    def below(self) -> int:
        """How many channels it reads at every position."""
        return self.shape[-1]

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "*batch units"]:
        """The units for inputs of shape (*batch, *shape)."""
        batch = x.shape[: x.ndim - len(self.shape)]
        z = product(x.reshape(*batch, -1), self.weight)
        z = z + jnp.expand_dims(self.bias, range(len(batch)))
        return _activated(self.activation, _normalised(self.norm, z))

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


class Conv(eqx.Module):
    """A square convolution without padding, on images of shape (height, width, channels).

    It is written as shifted slices and one matrix product, which XLA runs about twice as fast on a
    CPU as its own convolution at these sizes.
    """

    weight: Float[Array, "size size inputs units"]
    bias: Float[Array, " units"]
    norm: eqx.nn.LayerNorm | None
    stride: int = eqx.field(static=True)
    image: tuple[int, int] = eqx.field(static=True)  # height and width of the output
    activation: Activation = eqx.field(static=True)

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
    def units(self) -> int:
        """How many units (of a convolution: at every position)."""
        return self.weight.shape[-1]

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
        z = product(patches, self.weight.reshape(-1, self.units))
        z = z + jnp.expand_dims(self.bias, range(z.ndim - self.bias.ndim))
        return _activated(self.activation, _normalised(self.norm, z))

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

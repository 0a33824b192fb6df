"""Layers: what a network is a chain of.

Every call takes any number of leading batch axes, none included.
"""

import abc
import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from regrow.errors import require
from regrow.networks.activations import Activation, activated, copies_of
from regrow.networks.initialisers import Initialiser, drawn
from regrow.networks.matmul import product
from regrow.types import Key

Padding = Literal["VALID", "SAME"]


def normalised(norm: eqx.nn.LayerNorm | None, z: Float[Array, "..."]) -> Float[Array, "..."]:
    """Layer normalisation over the last axes, if there is one."""
    if norm is None:
        return z
    for _ in range(z.ndim - len(norm.shape)):
        norm = jax.vmap(norm)
    return norm(z)


def largest_singular_value(matrix: Float[Array, "reads units"]) -> Float[Array, ""]:
    """σ_max of a matrix by 10 power iterations from a fixed start (arXiv 1802.05957).

    σ = uᵀWv with u and v held constant, so ∂σ/∂W = u vᵀ. It is never too large. For a matrix that
    is noise alone, as at the start, it is up to 10% too small; once a direction stands out, 1e-4.
    The source makes one iteration for each update and carries u and v along; its σ lags behind W,
    and is no function of W alone.
    """
    held = jax.lax.stop_gradient(matrix)
    start = np.random.default_rng(0).standard_normal(matrix.shape[1])
    # A loop, since ten times its steps for every layer of every head take long to compile.
    v = jax.lax.fori_loop(
        0, 10, lambda _, v: _unit(held.T @ _unit(held @ v)), jnp.asarray(start, jnp.float32)
    )
    return _unit(held @ v) @ matrix @ v


def _unit(v: Float[Array, " n"]) -> Float[Array, " n"]:
    return v / jnp.maximum(jnp.linalg.norm(v), 1e-12)


class Affine(eqx.Module):
    """What dense and convolutional layers have in common: x ↦ activation(norm(x·W + b)).

    The last axis of every array is the units. `layer_norm` normalises z before the activation.
    `spectral_norm` puts W / σ_max(W) in place of W, a kernel flattened to a row for each number
    that a unit reads. `init` draws W and b, here and in `fresh`.
    """

    weight: Float[Array, "*reads units"]
    bias: Float[Array, " biases"]
    norm: eqx.nn.LayerNorm | None
    activation: Activation = eqx.field(static=True)
    spectral_norm: bool = eqx.field(static=True)
    init: Initialiser = eqx.field(static=True)

    @property
    def units(self) -> int:
        """How many units (of a convolution: at every position)."""
        return self.weight.shape[-1]

    @property
    def copies(self) -> int:
        """How many features each unit sends."""
        return copies_of(self.activation)

    @property
    def width(self) -> int:
        """How many channels it sends at every position."""
        return self.copies * self.units

    @property
    @abc.abstractmethod
    def below(self) -> int:
        """How many channels it reads at every position."""

    def sizes(self, features: Float[Array, "*batch width"]) -> Float[Array, "*batch units"]:
        """How much each unit sends: |h_i|, or |h_i| + |h_{units + i}| where it sends two."""
        size = jnp.abs(features)
        if self.copies == 1:
            return size
        return size.reshape(*size.shape[:-1], self.copies, self.units).sum(axis=-2)

    def _matrix(self) -> Float[Array, "reads units"]:
        """The weight that inputs meet, a row for each number that a unit reads."""
        matrix = self.weight.reshape(-1, self.units)
        return matrix / largest_singular_value(matrix) if self.spectral_norm else matrix

    def _finished(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """What becomes of the products x·W of inputs and weights."""
        z = z + jnp.expand_dims(self.bias, range(z.ndim - self.bias.ndim))
        return activated(self.activation, normalised(self.norm, z))

    def _options(self) -> dict[str, Any]:
        """What a fresh layer is to have in common with this one, whatever its kind."""
        return {
            "activation": self.activation,
            "layer_norm": self.norm is not None,
            "spectral_norm": self.spectral_norm,
            "init": self.init,
        }


class Dense(Affine):
    """A dense layer; an image is flattened first, its last axis fastest.

    `shared_bias`: one bias for all units, of a linear layer. Raises `RegrowError` for another.
    """

    shape: tuple[int, ...] = eqx.field(static=True)  # of one input

    def __init__(
        self,
        shape: int | tuple[int, ...],
        units: int,
        *,
        activation: Activation = "relu",
        layer_norm: bool = False,
        spectral_norm: bool = False,
        init: Initialiser = "lecun_uniform",
        shared_bias: bool = False,
        key: Key,
    ):
        require(
            not shared_bias or activation == "linear",
            f"a bias is shared with activation '{activation}'; only a linear layer can have that",
        )
        self.shape = (shape,) if isinstance(shape, int) else shape
        self.weight, bias = drawn(init, key, (math.prod(self.shape), units))
        self.bias = bias[:1] if shared_bias else bias
        self.norm = eqx.nn.LayerNorm(units, dtype=jnp.float32) if layer_norm else None
        self.activation = activation
        self.spectral_norm = spectral_norm
        self.init = init

    @property
    def below(self) -> int:
        """How many channels it reads at every position."""
        return self.shape[-1]

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "*batch width"]:
        """What the units send for inputs of shape (*batch, *shape)."""
        batch = x.shape[: x.ndim - len(self.shape)]
        return self._finished(product(x.reshape(*batch, -1), self._matrix()))

    def fresh(self, key: Key, *, below: int | None = None, units: int | None = None) -> "Dense":
        """A layer of this architecture with parameters newly drawn by its own initialiser.

        `below`, `units`: other numbers of channels that it reads, and of units, than it has.
        """
        return Dense(
            (*self.shape[:-1], below or self.below),
            units or self.units,
            shared_bias=self.bias.shape != (self.units,),
            key=key,
            **self._options(),
        )


class Conv(Affine):
    """A square convolution on images of shape (height, width, channels).

    `padding`: none ("VALID"), or so many zeros that a kernel begins at every `stride`-th pixel
    ("SAME", as XLA has it: an odd one goes behind). `divisor`: what images are divided by on entry,
    255 for frames of bytes.
    """

    stride: int = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)
    image: tuple[int, int] = eqx.field(static=True)  # height and width of the output
    divisor: float = eqx.field(static=True)

    def __init__(
        self,
        image: tuple[int, int, int],
        units: int,
        *,
        size: int = 3,
        stride: int = 1,
        padding: Padding = "VALID",
        activation: Activation = "relu",
        layer_norm: bool = False,
        spectral_norm: bool = False,
        init: Initialiser = "lecun_uniform",
        divisor: float = 1.0,
        key: Key,
    ):
        height, width, inputs = image
        require(
            padding == "SAME" or min(height, width) >= size,
            f"an image of {height}×{width} is smaller than the kernel of {size}×{size}",
        )
        self.weight, self.bias = drawn(init, key, (size, size, inputs, units))
        self.stride = stride
        self.padding = padding
        left_out = size - 1 if padding == "VALID" else 0  # where no kernel can begin
        self.image = (-(-(height - left_out) // stride), -(-(width - left_out) // stride))
        shape = (*self.image, units)
        self.norm = eqx.nn.LayerNorm(shape, dtype=jnp.float32) if layer_norm else None
        self.activation = activation
        self.spectral_norm = spectral_norm
        self.init = init
        self.divisor = divisor

    @property
    def below(self) -> int:
        """How many channels it reads at every position."""
        return self.weight.shape[2]

    def __call__(
        self, x: Float[Array, "*batch height width inputs"]
    ) -> Float[Array, "*batch h w channels"]:
        """What the units send at every position of images."""
        if self.divisor != 1.0:
            x = x / self.divisor
        reads = self.weight.size // self.units
        return self._finished(self._by_xla(x) if reads >= _LARGE else self._by_slices(x))

    def _by_slices(self, x: Float[Array, "*batch height width inputs"]) -> Float[Array, "..."]:
        """Shifted slices and one matrix product."""
        if self.padding == "SAME":
            strides, kernel = (self.stride, self.stride), self.weight.shape[:2]
            sides = jax.lax.padtype_to_pads(x.shape[-3:-1], kernel, strides, "SAME")
            x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [*sides, (0, 0)])
        rows, columns = (self._shifts(length) for length in self.image)
        patches = jnp.concatenate(
            [x[..., row, column, :] for row in rows for column in columns], axis=-1
        )
        return product(patches, self._matrix())

    def _by_xla(self, x: Float[Array, "*batch height width inputs"]) -> Float[Array, "..."]:
        """XLA's own convolution, which takes one batch axis."""
        out = jax.lax.conv_general_dilated(
            x.reshape(-1, *x.shape[-3:]),
            self._matrix().reshape(self.weight.shape),
            (self.stride, self.stride),
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return out.reshape(*x.shape[:-3], *out.shape[1:])

    def _shifts(self, length: int) -> list[slice]:
        """For every offset within the kernel, where it falls as the kernel slides."""
        span = self.stride * (length - 1) + 1
        return [slice(at, at + span, self.stride) for at in range(self.weight.shape[0])]

    def fresh(self, key: Key, *, below: int | None = None, units: int | None = None) -> "Conv":
        """A layer of this architecture with parameters newly drawn by its own initialiser.

        `below`, `units`: other numbers of channels that it reads, and of units, than it has.
        """
        size = self.weight.shape[0]
        left_out = size - 1 if self.padding == "VALID" else 0
        height, width = (self.stride * (side - 1) + 1 + left_out for side in self.image)
        return Conv(
            (height, width, below or self.below),
            units or self.units,
            size=size,
            stride=self.stride,
            padding=self.padding,
            divisor=self.divisor,
            key=key,
            **self._options(),
        )


_LARGE = 128
"""Numbers read by a unit from which on XLA's convolution is the faster one on a CPU.

With 36 (3×3 of MinAtar) slices and a matrix product take 0.6 of its time; with 256 and more (Atari)
up to twice as long.
"""

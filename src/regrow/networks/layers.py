"""The layers that a network is a chain of.

Every call takes any number of leading batch axes, including none.
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

    σ = uᵀWv with u and v treated as constants, so ∂σ/∂W = u vᵀ. It is never too large. For a random
    matrix, as at initialisation, it is up to 10% too small; once a direction dominates, 1e-4. The
    paper makes one iteration per update and carries u and v along; its σ lags behind W, and is not
    a function of W alone.
    """
    held = jax.lax.stop_gradient(matrix)
    start = np.random.default_rng(0).standard_normal(matrix.shape[1])
    # A loop, since ten unrolled steps for every layer of every head take long to compile.
    v = jax.lax.fori_loop(
        0, 10, lambda _, v: _unit(held.T @ _unit(held @ v)), jnp.asarray(start, jnp.float32)
    )
    return _unit(held @ v) @ matrix @ v


def _unit(v: Float[Array, " n"]) -> Float[Array, " n"]:
    return v / jnp.maximum(jnp.linalg.norm(v), 1e-12)


class Affine(eqx.Module):
    """What dense and convolutional layers share: x ↦ activation(norm(x·W + b)).

    The last axis of every array is the units. `layer_norm`: normalises z before the activation.
    `spectral_norm`: replaces W by W / σ_max(W), with a kernel flattened to one row per input of a
    unit. `init`: initialises W and b, here and in `fresh`.
    """

    weight: Float[Array, "*reads units"]
    bias: Float[Array, " biases"]
    norm: eqx.nn.LayerNorm | None
    activation: Activation = eqx.field(static=True)
    spectral_norm: bool = eqx.field(static=True)
    init: Initialiser = eqx.field(static=True)

    @property
    def units(self) -> int:
        """The number of units (of a convolution: at every position)."""
        return self.weight.shape[-1]

    @property
    def copies(self) -> int:
        """The number of features that each unit outputs."""
        return copies_of(self.activation)

    @property
    def width(self) -> int:
        """The number of channels that it outputs at every position."""
        return self.copies * self.units

    @property
    @abc.abstractmethod
    def below(self) -> int:
        """The number of channels that it reads at every position."""

    def sizes(self, features: Float[Array, "*batch width"]) -> Float[Array, "*batch units"]:
        """The magnitude of each unit's output: |h_i|, or |h_i| + |h_{units + i}| if it has two."""
        size = jnp.abs(features)
        if self.copies == 1:
            return size
        return size.reshape(*size.shape[:-1], self.copies, self.units).sum(axis=-2)

    def _matrix(self) -> Float[Array, "reads units"]:
        """The effective weight matrix, with one row per input of a unit."""
        matrix = self.weight.reshape(-1, self.units)
        return matrix / largest_singular_value(matrix) if self.spectral_norm else matrix

    def _finished(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """The outputs for the products x·W of inputs and weights."""
        z = z + jnp.expand_dims(self.bias, range(z.ndim - self.bias.ndim))
        return activated(self.activation, normalised(self.norm, z))

    def _options(self) -> dict[str, Any]:
        """The options that a fresh layer shares with this one, whatever its kind."""
        return {
            "activation": self.activation,
            "layer_norm": self.norm is not None,
            "spectral_norm": self.spectral_norm,
            "init": self.init,
        }


class Dense(Affine):
    """A dense layer; an image is flattened first, its last axis fastest.

    `shared_bias`: one bias for all units, in a linear layer; raises `RegrowError` in any other.
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
        """The number of channels that it reads at every position."""
        return self.shape[-1]

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "*batch width"]:
        """The outputs of the units for inputs of shape (*batch, *shape)."""
        batch = x.shape[: x.ndim - len(self.shape)]
        return self._finished(product(x.reshape(*batch, -1), self._matrix()))

    def fresh(self, key: Key, *, below: int | None = None, units: int | None = None) -> "Dense":
        """A new layer of this architecture, initialised by its own initialiser.

        `below`, `units`: the number of channels that it reads, and of units, if other than here.
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

    `padding`: none ("VALID"), or as many zeros as let a kernel begin at every `stride`-th pixel
    ("SAME", as in XLA: an odd one goes at the end). `divisor`: what input images are divided by,
    255 for uint8 frames.
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
        """The number of channels that it reads at every position."""
        return self.weight.shape[2]

    def __call__(
        self, x: Float[Array, "*batch height width inputs"]
    ) -> Float[Array, "*batch h w channels"]:
        """The outputs of the units at every position of images."""
        if self.divisor != 1.0:
            x = x / self.divisor
        reads = self.weight.size // self.units
        return self._finished(self._by_xla(x) if reads >= _LARGE else self._by_slices(x))

    def _by_slices(self, x: Float[Array, "*batch height width inputs"]) -> Float[Array, "..."]:
        """By shifted slices and one matrix product."""
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
        """By XLA's own convolution, which takes one batch axis."""
        out = jax.lax.conv_general_dilated(
            x.reshape(-1, *x.shape[-3:]),
            self._matrix().reshape(self.weight.shape),
            (self.stride, self.stride),
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return out.reshape(*x.shape[:-3], *out.shape[1:])

    def _shifts(self, length: int) -> list[slice]:
        """For every offset within the kernel, the pixels that it meets as the kernel slides."""
        span = self.stride * (length - 1) + 1
        return [slice(at, at + span, self.stride) for at in range(self.weight.shape[0])]

    def fresh(self, key: Key, *, below: int | None = None, units: int | None = None) -> "Conv":
        """A new layer of this architecture, initialised by its own initialiser.

        `below`, `units`: the number of channels that it reads, and of units, if other than here.
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
"""The fan-in from which on XLA's convolution is faster on a CPU.

With 36 (3×3 of MinAtar), slices and a matrix product take 0.6 of its time; with 256 and more
(Atari) up to twice as long.
"""

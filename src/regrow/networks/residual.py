"""Residual blocks: x ↦ x + f(x), where f is two dense layers, as one layer of the chain.

    SimBa (arXiv 2410.09754)   f(x) = W₂·relu(W₁·LN(x) + b₁) + b₂,      W₁ four times as wide as x
    BRO   (arXiv 2405.16158)   f(x) = LN(W₂·relu(LN(W₁·x + b₁)) + b₂)

Both follow the authors' code. SimBa's last block is followed by a layer normalisation.

A block outputs its input stream with something added. So its units, which probes count, are the
features of the stream after it. None of them belongs to one row or one column of one weight, so
units of a block cannot be recycled, widened or killed, and an attempt raises an error.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from regrow.errors import require
from regrow.networks.activations import Activation, units_for
from regrow.networks.initialisers import Initialiser
from regrow.networks.layers import Conv, Dense, normalised
from regrow.types import Key

Block = Literal["simba", "bro"]
_PUBLISHED: dict[Block, Initialiser] = {"simba": "he_normal", "bro": "orthogonal"}


class Residual(eqx.Module):
    """A residual block on vectors of `units` numbers.

    `activation`: within the block. `final`: whether a layer normalisation follows. `spectral_norm`:
    of both weights. `init`: None is the published initialiser.
    """

    norm: eqx.nn.LayerNorm | None  # of the input of the first weight
    inner: Dense
    outer: Dense
    final: eqx.nn.LayerNorm | None
    kind: Block = eqx.field(static=True)

    def __init__(
        self,
        units: int,
        *,
        kind: Block = "simba",
        activation: Activation = "relu",
        final: bool = False,
        spectral_norm: bool = False,
        init: Initialiser | None = None,
        key: Key,
    ):
        simba = kind == "simba"
        keys = iter(jax.random.split(key))
        wide = (4 if simba else 1) * units

        def dense(reads: int, units: int, activation: Activation) -> Dense:
            return Dense(
                reads,
                units,
                activation=activation,
                layer_norm=not simba,
                spectral_norm=spectral_norm,
                init=init or _PUBLISHED[kind],
                key=next(keys),
            )

        self.norm = eqx.nn.LayerNorm(units, dtype=jnp.float32) if simba else None
        self.inner = dense(units, units_for(wide, activation, "the width of a block"), activation)
        self.outer = dense(wide, units, "linear")
        self.final = eqx.nn.LayerNorm(units, dtype=jnp.float32) if final else None
        self.kind = kind

    @property
    def units(self) -> int:
        """The width of the stream."""
        return self.outer.units

    @property
    def below(self) -> int:
        """The number of channels that it reads, which is that of its outputs."""
        return self.units

    @property
    def copies(self) -> int:
        """One: each number of the stream is one feature."""
        return 1

    @property
    def width(self) -> int:
        """The number of channels that it outputs."""
        return self.units

    def sizes(self, features: Float[Array, "*batch units"]) -> Float[Array, "*batch units"]:
        """|h_i| of the stream after the block."""
        return jnp.abs(features)

    def __call__(self, x: Float[Array, "*batch units"]) -> Float[Array, "*batch units"]:
        """The stream after the block."""
        added = self.outer(self.inner(normalised(self.norm, x)))
        return normalised(self.final, x + added)

    def fresh(self, key: Key, *, below: int | None = None, units: int | None = None) -> "Residual":
        """A new block of this architecture, initialised by its own initialiser.

        Raises `RegrowError` if it is to read another number of channels than it outputs.
        """
        units = units or self.units
        require(
            (below or units) == units,
            f"a residual block reads {below} channels and sends {units}; both must be one number",
        )
        return Residual(
            units,
            kind=self.kind,
            activation=self.inner.activation,
            final=self.final is not None,
            spectral_norm=self.inner.spectral_norm,
            init=self.inner.init,
            key=key,
        )


Layer = Dense | Conv | Residual

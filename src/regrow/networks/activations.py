"""Activations: what a unit makes of its z, by name, and how many features it sends.

Two of them send two features for every unit, and what follows reads twice as many channels: "crelu"
[relu(z), relu(−z)] (Abbas et al. 2023, arXiv 2303.07507) and "fourier" [sin z, cos z] (Lewandowski
et al. 2024, arXiv 2410.20634). On the last axis come the first features of all units, then the
second ones: unit i sends features i and units + i.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from regrow.errors import require

Activation = Literal["relu", "linear", "tanh", "crelu", "fourier"]


def activated(activation: Activation, z: Float[Array, "..."]) -> Float[Array, "..."]:
    """What units send for their z; the last axis is the units, and then the features."""
    match activation:
        case "relu":
            return jax.nn.relu(z)
        case "tanh":
            return jnp.tanh(z)
        case "crelu":
            return jnp.concatenate([jax.nn.relu(z), jax.nn.relu(-z)], axis=-1)
        case "fourier":
            return jnp.concatenate([jnp.sin(z), jnp.cos(z)], axis=-1)
        case "linear":
            return z


def copies_of(activation: Activation) -> int:
    """How many features a unit sends."""
    return 2 if activation in ("crelu", "fourier") else 1


def units_for(features: int, activation: Activation, what: str) -> int:
    """How many units send so many features. Raises `RegrowError` if none do; `what` names them."""
    copies = copies_of(activation)
    require(
        features % copies == 0,
        f"{what} is {features}; with activation '{activation}', of which a unit sends two "
        "features, it must be even",
    )
    return features // copies

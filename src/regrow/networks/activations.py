"""Activations, by name, and how many features a unit outputs.

Two of them output two features per unit, so the next layer reads twice as many channels: "crelu"
[relu(z), relu(−z)] (Abbas et al. 2023, arXiv 2303.07507) and "fourier" [sin z, cos z] (Lewandowski
et al. 2024, arXiv 2410.20634). The last axis has the first features of all units, then the second
ones: unit i outputs features i and units + i.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from regrow.errors import require

Activation = Literal["relu", "linear", "tanh", "crelu", "fourier"]


def activated(activation: Activation, z: Float[Array, "..."]) -> Float[Array, "..."]:
    """The outputs of units for their pre-activations z; the last axis is units, then features."""
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
    """The number of features that a unit outputs."""
    return 2 if activation in ("crelu", "fourier") else 1


def units_for(features: int, activation: Activation, what: str) -> int:
    """The number of units with `features` outputs; `RegrowError`, which names `what`, if none."""
    copies = copies_of(activation)
    require(
        features % copies == 0,
        f"{what} is {features}; with activation '{activation}', of which a unit sends two "
        "features, it must be even",
    )
    return features // copies

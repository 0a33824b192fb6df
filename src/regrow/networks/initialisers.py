"""Initialisers of a layer's weight and bias, by name."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from regrow.errors import require
from regrow.types import Key

Initialiser = Literal[
    "lecun_uniform",
    "lecun_normal",
    "he_normal",
    "orthogonal",
    "orthonormal",
    "orthogonal_small",
    "orthogonal_halves",
    "torch",
]
_GAINS = {"orthogonal": 2**0.5, "orthonormal": 1.0, "orthogonal_small": 0.01}
_VARIANCES = {"lecun_normal": 1.0, "he_normal": 2.0}  # times the fan-in


def drawn(
    name: Initialiser, key: Key, shape: tuple[int, ...]
) -> tuple[Float[Array, "..."], Float[Array, " units"]]:
    """(a weight of `shape`, its last axis the units; a bias per unit).

    With fan-in n: "lecun_uniform" is U(±√(3/n)), which preserves unit variance (LeCun et al. 1998).
    "lecun_normal" has variance 1/n and "he_normal" variance 2/n (arXiv 1502.01852), both truncated
    at two standard deviations. "orthogonal" has gain √2, "orthonormal" gain 1 and
    "orthogonal_small" gain 0.01 (arXiv 1312.6120), with a kernel flattened to one row per input.
    "orthogonal_halves" has gain √2 for the first half of the units and 1 for the second, each drawn
    by itself: means and log standard deviations. Biases of these are 0. "torch" is U(±1/√n) for
    weights and biases, as in PyTorch and DQN.
    """
    units = shape[-1]
    reads = 1
    for side in shape[:-1]:
        reads *= side
    if name == "torch":
        ours, theirs = jax.random.split(key)
        return _uniform(ours, shape, reads**-0.5), _uniform(theirs, (units,), reads**-0.5)
    if name == "orthogonal_halves":
        require(units % 2 == 0, f"{units} units have no two halves to draw")
        gains = zip(("orthogonal", "orthonormal"), jax.random.split(key), strict=True)
        halves = [drawn(half, own, (*shape[:-1], units // 2))[0] for half, own in gains]
        return jnp.concatenate(halves, axis=-1), jnp.zeros(units, jnp.float32)
    if name == "lecun_uniform":
        return _uniform(key, shape, (3.0 / reads) ** 0.5), jnp.zeros(units, jnp.float32)
    if name in _VARIANCES:
        draw = jax.nn.initializers.variance_scaling(_VARIANCES[name], "fan_in", "truncated_normal")
    else:
        draw = jax.nn.initializers.orthogonal(_GAINS[name])
    return draw(key, (reads, units), jnp.float32).reshape(shape), jnp.zeros(units, jnp.float32)


def _uniform(key: Key, shape: tuple[int, ...], bound: float) -> Float[Array, "..."]:
    return jax.random.uniform(key, shape, jnp.float32, minval=-bound, maxval=bound)

"""What tests ask of trees."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def plain(leaf: Any) -> np.ndarray:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def bit_equal(a: Any, b: Any) -> bool:
    """Whether two trees have one structure and the same leaves, bit for bit."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(plain(x).tobytes() == plain(y).tobytes() for x, y in pairs)


def distance(a: Any, b: Any) -> float:
    """The largest change of any leaf from one tree to another of its structure."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max((float(np.abs(plain(x) - plain(y)).max()) for x, y in leaves), default=0.0)

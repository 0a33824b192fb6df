"""Named streams of random numbers.

A key depends only on (root, stream name, counter). Adding a stream never changes another one. Two
arms of one fork draw the same numbers for as long as they request the same things.
"""

from zlib import crc32

import jax
from jaxtyping import Array, Int

from regrow.types import Key, Keys


def stream(root: Key, name: str) -> Key:
    """The root key of the stream called `name`."""
    return jax.random.fold_in(root, crc32(name.encode()))


def key_at(root: Key, name: str, counter: int | Int[Array, ""]) -> Key:
    """The key of stream `name` at `counter`."""
    return jax.random.fold_in(stream(root, name), counter)


def keys_from(root: Key, name: str, start: int | Int[Array, ""], count: int) -> Keys:
    """The keys of stream `name` at `start, start + 1, …`; shape (count,)."""
    counters = start + jax.numpy.arange(count)
    return jax.vmap(lambda counter: key_at(root, name, counter))(counters)

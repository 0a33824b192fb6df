"""A replay buffer on the device: a ring buffer with uniform sampling.

Inside a compiled loop that owns it (donated state), `add` writes one row in place, so its time does
not grow with the capacity. Both observations of a transition are stored. So the last observation of
an episode is available, and a reset needs no special case.
"""

import math
import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from regrow.errors import require
from regrow.types import ActionSpace, Key, Transition


class Replay(eqx.Module):
    """The last `capacity` transitions; `position` is where the next one goes."""

    storage: Transition  # every field with a leading axis of `capacity`
    position: Int[Array, ""]
    size: Int[Array, ""]

    @staticmethod
    def empty(
        capacity: int, shape: tuple[int, ...], dtype: np.dtype, actions: ActionSpace
    ) -> "Replay":
        """An empty buffer for `capacity` transitions with observations of one shape and dtype.

        Raises `RegrowError` if it does not fit in memory.
        """
        require(capacity > 0, f"replay_capacity is {capacity}; it must be at least 1")
        numbers = 2 + math.prod(actions.shape)
        require_memory(capacity, 2 * math.prod(shape) * dtype.itemsize + 4 * numbers + 1)
        observations = jnp.zeros((capacity, *shape), dtype)
        storage = Transition(
            obs_tm1=observations,
            action=jnp.zeros((capacity, *actions.shape), actions.dtype),
            reward=jnp.zeros(capacity, jnp.float32),
            discount=jnp.zeros(capacity, jnp.float32),
            obs_t=jnp.copy(observations),
            truncated=jnp.zeros(capacity, bool),
        )
        return Replay(storage, jnp.array(0, jnp.int32), jnp.array(0, jnp.int32))

    @property
    def capacity(self) -> int:
        """The maximum number of transitions."""
        return self.storage.reward.shape[0]

    def add(self, transition: Transition) -> "Replay":
        """Adds one transition, or a batch of them; when full, it replaces the oldest.

        A batch may have at most `capacity` transitions.
        """
        if transition.reward.ndim:
            count = len(transition.reward)
            rows = (self.position + jnp.arange(count)) % self.capacity
        else:
            count, rows = 1, self.position
        storage = jax.tree.map(
            lambda buffer, value: buffer.at[rows].set(value), self.storage, transition
        )
        position = (self.position + count) % self.capacity
        return Replay(storage, position, jnp.minimum(self.size + count, self.capacity))

    def sample(self, key: Key, count: int) -> Transition:
        """`count` transitions, uniformly and with replacement; the buffer must not be empty."""
        return self._rows(jax.random.randint(key, (count,), 0, self.size, jnp.int32))

    def first(self, count: int) -> Transition:
        """The `count` oldest transitions, in order; if fewer are stored, they repeat."""
        oldest = jnp.where(self.size < self.capacity, 0, self.position)
        offsets = jnp.arange(count) % jnp.maximum(self.size, 1)
        return self._rows((oldest + offsets) % self.capacity)

    def cut_off(self, count: int) -> "Replay":
        """Marks the last `count` transitions as truncated, unless they are terminations.

        The next ones will be of other episodes, since these could not be continued.
        """
        rows = (self.position - 1 - jnp.arange(count)) % self.capacity
        ends = self.storage.truncated.at[rows].set(self.storage.discount[rows] > 0)
        return eqx.tree_at(lambda replay: replay.storage.truncated, self, ends)

    def _rows(self, rows: Int[Array, " count"]) -> Transition:
        def drawn(buffer: Array) -> Array:
            # XLA copies rows of one axis as vectors, and others by element (13 → 4 µs for 32
            # observations of MinAtar).
            flat = buffer.reshape(self.capacity, -1)
            return flat[rows].reshape(*rows.shape, *buffer.shape[1:])

        return jax.tree.map(drawn, self.storage)


def require_memory(capacity: int, each: int | float, fixed: int = 0) -> None:
    """Raises `RegrowError` unless `capacity` times `each` bytes, plus `fixed`, fit in memory."""
    free = _free_memory()
    if free is None:
        return
    takes, most = fixed + capacity * each, int(max(free - fixed, 0) // each)
    require(
        takes <= free,
        f"a replay of {capacity:,} transitions takes {takes / 2**30:.1f} GiB and "
        f"{free / 2**30:.1f} GiB are free; replay_capacity can be at most {most:,}",
    )


def require_room(takes: int) -> None:
    """Raises `RegrowError` if networks of this size in bytes do not fit: XLA would abort."""
    free = _free_memory()
    require(
        free is None or takes <= free,
        f"the networks and what is kept of them take {takes / 2**30:.1f} GiB and "
        f"{(free or 0) / 2**30:.1f} GiB are free; give the agent smaller ones",
    )


def _free_memory() -> int | None:
    """The free bytes where arrays are stored, or else all its bytes; None if unknown."""
    statistics = jax.local_devices()[0].memory_stats()  # None on a CPU
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics["bytes_in_use"]
    try:
        # What Linux could free. `sysconf` counts filled caches as used.
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(kilobytes) * 1024
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None

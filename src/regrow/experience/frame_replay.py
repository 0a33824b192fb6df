"""A replay buffer for environments that stack frames: every frame is stored once.

Frames are numbered as they are written, and frame n is in row n mod `rows` of a ring buffer. A
transition stores the numbers of the frames in its two stacks. Frames that are stored already are
found by comparing a stack with the one before it. So the buffer need not know where episodes begin,
how the first stack of one is filled, or whether a simulation was restored.

There is room for as many frames as transitions and for 1/32 more, since an episode begins with a
whole stack. If that is not enough, as with episodes of less than 128 env steps and stacks of four,
the oldest transitions are dropped, always whole ones, before one of their frames is overwritten.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped, UInt8

from regrow.errors import require
from regrow.experience.replay import require_memory
from regrow.types import ActionSpace, Key, Transition


class FrameReplay(eqx.Module):
    """The last transitions, at most `capacity`, of parallel environments that stack frames."""

    frames: UInt8[Array, "rows bytes"]
    # per transition; the i-th is in slot i mod `capacity`
    numbers: Int[Array, "capacity stacks"]  # of its frames: of `obs_tm1`, then of `obs_t`
    action: Shaped[Array, "capacity *action"]
    reward: Shaped[Array, " capacity"]
    discount: Shaped[Array, " capacity"]
    truncated: Bool[Array, " capacity"]
    written_then: Int[Array, " capacity"]  # number of frames written by then, its own included
    # per environment
    stack: UInt8[Array, "envs stacked bytes"]  # the last one seen
    stack_numbers: Int[Array, "envs stacked"]
    # counted from the start and never wrapped: 2³¹ frames are 8.6 billion of Atari's
    written: Int[Array, ""]
    added: Int[Array, ""]
    oldest: Int[Array, ""]
    shape: tuple[int, ...] = eqx.field(static=True)  # of an observation
    dtype: np.dtype = eqx.field(static=True)

    @staticmethod
    def empty(
        capacity: int,
        shape: tuple[int, ...],
        dtype: np.dtype,
        actions: ActionSpace,
        *,
        stacked: int,
        num_envs: int = 1,
    ) -> "FrameReplay":
        """An empty buffer for `capacity` transitions; `stacked`: frames on the last axis.

        Raises `RegrowError` if it does not fit in memory.
        """
        require(capacity > 0, f"replay_capacity is {capacity}; it must be at least 1")
        size = math.prod(shape) * dtype.itemsize // stacked
        numbers = 2 * stacked + 3 + math.prod(actions.shape)
        spare = _spare(stacked, num_envs)
        require_memory(capacity, size * (1 + 1 / _STARTS) + 4 * numbers + 1, fixed=size * spare)
        return FrameReplay(
            frames=jnp.zeros((capacity + capacity // _STARTS + spare, size), jnp.uint8),
            numbers=jnp.zeros((capacity, 2 * stacked), jnp.int32),
            action=jnp.zeros((capacity, *actions.shape), actions.dtype),
            reward=jnp.zeros(capacity, jnp.float32),
            discount=jnp.zeros(capacity, jnp.float32),
            truncated=jnp.zeros(capacity, bool),
            written_then=jnp.zeros(capacity, jnp.int32),
            stack=jnp.zeros((num_envs, stacked, size), jnp.uint8),
            stack_numbers=jnp.full((num_envs, stacked), -spare),  # too old to be shared
            written=jnp.array(0),
            added=jnp.array(0),
            oldest=jnp.array(0),
            shape=shape,
            dtype=dtype,
        )

    @property
    def capacity(self) -> int:
        """The maximum number of transitions."""
        return len(self.reward)

    @property
    def size(self) -> Int[Array, ""]:
        """The number of stored transitions."""
        return self.added - self.oldest

    def add(self, transition: Transition) -> "FrameReplay":
        """Adds one transition of every environment; when full, it replaces the oldest ones."""
        if not transition.reward.ndim:
            transition = jax.tree.map(lambda x: jnp.asarray(x)[None], transition)
        begins, ends = self._frames_of(transition.obs_tm1), self._frames_of(transition.obs_t)
        numbers, new, taken = self._numbered(begins, ends)
        both, rows = jnp.concatenate([begins, ends], axis=1), len(self.frames)
        into = jnp.where(new, numbers % rows, rows)  # rows out of range are not written
        indices = self.added + jnp.arange(len(taken))
        written = self.written + jnp.cumsum(taken)

        def put(buffer: Array, values: Array) -> Array:
            return buffer.at[indices % self.capacity].set(values)

        held = put(self.written_then, written)
        added = self.added + len(taken)
        return FrameReplay(
            frames=self.frames.at[into.ravel()].set(both.reshape(-1, both.shape[-1]), mode="drop"),
            numbers=put(self.numbers, numbers),
            action=put(self.action, transition.action),
            reward=put(self.reward, transition.reward),
            discount=put(self.discount, transition.discount),
            truncated=put(self.truncated, transition.truncated),
            written_then=held,
            stack=ends,
            stack_numbers=numbers[:, ends.shape[1] :],
            written=written[-1],
            added=added,
            oldest=self._oldest(held, written[-1], added),
            shape=self.shape,
            dtype=self.dtype,
        )

    def sample(self, key: Key, count: int) -> Transition:
        """`count` transitions, uniformly and with replacement; the buffer must not be empty."""
        rows = jax.random.randint(key, (count,), 0, self.size, jnp.int32)
        return self._transitions(self.oldest + rows)

    def first(self, count: int) -> Transition:
        """The `count` oldest transitions, in order; if fewer are stored, they repeat."""
        offsets = jnp.arange(count) % jnp.maximum(self.size, 1)
        return self._transitions(self.oldest + offsets)

    def cut_off(self, count: int) -> "FrameReplay":
        """Marks the last `count` transitions as truncated, unless they are terminations."""
        slots = (self.added - 1 - jnp.arange(count)) % self.capacity
        ends = self.truncated.at[slots].set(self.discount[slots] > 0)
        return eqx.tree_at(lambda replay: replay.truncated, self, ends)

    # Writing.

    def _numbered(
        self, begins: UInt8[Array, "envs stacked bytes"], ends: UInt8[Array, "envs stacked bytes"]
    ) -> tuple[Int[Array, "envs stacks"], Bool[Array, "envs stacks"], Int[Array, " envs"]]:
        """(frame numbers of both stacks, which of them are new, how many rows each env takes).

        A frame of the first stack may be in the last stack seen, at the same position. A frame of
        the second stack may be in the first, at the next position or, while a stack fills, at the
        same one. A frame that has been shared for long is written again, so that it is not
        overwritten.
        """
        envs, stacked = self.stack_numbers.shape
        young = self.stack_numbers >= self.written - _shared_for(stacked, envs)
        known = _equal(begins, self.stack) & young
        moved = jnp.pad(_equal(ends[:, :-1], begins[:, 1:]), ((0, 0), (0, 1)))
        stayed = _equal(ends, begins)
        new = jnp.concatenate([~known, ~(moved | stayed)], axis=1)
        # At least one each: so the number of transitions that an `add` may drop is bounded.
        taken = jnp.maximum(jnp.sum(new, axis=1), 1)
        start = self.written + jnp.cumsum(taken) - taken
        fresh = start[:, None] + jnp.cumsum(new, axis=1) - new
        first = jnp.where(known, self.stack_numbers, fresh[:, :stacked])
        second = jnp.where(stayed, first, fresh[:, stacked:])
        second = jnp.where(moved, jnp.roll(first, -1, axis=1), second)
        return jnp.concatenate([first, second], axis=1), new, taken

    def _oldest(
        self, written_then: Int[Array, " capacity"], written: Array, added: Array
    ) -> Int[Array, ""]:
        """The oldest transition whose slot and frames have not been overwritten."""
        envs, stacked = self.stack_numbers.shape
        lasting = len(self.frames) - _spare(stacked, envs)
        oldest = jnp.maximum(self.oldest, added - self.capacity)
        next_ones = oldest + jnp.arange(2 * stacked * envs)  # each took at least one frame
        lost = written_then[next_ones % self.capacity] < written - lasting
        return oldest + jnp.sum(lost & (next_ones < added))

    def _frames_of(self, observation: Shaped[Array, "envs *obs"]) -> UInt8[Array, "envs k bytes"]:
        """The separate frames of stacks."""
        envs, stacked = self.stack_numbers.shape
        split = observation.reshape(envs, -1, stacked, self.shape[-1] // stacked)
        return jnp.moveaxis(split, 2, 1).reshape(envs, stacked, -1).view(jnp.uint8)

    # Reading.

    def _transitions(self, indices: Int[Array, " count"]) -> Transition:
        slots = indices % self.capacity
        rows = self.numbers[slots] % len(self.frames)
        drawn = self.frames[rows.ravel()].view(self.dtype)
        stacked = self.stack_numbers.shape[1]
        drawn = drawn.reshape(len(slots), 2, stacked, -1, self.shape[-1] // stacked)
        stacks = jnp.moveaxis(drawn, 2, 3).reshape(len(slots), 2, *self.shape)
        return Transition(
            obs_tm1=stacks[:, 0],
            action=self.action[slots],
            reward=self.reward[slots],
            discount=self.discount[slots],
            obs_t=stacks[:, 1],
            truncated=self.truncated[slots],
        )


_STARTS = 32
"""One extra frame per this many transitions, for the stacks that episodes begin with."""


def _shared_for(stacked: int, num_envs: int) -> int:
    """How many frames may be written before one that is still in use is written again.

    As many as can be written while a frame moves through the stack.
    """
    return stacked * 2 * stacked * num_envs


def _spare(stacked: int, num_envs: int) -> int:
    """The largest age of a frame relative to its transition, in frames written."""
    return _shared_for(stacked, num_envs) + 2 * stacked * num_envs


def _equal(a: UInt8[Array, "*axes bytes"], b: UInt8[Array, "*axes bytes"]) -> Bool[Array, "*axes"]:
    return jnp.max(a ^ b, axis=-1) == 0  # a fifth of the time of `all(a == b)`

"""Normalises observations and rewards by running statistics of the stored experience.

    o ← clip((o − mean) / √(variance + 10⁻⁸), ±10)
    r ← clip(r / √(variance of G + 10⁻⁸), ±10),      G ← γ G + r,  0 after an episode's end

as Stable-Baselines3's VecNormalize does. The statistics are of every observation that was acted on
and, for rewards, of the discounted return so far of every environment. Rewards are not centred.

Transitions are stored unnormalised. They are normalised when they are read, with the current
statistics, so everything that learns or measures sees data of one scale. Only `add` changes the
statistics: evaluation, probes and interventions do not.
"""

from collections.abc import Sequence
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from regrow.errors import require
from regrow.types import Key, Memory, Transition

Numbers = TypeVar("Numbers", bound=Array | np.ndarray)

LIMIT = 10.0
"""Normalised observations and rewards are clipped to ± this."""

EPSILON = 1e-8  # added to a variance

PRIOR = 1e-4
"""The weight of the prior (mean 0, variance 1), in values; that of Stable-Baselines3."""


class RunningMoments(eqx.Module):
    """Mean and variance of all values so far, by the parallel update of Chan, Golub & LeVeque 1983.

    Each is the sum of two numbers; the second is the rounding error of the first. In float32 alone,
    a mean over a million values no longer moves.
    """

    mean: Float[Array, "*shape"]
    mean_rest: Float[Array, "*shape"]
    variance: Float[Array, "*shape"]
    variance_rest: Float[Array, "*shape"]
    count: Int[Array, ""]

    @staticmethod
    def empty(shape: Sequence[int] = ()) -> "RunningMoments":
        """The moments of no values."""
        first, second, third, fourth = (jnp.zeros(shape, jnp.float32) for _ in range(4))
        return RunningMoments(first, second, third, fourth, jnp.array(0, jnp.int32))

    def updated(self, values: Shaped[Array, "batch *shape"]) -> "RunningMoments":
        """The moments after adding a batch of values."""
        mean, variance = jnp.mean(values, axis=0), jnp.var(values, axis=0)
        before, count = self.count.astype(jnp.float32), self.count + len(values)
        total = count.astype(jnp.float32)
        share, distance = len(values) / total, (mean - self.mean) - self.mean_rest
        spread = variance + before / total * distance**2
        moved = (spread - self.variance) - self.variance_rest
        return RunningMoments(
            *_added(self.mean, self.mean_rest, share * distance),
            *_added(self.variance, self.variance_rest, share * moved),
            count,
        )

    def normal(self) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        """(mean, standard deviation) for normalising, including the prior."""
        before = self.count.astype(jnp.float32)
        total = before + PRIOR
        mean = self.mean * (before / total)
        spread = before * jnp.maximum(self.variance, 0.0) + PRIOR
        variance = (spread + PRIOR * (before / total) * self.mean**2) / total
        return mean, jnp.sqrt(variance + EPSILON)


def _added(
    number: Float[Array, "*shape"], rest: Float[Array, "*shape"], change: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """(number, rest) after adding `change` by Kahan summation."""
    change = change + rest
    total = number + change
    return total, change - (total - number)


class RewardScale(eqx.Module):
    """The spread of the discounted returns so far, by which rewards are divided."""

    moments: RunningMoments
    so_far: Float[Array, " envs"]
    discount: float = eqx.field(static=True)

    @staticmethod
    def empty(num_envs: int, discount: float) -> "RewardScale":
        """The scale at the start of a training run."""
        return RewardScale(RunningMoments.empty(), jnp.zeros(num_envs, jnp.float32), discount)

    def updated(self, reward: Float[Array, " envs"], ended: Bool[Array, " envs"]) -> "RewardScale":
        """The scale after one env step of every environment."""
        so_far = self.discount * self.so_far + reward
        moments = self.moments.updated(so_far)
        return RewardScale(moments, jnp.where(ended, 0.0, so_far), self.discount)

    def begun(self, count: int) -> "RewardScale":
        """The scale with new episodes in the last `count` environments."""
        so_far = self.so_far.at[-count:].set(0.0)
        return RewardScale(self.moments, so_far, self.discount)


class NormalizingMemory(eqx.Module):
    """A replay buffer whose transitions are normalised when they are read."""

    inner: Memory
    observations: RunningMoments | None
    rewards: RewardScale | None

    @staticmethod
    def around(
        inner: Memory,
        shape: tuple[int, ...],
        dtype: np.dtype,
        *,
        num_envs: int,
        discount: float,
        observations: bool,
        rewards: bool,
    ) -> Memory:
        """`inner` with the requested normalisation; `inner` itself if none is requested.

        Raises `RegrowError` if observations are to be normalised and are not floats.
        """
        require(
            not observations or np.dtype(dtype).kind == "f",
            f"normalize_observations takes floats, and observations are {dtype}{list(shape)}; "
            "leave it off: images of bytes or booleans have a scale of their own",
        )
        if not (observations or rewards):
            return inner
        return NormalizingMemory(
            inner,
            RunningMoments.empty(shape) if observations else None,
            RewardScale.empty(num_envs, discount) if rewards else None,
        )

    @property
    def capacity(self) -> int:
        """The maximum number of transitions."""
        return self.inner.capacity

    @property
    def size(self) -> Int[Array, ""]:
        """The number of stored transitions."""
        return self.inner.size

    def add(self, transition: Transition) -> "NormalizingMemory":
        """Adds one transition, or one of every environment, and updates the statistics."""
        lone = not transition.reward.ndim
        each = jax.tree.map(lambda x: jnp.asarray(x)[None], transition) if lone else transition
        observations, rewards = self.observations, self.rewards
        if observations is not None:
            observations = observations.updated(each.obs_tm1)
        if rewards is not None:
            rewards = rewards.updated(each.reward, (each.discount == 0) | each.truncated)
        return NormalizingMemory(self.inner.add(transition), observations, rewards)

    def sample(self, key: Key, count: int) -> Transition:
        """`count` transitions, uniformly and with replacement, normalised."""
        return self._normalized(self.inner.sample(key, count))

    def first(self, count: int) -> Transition:
        """The `count` oldest transitions, in order, normalised; if there are fewer, they repeat."""
        return self._normalized(self.inner.first(count))

    def cut_off(self, count: int) -> "NormalizingMemory":
        """Marks the last `count` transitions as truncated, and restarts their returns at 0."""
        rewards = None if self.rewards is None else self.rewards.begun(count)
        return NormalizingMemory(self.inner.cut_off(count), self.observations, rewards)

    def _normalized(self, batch: Transition) -> Transition:
        return batch._replace(
            obs_tm1=as_seen(self, batch.obs_tm1),
            reward=as_learned(self, batch.reward),
            obs_t=as_seen(self, batch.obs_t),
        )


# Compiled functions, not methods: a host loop calls them at every env step, and methods of modules
# are slow.


def as_seen(memory: Memory, observation: Shaped[Numbers, "*obs"]) -> Shaped[Numbers, "*obs"]:
    """An observation normalised by the current statistics; unchanged for a plain buffer."""
    if not isinstance(memory, NormalizingMemory) or memory.observations is None:
        return observation
    return _seen(memory.observations, observation)


def as_learned(memory: Memory, reward: Float[Numbers, "*batch"]) -> Float[Numbers, "*batch"]:
    """A reward normalised by the current statistics; unchanged for a plain buffer."""
    if not isinstance(memory, NormalizingMemory) or memory.rewards is None:
        return reward
    return _scaled(memory.rewards.moments, reward)


@jax.jit
def _seen(
    moments: RunningMoments, observation: Shaped[Array, "*batch_and_obs"]
) -> Float[Array, "*batch_and_obs"]:
    # Computed once. Fused into each use, they could differ in their last bits, and so could one
    # observation as the end of a transition and as the start of the next (PPO compares them).
    normal = jax.lax.optimization_barrier(moments.normal())
    mean, deviation = (jnp.broadcast_to(x, observation.shape) for x in normal)
    return jnp.clip((observation - mean) / deviation, -LIMIT, LIMIT)


@jax.jit
def _scaled(moments: RunningMoments, reward: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    _, deviation = moments.normal()
    return jnp.clip(reward / deviation, -LIMIT, LIMIT)

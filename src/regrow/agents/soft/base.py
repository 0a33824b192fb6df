"""Soft actor-critic, shared by SAC and DrQ (Haarnoja et al. 2018, arXiv 1812.05905).

    y    = r + γ d (min_i Q_i,target(s', a') − α log π(a'|s')),      a' ~ π(·|s'), d = 0 at an end
    L(Q) = E (Q(s, a) − y)²                              for each of two critics, one y for both
    L(π) = E (α log π(a|s) − min_i Q_i(s, a)),           a ~ π(·|s), through a
    L(α) = α (H − H̄),      H = −E log π(a|s),            with respect to log α

"Through a" means that the gradient flows through the sampled action. π is a tanh-squashed Gaussian
with log σ between −10 and 2. Depending on the agent, s is an observation or its encoding.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from regrow.agents.base import OffPolicy
from regrow.errors import RegrowError, require
from regrow.gradients.base import Terms
from regrow.learners.learner import LearnedScalar, Learner
from regrow.learners.optimizer import Optimizer
from regrow.networks.network import Network
from regrow.registry import compose, name_of
from regrow.types import ActionSpace, Continuous, Discrete, Key, Scalar, Transition

LOG_STD_MIN, LOG_STD_MAX = -10.0, 2.0


class Drawn(NamedTuple):
    """Actions sampled from the policy, with their log-probability density."""

    action: Float[Array, "*batch size"]
    log_prob: Float[Array, "*batch"]


@dataclass(frozen=True)
class SoftActorCritic(OffPolicy):
    """Fields of an agent with two critics, a tanh-Gaussian actor and a learned temperature.

    Until env step `learn_start` actions are uniform. `target_entropy`: H̄ per action dimension.
    """

    replay_ratio: float = 1.0
    hidden: int = 256
    layer_norm: bool = False
    learning_rate: float = 3e-4
    epsilon: float = 1e-8
    gradient: Terms = ()  # chained to the optimizer of the networks, not of the temperature
    target_rate: float = 0.005  # of the targets' moving average, per update
    initial_temperature: float = 1.0
    target_entropy: float = -0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        compose(self, "gradient", "gradients")
        require(self.hidden >= 1, f"hidden is {self.hidden}; it must be at least 1")
        require(
            0 < self.target_rate <= 1,
            f"target_rate is {self.target_rate}; it must be above 0 and at most 1",
        )
        require(
            self.initial_temperature > 0,
            f"initial_temperature is {self.initial_temperature}; it must be > 0",
        )
        self.optimizer()

    def optimizer(self) -> Optimizer:
        """The optimizer of the networks."""
        return Optimizer("adam", self.learning_rate, self.epsilon, terms=self.gradient)

    def first_temperature(self) -> LearnedScalar:
        """log α before training."""
        plain = Optimizer("adam", self.learning_rate, self.epsilon)
        return LearnedScalar.create(math.log(self.initial_temperature), plain)

    def size_of(self, actions: ActionSpace) -> int:
        """The dimension of an action. Raises `RegrowError` unless actions are continuous."""
        if not isinstance(actions, Continuous):
            name, other = name_of(self), "double_dqn" if isinstance(actions, Discrete) else "ppo"
            raise RegrowError(f"{name} takes continuous actions, not {actions}; try {other}")
        return actions.size

    def explored(
        self, drawn: Float[Array, " size"], env_steps: Int[Array, ""], key: Key
    ) -> Float[Array, " size"]:
        """`drawn`, or a uniform action before `learn_start`."""
        at_random = jax.random.uniform(key, drawn.shape, drawn.dtype, minval=-1.0, maxval=1.0)
        return jnp.where(env_steps < self.learn_start, at_random, drawn)

    def backed_up(
        self,
        batch: Transition,
        value: Float[Array, " batch"],
        log_prob: Float[Array, " batch"],
        log_temperature: Scalar,
    ) -> Float[Array, " batch"]:
        """y, from min_i Q_i,target(s', a') and log π(a'|s')."""
        soft = value - jnp.exp(log_temperature) * log_prob
        return batch.reward + self.discount * batch.discount * soft

    def temperature_gradient(self, log_temperature: Scalar, entropy: Scalar, size: int) -> Scalar:
        """dL(α)/d log α = α (H − H̄) for actions of `size` dimensions."""
        return jnp.exp(log_temperature) * (entropy - self.target_entropy * size)


def policy(actor: Network, seen: Shaped[Array, "*batch_and_seen"], key: Key) -> Drawn:
    """Actions a = tanh(u), u ~ N(μ, σ²), and log π(a|s) = Σ log N(u) − log(1 − tanh² u).

    (1812.05905, appendix C.)
    """
    mean, log_std = gaussian(actor, seen)
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    before = mean + jnp.exp(log_std) * noise
    log_normal = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
    # log(1 − tanh² u), rewritten: as it stands it loses all digits where tanh is close to 1.
    far = jnp.abs(before)
    log_slope = 2 * (math.log(2) - far - jnp.log1p(jnp.exp(-2 * far)))
    return Drawn(jnp.tanh(before), jnp.sum(log_normal - log_slope, axis=-1))


def gaussian(
    actor: Network, seen: Shaped[Array, "*batch_and_seen"]
) -> tuple[Float[Array, "*batch size"], Float[Array, "*batch size"]]:
    """(μ, log σ): the actor outputs μ and a raw value, mapped to [−10, 2] by tanh as in jaxrl."""
    mean, raw = jnp.split(actor(seen), 2, axis=-1)
    return mean, LOG_STD_MIN + (LOG_STD_MAX - LOG_STD_MIN) * 0.5 * (1 + jnp.tanh(raw))


def divergence(
    actor: Network, other: Network, seen: Shaped[Array, "*batch_and_seen"]
) -> Float[Array, "*batch"]:
    """KL(π ‖ π_other), in nats. The tanh that both go through does not change it."""
    (mean, log_std), (mean_2, log_std_2) = gaussian(actor, seen), gaussian(other, seen)
    squares = jnp.exp(2 * log_std) + (mean - mean_2) ** 2
    each = log_std_2 - log_std + 0.5 * squares * jnp.exp(-2 * log_std_2) - 0.5
    return jnp.sum(each, axis=-1)


def typical(actor: Network, seen: Shaped[Array, "*batch_and_seen"]) -> Array:
    """The action tanh μ, which is the policy's median."""
    mean, _ = jnp.split(actor(seen), 2, axis=-1)
    return jnp.tanh(mean)


def actor_loss(
    value: Float[Array, " batch"], log_prob: Float[Array, " batch"], log_temperature: Scalar
) -> tuple[Scalar, Scalar]:
    """(L(π), H), from min_i Q_i(s, a) and log π(a|s)."""
    return jnp.mean(jnp.exp(log_temperature) * log_prob - value), -jnp.mean(log_prob)


def joined(
    seen: Shaped[Array, "*batch seen"], action: Float[Array, "*batch size"]
) -> Float[Array, "*batch both"]:
    """The input of the critics: observation (or encoding) and action, concatenated."""
    return jnp.concatenate([seen.astype(jnp.float32), action], axis=-1)


def lower(first: Network, second: Network, pairs: Float[Array, "*batch both"]) -> Array:
    """The lower of the two critics' values."""
    return jnp.minimum(first(pairs), second(pairs))[..., 0]


def target_of(learner: Learner) -> Network:
    """The target network of a Learner that was created with one."""
    assert learner.target is not None, "critics and what they read are created with a target"
    return learner.target

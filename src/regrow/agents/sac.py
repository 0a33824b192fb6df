"""Soft Actor-Critic (Haarnoja et al. 2018, arXiv 1812.05905) for continuous actions.

    y    = r + γ d (min_i Q_i,target(s', a') − α log π(a'|s')),      a' ~ π(·|s'), d = 0 at an end
    L(Q) = E (Q(s, a) − y)²                              for each of two critics, one y for both
    L(π) = E (α log π(a|s) − min_i Q_i(s, a)),           a ~ π(·|s), through a
    L(α) = α (H − H̄),      H = −E log π(a|s),            with respect to log α

π is a Gaussian squashed by tanh, with log σ between −10 and 2. Settings and order are those of the
primacy-bias work (Nikishin et al. 2022, arXiv 2205.07802; jaxrl): critics, then their targets, then
the actor against the critics as just updated, then the temperature at the entropy of the actor as
it was before. Weights are orthogonal with a gain of √2.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, Shaped

from regrow.agents.base import OffPolicy
from regrow.errors import RegrowError, require
from regrow.families import make_all
from regrow.learner import Knob, Learner
from regrow.network import Network, mlp
from regrow.optimizer import Optimizer
from regrow.style import Style
from regrow.types import ActionSpace, Continuous, Key, Scalar, Transition

LOG_STD_MIN, LOG_STD_MAX = -10.0, 2.0


class Drawn(NamedTuple):
    """Actions from the policy, with the logarithm of their density."""

    action: Float[Array, "*batch size"]
    log_prob: Float[Array, "*batch"]


class SACState(eqx.Module):
    """What SAC carries from update to update."""

    actor: Learner
    critic: Learner
    critic_2: Learner
    log_temperature: Knob


@dataclass(frozen=True)
class SAC(OffPolicy):
    """Soft Actor-Critic: two critics, a tanh-Gaussian actor, a learned temperature.

    Until env step `learn_start` actions are uniform. `target_entropy`: H̄ for every entry of an
    action. The replay is allocated at once and copied with every fork: where fewer env steps will
    be taken than it has room for, a smaller `replay_capacity` changes nothing else.
    """

    batch_size: int = 256
    replay_capacity: int = 1_000_000
    learn_start: int = 10_000
    replay_ratio: float = 1.0
    hidden: int = 256
    layer_norm: bool = False
    learning_rate: float = 3e-4
    epsilon: float = 1e-8
    gradient: str = ""  # terms beside the optimizer, e.g. "l2_init"; the temperature has none
    target_rate: float = 0.005  # of the average that the targets are, per update
    initial_temperature: float = 1.0
    target_entropy: float = -0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.hidden >= 1, f"hidden is {self.hidden}; it must be at least 1")
        require(
            0 < self.target_rate <= 1,
            f"target_rate is {self.target_rate}; it must be above 0 and at most 1",
        )
        require(
            self.initial_temperature > 0,
            f"initial_temperature is {self.initial_temperature}; it must be > 0",
        )
        self._optimizer()

    def _optimizer(self) -> Optimizer:
        terms = make_all("gradients", self.gradient)
        return Optimizer("adam", self.learning_rate, self.epsilon, terms=terms)

    def init(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], actions: ActionSpace, key: Key
    ) -> SACState:
        """Fresh networks, the critics with targets, and the initial temperature.

        Raises `RegrowError` unless `shape` has one axis and the actions are continuous.
        """
        del dtype
        if not isinstance(actions, Continuous):
            raise RegrowError(f"sac takes continuous actions, not {actions}; try double_dqn")
        if len(shape) != 1:
            raise RegrowError(f"sac takes vectors, not observations of shape {shape}")
        seen, keys = shape[0], jax.random.split(key, 3)
        actor = self._network(seen, 2 * actions.size, keys[0])
        critic, critic_2 = (self._network(seen + actions.size, 1, k) for k in keys[1:])
        optimizer = self._optimizer()
        plain = Optimizer("adam", self.learning_rate, self.epsilon)
        return SACState(
            actor=Learner.create(actor, optimizer, target=False),
            critic=Learner.create(critic, optimizer),
            critic_2=Learner.create(critic_2, optimizer),
            log_temperature=Knob.create(math.log(self.initial_temperature), plain),
        )

    def _network(self, inputs: int, outputs: int, key: Key) -> Network:
        style = Style(layer_norm=self.layer_norm, initialiser="orthogonal")
        return mlp(inputs, (self.hidden, self.hidden), outputs, style, key=key)

    def act(
        self, state: SACState, obs: Shaped[Array, "*obs"], env_steps: Int[Array, ""], key: Key
    ) -> tuple[Float[Array, " size"], Float[Array, ""]]:
        """(an action from the policy, or a uniform one before `learn_start`; its lower value)."""
        drawing, exploring = jax.random.split(key)
        drawn = policy(state.actor.network, obs, drawing).action
        at_random = jax.random.uniform(exploring, drawn.shape, minval=-1.0, maxval=1.0)
        action = jnp.where(env_steps < self.learn_start, at_random, drawn)
        return action, _lower(state.critic.network, state.critic_2.network, joined(obs, action))

    def goal(self, state: SACState, batch: Transition, key: Key) -> Float[Array, " batch"]:
        """y, what both critics are fitted to."""
        action, log_prob = policy(state.actor.network, batch.obs_t, key)
        pairs = joined(batch.obs_t, action)
        value = _lower(_target(state.critic), _target(state.critic_2), pairs)
        soft = value - jnp.exp(state.log_temperature.value) * log_prob
        return batch.reward + self.discount * batch.discount * soft

    def critic_loss(
        self, critic: Network, goal: Float[Array, " batch"], batch: Transition
    ) -> Scalar:
        """L(Q): the mean squared error of one critic, without a factor of ½."""
        value = critic(joined(batch.obs_tm1, batch.action))[..., 0]
        return jnp.mean((value - goal) ** 2)

    def actor_loss(
        self, actor: Network, state: SACState, batch: Transition, key: Key
    ) -> tuple[Scalar, Scalar]:
        """(L(π), H): the loss against the critics of `state`, and the entropy of the policy."""
        action, log_prob = policy(actor, batch.obs_tm1, key)
        pairs = joined(batch.obs_tm1, action)
        value = _lower(state.critic.network, state.critic_2.network, pairs)
        temperature = jnp.exp(state.log_temperature.value)
        return jnp.mean(temperature * log_prob - value), -jnp.mean(log_prob)

    def temperature_gradient(self, log_temperature: Scalar, entropy: Scalar, size: int) -> Scalar:
        """dL(α)/d log α = α (H − H̄) for actions of `size` numbers."""
        return jnp.exp(log_temperature) * (entropy - self.target_entropy * size)

    def inputs(self, state: SACState, batch: Transition) -> dict[str, Array]:
        """`actor` sees the observation, the critics see it beside the action."""
        del state
        pairs = joined(batch.obs_tm1, batch.action)
        return {"actor": batch.obs_tm1, "critic": pairs, "critic_2": pairs}

    def gradients(self, state: SACState, batch: Transition, key: Key) -> dict[str, PyTree]:
        """The gradient of each Learner's own loss, all of them at `state`.

        `update` has the same for the critics; there the actor comes after them.
        """
        following, acting = jax.random.split(key)
        actor, _ = self._actor_gradient(state, batch, acting)
        return {"actor": actor, **self._critic_gradients(state, batch, following)}

    def update(self, state: SACState, batch: Transition, key: Key) -> SACState:
        """One step of the critics, of their targets, of the actor and of the temperature."""
        following, acting = jax.random.split(key)
        gradients = self._critic_gradients(state, batch, following)
        state = SACState(
            actor=state.actor,
            critic=state.critic.descend(gradients["critic"]).follow(self.target_rate),
            critic_2=state.critic_2.descend(gradients["critic_2"]).follow(self.target_rate),
            log_temperature=state.log_temperature,
        )
        gradient, entropy = self._actor_gradient(state, batch, acting)
        log_temperature, size = state.log_temperature, batch.action.shape[-1]
        pull = self.temperature_gradient(log_temperature.value, entropy, size)
        return SACState(
            actor=state.actor.descend(gradient),
            critic=state.critic,
            critic_2=state.critic_2,
            log_temperature=log_temperature.descend(pull),
        )

    def _critic_gradients(self, state: SACState, batch: Transition, key: Key) -> dict[str, PyTree]:
        goal = self.goal(state, batch, key)

        def loss(critic: Network) -> Scalar:
            return self.critic_loss(critic, goal, batch)

        critics = {"critic": state.critic, "critic_2": state.critic_2}
        return {name: critic.gradient(loss)[1] for name, critic in critics.items()}

    def _actor_gradient(
        self, state: SACState, batch: Transition, key: Key
    ) -> tuple[PyTree, Scalar]:
        """(the actor's gradient, the entropy of the policy)."""
        _, gradient, entropy = state.actor.gradient_with(
            lambda actor: self.actor_loss(actor, state, batch, key)
        )
        return gradient, entropy


def joined(
    obs: Shaped[Array, "*batch seen"], action: Float[Array, "*batch size"]
) -> Float[Array, "*batch both"]:
    """What a critic sees: the observation, then the action."""
    return jnp.concatenate([obs.astype(jnp.float32), action], axis=-1)


def policy(actor: Network, obs: Shaped[Array, "*batch seen"], key: Key) -> Drawn:
    """Actions a = tanh(u), u ~ N(μ, σ²), and log π(a|s) = Σ log N(u) − log(1 − tanh² u).

    The actor's output holds μ, then what becomes log σ in [−10, 2] through a tanh (1812.05905,
    appendix C, for the density; jaxrl for the bounds).
    """
    mean, raw = jnp.split(actor(obs), 2, axis=-1)
    log_std = LOG_STD_MIN + (LOG_STD_MAX - LOG_STD_MIN) * 0.5 * (1 + jnp.tanh(raw))
    noise = jax.random.normal(key, mean.shape)
    before = mean + jnp.exp(log_std) * noise
    log_normal = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
    # log(1 − tanh² u), which as it stands loses all digits where tanh is next to 1.
    log_slope = 2 * (math.log(2) - before - jax.nn.softplus(-2 * before))
    return Drawn(jnp.tanh(before), jnp.sum(log_normal - log_slope, axis=-1))


def _lower(first: Network, second: Network, pairs: Float[Array, "*batch both"]) -> Array:
    """The lower of two critics' values."""
    return jnp.minimum(first(pairs), second(pairs))[..., 0]


def _target(learner: Learner) -> Network:
    assert learner.target is not None, "SAC always creates its critics with a target"
    return learner.target

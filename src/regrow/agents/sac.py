"""Soft Actor-Critic (Haarnoja et al. 2018, arXiv 1812.05905) for continuous actions, on vectors.

The losses are in `regrow.agents.soft.base`. Settings and update order follow the primacy-bias work
(Nikishin et al. 2022, arXiv 2205.07802; jaxrl). An update steps the critics, then their targets,
then the actor against the updated critics, then the temperature with the entropy of the actor
before its step. Weights are orthogonal with a gain of √2, those of log σ with 1.

With `churn` = λ or `policy_churn` = κ the loss also penalises how far the last update moved the
values, or the policy, on an equal number of other transitions (CHAIN, Tang & Berseth 2024, arXiv
2409.04792; in their code λ is 0.1 and κ 0.0005):

    L(Q_t) + λ E (Q_t(s, a) − Q_(t−1)(s, a))²
    L(π_t) + κ M E KL(π_t(·|s) ‖ π_(t−1)(·|s)),     M = E |α log π(a|s) − min_i Q_i(s, a)|

No gradient flows through M. Their code cuts the divergence off at 100; this one does not.
"""

from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, Shaped

from regrow.agents.soft.base import (
    SoftActorCritic,
    actor_loss,
    divergence,
    joined,
    lower,
    policy,
    target_of,
    typical,
)
from regrow.errors import RegrowError
from regrow.learners.churn import check_churn, halves
from regrow.learners.learner import LearnedScalar, Learner
from regrow.networks.architecture import Architecture
from regrow.networks.network import Network, mlp, with_output
from regrow.types import ActionSpace, Key, Scalar, Transition


class SACState(eqx.Module):
    """The state of SAC."""

    actor: Learner
    critic: Learner
    critic_2: Learner
    log_temperature: LearnedScalar


@dataclass(frozen=True)
class SAC(SoftActorCritic):
    """Soft Actor-Critic: two critics, a tanh-Gaussian actor, a learned temperature.

    Until env step `learn_start` actions are uniform. `target_entropy`: H̄ per action dimension. The
    replay buffer is allocated in full at the start and copied with every fork. If a run takes fewer
    env steps than `replay_capacity`, a smaller capacity saves memory and changes nothing else.
    """

    batch_size: int = 256
    replay_capacity: int = 1_000_000
    learn_start: int = 10_000
    churn: float = 0.0  # λ
    policy_churn: float = 0.0  # κ

    def __post_init__(self) -> None:
        super().__post_init__()
        check_churn(churn=self.churn, policy_churn=self.policy_churn)

    @property
    def rows_per_update(self) -> int:
        """Transitions per update; twice `batch_size` with a churn penalty, half of them for it."""
        return self.batch_size * (2 if self.churn or self.policy_churn else 1)

    def init(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], actions: ActionSpace, key: Key
    ) -> SACState:
        """New networks, targets for the critics, and the initial temperature.

        Raises `RegrowError` unless `shape` has one axis and the actions are continuous.
        """
        del dtype
        size = self.size_of(actions)
        if len(shape) != 1:
            raise RegrowError(f"sac takes vectors, not observations of shape {shape}; try drq")
        seen, keys = shape[0], jax.random.split(key, 3)
        body, end = jax.random.split(keys[0])
        actor = with_output(self._network(seen, 2 * size, body), "orthogonal_halves", end)
        critic, critic_2 = (self._network(seen + size, 1, k) for k in keys[1:])
        optimizer = self.optimizer()
        return SACState(
            actor=Learner.create(
                actor, optimizer, target=False, keep_previous=self.policy_churn > 0
            ),
            critic=Learner.create(critic, optimizer, keep_previous=self.churn > 0),
            critic_2=Learner.create(critic_2, optimizer, keep_previous=self.churn > 0),
            log_temperature=self.first_temperature(),
        )

    def _network(self, inputs: int, outputs: int, key: Key) -> Network:
        style = Architecture(layer_norm=self.layer_norm, initialiser="orthogonal")
        return mlp(inputs, (self.hidden, self.hidden), outputs, style, key=key)

    def act(
        self, state: SACState, obs: Shaped[Array, "*obs"], env_steps: Int[Array, ""], key: Key
    ) -> tuple[Float[Array, " size"], Float[Array, ""]]:
        """(action, min_i Q_i); the action is uniform before `learn_start`, then from the policy."""
        drawing, exploring = jax.random.split(key)
        drawn = policy(state.actor.network, obs, drawing).action
        action = self.explored(drawn, env_steps, exploring)
        return action, lower(state.critic.network, state.critic_2.network, joined(obs, action))

    def exploit(
        self, state: SACState, obs: Shaped[Array, "*obs"], key: Key
    ) -> Float[Array, " size"]:
        """tanh μ, the median of the policy."""
        del key
        return typical(state.actor.network, obs)

    def td_target(self, state: SACState, batch: Transition, key: Key) -> Float[Array, " batch"]:
        """y, the regression target of both critics."""
        action, log_prob = policy(state.actor.network, batch.obs_t, key)
        pairs = joined(batch.obs_t, action)
        value = lower(target_of(state.critic), target_of(state.critic_2), pairs)
        return self.backed_up(batch, value, log_prob, state.log_temperature.value)

    def critic_loss(
        self, critic: Network, target: Float[Array, " batch"], batch: Transition
    ) -> Scalar:
        """L(Q): the mean squared error of one critic, without a factor of ½."""
        value = critic(joined(batch.obs_tm1, batch.action))[..., 0]
        return jnp.mean((value - target) ** 2)

    def actor_loss(
        self, actor: Network, state: SACState, batch: Transition, key: Key
    ) -> tuple[Scalar, Scalar]:
        """(L(π), H): the loss with the critics of `state`, and the entropy of the policy."""
        return actor_loss(*self._valued(actor, state, batch, key), state.log_temperature.value)

    def _valued(
        self, actor: Network, state: SACState, batch: Transition, key: Key
    ) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
        """(min_i Q_i, log π) for actions sampled from the actor."""
        action, log_prob = policy(actor, batch.obs_tm1, key)
        pairs = joined(batch.obs_tm1, action)
        return lower(state.critic.network, state.critic_2.network, pairs), log_prob

    def inputs(self, state: SACState, batch: Transition) -> dict[str, Array]:
        """`actor` takes the observation, the critics the observation and the action."""
        del state
        pairs = joined(batch.obs_tm1, batch.action)
        return {"actor": batch.obs_tm1, "critic": pairs, "critic_2": pairs}

    def gradients(self, state: SACState, batch: Transition, key: Key) -> dict[str, PyTree]:
        """The gradient of each Learner's loss on all rows, all of them at `state`.

        No churn penalty is included. `update` computes the actor's gradient after the critics'
        step.
        """
        following, acting = jax.random.split(key)
        actor, _ = self._actor_gradient(state, batch, acting)
        return {"actor": actor, **self._critic_gradients(state, batch, following)}

    def losses(self, state: SACState, batch: Transition, key: Key) -> dict[str, Scalar]:
        """L(π) and each critic's L(Q), on all rows and all at `state`; no churn penalty."""
        following, acting = jax.random.split(key)
        still = jax.lax.stop_gradient(state)
        target = self.td_target(still, batch, following)
        return {
            "actor": self.actor_loss(state.actor.network, still, batch, acting)[0],
            "critic": self.critic_loss(state.critic.network, target, batch),
            "critic_2": self.critic_loss(state.critic_2.network, target, batch),
        }

    def update(self, state: SACState, batch: Transition, key: Key) -> SACState:
        """One step of the critics, their targets, the actor and the temperature."""
        following, acting = jax.random.split(key)
        held = None
        if (self.churn or self.policy_churn) and len(batch.reward) > 1:
            batch, held = halves(batch)
        gradients = self._critic_gradients(state, batch, following, held)
        state = replace(
            state,
            critic=state.critic.descend(gradients["critic"]).follow(self.target_rate),
            critic_2=state.critic_2.descend(gradients["critic_2"]).follow(self.target_rate),
        )
        gradient, entropy = self._actor_gradient(state, batch, acting, held)
        log_temperature, size = state.log_temperature, batch.action.shape[-1]
        pull = self.temperature_gradient(log_temperature.value, entropy, size)
        return replace(
            state,
            actor=state.actor.descend(gradient),
            log_temperature=log_temperature.descend(pull),
        )

    def _critic_gradients(
        self, state: SACState, batch: Transition, key: Key, held: Transition | None = None
    ) -> dict[str, PyTree]:
        still = jax.lax.stop_gradient(state)
        target = self.td_target(still, batch, key)

        def gradient(learner: Learner) -> PyTree:
            before = learner.previous_network

            def loss(critic: Network) -> Scalar:
                error = self.critic_loss(critic, target, batch)
                if before is None or held is None:
                    return error
                pairs = joined(held.obs_tm1, held.action)
                return error + self.churn * jnp.mean((critic(pairs) - before(pairs)) ** 2)

            return learner.gradient(loss)[1]

        return {"critic": gradient(state.critic), "critic_2": gradient(state.critic_2)}

    def _actor_gradient(
        self, state: SACState, batch: Transition, key: Key, held: Transition | None = None
    ) -> tuple[PyTree, Scalar]:
        """(the actor's gradient, the entropy of the policy)."""
        still, before = jax.lax.stop_gradient(state), state.actor.previous_network
        log_temperature = still.log_temperature.value

        def loss(actor: Network) -> tuple[Scalar, Scalar]:
            value, log_prob = self._valued(actor, still, batch, key)
            plain, entropy = actor_loss(value, log_prob, log_temperature)
            if before is None or held is None:
                return plain, entropy
            size = jnp.mean(jnp.abs(jnp.exp(log_temperature) * log_prob - value))
            churn = jnp.mean(divergence(actor, before, held.obs_tm1))
            return plain + self.policy_churn * jax.lax.stop_gradient(size) * churn, entropy

        _, gradient, entropy = state.actor.gradient_with(loss)
        return gradient, entropy

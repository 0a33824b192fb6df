"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347), with GAE (1506.02438).

    δ_t = r_t + γ d_t V(s'_t) − V(s_t)            d = 0 where the environment terminated
    A_t = δ_t + γ λ A_{t+1}                       to the end of the episode or of the round
    R_t = A_t + V(s_t)
    L(π) = −E min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) − c H(π),   ρ = π(a|s) / π_before(a|s)
    L(V) = E (V(s) − R)² / 2

A round is `batch_size` env steps over parallel environments, then one update. The update makes
`epochs` passes over the round in minibatches. Advantages are scaled to mean 0 and standard
deviation 1 in each minibatch. Beyond the paper, this follows what implementations agree on (Huang
et al. 2022, "The 37 implementation details of PPO"): orthogonal weights, policy outputs near 0 at
first, gradients clipped by their norm, Adam with ε = 10⁻⁵. Actor and critic are separate networks,
so that each can be injected by itself. The learning rate is constant, because the length of a run
is not known in advance.

For continuous actions π is a Gaussian with learned, state-independent standard deviations. Samples
outside [−1, 1] are clipped for the environment only; the stored action is the sample. For
multi-discrete actions π is one softmax per choice. The choices are independent given the state, so
log π and H are sums over them.

With normalised observations or rewards, an update uses the statistics at the end of the round, and
log π_before is recomputed with them. In Stable-Baselines3 every step keeps the statistics that it
was taken with.

With `churn` = λ the loss of a minibatch also penalises how far the last step moved the policy on an
equal number of other observations of the round (CHAIN, Tang & Berseth 2024, arXiv 2409.04792):

    L(π_t) + λ R,     R = −mean_s Σ_a π_(t−1)(a|s) log π_t(a|s),    discrete actions
                      R = mean_{s, i} (μ_t(s) − μ_(t−1)(s))_i²,     continuous actions, μ the mean

For multi-discrete actions R is summed over the choices.

With `churn_share` λ is adapted to |L| and R from round to round, so that λR stays that share of |L|
(C-CHAIN, see `regrow.learners.churn`). The authors' code has, for continuous actions, a share of
0.02 to 0.1 over the last 100 rounds, and λ = 100 in the first 50. For discrete actions, where R is
never 0, it has a share of 10,000 over 200 rounds, λ = 10 in the first 20, and never below 1 after
them. For continuous actions the authors take L and R from a round's last minibatch. Here they are
means over all minibatches, as in the authors' code for discrete actions.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from regrow.agents.base import Agent
from regrow.errors import RegrowError, require
from regrow.gradients.base import Terms
from regrow.learners.churn import ChurnBalance, check_share
from regrow.learners.learner import LearnedScalar, Learner
from regrow.learners.optimizer import Optimizer
from regrow.networks.activations import Activation, units_for
from regrow.networks.architecture import Architecture
from regrow.networks.initialisers import Initialiser
from regrow.networks.network import Network, convolutional, mlp, with_output
from regrow.registry import compose
from regrow.types import (
    ActionSpace,
    Continuous,
    Discrete,
    Experience,
    Key,
    MultiDiscrete,
    Scalar,
    Transition,
)


class PPOState(eqx.Module):
    """The state of PPO.

    `log_std` is None unless actions are continuous. `numbers`: for multi-discrete actions, the
    number of options of each choice; else empty.
    """

    actor: Learner
    critic: Learner
    log_std: LearnedScalar | None
    balance: ChurnBalance | None = None
    numbers: tuple[int, ...] = eqx.field(static=True, default=())


class Rollout(NamedTuple):
    """What the losses use: transitions, with the networks' outputs for them before the update."""

    obs: Shaped[Array, "batch *obs"]
    action: Shaped[Array, "batch *action"]
    log_prob: Float[Array, " batch"]
    advantage: Float[Array, " batch"]
    value: Float[Array, " batch"]  # R, the regression target of the critic


@dataclass(frozen=True)
class PPO(Agent):
    """PPO for any action space, on images (a convolution first) or vectors.

    Defaults are the paper's for continuous control (1707.06347, table 3), with eight parallel
    environments in place of one.

    `batch_size`: env steps per round over all `num_envs` environments, so each takes
    batch_size / num_envs consecutive steps. `minibatches`: per epoch. `trace`: λ of GAE. `clip`: ε.
    `entropy`: c. `channels`: of the convolution. `hidden` and `depth`: of the dense layers.
    `normalize_observations` and `normalize_rewards`: by running statistics, see
    `regrow.experience.normalization`.
    """

    discount: float = 0.99
    batch_size: int = 2_048
    num_envs: int = 8
    epochs: int = 10
    minibatches: int = 32
    trace: float = 0.95
    clip: float = 0.2
    entropy: float = 0.0
    channels: int = 16
    hidden: int = 64
    depth: int = 2
    activation: Activation = "tanh"
    layer_norm: bool = False
    learning_rate: float = 3e-4
    epsilon: float = 1e-5
    max_gradient_norm: float = 0.5  # of each network
    gradient: Terms = ()  # chained to the optimizer of the networks, not of `log_std`
    churn: float = 0.0  # λ
    churn_share: float = 0.0
    normalize_observations: bool = False
    normalize_rewards: bool = False

    waits_for_updates: ClassVar[bool] = True

    # Our values, for many parallel environments, as on MinAtar with everything compiled.
    minatar: ClassVar[dict[str, Any]] = {
        "batch_size": 4_096,
        "num_envs": 64,
        "epochs": 4,
        "minibatches": 8,
        "entropy": 0.01,
        "hidden": 128,
        "depth": 1,
        "activation": "relu",
        "learning_rate": 1e-3,
    }

    def __post_init__(self) -> None:
        compose(self, "gradient", "gradients")
        require(0 <= self.discount < 1, f"discount is {self.discount}; it must be in [0, 1)")
        require(0 <= self.trace <= 1, f"trace is {self.trace}; it must be in [0, 1]")
        require(self.clip > 0, f"clip is {self.clip}; it must be > 0")
        require(self.entropy >= 0, f"entropy is {self.entropy}; it must be 0 or more")
        names = ("batch_size", "num_envs", "epochs", "minibatches", "channels", "hidden", "depth")
        for name in names:
            value = getattr(self, name)
            require(value >= 1, f"{name} is {value}; it must be at least 1")
        require(
            self.batch_size % self.num_envs == 0,
            f"batch_size is {self.batch_size}; it must be a multiple of num_envs, {self.num_envs}",
        )
        require(
            self.batch_size % self.minibatches == 0,
            f"batch_size is {self.batch_size}; it must be a multiple of minibatches, "
            f"{self.minibatches}",
        )
        require(
            self.batch_size > self.minibatches,
            f"minibatches is {self.minibatches}; of {self.batch_size} env steps each must hold two "
            "or more, or its advantages, centred, are all 0",
        )
        require(
            self.max_gradient_norm > 0,
            f"max_gradient_norm is {self.max_gradient_norm}; it must be > 0",
        )
        for name in ("channels", "hidden"):
            units_for(getattr(self, name), self.activation, name)
        check_share(self.churn, self.churn_share, example="10")
        self._optimizer()

    def _optimizer(self) -> Optimizer:
        return Optimizer(
            "adam",
            self.learning_rate,
            self.epsilon,
            max_gradient_norm=self.max_gradient_norm,
            terms=self.gradient,
        )

    # The round: one batch, all transitions since the last update.

    @property
    def capacity(self) -> int:
        """One round of transitions."""
        return self.batch_size

    @property
    def env_steps_per_round(self) -> int:
        """Env steps per round: one batch."""
        return self.batch_size

    @property
    def updates_per_round(self) -> int:
        """One update, of several epochs."""
        return 1

    @property
    def first_learning_round(self) -> int:
        """0: already the first round ends in an update."""
        return 0

    def batch(self, experience: Experience, key: Key) -> Transition:
        """The whole round, in order."""
        del key
        return experience.first(self.batch_size)

    # Acting.

    def init(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], actions: ActionSpace, key: Key
    ) -> PPOState:
        """New networks; standard deviations of 1 for continuous actions.

        Byte images are divided by 255.

        Raises `RegrowError` unless `shape` has 1 or 3 axes.
        """
        divisor = 255.0 if dtype == np.uint8 else 1.0
        actor_key, critic_key = jax.random.split(key)
        optimizer = self._optimizer()
        numbers = actions.numbers if isinstance(actions, MultiDiscrete) else ()
        log_std, window, patience = None, 200, 20
        if isinstance(actions, Continuous):
            plain = Optimizer("adam", self.learning_rate, self.epsilon)
            log_std, window, patience = (
                LearnedScalar.create(0.0, plain, shape=(actions.size,)),
                100,
                50,
            )
        actor = self._network(shape, divisor, _outputs(actions), "orthogonal_small", actor_key)
        critic = self._network(shape, divisor, 1, "orthonormal", critic_key)
        return PPOState(
            Learner.create(actor, optimizer, target=False, keep_previous=self.churn > 0),
            Learner.create(critic, optimizer, target=False),
            log_std,
            ChurnBalance.create(window, patience) if self.churn_share else None,
            numbers,
        )

    def _network(
        self, shape: tuple[int, ...], divisor: float, outputs: int, last: Initialiser, key: Key
    ) -> Network:
        style = Architecture(self.activation, self.layer_norm, initialiser="orthogonal")
        hidden, (body, end) = [self.hidden] * self.depth, jax.random.split(key)
        match shape:
            case (height, width, depth):
                image = (height, width, depth)
                network = convolutional(
                    image, self.channels, hidden, outputs, style, divisor=divisor, key=body
                )
            case (inputs,):
                network = mlp(inputs, hidden, outputs, style, key=body)
            case _:
                raise RegrowError(
                    f"ppo takes vectors or images (height, width, channels), not {shape}"
                )
        return with_output(network, last, end)

    def act(
        self, state: PPOState, obs: Shaped[Array, "*obs"], env_steps: Int[Array, ""], key: Key
    ) -> tuple[Shaped[Array, "*action"], Float[Array, ""]]:
        """(an action sampled from the policy, the value of the observation)."""
        del env_steps
        out = state.actor.network(obs)
        if state.log_std is None:
            logits = choices(out, state.numbers)
            action = jax.random.categorical(key, logits).astype(jnp.int32)
        else:
            noise = jax.random.normal(key, out.shape, out.dtype)
            action = out + jnp.exp(state.log_std.value) * noise
        return action, state.critic.network(obs)[0]

    def exploit(
        self, state: PPOState, obs: Shaped[Array, "*obs"], key: Key
    ) -> Shaped[Array, "*action"]:
        """The mode of the policy: the most probable option of each choice, or the mean."""
        del key
        out = state.actor.network(obs)
        if state.log_std is not None:
            return out
        return jnp.argmax(choices(out, state.numbers), axis=-1).astype(jnp.int32)

    # Learning.

    def rollout(self, state: PPOState, batch: Transition) -> Rollout:
        """The data that an update uses, advantages included."""
        value = state.critic.network(batch.obs_tm1)[:, 0]
        following = state.critic.network(batch.obs_t)[:, 0]
        error = batch.reward + self.discount * batch.discount * following - value
        advantage = self._advantages(error, _goes_on(batch, self.num_envs))
        log_std = _value_of(state.log_std)
        actor, numbers = state.actor.network, state.numbers
        log_prob, _ = policy(actor, log_std, batch.obs_tm1, batch.action, numbers)
        return Rollout(batch.obs_tm1, batch.action, log_prob, advantage, advantage + value)

    def _advantages(
        self, error: Float[Array, " batch"], goes_on: Bool[Array, " batch"]
    ) -> Float[Array, " batch"]:
        """A from δ; row i + `num_envs` is the next step after row i wherever `goes_on` is True."""
        missing = -len(error) % self.num_envs
        errors, on = (jnp.pad(x, (0, missing)).reshape(-1, self.num_envs) for x in (error, goes_on))

        def back(later: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
            error, goes_on = row
            advantage = error + self.discount * self.trace * jnp.where(goes_on, later, 0.0)
            return advantage, advantage

        _, advantages = jax.lax.scan(back, jnp.zeros(self.num_envs), (errors, on), reverse=True)
        return advantages.ravel()[: len(error)]

    def actor_loss(
        self, actor: Network, log_std: Array | None, seen: Rollout, numbers: tuple[int, ...] = ()
    ) -> Scalar:
        """L(π) on a minibatch; `numbers` as in the state."""
        log_prob, entropy = policy(actor, log_std, seen.obs, seen.action, numbers)
        ratio = jnp.exp(log_prob - seen.log_prob)
        clipped = jnp.clip(ratio, 1 - self.clip, 1 + self.clip)
        gain = jnp.minimum(ratio * seen.advantage, clipped * seen.advantage)
        return -jnp.mean(gain) - self.entropy * jnp.mean(entropy)

    def critic_loss(self, critic: Network, seen: Rollout) -> Scalar:
        """L(V) on a minibatch."""
        return jnp.mean((critic(seen.obs)[:, 0] - seen.value) ** 2) / 2

    def inputs(self, state: PPOState, batch: Transition) -> dict[str, Array]:
        """Both networks take the observation."""
        del state
        return {"actor": batch.obs_tm1, "critic": batch.obs_tm1}

    def gradients(self, state: PPOState, batch: Transition, key: Key) -> dict[str, PyTree]:
        """The gradient of each loss on a batch as one minibatch, with unscaled advantages.

        Scaled advantages would be 0 for a single transition.
        """
        del key
        # The rollout is constant here, also for callers that differentiate these gradients.
        seen, log_std = self.rollout(jax.lax.stop_gradient(state), batch), _value_of(state.log_std)
        _, actor = state.actor.gradient(
            lambda actor: self.actor_loss(actor, log_std, seen, state.numbers)
        )
        _, critic = state.critic.gradient(lambda critic: self.critic_loss(critic, seen))
        return {"actor": actor, "critic": critic}

    def losses(self, state: PPOState, batch: Transition, key: Key) -> dict[str, Scalar]:
        """L(π) and L(V) on a batch as one minibatch, with unscaled advantages.

        The policy equals π_before, so ρ = 1 and L(π) = −E A − c H(π).
        """
        del key
        seen = self.rollout(jax.lax.stop_gradient(state), batch)
        return {
            "actor": self.actor_loss(
                state.actor.network, _value_of(state.log_std), seen, state.numbers
            ),
            "critic": self.critic_loss(state.critic.network, seen),
        }

    def update(self, state: PPOState, batch: Transition, key: Key) -> PPOState:
        """All epochs on a batch. Unless it is a round in order, the advantages are one-step."""
        seen = self.rollout(state, batch)
        count = min(self.minibatches, len(batch.reward))
        rows = len(batch.reward) // count * count
        strength = self._strength(state)

        def shuffled(key: Key) -> Int[Array, "count rows"]:
            return jax.random.permutation(key, len(batch.reward))[:rows].reshape(count, -1)

        def epoch(state: PPOState, key: Key) -> tuple[PPOState, PyTree]:
            held = shuffled(jax.random.fold_in(key, 1)) if self.churn else None
            return jax.lax.scan(minibatch, state, (shuffled(key), held))

        def minibatch(state: PPOState, rows: tuple[Array, Array | None]) -> tuple[PPOState, PyTree]:
            learned = jax.tree.map(lambda x: x[rows[0]], seen)
            held = None if rows[1] is None else seen.obs[rows[1]]
            return self._step(state, learned, held, strength)

        state, losses = jax.lax.scan(epoch, state, jax.random.split(key, self.epochs))
        if state.balance is None or losses is None:
            return state
        return replace(state, balance=state.balance.after(*jax.tree.map(jnp.mean, losses)))

    def _strength(self, state: PPOState) -> float | Scalar:
        """λ of the churn penalty in this round."""
        if state.balance is None:
            return self.churn
        # The cross-entropy of discrete actions is never 0, and the authors' share is large.
        least = 1.0 if state.log_std is None else 0.0
        return state.balance.strength(self.churn, self.churn_share, least)

    def _step(
        self,
        state: PPOState,
        seen: Rollout,
        held: Shaped[Array, "batch *obs"] | None,
        strength: float | Scalar,
    ) -> tuple[PPOState, tuple[Scalar, Scalar] | None]:
        """(state, (L(π), R)) after one gradient step; `held`: observations for the penalty."""
        centred = seen.advantage - jnp.mean(seen.advantage)
        seen = seen._replace(advantage=centred / (jnp.std(seen.advantage) + 1e-8))
        log_std, before, numbers = state.log_std, state.actor.previous_network, state.numbers

        def whole(actor: Network) -> tuple[Scalar, tuple[Scalar, Scalar] | None]:
            loss = self.actor_loss(actor, _value_of(log_std), seen, numbers)
            if before is None or held is None:
                return loss, None
            numbered = log_std is None
            churn = policy_churn(actor, before, held, numbered=numbered, numbers=numbers)
            return loss + strength * churn, (loss, churn)

        _, actor, losses = state.actor.gradient_with(whole)
        _, critic = state.critic.gradient(lambda critic: self.critic_loss(critic, seen))
        if log_std is not None:
            network = state.actor.network
            pull = jax.grad(lambda value: self.actor_loss(network, value, seen))(log_std.value)
            log_std = log_std.descend(pull)
        actor, critic = state.actor.descend(actor), state.critic.descend(critic)
        return PPOState(actor, critic, log_std, state.balance, numbers), losses


def policy(
    actor: Network,
    log_std: Float[Array, " size"] | None,
    obs: Shaped[Array, "batch *obs"],
    action: Shaped[Array, "batch *action"],
    numbers: tuple[int, ...] = (),
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """(log π(a|s), H(π(·|s))) on a batch, for one softmax, one per choice, or a Gaussian."""
    out = actor(obs)
    if log_std is None:
        log_probs = jax.nn.log_softmax(choices(out, numbers))
        chosen = jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
        return (jnp.sum(chosen, -1), jnp.sum(entropy, -1)) if numbers else (chosen, entropy)
    noise = (action - out) / jnp.exp(log_std)[None]
    constant = 0.5 * math.log(2 * math.pi)
    log_prob = jnp.sum(-0.5 * noise**2 - log_std[None] - constant, axis=-1)
    return log_prob, jnp.full(log_prob.shape, jnp.sum(log_std + 0.5 + constant))


def policy_churn(
    actor: Network,
    before: Network,
    obs: Shaped[Array, "batch *obs"],
    *,
    numbered: bool,
    numbers: tuple[int, ...] = (),
) -> Scalar:
    """R: how far the policy is from that of the network `before`."""
    now, then = actor(obs), before(obs)
    if numbered:
        then, now = choices(then, numbers), choices(now, numbers)
        surprise = -jax.nn.softmax(then) * jax.nn.log_softmax(now)
        return jnp.mean(jnp.sum(surprise, axis=(-2, -1) if numbers else -1))
    return jnp.mean((now - then) ** 2)


def choices(
    out: Float[Array, "*batch outputs"], numbers: tuple[int, ...]
) -> Float[Array, "*batch_and_logits"]:
    """The logits reshaped to (choices, most options per choice); unchanged without `numbers`.

    Choices with fewer options are padded with options of probability 0.
    """
    if not numbers:
        return out
    most = max(numbers)
    if len(set(numbers)) == 1:
        return out.reshape(*out.shape[:-1], len(numbers), most)
    # Far below all others but finite: the probability is 0, and 0 times its logarithm is not NaN.
    missing = jnp.finfo(out.dtype).min / 4
    padded = jnp.concatenate([out, jnp.full((*out.shape[:-1], 1), missing)], axis=-1)
    rows, start = np.full((len(numbers), most), out.shape[-1]), 0
    for row, number in zip(rows, numbers, strict=True):
        row[:number] = np.arange(start, start + number)
        start += number
    return padded[..., rows]


def _outputs(actions: ActionSpace) -> int:
    """The number of outputs of the policy network."""
    match actions:
        case Continuous(size):
            return size
        case MultiDiscrete(numbers):
            return sum(numbers)
        case Discrete(number):
            return number


def _value_of(scalar: LearnedScalar | None) -> Array | None:
    return None if scalar is None else scalar.value


def _goes_on(batch: Transition, stride: int) -> Bool[Array, " batch"]:
    """Whether the row `stride` later is the next step of the same episode.

    That is so if it begins with the observation that this row ended in, and the episode did not end
    here. In a randomly sampled batch this holds for no row, unless an observation occurs twice; to
    continue from there is valid too.
    """
    count = len(batch.reward)
    rest = min(stride, count)
    ends, begins = (x.reshape(count, -1) for x in (batch.obs_t, batch.obs_tm1))
    same = jnp.all(ends[: count - rest] == begins[rest:], axis=-1)
    return jnp.concatenate([same, jnp.zeros(rest, bool)]) & (batch.discount > 0) & ~batch.truncated

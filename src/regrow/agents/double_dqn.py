"""Double DQN (van Hasselt et al. 2016, arXiv 1509.06461).

    δ = r + γ d Q_target(s', argmax_a Q(s', a)) − Q(s, a),     d = 0 at termination

The gradient of δ²/2 is clipped to [−c, c] in δ, which is the Huber loss. Network and MinAtar
defaults follow Young & Tian 2019 (arXiv 1903.03176): 16 convolutions of 3×3, 128 hidden units,
batches of 32, 100,000 transitions, a target copied every 1,000 env steps. The differences keep a
laptop experiment short: Adam, one update every 4 env steps, and exploration that ends early.
`young_tian_2019` has the values of their code (MinAtar, examples/dqn.py). docs/presets.md compares
every field with its source.

With `churn` = λ the loss also penalises how far the last update moved the values on other
transitions (CHAIN, Tang & Berseth 2024, arXiv 2409.04792):

    L(θ_t) + λ R,     R = mean_{s, a} (Q_θt(s, a) − Q_θ(t−1)(s, a))²

Their MinAtar code has λ = 100 with the mean of δ², not clipped. With δ²/2 that corresponds to 50.
With `churn_share` λ is adapted to L and R of the last 50,000 updates, so that λR stays that share
of L. `churn` is then λ for the first 10,000 updates (C-CHAIN, see `regrow.learners.churn`). The
authors' values are a share of 0.01 and, converted to this loss, λ = 25.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree, Shaped

from regrow.agents.base import OffPolicy
from regrow.errors import RegrowError, require
from regrow.gradients.base import Terms
from regrow.learners.churn import ChurnBalance, check_share, halves
from regrow.learners.learner import Learner
from regrow.learners.optimizer import Optimizer
from regrow.networks.activations import Activation, units_for
from regrow.networks.architecture import Architecture, Kind
from regrow.networks.initialisers import Initialiser
from regrow.networks.network import Network, convolutional, dqn_zoo, mlp
from regrow.registry import compose
from regrow.types import ActionSpace, Discrete, Key, MultiDiscrete, Scalar, Transition


class DoubleDQNState(eqx.Module):
    """The state of Double DQN."""

    q: Learner
    updates: Int[Array, ""]
    balance: ChurnBalance | None = None


@dataclass(frozen=True)
class DoubleDQN(OffPolicy):
    """Double DQN for discrete actions, on images (a convolution first) or vectors.

    `channels` of the convolution and `hidden` are widths: the number of features that the next
    layer reads. `depth`: hidden dense layers, or residual blocks after a first dense layer; None
    means 1 on images and 2 on vectors. The other network fields are those of
    `regrow.networks.architecture`. On byte images the network is DQN Zoo's for Atari, to which none
    of these fields apply. Byte images with a side below 36 get the MinAtar network, with inputs
    divided by 255. Presets: `young_tian_2019` for MinAtar, `atari_paper` (DQN Zoo's settings, 200M
    frames) and `atari_laptop`.
    """

    channels: int = 16
    hidden: int = 128
    depth: int | None = None
    activation: Activation = "relu"
    block: Kind = "dense"
    layer_norm: bool = False
    spectral_norm: bool = False
    initialiser: Initialiser | None = None
    double: bool = True  # False: DQN, where the target network also selects the action
    optimizer: Literal["adam", "rmsprop"] = "adam"
    learning_rate: float = 1e-3
    epsilon: float = 1e-5
    momentum: float = 0.0  # of RMSProp; no preset uses it
    epsilon_in_root: bool = False  # of RMSProp: g / √(variance + ε), as in DQN Zoo
    gradient: Terms = ()  # chained to the optimizer, e.g. (L2Init(), WeightClipping())
    target_period: int = 250  # updates
    error_clip: float = 1.0
    churn: float = 0.0  # λ
    churn_share: float = 0.0
    exploration_start: float = 1.0
    exploration_end: float = 0.05
    exploration_begin: int = 0  # env steps
    exploration_steps: int = 5_000  # env steps from start to end

    young_tian_2019: ClassVar[dict[str, Any]] = {
        "double": False,
        "learn_start": 5_001,
        "replay_ratio": 1.0,
        "optimizer": "rmsprop",
        "learning_rate": 2.5e-4,
        "epsilon": 0.01,
        "initialiser": "torch",
        "target_period": 1_000,
        "exploration_end": 0.1,
        "exploration_begin": 5_000,
        "exploration_steps": 100_000,
    }
    # DQN Zoo clips the error to ±1/32 after averaging over 32: the same as ±1 before, as here.
    atari_paper: ClassVar[dict[str, Any]] = {
        "replay_capacity": 1_000_000,
        "learn_start": 50_000,
        "optimizer": "rmsprop",
        "learning_rate": 2.5e-4,
        "epsilon": 0.01 / 32**2,
        "epsilon_in_root": True,
        "target_period": 7_500,
        "exploration_end": 0.01,
        "exploration_begin": 50_000,
        "exploration_steps": 1_000_000,
    }
    # Our values: sizes that fit a laptop, a schedule that ends within the first 100,000 env steps.
    atari_laptop: ClassVar[dict[str, Any]] = {
        "replay_capacity": 50_000,
        "learn_start": 5_000,
        "learning_rate": 1e-4,
        "target_period": 500,
        "exploration_end": 0.02,
        "exploration_begin": 5_000,
        "exploration_steps": 50_000,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        compose(self, "gradient", "gradients")
        require(self.channels >= 1, f"channels is {self.channels}; it must be at least 1")
        require(self.hidden >= 1, f"hidden is {self.hidden}; it must be at least 1")
        require(
            self.depth is None or self.depth >= 1, f"depth is {self.depth}; it must be at least 1"
        )
        for name in ("channels", "hidden"):
            units_for(getattr(self, name), self.activation, name)
        require(
            self.target_period >= 1, f"target_period is {self.target_period}; it must be at least 1"
        )
        require(self.error_clip > 0, f"error_clip is {self.error_clip}; it must be > 0")
        check_share(self.churn, self.churn_share, example="25")
        require(
            self.exploration_steps >= 1,
            f"exploration_steps is {self.exploration_steps}; it must be at least 1",
        )
        require(
            self.exploration_begin >= 0,
            f"exploration_begin is {self.exploration_begin}; it must be 0 or more",
        )
        self._optimizer()

    def _optimizer(self) -> Optimizer:
        return Optimizer(
            self.optimizer,
            self.learning_rate,
            self.epsilon,
            momentum=self.momentum,
            epsilon_in_root=self.epsilon_in_root,
            terms=self.gradient,
        )

    def init(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], actions: ActionSpace, key: Key
    ) -> DoubleDQNState:
        """A newly initialised network and its target.

        Raises `RegrowError` unless `shape` has 1 or 3 axes and the actions are discrete.
        """
        if not isinstance(actions, Discrete):
            other = "ppo" if isinstance(actions, MultiDiscrete) else "sac"
            raise RegrowError(f"double_dqn takes discrete actions, not {actions}; try {other}")
        frames = dtype == np.uint8 and len(shape) == 3
        if frames and min(shape[:2]) >= LEAST_FRAME:
            network = self._network_for_frames(shape, actions.number, key)
        else:
            network = self._network(shape, actions.number, 255.0 if frames else 1.0, key)
        q = Learner.create(network, self._optimizer(), keep_previous=self.churn > 0)
        balance = ChurnBalance.create(50_000, patience=10_000) if self.churn_share else None
        return DoubleDQNState(q, jnp.array(0), balance)

    def _network(
        self, shape: tuple[int, ...], num_actions: int, divisor: float, key: Key
    ) -> Network:
        chosen = {field.name: getattr(self, field.name) for field in fields(Architecture)}
        style = Architecture(**chosen)
        first = 0 if self.block == "dense" else 1
        match shape:
            case (height, width, depth):
                hidden = [self.hidden] * (first + (self.depth or 1))
                image = (height, width, depth)
                return convolutional(
                    image, self.channels, hidden, num_actions, style, divisor=divisor, key=key
                )
            case (inputs,):
                hidden = [self.hidden] * (first + (self.depth or 2))
                return mlp(inputs, hidden, num_actions, style, key=key)
            case _:
                raise RegrowError(
                    f"double_dqn takes vectors or images (height, width, channels), not {shape}"
                )

    def _network_for_frames(self, shape: tuple[int, ...], num_actions: int, key: Key) -> Network:
        for field in fields(self):
            require(
                field.name not in _WORDS or getattr(self, field.name) == field.default,
                f"{field.name} is {getattr(self, field.name)!r}; on images of bytes double_dqn "
                "has the network of DQN Zoo, which has no such word",
            )
        height, width, depth = shape
        return dqn_zoo((height, width, depth), num_actions, key=key)

    def act(
        self,
        state: DoubleDQNState,
        obs: Shaped[Array, "*obs"],
        env_steps: Int[Array, ""],
        key: Key,
    ) -> tuple[Int[Array, ""], Float[Array, ""]]:
        """ε-greedy; ε decays linearly with env steps."""
        values = state.q.network(obs)
        done = jnp.clip((env_steps - self.exploration_begin) / self.exploration_steps, 0.0, 1.0)
        epsilon = self.exploration_start + (self.exploration_end - self.exploration_start) * done
        action = _epsilon_greedy(values, epsilon, key)
        return action, values[action]

    def exploit(
        self, state: DoubleDQNState, obs: Shaped[Array, "*obs"], key: Key
    ) -> Int[Array, ""]:
        """ε-greedy with ε = 0.01: some games never end under a greedy policy (DQN Zoo)."""
        return _epsilon_greedy(state.q.network(obs), EVALUATED_AT, key)

    def loss(self, network: Network, target: Network, batch: Transition) -> Scalar:
        """The mean Huber loss of the TD error over a batch."""
        # The whole batch at once: a vmap would hide it from `product`.
        values_t = target(batch.obs_t)
        selector = jax.lax.stop_gradient(network)
        chosen = jnp.argmax(selector(batch.obs_t) if self.double else values_t, axis=-1)
        value_t = _picked(values_t, chosen)
        td_target = batch.reward + self.discount * batch.discount * value_t
        error = td_target - _picked(network(batch.obs_tm1), batch.action)
        return jnp.mean(optax.losses.huber_loss(error, delta=self.error_clip))

    @property
    def rows_per_update(self) -> int:
        """Transitions per update; twice `batch_size` with `churn`, half of them for the penalty."""
        return self.batch_size * (2 if self.churn else 1)

    def inputs(self, state: DoubleDQNState, batch: Transition) -> dict[str, Array]:
        """`q` takes the observation."""
        del state
        return {"q": batch.obs_tm1}

    def gradients(self, state: DoubleDQNState, batch: Transition, key: Key) -> dict[str, PyTree]:
        """The gradient of `losses` with respect to the live parameters of `q`."""
        del key
        target = _target(state.q)
        _, gradient = state.q.gradient(lambda network: self.loss(network, target, batch))
        return {"q": gradient}

    def losses(self, state: DoubleDQNState, batch: Transition, key: Key) -> dict[str, Scalar]:
        """The loss of `q` on all rows, without the churn penalty."""
        del key
        return {"q": self.loss(state.q.network, _target(state.q), batch)}

    def loss_gradient(
        self, state: DoubleDQNState, batch: Transition
    ) -> tuple[PyTree, ChurnBalance | None]:
        """(gradient, balance) of an update; `churn` uses the second half for the penalty only."""
        q, balance = state.q, state.balance
        target, before = _target(q), q.previous_network
        if before is None or len(batch.action) == 1:
            return q.gradient(lambda network: self.loss(network, target, batch))[1], balance
        learned, others = halves(batch)
        held = others.obs_tm1
        strength = balance.strength(self.churn, self.churn_share) if balance else self.churn

        def whole(network: Network) -> tuple[Scalar, tuple[Scalar, Scalar]]:
            loss = self.loss(network, target, learned)
            churn = jnp.mean((network(held) - before(held)) ** 2)
            return loss + strength * churn, (loss, churn)

        _, gradient, seen = q.gradient_with(whole)
        return gradient, balance.after(*seen) if balance else None

    def update(self, state: DoubleDQNState, batch: Transition, key: Key) -> DoubleDQNState:
        """One gradient step; the target is copied every `target_period` updates."""
        del key
        gradient, balance = self.loss_gradient(state, batch)
        q = state.q.descend(gradient)
        updates = state.updates + 1
        return DoubleDQNState(q.sync(updates % self.target_period == 0), updates, balance)


EVALUATED_AT = 0.01  # ε
LEAST_FRAME = 36  # pixels: the smallest side that fits the three convolutions of DQN Zoo
# The fields that describe a network: widths and architecture.
_WORDS = ("channels", "hidden", "depth", *(field.name for field in fields(Architecture)))


def _epsilon_greedy(
    values: Float[Array, " actions"], epsilon: float | Float[Array, ""], key: Key
) -> Int[Array, ""]:
    coin, choice = jax.random.split(key)
    explores = jax.random.uniform(coin, (), jnp.float32) < epsilon
    at_random = jax.random.randint(choice, (), 0, values.shape[0], jnp.int32)
    return jnp.where(explores, at_random, jnp.argmax(values).astype(jnp.int32))


def _picked(values: Float[Array, "batch actions"], actions: Int[Array, " batch"]) -> Array:
    return jnp.take_along_axis(values, actions[:, None], axis=-1)[:, 0]


def _target(learner: Learner) -> Network:
    assert learner.target is not None, "Double DQN always creates its Learner with a target"
    return learner.target

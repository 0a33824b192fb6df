"""DrQ (Kostrikov et al. 2020, arXiv 2004.13649): soft actor-critic on randomly shifted images.

    φ(s): convolutions;   z = p(φ(s)): 50 numbers;   Q_i(z, a);   π(a|φ(s)), with its own p
    y    = r + γ d (min_i Q_i,target(z_target', a') − α log π(a'|φ(s'))),       a' ~ π(·|φ(s'))
    L    = E Σ_i (Q_i(z, a) − y)²                        with respect to Q_1, Q_2, p and φ
    L(π) = E (α log π(a|φ(s)) − min_i Q_i(z, a))         with respect to π alone

The s and the s' of every transition are shifted by up to 4 pixels each way, once per update. Only
the critics' loss trains φ; the actor reads φ without training it. The target networks of Q, p and φ
are moving averages.

Networks, settings and update order follow the primacy-bias work (Nikishin et al. 2022, arXiv
2205.07802; jaxrl). The convolutions are 3×3 with stride 2, and each doubles the channels. The
projection to 50 numbers is a dense layer, layer normalisation and a tanh. An update first steps the
critics and φ, then the targets, then the actor against the updated critics and φ, then the
temperature with the entropy of the actor before its step.

Each network is a separate Learner. φ is all encoder and the others are all head. A reset of heads
is therefore the published one: it keeps φ, its target and its optimizer state.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, Shaped

from regrow.agents.soft.base import (
    SoftActorCritic,
    actor_loss,
    joined,
    lower,
    policy,
    target_of,
    typical,
)
from regrow.errors import RegrowError, require
from regrow.learners.learner import LearnedScalar, Learner, joint_gradient
from regrow.networks.architecture import Architecture
from regrow.networks.layers import Conv, Dense
from regrow.networks.network import Network, mlp, with_output
from regrow.types import ActionSpace, Key, Scalar, Transition

VALUED = ("encoder", "projection", "critic", "critic_2")
"""The Learners that compute values and that the critics' loss trains."""


class DrQState(eqx.Module):
    """The state of DrQ."""

    encoder: Learner
    projection: Learner
    critic: Learner
    critic_2: Learner
    actor: Learner
    log_temperature: LearnedScalar


@dataclass(frozen=True)
class DrQ(SoftActorCritic):
    """DrQ for continuous actions on images, with random shifts and a critic-trained encoder.

    `convolutions`: how many. `channels`: of the first one; each next one has twice as many.
    `latent`: size of the projection of the features, one for the critics and one for the actor.
    `shift`: pixels each way. `layer_norm`: of the hidden layers. The defaults are the published
    values; docs/presets.md compares them with their sources.

    An update of the preset `laptop` costs a fortieth of a published one and uses an eighth as many
    transitions. On cartpole-swingup it reaches returns of 249 to 459 in 160,000 control steps
    (three seeds, while exploring), with 1.2 million transitions sampled. The published runs (ten,
    evaluated without exploring) reach 266 on average after 40,000 control steps, with 2.0 million
    sampled, and 815 after 160,000, with 9.7 million. The preset is thus not behind per transition
    sampled, and far behind per env step.
    """

    batch_size: int = 512
    learn_start: int = 1_000
    initial_temperature: float = 0.1
    target_entropy: float = -1.0
    channels: int = 32
    convolutions: int = 4
    latent: int = 50
    shift: int = 4

    # Our values: sizes for two CPU cores, and higher rates to compensate.
    laptop: ClassVar[dict[str, Any]] = {
        "batch_size": 64,
        "replay_capacity": 20_000,
        "channels": 16,
        "learning_rate": 1e-3,
        "target_rate": 0.01,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("channels", "convolutions", "latent"):
            value = getattr(self, name)
            require(value >= 1, f"{name} is {value}; it must be at least 1")
        require(self.shift >= 0, f"shift is {self.shift}; it must be 0 or more")

    def init(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], actions: ActionSpace, key: Key
    ) -> DrQState:
        """New networks, targets for all but the actor, and the initial temperature.

        Bytes are divided by 255. Raises `RegrowError` unless `shape` has three axes and the actions
        are continuous.
        """
        size = self.size_of(actions)
        if len(shape) != 3:
            raise RegrowError(
                f"drq takes images (height, width, channels), not observations of shape {shape}; "
                "try sac"
            )
        keys = jax.random.split(key, 5)
        encoder = self._encoder(shape, 255.0 if dtype == np.uint8 else 1.0, keys[0])
        last = encoder.layers[-1]
        assert isinstance(last, Conv), "an encoder is convolutions"
        features = (*last.image, last.width)
        optimizer = self.optimizer()
        projecting, acting = jax.random.split(keys[4])
        critic, critic_2 = (self._dense(self.latent + size, 1, k) for k in keys[1:3])
        body, end = jax.random.split(acting)
        acts = self._dense(self.latent, 2 * size, body)
        actor = Network([self._projection(features, projecting), *acts])
        return DrQState(
            encoder=Learner.create(encoder, optimizer),
            projection=Learner.create(Network([self._projection(features, keys[3])]), optimizer),
            critic=Learner.create(Network(critic), optimizer),
            critic_2=Learner.create(Network(critic_2), optimizer),
            actor=Learner.create(
                with_output(actor, "orthogonal_halves", end), optimizer, target=False
            ),
            log_temperature=self.first_temperature(),
        )

    def _encoder(self, image: tuple[int, int, int], divisor: float, key: Key) -> Network:
        layers: list[Conv] = []
        for i, k in enumerate(jax.random.split(key, self.convolutions)):
            layer = Conv(
                image,
                self.channels * 2**i,
                stride=2,
                padding="SAME",
                init="orthogonal",
                divisor=1.0 if i else divisor,
                key=k,
            )
            layers.append(layer)
            image = (*layer.image, layer.width)
        return Network(layers, split=len(layers))

    def _projection(self, features: tuple[int, ...], key: Key) -> Dense:
        return Dense(
            features, self.latent, activation="tanh", layer_norm=True, init="lecun_normal", key=key
        )

    def _dense(self, inputs: int, outputs: int, key: Key) -> tuple[Any, ...]:
        style = Architecture(layer_norm=self.layer_norm, initialiser="orthogonal")
        return mlp(inputs, (self.hidden, self.hidden), outputs, style, key=key).layers

    def act(
        self, state: DrQState, obs: Shaped[Array, "*obs"], env_steps: Int[Array, ""], key: Key
    ) -> tuple[Float[Array, " size"], Float[Array, ""]]:
        """(action, min_i Q_i); the action is uniform before `learn_start`, then from the policy."""
        drawing, exploring = jax.random.split(key)
        features = state.encoder.network(obs)
        drawn = policy(state.actor.network, features, drawing).action
        action = self.explored(drawn, env_steps, exploring)
        return action, _lower(_networks(state), features, action)

    def exploit(
        self, state: DrQState, obs: Shaped[Array, "*obs"], key: Key
    ) -> Float[Array, " size"]:
        """tanh μ, the median of the policy."""
        del key
        return typical(state.actor.network, state.encoder.network(obs))

    def shifted(self, batch: Transition, key: Key) -> Transition:
        """The batch with every observation shifted; s and s' are shifted independently."""
        keys = jax.random.split(key)
        obs_tm1, obs_t = (
            shifted(images, self.shift, k)
            for images, k in zip((batch.obs_tm1, batch.obs_t), keys, strict=True)
        )
        return batch._replace(obs_tm1=obs_tm1, obs_t=obs_t)

    def td_target(self, state: DrQState, batch: Transition, key: Key) -> Float[Array, " batch"]:
        """y, the regression target of both critics."""
        drawn = policy(state.actor.network, state.encoder.network(batch.obs_t), key)
        targets = {name: target_of(getattr(state, name)) for name in VALUED}
        value = _lower(targets, targets["encoder"](batch.obs_t), drawn.action)
        return self.backed_up(batch, value, drawn.log_prob, state.log_temperature.value)

    def critic_loss(
        self, networks: Mapping[str, Network], target: Float[Array, " batch"], batch: Transition
    ) -> Scalar:
        """L: the sum of both critics' mean squared errors."""
        pairs = _pairs(networks, networks["encoder"](batch.obs_tm1), batch.action)
        first, second = (networks[name](pairs)[..., 0] for name in ("critic", "critic_2"))
        return jnp.mean((first - target) ** 2 + (second - target) ** 2)

    def actor_loss(
        self, actor: Network, state: DrQState, batch: Transition, key: Key
    ) -> tuple[Scalar, Scalar]:
        """(L(π), H): the loss with the critics of `state`, and the entropy of the policy."""
        networks = _networks(state)
        features = networks["encoder"](batch.obs_tm1)
        action, log_prob = policy(actor, features, key)
        value = _lower(networks, features, action)
        return actor_loss(value, log_prob, state.log_temperature.value)

    def inputs(self, state: DrQState, batch: Transition) -> dict[str, Array]:
        """`encoder`: unshifted images; `projection`, `actor`: features; critics: z and action."""
        networks = _networks(state)
        features = networks["encoder"](batch.obs_tm1)
        pairs = _pairs(networks, features, batch.action)
        return {
            "encoder": batch.obs_tm1,
            "projection": features,
            "critic": pairs,
            "critic_2": pairs,
            "actor": features,
        }

    def gradients(self, state: DrQState, batch: Transition, key: Key) -> dict[str, PyTree]:
        """The gradient of each Learner's loss on shifted images, all of them at `state`.

        `update` has the same for the critics' loss, but computes the actor's after that step.
        """
        shifting, following, acting = jax.random.split(key, 3)
        batch = self.shifted(batch, shifting)
        actor, _ = self._actor_gradient(state, batch, acting)
        return {**self._critic_gradients(state, batch, following), "actor": actor}

    def losses(self, state: DrQState, batch: Transition, key: Key) -> dict[str, Scalar]:
        """L, shared by encoder and critics, and L(π), on shifted images, both at `state`."""
        shifting, following, acting = jax.random.split(key, 3)
        batch, still = self.shifted(batch, shifting), jax.lax.stop_gradient(state)
        target = self.td_target(still, batch, following)
        return {
            "critic": self.critic_loss(_networks(state), target, batch),
            "actor": self.actor_loss(state.actor.network, still, batch, acting)[0],
        }

    def update(self, state: DrQState, batch: Transition, key: Key) -> DrQState:
        """One step of the encoder and critics, their targets, the actor and the temperature."""
        shifting, following, acting = jax.random.split(key, 3)
        batch = self.shifted(batch, shifting)
        gradients = self._critic_gradients(state, batch, following)
        stepped = {
            name: getattr(state, name).descend(gradient).follow(self.target_rate)
            for name, gradient in gradients.items()
        }
        state = replace(state, **stepped)
        gradient, entropy = self._actor_gradient(state, batch, acting)
        log_temperature, size = state.log_temperature, batch.action.shape[-1]
        pull = self.temperature_gradient(log_temperature.value, entropy, size)
        return replace(
            state,
            actor=state.actor.descend(gradient),
            log_temperature=log_temperature.descend(pull),
        )

    def _critic_gradients(self, state: DrQState, batch: Transition, key: Key) -> dict[str, PyTree]:
        still = jax.lax.stop_gradient(state)
        target = self.td_target(still, batch, key)
        return joint_gradient(
            {name: getattr(state, name) for name in VALUED},
            lambda networks: self.critic_loss(networks, target, batch),
        )[1]

    def _actor_gradient(
        self, state: DrQState, batch: Transition, key: Key
    ) -> tuple[PyTree, Scalar]:
        """(the actor's gradient, the entropy of the policy)."""
        held = jax.lax.stop_gradient(state)
        _, gradient, entropy = state.actor.gradient_with(
            lambda actor: self.actor_loss(actor, held, batch, key)
        )
        return gradient, entropy


def shifted(
    images: Shaped[Array, "batch height width channels"], most: int, key: Key
) -> Shaped[Array, "batch height width channels"]:
    """Each image shifted at random by up to `most` pixels each way; edge pixels are repeated."""
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * most + 1, jnp.int32)
    sides = ((0, 0), (most, most), (most, most), (0, 0))
    padded = jnp.pad(images, sides, mode="edge")

    def cropped(image: Array, corner: Int[Array, " 2"]) -> Array:
        return jax.lax.dynamic_slice(image, (*corner, jnp.zeros_like(corner[0])), images.shape[1:])

    return jax.vmap(cropped)(padded, corners)


def _networks(state: DrQState) -> dict[str, Network]:
    return {name: getattr(state, name).network for name in VALUED}


def _pairs(
    networks: Mapping[str, Network], features: Array, action: Float[Array, "*batch size"]
) -> Float[Array, "*batch both"]:
    """The input of the critics."""
    return joined(networks["projection"](features), action)


def _lower(
    networks: Mapping[str, Network], features: Array, action: Float[Array, "*batch size"]
) -> Float[Array, "*batch"]:
    """The lower of the two critics' values."""
    pairs = _pairs(networks, features, action)
    return lower(networks["critic"], networks["critic_2"], pairs)

"""DrQ against NumPy in float64: losses, gradients, shifts, order; resets that keep the encoder."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from trees import bit_equal, distance

from regrow.agents import DrQ
from regrow.agents.drq import VALUED, shifted
from regrow.environments import Reach, Shades
from regrow.errors import RegrowError
from regrow.families import describe, make, members
from regrow.interventions import Deaden, Inject, Redo, Reset, ResetOptimizer, ShrinkPerturb, Widen
from regrow.layers import Conv
from regrow.learner import learners
from regrow.network import Network
from regrow.plan import arms_at_every_split
from regrow.probes import DeadOverlap, PolicyChurn
from regrow.probes.base import PartProbe
from regrow.run import Run, random_policy
from regrow.types import Continuous, Discrete, Transition

KEY = jax.random.key(5)
IMAGE, SIZE, COUNT = (7, 8, 2), 2, 8
AGENT = DrQ(
    channels=3,
    convolutions=2,
    hidden=6,
    latent=5,
    shift=1,
    batch_size=COUNT,
    discount=0.9,
    initial_temperature=0.3,
)
BYTES = np.dtype(np.uint8)
NAMES = [*VALUED, "actor"]


def started(agent: DrQ = AGENT):
    """A state whose targets are not its networks."""
    state, other = (agent.init(IMAGE, BYTES, Continuous(SIZE), k) for k in jax.random.split(KEY))
    return eqx.tree_at(
        lambda s: [getattr(s, name).target for name in VALUED],
        state,
        [getattr(other, name).network for name in VALUED],
    )


def batch_of(count: int = COUNT) -> Transition:
    rng = np.random.default_rng(0)
    first, second = (jnp.asarray(rng.integers(0, 256, (count, *IMAGE)), jnp.uint8) for _ in "ab")
    return Transition(
        obs_tm1=first,
        action=jnp.asarray(rng.uniform(-1, 1, (count, SIZE)), jnp.float32),
        reward=jnp.asarray(rng.normal(size=count) * 3, jnp.float32),
        discount=jnp.asarray(rng.integers(0, 2, count), jnp.float32),
        obs_t=second,
    )


# DrQ once more, in NumPy and float64; a network is a list of arrays, layer by layer.


def arrays(network: Network) -> list[np.ndarray]:
    return [np.asarray(x, np.float64) for x in jax.tree.leaves(network.layers)]


def encoded(weights: list[np.ndarray], images: np.ndarray) -> np.ndarray:
    """3×3 kernels at every second pixel of images that zeros fill up below and to the right."""
    x = images / 255
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        height, width = x.shape[1:3]
        rows, columns = -(-height // 2), -(-width // 2)
        # An odd side gets a zero on each end, an even one a single zero behind.
        sides = [(height % 2, 1), (width % 2, 1)]
        x = np.pad(x, [(0, 0), *sides, (0, 0)])
        out = np.zeros((len(x), rows, columns, kernel.shape[-1]))
        for i in range(rows):
            for j in range(columns):
                window = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
                out[:, i, j] = np.tensordot(window, kernel, 3) + bias
        x = np.maximum(out, 0)
    return x


def projected(weights: list[np.ndarray], features: np.ndarray) -> np.ndarray:
    weight, bias, scale, offset = weights
    z = features.reshape(len(features), -1) @ weight + bias
    z = (z - z.mean(axis=1, keepdims=True)) / np.sqrt(z.var(axis=1, keepdims=True) + 1e-5)
    return np.tanh(z * scale + offset)


def dense(weights: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    for weight, bias in pairs[:-1]:
        x = np.maximum(x @ weight + bias, 0)
    return x @ pairs[-1][0] + pairs[-1][1]


def drawn(actor: list[np.ndarray], features: np.ndarray, key) -> tuple[np.ndarray, np.ndarray]:
    mean, raw = np.split(dense(actor[4:], projected(actor[:4], features)), 2, axis=1)
    std = np.exp(-10 + 12 * (1 + np.tanh(raw)) / 2)
    u = mean + std * np.asarray(jax.random.normal(key, mean.shape), np.float64)
    density = scipy.stats.norm.logpdf(u, mean, std) - np.log(1 / np.cosh(u) ** 2)
    return np.tanh(u), density.sum(axis=1)


def valued(
    networks: dict[str, list[np.ndarray]], features: np.ndarray, action: np.ndarray
) -> list[np.ndarray]:
    pairs = np.hstack([projected(networks["projection"], features), action])
    return [dense(networks[name], pairs)[:, 0] for name in ("critic", "critic_2")]


def plain(batch: Transition) -> Transition:
    return Transition(*(np.asarray(x, np.float64) for x in batch))


def goal(state, batch: Transition, key) -> np.ndarray:
    online = encoded(arrays(state.encoder.network), batch.obs_t)
    action, log_prob = drawn(arrays(state.actor.network), online, key)
    targets = {name: arrays(getattr(state, name).target) for name in VALUED}
    value = np.min(valued(targets, encoded(targets["encoder"], batch.obs_t), action), axis=0)
    return batch.reward + 0.9 * batch.discount * (value - 0.3 * log_prob)


def losses(state, batch: Transition, key):
    """(the loss of the critics, that of the actor), of all networks' arrays by name."""
    batch, (following, acting) = plain(batch), jax.random.split(key)
    y = goal(state, batch, following)

    def of_critics(networks: dict[str, list[np.ndarray]]) -> float:
        features = encoded(networks["encoder"], batch.obs_tm1)
        values = valued(networks, features, batch.action)
        return float(sum(np.mean((value - y) ** 2) for value in values))

    def of_actor(networks: dict[str, list[np.ndarray]]) -> float:
        features = encoded(networks["encoder"], batch.obs_tm1)
        action, log_prob = drawn(networks["actor"], features, acting)
        return float(np.mean(0.3 * log_prob - np.min(valued(networks, features, action), axis=0)))

    return of_critics, of_actor


def every(state) -> dict[str, list[np.ndarray]]:
    return {name: arrays(getattr(state, name).network) for name in NAMES}


def test_the_goal_and_the_losses_in_numpy():
    state, batch = started(), batch_of()
    following, acting = jax.random.split(KEY)
    y = AGENT.goal(state, batch, following)
    np.testing.assert_allclose(y, goal(state, plain(batch), following), rtol=2e-5, atol=2e-5)
    ended = np.asarray(batch.discount) == 0
    np.testing.assert_array_equal(np.asarray(y)[ended], np.asarray(batch.reward)[ended])
    of_critics, of_actor = losses(state, batch, KEY)
    networks = {name: getattr(state, name).network for name in VALUED}
    found = AGENT.critic_loss(networks, y, batch)
    assert float(found) == pytest.approx(of_critics(every(state)), rel=1e-5)
    found, _ = AGENT.actor_loss(state.actor.network, state, batch, acting)
    assert float(found) == pytest.approx(of_actor(every(state)), rel=1e-5)


@pytest.fixture(scope="module")
def gradients():
    """Those of every Learner, on images as they are."""
    still = dataclasses.replace(AGENT, shift=0)
    return jax.jit(still.gradients)(started(), batch_of(), KEY)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_by_finite_differences(gradients, name):
    """Along five directions in the space of all parameters of one Learner."""
    state, rng = started(), np.random.default_rng(1)
    _, following, acting = jax.random.split(KEY, 3)
    batch, networks = batch_of(), every(state)
    of_critics, of_actor = _losses_at(state, batch, following, acting)
    loss, gradient = of_actor if name == "actor" else of_critics, arrays(gradients[name])
    for _ in range(5):
        direction = [rng.normal(size=x.shape) for x in networks[name]]
        there, back = (
            loss({**networks, name: [x + h * d for x, d in zip(networks[name], direction)]})
            for h in (1e-6, -1e-6)
        )
        slope = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
        assert slope == pytest.approx((there - back) / 2e-6, rel=1e-3, abs=1e-4)

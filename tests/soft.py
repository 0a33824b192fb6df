"""What SAC and DrQ are checked against: dense networks and their policy, in NumPy and float64."""

import jax
import numpy as np
import scipy.stats

from regrow.networks.network import Network
from regrow.types import Transition


def arrays(network: Network) -> list[np.ndarray]:
    """What a network learns, layer by layer."""
    return [np.asarray(x, np.float64) for x in jax.tree.leaves(network.layers)]


def plain(batch: Transition) -> Transition:
    return Transition(*(np.asarray(x, np.float64) for x in batch))


def dense(weights: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """Hidden layers with ReLU and a linear output: of every layer its weight and its bias."""
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    for weight, bias in pairs[:-1]:
        x = np.maximum(x @ weight + bias, 0)
    return x @ pairs[-1][0] + pairs[-1][1]


def gaussian(out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(μ, σ) for what an actor sends."""
    mean, raw = np.split(out, 2, axis=1)
    return mean, np.exp(-10 + 12 * (1 + np.tanh(raw)) / 2)


def drawn(out: np.ndarray, key) -> tuple[np.ndarray, np.ndarray]:
    """(actions, their log-density) for what an actor sends."""
    mean, std = gaussian(out)
    u = mean + std * np.asarray(jax.random.normal(key, mean.shape), np.float64)
    density = scipy.stats.norm.logpdf(u, mean, std) - np.log(1 / np.cosh(u) ** 2)
    return np.tanh(u), density.sum(axis=1)


def slopes(loss, network: list[np.ndarray], gradient: list[np.ndarray]):
    """(along the gradient, by differences) in five directions in the space of all parameters."""
    rng, h = np.random.default_rng(1), 1e-6
    for _ in range(5):
        direction = [rng.normal(size=x.shape) for x in network]
        there, back = (
            loss([x + step * d for x, d in zip(network, direction, strict=True)])
            for step in (h, -h)
        )
        along = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
        yield along, (there - back) / (2 * h)

"""A network in NumPy, an agent that is none of the library's, and networks known to be broken."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from regrow.learners.learner import Learner
from regrow.learners.optimizer import Optimizer
from regrow.networks.architecture import Architecture
from regrow.networks.layers import Conv
from regrow.networks.network import Network, convolutional, mlp
from regrow.probes.base import Past, View
from regrow.types import Transition

KEY = jax.random.key(2)
PARTS = ("encoder", "head")


# A network in NumPy, and an agent that is none of the library's.


class Reference:
    """A network in float64, with what one output gradient per sample gives it."""

    def __init__(self, network: Network):
        self.kinds = [(isinstance(layer, Conv), layer.activation) for layer in network.layers]
        self.weights = [
            (np.asarray(layer.weight, np.float64), np.asarray(layer.bias, np.float64))
            for layer in network.layers
        ]

    def forward(self, x) -> tuple[list, list]:
        """(what every layer reads, what every layer makes of it)."""
        reads, makes = [], []
        h = np.asarray(x, np.float64)
        for (conv, activation), (w, b) in zip(self.kinds, self.weights, strict=True):
            if conv:
                reads.append(h)
                z = sum(h[window] @ w[at] for at, window in windows(h, w)) + b
            else:
                reads.append(h.reshape(len(h), -1))
                z = reads[-1] @ w + b
            h = np.maximum(z, 0) if activation == "relu" else z
            makes.append(h)
        return reads, makes

    def __call__(self, x) -> np.ndarray:
        return self.forward(x)[1][-1]

    def backward(self, x, pull) -> tuple[np.ndarray, list]:
        """(gradient of every sample for all weights, gradient of every sample for every z)."""
        reads, makes = self.forward(x)
        of_weights, of_z, g = [], [], np.asarray(pull, np.float64)
        for i in reversed(range(len(self.weights))):
            (conv, activation), (w, _) = self.kinds[i], self.weights[i]
            dz = g.reshape(makes[i].shape) * (makes[i] > 0 if activation == "relu" else 1.0)
            of_z.append(dz)
            if conv:
                dw = np.zeros((len(dz), *w.shape))
                g = np.zeros_like(reads[i])
                for at, window in windows(reads[i], w):
                    dw[(slice(None), *at)] = np.einsum("nhwi,nhwu->niu", reads[i][window], dz)
                    g[window] += dz @ w[at].T
                db = dz.sum(axis=(1, 2))
            else:
                dw, db, g = np.einsum("ni,nu->niu", reads[i], dz), dz, dz @ w.T
            of_weights = [dw.reshape(len(dz), -1), db, *of_weights]
        return np.concatenate(of_weights, axis=1), of_z[::-1]

    def get(self) -> np.ndarray:
        return np.concatenate([leaf.ravel() for pair in self.weights for leaf in pair])

    def set(self, vector) -> None:
        done = 0
        for pair in self.weights:
            for leaf in pair:
                leaf[...] = vector[done : done + leaf.size].reshape(leaf.shape)
                done += leaf.size

    def adam(self, gradient, updates: int, *, rate: float, epsilon: float = 1e-5) -> None:
        """So many steps of Adam (arXiv 1412.6980) along `gradient()`."""
        m, v, theta = 0.0, 0.0, self.get()
        for t in range(1, updates + 1):
            g = gradient()
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            theta = theta - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + epsilon)
            self.set(theta)


def windows(h, w):
    """For every offset of a kernel, its index and where it falls on the images."""
    size = w.shape[0]
    height, width = h.shape[1] - size + 1, h.shape[2] - size + 1
    for r in range(size):
        for c in range(size):
            yield (r, c), (slice(None), slice(r, r + height), slice(c, c + width))


class Two(eqx.Module):
    """A state with two Learners, so that one can be mistaken for the other."""

    left: Learner
    right: Learner


@dataclass(frozen=True)
class Regression:
    """Fits (o + 1)·reward at output o; `sign` −1 turns the loss upside down."""

    rows_per_update: int = 8
    sign: float = 1.0

    def inputs(self, state, batch):
        return {"left": batch.obs_tm1, "right": batch.obs_t}

    def gradients(self, state, batch, key):
        del key

        def loss(network, x):
            outputs = network(x)
            goals = batch.reward[:, None] * jnp.arange(1.0, outputs.shape[-1] + 1)[None]
            return self.sign * jnp.mean(jnp.sum((outputs - goals) ** 2, axis=-1)) / 2

        return {
            name: getattr(state, name).gradient(lambda network, x=x: loss(network, x))[1]
            for name, x in self.inputs(None, batch).items()
        }

    def update(self, state, batch, key):
        gradients = self.gradients(state, batch, key)
        return Two(state.left.descend(gradients["left"]), state.right.descend(gradients["right"]))


def rewards(x) -> np.ndarray:
    return np.linspace(-1.0, 2.0, len(x))


def pull(outputs, reward) -> np.ndarray:
    """∂ℓ_i/∂output of `Regression`."""
    return outputs - np.asarray(reward, np.float64)[:, None] * np.arange(1, outputs.shape[1] + 1)


def beside(learner: Learner) -> Two:
    """A state with another Learner of the same kind beside this one."""
    return Two(learner, learner.fresh(jax.random.key(99)))


def transitions(x, reward=None) -> Transition:
    reward = jnp.asarray(rewards(x) if reward is None else reward, jnp.float32)
    count = len(x)
    return Transition(
        x, jnp.zeros(count, int), reward, jnp.ones(count), x[::-1], jnp.zeros(count, bool)
    )


def values(probes, learner, x, *, reward=None, before=None, agent=None) -> list[float]:
    """What probes say of one Learner, compared with `before` or with itself."""
    past = beside(learner if before is None else before)

    @jax.jit
    def measured(state, batch, past):
        view = View("left", state, agent or Regression(), batch, KEY, Past(past, past))
        return [probe.measure(view) for probe in probes]

    return [float(one) for one in measured(beside(learner), transitions(x, reward), past)]


def value(probe, learner, x, **where) -> float:
    return values([probe], learner, x, **where)[0]


def small(kind: str, *, layer_norm: bool = False, seed: int = 0, count: int = 12):
    """(a network small enough for its Hessian, inputs)."""
    key, drawing = jax.random.split(jax.random.key(seed))
    if kind == "mlp":
        network = mlp(3, (6, 5), 2, Architecture(layer_norm=layer_norm), key=key)
        return network, jax.random.normal(drawing, (count, 3))
    network = convolutional((4, 5, 2), 3, 5, 2, Architecture(layer_norm=layer_norm), key=key)
    return network, jax.random.normal(drawing, (count, 4, 5, 2))


def learns(network: Network, rate: float = 1e-3) -> Learner:
    return Learner.create(network, Optimizer(learning_rate=rate))


def killed(network: Network, layer: int, units) -> Network:
    """With some units of a layer that no input makes fire."""
    bias = network.layers[layer].bias.at[jnp.asarray(units)].set(-100.0)
    return eqx.tree_at(lambda n: n.layers[layer].bias, network, bias)


KINDS = pytest.mark.parametrize("kind", ["mlp", "conv"])


def broken(kind: str):
    """(learner, inputs, hidden activations by part): two of the head's units are dead."""
    if kind == "mlp":
        network, x = mlp(6, (9, 20), 3, key=KEY), jax.random.normal(KEY, (40, 6))
    else:
        network = convolutional((5, 5, 2), 3, 20, 3, key=KEY)
        x = jax.random.bernoulli(KEY, 0.3, (40, 5, 5, 2))
    learner = Learner.create(killed(network, 1, [0, 1]), Optimizer())
    first, second, _ = Reference(learner.network).forward(x)[1]
    return learner, x, {"encoder": first, "head": second}


def of_units(hidden) -> np.ndarray:
    return hidden.reshape(-1, hidden.shape[-1])


def weights(layers) -> np.ndarray:
    leaves = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(layers)]
    return np.concatenate(leaves)

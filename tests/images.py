"""Small networks on small images, and a batch for them."""

import jax
import jax.numpy as jnp
import numpy as np

from regrow.agents import DoubleDQN
from regrow.learners.learner import Learner
from regrow.learners.optimizer import Optimizer
from regrow.networks.architecture import Architecture
from regrow.networks.network import Network, convolutional
from regrow.types import Transition

KEY = jax.random.key(5)
CONV = convolutional((6, 6, 3), 4, 10, 3, key=KEY)
IMAGES = jax.random.normal(jax.random.key(6), (20, 6, 6, 3))
PAIRS = convolutional(
    (6, 6, 3), 8, 20, 3, Architecture(activation="crelu"), key=KEY
)  # 4 and 10 units
AGENT = DoubleDQN(channels=4, hidden=10)
BATCH = Transition(
    obs_tm1=IMAGES,
    action=jnp.arange(20, dtype=jnp.int32) % 3,
    reward=jax.random.normal(KEY, (20,)),
    discount=jnp.ones(20),
    obs_t=IMAGES[::-1],
    truncated=jnp.zeros(20, bool),
)


class Fixed:
    """Experience that is always the same batch."""

    capacity = 20

    def sample(self, key, count):
        return jax.tree.map(lambda x: x[jnp.arange(count) % 20], BATCH)

    def first(self, count):
        return self.sample(None, count)


@jax.jit
def _descended(learner: Learner, gradients: Network) -> Learner:
    def step(learner, gradient):
        return learner.descend(gradient), None

    return jax.lax.scan(step, learner, gradients)[0]


def trained(network: Network) -> Learner:
    """A Learner a few steps old, so that its statistics are not those of the start."""
    rng = np.random.default_rng(1)

    def noises(leaf):
        return rng.normal(size=(30, *leaf.shape)).astype(np.float32)

    learner = Learner.create(network, Optimizer(learning_rate=1e-3))
    return _descended(learner, jax.tree.map(noises, network))


def untrained(network: Network) -> Learner:
    """A Learner at its first step."""
    return Learner.create(network, Optimizer())

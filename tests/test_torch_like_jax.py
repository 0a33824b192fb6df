"""The same weights, data and seeds in JAX and in PyTorch: outputs, gradients and Adam's steps."""

import in_torch
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import regrow.torch
from regrow.interventions import Inject
from regrow.learners.learner import Learner
from regrow.learners.optimizer import Optimizer
from regrow.networks.network import Network, convolutional, mlp

STEPS, RATE, EPSILON = 5, 1e-2, 1e-8
SHAPES = {
    "mlp": (lambda key: mlp(6, (16, 16), 3, key=key), (8, 6)),
    "cnn": (lambda key: convolutional((8, 8, 2), 4, 16, 3, key=key), (8, 8, 8, 2)),
}


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)


class Both:
    """A network and its optimizer in both libraries."""

    def __init__(self, name):
        make, shape = SHAPES[name]
        network = make(jax.random.key(0))
        self.inputs = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        self.wanted = np.random.default_rng(1).standard_normal((8, 3)).astype(np.float32)
        self.learner = Learner.create(network, Optimizer("adam", RATE, EPSILON), target=True)
        self.module = in_torch.as_module(network)
        self.target = in_torch.as_module(network)
        self.optimizer = torch.optim.Adam(self.module.parameters(), RATE, eps=EPSILON)

    def step(self):
        def loss(network):
            return jnp.mean(jnp.square(network(jnp.asarray(self.inputs)) - self.wanted))

        value, gradient = self.learner.gradient(loss)
        self.learner = self.learner.descend(gradient)
        self.optimizer.zero_grad()
        error = self.module(in_torch.channels_first(self.inputs)) - torch.as_tensor(self.wanted)
        ours = error.square().mean()
        ours.backward()
        close(ours.item(), float(value))
        expected = in_torch.as_module(Network(gradient.layers, split=gradient.split))
        live = [p for p in self.module.parameters() if p.requires_grad]
        for parameter, theirs in zip(live, expected.parameters(), strict=True):
            close(parameter.grad, theirs.detach())
        self.optimizer.step()

    def same(self):
        x = in_torch.channels_first(self.inputs)
        for network, module in (
            (self.learner.network, self.module),
            (self.learner.target, self.target),
        ):
            close(module(x).detach(), network(jnp.asarray(self.inputs)))
        live = [p for p in self.module.parameters() if p.requires_grad]
        network = self.learner.network
        expected = in_torch.as_module(Network(network.layers, split=network.split))
        for parameter, theirs in zip(live, expected.parameters(), strict=True):
            close(parameter.detach(), theirs.detach())

    def inject(self, seed):
        self.learner = Inject().change(self.learner, jax.random.key(seed))
        network = self.learner.network
        fresh = in_torch.as_module(Network(network.layers, split=network.split))
        at = in_torch.head_of(self.module)
        how = {"optimizer": self.optimizer, "targets": [self.target], "init": fresh}
        regrow.torch.inject(self.module, at, **how)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n == "mlp" else ()) for n in SHAPES]
)
def test_they_stay_the_same_through_two_injections(name):
    both = Both(name)
    for seed in (1, 2):
        for _ in range(STEPS):
            both.step()
        both.same()
        both.inject(seed)
        both.same()
    for _ in range(STEPS):
        both.step()
    both.same()

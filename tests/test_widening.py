"""Widening: the output stays, old elements keep what they had, new units learn."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from images import CONV, IMAGES, KEY, PAIRS, trained, untrained

from regrow.errors import RegrowError
from regrow.interventions import Widen
from regrow.learners.widening import widened
from regrow.networks.architecture import Architecture
from regrow.networks.network import convolutional, mlp


@pytest.mark.parametrize(
    "network",
    [
        CONV.inject(KEY),
        mlp(5, (8, 6), 2, key=KEY),
        *(pytest.param(one, marks=pytest.mark.slow) for one in (CONV, PAIRS.inject(KEY, split=2))),
    ],
)
def test_a_wider_network_computes_what_it_did(network):
    learner = trained(network) if not network.residual else untrained(network)
    x = IMAGES if network.layers[0].weight.ndim == 4 else jax.random.normal(KEY, (20, 5))
    after = jax.jit(widened, static_argnums=1)(learner, 2.5, jax.random.key(3))
    for a, b in ((learner.network, after.network), (learner.target, after.target)):
        np.testing.assert_allclose(b(x), a(x), atol=1e-5)
    widths = [layer.units for layer in after.network.layers]
    assert widths == [
        *(round(2.5 * layer.units) for layer in network.layers[:-1]),
        network.layers[-1].units,
    ]
    old, new = learner.statistics[1][0], after.statistics[1][0]
    assert set(np.unique(new.count.weight)) == {0, int(old.count)} | {0}
    kept = np.asarray(new.nu.weight) != 0
    assert kept.sum() == (np.asarray(old.nu.weight) != 0).sum()
    # New units learn: the gradient for what they send is not zero.

    def loss(net):
        return jnp.sum((net(x) - 3.0) ** 2)

    gradient = jax.grad(loss)(after.network)
    below, copies = network.layers[-2].units, network.layers[-2].copies
    heard = gradient.layers[-1].weight.reshape(copies, -1, network.layers[-1].units)[:, below:]
    assert float(jnp.abs(heard).max()) > 0


def test_widening_says_where_it_cannot_be():
    normed = convolutional((6, 6, 3), 4, 10, 3, Architecture(layer_norm=True), key=KEY)
    with pytest.raises(RegrowError, match="layer normalisation"):
        widened(untrained(normed), 2.0, KEY)
    divided = mlp(5, (8, 6), 2, Architecture(spectral_norm=True), key=KEY)
    with pytest.raises(RegrowError, match="spectral normalisation"):
        widened(untrained(divided), 2.0, KEY)
    with pytest.raises(RegrowError, match=r"factor is 1\.0; it must be above 1"):
        Widen(1.0)


def test_widening_says_where_it_would_add_nothing():
    message = (
        "factor is 1.04, by which no hidden layer gains a unit; 1.1 gives one to the widest, of"
    )
    with pytest.raises(RegrowError, match=re.escape(message)):
        widened(untrained(CONV), 1.04, KEY)
    after = widened(untrained(CONV), 1.1, KEY)  # 4 and 10 units
    assert [layer.units for layer in after.network.layers] == [4, 11, 3]

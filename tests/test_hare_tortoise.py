"""Hare & Tortoise against NumPy, and what a switch leaves as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import bit_equal

from regrow.errors import RegrowError
from regrow.interventions import Deaden, HareTortoise
from regrow.learners.learner import Learner
from regrow.learners.optimizer import Optimizer
from regrow.networks.network import convolutional

KEY = jax.random.key(4)
CONV = convolutional((6, 6, 3), 4, 10, 3, key=KEY)
IMAGES = jnp.ones((2, 6, 6, 3))


def vector(tree) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, float).ravel() for leaf in jax.tree.leaves(tree)])


def noise(learner: Learner, i: int):
    live = jax.tree.map(lambda x: jax.random.normal(jax.random.key(i), x.shape), learner.network)
    return jax.tree.map(lambda x, keep: x if keep else None, live, learner.network.trainable())


@pytest.mark.parametrize("network", [CONV, CONV.inject(KEY), CONV.inject(KEY, freeze=False)])
def test_the_rule_in_numpy(network):
    rule = HareTortoise(momentum=0.8, period=3)
    learner = Learner.create(network, Optimizer(learning_rate=0.01)).with_hook(rule)
    tortoise = vector(network.parts())
    for i in range(1, 8):
        hare = learner.descend(noise(learner, i))
        learner = hare.after_hooks(IMAGES, KEY)
        tortoise = 0.8 * tortoise + 0.2 * vector(hare.network.parts())
        expected = tortoise if i % 3 == 0 else vector(hare.network.parts())
        np.testing.assert_allclose(vector(learner.network.parts()), expected, atol=1e-6)
        np.testing.assert_allclose(vector(learner.hooks[0].memory.parts), tortoise, atol=1e-6)
        # Statistics stay as they are, and the target follows when it is next copied.
        assert bit_equal(learner.statistics, hare.statistics)
        assert bit_equal(learner.target, hare.target)
        if network.residual and network.residual[0].frozen:
            assert bit_equal(learner.network.residual, network.residual)


def test_it_begins_anew_where_layers_are_replaced():
    learner = Learner.create(CONV, Optimizer()).with_hook(HareTortoise())
    moved = learner.descend(noise(learner, 0)).after_hooks(IMAGES, KEY)
    fresh = CONV.fresh(jax.random.key(1))
    origins = (None,) * len(fresh.layers)
    replaced = moved.with_network(fresh, fresh, origins=origins, fresh="reset")
    assert bit_equal(replaced.hooks[0].memory.parts, fresh.parts())
    assert int(replaced.hooks[0].memory.since) == 0


def test_it_does_not_wake_units_that_were_killed():
    learner = Learner.create(CONV, Optimizer()).with_hook(HareTortoise(period=1))
    moved = learner.descend(noise(learner, 0)).after_hooks(IMAGES, KEY)
    killed = Deaden(layer=1).change(moved, KEY)
    after = killed.after_hooks(IMAGES, KEY).network
    assert not np.asarray(after.features(IMAGES)[2]).any()


def test_only_where_the_hare_went_back_is_the_update_no_churn():
    rule = HareTortoise(period=2)
    learner = Learner.create(CONV, Optimizer(), keep_previous=True).with_hook(rule)
    one = learner.descend(noise(learner, 0)).after_hooks(IMAGES, KEY)
    assert bit_equal(one.previous_network, learner.network)
    two = one.descend(noise(one, 1)).after_hooks(IMAGES, KEY)
    assert bit_equal(two.previous_network, two.network)
    three = two.descend(noise(two, 2)).after_hooks(IMAGES, KEY)
    assert bit_equal(three.previous_network, two.network)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HareTortoise(momentum=1.5), "momentum is 1.5; it must be between 0 and 1"),
        (lambda: HareTortoise(period=0), "period is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(RegrowError, match=message):
        make()

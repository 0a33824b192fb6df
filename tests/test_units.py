"""Single units: how much each does, and single elements of a network where one is renewed."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from images import AGENT, BATCH, CONV, IMAGES, KEY, PAIRS, Fixed, trained, untrained
from trees import bit_equal, distance

from regrow.agents import DoubleDQN
from regrow.errors import RegrowError
from regrow.interventions import Deaden, Redo, Regrama
from regrow.learners.learner import learners
from regrow.learners.recycling import activity, quiet, recycled, rows, sensitivity
from regrow.learners.widening import widened
from regrow.networks.architecture import Architecture
from regrow.networks.network import Network, convolutional
from regrow.types import Discrete

MASKS = [jnp.array([False, True, False, False]), jnp.arange(10) == 7]


@pytest.fixture(scope="module")
def state():
    return AGENT.init((6, 6, 3), np.dtype(np.float32), Discrete(3), KEY)


# Recycling


def test_a_recycled_unit_is_fresh_below_and_silent_above():
    """Every element by its index: the channel is the fastest axis of the flattened image."""
    learner = trained(CONV)
    after = recycled(learner, MASKS, jax.random.key(1))
    old, new = learner.network.layers, after.network.layers
    fresh = learner.network.fresh(jax.random.key(1)).layers

    conv, was = np.array(new[0].weight), np.array(old[0].weight)
    np.testing.assert_array_equal(conv[..., 1], fresh[0].weight[..., 1])
    np.testing.assert_array_equal(conv[..., [0, 2, 3]], was[..., [0, 2, 3]])
    assert float(new[0].bias[1]) == 0.0

    dense, was = np.array(new[1].weight), np.array(old[1].weight)
    for row in range(dense.shape[0]):
        position, channel = divmod(row, 4)
        for unit in range(10):
            if unit == 7:
                assert dense[row, unit] == float(fresh[1].weight[row, unit])
            else:
                assert dense[row, unit] == (0.0 if channel == 1 else was[row, unit]), position
    output, was = np.array(new[2].weight), np.array(old[2].weight)
    assert not output[7].any()
    np.testing.assert_array_equal(np.delete(output, 7, 0), np.delete(was, 7, 0))
    assert bit_equal(after.target, learner.target)


def test_recycling_a_dead_unit_keeps_the_output_also_with_frozen_heads():
    dead = eqx.tree_at(lambda n: n.layers[0].bias, CONV, CONV.layers[0].bias.at[1].set(-1e3))
    for network in (dead, dead.inject(jax.random.key(2)), dead.inject(KEY).inject(KEY, split=1)):
        after = recycled(untrained(network), [MASKS[0], jnp.zeros(10, bool)], KEY).network
        np.testing.assert_allclose(after(IMAGES), network(IMAGES), atol=1e-5)
        # The unit lives again, and nobody listens yet.
        assert float(after.features(IMAGES)[1][..., 1].max()) > 0
        changed = eqx.tree_at(lambda n: n.layers[0].bias, after, after.layers[0].bias.at[1].add(9))
        np.testing.assert_allclose(changed(IMAGES), network(IMAGES), atol=1e-5)


def test_recycling_gives_new_elements_new_statistics_and_no_others():
    learner = trained(CONV)
    after = recycled(learner, MASKS, KEY)
    for layer in range(3):
        old, new = learner.statistics[layer][0], after.statistics[layer][0]
        renewed_at = np.asarray(new.count.weight) == 0
        assert set(np.unique(new.count.weight)) <= {0, 30}
        np.testing.assert_array_equal(np.asarray(new.mu.weight) == 0, renewed_at)
        np.testing.assert_array_equal(
            np.where(renewed_at, 0, old.nu.weight), np.asarray(new.nu.weight)
        )
        columns = np.zeros(renewed_at.shape, bool)
        if layer < 2:
            columns[..., [1] if layer == 0 else [7]] = True
        rows = np.zeros(renewed_at.shape, bool)
        if layer == 1:
            rows[1::4] = True
        if layer == 2:
            rows[7] = True
        np.testing.assert_array_equal(renewed_at, columns | rows)


def test_a_layer_that_does_nothing_is_all_quiet_and_one_that_diverged_is_not():
    assert np.asarray(quiet(jnp.zeros(4), 0.0)).all()
    assert np.asarray(quiet(jnp.array([1.0, 3.0]), 0.5)).tolist() == [True, False]
    assert not np.asarray(quiet(jnp.array([0.0, jnp.nan]), 0.1)).any()


def test_sensitivity_is_the_gradient_for_every_unit_before_its_activation(state):
    """Against finite differences of one transition's loss in one unit at one position."""
    (scores,) = sensitivity(state, AGENT, BATCH, KEY).values()
    network, target = state.q.network, state.q.target
    assert [len(score) for score in scores] == [4, 10]

    def loss(shift, layer, row):
        one = jax.tree.map(lambda x: x[row][None], BATCH)

        def shifted(network, x):
            conv, dense, out = network.layers
            z = jax.lax.conv_general_dilated(
                x, conv.weight, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            z = jax.nn.relu(z + conv.bias[None, None, None] + (shift if layer == 0 else 0))
            z = z.reshape(1, -1) @ dense.weight + dense.bias[None]
            return jax.nn.relu(z + (shift if layer == 1 else 0)) @ out.weight + out.bias[None]

        goal_values = target(one.obs_t)
        chosen = jnp.argmax(network(one.obs_t), axis=-1)
        goal = one.reward + 0.99 * goal_values[0, chosen]
        error = goal - shifted(network, one.obs_tm1)[0, one.action]
        return optax.losses.huber_loss(error, delta=1.0).mean()

    for layer, shape in ((0, (4, 4, 4)), (1, (10,))):
        slope = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, None, 0)), static_argnums=1)
        sizes = np.abs(slope(jnp.zeros((1, *shape)), layer, jnp.arange(20)))
        expected = np.mean(sizes, axis=0).reshape(-1, shape[-1]).mean(axis=0)
        np.testing.assert_allclose(scores[layer], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("intervention", [Redo(tau=0.5, transitions=20), Regrama(tau=0.5)])
def test_those_below_the_threshold_are_drawn_anew_and_no_others(state, intervention):
    if isinstance(intervention, Redo):
        scores = activity(state.q.network, Fixed().sample(KEY, 20).obs_tm1)
    else:
        scores = sensitivity(state, AGENT, Fixed().sample(KEY, 256), KEY)["q"]
    after = intervention(state, agent=AGENT, experience=Fixed(), key=KEY)
    some = False
    for score, old, new in zip(
        scores, state.q.network.layers, after.q.network.layers, strict=False
    ):
        low = np.asarray(score) / np.mean(score) <= 0.5
        some |= low.any()
        moved = (np.asarray(old.weight) != np.asarray(new.weight)).reshape(-1, len(low))
        np.testing.assert_array_equal(moved.mean(axis=0) > 0.9, low)
    assert some


@pytest.mark.parametrize(("layer", "share", "count"), [(0, 0.5, 2), (0, 1.0, 4), (1, 0.3, 3)])
def test_deadened_units_are_silent_and_the_others_are_as_they_were(state, layer, share, count):
    after = Deaden(layer, share)(state, agent=AGENT, experience=Fixed(), key=KEY).q
    was, now = (n.features(IMAGES)[layer + 1] for n in (state.q.network, after.network))
    silent = ~np.asarray(now).reshape(-1, now.shape[-1]).any(axis=0)
    assert silent.sum() >= count
    np.testing.assert_array_equal(np.asarray(now)[..., ~silent], np.asarray(was)[..., ~silent])
    assert bit_equal(after.network, after.target)
    with pytest.raises(RegrowError, match="layer is 2; the hidden layers are 0 to 1"):
        Deaden(2)(state, agent=AGENT, experience=Fixed(), key=KEY)


# Units that send two features


def test_a_unit_that_sends_two_features_is_read_along_two_rows():
    """Every element by its index: position, then feature, then unit."""
    read = np.asarray(rows(PAIRS.layers[1], MASKS[0]).weight)
    for row in range(read.shape[0]):
        position, channel = divmod(row, 8)
        feature, unit = divmod(channel, 4)
        assert read[row].all() == read[row].any() == (unit == 1), (position, feature)
    assert read.sum() == 16 * 2 * 10


def test_what_is_measured_of_a_unit_is_over_both_its_features():
    first, second = PAIRS.features(IMAGES)[1:3]
    sizes = [np.abs(np.asarray(h)).reshape(-1, 2, h.shape[-1] // 2).sum(1) for h in (first, second)]
    for found, size in zip(activity(PAIRS, IMAGES), sizes, strict=True):
        np.testing.assert_allclose(found, size.mean(axis=0), rtol=1e-5)
    agent = DoubleDQN(channels=8, hidden=20, activation="crelu")
    state = agent.init((6, 6, 3), np.dtype(np.float32), Discrete(3), KEY)
    scores = jax.eval_shape(lambda: sensitivity(state, agent, BATCH, KEY))["q"]
    assert [score.shape for score in scores] == [(4,), (10,)]


@pytest.mark.parametrize("activation", ["crelu", "fourier"])
def test_nobody_hears_a_recycled_unit_that_sends_two_features(activation):
    network = convolutional((6, 6, 3), 8, 20, 3, Architecture(activation=activation), key=KEY)
    after = recycled(untrained(network.inject(KEY, split=1)), MASKS, KEY).network
    louder = eqx.tree_at(lambda n: n.layers[0].bias, after, after.layers[0].bias.at[1].add(9))
    louder = eqx.tree_at(lambda n: n.layers[1].bias, louder, louder.layers[1].bias.at[7].add(9))
    np.testing.assert_allclose(louder(IMAGES), after(IMAGES), atol=1e-5)
    other = eqx.tree_at(lambda n: n.layers[0].bias, after, after.layers[0].bias.at[2].add(9))
    assert distance(other(IMAGES), after(IMAGES)) > 1e-3


BLOCKS = convolutional((6, 6, 3), 4, (10, 10), 3, Architecture(block="simba"), key=KEY)


def test_the_sensitivity_of_a_stream_is_the_gradient_for_it():
    """Of the last block, ∂L/∂h = δ · (the action's weights), δ the clipped error."""
    agent = DoubleDQN(channels=4, hidden=10, block="simba")
    state = agent.init((6, 6, 3), np.dtype(np.float32), Discrete(3), KEY)
    (scores,) = jax.jit(lambda: sensitivity(state, agent, BATCH, KEY))().values()
    assert [len(score) for score in scores] == [4, 10, 10]
    q, action = state.q.network, np.asarray(BATCH.action)
    best = np.take_along_axis(
        np.asarray(q(BATCH.obs_t)), np.asarray(q(BATCH.obs_t)).argmax(1)[:, None], 1
    )
    goal = np.asarray(BATCH.reward) + 0.99 * best[:, 0]
    error = np.clip(goal - np.asarray(q(IMAGES))[np.arange(20), action], -1, 1)
    out = np.asarray(q.layers[-1].weight)[:, action]
    # The stream meets a layer normalisation before the output; its offset is what is shifted.
    np.testing.assert_allclose(scores[2], np.abs(error * out).mean(axis=1), rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: recycled(one, [], KEY), "residual blocks, past which every unit is heard"),
        (lambda one: widened(one, 2.0, KEY), "widen: this network has residual blocks"),
        (lambda one: Deaden(2).change(one, KEY), "layer 2 is 'residual'; it must be 'relu'"),
        (lambda one: Deaden(1).change(one, KEY), "layer 1 is 'linear'; it must be 'relu'"),
    ],
)
def test_a_residual_stream_has_no_single_units(change, message):
    with pytest.raises(RegrowError, match=message):
        change(untrained(BLOCKS))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Redo(tau=-0.1), "tau is -0.1; it must be 0 or more"),
        (lambda: Regrama(transitions=0), "transitions is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(RegrowError, match=re.escape(message)):
        make()


def test_recycling_needs_hidden_units(state):
    flat = AGENT.init((6, 6, 3), np.dtype(np.float32), Discrete(3), KEY)
    one = Network([flat.q.network.layers[-1]])
    flat = eqx.tree_at(lambda state: state.q, flat, untrained(one))
    (name,) = learners(flat)
    assert name == "q"

    class Seer:
        rows_per_update = 4
        update = gradients = staticmethod(lambda *a: None)

        def inputs(self, state, batch):
            return {"q": jnp.ones((4, 10))}

    with pytest.raises(RegrowError, match="the network of 'q' has no hidden units"):
        Redo()(flat, agent=Seer(), experience=Fixed(), key=KEY)

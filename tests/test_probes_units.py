"""Probes of single units against NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probing import (
    KEY,
    KINDS,
    PARTS,
    Reference,
    Regression,
    beside,
    broken,
    killed,
    learns,
    of_units,
    pull,
    rewards,
    small,
    transitions,
    value,
    values,
)

from regrow.networks.architecture import Architecture
from regrow.networks.layers import Conv
from regrow.networks.network import convolutional, mlp
from regrow.probes import (
    DeadByFiring,
    DeadOverlap,
    DeadUnits,
    DormantUnits,
    FeatureNorm,
    GradientDormancy,
)


@KINDS
def test_the_reference_is_the_network_it_copies(kind):
    network, x = small(kind)
    reference = Reference(network)
    np.testing.assert_allclose(reference(x), network(x), atol=1e-5)
    gradient, _ = reference.backward(x, pull(reference(x), rewards(x)))
    state, batch = beside(learns(network)), transitions(x)
    layers = Regression().gradients(state, batch, KEY)["left"].layers
    ours = np.concatenate([leaf.ravel() for one in layers for leaf in (one.weight, one.bias)])
    np.testing.assert_allclose(gradient.mean(axis=0), ours, atol=1e-5)


@pytest.fixture(scope="module", params=["mlp", "conv"])
def case(request):
    return broken(request.param)


@pytest.mark.parametrize("part", PARTS)
def test_dead_units(case, part):
    learner, x, hidden = case
    units = of_units(hidden[part])
    expected = np.mean((units > 0).mean(axis=0) == 0)
    rarely = np.mean((units > 0).mean(axis=0) <= 0.4)
    found = values([DeadUnits(part), DeadUnits(part, threshold=0.4)], learner, x)
    assert found == pytest.approx([expected, rarely])
    if part == "head":
        assert expected >= 0.1


@pytest.mark.parametrize("part", PARTS)
def test_dead_by_firing(case, part):
    learner, x, hidden = case
    units, taus = of_units(hidden[part]), (0.01, 0.4, 0.55)
    expected = [np.mean((units > 0).sum(axis=0) < tau * len(units)) for tau in taus]
    found = values([DeadByFiring(part, tau=tau) for tau in taus], learner, x)
    assert found == pytest.approx(expected)


def test_a_unit_of_two_features_is_dead_where_both_are_zero():
    network = mlp(3, (8, 8), 2, Architecture(activation="crelu"), key=KEY)  # four units a layer
    network = eqx.tree_at(
        lambda n: n.layers[0].weight, network, network.layers[0].weight.at[:, 0].set(0.0)
    )
    learner, x = learns(killed(network, 0, [1])), jax.random.normal(KEY, (20, 3))
    probes = [DeadUnits("encoder"), DeadByFiring("encoder"), DormantUnits("encoder", tau=1.0)]
    size = np.abs(np.asarray(network.features(x)[1])).reshape(20, 2, 4).sum(axis=1)
    size[:, 1] = np.abs(np.asarray(x @ network.layers[0].weight[:, 1] - 100.0))
    share = np.mean(size.mean(axis=0) <= size.mean())
    assert values(probes, learner, x) == pytest.approx([0.25, 0.25, share])
    assert 0 < share < 1


def test_the_units_of_a_block_are_the_stream_after_it():
    network = mlp(3, (6, 6, 6), 2, Architecture(block="bro"), key=KEY)
    learner, x = learns(network), jax.random.normal(KEY, (20, 3))
    streams = [np.abs(np.asarray(h)) for h in network.features(x)[2:4]]
    quiet = [h.mean(axis=0) <= 0.9 * h.mean() for h in streams]
    found = values([DeadUnits(), DormantUnits(tau=0.9), FeatureNorm()], learner, x)
    norm = np.linalg.norm(streams[1], axis=1).mean()
    assert found == pytest.approx([0.0, np.mean(quiet), norm], rel=1e-5)


def test_a_unit_that_fires_on_one_input_in_a_hundred_is_not_dead():
    network = mlp(1, (4,), 1, key=KEY)
    network = eqx.tree_at(lambda n: n.layers[0].weight, network, jnp.ones((1, 4)))
    network = eqx.tree_at(
        lambda n: n.layers[0].bias, network, -jnp.array([-1.0, 97.5, 98.5, 200.0])
    )
    learner, x = learns(network), jnp.arange(100.0)[:, None]  # fires on 100, 2, 1 and 0 of them
    firing = [DeadByFiring("encoder"), DeadByFiring("encoder", tau=0.02)]
    assert values(firing, learner, x) == [0.25, 0.5]
    dead = [DeadUnits("encoder"), DeadUnits("encoder", threshold=0.01)]
    assert values(dead, learner, x) == [0.25, 0.5]


@pytest.mark.parametrize("part", PARTS)
def test_dormant_units(case, part):
    learner, x, hidden = case
    units, taus = np.abs(of_units(hidden[part])).mean(axis=0), (0.0, 0.025, 0.5)
    expected = [np.mean(units / units.mean() <= tau) for tau in taus]
    found = values([DormantUnits(part, tau=tau) for tau in taus], learner, x)
    assert found == pytest.approx(expected)


def test_dormant_units_are_pooled_over_layers_not_averaged():
    network = killed(mlp(4, (4, 96, 8), 2, key=KEY), 2, range(8))
    x = jax.random.normal(KEY, (64, 4))
    alive = Reference(network).forward(x)[1][1].mean(axis=0)
    dormant = (alive <= 0.025 * alive.mean()).sum() + 8  # a layer that is wholly dead counts
    assert value(DormantUnits("head"), learns(network), x) == pytest.approx(dormant / 104)


@pytest.mark.parametrize("part", PARTS)
def test_dead_overlap(case, part):
    learner, x, hidden = case
    now = learner.network
    earlier = killed(now.fresh(jax.random.key(5)), 1, [1, 2, 3])
    then = dict(zip(PARTS, Reference(earlier).forward(x)[1], strict=False))

    def overlap(tau):
        was, is_now = (
            np.abs(of_units(units)).mean(axis=0) <= tau * np.abs(units).mean()
            for units in (then[part], hidden[part])
        )
        return (was & is_now).sum() / was.sum() if was.any() else np.nan

    taus = (0.0, 0.5, 0.9)
    probes = [DeadOverlap(part, tau=tau) for tau in taus]
    found = values(probes, learner, x, before=learns(earlier))
    assert found == pytest.approx([overlap(tau) for tau in taus], nan_ok=True)
    assert 0 < found[2] < 1 or hidden[part].ndim == 4


def test_dead_overlap_is_of_those_that_were_dormant():
    network, x = small("mlp", count=64)
    then, now = killed(network, 1, [0, 1, 2, 3]), killed(network, 1, [2, 3, 4])
    probe = DeadOverlap("head", tau=0.0)
    assert value(probe, learns(now), x, before=learns(then)) == 0.5
    assert value(probe, learns(then), x, before=learns(now)) == pytest.approx(2 / 3)
    assert value(probe, learns(then), x) == 1.0
    assert np.isnan(value(probe, learns(then), x, before=learns(network)))


@KINDS
def test_gradient_dormancy(kind):
    network, x = small(kind, count=20)
    network = killed(network, 1, [0, 3])
    reference = Reference(network)
    _, of_z = reference.backward(x, pull(reference(x), rewards(x)))
    found = check_gradient_dormancy(network, x, of_z[:2], (0.0, 0.6, 0.9))
    assert found["head", 0.0] >= 0.39  # two of five were killed


def check_gradient_dormancy(network, x, of_z, taus) -> dict[tuple[str, float], float]:
    """The probe by part and τ, as the gradients for every z of each part's layer have it."""
    scores = [np.abs(of_units(np.asarray(dz, np.float64))).mean(axis=0) for dz in of_z]
    cases = [(part, tau) for part in PARTS for tau in taus]
    expected = [np.mean(score / score.mean() <= tau) for score in scores for tau in taus]
    probes = [GradientDormancy(part, tau=tau) for part, tau in cases]
    found = values(probes, learns(network), x)
    assert found == pytest.approx(expected)
    return dict(zip(cases, found, strict=True))


def test_the_gradient_of_a_unit_is_no_sum_over_positions_or_transitions():
    """Gradients that cancel are no sign of rest."""
    network = convolutional((3, 4, 1), 2, 4, 1, key=KEY)
    ones = jnp.ones_like(network.layers[0].weight)
    network = eqx.tree_at(lambda n: n.layers[0].weight, network, ones)
    head = jnp.zeros((4, 4)).at[:, 0].set(jnp.array([1.0, 1.0, -1.0, 1.0]))
    network = eqx.tree_at(lambda n: n.layers[1].weight, network, head)
    network = eqx.tree_at(lambda n: n.layers[1].bias, network, jnp.ones(4))
    network = eqx.tree_at(lambda n: n.layers[2].weight, network, jnp.eye(4)[:, :1])
    # Channel 0 pulls one way at one position and the other way at the other: never quiet.
    x = jnp.ones((2, 3, 4, 1))
    outputs = np.asarray(network(x))[:, 0]
    learner = learns(network)
    apart = outputs + np.array([1.0, -1.0])
    probes = [GradientDormancy(part, tau=0.5) for part in PARTS]
    assert values(probes, learner, x, reward=apart) == [0, 0.75]


@KINDS
def test_gradient_dormancy_looks_behind_layer_normalisation(kind):
    """An independent way to the same gradient: a shift put in where the activation takes it."""
    network, x = small(kind, layer_norm=True)
    network = eqx.tree_at(
        lambda n: n.layers[1].norm.bias, network, jnp.array([-50.0, 0.0, 0.0, 0.0, 0.0])
    )
    goals = jnp.asarray(rewards(x), jnp.float32)

    def loss(shifts, x, reward):
        h = x
        for layer, shift in zip(network.layers, [*shifts, jnp.zeros(2)], strict=True):
            h = activated(layer, h, shift)
        return jnp.sum((h - reward * jnp.array([1.0, 2.0])) ** 2) / 2

    def activated(layer, h, shift):
        if isinstance(layer, Conv):
            z = jax.lax.conv_general_dilated(
                h[None], layer.weight, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )[0]
        else:
            z = h.reshape(-1) @ layer.weight
        z = z + layer.bias.reshape((1,) * (z.ndim - 1) + (-1,))
        if layer.norm is not None:
            z = layer.norm(z)
        z = z + shift
        return jnp.maximum(z, 0) if layer.activation == "relu" else z

    zeros = [jnp.zeros(made.shape[1:]) for made in network.features(x)[1:-1]]
    of_z = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0, 0)))(zeros, x, goals)
    found = check_gradient_dormancy(network, x, of_z, (0.0, 0.5, 0.9))
    assert found["head", 0.0] >= 0.19  # one of five was killed

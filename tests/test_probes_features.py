"""Probes of the features' spectrum and of parameters against NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probing import KEY, PARTS, broken, learns, small, value, values, weights

from regrow.networks.architecture import Architecture
from regrow.networks.network import mlp
from regrow.probes import (
    ApproximateRank,
    DeadByFiring,
    DeadOverlap,
    DeadUnits,
    DistanceFromInit,
    DormantUnits,
    EffectiveRank,
    FeatureNorm,
    FeatureRank,
    GradientDormancy,
    Srank,
    StableRank,
    WeightChange,
    WeightMagnitude,
    WeightNorm,
)


@pytest.fixture(scope="module", params=["mlp", "conv"])
def case(request):
    return broken(request.param)


@pytest.mark.parametrize("part", PARTS)
def test_ranks_and_sizes_of_features(case, part):
    learner, x, hidden = case
    features = hidden[part].reshape(len(x), -1)
    sigma = np.linalg.svd(features, compute_uv=False)
    p = sigma[sigma > 1e-7 * sigma[0]] / sigma.sum()

    def least(held, delta):
        held = np.cumsum(held) / held.sum()
        return next(k for k, so_far in enumerate(held, start=1) if so_far >= 1 - delta)

    def above(epsilon):
        return (np.linalg.svd(features / len(x) ** 0.5, compute_uv=False) > epsilon).sum()

    cases = {
        Srank(part): least(sigma, 0.01),
        Srank(part, delta=0.3): least(sigma, 0.3),
        ApproximateRank(part): least(sigma**2, 0.01),
        ApproximateRank(part, delta=0.3): least(sigma**2, 0.3),
        EffectiveRank(part): np.exp(-(p * np.log(p)).sum()),
        StableRank(part): (features**2).sum() / np.linalg.norm(features, 2) ** 2,
        FeatureRank(part): above(0.01),
        FeatureRank(part, epsilon=0.3): above(0.3),
        FeatureNorm(part): np.sqrt((features**2).sum(axis=1)).mean(),
    }
    assert values(cases, learner, x) == pytest.approx(list(cases.values()), rel=1e-3)
    assert len(set(cases.values())) >= 8  # they do differ


def test_of_the_ranks_feature_rank_alone_depends_on_scale():
    network, x = small("mlp", count=40)
    shrunk = eqx.tree_at(lambda n: n.layers[1].weight, network, 1e-3 * network.layers[1].weight)
    probes = [FeatureRank(), FeatureNorm(), Srank(), ApproximateRank(), StableRank()]
    large, little = (values(probes, learns(n), x) for n in (network, shrunk))
    assert large[0] > little[0] == 0
    assert large[1] == pytest.approx(1e3 * little[1], rel=1e-4)
    assert large[2:] == pytest.approx(little[2:], rel=1e-3)


def test_a_network_that_collapsed_has_rank_one():
    network = mlp(4, (8, 8), 2, key=KEY)
    layer = network.layers[1]
    flat = eqx.tree_at(lambda n: n.layers[1].weight, network, jnp.zeros_like(layer.weight))
    flat = eqx.tree_at(lambda n: n.layers[1].bias, flat, jnp.arange(1.0, 9.0))
    x = jax.random.normal(KEY, (32, 4))
    ranks = [Srank(), EffectiveRank(), ApproximateRank(), StableRank(), FeatureRank()]
    assert values(ranks, learns(flat), x) == pytest.approx([1.0] * 5, abs=1e-3)
    dead = eqx.tree_at(lambda n: n.layers[1].bias, flat, jnp.full(8, -1.0))
    assert values([*ranks, FeatureNorm()], learns(dead), x) == [0] * 6
    shares = [DeadUnits(), DormantUnits(), DeadByFiring(), DeadOverlap(), GradientDormancy()]
    assert values(shares, learns(dead), x) == [1] * 5


# Parameters.


@pytest.mark.parametrize("part", PARTS)
def test_sizes_of_weights_and_of_their_change(case, part):
    learner, x, _ = case
    network = learner.network
    earlier = learns(network.fresh(jax.random.key(3)))
    now, then = (
        weights(n.encoder if part == "encoder" else n.head) for n in (network, earlier.network)
    )
    cases = {
        WeightNorm(part): np.linalg.norm(now),
        WeightMagnitude(part): np.abs(now).mean(),
        WeightChange(part): np.sqrt(((now - then) ** 2).sum() / now.size),
        DistanceFromInit(part): np.linalg.norm(now - then),
    }
    found = values(cases, learner, x, before=earlier)
    assert found == pytest.approx(list(cases.values()), rel=1e-5)
    assert values([WeightChange(part), DistanceFromInit(part)], learner, x) == [0, 0]


def test_another_architecture_is_no_past():
    network, x = small("mlp", count=32)
    probes = (WeightChange(), DistanceFromInit(), DeadOverlap(tau=0.5))
    others = (mlp(3, (6, 7), 2, key=KEY), mlp(3, (6, 5, 5), 2, key=KEY), mlp(3, (6,), 2, key=KEY))
    for other in (*others, mlp(3, (6, 5), 2, Architecture(layer_norm=True), key=KEY)):
        assert np.isnan(values(probes, learns(network), x, before=learns(other))).all()
    # A network that was injected, even at another split, has the architecture that it had.
    injected = learns(network.inject(KEY, split=0))
    change = weights(injected.network.layers) - weights(network.layers)
    expected = np.sqrt((change**2).mean())
    found = value(WeightChange(), injected, x, before=learns(network))
    assert found == pytest.approx(expected, rel=1e-5)

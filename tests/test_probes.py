"""Every probe against NumPy, and what it says of networks that are known to be broken."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from regrow.agents import DoubleDQN
from regrow.environments import Breakout
from regrow.errors import RegrowError
from regrow.families import make, members
from regrow.learner import Learner, Optimizer
from regrow.network import convolutional, mlp
from regrow.probes import (
    DeadUnits,
    DormantUnits,
    EffectiveRank,
    GradientNorm,
    Srank,
    WeightNorm,
)
from regrow.probes.base import activations
from regrow.run import Run

KEY = jax.random.key(2)
PARTS = ("encoder", "head")


@pytest.fixture(scope="module", params=["mlp", "conv"])
def case(request):
    """(learner, inputs, hidden activations by part): two of the head's units are dead."""
    if request.param == "mlp":
        network, x = mlp(6, (9, 20), 3, key=KEY), jax.random.normal(KEY, (40, 6))
    else:
        network = convolutional((5, 5, 2), 3, 20, 3, key=KEY)
        x = jax.random.bernoulli(KEY, 0.3, (40, 5, 5, 2))
    killed = network.layers[1].bias.at[:2].set(-100.0)
    network = eqx.tree_at(lambda n: n.layers[1].bias, network, killed)
    learner = Learner.create(network, Optimizer())
    first = np.asarray(jax.vmap(network.layers[0])(x.astype(jnp.float32)))
    second = np.asarray(jax.vmap(network.layers[1])(jnp.asarray(first)))
    return learner, x, {"encoder": first, "head": second}


def value(probe, learner, x) -> float:
    return float(probe.measure(learner, x, None))


@pytest.mark.parametrize("part", PARTS)
def test_dead_units(case, part):
    learner, x, hidden = case
    units = hidden[part].reshape(-1, hidden[part].shape[-1])
    expected = np.mean((units > 0).mean(axis=0) == 0)
    assert value(DeadUnits(part), learner, x) == pytest.approx(expected)
    rarely = np.mean((units > 0).mean(axis=0) <= 0.4)
    assert value(DeadUnits(part, threshold=0.4), learner, x) == pytest.approx(rarely)
    if part == "head":
        assert expected >= 0.1


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("tau", [0.0, 0.025, 0.5])
def test_dormant_units(case, part, tau):
    learner, x, hidden = case
    units = np.abs(hidden[part].reshape(-1, hidden[part].shape[-1])).mean(axis=0)
    expected = np.mean(units / units.mean() <= tau)
    assert value(DormantUnits(part, tau=tau), learner, x) == pytest.approx(expected)


def test_dormant_units_are_pooled_over_layers_not_averaged():
    network = mlp(4, (4, 96, 8), 2, key=KEY)
    network = eqx.tree_at(lambda n: n.layers[2].bias, network, jnp.full(8, -100.0))
    x = jax.random.normal(KEY, (64, 4))
    learner = Learner.create(network, Optimizer())
    alive = np.asarray(activations(network, "head", x)[0]).mean(axis=0)
    dormant = (alive <= 0.025 * alive.mean()).sum() + 8  # a layer that is wholly dead counts
    assert value(DormantUnits("head"), learner, x) == pytest.approx(dormant / 104)


def singular(hidden) -> np.ndarray:
    return np.linalg.svd(hidden.reshape(len(hidden), -1).astype(np.float64), compute_uv=False)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("delta", [0.01, 0.3])
def test_srank(case, part, delta):
    learner, x, hidden = case
    sigma = singular(hidden[part])
    share = np.cumsum(sigma) / sigma.sum()
    expected = next(k for k, s in enumerate(share, start=1) if s >= 1 - delta)
    assert value(Srank(part, delta=delta), learner, x) == expected


@pytest.mark.parametrize("part", PARTS)
def test_effective_rank(case, part):
    learner, x, hidden = case
    p = singular(hidden[part])
    p = p[p > 1e-7 * p[0]] / p.sum()
    expected = np.exp(-(p * np.log(p)).sum())
    assert value(EffectiveRank(part), learner, x) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("part", PARTS)
def test_weight_norm(case, part):
    learner, x, _ = case
    layers = learner.network.encoder if part == "encoder" else learner.network.head
    leaves = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(layers)])
    assert value(WeightNorm(part), learner, x) == pytest.approx(np.linalg.norm(leaves), rel=1e-5)


def test_gradient_norm_by_finite_differences():
    """Along its own direction the loss changes by the norm of the gradient."""
    agent = DoubleDQN(hidden=16, channels=4, learn_start=40, replay_capacity=300)
    run = Run.start(agent, Breakout(), seed=0).advance(200)[0]
    # All terminal: the target is the reward, whatever action the moved network would choose.
    batch = run.state.replay.first(64)._replace(discount=jnp.zeros(64))
    probe = {p: GradientNorm(p) for p in PARTS}
    norms = {
        p: float(g(run.state.agent, agent=agent, batch=batch, key=KEY)["q"])
        for p, g in probe.items()
    }
    learner = run.state.agent.q
    gradient = agent.gradients(run.state.agent, batch, KEY)["q"]
    total = np.hypot(norms["encoder"], norms["head"])
    step = 1e-3 / total
    moved = [
        jax.tree.map(lambda a, b, s=s: a + s * step * b, part, g)
        for s in (1, -1)
        for part, g in zip(learner.network.parts(), gradient.parts(), strict=True)
    ]
    up, down = moved[:3], moved[3:]
    losses = [
        float(agent.loss(learner.network.with_parts(parts), learner.target, batch))
        for parts in (up, down)
    ]
    assert (losses[0] - losses[1]) / (2 * step * total) == pytest.approx(total, rel=0.02)


def test_a_network_that_collapsed_has_rank_one():
    network = mlp(4, (8, 8), 2, key=KEY)
    layer = network.layers[1]
    flat = eqx.tree_at(lambda n: n.layers[1].weight, network, jnp.zeros_like(layer.weight))
    flat = eqx.tree_at(lambda n: n.layers[1].bias, flat, jnp.arange(1.0, 9.0))
    x = jax.random.normal(KEY, (32, 4))
    learner = Learner.create(flat, Optimizer())
    assert value(Srank("head"), learner, x) == 1
    assert value(EffectiveRank("head"), learner, x) == pytest.approx(1.0, abs=1e-3)
    dead = eqx.tree_at(lambda n: n.layers[1].bias, flat, jnp.full(8, -1.0))
    learner = Learner.create(dead, Optimizer())
    assert value(Srank("head"), learner, x) == value(EffectiveRank("head"), learner, x) == 0
    assert value(DeadUnits("head"), learner, x) == value(DormantUnits("head"), learner, x) == 1


def test_frozen_heads_are_not_measured(case):
    learner, x, _ = case
    injected = learner.network.inject(KEY)
    plain = Learner.create(type(injected)(injected.layers, split=1), Optimizer())
    whole = Learner.create(injected, Optimizer())
    for cls in (DeadUnits, Srank, WeightNorm):
        assert value(cls("head"), whole, x) == value(cls("head"), plain, x)


@pytest.mark.parametrize("name", sorted(members("probes")))
def test_a_part_that_is_not_there_is_nan(name):
    agent = DoubleDQN(hidden=8, channels=2, learn_start=40, replay_capacity=100)
    run = Run.start(agent, Breakout(), seed=0).advance(80)[0]
    from regrow.interventions import Inject

    run = run.intervene(Inject(split=0))
    (encoder,) = run.probe([members("probes")[name](part="encoder")], count=16)
    (head,) = run.probe([members("probes")[name](part="head")], count=16)
    assert np.isnan(encoder["q"])
    assert np.isfinite(head["q"])


@pytest.mark.parametrize("name", sorted(members("probes")))
def test_a_probe_is_repeatable_and_leaves_the_run_alone(name):
    agent = DoubleDQN(hidden=8, channels=2, learn_start=40, replay_capacity=100)
    run = Run.start(agent, Breakout(), seed=0).advance(80)[0]
    probe = members("probes")[name]()
    assert run.probe([probe], count=32) == run.probe([probe], count=32)
    fresh = run.probe([probe], count=32, fresh=True)
    assert set(fresh[0]) == {"q"}
    assert np.isfinite(fresh[0]["q"])


@pytest.mark.parametrize("name", sorted(members("probes")))
def test_a_network_that_diverged_is_nan_not_dead(name):
    agent = DoubleDQN(hidden=8, channels=2, learn_start=40, replay_capacity=100)
    run = Run.start(agent, Breakout(), seed=0).advance(80)[0]
    bias = run.state.agent.q.network.layers[1].bias
    broken = eqx.tree_at(
        lambda r: r.state.agent.q.network.layers[1].bias, run, jnp.full_like(bias, jnp.nan)
    )
    (values,) = broken.probe([members("probes")[name]()], count=16)
    assert np.isnan(values["q"])


def test_a_probe_that_cannot_be_is_refused():
    for text, message in (
        ("srank(delta=0.0)", "delta is 0.0"),
        ("dormant_units(tau=-1.0)", "tau is -1.0"),
        ("srank(part='tail')", "part is 'tail'; it must be one of: encoder, head"),
    ):
        with pytest.raises(RegrowError, match=message):
            make("probes", text)

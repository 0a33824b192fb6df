"""Probes of gradients, and of what an update does, against NumPy."""

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
    killed,
    learns,
    pull,
    rewards,
    small,
    value,
    values,
    weights,
)
from small import DQN

from regrow.environments import Breakout
from regrow.errors import RegrowError
from regrow.networks.network import mlp
from regrow.probes import (
    Curvature,
    GradientCosine,
    GradientNorm,
    NtkRank,
    PolicyChurn,
    Trainability,
    ValueChurn,
)
from regrow.probes.base import Past
from regrow.training.run import Run


@pytest.fixture(scope="module")
def run() -> Run:
    return Run.start(DQN, Breakout(), seed=0).advance(80)[0]


# Gradients.


@KINDS
def test_gradient_norm(kind):
    network, x = small(kind)
    reference = Reference(network)
    gradient, _ = reference.backward(x, pull(reference(x), rewards(x)))
    mean, first = gradient.mean(axis=0), weights(network.layers[0]).size
    expected = [np.linalg.norm(mean[:first]), np.linalg.norm(mean[first:])]
    found = values([GradientNorm(part) for part in PARTS], learns(network), x)
    assert found == pytest.approx(expected, rel=1e-4)


def test_gradient_norm_by_finite_differences(run):
    """Along its own direction an agent's loss changes by the norm of the gradient."""
    # All terminal: the target is the reward, whatever action the moved network would choose.
    batch = run.state.replay.first(64)._replace(discount=jnp.zeros(64))
    state, probes = run.state.agent, [GradientNorm(part) for part in PARTS]

    @jax.jit
    def both(state):
        where = {"agent": DQN, "batch": batch, "key": KEY, "past": Past(state, state)}
        norms = jnp.array([probe(state, **where)["q"] for probe in probes])
        total = jnp.sqrt(jnp.sum(norms**2))
        gradient = DQN.gradients(state, batch, KEY)["q"]

        def loss(step):
            moved = jax.tree.map(lambda a, b: a + step / total * b, state.q.network, gradient)
            return DQN.loss(moved, state.q.target, batch)

        return total, (loss(1e-3) - loss(-1e-3)) / 2e-3

    total, slope = both(state)
    assert float(slope) == pytest.approx(float(total), rel=0.02)


@KINDS
def test_gradient_cosine(kind):
    network, x = small(kind, count=9)
    reference = Reference(network)
    gradient, _ = reference.backward(x, pull(reference(x), rewards(x)))
    gradient /= np.linalg.norm(gradient, axis=1, keepdims=True)
    cosines, counts = gradient @ gradient.T, (9, 4)
    expected = [cosines[:n, :n][~np.eye(n, dtype=bool)].mean() for n in counts]
    found = values([GradientCosine(samples=n) for n in counts], learns(network), x)
    assert found == pytest.approx(expected, abs=1e-5)


def test_gradient_cosine_where_it_is_known():
    network = mlp(2, (), 1, key=KEY)
    learner, x = learns(network), jnp.ones((4, 2))
    output = float(network(x)[0, 0])
    pulled = {way: output + np.array(way) for way in ((1, 2, 1, 3), (1, -1, 1, -1), (0, 0, 0, 9))}
    same, apart, alone = (value(GradientCosine(), learner, x, reward=r) for r in pulled.values())
    assert same == pytest.approx(1.0, abs=1e-5)
    assert apart == pytest.approx(-1 / 3, abs=1e-5)
    assert np.isnan(alone)  # one transition has a gradient: there is no pair


@KINDS
def test_ntk_rank(kind):
    network, x = small(kind, count=14)
    reference = Reference(network)
    outputs = reference(x)
    greedy = np.eye(outputs.shape[1])[outputs.argmax(axis=1)]
    jacobian, _ = reference.backward(x, greedy)
    cases = [(samples, threshold) for samples in (14, 6) for threshold in (0.001, 0.1)]
    expected = []
    for samples, threshold in cases:
        spectrum = np.linalg.svd(jacobian[:samples], compute_uv=False) ** 2
        expected.append((spectrum > threshold * spectrum[0]).sum())
    probes = [NtkRank(samples=samples, threshold=threshold) for samples, threshold in cases]
    assert values(probes, learns(network), x) == expected
    assert len(set(expected)) >= 3


def test_ntk_rank_where_it_is_known():
    network, x = small("mlp", count=12)
    twice = jnp.concatenate([x[:3]] * 4)
    assert value(NtkRank(), learns(network), twice) == 3
    dead = killed(network, 1, range(5))
    # The biases of the outputs are left: one direction per greedy action.
    actions = np.unique(np.asarray(dead(x)).argmax(axis=1))
    assert value(NtkRank(), learns(dead), x) == len(actions) == 1
    thick = learns(network.inject(KEY))  # frozen heads add to the output, not to what can move
    assert 1 <= value(NtkRank(), thick, x) <= 12


# Updates.


@KINDS
@pytest.mark.parametrize("rows", [3, 100])
def test_churn(kind, rows):
    network, x = small(kind, count=21)
    rate, agent = 0.2, Regression(rows_per_update=rows)
    reference = Reference(network)
    seen, data = x[:10], slice(10, min(21, 10 + rows))
    before = reference(seen)

    def gradient():
        outputs = reference(x[data])
        return reference.backward(x[data], pull(outputs, rewards(x)[data]))[0].mean(axis=0)

    reference.adam(gradient, 1, rate=rate)
    after = reference(seen)
    learner = learns(network, rate)
    moved = np.mean((after - before) ** 2)
    changed = np.mean(after.argmax(axis=1) != before.argmax(axis=1))
    found = values([ValueChurn(), PolicyChurn()], learner, x, agent=agent)
    assert found == pytest.approx([moved, changed], rel=1e-3)
    assert changed > 0 or kind == "conv"


def test_churn_of_a_single_output_is_of_its_value_alone():
    learner, x = learns(mlp(2, (4,), 1, key=KEY)), jax.random.normal(KEY, (8, 2))
    policy, moved = values([PolicyChurn(), ValueChurn()], learner, x)
    assert np.isnan(policy)
    assert moved > 0
    still = learns(learner.network, 1e-12)
    assert value(ValueChurn(), still, x) == 0
    for probe in (ValueChurn(), PolicyChurn()):
        with pytest.raises(RegrowError, match="count is 1; churn needs at least 2 transitions"):
            value(probe, learner, x[:1])


@KINDS
def test_curvature(kind):
    network, x = small(kind)
    reference = Reference(network)
    theta = reference.get()

    def gradient(at):
        reference.set(at)
        return reference.backward(x, pull(reference(x), rewards(x)))[0].mean(axis=0)

    steps = 1e-6 * np.eye(theta.size)
    hessian = np.stack([(gradient(theta + d) - gradient(theta - d)) / 2e-6 for d in steps])
    spectrum = np.linalg.eigvalsh((hessian + hessian.T) / 2)
    learner = learns(network)
    found = values([Curvature(iterations=n) for n in (1, 100)], learner, x)
    assert found[1] == pytest.approx(spectrum[-1], rel=1e-3)
    assert found[0] < found[1]  # from below
    upside_down = value(Curvature(iterations=300), learner, x, agent=Regression(sign=-1.0))
    assert upside_down == pytest.approx(-spectrum[0], rel=0.02, abs=1e-3 * spectrum[-1])


def test_curvature_of_linear_regression():
    network = mlp(3, (), 2, key=KEY)
    x = jax.random.normal(KEY, (20, 3))
    inputs = np.concatenate([np.asarray(x, np.float64), np.ones((20, 1))], axis=1)
    spectrum = np.linalg.eigvalsh(inputs.T @ inputs / 20)
    found = value(Curvature(iterations=200), learns(network), x)
    assert found == pytest.approx(spectrum[-1], rel=1e-4)
    # Upside down every eigenvalue is negative; the largest is the one nearest to 0.
    concave = value(Curvature(iterations=200), learns(network), x, agent=Regression(sign=-1.0))
    assert concave == pytest.approx(-spectrum[0], rel=1e-2)


@KINDS
def test_trainability(kind):
    network, x = small(kind)
    reference, updates, rate = Reference(network), 6, 0.02
    targets = reference(x) + np.asarray(jax.random.normal(KEY, (len(x), 2)), np.float64)

    def loss():
        return ((reference(x) - targets) ** 2).mean()

    def gradient():
        far = 2 * (reference(x) - targets) / 2  # of the mean over two outputs, per sample
        return reference.backward(x, far)[0].mean(axis=0)

    before = loss()
    reference.adam(gradient, updates, rate=rate)
    expected = 1 - loss() / before
    fresh = learns(network, rate)
    assert value(Trainability(updates=updates), fresh, x) == pytest.approx(expected, rel=1e-3)
    # Old statistics are left behind, and frozen heads only shift the targets along.
    used = fresh
    for _ in range(3):
        used = used.descend(jax.tree.map(lambda leaf: 0 * leaf + 5.0, network))
    used = eqx.tree_at(lambda one: one.network, used, network)
    assert value(Trainability(updates=updates), used, x) == pytest.approx(expected, rel=1e-3)


def test_trainability_is_lost_with_the_hidden_units():
    network, x = small("mlp", count=40)
    learner = learns(network, 0.01)
    dead = learns(killed(network, 1, range(5)), 0.01)
    fresh, lost = (value(Trainability(), one, x) for one in (learner, dead))
    # What is left are biases, which fit the mean of the noise and no more.
    noise = np.asarray(jax.random.normal(KEY, (40, 2)))
    assert lost == pytest.approx(1 - noise.var(axis=0).mean() / (noise**2).mean(), abs=0.01)
    assert fresh > lost + 0.1
    assert value(Trainability(updates=20), learner, x) < fresh

"""Every probe against NumPy, and what it says of networks that are known to be broken."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from regrow.agents import DoubleDQN
from regrow.cells import every_probe
from regrow.checkpoint import load, save
from regrow.environments import Breakout, ObservationReward
from regrow.errors import RegrowError
from regrow.families import make, members
from regrow.interventions import Inject, Reset
from regrow.layers import Conv
from regrow.learner import Learner, Optimizer
from regrow.network import Network, convolutional, mlp
from regrow.probes import (
    ApproximateRank,
    Curvature,
    DeadByFiring,
    DeadOverlap,
    DeadUnits,
    DistanceFromInit,
    DormantUnits,
    EffectiveRank,
    FeatureNorm,
    FeatureRank,
    GradientCosine,
    GradientDormancy,
    GradientNorm,
    NtkRank,
    PolicyChurn,
    Srank,
    StableRank,
    Trainability,
    ValueChurn,
    WeightChange,
    WeightMagnitude,
    WeightNorm,
)
from regrow.probes.base import PartProbe, Past, View
from regrow.run import Run
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

    batch_size: int = 8
    sign: float = 1.0

    def inputs(self, batch):
        return {"left": batch.obs_tm1, "right": batch.obs_t}

    def gradients(self, state, batch, key):
        del key

        def loss(network, x):
            outputs = network(x)
            goals = batch.reward[:, None] * jnp.arange(1.0, outputs.shape[-1] + 1)[None]
            return self.sign * jnp.mean(jnp.sum((outputs - goals) ** 2, axis=-1)) / 2

        return {
            name: getattr(state, name).gradient(lambda network, x=x: loss(network, x))[1]
            for name, x in self.inputs(batch).items()
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
    return Transition(x, jnp.zeros(count, int), reward, jnp.ones(count), x[::-1])


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
        network = mlp(3, (6, 5), 2, layer_norm=layer_norm, key=key)
        return network, jax.random.normal(drawing, (count, 3))
    network = convolutional((4, 5, 2), 3, 5, 2, layer_norm=layer_norm, key=key)
    return network, jax.random.normal(drawing, (count, 4, 5, 2))


def learns(network: Network, rate: float = 1e-3) -> Learner:
    return Learner.create(network, Optimizer(learning_rate=rate))


def killed(network: Network, layer: int, units) -> Network:
    """With some units of a layer that no input makes fire."""
    bias = network.layers[layer].bias.at[jnp.asarray(units)].set(-100.0)
    return eqx.tree_at(lambda n: n.layers[layer].bias, network, bias)


KINDS = pytest.mark.parametrize("kind", ["mlp", "conv"])
AGENT = DoubleDQN(hidden=8, channels=2, learn_start=40, replay_capacity=100)
EVERY = sorted(members("probes"))
OF_PARTS = [name for name in EVERY if issubclass(members("probes")[name], PartProbe)]


@pytest.fixture(scope="module")
def run() -> Run:
    return Run.start(AGENT, Breakout(), seed=0).advance(80)[0]


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


# Units and features.


@pytest.fixture(scope="module", params=["mlp", "conv"])
def case(request):
    """(learner, inputs, hidden activations by part): two of the head's units are dead."""
    if request.param == "mlp":
        network, x = mlp(6, (9, 20), 3, key=KEY), jax.random.normal(KEY, (40, 6))
    else:
        network = convolutional((5, 5, 2), 3, 20, 3, key=KEY)
        x = jax.random.bernoulli(KEY, 0.3, (40, 5, 5, 2))
    learner = Learner.create(killed(network, 1, [0, 1]), Optimizer())
    first, second, _ = Reference(learner.network).forward(x)[1]
    return learner, x, {"encoder": first, "head": second}


def of_units(hidden) -> np.ndarray:
    return hidden.reshape(-1, hidden.shape[-1])


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
    network = mlp(3, (8, 8), 2, activation="crelu", key=KEY)  # four units a layer
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
    network = mlp(3, (6, 6, 6), 2, block="bro", key=KEY)
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
    score = {part: np.abs(of_units(dz)).mean(axis=0) for part, dz in zip(PARTS, of_z, strict=False)}
    cases = [(part, tau) for part in PARTS for tau in (0.0, 0.6, 0.9)]
    expected = [np.mean(score[part] / score[part].mean() <= tau) for part, tau in cases]
    probes = [GradientDormancy(part, tau=tau) for part, tau in cases]
    found = dict(zip(cases, values(probes, learns(network), x), strict=True))
    assert list(found.values()) == pytest.approx(expected)
    assert found["head", 0.0] >= 0.39  # two of five were killed


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
    score = {
        part: np.abs(of_units(np.asarray(dz, np.float64))).mean(axis=0)
        for part, dz in zip(PARTS, of_z, strict=True)
    }
    cases = [(part, tau) for part in PARTS for tau in (0.0, 0.5, 0.9)]
    expected = [np.mean(score[part] / score[part].mean() <= tau) for part, tau in cases]
    probes = [GradientDormancy(part, tau=tau) for part, tau in cases]
    found = dict(zip(cases, values(probes, learns(network), x), strict=True))
    assert list(found.values()) == pytest.approx(expected)
    assert found["head", 0.0] >= 0.19  # one of five was killed


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


def weights(layers) -> np.ndarray:
    leaves = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(layers)]
    return np.concatenate(leaves)


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
    for other in (*others, mlp(3, (6, 5), 2, layer_norm=True, key=KEY)):
        assert np.isnan(values(probes, learns(network), x, before=learns(other))).all()
    # A network that was injected, even at another split, has the architecture that it had.
    injected = learns(network.inject(KEY, split=0))
    change = weights(injected.network.layers) - weights(network.layers)
    expected = np.sqrt((change**2).mean())
    found = value(WeightChange(), injected, x, before=learns(network))
    assert found == pytest.approx(expected, rel=1e-5)


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
        where = {"agent": AGENT, "batch": batch, "key": KEY, "past": Past(state, state)}
        norms = jnp.array([probe(state, **where)["q"] for probe in probes])
        total = jnp.sqrt(jnp.sum(norms**2))
        gradient = AGENT.gradients(state, batch, KEY)["q"]

        def loss(step):
            moved = jax.tree.map(lambda a, b: a + step / total * b, state.q.network, gradient)
            return AGENT.loss(moved, state.q.target, batch)

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
@pytest.mark.parametrize("batch_size", [3, 100])
def test_churn(kind, batch_size):
    network, x = small(kind, count=21)
    rate, agent = 0.2, Regression(batch_size=batch_size)
    reference = Reference(network)
    seen, data = x[:10], slice(10, min(21, 10 + batch_size))
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


# The contract.


def test_frozen_heads_are_not_measured(case):
    learner, x, _ = case
    injected = learner.network.inject(KEY)
    plain = Learner.create(Network(injected.layers, split=1), Optimizer())
    whole = Learner.create(injected, Optimizer())
    probes = [DeadUnits(), Srank(), WeightNorm(), WeightMagnitude(), FeatureNorm()]
    assert values(probes, whole, x) == values(probes, plain, x)


@pytest.fixture(scope="module")
def found(run) -> dict[str, dict[str, dict[str, float]]]:
    """What every probe says of a Run, by what was done to it, by the probe's name."""
    probes = {
        name if part is None else f"{name}.{part}": quick(name, part)
        for name in EVERY
        for part in (PARTS if name in OF_PARTS else (None,))
    }

    def said(run: Run, **how) -> dict[str, dict[str, float]]:
        return dict(zip(probes, run.probe(list(probes.values()), count=32, **how), strict=True))

    def broken(field: str, number: float) -> Run:
        """With one number for all the parameters in some place."""
        layer = run.state.agent.q.network.layers[1]
        filled = jnp.full_like(getattr(layer, field), number)
        return eqx.tree_at(lambda r: getattr(r.state.agent.q.network.layers[1], field), run, filled)

    return {
        "now": said(run),
        "again": said(run),
        "fresh": said(run, fresh=True),
        "no encoder": said(run.intervene(Inject(split=0))),
        "no number": said(broken("bias", np.nan)),
        "too large": said(broken("weight", 3e38)),  # to be multiplied; finite as it stands
    }


def quick(name: str, part: str | None):
    """A probe of which as little is asked as it takes."""
    less = {"trainability": {"updates": 5}, "curvature": {"iterations": 2}}
    return members("probes")[name](**less.get(name, {}), **({} if part is None else {"part": part}))


def parts(name: str) -> list[str]:
    return [f"{name}.{part}" for part in PARTS] if name in OF_PARTS else [name]


@pytest.mark.parametrize("name", OF_PARTS)
def test_a_part_that_is_not_there_is_nan(found, name):
    encoder, head = (found["no encoder"][part]["q"] for part in parts(name))
    assert np.isnan(encoder)
    assert np.isfinite(head) or name == "dead_overlap"  # nothing may have been dormant


@pytest.mark.parametrize("name", EVERY)
def test_a_probe_is_repeatable_and_is_there_for_a_fresh_network(found, name):
    for part in parts(name):
        now, again, fresh = (found[how][part] for how in ("now", "again", "fresh"))
        assert set(now) == set(fresh) == {"q"}
        assert now == pytest.approx(again, rel=0, abs=0, nan_ok=True)
        assert np.isfinite([now["q"], fresh["q"]]).all() or name == "dead_overlap"


@pytest.mark.parametrize("name", EVERY)
def test_a_network_that_diverged_is_nan_not_dead(found, name):
    for part in parts(name):
        assert np.isnan(found["no number"][part]["q"])
        assert np.isnan(found["too large"][part]["q"])


def test_a_probe_looks_at_every_learner_and_takes_each_for_itself():
    network, x = small("mlp")
    state, batch = Two(learns(network), learns(mlp(3, (4,), 2, key=KEY))), transitions(x)
    turned = batch._replace(obs_tm1=x[::-1], obs_t=x)

    @jax.jit
    def said(state, batch):
        return [
            probe(state, agent=Regression(), batch=batch, key=KEY, past=Past(state, state))
            for probe in (WeightNorm(), GradientNorm(), GradientCosine(), FeatureNorm())
        ]

    for both, swapped in zip(
        said(state, batch), said(Two(state.right, state.left), turned), strict=True
    ):
        assert set(both) == {"left", "right"}
        for one, other in (("left", "right"), ("right", "left")):
            assert float(both[one]) == pytest.approx(float(swapped[other]), rel=1e-5)


def test_the_start_of_a_run_is_known_exactly(run, tmp_path):
    """Also to a fork with draws of its own, and to a Run that was saved and loaded."""
    probes = [DistanceFromInit(part) for part in PARTS]
    at_rest = Run.start(AGENT, Breakout(), seed=3).advance(20)[0]  # nothing learnt yet
    other = at_rest.fork(draws=2)
    assert [each["q"] for each in at_rest.probe(probes)] == [0, 0]
    assert [each["q"] for each in other.probe(probes)] == [0, 0]
    start = Run.start(AGENT, Breakout(), seed=0).state.agent.q.network
    now = run.state.agent.q.network
    expected = np.linalg.norm(weights(now.head) - weights(start.head))
    fork = run.fork(draws=7)
    save(fork, tmp_path / "run.ckpt")
    for one in (run, fork, load(tmp_path / "run.ckpt"), load(tmp_path / "run.ckpt").fork(draws=1)):
        assert one.probe(probes)[1]["q"] == pytest.approx(expected, rel=1e-5)
    assert expected > 0


def test_an_earlier_run_may_be_the_past(run):
    later = run.fork().advance(40)[0]
    probes = [WeightChange(), DistanceFromInit()]
    change, distance = (each["q"] for each in later.probe(probes, since=run))
    was, now = (weights(one.state.agent.q.network.head) for one in (run, later))
    assert change == pytest.approx(np.sqrt(((now - was) ** 2).mean()), rel=1e-4)
    from_start = later.probe(probes)
    assert distance == from_start[1]["q"]
    assert from_start[0]["q"] == pytest.approx(distance / now.size**0.5, rel=1e-5)
    assert later.probe(probes, since=later)[0]["q"] == 0
    # A layer that was drawn anew has changed by the draw.
    renewed = later.intervene(Reset())
    assert renewed.probe(probes, since=later)[0]["q"] > 0
    elsewhere = Run.start(AGENT, ObservationReward(), seed=0).advance(40)[0]
    assert np.isnan(later.probe(probes, since=elsewhere)[0]["q"])
    used_up = later.fork()
    used_up.advance(4)
    with pytest.raises(RegrowError, match="this Run was advanced before"):
        later.probe(probes, since=used_up)


def test_a_diagnosis_leaves_the_costly_probes_out():
    usual, all_of_them = every_probe(), every_probe(costly=True)
    assert usual.items() <= all_of_them.items()
    assert not any(probe.costly for probe in usual.values())
    assert {name.split(".")[0] for name in all_of_them} == set(EVERY)
    assert {"trainability.network", "srank.encoder", "srank.head"} <= set(all_of_them)
    costly = {name.split(".")[0] for name in all_of_them.keys() - usual.keys()}
    assert costly == {
        *("curvature", "gradient_cosine", "gradient_dormancy", "ntk_rank"),
        *("policy_churn", "trainability", "value_churn"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("srank(delta=0.0)", "delta is 0.0; it must be between 0 and 1"),
        ("approximate_rank(delta=1.0)", "delta is 1.0; it must be between 0 and 1"),
        ("dormant_units(tau=-1.0)", "tau is -1.0; it must be 0 or more"),
        ("gradient_dormancy(tau=-1.0)", "tau is -1.0; it must be 0 or more"),
        ("dead_overlap(tau=-0.1)", "tau is -0.1; it must be 0 or more"),
        ("dead_by_firing(tau=0.0)", "tau is 0.0; it must be above 0 and at most 1"),
        ("dead_units(threshold=1.5)", "threshold is 1.5; it must be between 0 and 1"),
        ("feature_rank(epsilon=0)", "epsilon is 0.0; it must be > 0"),
        ("gradient_cosine(samples=1)", "samples is 1; it must be at least 2"),
        ("ntk_rank(samples=0)", "samples is 0; it must be at least 1"),
        ("ntk_rank(threshold=1.0)", "threshold is 1.0; it must be between 0 and 1"),
        ("curvature(iterations=0)", "iterations is 0; it must be at least 1"),
        ("trainability(updates=0)", "updates is 0; it must be at least 1"),
        ("srank(part='tail')", "part is 'tail'; it must be one of: encoder, head"),
        ("trainability(part='head')", "no field of trainability 'part'"),
    ],
)
def test_a_probe_that_cannot_be_is_refused(text, message):
    with pytest.raises(RegrowError, match=message):
        make("probes", text)

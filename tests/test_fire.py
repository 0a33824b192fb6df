"""FIRE in NumPy: the polar factor by singular values, the iteration by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from images import AGENT, IMAGES, KEY, Fixed, trained
from refusals import refused_in_a_line
from trees import bit_equal, distance

from regrow.interventions import Fire, Inject
from regrow.interventions.fire import polar_factor
from regrow.learners.learner import LearnedScalar
from regrow.learners.optimizer import Optimizer
from regrow.networks.architecture import Architecture
from regrow.networks.network import convolutional, mlp
from regrow.types import Discrete

OTHER = jax.random.key(8)
SHAPES = [(9, 4), (4, 9), (6, 6)]


def matrix_of(singular_values, shape, seed=0):
    rng = np.random.default_rng(seed)
    u, _, v = np.linalg.svd(rng.normal(size=shape), full_matrices=False)
    return u * np.asarray(singular_values) @ v


def polar_by_svd(matrix):
    u, _, v = np.linalg.svd(np.asarray(matrix, float), full_matrices=False)
    return u @ v


def newton_schulz(matrix, iterations):
    x = np.asarray(matrix, float) / np.sqrt((np.asarray(matrix, float) ** 2).sum())
    for _ in range(iterations):
        x = 1.5 * x - 0.5 * x @ x.T @ x
    return x


def scaled(matrix, iterations=10):
    reads, units = matrix.shape
    return np.sqrt(units / reads) * newton_schulz(matrix, iterations)


@pytest.fixture(scope="module")
def learner():
    return trained(convolutional((6, 6, 3), 4, 10, 3, key=KEY))


def fire(learner, **fields):
    return Fire(**fields).change(learner, KEY)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_iteration_is_that_of_the_authors(shape):
    matrix = np.random.default_rng(1).normal(size=shape)
    for iterations in (1, 3, 10):
        got = polar_factor(jnp.asarray(matrix, jnp.float32), iterations)
        np.testing.assert_allclose(got, newton_schulz(matrix, iterations), atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_ends_at_the_polar_factor(shape):
    values = np.linspace(0.2, 3.0, min(shape))
    matrix = matrix_of(values, shape)
    got = np.asarray(polar_factor(jnp.asarray(matrix, jnp.float32), 12))
    np.testing.assert_allclose(got, polar_by_svd(matrix), atol=1e-5)
    gram = got.T @ got if shape[0] >= shape[1] else got @ got.T
    np.testing.assert_allclose(gram, np.eye(min(shape)), atol=1e-5)


def test_small_singular_values_are_not_there_yet_after_ten():
    """As the docstring says; the recurrence of one singular value, s ← 1.5s − 0.5s³."""
    values = np.array([1.0, 0.03, 0.003, 0.0])
    got = polar_factor(jnp.asarray(matrix_of(values, (7, 4)), jnp.float32), 10)
    ends = np.sort(np.linalg.svd(np.asarray(got), compute_uv=False))[::-1]
    expected = values / np.linalg.norm(values)
    for _ in range(10):
        expected = 1.5 * expected - 0.5 * expected**3
    np.testing.assert_allclose(ends, expected, atol=2e-5)
    assert expected[1] > 0.95
    assert 0.15 < expected[2] < 0.19
    assert not np.asarray(polar_factor(jnp.zeros((3, 2)), 10)).any()


def test_every_weight_is_projected_and_nothing_else(learner):
    after = fire(learner)
    for old, new in zip(learner.network.layers, after.network.layers, strict=True):
        old_weight, new_weight = np.asarray(old.weight), np.asarray(new.weight)
        if old_weight.ndim == 4:
            height, width = old_weight.shape[:2]
            for i in range(height):
                for j in range(width):
                    expected = scaled(old_weight[i, j]) / (height * width)
                    np.testing.assert_allclose(new_weight[i, j], expected, atol=1e-6)
        else:
            np.testing.assert_allclose(new_weight, scaled(old_weight), atol=1e-5)
        assert bit_equal(old.bias, new.bias)
    assert bit_equal(after.network, after.target)
    assert bit_equal(after.statistics, learner.statistics)


def test_a_trained_network_is_near_its_isometry_in_the_frobenius_norm(learner):
    """Of all semi-orthogonal matrices none is nearer to W than the polar factor."""
    weight = np.asarray(learner.network.layers[1].weight, float)
    nearest = np.linalg.norm(weight - polar_by_svd(weight))
    rng = np.random.default_rng(3)
    for _ in range(50):
        other = polar_by_svd(rng.normal(size=weight.shape))
        assert np.linalg.norm(weight - other) > nearest
    projected = np.asarray(fire(learner, iterations=30).network.layers[1].weight)
    reads, units = weight.shape
    expected = np.sqrt(units / reads) * polar_by_svd(weight)
    np.testing.assert_allclose(projected, expected, atol=1e-5)


def test_blocks_are_projected_and_their_normalisation_stays():
    network = mlp(5, (8, 8), 2, Architecture(block="simba"), key=KEY)
    learner = trained(network)
    after = fire(learner)
    block, was = after.network.layers[1], learner.network.layers[1]
    for name in ("inner", "outer"):
        old, new = getattr(was, name), getattr(block, name)
        np.testing.assert_allclose(new.weight, scaled(np.asarray(old.weight)), atol=1e-5)
        assert bit_equal(new.bias, old.bias)
    assert bit_equal((block.norm, block.final), (was.norm, was.final))


def test_dense_layers_may_be_drawn_anew_as_in_the_authors_dqn(learner):
    after = fire(learner, dense="reset")
    conv, *dense = after.network.layers
    assert bit_equal(conv, fire(learner).network.layers[0])
    drawn = learner.network.fresh(KEY).layers[1:]
    assert bit_equal(tuple(dense), drawn)
    assert bit_equal(after.network, after.target)
    assert bit_equal(after.statistics, learner.statistics)
    assert not bit_equal(after.network, Fire(dense="reset").change(learner, OTHER).network)
    assert Fire(dense="reset").is_random
    injected = Inject().change(learner, KEY)
    assert fire(injected, dense="reset").network.residual == ()
    assert bit_equal(fire(injected).network.residual, injected.network.residual)


@pytest.mark.parametrize("dense", ["project", "reset"])
def test_the_optimizer_may_begin_anew(learner, dense):
    after = fire(learner, dense=dense, optimizer="reset")
    assert any(np.asarray(leaf).any() for leaf in jax.tree.leaves(learner.statistics))
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(after.statistics))


@pytest.mark.parametrize("fields", [{}, {"optimizer": "reset"}, {"scalars": "reset"}])
def test_a_temperature_stays_or_begins_anew(fields):
    first = LearnedScalar.create(0.5, Optimizer())
    used = first.descend(jnp.array(1.0))
    assert distance(used, first) > 0
    after = Fire(**fields).turn(used)
    assert bit_equal(after.value, (first if "scalars" in fields else used).value)
    assert bit_equal(after.statistics, (first if fields else used).statistics)


def test_a_network_that_was_projected_still_predicts_and_stays_when_it_is_again():
    state = AGENT.init((6, 6, 3), np.dtype(np.float32), Discrete(3), KEY)
    deep = Fire(iterations=40)
    once = deep(state, agent=AGENT, experience=Fixed(), key=KEY)
    twice = deep(once, agent=AGENT, experience=Fixed(), key=KEY)
    np.testing.assert_allclose(once.q.network(IMAGES), twice.q.network(IMAGES), atol=1e-5)
    assert np.asarray(once.q.network(IMAGES)).std() > 0


@pytest.mark.parametrize("iterations", [0, -1, 1_001])
def test_what_cannot_be_is_refused(iterations):
    with refused_in_a_line(f"fire: iterations is {iterations}; it must be from 1 to 1000"):
        Fire(iterations=iterations)

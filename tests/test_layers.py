"""Layers and blocks in NumPy: activations, initialisers, spectral norm, the published networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from regrow.agents import DoubleDQN
from regrow.errors import RegrowError
from regrow.networks.architecture import Architecture
from regrow.networks.initialisers import drawn
from regrow.networks.layers import Conv, Dense, largest_singular_value
from regrow.networks.network import convolutional, dqn_zoo, mlp
from regrow.networks.residual import Residual
from regrow.registry import describe, make
from regrow.types import Discrete

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)


def relu(z):
    return np.maximum(z, 0)


IN_NUMPY = {
    "relu": relu,
    "linear": lambda z: z,
    "tanh": np.tanh,
    "crelu": lambda z: np.concatenate([relu(z), relu(-z)], axis=-1),
    "fourier": lambda z: np.concatenate([np.sin(z), np.cos(z)], axis=-1),
}


def normed(z):
    return (z - z.mean(axis=-1, keepdims=True)) / np.sqrt(z.var(axis=-1, keepdims=True) + 1e-5)


def affine(layer, x):
    return x @ np.asarray(layer.weight, np.float64) + np.asarray(layer.bias, np.float64)


def convolved(layer, x):
    """z of a convolution, window by window."""
    w, b = np.asarray(layer.weight, np.float64), np.asarray(layer.bias, np.float64)
    size = w.shape[0]
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(-3, -2))
    windows = windows[..., :: layer.stride, :: layer.stride, :, :, :]
    return np.einsum("...cij,ijcu->...u", windows, w) + b


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", IN_NUMPY)
def test_activations(activation, layer_norm):
    layer = Dense(5, 4, activation=activation, layer_norm=layer_norm, init="torch", key=KEY)
    x = RNG.normal(size=(2, 3, 5))
    z = affine(layer, x)
    expected = IN_NUMPY[activation](normed(z) if layer_norm else z)
    sent = layer(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(sent, expected, atol=1e-5)
    assert layer.width == expected.shape[-1] == layer.copies * layer.units
    both = np.abs(expected).reshape(2, 3, layer.copies, 4).sum(axis=2)
    np.testing.assert_allclose(layer.sizes(sent), both, atol=1e-5)


@pytest.mark.parametrize(("size", "stride", "channels"), [(3, 1, 2), (8, 4, 4), (4, 3, 9)])
def test_small_and_large_convolutions(size, stride, channels):
    """Both ways of computing them, with any batch axes, under vmap too."""
    layer = Conv(
        (13, 14, channels), 3, size=size, stride=stride, divisor=5.0, init="torch", key=KEY
    )
    x = RNG.normal(size=(2, 3, 13, 14, channels))
    expected, images = relu(convolved(layer, x / 5.0)), jnp.asarray(x, jnp.float32)
    np.testing.assert_allclose(layer(images), expected, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(layer)(images), expected, atol=1e-5)
    np.testing.assert_allclose(layer(images[0, 0]), expected[0, 0], atol=1e-5)
    assert layer.fresh(KEY).divisor == 5.0


# Initialisers


@pytest.mark.parametrize("shape", [(60, 40), (3, 3, 20, 50), (20, 64)])
def test_initialisers(shape):
    reads = int(np.prod(shape[:-1]))
    weight, bias = (np.asarray(x) for x in drawn("torch", KEY, shape))
    for x, rel in ((weight, 0.05), (bias, 0.2)):
        assert np.abs(x).max() <= reads**-0.5
        assert np.abs(x).max() == pytest.approx(reads**-0.5, rel=rel)
    weight, bias = (np.asarray(x) for x in drawn("he_normal", KEY, shape))
    assert weight.var() == pytest.approx(2 / reads, rel=0.1)
    assert not bias.any()
    for name, gain in (("orthogonal", 2.0), ("orthonormal", 1.0)):
        weight, bias = (np.asarray(x) for x in drawn(name, KEY, shape))
        matrix = weight.reshape(reads, -1)
        gram = matrix.T @ matrix if reads >= shape[-1] else matrix @ matrix.T
        np.testing.assert_allclose(gram, gain * np.eye(len(gram)), atol=1e-5)
        assert not bias.any()


def test_halves_of_units_are_drawn_by_themselves():
    """As one matrix with a gain of √2, the halves would be orthogonal to each other, too."""
    weight, bias = (np.asarray(x) for x in drawn("orthogonal_halves", KEY, (40, 12)))
    first, second = weight[:, :6], weight[:, 6:]
    np.testing.assert_allclose(first.T @ first, 2 * np.eye(6), atol=1e-5)
    np.testing.assert_allclose(second.T @ second, np.eye(6), atol=1e-5)
    assert np.abs(first.T @ second).max() > 0.1
    assert not bias.any()
    with pytest.raises(RegrowError, match="5 units have no two halves"):
        drawn("orthogonal_halves", KEY, (40, 5))


def test_a_fresh_layer_has_the_options_of_the_old_one():
    options = {"activation": "crelu", "layer_norm": True, "spectral_norm": True, "init": "torch"}
    block = Residual(4, kind="bro", activation="tanh", final=True, init="torch", key=KEY)
    dense, conv = Dense(6, 4, **options, key=KEY), Conv((5, 5, 2), 4, **options, key=KEY)
    shared = Dense(6, 4, activation="linear", shared_bias=True, init="torch", key=KEY)
    for layer in (dense, conv, block, shared):
        fresh = layer.fresh(jax.random.key(9))
        assert jax.tree.structure(fresh) == jax.tree.structure(layer)
        assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, layer)
        for old, new in zip(jax.tree.leaves(layer), jax.tree.leaves(fresh), strict=True):
            drawn_anew = bool((old != new).all())
            assert drawn_anew or bool(((old == 0) | (old == 1)).all())  # a norm at its start
    assert dense.fresh(KEY, below=10, units=3).weight.shape == (10, 3)
    assert block.fresh(KEY, units=8).units == 8


# Spectral normalisation


@pytest.mark.parametrize("shape", [(30, 12), (12, 30), (200, 64)])
def test_the_largest_singular_value_is_that_of_numpy(shape):
    """Never too large; close once a direction stands out."""
    noise = RNG.normal(size=shape)
    grown = noise + 4 * np.outer(RNG.normal(size=shape[0]), RNG.normal(size=shape[1]))
    for matrix, least in ((noise, 0.9), (grown, 1 - 1e-4)):
        found = float(largest_singular_value(jnp.asarray(matrix, jnp.float32)))
        share = found / np.linalg.svd(matrix, compute_uv=False)[0]
        assert least <= share <= 1 + 1e-5


def test_spectral_norm_divides_and_lets_the_gradient_through():
    """d/dW of <G, W/σ> is (G − <G, W/σ> u vᵀ)/σ, with kernels flattened to (reads, units)."""
    conv = Conv((5, 5, 2), 6, spectral_norm=True, activation="linear", key=KEY)
    direction = jnp.outer(jnp.sin(jnp.arange(18.0)), jnp.cos(jnp.arange(6.0)))
    weight = conv.weight + direction.reshape(conv.weight.shape)
    matrix = np.asarray(weight, np.float64).reshape(18, 6)
    left, values, right = np.linalg.svd(matrix)
    u, sigma, v = left[:, 0], values[0], right[0]

    def with_weight(weight):
        return eqx.tree_at(lambda one: one.weight, conv, weight)

    divided = jnp.asarray(matrix / sigma, jnp.float32).reshape(weight.shape)
    plain = Conv((5, 5, 2), 6, activation="linear", key=KEY)
    plain = eqx.tree_at(lambda one: one.weight, plain, divided)
    images = jnp.asarray(RNG.normal(size=(4, 5, 5, 2)), jnp.float32)
    np.testing.assert_allclose(with_weight(weight)(images), plain(images), atol=1e-4)

    def loss(layer):
        return jnp.sum(jnp.sin(layer(images)))

    found = np.asarray(jax.grad(lambda w: loss(with_weight(w)))(weight)).reshape(18, 6)
    g = np.asarray(jax.grad(loss)(plain).weight, np.float64).reshape(18, 6)
    expected = (g - np.sum(g * matrix / sigma) * np.outer(u, v)) / sigma
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


# Blocks


def test_simba_in_numpy():
    network = mlp(3, (8, 8, 8), 2, Architecture(block="simba"), key=KEY)
    x = RNG.normal(size=(5, 3))
    stem, *blocks, out = network.layers
    h = affine(stem, x)
    for block in blocks:
        assert block.inner.units == 32
        h = h + affine(block.outer, relu(affine(block.inner, normed(h))))
    expected = affine(out, normed(h))
    np.testing.assert_allclose(network(jnp.asarray(x)), expected, atol=1e-4)
    for layer in (stem, out):
        w = np.asarray(layer.weight)
        gram = w @ w.T if w.shape[0] < w.shape[1] else w.T @ w
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)


def test_bro_in_numpy():
    network = mlp(3, (8, 8, 8), 2, Architecture(block="bro"), key=KEY)
    x = RNG.normal(size=(5, 3))
    stem, *blocks, out = network.layers
    h = relu(normed(affine(stem, x)))
    for block in blocks:
        inside = relu(normed(affine(block.inner, h)))
        h = h + normed(affine(block.outer, inside))
    np.testing.assert_allclose(network(jnp.asarray(x)), affine(out, h), atol=1e-4)


# Networks


def test_the_network_of_dqn_zoo_in_numpy():
    """Frames of bytes; the last layers read the image with its channels fastest."""
    network = dqn_zoo((40, 36, 1), 3, key=KEY)
    frames = RNG.integers(0, 256, size=(2, 40, 36, 1), dtype=np.uint8)
    h = frames / 255.0
    for conv in network.encoder:
        h = relu(convolved(conv, h))
    dense, out = network.head
    expected = affine(out, relu(affine(dense, h.reshape(2, -1))))
    np.testing.assert_allclose(network(jnp.asarray(frames)), expected, atol=1e-5)
    after = network.inject(KEY, split=0)
    assert np.array_equal(network(jnp.asarray(frames)), after(jnp.asarray(frames)))
    assert out.bias.shape == (1,)
    for layer in network.layers:
        bound = (layer.weight.size // layer.units) ** -0.5
        assert float(jnp.abs(layer.weight).max()) == pytest.approx(bound, rel=0.01)
        assert 0 < float(jnp.abs(layer.bias).max()) <= bound


def test_the_network_of_dqn_zoo_has_the_published_size():
    """On 84×84×4, layer by layer, by hand."""
    network = jax.eval_shape(lambda: dqn_zoo((84, 84, 4), 6, key=KEY))
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(layer)) for layer in network.layers]
    assert sizes == [8224, 32832, 36928, 3136 * 512 + 512, 512 * 6 + 1]


@pytest.mark.parametrize("activation", ["relu", "crelu", "fourier"])
def test_a_doubling_activation_halves_units_and_keeps_widths(activation):
    network = convolutional((6, 6, 2), 8, 16, 3, Architecture(activation=activation), key=KEY)
    x = RNG.normal(size=(4, 6, 6, 2))
    conv, dense, out = network.layers
    assert [layer.width for layer in network.layers] == [8, 16, 3]
    h = IN_NUMPY[activation](convolved(conv, x)).reshape(4, -1)
    expected = affine(out, IN_NUMPY[activation](affine(dense, h)))
    np.testing.assert_allclose(network(jnp.asarray(x)), expected, atol=1e-5)


def test_spectral_norm_of_a_network_is_that_of_its_last_hidden_layer():
    network = mlp(3, (8, 8), 2, Architecture(spectral_norm=True), key=KEY)
    assert [layer.spectral_norm for layer in network.layers] == [False, True, False]


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("double_dqn", 3),
        ("double_dqn(depth=3, activation='tanh', initialiser='orthogonal')", 5),
        ("double_dqn(depth=2, activation='crelu', block='simba')", 5),
        ("double_dqn(block='bro', spectral_norm=True)", 4),
    ],
)
def test_an_agent_is_told_its_architecture(text, layers):
    agent = make("agents", text)
    assert describe(agent) == text
    state = jax.eval_shape(lambda: agent.init((10, 10, 4), np.dtype(bool), Discrete(3), KEY))
    assert len(state.q.network.layers) == layers
    obs = jax.ShapeDtypeStruct((10, 10, 4), bool)
    values = jax.eval_shape(lambda network, obs: network(obs), state.q.network, obs)
    assert values.shape == (3,)


def test_the_default_is_what_it_was():
    for shape, first in (((10, 10, 4), Conv), ((7,), Dense)):
        made = jax.eval_shape(
            lambda shape=shape: DoubleDQN().init(shape, np.dtype(bool), Discrete(3), KEY)
        )
        one, two, three = made.q.network.layers
        assert (type(one), type(two), type(three)) == (first, Dense, Dense)
        assert [x.activation for x in (one, two, three)] == ["relu", "relu", "linear"]
        assert two.units == 128


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: DoubleDQN(hidden=17, activation="crelu"), "hidden is 17; with activation 'crelu'"),
        (lambda: DoubleDQN(depth=0), "depth is 0; it must be at least 1"),
        (lambda: make("agents", "double_dqn(block='resnet')"), "must be one of: dense, simba, bro"),
        (lambda: make("agents", "double_dqn(initialiser='he')"), "he_normal, .*, torch, None"),
        (
            lambda: mlp(3, (8, 6), 2, Architecture(block="bro"), key=KEY),
            "must be the width of the stream",
        ),
        (lambda: Dense(3, 4, shared_bias=True, key=KEY), "only a linear layer"),
        (lambda: Residual(4, key=KEY).fresh(KEY, below=5), "reads 5 channels and sends 4"),
    ],
)
def test_what_cannot_be_is_refused(made, message):
    with pytest.raises(RegrowError, match=message):
        made()

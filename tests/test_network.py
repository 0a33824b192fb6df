"""The four properties of an injection, and the layers under it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import bit_equal, distance

from regrow.errors import RegrowError
from regrow.learners.learner import Learner
from regrow.learners.optimizer import Optimizer
from regrow.networks.architecture import Architecture
from regrow.networks.layers import Conv, Dense
from regrow.networks.network import Network, convolutional, mlp

KEY = jax.random.key(7)


def built(kind: str, layer_norm: bool, seed: int = 0) -> tuple[Network, jax.Array]:
    """(a network, a batch of 16 observations for it)."""
    key, inputs = jax.random.split(jax.random.key(seed))
    if kind == "mlp":
        network = mlp(5, (16, 12), 3, Architecture(layer_norm=layer_norm), key=key)
        return network, jax.random.normal(inputs, (16, 5))
    style = Architecture(**{"layer_norm": layer_norm, **STYLES.get(kind, {})})
    hidden = 16 if style.block == "dense" else (16, 16)
    network = convolutional((6, 7, 2), 4, hidden, 3, style, key=key)
    return network, jax.random.bernoulli(inputs, 0.3, (16, 6, 7, 2))


STYLES = {
    "crelu": {"activation": "crelu"},
    "fourier": {"activation": "fourier"},
    "simba": {"block": "simba"},
    "bro": {"block": "bro", "activation": "tanh"},
    "spectral": {"spectral_norm": True, "initialiser": "orthogonal"},
}


def injected(network: Network, times: int, *, trained: bool = True, **options) -> Network:
    """Injected `times` times, with weights that moved in between as training moves them."""
    for i in range(times):
        if trained:
            network = moved(network, i)
        network = network.inject(jax.random.fold_in(KEY, i), **options)
    return network


def moved(network: Network, seed: int, scale: float = 0.3) -> Network:
    """The network with noise on everything that learns."""
    live, frozen = eqx.partition(network, network.trainable())
    rng = np.random.default_rng(seed)
    noisy = jax.tree.map(
        lambda leaf: jnp.asarray(leaf + scale * rng.normal(size=leaf.shape), jnp.float32), live
    )
    return eqx.combine(noisy, frozen)


@eqx.filter_jit
def outputs(network: Network, x: jax.Array) -> jax.Array:
    return jax.vmap(network)(x)


networks = st.tuples(st.sampled_from(["mlp", "conv"]), st.booleans(), st.integers(0, 2**16))


# What is compiled for every example is tried on a few; on more under `make test-all`.
few, more = settings(max_examples=3), settings(max_examples=10)


@pytest.mark.slow
@given(networks, st.sampled_from([1, 2, 5]))
@more
def test_the_output_of_more_networks_stays_bit_for_bit(case, times):
    check_output(case, times)


@given(networks, st.sampled_from([1, 2, 5]))
@few
@pytest.mark.always
def test_the_output_stays_bit_for_bit(case, times):
    check_output(case, times)


def check_output(case, times):
    network, x = built(*case)
    network = moved(injected(network, times - 1), 99)
    after = network.inject(KEY)
    assert np.array_equal(outputs(network, x), outputs(after, x))
    eager = np.stack([np.asarray(network(row)) for row in x[:3]])
    assert np.array_equal(eager, np.stack([np.asarray(after(row)) for row in x[:3]]))


@given(networks, st.integers(0, 2), st.integers(0, 2))
def test_the_output_stays_when_splits_differ(case, first, second):
    """Pairs that move into an old head are summed in another order: equal up to rounding."""
    network, x = built(*case)
    network = moved(network.inject(KEY, split=first), 3)
    before = outputs(network, x)
    after = outputs(network.inject(jax.random.key(1), split=second), x)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-6 * float(jnp.abs(before).max()))


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_output_stays_for_values_in_the_thousands(kind):
    network, x = built(kind, layer_norm=False)
    network = network.with_parts([jax.tree.map(lambda t: 20 * t, p) for p in network.parts()])
    before, after = outputs(network, x), outputs(injected(network, 3, trained=False), x)
    assert float(jnp.abs(before).max()) > 1000
    assert np.array_equal(before, after)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_seeds_batched_by_vmap_stay_bit_equal(kind):
    x = built(kind, layer_norm=True)[1]
    made = [built(kind, layer_norm=True, seed=s)[0] for s in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)
    keys = jax.random.split(KEY, 3)
    after = eqx.filter_vmap(lambda network, key: network.inject(key))(stacked, keys)
    run = eqx.filter_jit(eqx.filter_vmap(outputs, in_axes=(eqx.if_array(0), None)))
    assert np.array_equal(run(stacked, x), run(after, x))


@given(networks, st.sampled_from([1, 2, 5]))
def test_the_number_of_trainable_parameters_stays(case, times):
    network, _ = built(*case)
    after = injected(network, times)
    assert learning(after) == learning(network)
    parts, parts_after = (jax.tree.structure(n.parts()) for n in (network, after))
    assert parts == parts_after


def learning(network: Network) -> int:
    live = eqx.filter(network, network.trainable())
    return sum(leaf.size for leaf in jax.tree.leaves(live))


def loss(network: Network, x: jax.Array) -> jax.Array:
    return jnp.mean((jax.vmap(network)(x) - 1.0) ** 2)


@pytest.mark.slow
@given(networks, st.sampled_from([1, 2, 5]))
@more
def test_the_gradient_of_more_encoders_is_the_same_just_after(case, times):
    check_gradient(case, times)


@given(networks, st.sampled_from([1, 2, 5]))
@few
def test_the_gradient_of_the_encoder_is_the_same_just_after(case, times):
    check_gradient(case, times)


def check_gradient(case, times):
    """It flows through the frozen heads. Splits at which there is an encoder."""
    network, x = built(*case)
    network = moved(injected(network, times - 1), 5)
    after = network.inject(KEY)
    gradient = eqx.filter_jit(eqx.filter_grad(loss))
    before, now = gradient(network, x).encoder, gradient(after, x).encoder
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(before))
    # The copy's share of the gradient is added and taken away again: equal up to rounding.
    assert distance(before, now) <= 1e-5 * max(scale, 1.0)


@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [
        ("adam", "conv"),
        ("rmsprop", "mlp"),
        pytest.param("adam", "mlp", marks=pytest.mark.slow),
        pytest.param("rmsprop", "conv", marks=pytest.mark.slow),
    ],
)
def test_frozen_parameters_never_move_and_live_ones_do(kind, optimizer):
    network, x = built(kind, layer_norm=True)
    learner = Learner.create(network, Optimizer(optimizer, 1e-2))
    learner = descended(learner, x, 3)  # so that there is momentum to be mistaken about
    after, origins = learner.network.inject_with_origins(KEY)
    learner = learner.with_network(after, after, origins=origins, fresh="keep")
    trained = descended(learner, x, 3)
    assert bit_equal(trained.network.residual, learner.network.residual)
    for old, new in zip(learner.network.parts(), trained.network.parts(), strict=True):
        assert distance(old, new) > 1e-4


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind == "bro" else ()) for kind in STYLES]
)
def test_every_kind_of_network_can_be_injected(kind):
    """The four properties, at the second injection, after training that moved everything."""
    network, x = built(kind, layer_norm=kind == "crelu")
    network = moved(network.inject(KEY), 5, scale=0.1)
    learner = Learner.create(network, Optimizer("adam", 1e-2))
    after, origins = network.inject_with_origins(jax.random.key(1))
    injected = learner.with_network(after, after, origins=origins, fresh="keep")

    @eqx.filter_jit
    def seen(learner: Learner):
        _, gradient = learner.gradient(lambda network: loss(network, x))
        return outputs(learner.network, x), gradient, learner.descend(gradient)

    (out, gradient, _), (out_after, gradient_after, trained) = seen(learner), seen(injected)
    assert np.array_equal(out, out_after)
    assert learning(after) == learning(network)
    assert jax.tree.structure(injected.statistics) == jax.tree.structure(learner.statistics)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient.encoder))
    assert scale > 0
    assert distance(gradient.encoder, gradient_after.encoder) <= 1e-5 * max(scale, 1.0)
    assert bit_equal(trained.network.residual, after.residual)
    for old, new in zip(after.parts(), trained.network.parts(), strict=True):
        assert distance(old, new) > 1e-4


@eqx.filter_jit
def descended(learner: Learner, x: jax.Array, updates: int) -> Learner:
    def step(learner: Learner, _: None) -> tuple[Learner, None]:
        _, gradient = learner.gradient(lambda network: loss(network, x))
        return learner.descend(gradient), None

    return jax.lax.scan(step, learner, None, updates)[0]


def test_the_formula_head_by_head():
    """out = h_θ(φ) + h_θ'₁(φ) − h_θ'₂(φ), in NumPy."""
    network = mlp(4, (6, 5), 2, key=KEY).inject(jax.random.key(1))
    network = moved(network, 1)  # now θ'₁ is no longer θ'₂
    x = np.linspace(-1, 1, 4, dtype=np.float32)

    def through(layers, h):
        for layer in layers:
            h = h @ np.asarray(layer.weight) + np.asarray(layer.bias)
            h = np.maximum(h, 0) if layer.activation == "relu" else h
        return h

    phi = through(network.encoder, x)
    (pair,) = network.residual
    expected = through(pair.old.layers, phi) + through(network.head, phi) - through(pair.copy, phi)
    np.testing.assert_allclose(network(jnp.asarray(x)), expected, rtol=1e-5)
    assert np.abs(through(network.head, phi) - through(pair.copy, phi)).max() > 1e-2


def test_without_the_third_term_the_output_changes_by_the_fresh_head():
    network, x = built("mlp", layer_norm=False)
    after = network.inject(KEY, subtract=False)
    fresh = Network(after.layers, split=after.split)
    np.testing.assert_allclose(
        outputs(after, x), outputs(network, x) + outputs(fresh, x), rtol=1e-5, atol=1e-6
    )


def test_an_unfrozen_head_goes_on_learning():
    network, x = built("mlp", layer_norm=False)
    learner = descended(Learner.create(network, Optimizer("adam", 1e-2)), x, 3)
    after, origins = learner.network.inject_with_origins(KEY, freeze=False)
    learner = learner.with_network(after, after, origins=origins, fresh="keep")
    trained = descended(learner, x, 3)
    (before,), (now,) = learner.network.residual, trained.network.residual
    assert distance(before.old, now.old) > 1e-4
    assert bit_equal(before.copy, now.copy)
    # The old head kept its step count of 3 and is now at 6, as every other part is.
    assert [int(state[0].count) for state in trained.statistics] == [6] * 5


def test_an_injection_and_a_reset_say_where_every_part_comes_from():
    """As identity would: of the objects that are handed on none is copied here."""
    before, _ = built("mlp", layer_norm=False)
    pasts = [(), ((1, True),), ((2, False),), ((0, False), (2, False)), ((2, False), (1, True))]
    for past in pasts:
        network = before
        for i, (split, freeze) in enumerate(past):
            network = network.inject(jax.random.fold_in(KEY, i), split=split, freeze=freeze)
        identities = [id(part) for part in network.parts()]
        rebuilt = [network.reset_with_origins(start, KEY) for start in (0, 1, 2)]
        for split in (0, 1, 2):
            for freeze in (True, False):
                rebuilt.append(network.inject_with_origins(KEY, split=split, freeze=freeze))
        for after, origins in rebuilt:
            expected = [
                identities.index(id(part)) if id(part) in identities else None
                for part in after.parts()
            ]
            assert list(origins) == expected


@pytest.mark.parametrize("split", [-1, 3, 99])
def test_a_split_outside_the_network_is_named(split):
    with pytest.raises(RegrowError, match=f"split {split} is outside the network: its 3 layers"):
        built("mlp", layer_norm=False)[0].inject(KEY, split=split)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_convolution_is_that_of_xla(stride):
    key, inputs = jax.random.split(KEY)
    layer = Conv((10, 9, 4), 8, stride=stride, activation="linear", key=key)
    x = jax.random.normal(inputs, (10, 9, 4))
    expected = jax.lax.conv_general_dilated(
        x[None],
        layer.weight,
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0]
    np.testing.assert_allclose(layer(x), expected + layer.bias[None, None], rtol=1e-4, atol=1e-5)


def test_layers_are_drawn_by_their_own_initialiser():
    """LeCun uniform: bound √(3 / fan_in), variance 1 / fan_in, biases zero; also anew."""
    dense = Dense(300, 200, key=KEY).fresh(jax.random.key(1))
    conv = Conv((9, 9, 8), 64, stride=2, key=KEY).fresh(jax.random.key(1))
    for weights, fan_in in ((dense.weight, 300), (conv.weight, 72)):
        assert float(jnp.abs(weights).max()) <= np.sqrt(3 / fan_in)
        assert float(jnp.var(weights)) == pytest.approx(1 / fan_in, rel=0.05)
    assert not dense.bias.any()
    assert conv.image == (4, 4)
    assert conv(jnp.zeros((9, 9, 8))).shape == (4, 4, 64)


def test_an_image_smaller_than_the_kernel_is_refused():
    with pytest.raises(RegrowError, match="an image of 2×9 is smaller than the kernel of 3×3"):
        Conv((2, 9, 1), 4, key=KEY)


def test_fresh_and_reset_share_nothing_with_the_past():
    network, x = built("conv", layer_norm=True)
    network = injected(network, 2)
    fresh, reset = network.fresh(KEY), network.reset(network.split, KEY)
    assert fresh.residual == reset.residual == ()
    assert bit_equal(reset.encoder, network.encoder)
    assert distance(reset.head, network.head) > 0.01
    assert distance(fresh.encoder, network.encoder) > 0.01
    assert not np.allclose(outputs(reset, x), outputs(network, x))

"""Adam with one count is Optax's; with ages, each element steps as an Adam of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from trees import bit_equal

from regrow.learners.adam import ElementwiseAdamState, adam, aged, renewed
from regrow.networks.network import mlp

KEY = jax.random.key(5)


def test_adam_with_one_count_is_that_of_optax():
    part = mlp(3, (4,), 2, key=KEY).layers[0]
    ours, theirs = adam(0.01, b1=0.9, b2=0.99, eps=1e-5), optax.adam(0.01, 0.9, 0.99, 1e-5)
    a, b = ours.init(part), theirs.init(part)
    for i in range(5):
        gradient = jax.tree.map(lambda x, i=i: jnp.cos(x * 10 + i), part)
        step, a = ours.update(gradient, a, part)
        expected, b = theirs.update(gradient, b, part)
        assert bit_equal(step, expected)
    assert bit_equal(a, b)


def test_each_element_steps_as_an_adam_of_its_own_age():
    """One element renewed after 40 steps: the others go on, it steps as if it had just begun."""
    part = {"w": jnp.zeros(3)}
    transform = adam(0.1, b1=0.9, b2=0.999, eps=1e-8)
    state = transform.init(part)
    rng = np.random.default_rng(0)
    history = rng.normal(size=(50, 3)) + 1.0

    def reference(gradients):
        m, v = 0.0, 0.0
        for t, g in enumerate(gradients, 1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            step = -0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        return step

    for i, row in enumerate(history):
        if i == 40:
            new = {"w": jnp.array([False, True, False])}
            state = renewed(state, transform.init(part), new, part)
        step, state = transform.update({"w": jnp.asarray(row, jnp.float32)}, state, part)
        begins = [0, 40 if i >= 40 else 0, 0]
        expected = [reference(history[b : i + 1, k]) for k, b in enumerate(begins)]
        np.testing.assert_allclose(step["w"], expected, rtol=2e-4)


def test_ages_are_a_state_of_their_own_with_leaves_where_they_were():
    """Checkpoints written when the ages stood in Optax's state name their leaves alike."""
    part = mlp(3, (4,), 2, key=KEY).layers[0]
    plain = adam(0.1, b1=0.9, b2=0.999, eps=1e-8).init(part)
    state = aged(plain, part)
    assert isinstance(plain[0], optax.ScaleByAdamState)
    assert isinstance(state[0], ElementwiseAdamState)
    assert bit_equal(aged(state, part), state)
    earlier = (optax.ScaleByAdamState(*state[0]), *state[1:])
    names, values = zip(*named(state), strict=True)
    assert names == tuple(name for name, _ in named(earlier))
    assert names[:2] == ("0.count.weight", "0.count.bias")
    assert bit_equal(values, tuple(value for _, value in named(earlier)))


def named(state):
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]

"""`product` is x @ w, its derivatives included."""

import jax
import jax.numpy as jnp
import pytest

from regrow.networks.matmul import product

# (batch axes, inputs, units); both ways of each gradient are among them
SHAPES = [((), 5, 3), ((7,), 5, 3), ((32,), 1024, 128), ((4, 8, 8), 36, 16), ((2, 3), 40, 1)]


def close(a, b):
    def check(x, y):
        assert x.shape == y.shape
        assert float(jnp.max(jnp.abs(x - y))) <= 1e-6 * max(1.0, float(jnp.max(jnp.abs(y))))

    jax.tree.map(check, a, b)


def drawn(batch, inputs, units):
    kx, kw = jax.random.split(jax.random.key(0))
    return jax.random.normal(kx, (*batch, inputs)), jax.random.normal(kw, (inputs, units))


def loss(multiply):
    return lambda x, w: jnp.mean(jnp.tanh(multiply(x, w) / 8) ** 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradients_are_those_of_the_plain_product(shape):
    x, w = drawn(*shape)
    close(product(x, w), x @ w)
    close(
        jax.jit(jax.grad(loss(product), (0, 1)))(x, w),
        jax.jit(jax.grad(loss(jnp.matmul), (0, 1)))(x, w),
    )


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_vmapped_gradients(shape):
    x, w = drawn(*shape)
    ours, plain = (
        jax.jit(jax.vmap(jax.grad(loss(f), (0, 1)), (0, None)))(x, w) for f in (product, jnp.matmul)
    )
    close(ours, plain)


def test_gradients_vmapped_twice():
    x, w = drawn((4, 6), 9, 3)
    ws = jnp.stack([w, 2 * w])
    ours, plain = (
        jax.vmap(jax.vmap(jax.vmap(jax.grad(loss(f), 1), (0, None)), (0, None)), (None, 0))(x, ws)
        for f in (product, jnp.matmul)
    )
    close(ours, plain)


def test_forward_over_reverse_and_shapes():
    x, w = drawn((7,), 5, 3)
    ours, plain = (
        jax.jvp(jax.grad(loss(f), 1), (x, w), (jnp.ones_like(x), jnp.ones_like(w)))
        for f in (product, jnp.matmul)
    )
    close(ours, plain)
    shapes = jax.eval_shape(jax.grad(loss(product), (0, 1)), x, w)
    assert [s.shape for s in shapes] == [x.shape, w.shape]

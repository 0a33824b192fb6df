"""A matrix product whose gradient is as fast as the product itself."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def product(x: Float[Array, "*batch inputs"], w: Float[Array, "inputs units"]) -> Array:
    """x·w, with the two products of its gradient in the order that is fast on XLA's CPU backend.

    Takes any number of batch axes; pass the whole batch rather than a `vmap` of it. Like every
    `custom_vjp` it has no forward mode; forward over reverse (`jvp` of `grad`) works.
    """
    return x @ w


def _product_forward(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ w, (x, w)


def _product_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    # XLA's fast path takes row-major a·b only. A transposed operand takes up to twice the time, and
    # a transposition that XLA can see is folded into the product. `hold` hides it. Measured for
    # 1024 inputs, 128 units, 32 rows: dx 200 → 85 µs, dw 142 → 91 µs (of the convolution 103 → 54
    # µs).
    x, w = saved
    rows, columns = x.reshape(-1, w.shape[0]), g.reshape(-1, w.shape[1])
    hold = jax.lax.optimization_barrier
    # The smaller operand is transposed; with as many rows as units it is w, by the product itself.
    few = columns.size + rows.size < w.size
    dx = (hold(w @ hold(columns.T)).T if few else columns @ w.T).reshape(x.shape)
    if rows.size > columns.size + w.size:  # the sizes that each way has to transpose
        return dx, hold(hold(columns.T) @ rows).T
    # On its own, the transposition would be fused with the activation before it and read memory in
    # strides of 4 kB (65 µs); a concatenation is never fused (4 + 10 µs).
    wide = hold(jnp.concatenate([rows, rows[:, :16]], axis=-1))
    return dx, hold(wide[:, : w.shape[0]].T) @ columns


product.defvjp(_product_forward, _product_backward)

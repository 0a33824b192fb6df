"""Adam (Kingma & Ba 2015, arXiv 1412.6980), optionally with a step count per element.

    m ← b₁m + (1 − b₁)g,   v ← b₂v + (1 − b₂)g²,   step = lr · m̂ / (√v̂ + ε),
    m̂ = m / (1 − b₁ᵗ),     v̂ = v / (1 − b₂ᵗ),      t the element's age

The age of an element is its number of steps. With one count for all elements this is Optax's Adam,
bit for bit. If single units are re-initialised, one count cannot be right for all: fresh moments
with an old count make steps 3.2 to 6.5 times too large (as in ReDo's published code). `aged` turns
Optax's state into an `ElementwiseAdamState`. `renewed` sets its ages to zero where the parameters
are new.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree


class ElementwiseAdamState(NamedTuple):
    """Adam's state with an age for every element; each field is a tree like the parameters.

    The ages are in `count`, named and placed as in `optax.ScaleByAdamState`, because checkpoints
    identify leaves by their path.
    """

    count: optax.Updates  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: optax.Updates
    nu: optax.Updates


def adam(learning_rate: float, *, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam whose state is Optax's or, after `aged`, an `ElementwiseAdamState`."""
    plain = optax.scale_by_adam(b1, b2, eps)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        if not isinstance(state, ElementwiseAdamState):
            return plain.update(updates, state, params)
        ages = jax.tree.map(lambda age: age + 1, state.count)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, updates)

        def step(m: jax.Array, v: jax.Array, age: jax.Array) -> jax.Array:
            # 1 − bᵗ; a power for every element takes several times as long.
            held1, held2 = (-jnp.expm1(age * math.log(b)) if b else 1.0 for b in (b1, b2))
            return (m / held1) / (jnp.sqrt(v / held2) + eps)

        return jax.tree.map(step, mu, nu, ages), ElementwiseAdamState(ages, mu, nu)

    scaled = optax.GradientTransformation(plain.init, update)
    return optax.chain(scaled, optax.scale_by_learning_rate(learning_rate))


def aged(state: PyTree, part: PyTree) -> PyTree:
    """The optimizer state with every Adam state turned into one with an age per element."""

    def with_ages(node: PyTree) -> PyTree:
        if not isinstance(node, optax.ScaleByAdamState):
            return node
        ages = jax.tree.map(lambda leaf: jnp.full(leaf.shape, node.count), part)
        return ElementwiseAdamState(ages, node.mu, node.nu)

    return jax.tree.map(with_ages, state, is_leaf=is_adam_state)


def is_adam_state(node: PyTree) -> bool:
    """Whether a node of an optimizer state is an Adam state of either kind."""
    return isinstance(node, optax.ScaleByAdamState | ElementwiseAdamState)


def over_part(change: Callable[..., PyTree], states: tuple[PyTree, ...], part: PyTree) -> PyTree:
    """Applies `change(*trees)` to every subtree like `part`; the rest is from the first state.

    Moments, ages and anchors all have the tree structure of their parameters.
    """
    same = jax.tree.structure(part)

    def is_like(node: PyTree) -> bool:
        return jax.tree.structure(node) == same

    return jax.tree.map(
        lambda *nodes: change(*nodes) if is_like(nodes[0]) else nodes[0], *states, is_leaf=is_like
    )


def renewed(state: PyTree, fresh: PyTree, new: PyTree, part: PyTree) -> PyTree:
    """`state` with the elements that are `new` taken from the `fresh` state, ages included.

    `new`: a tree like `part` of booleans, one per element.
    """

    def choose(old: PyTree, start: PyTree) -> PyTree:
        return jax.tree.map(lambda o, s, n: jnp.where(n, s, o), old, start, new)

    return over_part(choose, (aged(state, part), aged(fresh, part)), part)

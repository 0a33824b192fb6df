"""Centred RMSProp: Optax's, and finite where rounding puts the variance below 0."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import bit_equal

from regrow.learners.rmsprop import centred_rmsprop

RATE, DECAY, EPS = 2.5e-4, 0.95, 0.01


@pytest.mark.parametrize("in_root", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.95])
def test_it_is_that_of_optax(in_root, momentum):
    ours = centred_rmsprop(RATE, decay=DECAY, eps=EPS, eps_in_root=in_root, momentum=momentum)
    theirs = optax.rmsprop(
        RATE,
        decay=DECAY,
        eps=EPS,
        eps_in_sqrt=in_root,
        centered=True,
        momentum=momentum or None,
    )
    part = {"w": jnp.zeros((5, 3)), "b": jnp.zeros(3)}
    a, b = ours.init(part), theirs.init(part)
    assert jax.tree.structure(a) == jax.tree.structure(b)  # checkpoints from before fit
    rng = np.random.default_rng(0)
    for _ in range(20):
        gradient = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), part)
        step, a = ours.update(gradient, a, part)
        expected, b = theirs.update(gradient, b, part)
        assert bit_equal(step, expected)
    assert bit_equal(a, b)


def test_a_gradient_that_stays_as_it_is_makes_nothing_nan():
    """m → g and v → g², which float32 rounds to either side; the step goes to lr · g / ε."""
    gradient = jnp.asarray(np.random.default_rng(0).normal(size=20_000), jnp.float32)
    ours = centred_rmsprop(RATE, decay=DECAY, eps=EPS, eps_in_root=False, momentum=0.0)
    theirs = optax.rmsprop(RATE, decay=DECAY, eps=EPS, eps_in_sqrt=False, centered=True)

    def last(transform: optax.GradientTransformation) -> np.ndarray:
        def step(state, _):
            update, state = transform.update(gradient, state)
            return state, update

        return np.asarray(jax.lax.scan(step, transform.init(gradient), None, length=600)[1][-1])

    assert np.isnan(last(theirs)).any()  # or the max is needed no longer
    # Of v, which is g², rounding leaves less than 1e-5; the root of that stands beside ε.
    steps, limit = last(ours), -RATE * np.asarray(gradient, np.float64) / EPS
    least = np.abs(limit) * EPS / (EPS + np.sqrt(1e-5) * np.abs(gradient))
    assert (np.sign(steps) == np.sign(limit)).all()
    assert (np.abs(steps) <= np.abs(limit) * (1 + 1e-5)).all()
    assert (np.abs(steps) >= least).all()


def test_a_momentum_makes_a_steady_step_20_times_as_large():
    """1 / (1 − 0.95): what young_tian_2019 had and its source has not."""
    gradient = jnp.array([0.5, -0.25])
    made = [
        centred_rmsprop(RATE, decay=DECAY, eps=EPS, eps_in_root=False, momentum=momentum)
        for momentum in (0.0, 0.95)
    ]
    states = [transform.init(gradient) for transform in made]
    for _ in range(400):
        results = [t.update(gradient, s) for t, s in zip(made, states, strict=True)]
        states = [state for _, state in results]
    plain, carried = (np.asarray(step) for step, _ in results)
    np.testing.assert_allclose(carried / plain, 20.0, rtol=0.05)

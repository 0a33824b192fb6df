"""Weights that shrink: Shrink & Perturb and DASH in NumPy."""

import re

import jax
import numpy as np
import pytest
from images import AGENT, KEY, Fixed
from trees import bit_equal

from regrow.errors import RegrowError
from regrow.interventions import Dash, ShrinkPerturb
from regrow.types import Discrete


@pytest.fixture(scope="module")
def state():
    return AGENT.init((6, 6, 3), np.dtype(np.float32), Discrete(3), KEY)


def test_shrink_and_perturb_in_numpy(state):
    fresh = ShrinkPerturb(0.7, 0.2, target="copy")
    own, _ = jax.random.split(jax.random.fold_in(KEY, 0))
    after = fresh(state, agent=AGENT, experience=Fixed(), key=KEY).q
    drawn = state.q.network.fresh(own)
    for a, b, c in zip(
        *(jax.tree.leaves(n) for n in (state.q.network, drawn, after.network)), strict=True
    ):
        np.testing.assert_allclose(c, 0.7 * np.asarray(a) + 0.2 * np.asarray(b), atol=1e-6)
    assert bit_equal(after.network, after.target)

    noisy = ShrinkPerturb(0.5, 0.3, noise="normal", where="head")
    after = noisy(state, agent=AGENT, experience=Fixed(), key=KEY).q.network
    assert bit_equal(after.layers[0], state.q.network.layers[0])
    noise = np.asarray(after.layers[1].weight) - 0.5 * np.asarray(state.q.network.layers[1].weight)
    assert noise.std() == pytest.approx(0.3, rel=0.1)
    assert abs(noise.mean()) < 0.05


def test_dash_in_numpy(state):
    dash = Dash(floor=0.3, smoothing=0.25, batches=3)
    after = dash(state, agent=AGENT, experience=Fixed(), key=KEY).q
    batch = Fixed().sample(KEY, AGENT.batch_size)
    gradient = AGENT.gradients(state, batch, KEY)["q"]
    # The same gradient three times: e = −(1 − 0.75³)·g, whose direction is −g.
    for old, g, new in zip(
        state.q.network.layers, gradient.layers, after.network.layers, strict=True
    ):
        w, g = np.asarray(old.weight, float), -np.asarray(g.weight, float)
        units = w.shape[-1]
        for unit in range(units):
            slices = [(..., i, unit) for i in range(w.shape[2])] if w.ndim == 4 else [(..., unit)]
            for at in slices:
                a, b = g[at].ravel(), w[at].ravel()
                cosine = a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-16)
                scale = np.clip(cosine, 0.3, 1.0)
                np.testing.assert_allclose(np.asarray(new.weight)[at].ravel(), scale * b, atol=1e-5)
    assert bit_equal(after.network, after.target)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ShrinkPerturb(1.5), "shrink is 1.5; it must be between 0 and 1"),
        (lambda: ShrinkPerturb(perturb=-1.0), "perturb is -1.0; it must be 0 or more"),
        (lambda: Dash(floor=2.0), "floor is 2.0; it must be between 0 and 1"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(RegrowError, match=re.escape(message)):
        make()

"""Optimizer states per part, clipping over all of them, and targets."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import bit_equal, distance

from regrow.errors import RegrowError
from regrow.learners.learner import Learner, learners, map_learners
from regrow.learners.optimizer import Optimizer
from regrow.networks.network import mlp
from regrow.registry import make
from regrow.types import Discrete

KEY = jax.random.key(3)


def learner(optimizer: Optimizer | None = None) -> Learner:
    return Learner.create(mlp(4, (8, 8), 2, key=KEY), optimizer or Optimizer())


def ones_like(learner: Learner, scale: float = 1.0):
    live = eqx.filter(learner.network, learner.network.trainable())
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, scale), live)


def counts(learner: Learner) -> list[int]:
    return [int(state[0].count) for state in learner.statistics]


def test_adam_by_parts_is_adam_on_the_whole():
    made = learner(Optimizer("adam", 1e-2))
    whole = optax.adam(1e-2, eps=1e-5)
    live = eqx.filter(made.network, made.network.trainable())
    state = whole.init(live)
    for i in range(4):
        gradient = jax.tree.map(lambda x, i=i: jnp.sin(x * 10 + i), live)
        updates, state = whole.update(gradient, state, live)
        live = optax.apply_updates(live, updates)
        made = made.descend(gradient)
    assert bit_equal(eqx.filter(made.network, made.network.trainable()), live)


def test_adam_in_numpy():
    made = learner(Optimizer("adam", 1e-2, epsilon=1e-5))
    theta = np.asarray(made.network.layers[0].weight, np.float64)
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for t, g in enumerate((1.0, -2.0, 0.5), start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        theta -= 1e-2 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-5)
        made = made.descend(ones_like(made, g))
    np.testing.assert_allclose(made.network.layers[0].weight, theta, rtol=1e-5)


@pytest.mark.parametrize(("in_root", "momentum"), [(False, 0.0), (True, 0.0), (False, 0.95)])
def test_centred_rmsprop_in_numpy(in_root, momentum):
    """Epsilon outside the root, as in PyTorch, which MinAtar's DQN uses, or within it."""
    options = {"epsilon": 0.01, "decay": 0.95, "epsilon_in_root": in_root, "momentum": momentum}
    made = learner(Optimizer("rmsprop", 1e-2, **options))
    theta = np.asarray(made.network.layers[0].weight, np.float64)
    mean, square, carried = 0.0, 0.0, 0.0
    for g in (1.0, -2.0, 0.5):
        mean, square = 0.95 * mean + 0.05 * g, 0.95 * square + 0.05 * g * g
        variance = square - mean**2
        step = g / (np.sqrt(variance + 0.01) if in_root else np.sqrt(variance) + 0.01)
        carried = momentum * carried + step
        theta -= 1e-2 * carried
        made = made.descend(ones_like(made, g))
    np.testing.assert_allclose(made.network.layers[0].weight, theta, rtol=1e-5)


def test_what_double_dqn_steps_by_with_the_settings_of_dqn_zoo():
    agent = make("agents", "double_dqn:atari_paper")
    made = agent.init((36, 36, 1), np.dtype(np.uint8), Discrete(3), KEY).q
    before = [np.asarray(layer.weight, np.float64) for layer in made.network.layers]
    mean, square, moved = 0.0, 0.0, 0.0
    for g in (0.01, -0.02, 0.005):  # of a size that epsilon matters for
        mean, square = 0.95 * mean + 0.05 * g, 0.95 * square + 0.05 * g * g
        moved -= 0.00025 * g / np.sqrt(square - mean**2 + 0.01 / 32**2)
        made = made.descend(ones_like(made, g))
    for layer, first in zip(made.network.layers, before, strict=True):
        np.testing.assert_allclose(layer.weight, first + moved, rtol=0, atol=1e-7)


def test_a_reset_takes_the_step_count_with_the_moments():
    """With the count left behind, Adam's step would be 3.16 times too long at once (0.1/√0.001)."""
    made = learner(Optimizer("adam", 1e-3))
    for _ in range(500):
        made = made.descend(ones_like(made))
    reset = made.with_fresh_statistics(1)
    assert counts(reset) == [500, 0, 0]
    after = reset.descend(ones_like(reset))
    for before, now in zip(reset.network.layers, after.network.layers, strict=True):
        assert distance(before, now) == pytest.approx(1e-3, rel=0.02)


@pytest.mark.parametrize("fresh", ["keep", "reset"])
def test_parts_that_are_equal_copies_keep_their_statistics(fresh):
    """What kept parts are is said, not guessed: new objects with the same numbers are the same."""
    made = learner(Optimizer("adam", 1e-2))
    for _ in range(3):
        made = made.descend(ones_like(made))
    network, origins = made.network.inject_with_origins(KEY, freeze=False)
    copied = jax.tree.map(lambda leaf: leaf + 0, network)
    assert not {id(part) for part in copied.parts()} & {id(part) for part in network.parts()}
    after = made.with_network(copied, copied, origins=origins, fresh=fresh)
    drawn = 3 if fresh == "keep" else 0
    assert counts(after) == [3, drawn, drawn, 3, 3]
    same = made.with_network(network, network, origins=origins, fresh=fresh)
    assert bit_equal(after.statistics, same.statistics)


def test_only_layers_that_are_said_to_have_moved_lose_their_moments():
    made = learner(Optimizer("adam", 1e-2))
    made = made.descend(ones_like(made))
    copied = jax.tree.map(lambda leaf: leaf + 0, made.network)
    after = made.with_moved_layers(copied, copied, moved=[1], moments="reset")
    assert counts(after) == [1, 0, 1]
    kept = made.with_moved_layers(copied, copied, moved=[1], moments="keep")
    assert bit_equal(kept.statistics, made.statistics)


def test_clipping_is_by_the_norm_over_all_parts():
    made = learner(Optimizer("adam", 1e-3, max_gradient_norm=0.5))
    gradient = ones_like(made, 3.0)
    clipped = made._clipped(gradient)
    assert float(optax.tree.norm(clipped)) == pytest.approx(0.5, rel=1e-5)
    small = jax.tree.map(lambda g: g * 1e-4, gradient)
    assert bit_equal(made._clipped(small), small)


def test_a_target_follows_by_copy_or_by_average_in_all_parts():
    made = learner()
    network, origins = made.network.inject_with_origins(KEY)
    made = made.with_network(network, network, origins=origins, fresh="keep")
    made = made.descend(ones_like_after(network))
    assert distance(made.network, made.target) > 0
    assert bit_equal(made.follow().target, made.network)
    assert bit_equal(made.sync().target, made.network)
    assert bit_equal(made.sync(jnp.array(False)).target, made.target)
    half = made.follow(0.5)
    expected = jax.tree.map(lambda a, b: (a + b) / 2, made.network, made.target)
    assert distance(half.target, expected) < 1e-6


def ones_like_after(network):
    return jax.tree.map(jnp.ones_like, eqx.filter(network, network.trainable()))


def test_learners_are_found_and_changed_wherever_they_are():
    state = {"actor": learner(), "critics": [learner()], "temperature": jnp.array(1.0)}
    assert list(learners(state)) == ["actor", "critics.0"]
    seen = []
    changed = map_learners(lambda one, key: seen.append(key) or one, state, KEY)
    assert bit_equal(changed, state)
    assert len({tuple(jax.random.key_data(key).tolist()) for key in seen}) == 2


class FirstBiasToOne:
    """A hook that changes a single number at every update."""

    renews_units = False

    def init(self, learner):
        return ()

    def after_update(self, learner, memory, inputs, key):
        network = eqx.tree_at(
            lambda one: one.layers[0].bias, learner.network, replace_fn=lambda b: b.at[0].set(1.0)
        )
        return learner.moved_to(network), memory


def test_what_a_hook_changes_is_no_update_and_the_rest_is():
    first = mlp(4, (8, 8), 2, key=KEY)
    made = Learner.create(first, Optimizer(), keep_previous=True).with_hook(FirstBiasToOne())
    after = made.descend(ones_like(made)).after_hooks(jnp.ones((2, 4)), KEY)
    before, now = after.previous_network, after.network
    assert before.layers[0].bias[0] == now.layers[0].bias[0] == 1
    assert bit_equal(before.layers[0].bias[1:], first.layers[0].bias[1:])
    assert bit_equal(before.layers[1:], first.layers[1:])
    assert distance(before.layers[1:], now.layers[1:]) > 0


def test_a_learning_rate_below_zero_is_refused():
    with pytest.raises(RegrowError, match="learning_rate is -1"):
        Optimizer(learning_rate=-1.0)

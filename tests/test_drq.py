"""DrQ against NumPy in float64: losses, gradients, shifts, order; resets that keep the encoder."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refused_in_a_line
from small import PIXELS
from soft import arrays, dense, drawn, plain, slopes
from trees import bit_equal, distance

from regrow.agents import DrQ
from regrow.agents.drq import VALUED, shifted
from regrow.diagnosis.plan import arms_at_every_split
from regrow.environments import Reach, Shades
from regrow.interventions import Deaden, Inject, Redo, Reset, ResetOptimizer, ShrinkPerturb, Widen
from regrow.learners.learner import Learner, learners
from regrow.probes import DeadOverlap, PolicyChurn
from regrow.probes.base import PartProbe
from regrow.registry import describe, make, members
from regrow.sources.native import Native
from regrow.training.run import Run, abstract_state, random_policy
from regrow.types import Continuous, Discrete, Transition

KEY = jax.random.key(5)
BYTES, IMAGE, SIZE, COUNT = np.dtype(np.uint8), (7, 8, 2), 2, 8
AGENT = DrQ(
    channels=3,
    convolutions=2,
    hidden=6,
    latent=5,
    shift=1,
    batch_size=COUNT,
    discount=0.9,
    initial_temperature=0.3,
)
EVERY = [*VALUED, "actor"]
HEADS = [*VALUED[1:], "actor"]


@functools.cache
def started():
    """A state whose targets are not its networks."""
    init = jax.jit(lambda key: AGENT.init(IMAGE, BYTES, Continuous(SIZE), key))
    state, other = (init(key) for key in jax.random.split(KEY))
    return eqx.tree_at(
        lambda s: [getattr(s, name).target for name in VALUED],
        state,
        [getattr(other, name).network for name in VALUED],
    )


def batch_of(count: int = COUNT) -> Transition:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, count, *IMAGE))
    return Transition(
        obs_tm1=jnp.asarray(images[0], jnp.uint8),
        action=jnp.asarray(rng.uniform(-1, 1, (count, SIZE)), jnp.float32),
        reward=jnp.asarray(rng.normal(size=count) * 3, jnp.float32),
        discount=jnp.asarray(rng.integers(0, 2, count), jnp.float32),
        obs_t=jnp.asarray(images[1], jnp.uint8),
        truncated=jnp.zeros(count, bool),
    )


# DrQ once more, in NumPy and float64; a network is a list of arrays, networks are such by name.


def encoded(weights: list[np.ndarray], images: np.ndarray) -> np.ndarray:
    """3×3 kernels at every second pixel; zeros stand where an image does not reach."""
    x = images / 255
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        rows, columns = (-(-side // 2) for side in x.shape[1:3])
        # The last kernel sticks out by one pixel of an even side; on an odd one each end does.
        x = np.pad(x, [(0, 0), (x.shape[1] % 2, 1), (x.shape[2] % 2, 1), (0, 0)])
        out = np.zeros((len(x), rows, columns, kernel.shape[-1]))
        for i in range(rows):
            for j in range(columns):
                window = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
                out[:, i, j] = np.tensordot(window, kernel, 3) + bias
        x = np.maximum(out, 0)
    return x


def projected(weights: list[np.ndarray], features: np.ndarray) -> np.ndarray:
    weight, bias, scale, offset = weights
    z = features.reshape(len(features), -1) @ weight + bias
    z = (z - z.mean(axis=1, keepdims=True)) / np.sqrt(z.var(axis=1, keepdims=True) + 1e-5)
    return np.tanh(z * scale + offset)


def acted(actor: list[np.ndarray], features: np.ndarray, key) -> tuple[np.ndarray, np.ndarray]:
    return drawn(dense(actor[4:], projected(actor[:4], features)), key)


def values(networks, features: np.ndarray, action: np.ndarray) -> list[np.ndarray]:
    pairs = np.hstack([projected(networks["projection"], features), action])
    return [dense(networks[name], pairs)[:, 0] for name in ("critic", "critic_2")]


def goal(state, batch: Transition, key) -> np.ndarray:
    features = encoded(arrays(state.encoder.network), batch.obs_t)
    action, log_prob = acted(arrays(state.actor.network), features, key)
    targets = {name: arrays(getattr(state, name).target) for name in VALUED}
    value = np.min(values(targets, encoded(targets["encoder"], batch.obs_t), action), axis=0)
    return batch.reward + 0.9 * batch.discount * (value - 0.3 * log_prob)


def loss_of(name: str, state, batch: Transition, following, acting):
    """The loss of the critics, or that of the actor, as a function of one network's arrays."""
    networks = {each: arrays(getattr(state, each).network) for each in EVERY}
    batch = plain(batch)
    y = goal(state, batch, following)

    def of_critics(network: list[np.ndarray]) -> float:
        now = {**networks, name: network}
        found = values(now, encoded(now["encoder"], batch.obs_tm1), batch.action)
        return float(sum(np.mean((value - y) ** 2) for value in found))

    def of_actor(network: list[np.ndarray]) -> float:
        features = encoded(networks["encoder"], batch.obs_tm1)
        action, log_prob = acted(network, features, acting)
        return float(np.mean(0.3 * log_prob - np.min(values(networks, features, action), axis=0)))

    return of_actor if name == "actor" else of_critics


def test_the_goal_and_the_losses_in_numpy():
    state, batch, (following, acting) = started(), batch_of(), jax.random.split(KEY)
    y = jax.jit(AGENT.td_target)(state, batch, following)
    np.testing.assert_allclose(y, goal(state, plain(batch), following), rtol=2e-5, atol=2e-5)
    ended = np.asarray(batch.discount) == 0
    np.testing.assert_array_equal(np.asarray(y)[ended], np.asarray(batch.reward)[ended])
    of_critics, of_actor = (
        loss_of(name, state, batch, following, acting)(arrays(getattr(state, name).network))
        for name in ("encoder", "actor")
    )
    networks = {name: getattr(state, name).network for name in VALUED}
    assert float(AGENT.critic_loss(networks, y, batch)) == pytest.approx(of_critics, rel=1e-5)
    loss, _ = jax.jit(AGENT.actor_loss)(state.actor.network, state, batch, acting)
    assert float(loss) == pytest.approx(of_actor, rel=1e-5)


# Compiled once for all tests.
gradients_of, update = jax.jit(AGENT.gradients), jax.jit(AGENT.update)


@pytest.mark.parametrize("name", EVERY)
def test_gradients_by_finite_differences(name):
    """On images as the update sees them."""
    shifting, following, acting = jax.random.split(KEY, 3)
    state, shown = started(), AGENT.shifted(batch_of(), shifting)
    network, loss = (
        arrays(getattr(state, name).network),
        loss_of(name, state, shown, following, acting),
    )
    gradient = arrays(gradients_of(state, batch_of(), KEY)[name])
    for along, by_differences in slopes(loss, network, gradient):
        assert along == pytest.approx(by_differences, rel=1e-3, abs=1e-4)


def test_a_shift_is_a_crop_of_the_image_padded_by_its_edge():
    images, most = batch_of(200).obs_tm1, 2
    found = np.asarray(shifted(images, most, KEY))
    corners = np.asarray(jax.random.randint(KEY, (200, 2), 0, 5))
    for image, one, (row, column) in zip(np.asarray(images), found, corners, strict=True):
        padded = np.pad(image, [(most, most), (most, most), (0, 0)], mode="edge")
        height, width, _ = IMAGE
        np.testing.assert_array_equal(one, padded[row : row + height, column : column + width])
    assert {tuple(corner) for corner in corners.tolist()} == {
        (row, column) for row in range(5) for column in range(5)
    }
    assert found.dtype == np.uint8


def test_both_observations_are_shifted_each_by_draws_of_its_own():
    batch = batch_of(64)._replace(obs_t=batch_of(64).obs_tm1)
    after = AGENT.shifted(batch, KEY)
    differ = [
        (np.asarray(a) != np.asarray(b)).any(axis=(1, 2, 3)).mean()
        for a, b in (
            (after.obs_tm1, batch.obs_tm1),
            (after.obs_t, batch.obs_t),
            (after.obs_tm1, after.obs_t),
        )
    ]
    assert all(0.7 < share < 1 for share in differ)  # 8 of 9 shifts are one
    assert bit_equal(batch[1:4], after[1:4])


def test_an_update_is_the_critics_then_targets_then_the_actor_then_the_temperature():
    state, batch = started(), batch_of()
    after, gradients, middle = update(state, batch, KEY), gradients_of(state, batch, KEY), state
    for name in VALUED:
        old, new = getattr(state, name), getattr(after, name)
        # Where the gradient is next to nothing, Adam's first step is as long as anywhere.
        assert distance(moments(new), gradients[name].parts()) < 1e-5
        averaged = jax.tree.map(lambda t, n: 0.995 * t + 0.005 * n, old.target, new.network)
        assert distance(averaged, new.target) < 1e-6
        assert distance(old.target, new.target) > 1e-4
        middle = eqx.tree_at(lambda s, at=name: getattr(s, at), middle, new)
    late = gradients_of(middle, batch, KEY)["actor"]
    assert distance(gradients["actor"], late) > 1e-5
    assert distance(moments(after.actor), late.parts()) < 1e-5
    shifting, _, acting = jax.random.split(KEY, 3)
    shown = AGENT.shifted(batch, shifting)
    _, entropy = jax.jit(AGENT.actor_loss)(state.actor.network, middle, shown, acting)
    pull = AGENT.temperature_gradient(state.log_temperature.value, entropy, SIZE)
    step = after.log_temperature.value - state.log_temperature.value
    assert float(step) == pytest.approx(-3e-4 * np.sign(float(pull)), rel=1e-3)


def moments(learner: Learner):
    """The gradient that the first step of Adam was made along."""
    return tuple(jax.tree.map(lambda m: m / 0.1, one[0].mu) for one in learner.statistics)


def test_the_actor_trains_nothing_that_values_are_made_of():
    state = started()
    ended = batch_of()._replace(discount=jnp.zeros(COUNT))  # so that the goal does not hear of it
    hot = eqx.tree_at(lambda s: s.log_temperature.value, state, jnp.array(math.log(5.0)))
    one, other = (update(each, ended, KEY) for each in (state, hot))  # two losses of the actor
    for name in VALUED:
        assert bit_equal(getattr(one, name), getattr(other, name))
    assert not bit_equal(one.actor, other.actor)


SMALL = {
    "hidden": 32,
    "latent": 16,
    "channels": 4,
    "convolutions": 2,
    "learn_start": 200,
    "replay_capacity": 4_000,
    "learning_rate": 3e-3,
    "target_rate": 0.02,
}


@pytest.fixture(scope="module")
def trained() -> Run:
    return Run.start(PIXELS, Shades(), seed=0).advance(400)[0]


@pytest.mark.slow
def test_it_reaches_what_it_sees():
    run, _ = Run.start(DrQ(batch_size=64, **SMALL), Shades(), seed=0).advance(1_500)
    by_chance = random_policy(Shades(), 2_000, seed=0).reward.mean()
    assert by_chance == pytest.approx(-2 * 5 / 12, abs=0.05)
    state, shown = run.state.agent, run.state.replay.first(200).obs_tm1
    features = state.encoder.network(shown)
    mean = jnp.tanh(state.actor.network(features)[:, :2])
    assert float(jnp.mean((mean - Shades.best(shown)) ** 2)) < 0.02
    pairs = jnp.concatenate([state.projection.network(features), Shades.best(shown)], axis=1)
    for name in ("critic", "critic_2"):
        value = getattr(state, name).network(pairs)[:, 0]
        np.testing.assert_allclose(np.mean(value), 0.0, atol=0.15)


# What is done to it: the encoder is one that has no head, all else is head.


def changed(run: Run, intervention) -> dict[str, tuple[Learner, Learner]]:
    old, new = (learners(one.state.agent) for one in (run, run.intervene(intervention)))
    return {name: (old[name], new[name]) for name in EVERY}


def counts(learner: Learner) -> list[int]:
    return [int(one[0].count) for one in learner.statistics]


@pytest.mark.parametrize(
    "intervention",
    [Reset(), Reset("last"), Inject(optimizer="reset_all")],
    ids=describe,
)
def test_what_is_done_to_heads_leaves_the_encoder_as_it_is(trained, intervention):
    pairs = changed(trained, intervention)
    old, new = pairs.pop("encoder")
    assert bit_equal(old, new)
    assert distance(old.network, old.target) > 0  # its target stays its own
    for old, new in pairs.values():
        assert distance(old.network.layers[-1], new.network.layers[-1]) > 0.01
        assert not set(counts(new)) - {0, *counts(old)}


def test_a_reset_is_the_published_one(trained):
    """Critics, projection, actor and temperature anew, their targets alike, all without a past."""
    pairs = changed(trained, Reset())
    for name in HEADS:
        old, new = pairs[name]
        for layer, before in zip(new.network.layers, old.network.layers, strict=True):
            assert distance(layer.weight, before.weight) > 0.01
        assert new.target is None or bit_equal(new.target, new.network)
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(new.statistics))
    scalar = trained.intervene(Reset()).state.agent.log_temperature
    assert float(scalar.value) == pytest.approx(math.log(0.1))
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(scalar.statistics))
    assert int(trained.state.agent.encoder.statistics[0][0].count) == 90


def test_a_reset_of_everything_draws_the_encoder_too(trained):
    for old, new in changed(trained, Reset("everything")).values():
        assert distance(old.network.layers[0].weight, new.network.layers[0].weight) > 0.01
        assert not any(counts(new))


def test_the_parts_of_all_learners(trained):
    """What acts on encoders acts on the encoder alone, what acts on heads on all others."""
    for where, treated in (("encoder", ["encoder"]), ("head", HEADS)):
        pairs = changed(trained, ShrinkPerturb(where=where, target="copy"))
        assert [name for name in EVERY if not bit_equal(*pairs[name])] == treated
    pairs = changed(trained, ResetOptimizer("head"))
    assert [name for name in EVERY if not bit_equal(*pairs[name])] == HEADS


def test_an_injection_within_the_encoder_changes_no_prediction(trained):
    batch = trained.state.replay.first(16)
    before = trained.agent.inputs(trained.state.agent, batch)
    for split in (0, 1):
        run = trained.intervene(Inject(split=split, only="encoder"))
        assert len(run.state.agent.encoder.network.residual) == 1
        after = run.agent.inputs(run.state.agent, batch)
        for name in HEADS:
            np.testing.assert_allclose(after[name], before[name], atol=1e-6)
    splits = Native(trained.agent, trained.environment).splits
    assert arms_at_every_split(splits)[1:-1] == ("inject(split=0)",)


def test_networks_without_hidden_units_are_left_out_or_named(trained):
    pairs = changed(trained, Redo(tau=0.9))
    assert [name for name in EVERY if bit_equal(*pairs[name])] == ["projection"]
    with refused_in_a_line("redo: the network of 'projection' has no hidden units"):
        trained.intervene(Redo(only="projection critic"))
    with refused_in_a_line("widen: this network has layer normalisation"):
        trained.intervene(Widen())
    with refused_in_a_line("deaden: layer is 1; the hidden layers are 0 to 0"):
        trained.intervene(Deaden(1))
    abstract_state(trained.agent, trained.environment, [Widen(only="encoder critic critic_2")])


def missing(run: Run, probe) -> set[str]:
    """The Learners for which a probe finds nothing to measure."""
    (found,) = run.probe([probe], count=32)
    assert set(found) == set(EVERY)
    return {name for name, value in found.items() if math.isnan(value)}


FEW = ("dead_units", "feature_norm", "weight_norm")


@pytest.mark.parametrize(
    "name",
    [*FEW, *(pytest.param(n, marks=pytest.mark.slow) for n in members("probes") if n not in FEW)],
)
def test_a_probe_measures_every_learner_that_has_what_it_measures(trained, name):
    probe = members("probes")[name]
    if probe is DeadOverlap:
        return  # nothing is there either where nothing was dead
    if not issubclass(probe, PartProbe):
        # No network has an output per action.
        without = set(EVERY) if probe is PolicyChurn else set()
        assert missing(trained, probe()) == without
        return
    # One layer has no hidden units; its parameters and its gradient are there.
    alone = set() if name.startswith(("weight", "distance", "gradient_norm")) else {"projection"}
    assert missing(trained, probe("encoder")) == set(HEADS)
    assert missing(trained, probe("head")) == {"encoder", *alone}


# What is published, and what is refused.


def test_the_network_is_the_published_one():
    state = jax.eval_shape(lambda: DrQ().init((64, 64, 3), BYTES, Continuous(6), jax.random.key(0)))

    def size(*names: str) -> int:
        networks = [getattr(state, name).network for name in names]
        return sum(leaf.size for leaf in jax.tree.leaves(networks))

    assert size("encoder") == 388_416  # as rl_with_resets notes beside its reset
    dense_50, hidden = 4_096 * 50 + 50 + 2 * 50, 256 * 256 + 256
    critic = 56 * 256 + 256 + hidden + 257
    assert size("projection", "critic", "critic_2") == dense_50 + 2 * critic
    assert size("actor") == dense_50 + 50 * 256 + 256 + hidden + 257 * 12
    assert [layer.units for layer in state.encoder.network.layers] == [32, 64, 128, 256]
    assert state.encoder.network.layers[-1].image == (4, 4)
    assert state.encoder.network.layers[0].divisor == 255
    planes = jax.eval_shape(
        lambda: DrQ().init((8, 8, 1), np.dtype(bool), Continuous(1), jax.random.key(0))
    )
    assert planes.encoder.network.layers[0].divisor == 1


def test_observations_and_actions_it_cannot_take_are_refused():
    with refused_in_a_line("takes images (height, width, channels), not observations of shape (2,"):
        Run.start(DrQ(), Reach(), seed=0)
    with refused_in_a_line("try sac"):
        DrQ().init((2,), BYTES, Continuous(1), KEY)
    with refused_in_a_line("drq takes continuous actions, not 3 discrete actions; try double_dqn"):
        DrQ().init(IMAGE, BYTES, Discrete(3), KEY)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drq(channels=0)", "channels is 0; it must be at least 1"),
        ("drq(convolutions=0)", "convolutions is 0"),
        ("drq(latent=0)", "latent is 0"),
        ("drq(shift=-1)", "shift is -1; it must be 0 or more"),
        ("drq(initial_temperature=0)", "initial_temperature is 0"),
        ("drq:lap", "no preset of drq 'lap'; did you mean 'laptop'?"),
    ],
)
def test_hyperparameters_that_cannot_be_are_refused(text, message):
    with refused_in_a_line(message):
        make("agents", text)

"""Interventions that go on acting: what they do update by update, and that nothing else changes."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import DQN
from trees import bit_equal

from regrow.environments import Breakout
from regrow.errors import RegrowError
from regrow.interventions import (
    ContinualBackprop,
    Deaden,
    FitNoise,
    Inject,
    Redo,
    Reset,
    ResetOptimizer,
    SelfNormalizedReset,
    Widen,
)
from regrow.interventions.base import Hook
from regrow.interventions.continual_backprop import contribution
from regrow.learners.learner import Learner
from regrow.learners.optimizer import Optimizer
from regrow.learners.recycling import recycled
from regrow.networks.layers import Conv
from regrow.networks.network import Network, convolutional, mlp
from regrow.training.checkpoint import load, save
from regrow.training.run import Run
from regrow.training.schedule import Rule

KEY = jax.random.key(9)
CONV = convolutional((6, 6, 3), 4, 10, 3, key=KEY)
OFTEN = ContinualBackprop(rate=0.3, maturity=1)


# Rules against NumPy, on a network with a convolution and a dense layer


def in_numpy(network: Network, images: np.ndarray) -> list[np.ndarray]:
    """What the convolution and the hidden layer make of images: (batch, positions, units) each."""
    conv, dense, _ = ({k: np.asarray(getattr(x, k), float) for k in ("weight", "bias")}
                      for x in network.layers)  # fmt: skip
    out = np.zeros((len(images), 4, 4, 4))
    for row in range(4):
        for column in range(4):
            patch = images[:, row : row + 3, column : column + 3, :]
            out[:, row, column] = np.einsum("bhwc,hwcu->bu", patch, conv["weight"]) + conv["bias"]
    out = np.maximum(out, 0)
    hidden = np.maximum(out.reshape(len(images), -1) @ dense["weight"] + dense["bias"], 0)
    return [out.reshape(len(images), 16, 4), hidden[:, None, :]]


class Contribution:
    """Continual backprop for one layer, unit by unit."""

    def __init__(self, units: int, rule: ContinualBackprop):
        self.rule, self.owed = rule, 0.0
        self.utility, self.age = np.zeros(units), np.zeros(units, int)

    def judge(self, features: np.ndarray, heard: np.ndarray) -> np.ndarray:
        """`heard`: mean |w| of what reads a unit at each position."""
        eta, goes = self.rule.decay, np.zeros(len(self.age), bool)
        for unit in range(len(self.age)):
            self.age[unit] += 1
            sent = np.abs(features[:, :, unit]).mean(axis=0)
            new = np.mean([s * h for s, h in zip(sent, heard[:, unit], strict=True)])
            self.utility[unit] = eta * self.utility[unit] + (1 - eta) * new
        mature = [u for u in range(len(self.age)) if self.age[u] > self.rule.maturity]
        self.owed += self.rule.rate * len(mature)
        count = int(self.owed + 1e-6)
        self.owed -= count
        mature.sort(key=lambda u: self.utility[u] / (1 - eta ** self.age[u]))
        for unit in mature[:count]:
            goes[unit], self.utility[unit], self.age[unit] = True, 0.0, 0
        return goes


class Silences:
    """Self-normalised resets for one layer, unit by unit, with every silence in a list."""

    def __init__(self, units: int, rule: SelfNormalizedReset):
        self.rule, self.updates = rule, 0
        self.silence, self.threshold = [0] * units, [rule.limit] * units
        self.ended: list[list[int]] = [[] for _ in range(units)]

    def judge(self, features: np.ndarray, heard: np.ndarray) -> np.ndarray:
        goes = np.zeros(len(self.silence), bool)
        for unit, fired in enumerate((features > 0).any(axis=(0, 1))):
            self.silence[unit] += not fired
            goes[unit] = not fired and self.silence[unit] >= self.threshold[unit]
            if fired or goes[unit]:
                self.ended[unit] += [self.silence[unit]] if self.silence[unit] else []
                self.silence[unit] = 0
        self.updates += 1
        if self.updates % self.rule.period == 0:
            pairs = zip(self.threshold, self.ended, strict=True)
            self.threshold = [self.revised(*pair) for pair in pairs]
            self.ended = [[] for _ in self.ended]
        return goes

    def revised(self, threshold: int, ended: list[int]) -> int:
        lengths = range(1, self.rule.limit + 1)
        p = self.rule.percentile
        usual = next((n for n in lengths if ended and np.mean(np.array(ended) <= n) >= p), 1)
        return usual if usual < threshold else min(self.rule.expansion * threshold, self.rule.limit)


@pytest.mark.parametrize(
    ("rule", "reference", "updates"),
    [
        (ContinualBackprop(rate=0.03, maturity=4, decay=0.9), Contribution, 60),
        (SelfNormalizedReset(percentile=0.8, period=15, limit=6), Silences, 90),
    ],
)
def test_rules_in_numpy(rule, reference, updates):
    """Which units go, at which update, while the network learns and some units fall silent."""
    learner = Learner.create(CONV, Optimizer(learning_rate=0.02)).with_hook(rule)
    records = [reference(4, rule), reference(10, rule)]
    rng = np.random.default_rng(0)

    @eqx.filter_jit
    def step(learner, gradient, images, key):
        updated = learner.descend(gradient)
        return updated, updated.after_hooks(images, key)

    gone = []
    for i in range(updates):
        images = (rng.normal(size=(3, 6, 6, 3)) * rng.uniform(0, 2)).astype(np.float32)
        noise = rng.normal(size=3) + 0.3  # biases drift down, weights wander
        gradient = jax.tree.map(
            lambda x, noise=noise: jnp.full_like(x, noise[x.ndim % 3]), learner.network
        )
        updated, learner = step(learner, gradient, jnp.asarray(images), jax.random.key(i))
        network = updated.network
        above = [np.abs(np.asarray(layer.weight)).mean(axis=-1) for layer in network.layers[1:]]
        heard = [above[0].reshape(16, 4), above[1].reshape(1, 10)]
        masks = [
            record.judge(features, weights)
            for record, features, weights in zip(
                records, in_numpy(network, images), heard, strict=True
            )
        ]
        gone.append(sum(mask.sum() for mask in masks))
        (hook,) = learner.hooks
        for memory, record in zip(hook.memory, records, strict=True):
            if isinstance(record, Contribution):
                np.testing.assert_array_equal(memory.age, record.age)
                np.testing.assert_allclose(memory.utility, record.utility, rtol=2e-4, atol=1e-7)
                assert float(memory.owed) == pytest.approx(record.owed, abs=1e-4)
            else:
                np.testing.assert_array_equal(memory.silence, record.silence)
                np.testing.assert_array_equal(memory.threshold, record.threshold)
        # What was recycled is what `recycled` makes of these units, and nothing else moved.
        masks = [jnp.asarray(mask) for mask in masks]
        expected = recycled(updated, masks, jax.random.fold_in(jax.random.key(i), 0))
        assert bit_equal(learner.network, expected.network)
        assert bit_equal(learner.statistics, expected.statistics)
    assert len(set(gone)) > 1, "units went at some updates and not at others"
    assert sum(gone) >= 10
    if reference is Silences:
        assert len({t for record in records for t in record.threshold}) > 2


def test_a_unit_goes_when_it_is_mature_and_its_turn_has_come():
    rule = ContinualBackprop(rate=0.25, maturity=3)
    learner = Learner.create(mlp(3, (4,), 2, key=KEY), Optimizer()).with_hook(rule)
    ages = []
    for i in range(6):
        learner = learner.after_hooks(jnp.ones((5, 3)), jax.random.key(i))
        ages.append(np.sort(learner.hooks[0].memory[0].age).tolist())
    # 4 mature units owe one at update 4; the 3 that are left owe 0.75, then 1.5.
    assert ages[2:] == [[3, 3, 3, 3], [0, 4, 4, 4], [1, 5, 5, 5], [0, 2, 6, 6]]


def test_a_convolution_that_a_convolution_reads_counts_by_channel():
    reader = Conv((4, 4, 5), 7, key=KEY)
    features = jax.random.normal(KEY, (6, 4, 4, 5))
    expected = np.abs(features).mean(axis=(0, 1, 2)) * np.abs(reader.weight).mean(axis=(0, 1, 3))
    np.testing.assert_allclose(
        contribution(features, reader, features.shape[-1]), expected, rtol=1e-5
    )


def test_the_target_keeps_its_units_until_it_is_copied():
    learner = Learner.create(CONV, Optimizer()).with_hook(ContinualBackprop(rate=1.0, maturity=0))
    after = learner.after_hooks(jnp.ones((2, 6, 6, 3)), KEY)
    assert not bit_equal(after.network, learner.network)
    assert bit_equal(after.target, learner.target)
    assert bit_equal(after.sync().target, after.network)


# Runs


@dataclasses.dataclass(frozen=True)
class Idle(Hook):
    """Counts updates, and does nothing."""

    def init(self, learner):
        return jnp.array(0)

    def after_update(self, learner, memory, inputs, key):
        return learner, memory + 1


@pytest.fixture(scope="module")
def trained() -> Run:
    return Run.start(DQN, Breakout(), seed=0).advance(400)[0]


@pytest.fixture(scope="module")
def habitual(trained) -> Run:
    return trained.intervene(OFTEN)


def ages(run: Run) -> list[int]:
    return [int(record.age.max()) for record in run.state.agent.q.hooks[0].memory]


def test_a_hook_shifts_no_draws_of_the_run(trained):
    learner = trained.state.agent.q.with_hook(Idle())
    idle = eqx.tree_at(lambda run: run.state.agent.q, trained, learner, is_leaf=_is_learner).fork()
    plain, with_hook = (run.advance(40)[0] for run in (trained.fork(), idle))
    assert int(with_hook.state.agent.q.hooks[0].memory) == 10
    without = dataclasses.replace(with_hook.state.agent.q, hooks=())
    state = eqx.tree_at(lambda s: s.agent.q, with_hook.state, without, is_leaf=_is_learner)
    assert bit_equal(state, plain.state)


def _is_learner(node) -> bool:
    return isinstance(node, Learner)


def test_a_learner_without_habits_has_no_leaf_more(trained):
    learner = trained.state.agent.q
    assert learner.hooks == ()
    parts = (learner.network, learner.target, learner.statistics)
    assert len(jax.tree.leaves(learner)) == len(jax.tree.leaves(parts))


def test_a_run_with_a_hook_resumes_bit_for_bit(habitual, tmp_path):
    run = habitual.fork().advance(12)[0]
    save(run, tmp_path / "run.ckpt")
    loaded = load(tmp_path / "run.ckpt")
    assert bit_equal(loaded.state, run.state)
    assert bit_equal(loaded.advance(12)[0].state, run.advance(12)[0].state)


def test_every_update_of_a_run_counts_and_those_of_others_do_not(habitual):
    run = habitual.fork().advance(4)[0]
    assert ages(run) == [1, 1]
    noisy = run.intervene(FitNoise(rounds=1, updates=3, transitions=20))
    assert bit_equal(noisy.state.agent.q.hooks, run.state.agent.q.hooks)
    assert not bit_equal(noisy.state.agent.q.network, run.state.agent.q.network)


@pytest.mark.parametrize(
    ("event", "anew"),
    [
        pytest.param(Widen(), True, marks=pytest.mark.slow),
        pytest.param(Inject(optimizer="reset_all"), True, marks=pytest.mark.slow),
        (Reset("everything"), True),
        (Redo(tau=0.5), True),
        (Deaden(), True),
        (ResetOptimizer(), False),
    ],
)
def test_memories_begin_anew_with_the_layers_and_the_habit_goes_on(habitual, event, anew):
    run = habitual.fork().advance(4)[0].intervene(event)
    assert ages(run) == ([0, 0] if anew else [1, 1])
    units = [len(record.age) for record in run.state.agent.q.hooks[0].memory]
    assert units == [layer.units for layer in run.state.agent.q.network.layers[:-1]]
    after = run.advance(8)[0]
    assert min(int(r.age.min()) for r in after.state.agent.q.hooks[0].memory) == 0
    assert int(after.state.agent.q.statistics[1][0].count.weight.min()) < 2


def test_one_of_the_same_kind_takes_the_place_of_the_first(habitual):
    both = habitual.intervene(SelfNormalizedReset()).intervene(ContinualBackprop())
    rules = [hook.rule for hook in both.state.agent.q.hooks]
    assert rules == [SelfNormalizedReset(), ContinualBackprop()]


def test_a_new_learner_has_no_habits(habitual):
    assert habitual.state.agent.q.fresh(KEY).hooks == ()


def test_a_rule_may_install_a_hook():
    rule = Rule.parse("continual_backprop(rate=0.001, only='q') when dead_units above 0.3")
    assert rule.intervention == ContinualBackprop(rate=0.001, only="q")
    assert Rule.parse("self_normalized_reset at 60_000").intervention == SelfNormalizedReset()


def test_a_hook_needs_units_to_renew(trained):
    flat = Learner.create(Network([CONV.layers[-1]]), Optimizer())
    with pytest.raises(RegrowError, match=r"continual_backprop: .* 'q' has no hidden units"):
        OFTEN({"q": flat}, agent=DQN, experience=trained.state.replay, key=KEY)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ContinualBackprop(rate=0.0), "rate is 0.0; it must be above 0"),
        (lambda: ContinualBackprop(maturity=-1), "maturity is -1; it must be 0 or more"),
        (lambda: ContinualBackprop(decay=1.0), "decay is 1.0; it must be at least 0"),
        (lambda: SelfNormalizedReset(percentile=0.0), "percentile is 0.0; it must be above 0"),
        (lambda: SelfNormalizedReset(period=0), "period is 0; it must be at least 1"),
        (lambda: SelfNormalizedReset(limit=0), "limit is 0; it must be at least 1"),
        (lambda: SelfNormalizedReset(expansion=1), "expansion is 1; it must be at least 2"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(RegrowError, match=message):
        make()

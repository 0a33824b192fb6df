"""Losses and their gradients against NumPy in float64, the update's order, learning, resets."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from soft import arrays, dense, drawn, gaussian, plain, slopes
from trees import bit_equal, distance

from regrow.agents import SAC
from regrow.agents.soft.base import policy
from regrow.environments import Reach
from regrow.environments.base import Step
from regrow.errors import RegrowError
from regrow.interventions import Inject, Redo, Reset, ResetOptimizer, ShrinkPerturb
from regrow.learners.learner import learners
from regrow.networks.architecture import Architecture
from regrow.networks.network import Network, mlp
from regrow.probes import DeadOverlap, PolicyChurn
from regrow.registry import describe, members
from regrow.training.checkpoint import load, save
from regrow.training.run import Run, random_policy
from regrow.types import Continuous, Discrete, Transition

KEY = jax.random.key(5)
AGENT = SAC(hidden=8, batch_size=16, discount=0.9, initial_temperature=0.3, target_entropy=-1.0)
SEEN, SIZE, COUNT = 4, 2, 32
ORTHOGONAL = Architecture(initialiser="orthogonal")
CRITICS = ("critic", "critic_2")
SMALL = {"hidden": 32, "learn_start": 200, "replay_capacity": 4_000, "batch_size": 64}
QUICK = {**SMALL, "learning_rate": 3e-3, "target_rate": 0.02}


def started(agent: SAC = AGENT):
    """A state whose targets are not its critics.

    The actor has biases: without, units behind a silent layer stand at 0, where ReLU has no slope.
    """
    state = agent.init((SEEN,), np.dtype(np.float32), Continuous(SIZE), KEY)
    biased = jax.tree.map(lambda x: x + 0.1 if x.ndim == 1 else x, state.actor.network)
    state = eqx.tree_at(lambda s: s.actor.network, state, biased)
    others = [mlp(SEEN + SIZE, (8, 8), 1, ORTHOGONAL, key=k) for k in jax.random.split(KEY, 2)]
    return eqx.tree_at(lambda s: (s.critic.target, s.critic_2.target), state, tuple(others))


def batch_of(count: int = COUNT) -> Transition:
    rng = np.random.default_rng(0)
    return Transition(
        obs_tm1=jnp.asarray(rng.normal(size=(count, SEEN)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, (count, SIZE)), jnp.float32),
        reward=jnp.asarray(rng.normal(size=count) * 3, jnp.float32),
        discount=jnp.asarray(rng.integers(0, 2, count), jnp.float32),
        obs_t=jnp.asarray(rng.normal(size=(count, SEEN)), jnp.float32),
        truncated=jnp.zeros(count, bool),
    )


# SAC once more, in NumPy and float64; a network is a list of arrays.


def lower(critics: list[list[np.ndarray]], obs: np.ndarray, action: np.ndarray) -> np.ndarray:
    return np.min([dense(c, np.hstack([obs, action]))[:, 0] for c in critics], axis=0)


def goal(state, batch: Transition, key) -> np.ndarray:
    action, log_prob = drawn(dense(arrays(state.actor.network), batch.obs_t), key)
    value = lower([arrays(getattr(state, c).target) for c in CRITICS], batch.obs_t, action)
    return batch.reward + 0.9 * batch.discount * (value - 0.3 * log_prob)


def loss_of(name: str, state, batch: Transition, key):
    """One Learner's loss as a function of its arrays."""
    batch, (following, acting) = plain(batch), jax.random.split(key)
    y = goal(state, batch, following)
    critics = [arrays(getattr(state, c).network) for c in CRITICS]

    def critic(network: list[np.ndarray]) -> float:
        pairs = np.hstack([batch.obs_tm1, batch.action])
        return float(np.mean((dense(network, pairs)[:, 0] - y) ** 2))

    def actor(network: list[np.ndarray]) -> float:
        action, log_prob = drawn(dense(network, batch.obs_tm1), acting)
        return float(np.mean(0.3 * log_prob - lower(critics, batch.obs_tm1, action)))

    return actor if name == "actor" else critic


def test_the_goal_and_the_losses_in_numpy():
    state, batch = started(), batch_of()
    following, acting = jax.random.split(KEY)
    y = AGENT.td_target(state, batch, following)
    np.testing.assert_allclose(y, goal(state, plain(batch), following), rtol=2e-5, atol=2e-5)
    ended = np.asarray(batch.discount) == 0
    np.testing.assert_array_equal(np.asarray(y)[ended], np.asarray(batch.reward)[ended])
    for name in CRITICS:
        network = getattr(state, name).network
        expected = loss_of(name, state, batch, KEY)(arrays(network))
        assert float(AGENT.critic_loss(network, y, batch)) == pytest.approx(expected, rel=1e-5)
    loss, entropy = AGENT.actor_loss(state.actor.network, state, batch, acting)
    actor = arrays(state.actor.network)
    assert float(loss) == pytest.approx(loss_of("actor", state, batch, KEY)(actor), rel=1e-5)
    log_prob = drawn(dense(actor, plain(batch).obs_tm1), acting)[1]
    assert float(entropy) == pytest.approx(-log_prob.mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["actor", *CRITICS])
def test_gradients_by_finite_differences(name):
    state, batch = started(), batch_of()
    gradient = arrays(AGENT.gradients(state, batch, KEY)[name])
    network, loss = arrays(getattr(state, name).network), loss_of(name, state, batch, KEY)
    for along, by_differences in slopes(loss, network, gradient):
        assert along == pytest.approx(by_differences, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", ["actor", "critic"])
def test_what_is_held_in_numpy(name):
    """The gradient is read off Adam's first moment after the first update, by differences."""
    strengths = {"churn": 0.7} if name == "critic" else {"policy_churn": 0.2}
    agent = dataclasses.replace(AGENT, batch_size=COUNT // 2, **strengths)
    assert agent.rows_per_update == COUNT
    fresh, batch = started(agent), batch_of()
    assert [one.previous_network is not None for one in learners(fresh).values()].count(True) == (
        2 if name == "critic" else 1
    )
    before = jax.tree.map(lambda x: 0.8 * x - 0.05, getattr(fresh, name).network)
    state = eqx.tree_at(lambda s: getattr(s, name).previous_network, fresh, before)
    after = jax.jit(agent.update)(state, batch, KEY)
    gradient = [10 * m for s in getattr(after, name).statistics for m in jax.tree.leaves(s[0].mu)]
    learned, held = (
        jax.tree.map(lambda x, at=at: x[at], batch) for at in (slice(16), slice(16, None))
    )
    learning = state if name == "critic" else dataclasses.replace(after, actor=state.actor)
    learning = dataclasses.replace(learning, log_temperature=state.log_temperature)
    plain_loss, obs = loss_of(name, learning, learned, KEY), plain(held).obs_tm1
    network = arrays(getattr(state, name).network)
    # How large a term the policy's is, is no matter of the policy.
    critics = [arrays(getattr(learning, c).network) for c in CRITICS]
    seen = plain(learned).obs_tm1
    action, log_prob = drawn(dense(arrays(state.actor.network), seen), jax.random.split(KEY)[1])
    size = np.abs(0.3 * log_prob - lower(critics, seen, action)).mean()

    def loss(weights: list[np.ndarray]) -> float:
        if name == "critic":
            pairs = np.hstack([obs, plain(held).action])
            moved = dense(weights, pairs) - dense(arrays(before), pairs)
            return plain_loss(weights) + 0.7 * float(np.mean(moved**2))
        (mean, std), (mean_2, std_2) = (
            gaussian(dense(one, obs)) for one in (weights, arrays(before))
        )
        apart = np.log(std_2 / std) + (std**2 + (mean - mean_2) ** 2) / (2 * std_2**2) - 0.5
        return plain_loss(weights) + 0.2 * size * float(apart.sum(axis=1).mean())

    unlike = []
    for along, by_differences in slopes(loss, network, gradient):
        assert along == pytest.approx(by_differences, rel=2e-3, abs=2e-4)
    for along, by_differences in slopes(plain_loss, network, gradient):
        unlike.append(abs(along - by_differences))
    assert max(unlike) > 0.01


@pytest.mark.slow
def test_held_or_not_it_is_one_state_through_all_that_is_done_to_it(tmp_path):
    agent = SAC(**SMALL, churn=0.1, policy_churn=5e-4)
    run = Run.start(agent, Reach(), seed=0).advance(240)[0]
    for one in learners(run.state.agent).values():
        assert distance(one.previous_network, one.network) > 0
    run = run.intervene(Inject()).intervene(Reset())
    for one in learners(run.state.agent).values():
        assert bit_equal(one.previous_network, one.network)
    save(run, tmp_path / "run.ckpt")
    one, other = (each.advance(40)[0] for each in (run, load(tmp_path / "run.ckpt")))
    assert bit_equal(one.state, other.state)


def test_the_gradient_of_the_temperature():
    """Of α(H − H̄) with H̄ = −1 for each of two numbers, along log α."""
    entropy, at, h = 0.7, math.log(0.3), 1e-6
    there, back = (math.exp(at + step) * (entropy + 2.0) for step in (h, -h))
    slope = AGENT.temperature_gradient(jnp.array(at), jnp.array(entropy), SIZE)
    assert float(slope) == pytest.approx((there - back) / (2 * h), rel=1e-5)


def with_output(mean: float, raw: float) -> Network:
    network = mlp(1, (4,), 2, ORTHOGONAL, key=KEY)
    last = network.layers[-1]
    still = (jnp.zeros_like(last.weight), jnp.array([mean, raw], jnp.float32))
    return eqx.tree_at(lambda n: (n.layers[-1].weight, n.layers[-1].bias), network, still)


@pytest.mark.parametrize(("mean", "raw"), [(0.0, 0.5), (0.7, 0.6), (-1.2, 0.3)])
def test_the_density_is_the_slope_of_the_distribution(mean, raw):
    """P(a < x) = Φ((artanh x − μ)/σ), differentiated by differences; it integrates to one."""
    draws = jax.vmap(lambda k: policy(with_output(mean, raw), jnp.ones(1), k))
    action, log_prob = (np.asarray(x, np.float64) for x in draws(jax.random.split(KEY, 2_000)))
    action, order = np.sort(action[:, 0]), np.argsort(action[:, 0])
    density = np.exp(log_prob[order])
    std = np.exp(-10 + 6 * (1 + np.tanh(raw)))

    def below(x: np.ndarray) -> np.ndarray:
        return scipy.stats.norm.cdf((np.arctanh(x) - mean) / std)

    inner = np.abs(action) < 0.999
    h = 1e-6
    slope = (below(action + h * inner) - below(action - h * inner))[inner] / (2 * h)
    np.testing.assert_allclose(density[inner], slope, rtol=2e-3)
    assert scipy.stats.kstest(action, below).pvalue > 1e-3
    x = np.tanh(np.linspace(-12, 12, 4_001))
    held = np.interp(x, action, density, left=0, right=0)
    assert np.trapezoid(held, x) == pytest.approx(1, abs=0.05)


def test_the_density_is_finite_where_the_action_is_one():
    action, log_prob = policy(with_output(30.0, 0.0), jnp.ones(1), KEY)
    assert float(action[0]) == 1.0
    u = 30 + math.exp(-4) * float(jax.random.normal(KEY, (1,))[0])
    normal = -0.5 * ((u - 30) / math.exp(-4)) ** 2 + 4 - 0.5 * math.log(2 * math.pi)
    assert float(log_prob) == pytest.approx(normal + 2 * u - math.log(4), rel=1e-5)


def test_an_update_is_critics_then_targets_then_actor_then_temperature():
    state, batch = started(), batch_of()
    after = jax.jit(AGENT.update)(state, batch, KEY)
    gradients = AGENT.gradients(state, batch, KEY)
    middle = state
    for name in CRITICS:
        old, new = getattr(state, name), getattr(after, name)
        stepped = old.descend(gradients[name])
        assert distance(stepped.network, new.network) < 1e-6
        averaged = jax.tree.map(lambda t, n: 0.995 * t + 0.005 * n, old.target, new.network)
        assert distance(averaged, new.target) < 1e-6
        assert distance(old.target, new.target) > 1e-4
        middle = eqx.tree_at(lambda s, at=name: getattr(s, at), middle, new)
    # Where the gradient is next to nothing, Adam's first step is as long as anywhere.
    own, late = (AGENT.gradients(s, batch, KEY)["actor"] for s in (state, middle))
    assert distance(own, late) > 1e-5
    moments = [statistics[0].mu for statistics in after.actor.statistics]
    seen = jax.tree.map(lambda m: m / 0.1, moments)
    assert distance(seen, list(late.parts())) < 1e-6
    _, entropy = AGENT.actor_loss(state.actor.network, middle, batch, jax.random.split(KEY)[1])
    pull = AGENT.temperature_gradient(state.log_temperature.value, entropy, SIZE)
    step = after.log_temperature.value - state.log_temperature.value
    assert float(step) == pytest.approx(-3e-4 * np.sign(float(pull)), rel=1e-3)


def test_actions_are_uniform_first_and_then_the_policys():
    state, obs = started(), jnp.full(SEEN, 0.2)
    act = jax.vmap(lambda k, t: AGENT.act(state, obs, t, k), in_axes=(0, None))
    keys = jax.random.split(KEY, 4_000)
    early, values = act(keys, jnp.array(AGENT.learn_start - 1))
    for each in np.asarray(early).T:
        assert scipy.stats.kstest(each, scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-3
    critics = [arrays(getattr(state, c).network) for c in CRITICS]
    expected = lower(critics, np.full((4_000, SEEN), 0.2), np.asarray(early, np.float64))
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    late, _ = act(keys, jnp.array(AGENT.learn_start))
    mean, raw = np.split(dense(arrays(state.actor.network), np.full((1, SEEN), 0.2))[0], 2)
    std = np.exp(-10 + 6 * (1 + np.tanh(raw)))
    for each, m, s in zip(np.asarray(late, np.float64).T, mean, std, strict=True):
        assert scipy.stats.kstest(np.arctanh(each), scipy.stats.norm(m, s).cdf).pvalue > 1e-3


@pytest.mark.always
def test_it_reaches():
    run, log = Run.start(SAC(**QUICK), Reach(), seed=0).advance(3_000)
    by_chance = random_policy(Reach(), 2_000, seed=0).reward.mean()
    assert by_chance == pytest.approx(-2 * 5 / 12, abs=0.05)
    assert log.reward[-500:].mean() > -0.15
    state, shown = run.state.agent, jax.random.uniform(KEY, (200, 2), minval=-1, maxval=1)
    mean = jnp.tanh(state.actor.network(shown)[:, :2])
    assert float(jnp.mean((mean - Reach.best(shown)) ** 2)) < 0.02
    pairs = jnp.concatenate([shown, Reach.best(shown)], axis=1)
    for name in CRITICS:
        value = getattr(state, name).network(pairs)[:, 0]
        np.testing.assert_allclose(np.mean(value), 0.0, atol=0.15)


@dataclasses.dataclass(frozen=True)
class Clock(Reach):
    """Reward 1 at every step; a clock cuts each episode after one."""

    def step(self, state, action, key):
        return state, Step(state.shown, jnp.array(1.0), jnp.bool_(False), jnp.bool_(True))


def test_a_time_limit_is_not_an_end():
    """The value is 1 / (1 − γ), not 1; the temperature is next to nothing."""
    agent = SAC(**QUICK, discount=0.8, initial_temperature=1e-4)
    run, log = Run.start(agent, Clock(), seed=0).advance(3_000)
    assert log.truncated.all()
    assert log.value[-200:].mean() == pytest.approx(5.0, abs=0.3)
    assert float(run.state.replay.storage.discount[:3_000].min()) == 1.0


@pytest.fixture(scope="module")
def trained() -> Run:
    agent = SAC(hidden=8, batch_size=16, learn_start=40, replay_capacity=400, replay_ratio=4.0)
    return Run.start(agent, Reach(), seed=0).advance(140)[0]


def test_four_updates_per_env_step(trained):
    assert int(trained.state.updates) == 400
    for learner in learners(trained.state.agent).values():
        assert [int(state[0].count) for state in learner.statistics] == [400] * 3
    assert int(trained.state.agent.log_temperature.statistics[0].count) == 400


@pytest.mark.parametrize(
    ("intervention", "value", "statistics"),
    [
        (Reset("everything"), True, True),
        (Reset("head"), True, True),
        (Reset("last"), False, False),
        (Reset("everything", "keep"), True, False),
        (Reset("everything", only="critic"), False, False),
        (ResetOptimizer(), False, True),
        (ResetOptimizer("head"), False, False),
        (ResetOptimizer(only="actor critic"), False, False),
        (Inject(), False, False),
        (Redo(tau=0.9), False, False),
        (ShrinkPerturb(), False, False),
    ],
    ids=lambda each: describe(each) if dataclasses.is_dataclass(each) else str(each),
)
def test_what_renews_the_temperature(trained, intervention, value, statistics):
    old = trained.state.agent.log_temperature
    new = trained.intervene(intervention).state.agent.log_temperature
    assert float(old.value) != 0.0
    assert float(new.value) == (0.0 if value else float(old.value))
    if statistics:
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(new.statistics))
    else:
        assert bit_equal(new.statistics, old.statistics)


def test_after_a_reset_of_everything_nothing_is_left_but_the_replay(trained):
    reset = trained.intervene(Reset("everything")).state
    fresh = Run.start(trained.agent, Reach(), seed=1).state
    assert jax.tree.structure(reset.agent) == jax.tree.structure(fresh.agent)
    for learner in learners(reset.agent).values():
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(learner.statistics))
    assert bit_equal(reset.replay, trained.state.replay)


def test_it_goes_on_bit_for_bit_from_a_file_and_from_a_fork(trained, tmp_path):
    save(trained, tmp_path / "run.ckpt")
    runs = (trained.fork(), trained.fork(), load(tmp_path / "run.ckpt"))
    ends = [run.advance(20)[0].state for run in runs]
    assert bit_equal(ends[0], ends[1])
    assert bit_equal(ends[0], ends[2])


def test_actions_and_observations_it_cannot_take_are_refused():
    dtype = np.dtype(np.float32)
    with pytest.raises(RegrowError, match="continuous actions, not 3 discrete actions; try double"):
        SAC().init((4,), dtype, Discrete(3), KEY)
    with pytest.raises(RegrowError, match=r"vectors, not observations of shape \(10, 10, 4\)"):
        SAC().init((10, 10, 4), dtype, Continuous(2), KEY)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden": 0}, "hidden is 0"),
        ({"target_rate": 0.0}, "target_rate is 0.0"),
        ({"initial_temperature": 0.0}, "initial_temperature is 0.0"),
        ({"replay_ratio": 2.5}, "replay_ratio is 2.5"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"churn": -1.0}, "churn is -1.0; it must be 0 or more, and finite"),
        ({"policy_churn": math.inf}, "policy_churn is inf; it must be 0 or more, and finite"),
    ],
)
def test_hyperparameters_that_cannot_be_are_refused(fields, message):
    with pytest.raises(RegrowError, match=message):
        SAC(**fields)


@pytest.mark.parametrize("costly", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_probe_measures_every_learner(trained, costly):
    probes = [cls() for cls in members("probes").values() if cls.costly == costly]
    found = trained.probe(probes, count=32)
    for probe, values in zip(probes, found, strict=True):
        assert list(values) == ["actor", *CRITICS]
        if isinstance(probe, DeadOverlap):
            continue  # NaN where nothing is dead
        # No network has an output per action.
        without = {"actor", *CRITICS} if isinstance(probe, PolicyChurn) else set()
        assert {name for name, value in values.items() if math.isnan(value)} == without, probe

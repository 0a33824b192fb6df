"""Running statistics against NumPy in float64, and who sees data that they have normalised."""

import dataclasses
from functools import partial

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from found import outcomes_of
from refusals import refused_in_a_line
from small import PIXELS
from trees import bit_equal

from regrow.agents import PPO, SAC, DoubleDQN
from regrow.agents.ppo import _goes_on
from regrow.diagnosis.diagnose import diagnose
from regrow.diagnosis.findings import DIVERGED
from regrow.environments import Atari, Breakout, Control, Gymnasium, Reach, Shades
from regrow.environments.base import DeviceEnvironment, HostEnvironment, HostStep, Simulator, Step
from regrow.experience.frame_replay import FrameReplay
from regrow.experience.normalization import NormalizingMemory, RunningMoments, as_learned, as_seen
from regrow.experience.replay import Replay
from regrow.interventions import Nothing
from regrow.interventions.base import Intervention
from regrow.probes.base import Probe
from regrow.registry import describe, make
from regrow.training.checkpoint import load, save
from regrow.training.evaluate import evaluate
from regrow.training.flops import cost
from regrow.training.run import Run, abstract_state
from regrow.types import Discrete, Transition

KEY = jax.random.key(2)
BOTH = {"normalize_observations": True, "normalize_rewards": True}
BRIEF = {"learn_start": 40, "replay_capacity": 300, "replay_ratio": 0.25, **BOTH}
DQN = DoubleDQN(hidden=16, target_period=7, **BRIEF)
SOFT = SAC(hidden=16, batch_size=16, **BRIEF)
POLICY = PPO(hidden=16, num_envs=4, batch_size=64, epochs=4, minibatches=4, **BOTH)
POLE, CHEETAH = Gymnasium("CartPole-v1"), Control("cartpole-swingup")


@dataclasses.dataclass(frozen=True)
class Loud(DeviceEnvironment):
    """`matching_reward` far from 0 and 1: what is shown is 4,000 or 6,000, the reward `unit` or 0.

    An episode ends with a chance of 0.2, and is cut off after five steps; the second number counts.
    """

    unit: float = 300.0

    observation_shape, observation_dtype, num_actions = (2,), np.dtype(np.float32), 2

    def reset(self, key):
        sign = jax.random.rademacher(key, (), jnp.float32)
        return (sign, jnp.array(0)), jnp.stack([5_000 + 1_000 * sign, 0.0])

    def step(self, state, action, key):
        sign, steps = state
        going, showing = jax.random.split(key)
        reward = jnp.where((action == 1) == (sign > 0), self.unit, 0.0)
        after, _ = self.reset(showing)
        steps = steps + 1
        seen = jnp.stack([5_000 + 1_000 * after[0], steps.astype(jnp.float32)])
        over = jax.random.uniform(going) < 0.2
        return (after[0], steps), Step(seen, reward, over, ~over & (steps == 5))


# Once more, in NumPy and float64.


class Moments:
    """Of all values, after a ten-thousandth of one with mean 0 and variance 1."""

    def __init__(self, shape=()):
        self.mean, self.variance, self.count = np.zeros(shape), np.ones(shape), 1e-4

    def update(self, values):
        mean, variance, count = values.mean(0), values.var(0), len(values)
        total, delta = self.count + count, mean - self.mean
        squares = self.variance * self.count + variance * count
        squares += delta**2 * self.count * count / total
        self.mean, self.variance = self.mean + delta * count / total, squares / total
        self.count = total

    def normalized(self, values, centred=True):
        values = values - self.mean if centred else values
        return np.clip(values / np.sqrt(self.variance + 1e-8), -10, 10)


class InNumPy:
    """Statistics of transitions as they come, of one env step of all environments at once."""

    def __init__(self, shape, num_envs, discount=0.99):
        self.observations, self.returns = Moments(shape), Moments()
        self.so_far, self.discount = np.zeros(num_envs), discount

    def add(self, one: Transition):
        self.observations.update(np.asarray(one.obs_tm1, np.float64))
        self.so_far = self.so_far * self.discount + np.asarray(one.reward, np.float64)
        self.returns.update(self.so_far)
        self.so_far[np.asarray((one.discount == 0) | one.truncated)] = 0.0


def transitions(count: int, num_envs: int, seed: int = 0) -> Transition:
    """With axes for env steps and for environments; some terminated, some truncated."""
    rng, axes = np.random.default_rng(seed), (count, num_envs)
    obs = rng.normal(50, [1, 20, 1e-2], size=(count + 1, num_envs, 3)).astype(np.float32)
    over, cut = rng.random(axes) < 0.1, rng.random(axes) < 0.1
    return Transition(
        *(obs[:-1], rng.integers(0, 4, axes).astype(np.int32)),
        rng.normal(3, 40, axes).astype(np.float32),
        1 - over.astype(np.float32),
        *(obs[1:], cut & ~over),
    )


def at(batch: Transition, i) -> Transition:
    return jax.tree.map(lambda x: x[i], batch)


@partial(jax.jit, static_argnames="num_envs")
def filled(num_envs: int, batch: Transition):
    """A memory of transitions added one after the other."""
    inner = Replay.empty(300, (3,), np.dtype(np.float32), Discrete(4))
    memory = NormalizingMemory.around(
        inner,
        (3,),
        np.dtype(np.float32),
        num_envs=num_envs,
        discount=0.99,
        observations=True,
        rewards=True,
    )
    steps = at(batch, (slice(None), 0)) if num_envs == 1 else batch
    return jax.lax.scan(lambda memory, one: (memory.add(one), None), memory, steps)[0]


def check(moments: RunningMoments, expected: Moments):
    mean, deviation = moments.normal()
    np.testing.assert_allclose(mean, expected.mean, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(deviation**2, expected.variance + 1e-8, rtol=1e-5)


@pytest.mark.parametrize("sizes", [[1] * 5, [1] * 60, [7, 1, 30, 2], [500]], ids=len)
def test_moments_of_a_stream(sizes):
    rng, moments, expected = np.random.default_rng(0), RunningMoments.empty((3,)), Moments((3,))
    for size in sizes:
        values = rng.normal([0, -200, 3e-3], [1, 30, 1e-3], size=(size, 3)).astype(np.float32)
        moments = moments.updated(jnp.asarray(values))
        expected.update(values.astype(np.float64))
    check(moments, expected)
    assert int(moments.count) == sum(sizes)


def test_of_nothing_yet_they_are_0_and_1():
    mean, deviation = RunningMoments.empty((2,)).normal()
    np.testing.assert_array_equal(mean, 0.0)
    np.testing.assert_allclose(deviation, 1.0)


def test_a_long_stream_is_not_lost_in_float32():
    """One value at a time, far from 0, and slowly moving."""
    count = 300_000
    noise = np.random.default_rng(0).normal(size=count) + np.linspace(0, 3, count)
    values = (1_000 + noise).astype(np.float32)

    @jax.jit
    def followed(values):
        def step(carry, value):
            moments, plain, n = carry
            plain = plain + (value - plain) / (n + 1)
            return (moments.updated(value[None]), plain, n + 1), None

        start = RunningMoments.empty(), jnp.array(0.0), jnp.array(0.0)
        return jax.lax.scan(step, start, values)[0]

    moments, plain, _ = followed(jnp.asarray(values))
    exact = values.astype(np.float64)
    assert float(moments.mean) == pytest.approx(exact.mean(), abs=6e-5)  # half a unit of 1,000's
    assert float(moments.variance) == pytest.approx(exact.var(), rel=1e-6)
    assert abs(float(plain) - exact.mean()) > 3e-4


@pytest.mark.parametrize("num_envs", [1, 3])
def test_a_memory_normalises_what_it_gives_and_keeps_what_came(num_envs):
    batch, expected = transitions(80, num_envs), InNumPy((3,), num_envs)
    memory = filled(num_envs, batch)
    for i in range(80):
        expected.add(at(batch, i))
    check(memory.observations, expected.observations)
    check(memory.rewards.moments, expected.returns)
    np.testing.assert_allclose(memory.rewards.so_far, expected.so_far, rtol=1e-4, atol=1e-4)
    raw, given = memory.inner.first(80 * num_envs), memory.first(80 * num_envs)
    rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
    assert bit_equal(raw, jax.tree.map(jnp.asarray, rows))
    for name in ("obs_tm1", "obs_t"):
        wanted = expected.observations.normalized(getattr(rows, name).astype(np.float64))
        np.testing.assert_allclose(getattr(given, name), wanted, rtol=1e-4, atol=1e-4)
    wanted = expected.returns.normalized(rows.reward.astype(np.float64), centred=False)
    np.testing.assert_allclose(given.reward, wanted, rtol=1e-5)
    for name in ("action", "discount", "truncated"):
        np.testing.assert_array_equal(getattr(given, name), getattr(raw, name))
    drawn, same = memory.sample(KEY, 50), memory.inner.sample(KEY, 50)
    np.testing.assert_array_equal(drawn.obs_t, as_seen(memory, same.obs_t))
    np.testing.assert_array_equal(drawn.reward, as_learned(memory, same.reward))
    assert (memory.capacity, int(memory.size)) == (300, 80 * num_envs)


def test_what_is_far_out_is_clipped():
    memory = filled(1, transitions(50, 1))
    far = jnp.array([1e9, -1e9, 50.0])
    np.testing.assert_array_equal(as_seen(memory, far)[:2], [10.0, -10.0])
    np.testing.assert_array_equal(as_learned(memory, jnp.array([1e9, 0.0, -1e9])), [10, 0, -10])


def test_where_episodes_are_cut_off_returns_begin_anew():
    memory = filled(3, transitions(50, 3))
    cut = memory.cut_off(3)
    np.testing.assert_array_equal(cut.rewards.so_far, 0.0)
    assert bit_equal(cut.rewards.moments, memory.rewards.moments)
    last = memory.cut_off(1).rewards.so_far
    np.testing.assert_array_equal(last[:2], memory.rewards.so_far[:2])
    assert float(last[2]) == 0.0
    ends = cut.inner.storage
    assert bool((ends.truncated | (ends.discount == 0))[147:150].all())


# In a Run.

CASES = {
    "dqn": (DQN, Loud(), 200),
    "dqn, three": (dataclasses.replace(DQN, num_envs=3), Loud(), 204),
    "ppo": (POLICY, Loud(), 192),
    "dqn, host": (DQN, POLE, 200),
    "sac, host, two": (dataclasses.replace(SOFT, num_envs=2), CHEETAH, 120),
    "ppo, host": (dataclasses.replace(POLICY, num_envs=2), POLE, 192),
}


ALIKE = ("dqn", "dqn, host")


@pytest.fixture(
    params=[pytest.param(n, marks=pytest.mark.slow if n in ALIKE else ()) for n in CASES]
)
def case(request):
    return CASES[request.param]


def test_a_run_knows_what_was_acted_on(case):
    """The observation that an episode ends in is not acted on, and does not count."""
    agent, environment, env_steps = case
    run, log = Run.start(agent, environment, seed=0).advance(env_steps)
    held, count = run.state.replay, agent.num_envs
    expected = InNumPy(environment.observation_shape, count, agent.discount)
    # All of what PPO did is in the log; its memory is of a round.
    rewards = np.asarray(log.reward).reshape(-1, count)
    ended = np.asarray(log.terminated | log.truncated).reshape(-1, count)
    for reward, end in zip(rewards, ended, strict=True):
        expected.so_far = expected.so_far * agent.discount + reward
        expected.returns.update(expected.so_far)
        expected.so_far[end] = 0.0
    check(held.rewards.moments, expected.returns)
    np.testing.assert_allclose(held.rewards.so_far, expected.so_far, rtol=1e-4, atol=1e-5)
    assert int(held.observations.count) == env_steps
    if held.capacity >= env_steps:
        seen = np.asarray(held.inner.first(env_steps).obs_tm1, np.float64)
        expected.observations.update(seen)
        check(held.observations, expected.observations)
    assert float(jnp.abs(held.first(64).obs_tm1).max()) <= 10
    assert np.isfinite(log.value).all()


def test_in_pieces_or_in_one_or_forked_it_is_the_same_run(case):
    agent, environment, env_steps = case
    one, log = Run.start(agent, environment, seed=0).advance(env_steps)
    run, start = Run.start(agent, environment, seed=0), 64 if agent.batch_size == 64 else 48
    for steps in (start, env_steps - start):
        if environment != POLE:  # a fork of which begins a new episode
            run = run.fork().intervene(Nothing())
        run, last = run.advance(steps)
    assert bit_equal(one.state, run.state)
    assert bit_equal(last, jax.tree.map(lambda x: x[start:], log))


@pytest.mark.parametrize(
    ("agent", "environment"),
    [
        pytest.param(SOFT, Reach(), marks=pytest.mark.slow),
        (SOFT, CHEETAH),
        (POLICY, Reach()),
        (DQN, POLE),
    ],
)
def test_saved_and_loaded_it_goes_on_as_if_it_had_never_stopped(agent, environment, tmp_path):
    run, _ = Run.start(agent, environment, seed=0).advance(128)
    run = run.fork() if environment == POLE else run
    save(run, tmp_path / "run.ckpt")
    loaded = load(tmp_path / "run.ckpt")
    assert bit_equal(loaded.state, run.state)
    assert int(loaded.state.replay.observations.count) == 128
    (on, log), (again, log_again) = run.advance(64), loaded.advance(64)
    assert bit_equal(on.state, again.state)
    assert bit_equal(log, log_again)


@pytest.mark.parametrize("num_envs", [1, 4])
def test_a_round_goes_on_where_it_did_before_it_was_normalised(num_envs):
    """What ends one transition and begins the next is one observation, to the last bit."""
    agent = dataclasses.replace(POLICY, num_envs=num_envs)
    run, _ = Run.start(agent, Loud(), seed=0).advance(640)
    goes_on = jax.jit(lambda memory: _goes_on(agent.batch(memory, KEY), num_envs))
    raw = np.asarray(goes_on(run.state.replay.inner))
    np.testing.assert_array_equal(goes_on(run.state.replay), raw)
    assert 30 < raw.sum() < 64 - num_envs


def test_evaluation_acts_on_normalised_observations_and_leaves_the_statistics(case):
    agent, environment, env_steps = case
    run, _ = Run.start(agent, environment, seed=0).advance(env_steps)
    was = jax.tree.map(jnp.copy, run.state)
    if environment != CHEETAH:  # whose episodes have a thousand steps
        assert evaluate(run, 3) == evaluate(run, 3)
    assert np.isfinite(run.play_out(at_most=20)[0]).all()
    assert bit_equal(run.state, was)


# Who sees what.


@dataclasses.dataclass(frozen=True)
class Ear(PPO):
    """Does 1 where it is shown something beyond 10, and predicts the largest that it is shown."""

    def act(self, state, obs, env_steps, key):
        return self.exploit(state, obs, key), jnp.abs(obs).max()

    def exploit(self, state, obs, key):
        return (jnp.abs(obs).max() > 10).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Watched(Loud):
    """The reward is what the agent does, which is 0 or 1."""

    def step(self, state, action, key):
        after, step = super().step(state, action, key)
        return after, step._replace(reward=action.astype(jnp.float32))


@dataclasses.dataclass(frozen=True)
class Afar(HostEnvironment):
    """The same on the host, in episodes of seven steps; it can be copied."""

    observation_shape, observation_dtype = (2,), np.dtype(np.float32)
    action_space, snapshot_size = Discrete(2), 1

    def simulator(self):
        return AfarSimulator()


class AfarSimulator(Simulator):
    def reset(self, seed):
        self.steps = 0
        return self.shown()

    def shown(self):
        return np.array([5_000 + 1_000 * (-1) ** self.steps, self.steps], np.float32)

    def step(self, action):
        self.steps += 1
        return HostStep(self.shown(), float(action), self.steps == 7, False)

    def snapshot(self):
        return np.array([self.steps], np.uint8)

    def restore(self, snapshot):
        (self.steps,) = snapshot.tolist()


@pytest.mark.parametrize(
    ("num_envs", "environment"),
    [
        pytest.param(1, Watched(), marks=pytest.mark.slow),
        (2, Watched()),
        (1, Afar()),
        pytest.param(2, Afar(), marks=pytest.mark.slow),
    ],
    ids=["1-device", "2-device", "1-host", "2-host"],
)
def test_whoever_acts_is_shown_what_is_normalised(environment, num_envs):
    brief = {"hidden": 4, "num_envs": num_envs, "batch_size": 64, "epochs": 1, "minibatches": 4}
    for options, heard in ((BOTH, 0.0), ({}, 1.0)):
        run, log = Run.start(Ear(**brief, **options), environment, seed=0).advance(128)
        # The first are shown before there is a scale.
        np.testing.assert_array_equal(log.reward[8:], heard)
        assert (log.value[8:].max() > 10) == bool(heard)
        before = np.asarray(run.state.episode_return).reshape(-1)
        returns, over = run.play_out()
        assert over.all()
        assert (returns - before > 0).all() if heard else not (returns - before).any()
        played = evaluate(run, 4)
        assert [one.env_return for one in played] == [heard * one.length for one in played]


@dataclasses.dataclass(frozen=True)
class Heard(Intervention):
    """The largest observation and reward of its experience become biases of the actor."""

    def __call__(self, state, *, agent, experience, key):
        sampled, oldest = experience.sample(key, 40), experience.first(40)
        largest = [jnp.abs(x).max() for x in (*sampled, *oldest)]
        bias = jnp.zeros(16).at[: len(largest)].set(jnp.stack(largest))
        return eqx.tree_at(lambda s: s.actor.network.layers[0].bias, state, bias)


@dataclasses.dataclass(frozen=True)
class Largest(Probe):
    """The largest input, in units of nothing."""

    def measure(self, view):
        return jnp.abs(view.inputs).max()


def test_interventions_and_probes_see_what_is_normalised():
    run, _ = Run.start(POLICY, Loud(), seed=0).advance(128)
    heard = np.asarray(run.intervene(Heard()).state.agent.actor.network.layers[0].bias)
    for largest in (Transition(*heard[:6]), Transition(*heard[6:12])):
        assert 0.5 < largest.obs_tm1 < 5
        assert 0.5 < largest.obs_t < 5
        assert 0.1 < largest.reward < 10
    (probed,) = run.probe([Largest()], count=64)
    assert all(0.5 < value < 5 for value in probed.values())
    assert float(run.state.replay.inner.first(64).obs_tm1.max()) == 6_000


def test_without_it_nothing_is_learnt_where_what_is_shown_is_far_from_0():
    plain = dataclasses.replace(POLICY, learning_rate=3e-3, **dict.fromkeys(BOTH, False))
    normal = dataclasses.replace(plain, **BOTH)
    last = {}
    for agent in (plain, normal):
        run, log = Run.start(agent, Loud(), seed=0).advance(64 * 100)
        last[agent] = np.asarray(log.reward)[-1_000:].mean() / 300
    assert last[plain] < 0.6
    assert last[normal] > 0.9
    lengths = np.array([one.length for one in evaluate(run, 50)])
    returns = np.array([one.env_return for one in evaluate(run, 50)])
    assert (returns / lengths).mean() / 300 > 0.9
    # γ's horizon is longer than episodes: about two to three rewards in units of their deviation.
    assert 0.5 < np.asarray(log.value)[-1_000:].mean() < 10


def test_frames_that_are_kept_once_can_have_their_rewards_normalised():
    agent = DoubleDQN(**{**BRIEF, "normalize_observations": False}, batch_size=8)
    run, log = Run.start(agent, Atari("breakout"), seed=0).advance(80)
    memory = run.state.replay
    assert isinstance(memory.inner, FrameReplay)
    held = memory.first(80)
    assert held.obs_t.dtype == np.uint8
    learned = np.clip(np.asarray(log.reward), -1, 1)
    _, deviation = memory.rewards.moments.normal()
    np.testing.assert_allclose(held.reward, np.clip(learned / deviation, -10, 10), rtol=1e-6)


# Values, in the unit of rewards as they are learnt from.


@pytest.fixture(params=[1e-3, 1e4])
def unit(request):
    """Of the rewards of the environment that is registered meanwhile."""
    gymnasium.register("Loud-v0", partial(InGymnasium, request.param))
    yield request.param
    gymnasium.registry.pop("Loud-v0")


class InGymnasium(gymnasium.Env):
    """The larger action is right where 6,000 is shown; five steps."""

    observation_space = gymnasium.spaces.Box(-1e4, 1e4, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, unit):
        self.unit = unit

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.right = 0, 0
        return self.shown(), {}

    def shown(self):
        self.right = int(self.np_random.integers(2))
        return np.array([4_000 + 2_000 * self.right, self.steps], np.float32)

    def step(self, action):
        self.steps, reward = self.steps + 1, self.unit * (action == self.right)
        return self.shown(), reward, self.steps == 5, False, {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::regrow.errors.RegrowWarning")  # of its odd scales
def test_values_are_held_against_rewards_in_their_own_unit(unit, tmp_path, monkeypatch):
    monkeypatch.setattr("regrow.sources.base.RANDOM_STEPS", 1_000)
    agent = dataclasses.replace(POLICY, learning_rate=3e-3)
    plan = small.diagnosis_of(agent, Gymnasium("Loud-v0"), 640, 1_280)
    verdict = diagnose(plan, tmp_path)
    assert "values_diverged" not in {finding.code for finding in verdict.findings}
    for outcome in outcomes_of(tmp_path):
        assert 0.3 < outcome.realised < 10
        assert 0.1 < outcome.largest_reward <= 10
        assert 0.05 < max(outcome.predicted) < DIVERGED * outcome.realised
        assert 2 * unit < np.mean(outcome.curve) <= 5 * unit  # the environment's own
        # In its unit tiny rewards would make them look diverged, and large ones never.
        assert (max(outcome.predicted) > DIVERGED * 5 * unit) == (unit < 1)


# What is refused, and what is named.


@pytest.mark.parametrize(
    ("agent", "environment", "shown"),
    [
        (DQN, Breakout(), "bool[10, 10, 4]"),
        (dataclasses.replace(PIXELS, normalize_observations=True), Shades(), "uint8[8, 8, 2]"),
        (DoubleDQN(**BRIEF), Atari("pong"), "uint8[84, 84, 4]"),
    ],
)
def test_images_of_bytes_or_booleans_are_refused(agent, environment, shown):
    message = f"normalize_observations takes floats, and observations are {shown}; leave it off"
    with refused_in_a_line(message):
        abstract_state(agent, environment, ())


def test_named_in_the_grammar_and_off_where_nothing_is_said():
    for agent in (DQN, SOFT, POLICY):
        assert "normalize_observations=True, normalize_rewards=True" in describe(agent)
        assert make("agents", describe(agent)) == agent
        plain = type(agent)()
        assert "normalize" not in describe(plain)
        state = abstract_state(plain, Loud() if agent is not SOFT else Reach(), ())
        assert isinstance(state.replay, Replay)


def test_compute_is_counted_as_without():
    plain = dataclasses.replace(POLICY, **dict.fromkeys(BOTH, False))
    costs = [cost(agent, abstract_state(agent, Loud(), ())) for agent in (POLICY, plain)]
    assert costs[0] == costs[1]

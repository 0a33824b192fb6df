"""Advantages, losses and their gradients against NumPy in float64; rounds, learning, resets."""

import dataclasses
from functools import partial
from typing import ClassVar

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from small import DQN, PIXELS, POLICY, SOFT
from trees import bit_equal, distance

from regrow.agents import PPO
from regrow.agents.ppo import Rollout, choices, policy
from regrow.cli import entry as cli
from regrow.cli.diagnose import _plan
from regrow.environments import Breakout, Gymnasium, MatchingReward, Reach
from regrow.environments.base import DeviceEnvironment, Step
from regrow.errors import RegrowError
from regrow.interventions import Inject, Reset
from regrow.learners.churn import ChurnBalance
from regrow.learners.learner import Learner, learners
from regrow.networks.network import Network
from regrow.probes import PolicyChurn
from regrow.training.evaluate import evaluate
from regrow.training.run import Run, random_policy
from regrow.types import Continuous, Discrete, MultiDiscrete, Transition

KEY = jax.random.key(5)
SEEN, ENVS, COUNT = 3, 2, 24
PASSES = {"epochs": 4, "minibatches": 4}
AGENT = PPO(
    hidden=8,
    batch_size=COUNT,
    num_envs=ENVS,
    discount=0.9,
    trace=0.7,
    entropy=0.05,
    **PASSES,
)
NUMBERED, VECTORS, CHOICES = Discrete(4), Continuous(2), MultiDiscrete((2, 4, 3))
both = pytest.mark.parametrize("space", [NUMBERED, VECTORS], ids=["numbered", "vectors"])
every = pytest.mark.parametrize(
    "space", [NUMBERED, VECTORS, CHOICES], ids=["numbered", "vectors", "choices"]
)


def started(space, agent: PPO = AGENT):
    """A state that does not choose alike in all observations."""
    state = agent.init((SEEN,), np.dtype(np.float32), space, KEY)
    louder = jax.tree.map(lambda x: 30 * x, state.actor.network.layers[-1])
    state = eqx.tree_at(lambda s: s.actor.network.layers[-1], state, louder)
    if state.log_std is not None:
        state = eqx.tree_at(lambda s: s.log_std.value, state, jnp.array([-0.5, 0.3]))
    return state


def round_of(space, ends: dict[int, float], *, alike: bool = False) -> Transition:
    """A round of two environments in turn; `ends`: rows after which an episode is new, and d.

    With `alike` a truncated episode ends in the very observation that the next one begins with.
    """
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(COUNT + ENVS, SEEN)).astype(np.float32)
    after, discount = seen[ENVS:].copy(), np.ones(COUNT, np.float32)
    truncated = np.zeros(COUNT, bool)
    for row, d in ends.items():
        last = rng.normal(size=SEEN)
        after[row] = after[row] if alike and d else last
        discount[row], truncated[row] = d, d == 1.0
    if isinstance(space, Discrete):
        action = rng.integers(0, space.number, COUNT).astype(np.int32)
    elif isinstance(space, MultiDiscrete):
        action = rng.integers(0, space.numbers, (COUNT, 3)).astype(np.int32)
    else:
        action = rng.normal(size=(COUNT, space.size)).astype(np.float32)
    reward = rng.normal(size=COUNT).astype(np.float32)
    return Transition(*map(jnp.asarray, (seen[:COUNT], action, reward, discount, after, truncated)))


@every
def test_losses_are_those_of_a_minibatch_as_it_was_collected(space):
    """ρ = 1 there: L(π) = −E A − c H(π), for several choices at once, too."""
    state, batch = started(space), round_of(space, {5: 0.0})
    losses = AGENT.losses(state, batch, KEY)
    seen = AGENT.rollout(state, batch)
    _, entropy = policy(
        state.actor.network,
        None if state.log_std is None else state.log_std.value,
        seen.obs,
        seen.action,
        state.numbers,
    )
    expected = -float(seen.advantage.mean()) - AGENT.entropy * float(entropy.mean())
    assert float(losses["actor"]) == pytest.approx(expected, rel=1e-4, abs=1e-6)


# PPO once more, in NumPy and float64.


def arrays(network: Network) -> list[np.ndarray]:
    return [
        np.asarray(x, np.float64) for layer in network.layers for x in (layer.weight, layer.bias)
    ]


def forward(network: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    pairs = list(zip(network[::2], network[1::2], strict=True))
    for weight, bias in pairs[:-1]:
        x = np.tanh(x @ weight + bias)
    return x @ pairs[-1][0] + pairs[-1][1]


def log_probs(actor: list[np.ndarray], log_std, obs, action) -> tuple[np.ndarray, np.ndarray]:
    out = forward(actor, np.asarray(obs, np.float64))
    if np.ndim(action) == 2 and log_std is None:  # of CHOICES, one after the other
        parts = [
            softmax_log_probs(x, a) for x, a in zip(apart(out), np.transpose(action), strict=True)
        ]
        return tuple(sum(each) for each in zip(*parts, strict=True))
    if log_std is None:
        return softmax_log_probs(out, action)
    each = scipy.stats.norm(out, np.exp(log_std)[None])
    return each.logpdf(action).sum(axis=1), each.entropy().sum(axis=1)


def apart(out) -> list:
    return [out[:, :2], out[:, 2:6], out[:, 6:]]


def softmax_log_probs(out: np.ndarray, action) -> tuple[np.ndarray, np.ndarray]:
    p = np.exp(out) / np.exp(out).sum(axis=1, keepdims=True)
    return np.log(p[np.arange(len(p)), action]), scipy.stats.entropy(p, axis=1)


def advantages(critic: list[np.ndarray], batch: Transition, ends: dict[int, float]) -> np.ndarray:
    """A as the sum of discounted errors, environment by environment, episode by episode."""
    before, after = (
        forward(critic, np.asarray(x, np.float64))[:, 0] for x in (batch.obs_tm1, batch.obs_t)
    )
    error = np.asarray(batch.reward) + 0.9 * np.asarray(batch.discount) * after - before
    found = np.zeros(COUNT)
    for row in range(COUNT):
        weight, later = 1.0, row
        while later < COUNT:
            found[row] += weight * error[later]
            if later in ends:
                break
            weight, later = weight * 0.9 * 0.7, later + ENVS
    return found


ENDS = {4: 0.0, 7: 1.0, 11: 0.0, 12: 1.0, 14: 0.0}  # terminated and truncated, both environments


@partial(jax.jit, static_argnums=0)
def rollout(agent: PPO, state, batch: Transition) -> Rollout:
    return agent.rollout(state, batch)


@partial(jax.jit, static_argnums=(0, 5))
def by_hand(agent: PPO, actor: Network, std, critic: Network, part: Rollout, numbers):
    pulls = jax.grad(agent.actor_loss, argnums=(0, 1))(actor, std, part, numbers)
    return pulls, jax.grad(agent.critic_loss)(critic, part)


@jax.jit
def descended(learner: Learner, gradient):
    return learner.descend(gradient)


def test_advantages_do_not_leak_across_a_truncation_between_equal_observations():
    state, batch = started(NUMBERED), round_of(NUMBERED, ENDS, alike=True)
    np.testing.assert_array_equal(batch.obs_t[12], batch.obs_tm1[12 + ENVS])
    expected = advantages(arrays(state.critic.network), batch, ENDS)
    np.testing.assert_allclose(
        rollout(AGENT, state, batch).advantage, expected, rtol=2e-5, atol=2e-5
    )


@every
def test_advantages_in_numpy(space):
    state, batch = started(space), round_of(space, ENDS)
    critic, seen = arrays(state.critic.network), rollout(AGENT, state, batch)
    expected = advantages(critic, batch, ENDS)
    np.testing.assert_allclose(seen.advantage, expected, rtol=2e-5, atol=2e-5)
    value = forward(critic, np.asarray(batch.obs_tm1))[:, 0]
    np.testing.assert_allclose(seen.value, expected + value, rtol=2e-5, atol=2e-5)
    std = None if state.log_std is None else np.asarray(state.log_std.value, np.float64)
    before, _ = log_probs(arrays(state.actor.network), std, batch.obs_tm1, batch.action)
    np.testing.assert_allclose(seen.log_prob, before, rtol=2e-5, atol=2e-5)


def test_a_batch_in_another_order_has_advantages_of_one_step():
    state, batch = started(NUMBERED), round_of(NUMBERED, ENDS)
    order = np.arange(COUNT)[::-1]
    found = rollout(AGENT, state, jax.tree.map(lambda x: x[order], batch)).advantage
    alone = dataclasses.replace(AGENT, trace=0.0)
    expected = rollout(alone, state, batch).advantage[order]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@every
def test_losses_and_gradients_in_numpy(space):
    """Off the policy that acted, where some ratios are clipped; gradients by differences."""
    state, batch = started(space), round_of(space, ENDS)
    seen = rollout(AGENT, state, batch)
    moved = jax.tree.map(lambda x: x + 0.1 * jnp.sign(x), state.actor.network)
    std = None if state.log_std is None else state.log_std.value

    acted, gain = np.asarray(seen.log_prob, np.float64), np.asarray(seen.advantage, np.float64)

    def expected(actor: list[np.ndarray]) -> float:
        log_std = None if std is None else np.asarray(std, np.float64)
        log_prob, entropy = log_probs(actor, log_std, batch.obs_tm1, np.asarray(batch.action))
        ratio = np.exp(log_prob - acted)
        limited = np.minimum(ratio * gain, np.clip(ratio, 0.8, 1.2) * gain)
        assert ((ratio < 0.8) | (ratio > 1.2)).any()
        assert ((ratio > 0.8) & (ratio < 1.2)).any()
        return float(-limited.mean() - 0.05 * entropy.mean())

    loss, gradient = jax.value_and_grad(
        lambda one: AGENT.actor_loss(one, std, seen, state.numbers)
    )(moved)
    np.testing.assert_allclose(loss, expected(arrays(moved)), rtol=2e-5)
    along = arrays(gradient)
    length = np.sqrt(sum((g**2).sum() for g in along))
    up, down = (
        expected([x + h * g / length for x, g in zip(arrays(moved), along, strict=True)])
        for h in (1e-5, -1e-5)
    )
    assert (up - down) / 2e-5 == pytest.approx(length, rel=1e-3)
    value = forward(arrays(state.critic.network), np.asarray(batch.obs_tm1))[:, 0] + 1.0
    shifted = eqx.tree_at(
        lambda n: n.layers[-1].bias, state.critic.network, replace_fn=lambda b: b + 1
    )
    half = ((value - np.asarray(seen.value)) ** 2).mean() / 2
    np.testing.assert_allclose(AGENT.critic_loss(shifted, seen), half, rtol=2e-5)


@every
def test_an_update_is_epochs_of_scaled_minibatches(space):
    """Step by step outside of the compiled loop."""
    agent = dataclasses.replace(AGENT, epochs=2, minibatches=3)
    state, batch = started(space, agent), round_of(space, ENDS)
    found, seen = jax.jit(agent.update)(state, batch, KEY), rollout(agent, state, batch)
    actor, critic, log_std = state.actor, state.critic, state.log_std
    for key in jax.random.split(KEY, 2):
        for rows in np.asarray(jax.random.permutation(key, COUNT)).reshape(3, 8):
            part = Rollout(*(x[rows] for x in seen))
            gain = np.asarray(part.advantage, np.float64)
            part = part._replace(
                advantage=jnp.asarray((gain - gain.mean()) / gain.std(), jnp.float32)
            )
            std = None if log_std is None else log_std.value
            grads, pull = by_hand(agent, actor.network, std, critic.network, part, state.numbers)
            actor, critic = descended(actor, grads[0]), descended(critic, pull)
            if log_std is not None:
                log_std = log_std.descend(grads[1])
    assert distance(found.actor.network, actor.network) < 1e-5
    assert distance(found.critic.network, critic.network) < 1e-5
    assert distance(found.actor.network, state.actor.network) > 1e-4
    if log_std is not None:
        np.testing.assert_allclose(found.log_std.value, log_std.value, atol=1e-6)


# Churn.


def held_by_hand(space, agent: PPO, state, seen: Rollout, orders, strength: float):
    """(state, L, R) after one epoch, step by step, R by the losses of Optax."""
    actor, critic, log_std = state.actor, state.critic, state.log_std
    losses, churns = [], []
    for rows, held in zip(*(np.asarray(order) for order in orders), strict=True):
        part, obs, before = (
            Rollout(*(x[rows] for x in seen)),
            seen.obs[held],
            actor.previous_network,
        )
        gain = part.advantage - part.advantage.mean()
        part = part._replace(advantage=gain / gain.std())
        std = None if log_std is None else log_std.value

        def churn(network, obs=obs, before=before, std=std):
            if std is None:
                outs = network(obs), before(obs)
                now, then = ([out] if space is NUMBERED else apart(out) for out in outs)
                pairs = zip(now, map(jax.nn.softmax, then), strict=True)
                return sum(optax.losses.softmax_cross_entropy(*pair).mean() for pair in pairs)
            return optax.losses.squared_error(network(obs), before(obs)).mean()

        (pull, turn), push = by_hand(agent, actor.network, std, critic.network, part, state.numbers)
        loss, (moved, back) = (
            agent.actor_loss(actor.network, std, part, state.numbers),
            jax.value_and_grad(churn)(actor.network),
        )
        losses.append(float(loss))
        churns.append(float(moved))
        actor = actor.descend(jax.tree.map(lambda a, b: a + strength * b, pull, back))
        critic = critic.descend(push)
        log_std = None if log_std is None else log_std.descend(turn)
    return dataclasses.replace(state, actor=actor, critic=critic, log_std=log_std), losses, churns


@pytest.mark.parametrize(
    "space",
    [pytest.param(NUMBERED, marks=pytest.mark.slow), VECTORS, CHOICES],
    ids=["numbered", "vectors", "choices"],
)
def test_the_policy_is_held_where_it_was_and_with_a_share_as_firmly_as_the_losses_say(space):
    agent = dataclasses.replace(
        AGENT, epochs=1, minibatches=3, churn=30.0, churn_share=1e3, learning_rate=0.01
    )
    state, batch = started(space, agent), round_of(space, ENDS)
    windows = {NUMBERED: (200, 20), CHOICES: (200, 20), VECTORS: (100, 50)}
    assert (state.balance.recent.shape[1], state.balance.patience) == windows[space]
    state = dataclasses.replace(state, balance=ChurnBalance.create(2, patience=2))
    update, expected = jax.jit(agent.update), state
    plain = jax.jit(dataclasses.replace(agent, churn=0.0, churn_share=0.0).update)
    seen_l, seen_r = [], []
    for i in range(4):
        seen, key = rollout(agent, expected, batch), jax.random.fold_in(KEY, i)
        (own,) = jax.random.split(key, 1)
        orders = [
            jax.random.permutation(one, COUNT).reshape(3, 8)
            for one in (own, jax.random.fold_in(own, 1))
        ]
        strength = 30.0
        if i >= 2:  # what the two rounds before came to
            strength = 1e3 * np.abs(seen_l[-2:]).mean() / (np.mean(seen_r[-2:]) + 1e-8)
            strength = strength if space is VECTORS else max(strength, 1.0)
        expected, losses, churns = held_by_hand(space, agent, expected, seen, orders, strength)
        seen_l.append(np.mean(losses))
        seen_r.append(np.mean(churns))
        free = plain(state, batch, key)
        state = update(state, batch, key)
        assert distance(state.actor.network, expected.actor.network) < 1e-4
        assert distance(state.critic.network, expected.critic.network) < 1e-5
        assert distance(state.actor.network, free.actor.network) > 1e-3
        expected = dataclasses.replace(expected, actor=state.actor)
    assert int(state.balance.updates) == 4


@pytest.mark.slow
@both
def test_the_policy_moves_the_less_the_more_it_is_held(space):
    """Over steps that have nothing to learn from but noise."""

    def moves(churn: float) -> float:
        agent = dataclasses.replace(AGENT, churn=churn, learning_rate=0.01)
        state, batch = started(space, agent), round_of(space, ENDS)
        update, found = jax.jit(agent.update), []
        for i in range(20):
            noise = jax.random.normal(jax.random.key(i), batch.reward.shape)
            before, state = state, update(state, batch._replace(reward=noise), KEY)
            out = [one.actor.network(batch.obs_tm1) for one in (before, state)]
            found.append(float(((out[1] - out[0]) ** 2).mean()))
        return float(np.mean(found[10:]))

    free, held, firmly = moves(0.0), moves(10.0), moves(1_000.0)
    assert firmly < held < free
    assert firmly < free / 2


# In the loop.

BRIEF = {"hidden": 16, "num_envs": 4, "batch_size": 64, **PASSES}


def test_a_round_is_all_that_is_remembered_and_learnt_from():
    agent = PPO(channels=4, **BRIEF)
    run, log = Run.start(agent, Breakout(), seed=0).advance(192)
    assert int(run.state.updates) == 3
    assert run.state.replay.capacity == int(run.state.replay.size) == 64
    held = run.state.replay.first(64)
    np.testing.assert_array_equal(held.reward, log.reward[-64:])
    ended = (log.terminated | log.truncated)[-64:]
    same = (held.obs_t[:-4] == held.obs_tm1[4:]).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(same | ended[:-4], True)
    counts = [s[0].count for one in learners(run.state.agent).values() for s in one.statistics]
    assert set(map(int, counts)) == {3 * 4 * 4}  # updates × epochs × minibatches


@dataclasses.dataclass(frozen=True)
class Corridor(DeviceEnvironment):
    """One step ahead is worth 1, and the tenth ends the episode."""

    observation_shape, observation_dtype, num_actions = (1,), np.dtype(np.float32), 2

    def reset(self, key):
        del key
        return jnp.array(0.0), jnp.zeros(1)

    def step(self, state, action, key):
        del key
        state = state + action
        return state, Step(state[None] / 10, action * 1.0, state >= 10, jnp.bool_(False))


@pytest.mark.always
def test_it_learns():
    agent = PPO(**BRIEF, learning_rate=3e-3, entropy=0.01)
    _, log = Run.start(agent, MatchingReward(), seed=0).advance(4_096)
    assert log.reward[-512:].mean() > 0.9 > log.reward[:64].mean()
    _, log = Run.start(agent, Corridor(), seed=0).advance(4_096)
    assert log.reward[-512:].mean() > 0.9
    assert log.value[-512:].mean() == pytest.approx(5.5, abs=1.0)  # 10 … 1 to go


@dataclasses.dataclass(frozen=True)
class Echo(DeviceEnvironment):
    """One-step episodes worth the share of choices that are as shown; the last is of three."""

    observation_shape, observation_dtype = (3,), np.dtype(np.float32)
    action_space = MultiDiscrete((2, 2, 3))

    def reset(self, key):
        wanted = jax.random.randint(key, (3,), 0, jnp.array([2, 2, 3]))
        return wanted, wanted - 1.0

    def step(self, state, action, key):
        del key
        reward = jnp.mean((action == state).astype(jnp.float32))
        return state, Step(state - 1.0, reward, jnp.bool_(True), jnp.bool_(False))


def test_it_learns_several_choices_at_once():
    agent = PPO(**BRIEF, learning_rate=3e-3)
    run, log = Run.start(agent, Echo(), seed=0).advance(8_192)
    assert log.reward[:256].mean() == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3, abs=0.1)
    assert log.reward[-1_024:].mean() > 0.9
    held = run.state.replay.first(64).action
    assert (held.shape, held.dtype) == ((64, 3), np.int32)
    by_chance = random_policy(Echo(), 3_000, seed=0)
    assert by_chance.reward.mean() == pytest.approx(4 / 9, abs=0.02)
    assert np.mean([episode.env_return for episode in evaluate(run, 50)]) > 0.95
    (churn,) = run.probe([PolicyChurn()], count=32)
    assert all(np.isnan(value) for value in churn.values())  # no output per action


class Pulled(gymnasium.Env):
    """Counts what is pulled; the first lever is numbered from 1."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.MultiDiscrete([2, 3], start=[1, 0])
    pulls: ClassVar[dict] = {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.pulls[tuple(action.tolist())] = self.pulls.get(tuple(action.tolist()), 0) + 1
        self.steps += 1
        seen = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return seen, float(action.sum()), self.steps == 5, False, {}


@pytest.fixture
def levers():
    gymnasium.register("Pulled-v0", Pulled)
    yield Gymnasium("Pulled-v0")
    gymnasium.registry.pop("Pulled-v0")


def test_several_choices_on_the_host(levers):
    by_chance = random_policy(levers, 600, seed=0)
    assert by_chance.reward.mean() == pytest.approx(2.5, abs=0.15)
    assert sorted(Pulled.pulls) == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    run, log = Run.start(POLICY, levers, seed=0).advance(160)
    held = run.state.replay.first(16).action
    np.testing.assert_array_equal(held.sum(axis=1) + 1, log.reward[-16:])


@pytest.mark.parametrize("numbers", [(2, 4, 3), (2, 2, 2, 2), (5,), (1, 3)])
def test_logs_entropies_and_draws_of_several_choices(numbers):
    rng = np.random.default_rng(1)
    state = PPO(hidden=8).init((SEEN,), np.dtype(np.float32), MultiDiscrete(numbers), KEY)
    louder = jax.tree.map(lambda x: 100 * x, state.actor.network.layers[-1])
    state = eqx.tree_at(lambda s: s.actor.network.layers[-1], state, louder)
    obs = jnp.asarray(rng.normal(size=(50, SEEN)), jnp.float32)
    action = rng.integers(0, numbers, (50, len(numbers))).astype(np.int32)
    out = forward(arrays(state.actor.network), np.asarray(obs))
    parts = np.split(out, np.cumsum(numbers)[:-1], axis=1)
    each = [softmax_log_probs(x, a) for x, a in zip(parts, action.T, strict=True)]
    log_prob, entropy = policy(state.actor.network, None, obs, jnp.asarray(action), numbers)
    np.testing.assert_allclose(log_prob, sum(x for x, _ in each), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(entropy, sum(h for _, h in each), rtol=2e-5, atol=1e-6)
    best = PPO().exploit(state, obs[0], KEY)
    np.testing.assert_array_equal(best, [x[0].argmax() for x in parts])
    keys = jax.random.split(KEY, 4_000)
    drawn = np.asarray(jax.vmap(lambda key: PPO().act(state, obs[0], jnp.array(0), key)[0])(keys))
    assert drawn.dtype == np.int32
    for i, x in enumerate(parts):
        shares = np.bincount(drawn[:, i], minlength=numbers[i]) / len(drawn)
        np.testing.assert_allclose(shares, np.exp(x[0]) / np.exp(x[0]).sum(), atol=0.03)


def test_a_choice_that_is_missing_moves_nothing():
    """Where choices are filled up to the most, neither value nor gradient is other than finite."""
    out = jnp.array([[3.0, -80.0, 0.5, 2.0, 90.0, -5.0, 1.0, 0.0, 4.0]])

    def entropy(out):
        log_probs = jax.nn.log_softmax(choices(out, (2, 4, 3)))
        return -jnp.sum(jnp.exp(log_probs) * log_probs)

    def one_by_one(out):
        logs = [jax.nn.log_softmax(x) for x in apart(out)]
        return -sum(jnp.sum(jnp.exp(log) * log) for log in logs)

    for function in (lambda f: f, jax.grad):
        np.testing.assert_allclose(function(entropy)(out), function(one_by_one)(out), atol=1e-6)


@pytest.mark.parametrize("agent", [DQN, SOFT, PIXELS])
def test_other_agents_point_to_it_where_there_are_several_choices(agent):
    with pytest.raises(
        RegrowError, match=r"not several discrete actions at once \(2, 4, 3\); try ppo"
    ):
        agent.init((SEEN,), np.dtype(np.float32), CHOICES, KEY)


def test_it_reaches():
    agent = PPO(**BRIEF, learning_rate=3e-3)
    run, log = Run.start(agent, Reach(), seed=0).advance(8_192)
    assert log.reward[-1_024:].mean() > log.reward[:64].mean() / 4  # it is below 0
    assert float(run.state.agent.log_std.value.max()) < -0.5


def test_a_reset_renews_the_deviations_and_an_injection_does_not():
    run, _ = Run.start(POLICY, Reach(), seed=0).advance(400)
    assert np.asarray(run.state.agent.log_std.value).any()
    assert not np.asarray(run.intervene(Reset("everything")).state.agent.log_std.value).any()
    injected = run.intervene(Inject())
    assert bit_equal(injected.state.agent.log_std, run.state.agent.log_std)
    _, log = injected.advance(16)
    assert np.isfinite(log.value).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 100}, "batch_size is 100; it must be a multiple of num_envs, 8"),
        ({"batch_size": 40, "minibatches": 3}, "it must be a multiple of minibatches, 3"),
        ({"batch_size": 32}, "minibatches is 32; of 32 env steps each must hold two or more"),
        ({"trace": 1.5}, r"trace is 1.5; it must be in \[0, 1\]"),
        ({"clip": 0.0}, "clip is 0.0; it must be > 0"),
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"churn": -1.0}, "churn is -1.0; it must be 0 or more, and finite"),
        ({"churn_share": 1e4}, "churn_share is 10000.0 and churn is 0; with a share, .* e.g. 10"),
        ({"entropy": -1.0}, "entropy is -1.0; it must be 0 or more"),
        ({"max_gradient_norm": 0.0}, "max_gradient_norm is 0.0; it must be > 0"),
        ({"discount": 1.0}, r"discount is 1.0; it must be in \[0, 1\)"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(RegrowError, match=message):
        PPO(**fields)


def test_observations_that_it_does_not_take():
    with pytest.raises(RegrowError, match=r"ppo takes vectors or images .*, not \(2, 3\)"):
        AGENT.init((2, 3), np.dtype(np.float32), NUMBERED, KEY)


@every
def test_its_curvature_can_be_measured(space):
    """Which differentiates the gradients, of which the rollout is a constant."""
    state, batch = started(space), round_of(space, {7: 0.0})
    live = eqx.filter(state, eqx.is_inexact_array)
    _, slope = jax.jvp(
        lambda s: AGENT.gradients(eqx.combine(s, state), batch, KEY), (live,), (live,)
    )
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slope))


@pytest.mark.parametrize(("dtype", "divisor"), [(np.uint8, 255.0), (np.float32, 1.0), (bool, 1.0)])
def test_bytes_are_divided(dtype, divisor):
    state = AGENT.init((6, 6, 2), np.dtype(dtype), NUMBERED, KEY)
    images = np.random.default_rng(0).integers(0, 2, (5, 6, 6, 2)).astype(dtype)
    plain = AGENT.init((6, 6, 2), np.dtype(np.float32), NUMBERED, KEY)
    for name, learner in learners(state).items():
        expected = learners(plain)[name].network(jnp.asarray(images, jnp.float32) / divisor)
        np.testing.assert_allclose(learner.network(jnp.asarray(images)), expected, atol=1e-6)
        assert learner.network.layers[0].fresh(KEY).divisor == divisor


def test_defaults_of_the_command_line_are_whole_rounds():
    """A round of PPO divides none of the round numbers that the defaults are."""
    parser = cli._parser()
    options = parser.parse_args(["diagnose", "toy/reach", "--agent", "ppo"])
    plan = _plan(options)
    assert (plan.fork_at, plan.horizon) == (61_440, 40_960)
    given = parser.parse_args(["diagnose", "toy/reach", "--agent", "ppo", "--fork-at", "60_000"])
    with pytest.raises(RegrowError, match="fork_at is 60000; it must be a multiple of 2048"):
        _plan(given)

"""The update rule against NumPy, and learning where the answer is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import bit_equal, distance

from regrow.agents import DoubleDQN
from regrow.environments import (
    ActionReward,
    ConstantReward,
    DelayedReward,
    ObservationReward,
    TimeLimitReward,
)
from regrow.errors import RegrowError
from regrow.interventions import Inject
from regrow.learners.churn import ChurnBalance
from regrow.networks.network import Network, mlp
from regrow.registry import make, members
from regrow.training.run import Run, abstract_state
from regrow.types import Discrete, Transition

KEY = jax.random.key(5)
SMALL = {"hidden": 32, "learn_start": 100, "replay_capacity": 2_000, "exploration_steps": 500}


def q_values(network, x: np.ndarray) -> np.ndarray:
    h = x.astype(np.float64)
    for layer in network.layers:
        h = h @ np.asarray(layer.weight, np.float64) + np.asarray(layer.bias, np.float64)
        h = np.maximum(h, 0) if layer.activation == "relu" else h
    return h


def batch_of(count: int) -> Transition:
    rng = np.random.default_rng(0)
    return Transition(
        obs_tm1=jnp.asarray(rng.normal(size=(count, 4)), jnp.float32),
        action=jnp.asarray(rng.integers(0, 3, count), jnp.int32),
        reward=jnp.asarray(rng.normal(size=count) * 3, jnp.float32),
        discount=jnp.asarray(rng.integers(0, 2, count), jnp.float32),
        obs_t=jnp.asarray(rng.normal(size=(count, 4)), jnp.float32),
        truncated=jnp.zeros(count, bool),
    )


def test_the_error_and_its_clipped_gradient_in_numpy():
    agent = DoubleDQN(discount=0.9, error_clip=0.7)
    online, target = (mlp(4, (8, 8), 3, key=k) for k in jax.random.split(KEY))
    batch = batch_of(64)
    rows, action = np.arange(64), np.asarray(batch.action)
    q = q_values(online, np.asarray(batch.obs_tm1))
    q_next = q_values(online, np.asarray(batch.obs_t))
    chosen = q_next.argmax(axis=1)
    value = q_values(target, np.asarray(batch.obs_t))[rows, chosen]
    delta = np.asarray(batch.reward) + 0.9 * np.asarray(batch.discount) * value - q[rows, action]
    plain_dqn = q_values(target, np.asarray(batch.obs_t)).max(axis=1)
    assert not np.allclose(value, plain_dqn)  # the double estimator is seen to matter
    huber = np.where(np.abs(delta) <= 0.7, delta**2 / 2, 0.7 * (np.abs(delta) - 0.35))
    assert float(agent.loss(online, target, batch)) == pytest.approx(huber.mean(), rel=1e-5)

    # dL/d(output bias a) = −Σ_{i: a_i = a} clip(δ_i, ±c) / n
    gradient = jax.grad(lambda network: agent.loss(network, target, batch))(online)
    clipped = np.clip(delta, -0.7, 0.7)
    expected = [-clipped[action == a].sum() / 64 for a in range(3)]
    np.testing.assert_allclose(gradient.layers[-1].bias, expected, rtol=1e-4)
    assert (np.abs(delta) > 0.7).any()


def slope(learner, before):
    """What an update with Adam was given for the last layer, by what became of the first moment."""
    old, new = (one.statistics[-1][0].mu for one in (before, learner))
    return jax.tree.map(lambda a, b: (np.asarray(b, np.float64) - 0.9 * a) / 0.1, old, new)


def forgetful(state):
    """The same without the network before, so that nothing is held."""
    return dataclasses.replace(state, q=dataclasses.replace(state.q, previous_network=None))


def test_churn_is_held_down_in_numpy():
    agent = DoubleDQN(discount=0.9, batch_size=24, churn=3.0, hidden=8, learning_rate=0.03)
    assert agent.rows_per_update == 48
    first, batch = batch_of(48), jax.tree.map(lambda x: x[::-1], batch_of(96))
    start = agent.init((4,), np.dtype(np.float32), Discrete(3), KEY)
    one = agent.update(start, first, KEY)
    two = agent.update(one, jax.tree.map(lambda x: x[:48], batch), KEY)
    plain = agent.update(forgetful(one), jax.tree.map(lambda x: x[:24], batch), KEY)
    held = np.asarray(batch.obs_tm1[24:48])
    moved = q_values(one.q.network, held) - q_values(start.q.network, held)
    h = q_values(Network(one.q.network.layers[:-1]), held)
    # d/dq of λ mean_{s, a} (q − q before)² is 2λ(q − q before) / (rows · actions).
    back = 2 * 3.0 * moved / moved.size
    added = jax.tree.map(lambda a, b: a - b, slope(two.q, one.q), slope(plain.q, one.q))
    np.testing.assert_allclose(added.bias, back.sum(axis=0), atol=1e-6)
    np.testing.assert_allclose(added.weight, h.T @ back, atol=1e-6)
    assert np.abs(added.bias).max() > 1e-3
    # Before the first update nothing has moved.
    alone = agent.update(forgetful(start), jax.tree.map(lambda x: x[:24], first), KEY)
    assert distance(one.q.network, alone.q.network) < 1e-6
    # Of fewer transitions, as probes have them, half are held.
    few = jax.tree.map(lambda x: x[:12], batch)
    whole = agent.update(one, few, KEY)
    half = agent.update(forgetful(one), jax.tree.map(lambda x: x[:6], few), KEY)
    assert distance(whole.q.network, half.q.network) > 1e-4


@pytest.mark.slow
def test_churn_falls_the_more_it_is_held_down():
    """Where every reward is noise, so that each update undoes the last one."""

    def churn(weight: float) -> float:
        agent = DoubleDQN(batch_size=16, churn=weight, hidden=32)
        rows, reference = agent.rows_per_update, batch_of(64).obs_tm1

        def step(state, key):
            seeing, acting, paying = jax.random.split(key, 3)
            batch = Transition(
                obs_tm1=jax.random.normal(seeing, (rows, 4)),
                action=jax.random.randint(acting, (rows,), 0, 3),
                reward=3 * jax.random.normal(paying, (rows,)),
                discount=jnp.zeros(rows),
                obs_t=jnp.zeros((rows, 4)),
                truncated=jnp.zeros(rows, bool),
            )
            after = agent.update(state, batch, key)
            moved = after.q.network(reference) - state.q.network(reference)
            return after, jnp.mean(moved**2)

        start = agent.init((4,), np.dtype(np.float32), Discrete(3), KEY)
        keys = jax.random.split(KEY, 200)
        _, found = jax.jit(lambda state: jax.lax.scan(step, state, keys))(start)
        return float(found[100:].mean())

    free, held, firmly = churn(0.0), churn(10.0), churn(100.0)
    assert firmly < held / 2 < free / 3


def test_with_a_share_the_strength_follows_the_losses_in_numpy():
    agent = DoubleDQN(batch_size=8, hidden=8, learning_rate=0.03, churn=5.0, churn_share=0.1)
    state = agent.init((4,), np.dtype(np.float32), Discrete(3), KEY)
    assert state.balance.recent.shape == (2, 50_000)
    assert state.balance.patience == 10_000
    small = ChurnBalance.create(window=4, patience=3)
    state = dataclasses.replace(state, balance=small)
    plain = dataclasses.replace(agent, churn_share=0.0)
    losses, churns = [], []
    for i in range(7):
        batch = jax.tree.map(lambda x, i=i: x[16 * i : 16 * (i + 1)], batch_of(112))
        learned, held = (jax.tree.map(lambda x, p=p: x[p], batch) for p in (slice(8), slice(8, 16)))
        # λ from what the four updates before came to, once there were three.
        expected = 5.0
        if i >= 3:
            expected = 0.1 * np.mean(losses[-4:]) / (np.mean(churns[-4:]) + 1e-8)
        fixed = dataclasses.replace(plain, churn=float(expected))
        alone = fixed.update(dataclasses.replace(state, balance=None), batch, KEY)
        losses.append(float(agent.loss(state.q.network, state.q.target, learned)))
        obs = np.asarray(held.obs_tm1)
        moved = q_values(state.q.network, obs) - q_values(state.q.previous_network, obs)
        churns.append((moved**2).mean())
        state = agent.update(state, batch, KEY)
        assert distance(state.q.network, alone.q.network) < 1e-5
    assert int(state.balance.updates) == 7


@pytest.fixture(scope="module")
def churning() -> Run:
    agent = DoubleDQN(**SMALL, churn=1.0)
    return Run.start(agent, ObservationReward(), seed=0).advance(104)[0]


# What changes parameters and makes no update of the agent's, with options by which it is seen to.
NO_UPDATES = [
    *("reset", "inject", "widen", "deaden", "redo(tau=0.9)"),
    *(
        pytest.param(text, marks=pytest.mark.slow)
        for text in ("shrink_perturb", "dash", "regrama(tau=0.9)")
    ),
]


@pytest.mark.parametrize("text", NO_UPDATES)
def test_what_changes_a_network_between_updates_is_no_churn(churning, text):
    q = churning.state.agent.q
    assert distance(q.previous_network, q.network) > 0
    changed = churning.fork().intervene(make("interventions", text))
    assert not bit_equal(changed.state.agent.q.network, q.network)
    assert bit_equal(changed.state.agent.q.previous_network, changed.state.agent.q.network)


def test_after_a_change_updates_are_churn_again(churning):
    later, log = churning.fork().intervene(Inject()).advance(40)
    assert distance(later.state.agent.q.previous_network, later.state.agent.q.network) > 0
    assert np.isfinite(log.value).all()


@pytest.mark.parametrize("name", sorted(members("interventions")))
def test_every_intervention_keeps_the_network_before_in_shape(name):
    agent, environment = DoubleDQN(**SMALL, churn=1.0), ObservationReward()
    state = abstract_state(agent, environment, [members("interventions")[name]()])
    assert jax.tree.structure(state.agent.q.previous_network) == jax.tree.structure(
        state.agent.q.network
    )


def test_epsilon_falls_linearly():
    agent = DoubleDQN(exploration_start=1.0, exploration_end=0.1, exploration_steps=1_000)
    state = agent.init((4,), np.dtype(np.float32), Discrete(3), KEY)
    obs = jnp.ones(4)
    greedy = int(jnp.argmax(state.q.network(obs)))
    keys = jax.random.split(KEY, 4_000)
    for env_steps, epsilon in ((0, 1.0), (500, 0.55), (1_000, 0.1), (9_000, 0.1)):
        actions, values = jax.vmap(lambda k, t=env_steps: agent.act(state, obs, jnp.array(t), k))(
            keys
        )
        expected = epsilon * 2 / 3  # a random action is the greedy one a third of the time
        assert float((actions != greedy).mean()) == pytest.approx(expected, abs=0.03)
        np.testing.assert_allclose(values, state.q.network(obs)[actions], rtol=1e-5)


def test_the_target_is_copied_every_period_and_only_then():
    agent = DoubleDQN(target_period=3)
    state = agent.init((4,), np.dtype(np.float32), Discrete(3), KEY)
    update = jax.jit(agent.update)
    same = []
    for _ in range(7):
        before = state
        state = update(state, batch_of(32), KEY)
        target = np.asarray(state.q.target.layers[0].weight)
        same.append(
            (
                np.array_equal(target, state.q.network.layers[0].weight),
                np.array_equal(target, before.q.target.layers[0].weight),
            )
        )
    copied, kept = zip(*same, strict=True)
    assert copied == (False, False, True, False, False, True, False)
    assert kept == (True, True, False, True, True, False, True)


def learned(environment, env_steps: int = 4_000, **fields):
    agent = DoubleDQN(**{**SMALL, **fields})
    run, log = Run.start(agent, environment, seed=0).advance(env_steps)
    return run, log


def predicted(run: Run, obs) -> np.ndarray:
    return np.asarray(run.state.agent.q.network(jnp.asarray(obs, jnp.float32)))


@pytest.mark.always
def test_it_learns_a_constant():
    run, _ = learned(ConstantReward())
    np.testing.assert_allclose(predicted(run, run.state.observation), 1.0, atol=0.05)


def test_it_learns_from_the_observation():
    run, _ = learned(ObservationReward())
    transition = run.state.replay.sample(KEY, 64)
    for obs, reward in zip(transition.obs_tm1, transition.reward, strict=True):
        np.testing.assert_allclose(predicted(run, obs), float(reward), atol=0.1)


def test_it_learns_which_action_pays():
    run, log = learned(ActionReward())
    np.testing.assert_allclose(predicted(run, run.state.observation), [0.0, 1.0], atol=0.05)
    assert log.reward[-1_000:].mean() > 0.9


def test_it_discounts():
    run, _ = learned(DelayedReward(), discount=0.7, target_period=50)
    transition = run.state.replay.sample(KEY, 64)
    first = transition.obs_tm1[transition.reward == 0][0]
    second = transition.obs_tm1[transition.reward == 1][0]
    np.testing.assert_allclose(predicted(run, first), 0.7, atol=0.05)
    np.testing.assert_allclose(predicted(run, second), 1.0, atol=0.05)


def test_a_time_limit_is_not_an_end():
    """Reward 1 at every step, cut after two: the value is 1 / (1 − γ), not 2."""
    run, log = learned(TimeLimitReward(), 8_000, discount=0.8, target_period=50)
    assert log.truncated.any()
    assert not log.terminated.any()
    np.testing.assert_allclose(predicted(run, run.state.observation), 5.0, atol=0.3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"discount": 1.0}, "discount is 1.0"),
        ({"replay_ratio": 0.3}, "replay_ratio is 0.3; it must be a whole number or one over"),
        ({"replay_ratio": -1.0}, "replay_ratio is -1.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"target_period": 0}, "target_period is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"exploration_steps": 0}, "exploration_steps is 0"),
        ({"momentum": 1.0, "optimizer": "rmsprop"}, r"momentum is 1.0; it must be in \[0, 1\)"),
        ({"momentum": 0.9}, "momentum is 0.9; it is RMSProp's, adam has none"),
        ({"num_envs": 8, "replay_capacity": 4}, "replay_capacity is 4; it must be at least num_en"),
    ],
)
def test_hyperparameters_that_cannot_be_are_refused(fields, message):
    with pytest.raises(RegrowError, match=message):
        DoubleDQN(**fields)


def test_observations_it_cannot_take_are_refused():
    with pytest.raises(RegrowError, match=r"vectors or images .* not \(3, 4\)"):
        DoubleDQN().init((3, 4), np.dtype(np.float32), Discrete(2), KEY)


def test_the_published_settings_are_a_valid_agent():
    agent = DoubleDQN(**DoubleDQN.young_tian_2019)
    assert (agent.env_steps_per_round, agent.updates_per_round) == (1, 1)
    assert DoubleDQN(replay_ratio=8.0).updates_per_round == 8
    assert DoubleDQN(replay_ratio=0.25).env_steps_per_round == 4


class TestFrames:
    """What it makes of images of bytes."""

    SHAPE, DTYPE = (84, 84, 4), np.dtype(np.uint8)

    def made(self, agent: DoubleDQN):
        return jax.eval_shape(lambda: agent.init(self.SHAPE, self.DTYPE, Discrete(6), KEY)).q

    def test_their_network_is_that_of_dqn_zoo(self):
        layers = self.made(DoubleDQN(**DoubleDQN.atari_paper)).network.layers
        assert [layer.units for layer in layers] == [32, 64, 64, 512, 6]
        assert layers[0].divisor == 255
        assert layers[-1].bias.shape == (1,)

    def test_its_words_are_refused_there(self):
        with pytest.raises(RegrowError, match="depth is 2; on images of bytes double_dqn has"):
            self.made(DoubleDQN(depth=2))


def test_exploration_begins_where_it_is_told_to():
    agent = DoubleDQN(**SMALL, exploration_begin=1_000)
    state = agent.init((4,), np.dtype(np.float32), Discrete(3), KEY)
    act = jax.jit(jax.vmap(lambda key, t: agent.act(state, jnp.ones(4), t, key)[0], (0, None)))
    keys = jax.random.split(KEY, 2_000)
    early, late = (np.bincount(act(keys, jnp.array(t)), minlength=3).max() for t in (1_000, 1_500))
    assert early < 800 < 1_700 < late  # of 2,000: at random, then with ε at 0.05

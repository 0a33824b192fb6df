"""Episodes without exploring and without learning."""

import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
import small
from trees import bit_equal

from regrow.agents import PPO, SAC, DoubleDQN, DrQ
from regrow.agents.double_dqn import EVALUATED_AT
from regrow.cli import entry as cli
from regrow.environments import Breakout, Gymnasium, MatchingReward, RelabelledActions
from regrow.errors import RegrowError
from regrow.learners.learner import learners
from regrow.prng import key_at
from regrow.training.device_loop import exploited
from regrow.training.evaluate import evaluate
from regrow.training.evaluations import write_evaluation
from regrow.training.run import Run
from regrow.types import Continuous, Discrete

BRIEF = {"hidden": 16, "learn_start": 40, "replay_capacity": 300}
DQN = DoubleDQN(**BRIEF, learning_rate=3e-3, exploration_steps=500)
KEY = jax.random.key(0)


def begun(agent, shape, actions, dtype=np.float32):
    return agent.init(shape, np.dtype(dtype), actions, KEY)


def test_double_dqn_is_greedy_but_for_one_in_a_hundred():
    state = begun(DQN, (3,), Discrete(4))
    seen = jax.random.normal(KEY, (4_000, 3))
    keys = jax.random.split(KEY, 4_000)
    actions = jax.vmap(lambda obs, key: DQN.exploit(state, obs, key))(seen, keys)
    greedy = np.argmax(np.asarray(state.q.network(seen)), axis=-1)
    other = np.mean(np.asarray(actions) != greedy)
    assert 0.3 * EVALUATED_AT < other < 1.5 * EVALUATED_AT


def test_sac_and_drq_play_what_is_typical():
    for agent, shape, dtype in (
        (SAC(hidden=8), (3,), np.float32),
        (DrQ(channels=2, convolutions=2, hidden=8, latent=4), (64, 64, 3), np.uint8),
    ):
        state = begun(agent, shape, Continuous(2), dtype)
        seen = jnp.asarray(np.random.default_rng(0).integers(0, 255, shape).astype(dtype))
        through = learners(state)["encoder"].network(seen) if dtype is np.uint8 else seen
        mean = np.asarray(learners(state)["actor"].network(through), np.float64)[:2]
        played = [agent.exploit(state, seen, key) for key in jax.random.split(KEY)]
        np.testing.assert_allclose(played[0], np.tanh(mean), rtol=1e-5)
        assert bit_equal(*played)


@pytest.mark.parametrize("actions", [Discrete(4), Continuous(2)])
def test_ppo_plays_what_is_likeliest(actions):
    agent = PPO(hidden=8)
    state = begun(agent, (3,), actions)
    seen = jnp.arange(3.0)
    out = np.asarray(state.actor.network(seen))
    expected = out.argmax() if isinstance(actions, Discrete) else out
    for key in jax.random.split(KEY):
        np.testing.assert_array_equal(agent.exploit(state, seen, key), expected)


def test_a_task_that_changes_stays_the_one_that_the_run_is_at():
    """The other action is the right one 20 env steps from here; evaluating takes 60."""
    shifting = RelabelledActions(game="toy/action_reward", period=520)
    run, log = Run.start(DQN, shifting, seed=0).advance(500)
    assert log.reward[-50:].mean() > 0.8
    assert np.mean([episode.env_return for episode in evaluate(run, 60)]) > 0.9


def test_what_was_learnt_is_seen_and_the_run_is_left_alone():
    run, _ = Run.start(DQN, MatchingReward(), seed=0).advance(3_000)
    before, _ = Run.start(DQN, MatchingReward(), seed=0).advance(4)
    was = jax.tree.map(jnp.copy, run.state)
    learnt, fresh = (np.mean([e.env_return for e in evaluate(r, 50)]) for r in (run, before))
    assert learnt > 0.9 * max(e.env_return for e in evaluate(run, 50))
    assert learnt > 1.5 * fresh
    assert bit_equal(run.state, was)
    run.advance(4)  # it can still be


@pytest.mark.parametrize(
    ("agent", "environment", "env_steps"),
    [
        (small.DQN, Breakout(), 80),
        (PPO(hidden=8, num_envs=2, batch_size=64, epochs=1, minibatches=2), MatchingReward(), 64),
        (DQN, Gymnasium("CartPole-v1"), 80),
    ],
    ids=["device", "side by side", "host"],
)
def test_one_seed_one_result(agent, environment, env_steps):
    run, _ = Run.start(agent, environment, seed=0).advance(env_steps)
    once = evaluate(run, 5, seed=3)
    assert len(once) == 5
    assert evaluate(run, 5, seed=3) == once
    assert evaluate(run, 3, seed=3) == once[:3]
    # A pole that stands for so many env steps has earned as much.
    if isinstance(environment, Gymnasium):
        assert all(episode.env_return == episode.length for episode in once)
        assert evaluate(run, 5, seed=4) != once


def test_rewards_are_added_up_by_episode():
    """The first episode, step by step beside it."""
    run, _ = Run.start(small.DQN, Breakout(), seed=0).advance(80)
    first, second = evaluate(run, 2)
    played = list(
        itertools.islice(
            exploited(
                run.state, run.agent, run.environment, key_at(KEY, "evaluate", run.env_steps)
            ),
            first.length + second.length,
        )
    )
    rewards, ended = zip(*played, strict=True)
    assert np.flatnonzero(ended).tolist() == [first.length - 1, first.length + second.length - 1]
    assert sum(rewards[: first.length]) == first.env_return


def test_episodes_without_end_and_no_episodes_are_refused(monkeypatch):
    run, _ = Run.start(DQN, Gymnasium("CartPole-v1"), seed=0).advance(8)
    with pytest.raises(RegrowError, match="episodes is 0; it must be at least 1"):
        evaluate(run, 0)
    monkeypatch.setattr(sys.modules["regrow.training.evaluate"], "LONGEST", 3)
    with pytest.raises(RegrowError, match="no episode ended within 3 env steps"):
        evaluate(run, 1)


def test_kept_beside_others_and_in_place_of_its_own(tmp_path):
    run, _ = Run.start(DQN, MatchingReward(), seed=0).advance(40)
    for seed in (0, 1, 0):
        path = write_evaluation(tmp_path, run, seed, evaluate(run, 4, seed=seed))
    rows = pq.read_table(path).to_pylist()
    assert sorted((row["seed"], row["episode"]) for row in rows) == [
        (seed, n) for seed in (0, 1) for n in range(4)
    ]
    path.write_bytes(b"no table")
    with pytest.raises(RegrowError, match=r"evaluations.parquet is damaged"):
        write_evaluation(tmp_path, run, 0, [])


def test_on_the_command_line(tmp_path, capsys):
    agent = "double_dqn(hidden=8, learn_start=40, replay_capacity=100)"
    small = ["--agent", agent, "--env-steps", "80", "--probe-every", "0"]
    small += ["--out", str(tmp_path / "run")]
    assert cli.run(["train", "toy/matching_reward", *small]) is None
    assert cli.run(["evaluate", str(tmp_path / "run"), "--episodes", "3"]) is None
    said = capsys.readouterr().out
    assert "after 80 env steps of training, 3 episodes:\nmean return" in said
    assert cli.run(["evaluate", str(tmp_path / "run"), "--episodes", "1"]) is None
    assert " (one episode: no interval), from " in capsys.readouterr().out
    assert (tmp_path / "run" / "evaluations.parquet").is_file()
    for bad, message in (
        ([str(tmp_path)], "there is no run in"),
        ([str(tmp_path / "run"), "--episodes", "0"], "it must be at least 1"),
        ([str(tmp_path / "run"), "--episodes", "few"], "few"),
    ):
        assert message in (cli.run(["evaluate", *bad]) or "")

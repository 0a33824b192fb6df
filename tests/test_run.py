"""The loop: exact to save, to load and to fork; honest about ends of episodes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import DQN
from trees import bit_equal, plain

from regrow.agents import DoubleDQN
from regrow.environments import Breakout, ConstantReward, DelayedReward, TimeLimitReward
from regrow.errors import RegrowError
from regrow.interventions import FitNoise, Inject, Nothing, Reset
from regrow.prng import key_at, keys_from
from regrow.training import device_loop as loop
from regrow.training.checkpoint import load, save
from regrow.training.run import Run, random_policy


def started(seed: int = 0, environment=None) -> Run:
    return Run.start(DQN, environment or Breakout(), seed=seed)


def advanced(run: Run, env_steps: int) -> Run:
    return run.advance(env_steps)[0]


@pytest.fixture(scope="module")
def trained() -> Run:
    return advanced(started(), 400)


@pytest.mark.always
def test_in_pieces_or_in_one_it_is_the_same_run():
    one, log = started().advance(2_400)  # crosses a chunk
    pieces = started()
    logs = []
    for steps in (16, 24, 4, 356, 2_000):
        pieces, part = pieces.advance(steps)
        logs.append(part)
    assert bit_equal(one.state, pieces.state)
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *logs)
    assert bit_equal(joined, log)


@pytest.mark.parametrize(
    "interventions",
    [
        (),
        (Inject(),),
        pytest.param((Inject(split=0), Inject(split=2), Inject()), marks=pytest.mark.slow),
        pytest.param((Inject(freeze=False), Inject(subtract=False)), marks=pytest.mark.slow),
        pytest.param((Inject(), Reset()), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_saved_and_loaded_it_goes_on_as_if_it_had_never_stopped(trained, tmp_path, interventions):
    run = trained.fork()
    for intervention in interventions:
        run = run.intervene(intervention)
    save(run, tmp_path / "run.ckpt")
    loaded = load(tmp_path / "run.ckpt")
    assert bit_equal(loaded.state, run.state)
    assert loaded.history == run.history
    assert (loaded.agent, loaded.environment) == (run.agent, run.environment)
    on, log = run.advance(120)
    again, log_again = loaded.advance(120)
    assert bit_equal(on.state, again.state)
    assert bit_equal(log, log_again)


def test_a_fork_with_nothing_done_is_the_unforked_run(trained):
    original, fork = trained.fork(), trained.fork().intervene(Nothing())
    assert bit_equal(advanced(original, 400).state, advanced(fork, 400).state)


def test_other_draws_make_another_run_from_the_same_state(trained):
    again = trained.fork(replicate=1)
    assert bit_equal(again.state.agent, trained.state.agent)
    assert bit_equal(again.state.replay, trained.state.replay)
    other, same = advanced(again, 400), advanced(trained.fork(), 400)
    assert not bit_equal(other.state.agent, same.state.agent)


def test_other_draws_are_other_noise_in_the_agent_too():
    agent = DoubleDQN(gradient="upgd", hidden=8, learn_start=8, replay_capacity=40)
    run, _ = Run.start(agent, ConstantReward(), seed=0).advance(20)

    def noise_keys(run: Run) -> list[bytes]:
        leaves = jax.tree.leaves(run.state.agent)
        return [plain(x).tobytes() for x in leaves if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]

    own, same, other = (noise_keys(one) for one in (run, run.fork(), run.fork(replicate=1)))
    assert own == same
    assert len(own) == 3  # one for each layer
    assert not set(own) & set(other)


def test_seeds_differ_in_everything_random():
    a, b = advanced(started(0), 80), advanced(started(1), 80)
    for part in ("agent", "replay"):
        assert not bit_equal(getattr(a.state, part), getattr(b.state, part))
    assert bit_equal(advanced(started(1), 80).state, b.state)


def test_the_replay_holds_what_happened():
    """Also the last observation of an episode, and why it ended."""
    run, log = started(environment=DelayedReward()).advance(200)
    held = run.state.replay.first(200)
    np.testing.assert_array_equal(held.reward, log.reward)
    np.testing.assert_array_equal(held.discount == 0, log.terminated)
    inside = ~log.terminated[:-1]
    np.testing.assert_array_equal(held.obs_t[:-1][inside], held.obs_tm1[1:][inside])
    run, log = started(environment=TimeLimitReward()).advance(200)
    held = run.state.replay.first(200)
    assert log.truncated.any()
    assert (held.discount == 1).all()  # a time limit bootstraps


def test_returns_are_summed_over_episodes():
    _, log = started(environment=DelayedReward()).advance(200)
    assert set(log.episode_return[log.terminated].tolist()) == {1.0}
    assert log.episode_return[0] == log.reward[0]


def test_one_trace_serves_all_advances(monkeypatch):
    traces = []
    inner = loop._train_step

    def counted(*arguments):
        traces.append(1)
        return inner(*arguments)

    monkeypatch.setattr(loop, "_train_step", counted)
    agent = DoubleDQN(hidden=17, learn_start=40, replay_capacity=300)
    run = Run.start(agent, DelayedReward(), seed=0)
    run = advanced(run, 40)
    assert len(traces) == 1  # filling the replay
    run = advanced(run, 40)
    assert len(traces) == 2  # learning
    for steps in (4, 200, 2_004):
        run = advanced(run, steps)
    other = Run.start(agent, DelayedReward(), seed=5)
    advanced(other, 200)
    assert len(traces) == 2
    injected = run.intervene(Inject())
    injected = advanced(injected, 200)
    advanced(injected, 204)
    assert len(traces) == 3  # another tree, traced once


def test_a_run_that_was_advanced_says_so():
    run = started()
    advanced(run, 4)
    for use in (lambda: run.advance(4), run.fork, lambda: run.intervene(Nothing())):
        with pytest.raises(RegrowError, match="this Run was advanced before"):
            use()


@pytest.mark.parametrize("env_steps", [0, -4, 3])
def test_env_steps_come_in_rounds(env_steps):
    with pytest.raises(RegrowError, match=f"env_steps is {env_steps}; it must be a mul"):
        started().advance(env_steps)


def test_experience_is_needed_where_it_is_needed():
    with pytest.raises(RegrowError, match="fit_noise needs experience, and the replay is empty"):
        started().intervene(FitNoise())


def test_a_replay_ratio_above_one_is_updates_per_env_step():
    agent = DoubleDQN(hidden=8, learn_start=10, replay_capacity=100, replay_ratio=3.0)
    run, _ = Run.start(agent, DelayedReward(), seed=0).advance(50)
    assert int(run.state.updates) == int(run.state.agent.updates) == 3 * 40


def test_streams_do_not_shift_each_other():
    root = jax.random.key(0)
    keys = keys_from(root, "act", 5, 3)
    for i in range(3):
        assert bit_equal(keys[i], key_at(root, "act", 5 + i))
    data = {
        (name, i): tuple(jax.random.key_data(key_at(root, name, i)).tolist())
        for name in ("act", "step", "reset", "sample")
        for i in range(50)
    }
    assert len(set(data.values())) == len(data)


def test_the_random_policy_is_measured():
    log = random_policy(Breakout(), 4_000, seed=0)
    returns = log.episode_return[log.terminated]
    assert len(returns) > 100
    assert 0.2 < returns.mean() < 0.7


SIDE_BY_SIDE = dataclasses.replace(DQN, num_envs=3, replay_ratio=0.5)


def test_environments_side_by_side_take_turns():
    """A round is a step of each that gives whole updates: 6 env steps and 3 of them here."""
    assert (SIDE_BY_SIDE.env_steps_per_round, SIDE_BY_SIDE.updates_per_round) == (6, 3)
    run, log = Run.start(SIDE_BY_SIDE, TimeLimitReward(), seed=0).advance(120)
    assert (run.env_steps, int(run.state.updates)) == (120, (120 - 42) // 2)
    assert run.state.observation.shape[0] == run.state.episode_return.shape[0] == 3
    one = Run.start(DQN, TimeLimitReward(), seed=0).advance(40)[1]
    for own in log.by_environment(3):
        np.testing.assert_array_equal(own.truncated, one.truncated)
        np.testing.assert_array_equal(own.episode_return, one.episode_return)


def test_side_by_side_each_environment_is_in_an_episode_of_its_own():
    run, log = Run.start(SIDE_BY_SIDE, Breakout(), seed=0).advance(240)
    held = run.state.replay.first(240)
    np.testing.assert_array_equal(held.reward, log.reward)
    goes_on = (np.asarray(held.obs_t[:-3]) == np.asarray(held.obs_tm1[3:])).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(goes_on, ~(log.terminated | log.truncated)[:-3])
    assert not bit_equal(held.obs_tm1[:-1:3], held.obs_tm1[1::3])


def test_side_by_side_it_is_saved_forked_and_cut_in_pieces_alike(tmp_path):
    one, _ = Run.start(SIDE_BY_SIDE, Breakout(), seed=0).advance(90)
    pieces = Run.start(SIDE_BY_SIDE, Breakout(), seed=0)
    for steps in (12, 48, 30):
        save(pieces, tmp_path / "run.ckpt")
        pieces, _ = load(tmp_path / "run.ckpt").fork().advance(steps)
    assert bit_equal(one.state, pieces.state)

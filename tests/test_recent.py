"""Checkpoints with the newest part of the replay."""

import dataclasses

import jax
import numpy as np
import pytest
import small
from found import StopHereError, stopping_at
from refusals import refused_in_a_line
from trees import bit_equal

from regrow import errors
from regrow.agents import PPO, DoubleDQN
from regrow.diagnosis.diagnose import carry_out
from regrow.environments import ActionReward, Breakout
from regrow.errors import RegrowWarning
from regrow.experience.frame_replay import FrameReplay
from regrow.files.atomic import write_atomically
from regrow.training.checkpoint import load, save, writer
from regrow.training.run import Run
from regrow.training.saving import KEEP_TRANSITIONS as SETTING
from regrow.types import silent

AGENT = DoubleDQN(hidden=16, learn_start=40, replay_capacity=400)


def cut(run: Run, path, count: int) -> Run:
    errors._said.clear()
    write_atomically(path, writer(run, transitions=count))
    with pytest.warns(RegrowWarning, match=f"has the last {count} transitions of its replay only"):
        return load(path)


def frames(count: int) -> FrameReplay:
    """A replay of frames of 4 × 4, by now full."""
    from regrow.types import Discrete, Transition

    replay = FrameReplay.empty(
        60, (4, 4, 2), np.dtype(np.uint8), Discrete(3), stacked=2, num_envs=1
    )
    draws = np.random.default_rng(0)
    stack = draws.integers(0, 255, (4, 4, 2), np.uint8)
    for n in range(count):
        following = np.concatenate([stack[..., 1:], draws.integers(0, 255, (4, 4, 1), np.uint8)], 2)
        step = (stack, np.int32(n % 3), np.float32(n), np.float32(1), following, np.bool_(False))
        replay, stack = replay.add(Transition(*step)), following
    return replay


@pytest.mark.parametrize("steps", [300, 1_000], ids=["filling", "full"])
@pytest.mark.parametrize("rewards", [False, True], ids=["plain", "normalised"])
def test_the_newest_transitions_are_there_and_nothing_else(tmp_path, steps, rewards):
    agent = dataclasses.replace(AGENT, normalize_rewards=rewards)
    run, _ = Run.start(agent, ActionReward(), seed=0).advance(steps)
    size = int(run.state.replay.size)
    resumed = cut(run, tmp_path / "run.ckpt", 100)
    assert int(resumed.state.replay.size) == 100
    newest = jax.tree.map(lambda x: x[-100:], run.state.replay.first(size))
    assert bit_equal(resumed.state.replay.first(100), newest)
    assert bit_equal(resumed.state.agent, run.state.agent)
    resumed, _ = resumed.advance(400)
    assert int(resumed.state.replay.size) == 400  # it fills again


def test_of_frames_what_is_kept_reads_as_before(tmp_path):
    from regrow.experience.recent import only_recent

    replay = frames(150)
    names = [field.name for field in dataclasses.fields(replay)]
    arrays = {f"replay.{n}": np.asarray(getattr(replay, n)) for n in names[:-2]}
    held, kept = only_recent(arrays, 20)
    assert kept == 20
    parts = {name.removeprefix("replay."): jax.numpy.array(x) for name, x in held.items()}
    short = FrameReplay(**parts, shape=replay.shape, dtype=replay.dtype)
    newest = jax.tree.map(lambda x: x[-20:], replay.first(int(replay.size)))
    assert bit_equal(short.first(20), newest)
    assert int(short.size) == 20
    assert only_recent(arrays, 1_000)[1] == 0


def test_it_is_small(tmp_path):
    run = Run.start(DoubleDQN(hidden=16, channels=2), Breakout(), seed=0).advance(4_000)[0]
    save(run, tmp_path / "whole.ckpt")
    write_atomically(tmp_path / "part.ckpt", writer(run, transitions=200))
    whole, part = ((tmp_path / f"{name}.ckpt").stat().st_size for name in ("whole", "part"))
    assert part < whole / 10


def test_what_learns_from_each_rollout_once_is_kept_whole(tmp_path):
    agent = PPO(hidden=8, activation="relu", num_envs=4, batch_size=16, epochs=1, minibatches=4)
    run = Run.start(agent, ActionReward(), seed=0).advance(64)[0]
    write_atomically(tmp_path / "run.ckpt", writer(run, transitions=2))
    assert bit_equal(load(tmp_path / "run.ckpt").state, run.state)


def test_a_diagnosis_that_went_on_so_says_it(tmp_path, monkeypatch):
    plan = small.diagnosis_of(AGENT, ActionReward(), 2_000, 2_000)
    monkeypatch.setenv(SETTING, "50")
    with pytest.raises(StopHereError):
        carry_out(plan, tmp_path, report=stopping_at(5))
    errors._said.clear()
    with pytest.warns(RegrowWarning, match="has the last 50 transitions of its replay only"):
        done = carry_out(plan, tmp_path, report=silent)
    told = {finding.code: finding.text for finding in done.verdict.findings}
    assert "went on with the last 50 transitions" in told["resumed_with_part_of_the_replay"]


def test_without_a_stop_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv(SETTING, "50")
    plan = small.diagnosis_of(AGENT, ActionReward(), 200, 200)
    done = carry_out(plan, tmp_path / "a")
    monkeypatch.delenv(SETTING)
    assert done.verdict == carry_out(plan, tmp_path / "b").verdict


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_a_setting_that_is_none_is_named(tmp_path, monkeypatch, text):
    monkeypatch.setenv(SETTING, text)
    with refused_in_a_line(f"{SETTING} is '{text}'; it must be a whole number of transitions"):
        carry_out(small.diagnosis_of(AGENT, ActionReward(), 200, 200), tmp_path)

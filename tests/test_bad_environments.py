"""Environments made up at random, most of them faulty: trained on, or refused in a sentence.

Whatever one of them does, what was saved can be read, and everything that was opened is closed.
`make test` tries some, `make test-all` 300.
"""

import gc
import itertools
import re
import time
import warnings
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import plain

from regrow.agents import PPO, SAC, DoubleDQN
from regrow.environments import Gymnasium
from regrow.errors import RegrowError
from regrow.training.checkpoint import load
from regrow.training.saved import read_training
from regrow.training.train import train
from regrow.types import silent

AGENTS = {
    "dqn": DoubleDQN(hidden=8, channels=2, batch_size=8, learn_start=16, replay_capacity=64),
    "sac": SAC(hidden=8, batch_size=8, learn_start=16, replay_capacity=64, replay_ratio=0.25),
    "ppo": PPO(hidden=8, channels=2, batch_size=16, num_envs=2, epochs=1, minibatches=2),
}
SEEN: dict[str, Any] = {
    "vector": spaces.Box(-1, 1, (3,), np.float32),
    "unbounded": spaces.Box(-np.inf, np.inf, (3,), np.float64),
    "grey": spaces.Box(0, 255, (12, 12), np.uint8),
    "channels first": spaces.Box(0, 255, (3, 12, 12), np.uint8),
    "odd axes": spaces.Box(0, 255, (12, 3, 12), np.uint8),
    "four axes": spaces.Box(0, 1, (2, 2, 2, 2), np.float32),
    "number": spaces.Discrete(4),
    "dict": spaces.Dict({"a": spaces.Box(-1, 1, (2,), np.float32), "b": spaces.Discrete(3)}),
    "text": spaces.Text(5),
    "empty": spaces.Box(-1, 1, (0,), np.float32),
    "missing": None,
    "no space": (3,),
}
TAKEN: dict[str, Any] = {
    "two": spaces.Discrete(2),
    "from five": spaces.Discrete(3, start=5),
    "box": spaces.Box(-2, 3, (2,), np.float32),
    "half open": spaces.Box(0, np.inf, (2,), np.float32),
    "whole numbers": spaces.Box(0, 5, (2,), np.int32),
    "nothing to choose": spaces.Box(1, 1, (2,), np.float32),
    "several": spaces.MultiDiscrete([2, 3]),
    "bits": spaces.MultiBinary(2),
    "dict": spaces.Dict({"a": spaces.Discrete(2)}),
    "missing": None,
}
FAULTS = (
    *("", "shape", "dtype", "nan seen", "inf seen", "out of range", "none seen", "text seen"),
    *("nan reward", "inf reward", "huge reward", "no reward", "text reward", "array reward"),
    *("four values", "no tuple", "none ends", "raise", "exit", "hang", "close", "space changes"),
)


class Made(gym.Env):
    """An environment of spaces by name, which does something wrong in a call by name."""

    opened = 0
    metadata: ClassVar = {"render_modes": []}

    def __init__(self, seen: str, taken: str, fault: str, where: str, at: int):
        if fault == "raise" and where == "init":
            raise OSError("no licence")
        if SEEN[seen] is not None:
            self.observation_space = SEEN[seen]
        if TAKEN[taken] is not None:
            self.action_space = TAKEN[taken]
        self.fault, self.where, self.at, self.calls, self.time = fault, where, at, 0, 0
        Made.opened += 1
        self.open = True

    def close(self):
        Made.opened -= self.open
        self.open = False
        if self.fault == "close":
            raise RuntimeError("the window is gone")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        fault = self._fault("reset")
        seen = self._seen(fault)
        return seen if fault in ("four values", "no tuple") else (seen, {})

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.time += 1
        fault = self._fault("step")
        reward: Any = {
            "nan reward": float("nan"),
            "inf reward": float("-inf"),
            "huge reward": 1e38,
            "no reward": None,
            "text reward": "one",
            "array reward": np.ones(3),
        }.get(fault, 1.0)
        over: Any = None if fault == "none ends" else self.time >= 7
        if fault == "four values":
            return self._seen(fault), reward, over, {}
        if fault == "no tuple":
            return reward
        return self._seen(fault), reward, over, False, {}

    def _fault(self, where: str) -> str:
        self.calls += where == self.where
        fault = self.fault if where == self.where and self.calls == self.at else ""
        if fault == "raise":
            raise ConnectionResetError("the simulator hung up\nat once")
        if fault == "exit":
            raise SystemExit(1)
        if fault == "hang":
            time.sleep(60)
        return fault

    def _seen(self, fault: str) -> Any:
        seen = self.observation_space.sample()
        if fault == "none seen":
            return None
        if fault == "text seen":
            return "a maze"
        if isinstance(seen, np.ndarray) and seen.size:
            if fault == "shape":
                return seen[:-1]
            if fault == "dtype":
                return seen.astype(np.complex128)
            if fault in ("nan seen", "inf seen") and seen.dtype.kind == "f":
                seen.flat[0] = np.nan if fault == "nan seen" else -np.inf
            if fault == "out of range":
                return seen.astype(np.float64) + 1e6
        return seen


_numbers = itertools.count()


@st.composite
def made_up(draw) -> dict[str, Any]:
    """Arguments of `Made`: every second one has spaces that an agent takes."""
    usual = draw(st.booleans())
    return {
        "seen": draw(st.sampled_from(["vector", "grey"] if usual else list(SEEN))),
        "taken": draw(st.sampled_from(["two", "box"] if usual else list(TAKEN))),
        "fault": draw(st.sampled_from(FAULTS)),
        "where": draw(st.sampled_from(["step", "step", "reset", "init"])),
        "at": draw(st.integers(1, 64)),
    }


def tried(env_id: str, agent: str, folder: Path) -> str:
    """What training says: "" where nothing is wrong."""
    try:
        train(AGENTS[agent], Gymnasium(env_id), folder, env_steps=64, report=silent)
    except RegrowError as error:
        said = str(error)
        assert env_id in said or agent in said, said
        assert "\n" not in said, said
        assert len(said) < 600, said
        return said
    return ""


def check(arguments: dict[str, Any], agent: str, folder: Path) -> str:
    """Trains on a made-up environment; what was said, once everything else was looked at."""
    env_id = f"Made{next(_numbers)}-v0"
    gym.register(env_id, entry_point=Made, kwargs=arguments)
    Made.opened = 0
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            said = tried(env_id, agent, folder)
            gc.collect()
        for one in told:
            assert "\n" not in str(one.message).strip(), one
        assert Made.opened == 0, said
        if (folder / "run.ckpt").is_file():
            run = load(folder / "run.ckpt")
            leaves = [plain(leaf) for leaf in jax.tree.leaves(run.state.agent)]
            assert all(np.isfinite(leaf).all() for leaf in leaves if leaf.dtype.kind == "f")
            assert np.isfinite(read_training(folder).episodes.returns).all()
            assert run.env_steps == 64 or said
        return said
    finally:
        del gym.registry[env_id]


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setenv("REGROW_PATIENCE", "0.3")


some = settings(max_examples=6, suppress_health_check=list(HealthCheck))
many = settings(max_examples=300, suppress_health_check=list(HealthCheck))


@some
@given(arguments=made_up(), agent=st.sampled_from(list(AGENTS)))
def test_some_bad_environments(impatient, tmp_path_factory, arguments, agent):
    check(arguments, agent, tmp_path_factory.mktemp("bad") / "run")


@pytest.mark.slow
@many
@given(arguments=made_up(), agent=st.sampled_from(list(AGENTS)))
def test_300_bad_environments(impatient, tmp_path_factory, arguments, agent):
    check(arguments, agent, tmp_path_factory.mktemp("bad") / "run")


@pytest.mark.parametrize(
    ("seen", "taken", "agent"),
    [("vector", "two", "dqn"), ("unbounded", "box", "sac"), ("grey", "from five", "ppo")],
)
def test_one_with_nothing_wrong_is_trained_on(impatient, tmp_path, seen, taken, agent):
    arguments = {"seen": seen, "taken": taken, "fault": "", "where": "step", "at": 1}
    assert check(arguments, agent, tmp_path / "run") == ""


SAID = {
    "shape": r"float32\[2\].*\(3,\)|\[3\]",
    "nan seen": "nan at",
    "nan reward": "the reward is nan",
    "inf reward": "the reward is -inf",
    "no reward": "reward is None",
    "four values": "five",
    "raise": "ConnectionResetError: the simulator hung up at once",
    "exit": "SystemExit",
    "hang": "TimeoutError",
}


CHECKED, TRAINED = (5, r" \(in a check\)"), (60, "")
# At once; the others while it trains. The rest runs under `make test-all`.
AT_ONCE = ("shape", "inf reward", "no reward", "exit", "hang")


@pytest.mark.parametrize(
    ("fault", "at", "where"),
    [
        pytest.param(
            *(fault, *when), marks=() if at_once == (fault in AT_ONCE) else pytest.mark.slow
        )
        for fault in SAID
        for at_once, when in ((True, CHECKED), (False, TRAINED))
    ],
)
def test_what_is_wrong_is_said_with_environment_and_env_step(impatient, tmp_path, fault, at, where):
    """Before training where it shows at once, else while it trains."""
    arguments = {"seen": "vector", "taken": "two", "fault": fault, "where": "step", "at": at}
    said = check(arguments, "dqn", tmp_path / "run")
    assert re.search(rf"^gymnasium/Made\d+-v0{where}, env step \d+: .*({SAID[fault]})", said), said

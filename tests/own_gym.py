"""Environments of Gymnasium that do as a test says."""

import itertools
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from regrow.environments import Gymnasium

TWO = spaces.Box(-1, 1, (2,), np.float32)
ZERO = np.zeros(2, np.float32)
SAME = object()
_numbers = itertools.count()


class Scripted(gymnasium.Env):
    """Shows `first`, then `then`; `returns` is what reset and step return in full, if given."""

    made: int = 0
    closed: int = 0

    def __init__(
        self,
        observation_space: Any = TWO,
        action_space: Any = None,
        first: Any = ZERO,
        then: Any = SAME,
        reward: Any = 1.0,
        ends: tuple[Any, Any] = (False, False),
        returns: dict[str, Any] | None = None,
        on_close: Exception | None = None,
    ):
        type(self).made += 1
        self.observation_space = observation_space
        self.action_space = spaces.Discrete(2) if action_space is None else action_space
        self.first, self.then = first, first if then is SAME else then
        self.reward, self.ends, self.returns = reward, ends, returns or {}
        self.on_close, self.actions = on_close, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.returns.get("reset", (self.first, {}))

    def step(self, action):
        self.actions.append(action)
        return self.returns.get("step", (self.then, self.reward, *self.ends, {}))

    def close(self):
        type(self).closed += 1
        if self.on_close:
            raise self.on_close


def scripted(limit: int | None = 10, cls: type = Scripted, **script: Any) -> Gymnasium:
    """An environment that is registered for this very call."""
    env_id = f"Scripted{next(_numbers)}-v0"
    gymnasium.register(env_id, entry_point=lambda: cls(**script), max_episode_steps=limit)
    return Gymnasium(env_id)

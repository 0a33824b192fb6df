"""The default agent of an environment: one that learns within a default diagnosis.

docs/level.md says how these were chosen, and what was and was not measured. On Asterix no agent
that was tried learns well in that time.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from regrow.agents.base import Agent
from regrow.environments.base import Environment
from regrow.registry import make, name_of
from regrow.types import Continuous, Discrete

LEARNING_RATES: Mapping[str, float] = {"minatar/asterix": 2.5e-4, "minatar/seaquest": 2.5e-4}
"""Learning rates of Double DQN on games where its default, 1e-3, stays near the random policy."""


def default_agent(environment: Environment) -> Agent:
    """The agent that `regrow diagnose` and `regrow train` use if none is given.

    Continuous actions: SAC, or `drq:laptop` if observations are images.
    Discrete actions on images: Double DQN with the learning rate that the game needs; for images
    of bytes, as in Atari, `double_dqn:atari_laptop`.
    All other cases: PPO.
    Raises `RegrowError` if a package that the environment needs is not installed.
    """
    image = len(environment.observation_shape) == 3
    if isinstance(environment.action_space, Continuous):
        return make("agents", "drq:laptop" if image else "sac")
    if not image or not isinstance(environment.action_space, Discrete):
        return make("agents", "ppo")
    if environment.observation_dtype == np.uint8:
        return make("agents", "double_dqn:atari_laptop")
    rates = [LEARNING_RATES[game] for game in _games(environment) if game in LEARNING_RATES]
    return make("agents", f"double_dqn(learning_rate={min(rates)})" if rates else "double_dqn")


def _games(environment: Any) -> set[str]:
    """The names of the games played; of a wrapper, those of the environments inside."""
    inner = getattr(environment, "inner", None)
    if inner is None:
        return {name_of(environment)}
    each = inner if isinstance(inner, tuple) else (inner,)
    return {name for one in each for name in _games(one)}

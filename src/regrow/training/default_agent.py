"""Which agent is taken where none is named, by what learns within a default diagnosis.

How these were chosen, what was measured and what was not: docs/level.md. On Asterix nothing that
was tried learns well so soon.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from regrow.agents.base import Agent
from regrow.environments.base import Environment
from regrow.registry import make, name_of
from regrow.types import Continuous, Discrete

LEARNING_RATES: Mapping[str, float] = {"minatar/asterix": 2.5e-4, "minatar/seaquest": 2.5e-4}
"""Of Double DQN, where its own of 1e-3 stays near the random policy."""


def default_agent(environment: Environment) -> Agent:
    """The agent that `regrow diagnose` and `regrow train` take where none is named.

    Vectors as actions: SAC, and on images DrQ in a laptop's size. Numbered actions: Double DQN on
    images, at the learning rate that the game needs (a laptop's size for images of bytes, as in
    Atari), PPO on vectors. Raises `RegrowError` where an environment's package is not there.
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
    """The names of what is played: of an environment that wraps others, of those."""
    inner = getattr(environment, "inner", None)
    if inner is None:
        return {name_of(environment)}
    each = inner if isinstance(inner, tuple) else (inner,)
    return {name for one in each for name in _games(one)}

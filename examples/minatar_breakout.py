"""MinAtar's Breakout as an environment of Gymnasium: `--env examples/minatar_breakout.py:make`."""

import gymnasium
from minatar.gym import register_envs


def make() -> gymnasium.Env:
    """The game with its minimal action set; pip install minatar."""
    if "MinAtar/Breakout-v1" not in gymnasium.registry:
        register_envs()
    return gymnasium.make("MinAtar/Breakout-v1")

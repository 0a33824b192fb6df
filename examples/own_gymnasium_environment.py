"""Your own environment for Gymnasium: a wrapped one, and one with a dict of observations.

Run these in the folder of this file:

    regrow check gymnasium/own_gymnasium_environment:StackedPendulum-v0
    regrow train gymnasium/own_gymnasium_environment:StackedPendulum-v0 --agent sac
    regrow train "gymnasium/own_gymnasium_environment:Room-v0(size=5, max_episode_steps=50)" \
        --agent ppo

The module before the colon is imported first, also in worker processes.
"""

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, RescaleObservation


def stacked_pendulum():
    """Pendulum with observations scaled to −1 to 1 and the last three of them stacked."""
    pendulum = RescaleObservation(gymnasium.make("Pendulum-v1"), np.float32(-1), np.float32(1))
    return FrameStackObservation(pendulum, 3)


class Room(gymnasium.Env):
    """A room of size × size cells: switch on the light, then find the door."""

    def __init__(self, size=4):
        self.size = size
        self.observation_space = spaces.Dict(
            {
                "position": spaces.Box(0.0, 1.0, (2,), np.float32),
                "light": spaces.Discrete(2),
                "last": spaces.MultiDiscrete([3, 3]),
            }
        )
        self.action_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        """A random cell, with the light off."""
        super().reset(seed=seed, options=options)
        self.position = self.np_random.integers(self.size, size=2)
        self.light, self.last = 0, np.array([1, 1])
        return self.observed(), {}

    def step(self, action):
        """One cell up, down, left or right; the switch is in one corner, the door in the other."""
        move = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)][action])
        before = self.position
        self.position = np.clip(before + move, 0, self.size - 1)
        self.last = self.position - before + 1
        self.light |= int((self.position == 0).all())
        out = bool(self.light and (self.position == self.size - 1).all())
        return self.observed(), float(out) - 0.01, out, False, {}

    def observed(self):
        """The observation; the agent sees a vector of 10 numbers, the parts sorted by name."""
        place = (self.position / (self.size - 1)).astype(np.float32)
        return {"position": place, "light": self.light, "last": self.last}


gymnasium.register("StackedPendulum-v0", entry_point=stacked_pendulum, max_episode_steps=200)
gymnasium.register("Room-v0", entry_point=Room, max_episode_steps=100)

"""MinAtar's Breakout for Stable-Baselines3: `--env minatar_breakout.py:make`."""

import gymnasium
import torch
from minatar.gym import register_envs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn


def make() -> gymnasium.Env:
    """The game with its minimal action set; pip install minatar."""
    if "MinAtar/Breakout-v1" not in gymnasium.registry:
        register_envs()
    return gymnasium.make("MinAtar/Breakout-v1")


class Convolution(BaseFeaturesExtractor):
    """The encoder of Young & Tian 2019 (arXiv 1903.03176): 16 filters of 3×3."""

    def __init__(self, observation_space: gymnasium.spaces.Box):
        super().__init__(observation_space, features_dim=16 * 8 * 8)
        channels = observation_space.shape[-1]
        self.layers = nn.Sequential(nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Flatten())

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """(batch, 10, 10, channels) → (batch, features)."""
        return self.layers(observations.float().permute(0, 3, 1, 2))

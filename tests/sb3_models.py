"""Small models of Stable-Baselines3, one for every algorithm and kind of environment."""

import threading

import gymnasium
import numpy as np
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from sb3_contrib import QRDQN, TQC
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecFrameStack,
    VecNormalize,
)

from regrow.torch.randomness import Randomness
from regrow.torch.sb3.subject import Sb3Subject

torch.set_num_threads(1)


def small():
    """Options of their own each time: Stable-Baselines3 writes into `policy_kwargs`."""
    return {"policy_kwargs": {"net_arch": [16, 16]}, "device": "cpu", "seed": 3}


def noise():
    return OrnsteinUhlenbeckActionNoise(np.zeros(1), 0.3 * np.ones(1))


def replay():
    return {**small(), "learning_starts": 50, "buffer_size": 2_000, "batch_size": 16}


MODELS = {
    "dqn": lambda: DQN(
        "MlpPolicy", "CartPole-v1", exploration_fraction=0.9, target_update_interval=100,
        learning_rate=lambda left: 1e-3 * left, **replay()),
    "qrdqn": lambda: QRDQN("MlpPolicy", "CartPole-v1", **replay()),
    "sac": lambda: SAC("MlpPolicy", "Pendulum-v1", **replay()),
    "tqc": lambda: TQC("MlpPolicy", "Pendulum-v1", **replay()),
    "td3": lambda: TD3("MlpPolicy", "Pendulum-v1", action_noise=noise(), **replay()),
    "ddpg": lambda: DDPG("MlpPolicy", "Pendulum-v1", **replay()),
    "ppo": lambda: PPO(
        "MlpPolicy", "CartPole-v1", n_steps=64, batch_size=32, n_epochs=2,
        learning_rate=lambda left: 1e-3 * left, **small()),
    "a2c": lambda: A2C("MlpPolicy", "Pendulum-v1", n_steps=8, **small()),
    "sac, mujoco": lambda: SAC("MlpPolicy", "InvertedPendulum-v5", **replay()),
    "ppo, two environments": lambda: PPO(
        "MlpPolicy", pair(), n_steps=32, batch_size=32, n_epochs=2, **small()),
    "ppo, normalised": lambda: PPO(
        "MlpPolicy", VecNormalize(pair("Pendulum-v1"), gamma=0.9), n_steps=32, batch_size=32,
        n_epochs=2, **small()),
    "dqn, frames stacked": lambda: DQN("MlpPolicy", VecFrameStack(pair(), 3), **replay()),
}  # fmt: skip


def pair(name="CartPole-v1"):
    return DummyVecEnv([lambda: Monitor(gymnasium.make(name))] * 2)


def values(model):
    return torch.cat([p.detach().flatten() for p in model.policy.parameters()])


def subject(model, total=10**6):
    held = Sb3Subject.of(model, Randomness.now())
    return Sb3Subject(**{**vars(held), "total": total})


def minatar():
    from minatar.gym import register_envs

    if "MinAtar/Breakout-v1" not in gymnasium.registry:
        register_envs()
    return gymnasium.make("MinAtar/Breakout-v1")


def ale(sticky=0.0):
    import ale_py

    gymnasium.register_envs(ale_py)
    made = gymnasium.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=sticky)
    return AtariWrapper(Monitor(made))


GAMES = {
    "minatar": lambda: DQN("MlpPolicy", minatar(), **replay()),
    "ale": lambda: DQN("CnnPolicy", ale(), device="cpu", seed=3, learning_starts=50,
                       buffer_size=2_000, batch_size=16, policy_kwargs={"net_arch": []}),
}  # fmt: skip


class Locked(CartPoleEnv):
    """It holds what no process can copy, as environments of Box2D do."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

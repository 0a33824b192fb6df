"""Trains the model that the tutorial diagnoses: DQN of Stable-Baselines3 on MinAtar's Breakout."""

import torch
from minatar_breakout import make
from stable_baselines3 import DQN

if __name__ == "__main__":
    torch.set_num_threads(1)
    model = DQN(
        "MlpPolicy",
        make(),
        learning_rate=5e-4,
        buffer_size=50_000,
        learning_starts=1_000,
        train_freq=2,
        target_update_interval=1_000,
        exploration_fraction=0.25,
        policy_kwargs={"net_arch": [128, 128]},
        seed=0,
        device="cpu",
    )
    model.learn(40_000)
    model.save("breakout.zip")
    model.save_replay_buffer("breakout_replay_buffer.pkl")

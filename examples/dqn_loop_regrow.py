"""The DQN of dqn_loop.py as a Subject: regrow diagnose dqn_loop_regrow.py:make_subject."""

import random

import gymnasium
import numpy as np
import torch
from torch import nn

from regrow.torch import LoopSubject, Steps, TorchLearner


class QNetwork(nn.Module):
    """Two hidden layers."""

    def __init__(self, inputs: int, actions: int):
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, actions)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Action values."""
        return self.network(x)


def make_subject(seed):
    """DQN at its first env step."""
    env = gymnasium.make("CartPole-v1")
    env.action_space.seed(seed)
    q = QNetwork(4, 2)
    target = QNetwork(4, 2)
    target.load_state_dict(q.state_dict())
    optimizer = torch.optim.Adam(q.parameters(), lr=1e-3)
    buffer: list = []
    obs, _ = env.reset(seed=seed)
    return LoopSubject(locals(), train, learners, environment=lambda state: state.env)


def learners(state):
    """Its network; the head begins at the second layer."""
    return [TorchLearner("q", state.q, ("network.2",), state.optimizer, (state.target,))]


def train(env, q, target, optimizer, buffer, obs, step=0):
    """Trains for as long as it is asked to; what it takes is what a fork copies."""
    while True:
        epsilon = max(0.05, 1 - step / 5_000)
        if random.random() < epsilon:
            action = env.action_space.sample()
        else:
            with torch.no_grad():
                action = int(q(torch.as_tensor(obs)).argmax())
        after, reward, terminated, truncated, _ = env.step(action)
        buffer.append((obs, action, reward, after, terminated))
        del buffer[:-10_000]
        obs = after
        if terminated or truncated:
            obs, _ = env.reset()
        if step > 500 and step % 2 == 0:
            batch = random.sample(buffer, 64)
            s, a, r, s2, d = (torch.as_tensor(np.array(x)) for x in zip(*batch, strict=True))
            with torch.no_grad():
                wanted = r.float() + 0.99 * target(s2).max(1).values * (1 - d.float())
            loss = nn.functional.mse_loss(q(s).gather(1, a[:, None]).flatten(), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if step % 250 == 0:
            target.load_state_dict(q.state_dict())
        step += 1
        yield Steps(reward, terminated, truncated)

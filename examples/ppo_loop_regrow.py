"""The PPO of ppo_loop.py as a Subject: regrow diagnose ppo_loop_regrow.py:make_subject."""

import gymnasium
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

from regrow.torch import LoopSubject, Steps, TorchLearner

STEPS, GAMMA, LAMBDA = 256, 0.99, 0.95


class Agent(nn.Module):
    """An actor and a critic."""

    def __init__(self, inputs: int, actions: int):
        super().__init__()
        self.actor = nn.Sequential(
            nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, actions)
        )
        self.critic = nn.Sequential(
            nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
        )


def make_subject(seed):
    """PPO at its first env step."""
    env = gymnasium.make("CartPole-v1")
    agent = Agent(4, 2)
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-3)
    obs, _ = env.reset(seed=seed)
    return LoopSubject(locals(), train, learners, round=STEPS, environment=lambda state: state.env)


def learners(state):
    """Both networks are one module; each head begins at its second layer."""
    return [TorchLearner("agent", state.agent, ("actor.2", "critic.2"), state.optimizer)]


def train(env, agent, optimizer, obs):
    """Trains for as long as it is asked to; what it takes is what a fork copies."""
    while True:
        seen, taken, logs, values, rewards, ends, cuts = [], [], [], [], [], [], []
        for _ in range(STEPS):
            with torch.no_grad():
                policy = Categorical(logits=agent.actor(torch.as_tensor(obs)))
                action = policy.sample()
                seen.append(obs)
                taken.append(action)
                logs.append(policy.log_prob(action))
                values.append(agent.critic(torch.as_tensor(obs)).item())
            obs, reward, terminated, truncated, _ = env.step(action.item())
            rewards.append(float(reward))
            ends.append(terminated)
            cuts.append(truncated)
            if terminated or truncated:
                obs, _ = env.reset()
        with torch.no_grad():
            following = agent.critic(torch.as_tensor(obs)).item()
        advantages, gathered = np.zeros(STEPS, np.float32), 0.0
        for t in reversed(range(STEPS)):
            left = 1.0 - (ends[t] or cuts[t])
            after = following if t == STEPS - 1 else values[t + 1]
            delta = rewards[t] + GAMMA * after * left - values[t]
            gathered = delta + GAMMA * LAMBDA * left * gathered
            advantages[t] = gathered
        s, a, old = torch.as_tensor(np.array(seen)), torch.stack(taken), torch.stack(logs)
        advantage = torch.as_tensor(advantages)
        wanted = advantage + torch.as_tensor(values, dtype=torch.float32)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        for _ in range(4):
            for rows in torch.randperm(STEPS).split(64):
                policy = Categorical(logits=agent.actor(s[rows]))
                ratio = (policy.log_prob(a[rows]) - old[rows]).exp()
                clipped = torch.minimum(
                    ratio * advantage[rows], ratio.clamp(0.8, 1.2) * advantage[rows]
                )
                critic_loss = (agent.critic(s[rows]).flatten() - wanted[rows]).square().mean()
                loss = 0.5 * critic_loss - clipped.mean() - 0.01 * policy.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
        yield Steps(rewards, ends, cuts, values)

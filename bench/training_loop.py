"""The training loop beside Stable-Baselines3's DQN: same game, network, batch and replay ratio.

Both run in this process on one core, taking turns, and the ratio is the median over pairs.
Stable-Baselines3 has no double estimator, hence one forward pass fewer per update; so regrow runs
as plain DQN too, which is the same work, and as Double DQN beside it.

    python bench/training_loop.py [--turns 5] [--game breakout]
"""

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable

from setting import MACHINE, on_one_core, versions

on_one_core()

import gymnasium
import jax
import jax.numpy as jnp
import minatar
import numpy as np
import stable_baselines3
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from regrow.agents import DoubleDQN
from regrow.environments.base import DeviceEnvironment
from regrow.registry import make
from regrow.training.run import Run

AGENT = DoubleDQN()
SAME_WORK = DoubleDQN(double=False)
OURS, THEIRS = 20_000, 4_000  # env steps per turn


class MinAtarGym(gymnasium.Env):
    """The reference games, channels first as torch has them."""

    def __init__(self, game: str):
        self.game = minatar.Environment(game)
        height, width, channels = self.game.state_shape()
        self.actions = self.game.minimal_action_set()
        self.observation_space = gymnasium.spaces.Box(0, 1, (channels, height, width), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(len(self.actions))

    def _observation(self) -> np.ndarray:
        return self.game.state().transpose(2, 0, 1).astype(np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.game.seed(seed)
        self.game.reset()
        return self._observation(), {}

    def step(self, action):
        reward, terminated = self.game.act(self.actions[int(action)])
        return self._observation(), float(reward), bool(terminated), False, {}


class Convolution(BaseFeaturesExtractor):
    def __init__(self, observation_space: gymnasium.spaces.Box):
        channels, height, width = observation_space.shape
        super().__init__(observation_space, AGENT.channels * (height - 2) * (width - 2))
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(channels, AGENT.channels, 3), torch.nn.ReLU(), torch.nn.Flatten()
        )

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.layers(observations.float())


def stable_baselines(game: str) -> DQN:
    return DQN(
        "MlpPolicy",
        MinAtarGym(game),
        learning_rate=AGENT.learning_rate,
        buffer_size=AGENT.replay_capacity,
        learning_starts=AGENT.learn_start,
        batch_size=AGENT.batch_size,
        gamma=AGENT.discount,
        train_freq=AGENT.env_steps_per_round,
        gradient_steps=AGENT.updates_per_round,
        target_update_interval=AGENT.target_period * AGENT.env_steps_per_round,
        exploration_initial_eps=AGENT.exploration_start,
        exploration_final_eps=AGENT.exploration_end,
        exploration_fraction=1e-9,
        policy_kwargs={
            "features_extractor_class": Convolution,
            "net_arch": [AGENT.hidden],
            "normalize_images": False,
            "optimizer_kwargs": {"eps": AGENT.epsilon},
        },
        device="cpu",
        seed=0,
    )


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def turns(game: str, count: int) -> dict[str, list[float]]:
    """Env steps/s of each, turn by turn, after all have compiled and filled what they need."""
    torch.set_num_threads(1)
    theirs = stable_baselines(game)
    theirs.learn(2 * AGENT.learn_start)
    environment = make("environments", f"minatar/{game}")
    runs = {
        name: Run.start(agent, environment, seed=0).advance(4_000)[0]
        for name, agent in (("dqn", SAME_WORK), ("double_dqn", AGENT))
    }
    rates: dict[str, list[float]] = {"dqn": [], "double_dqn": [], "stable_baselines3": []}
    for _ in range(count):
        for name, run in runs.items():
            began = time.perf_counter()
            runs[name] = run.advance(OURS)[0]
            rates[name].append(OURS / (time.perf_counter() - began))
        learn = functools.partial(theirs.learn, THEIRS, reset_num_timesteps=False)
        rates["stable_baselines3"].append(THEIRS / seconds(learn))
        print("  " + "   ".join(f"{name} {each[-1]:7,.0f}" for name, each in rates.items()))
    return rates


def ratio(rates: dict[str, list[float]], name: str) -> float:
    """The median over turns of ours over theirs."""
    pairs = zip(rates[name], rates["stable_baselines3"], strict=True)
    return round(statistics.median(ours / theirs for ours, theirs in pairs), 2)


def parts(environment: DeviceEnvironment, repeats: int = 300) -> dict[str, float]:
    """Microseconds per round of the pieces, each in a compiled loop of its own."""
    idle = DoubleDQN(learn_start=10**9)
    run = Run.start(idle, environment, seed=0).advance(4_000)[0]
    began = time.perf_counter()
    run = run.advance(OURS)[0]
    acting = (time.perf_counter() - began) / OURS * AGENT.env_steps_per_round * 1e6
    replay, state, key = run.state.replay, run.state.agent, jax.random.key(0)
    batch = replay.sample(key, AGENT.batch_size)
    gradient = AGENT.gradients(state, batch, key)["q"]

    def sampling(carry, key):
        drawn = replay.sample(key, AGENT.batch_size)
        return carry + drawn.reward.sum() + drawn.obs_t.sum() + drawn.obs_tm1.sum(), None

    def descending(learner, key):
        del key
        return learner.descend(gradient), None

    def updating(state, key):
        return AGENT.update(state, batch, key), None

    return {
        "act, step, add to replay": acting,
        "sample a batch": _micros(sampling, jnp.array(0.0), repeats),
        "gradient": _micros(updating, state, repeats) - _micros(descending, state.q, repeats),
        "optimizer step": _micros(descending, state.q, repeats),
        "whole update": _micros(updating, state, repeats),
    }


def _micros(step: Callable, carry: object, repeats: int) -> float:
    keys = jax.random.split(jax.random.key(1), repeats)
    loop = jax.jit(lambda carry: jax.lax.scan(step, carry, keys)[0])
    jax.block_until_ready(loop(carry))
    times = [seconds(lambda: jax.block_until_ready(loop(carry))) for _ in range(5)]
    return statistics.median(times) / repeats * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--game", default="breakout")
    options = parser.parse_args()
    print(f"minatar/{options.game}, {AGENT}")
    print("env steps/s, one core:")
    rates = turns(options.game, options.turns)
    medians = {name: round(statistics.median(each)) for name, each in rates.items()}
    pieces = parts(make("environments", f"minatar/{options.game}"))
    result = {
        "game": options.game,
        "env_steps_per_second": medians,
        "updates_per_second": {
            name: round(rate * AGENT.replay_ratio) for name, rate in medians.items()
        },
        "ratio_dqn": ratio(rates, "dqn"),
        "ratio_double_dqn": ratio(rates, "double_dqn"),
        "microseconds_per_round": {name: round(value) for name, value in pieces.items()},
        "machine": MACHINE,
        "versions": versions(jax, torch, stable_baselines3),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

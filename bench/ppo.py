"""Env steps per second of PPO, end to end and of the update, beside Stable-Baselines3 and sbx.

CartPole from Gymnasium, eight environments one after the other, the same networks, rounds, epochs
and minibatches; one core and one thread, turns alternate. `minatar` is Breakout, for which
Stable-Baselines3 is given the original game and our convolution; ours is compiled with the agent.
sbx has no place for a convolution of one's own.

    python bench/ppo.py [--turns 5]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

from setting import MACHINE, on_one_core, versions

on_one_core()

import flax
import gymnasium
import jax
import minatar
import numpy as np
import sbx
import stable_baselines3
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from regrow.agents import PPO
from regrow.environments import Breakout, Gymnasium
from regrow.environments.base import Environment
from regrow.training.device_loop import scan_updates
from regrow.training.run import Run

POLE = PPO()
GAME = PPO(activation="relu", hidden=128, depth=1, batch_size=1_024, epochs=4, minibatches=4)
ROUNDS = 4  # per turn


class Original(gymnasium.Env):
    """Breakout as its authors wrote it."""

    def __init__(self):
        self.game = minatar.Environment("breakout")
        self.observation_space = gymnasium.spaces.Box(0, 1, self.game.state_shape(), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(self.game.minimal_action_set()))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.game.seed(seed)
        self.game.reset()
        return self.game.state().astype(np.float32), {}

    def step(self, action):
        reward, ended = self.game.act(self.game.minimal_action_set()[int(action)])
        return self.game.state().astype(np.float32), float(reward), bool(ended), False, {}


class Convolution(BaseFeaturesExtractor):
    """Sixteen channels of 3×3."""

    def __init__(self, space: gymnasium.spaces.Box):
        height, width, channels = space.shape
        super().__init__(space, (height - 2) * (width - 2) * 16)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(channels, 16, 3), torch.nn.ReLU(), torch.nn.Flatten()
        )

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return self.layers(seen.permute(0, 3, 1, 2))


def peer(algorithm: type, agent: PPO, environment: Callable[[], gymnasium.Env] | str, **policy):
    """Its PPO with our settings; networks of actor and critic share nothing."""
    theirs = algorithm(
        "MlpPolicy",
        make_vec_env(environment, agent.num_envs, seed=0),
        learning_rate=agent.learning_rate,
        n_steps=agent.batch_size // agent.num_envs,
        batch_size=agent.batch_size // agent.minibatches,
        n_epochs=agent.epochs,
        gamma=agent.discount,
        gae_lambda=agent.trace,
        clip_range=agent.clip,
        ent_coef=agent.entropy,
        policy_kwargs={"net_arch": [agent.hidden] * agent.depth, **policy},
        device="cpu",
        seed=0,
    )
    theirs.set_logger(configure(None, []))
    theirs.learn(agent.batch_size)
    return theirs


class Ours:
    """A Run that is advanced turn by turn, and its update alone."""

    def __init__(self, agent: PPO, environment: Environment):
        self.run, self.agent = Run.start(agent, environment, seed=0), agent
        self.update = jax.jit(
            lambda state, replay, key: scan_updates(state, replay, key[None], agent)
        )

    def learn(self, env_steps: int) -> None:
        self.run, _ = self.run.advance(env_steps)

    def train(self) -> None:
        state = self.run.state
        jax.block_until_ready(self.update(state.agent, state.replay, state.root))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compared(name: str, ours: Ours, peers: dict[str, object], turns: int) -> dict[str, object]:
    """Rates in env steps per second, and ratios as medians of pairs."""
    steps = ROUNDS * ours.agent.batch_size
    for theirs in peers.values():
        theirs._total_timesteps = steps

    def learning(theirs) -> Callable[[], object]:
        return lambda: theirs.learn(steps, reset_num_timesteps=False)

    def training(theirs) -> Callable[[], object]:
        return lambda: [theirs.train() for _ in range(ROUNDS)]

    work = {
        "end_to_end": {"regrow": lambda: ours.learn(steps)}
        | {each: learning(theirs) for each, theirs in peers.items()},
        "update": {"regrow": lambda: [ours.train() for _ in range(ROUNDS)]}
        | {each: training(theirs) for each, theirs in peers.items()},
    }
    result: dict[str, object] = {}
    for what, contenders in work.items():
        for each in contenders.values():
            each()  # compiles
        times = [{who: seconds(each) for who, each in contenders.items()} for _ in range(turns)]
        rates = {who: round(steps / statistics.median(t[who] for t in times)) for who in contenders}
        ratios = {
            who: round(statistics.median(t[who] / t["regrow"] for t in times), 2) for who in peers
        }
        print(f"  {name}, {what}, env steps/s: {rates}, ratios to {ratios}")
        result[what] = {"env_steps_per_second": rates, "ratio_to": ratios}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pole = {
        "stable_baselines3": peer(
            stable_baselines3.PPO, POLE, "CartPole-v1", activation_fn=torch.nn.Tanh
        ),
        "sbx": peer(sbx.PPO, POLE, "CartPole-v1", activation_fn=flax.linen.tanh),
    }
    game = peer(
        stable_baselines3.PPO,
        GAME,
        Original,
        activation_fn=torch.nn.ReLU,
        features_extractor_class=Convolution,
        share_features_extractor=False,
        normalize_images=False,
    )
    result = {
        "cartpole": compared("cartpole", Ours(POLE, Gymnasium("CartPole-v1")), pole, options.turns),
        "minatar": compared(
            "minatar", Ours(GAME, Breakout()), {"stable_baselines3": game}, options.turns
        ),
        "machine": MACHINE,
        "versions": versions(jax, torch, stable_baselines3, sbx),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

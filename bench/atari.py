"""Double DQN on Atari beside the DQN of Stable-Baselines3 and sbx: same game, network, settings.

All run in this process on one core, taking turns, and ratios are medians over pairs: of whole
training in frames/s (env steps × 4) and of updates alone, with sampling. The others have no
double estimator, hence one forward pass fewer per update; so regrow runs as plain DQN too, and
Stable-Baselines3's target network is also made to answer as the double estimator does: compare
DQN with DQN and Double DQN with Double DQN. Theirs ends an episode at the loss of a life and
presses fire after it, ours goes on; theirs resizes with OpenCV, ours as DQN Zoo does. For where the
time goes: `bench/hosted.py --cores 1 --environment atari/pong --agent double_dqn:atari_laptop`.

    python bench/atari.py [--turns 9] [--game pong]
"""

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

from setting import MACHINE, on_one_core, versions

on_one_core()

import ale_py
import gymnasium
import jax
import numpy as np
import sbx
import stable_baselines3
import torch
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from regrow.agents import DoubleDQN
from regrow.environments import Atari
from regrow.environments.atari import REPEAT
from regrow.training.host_loop import _learn
from regrow.training.run import Run

AGENT = DoubleDQN(**{**DoubleDQN.atari_laptop, "replay_capacity": 10_000, "learn_start": 1_000})
SAME_WORK = replace(AGENT, double=False)
ENV_STEPS, UPDATES = 200, 20  # per turn
PAPER = 200_000_000  # frames
KEY = jax.random.key(0)


def peer(algorithm: type, game: str) -> stable_baselines3.DQN | sbx.DQN:
    """Its DQN with our settings."""
    gymnasium.register_envs(ale_py)
    env_id = "".join(word.capitalize() for word in game.split("_")) + "NoFrameskip-v4"
    frames = DummyVecEnv([lambda: AtariWrapper(gymnasium.make(env_id), frame_skip=REPEAT)])
    return algorithm(
        "CnnPolicy",
        VecFrameStack(frames, 4),
        learning_rate=AGENT.learning_rate,
        buffer_size=AGENT.replay_capacity,
        learning_starts=AGENT.learn_start,
        batch_size=AGENT.batch_size,
        gamma=AGENT.discount,
        train_freq=AGENT.env_steps_per_round,
        gradient_steps=AGENT.updates_per_round,
        target_update_interval=AGENT.target_period * AGENT.env_steps_per_round,
        exploration_initial_eps=AGENT.exploration_end,  # every other action is the network's
        exploration_final_eps=AGENT.exploration_end,
        policy_kwargs={"optimizer_kwargs": {"eps": AGENT.epsilon}},
        device="cpu",
        seed=0,
    )


def doubled(theirs: stable_baselines3.DQN) -> stable_baselines3.DQN:
    """Its target network answers with one value: of the action that the online network prefers."""
    values = theirs.q_net_target.forward

    def forward(observations: torch.Tensor) -> torch.Tensor:
        preferred = theirs.q_net(observations).argmax(1, keepdim=True)
        return values(observations).gather(1, preferred)

    theirs.q_net_target.forward = forward
    return theirs


PEERS = {
    "stable_baselines3": functools.partial(peer, stable_baselines3.DQN),
    "stable_baselines3_doubled": lambda game: doubled(peer(stable_baselines3.DQN, game)),
    "sbx": functools.partial(peer, sbx.DQN),
}


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Ours:
    """A Run that learns, and its updates alone."""

    def __init__(self, agent: DoubleDQN, game: str):
        self.run = Run.start(agent, Atari(game), seed=0).advance(AGENT.learn_start + 400)[0]
        fork = self.run.fork()
        self.agent, self.replay = agent, fork.state.replay
        self.leaves, self.form = jax.tree.flatten(fork.state.agent)

    def train(self) -> None:
        self.run = self.run.advance(ENV_STEPS)[0]

    def update(self) -> None:
        for i in range(UPDATES):
            now = np.int32(i)
            self.leaves = _learn(self.leaves, self.form, self.replay, now, KEY, self.agent)
        jax.block_until_ready(self.leaves)


def turns(game: str, count: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """(frames/s, ms per update) of each, turn by turn, after all have compiled."""
    torch.set_num_threads(1)
    ours = {"dqn": Ours(SAME_WORK, game), "double_dqn": Ours(AGENT, game)}
    train = {name: one.train for name, one in ours.items()}
    update = {name: one.update for name, one in ours.items()}
    for name, build in PEERS.items():
        theirs = build(game)
        theirs.learn(AGENT.learn_start + 400)
        train[name] = functools.partial(theirs.learn, ENV_STEPS, reset_num_timesteps=False)
        update[name] = functools.partial(
            theirs.train, gradient_steps=UPDATES, batch_size=AGENT.batch_size
        )
    for work in update.values():
        work()
    rates: dict[str, list[float]] = {name: [] for name in train}
    times: dict[str, list[float]] = {name: [] for name in train}
    for _ in range(count):
        for name in train:
            rates[name].append(ENV_STEPS * REPEAT / seconds(train[name]))
        for name in train:
            times[name].append(seconds(update[name]) / UPDATES * 1e3)
        print("  " + "   ".join(f"{n} {rates[n][-1]:4.0f} {times[n][-1]:5.1f}" for n in train))
    return rates, times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--game", default="pong")
    options = parser.parse_args()
    print(f"atari/{options.game}, {AGENT}")
    print("frames/s and ms per update, one core:")
    rates, times = turns(options.game, options.turns)

    def ratios(better: dict[str, list[float]]) -> dict[str, dict[str, float]]:
        return {
            name: {
                who: round(statistics.median(np.divide(better[name], better[who])), 2)
                for who in PEERS
            }
            for name in ("dqn", "double_dqn")
        }

    updates = {name: [1e3 / ms for ms in each] for name, each in times.items()}
    frames = {name: statistics.median(each) for name, each in rates.items()}
    result = {
        "game": options.game,
        "frames_per_second": {name: round(rate) for name, rate in frames.items()},
        "ratio": ratios(rates),
        "milliseconds_per_update": {
            name: round(statistics.median(each), 1) for name, each in times.items()
        },
        "ratio_of_updates": ratios(updates),
        "days_for_200M_frames": {
            name: round(PAPER / rate / 86_400, 1) for name, rate in frames.items()
        },
        "machine": MACHINE,
        "versions": versions(jax, torch, stable_baselines3, sbx, ale_py),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

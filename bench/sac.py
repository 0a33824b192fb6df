"""SAC beside Stable-Baselines3 and sbx, one core: updates with sampling, and whole training.

All have the same sizes and settings, and one core and one thread; turns alternate. Updates are of
noise, as many transitions of the same size. Ours and sbx's are called once per update, as where a
simulation steps in between; `in_a_loop` is the same compiled over many updates. Whole training has
an update for every env step of an environment of Gymnasium.

    python bench/sac.py [--turns 9] [--seen 24] [--actions 6] [--env-id Pendulum-v1]
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
import numpy as np
import sbx
import stable_baselines3
import torch
from stable_baselines3.common.logger import configure

from regrow.agents import SAC
from regrow.environments import Gymnasium
from regrow.experience.replay import Replay
from regrow.training.device_loop import update_once
from regrow.training.host_loop import _learn
from regrow.training.run import Run
from regrow.types import Continuous, Transition

AGENT = SAC(replay_capacity=100_000, learn_start=5_000)
UPDATES = 50  # per turn
ENV_STEPS = 200  # per turn
KEY = jax.random.key(0)


class Noise(gymnasium.Env):
    """Something to fill a buffer with."""

    def __init__(self, seen: int, actions: int):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (seen,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (actions,), np.float32)
        self.draw = np.random.default_rng(0)

    def _observation(self) -> np.ndarray:
        return self.draw.normal(size=self.observation_space.shape).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action):
        return self._observation(), float(self.draw.normal()), False, False, {}


def peer(algorithm: type, environment: gymnasium.Env) -> stable_baselines3.SAC | sbx.SAC:
    """With a full enough buffer, its networks and settings ours."""
    theirs = algorithm(
        "MlpPolicy",
        environment,
        learning_rate=AGENT.learning_rate,
        buffer_size=AGENT.replay_capacity,
        learning_starts=AGENT.learn_start,
        batch_size=AGENT.batch_size,
        tau=AGENT.target_rate,
        gamma=AGENT.discount,
        ent_coef=f"auto_{AGENT.initial_temperature}",
        target_entropy=AGENT.target_entropy * environment.action_space.shape[0],
        policy_kwargs={"net_arch": [AGENT.hidden, AGENT.hidden]},
        device="cpu",
        seed=0,
    )
    theirs.set_logger(configure(None, []))
    theirs.learn(AGENT.learn_start + 1)
    return theirs


def filled(seen: int, actions: int) -> Replay:
    """A replay of the same kind of noise."""
    replay = Replay.empty(AGENT.replay_capacity, (seen,), np.dtype(np.float32), Continuous(actions))
    keys = jax.random.split(KEY, len(replay.storage))
    drawn = [
        jax.random.normal(k, x.shape).astype(x.dtype)
        for k, x in zip(keys, replay.storage, strict=True)
    ]
    obs, action, reward, discount, after, truncated = drawn
    action, discount = jnp.tanh(action), jnp.ones_like(discount)
    storage = Transition(obs, action, reward, discount, after, truncated)
    return Replay(storage, jnp.array(0), jnp.array(AGENT.learn_start))


def milliseconds(work: Callable[[], object], count: int) -> float:
    """Of each of the `count` things that `work` does, once waited for."""
    began = time.perf_counter()
    jax.block_until_ready(work())
    return (time.perf_counter() - began) / count * 1e3


@functools.partial(jax.jit, donate_argnames="state")
def in_a_loop(state, replay, key):
    keys = jax.random.split(key, UPDATES)
    return jax.lax.scan(lambda s, k: (update_once(s, replay, k, AGENT), None), state, keys)[0]


class Ours:
    """Our agent, called update by update or in a compiled loop."""

    def __init__(self, seen: int, actions: int):
        start = AGENT.init((seen,), np.dtype(np.float32), Continuous(actions), KEY)
        self.state, mine = (
            jax.tree.map(lambda x: jnp.array(x, copy=True), start) for _ in range(2)
        )
        self.leaves, self.form = jax.tree.flatten(mine)
        self.replay, self.updates = filled(seen, actions), 0

    def one_by_one(self):
        for _ in range(UPDATES):
            now = np.int32(self.updates)
            self.leaves = _learn(self.leaves, self.form, self.replay, now, KEY, AGENT)
            self.updates += 1
        return self.leaves

    def looped(self):
        self.state = in_a_loop(self.state, self.replay, KEY)
        return self.state


class Training:
    """Our Run, advanced turn by turn."""

    def __init__(self, env_id: str):
        self.run = Run.start(AGENT, Gymnasium(env_id), seed=0).advance(AGENT.learn_start + 1)[0]

    def advance(self):
        self.run = self.run.advance(ENV_STEPS)[0]
        return self.run.state


def updates(seen: int, actions: int) -> dict[str, Callable[[], object]]:
    """What makes `UPDATES` updates of each."""
    ours = Ours(seen, actions)
    torch_sac, jax_sac = (
        peer(each, Noise(seen, actions)) for each in (stable_baselines3.SAC, sbx.SAC)
    )
    return {
        "regrow": ours.one_by_one,
        "stable_baselines3": lambda: torch_sac.train(UPDATES, AGENT.batch_size),
        "sbx": lambda: [jax_sac.train(1, AGENT.batch_size) for _ in range(UPDATES)],
        "regrow_in_a_loop": ours.looped,
        "sbx_in_a_loop": lambda: jax_sac.train(UPDATES, AGENT.batch_size),
    }


def training(env_id: str) -> dict[str, Callable[[], object]]:
    """What takes `ENV_STEPS` env steps of each, with an update for every one."""
    torch_sac, jax_sac = (
        peer(each, gymnasium.make(env_id)) for each in (stable_baselines3.SAC, sbx.SAC)
    )
    return {
        "regrow": Training(env_id).advance,
        "stable_baselines3": lambda: torch_sac.learn(ENV_STEPS, reset_num_timesteps=False),
        "sbx": lambda: jax_sac.learn(ENV_STEPS, reset_num_timesteps=False),
    }


def turns(
    work: dict[str, Callable[[], object]], each_does: int, count: int
) -> dict[str, list[float]]:
    """Milliseconds of each, turn by turn, after all have compiled."""
    for each in work.values():
        milliseconds(each, each_does)
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(count):
        for name, each in work.items():
            times[name].append(milliseconds(each, each_does))
        print("  " + "   ".join(f"{name} {each[-1]:6.2f}" for name, each in times.items()))
    return times


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(statistics.median(each), 2) for name, each in times.items()}


def ratio(times: dict[str, list[float]], theirs: str, ours: str = "regrow") -> float:
    """The median over pairs, above 1 where ours is faster."""
    return round(statistics.median(np.divide(times[theirs], times[ours])), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--seen", type=int, default=24)
    parser.add_argument("--actions", type=int, default=6)
    parser.add_argument("--env-id", default="Pendulum-v1")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{AGENT}, {options.seen} numbers seen, {options.actions} per action")
    print("ms per update, one core:")
    times = turns(updates(options.seen, options.actions), UPDATES, options.turns)
    print(f"ms per env step of {options.env_id} and its update, one core:")
    whole = turns(training(options.env_id), ENV_STEPS, options.turns)
    result = {
        "milliseconds_per_update": medians(times),
        "ratio_to_stable_baselines3": ratio(times, "stable_baselines3"),
        "ratio_to_sbx": ratio(times, "sbx"),
        "ratio_to_stable_baselines3_in_a_loop": ratio(
            times, "stable_baselines3", "regrow_in_a_loop"
        ),
        "ratio_to_sbx_in_a_loop": ratio(times, "sbx_in_a_loop", "regrow_in_a_loop"),
        "end_to_end": {
            "env_id": options.env_id,
            "milliseconds_per_env_step": medians(whole),
            "ratio_to_stable_baselines3": ratio(whole, "stable_baselines3"),
            "ratio_to_sbx": ratio(whole, "sbx"),
        },
        "machine": MACHINE,
        "versions": versions(jax, torch, stable_baselines3, sbx, gymnasium),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

"""Ten environments that people use, each trained, resumed and diagnosed from the command line.

    python tools/ten_environments.py [FOLDER] [--only NAME]

prints a table: what came of each, what was warned of, and the seconds it took. It needs what the
environments need: `pip install 'gymnasium[mujoco]' box2d minigrid` beside 'regrow[gymnasium]'. A
package that is not there is told in the table.

This file is also a module that registers two of them, as a user's would.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

ROOT = Path(__file__).parents[1]

SMALL = "hidden=16, learn_start=100, replay_capacity=3000"
DQN = f"double_dqn({SMALL})"
SAC = f"sac({SMALL}, batch_size=16, replay_ratio=0.25)"
PPO = "ppo(hidden=16, batch_size=40, num_envs=4, minibatches=2, epochs=2)"


class Plain(gymnasium.Env):
    """A number that is to be kept near 0."""

    observation_space = spaces.Box(-10, 10, (1,), np.float64)
    action_space = spaces.Discrete(3, start=-1)

    def reset(self, *, seed=None, options=None):
        """Somewhere near 0."""
        super().reset(seed=seed, options=options)
        self.number, self.env_steps = self.np_random.normal(), 0
        return np.array([self.number]), {}

    def step(self, action):
        """One down, none or one up, and some noise; over at a distance of 5, or after 100."""
        self.number += action + self.np_random.normal()
        self.env_steps += 1
        over = bool(abs(self.number) > 5)
        return np.array([self.number]), -abs(self.number), over, self.env_steps >= 100, {}


def minigrid_image():
    """What is in front of the agent, without the mission in words."""
    import minigrid.wrappers

    return minigrid.wrappers.ImgObsWrapper(gymnasium.make("MiniGrid-Empty-5x5-v0"))


gymnasium.register("Plain-v0", entry_point=Plain)
gymnasium.register("MiniGridImage-v0", entry_point=minigrid_image, max_episode_steps=100)

TEN = {
    "gymnasium/LunarLander-v3": DQN,
    "gymnasium/Pendulum-v1": SAC,
    "gymnasium/MountainCarContinuous-v0": SAC,
    "gymnasium/Acrobot-v1": DQN,
    "gymnasium/FrozenLake-v1(map_name='4x4', is_slippery=True)": DQN,
    "gymnasium/HalfCheetah-v5": SAC,
    "gymnasium/ten_environments:MiniGridImage-v0": DQN.replace(
        "hidden=16", "channels=4, hidden=16"
    ),
    "gymnasium/own_gymnasium_environment:StackedPendulum-v0": SAC,
    "gymnasium/own_gymnasium_environment:Room-v0(size=3)": PPO,
    "gymnasium/ten_environments:Plain-v0": PPO,
    "jax/own_jax_environment:track": PPO,
}


class Done(NamedTuple):
    """What a command printed, and how long it took."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> list[str]:
        """Warnings and errors, a line each."""
        return [line for line in self.err.splitlines() if line.startswith("regrow: ")]


def regrow(*arguments: str) -> Done:
    """A command line, with the two folders that modules of one's own lie in."""
    paths = [str(ROOT / "tools"), str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command, began = [sys.executable, "-m", "regrow", *arguments], time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return Done(done.returncode, done.stdout, done.stderr, time.perf_counter() - began)


def tried(name: str, agent: str, folder: Path) -> list[str]:
    """A row: environment, agent, training, resumed, claim, warnings, seconds."""
    subject = [name, "--agent", agent]
    trained = [*subject, "--probe-every", "0", "--out", str(folder / "train")]
    first = regrow("train", *trained, "--env-steps", "2000")
    second = regrow("train", *trained, "--env-steps", "2400", "--resume")
    third = regrow(
        *("diagnose", *subject, "--fork-at", "1200", "--horizon", "1200", "--seeds", "2"),
        *("--arms", "nothing", "inject", "--processes", "1", "--out", str(folder / "diagnose")),
    )
    verdict = folder / "diagnose" / "verdict.json"
    claim = json.loads(verdict.read_text())["claim"] if verdict.is_file() else "none"
    said = list(dict.fromkeys(line for done in (first, second, third) for line in done.said))
    columns = [done.out.strip().splitlines()[-1:] for done in (first, second)]
    told = [(lines or ["nothing"])[0] for lines in columns]
    told = [line[max(line.find("return of"), 0) :].partition(";")[0] for line in told]
    seconds = "+".join(f"{done.seconds:.0f}" for done in (first, second, third))
    codes = "".join(str(done.code) for done in (first, second, third))
    return [f"`{name}`", agent.partition("(")[0], *told, claim, " ".join(said), codes, seconds]


def main() -> None:
    """Prints the table row by row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, help="where runs are kept")
    parser.add_argument("--only", default="", help="those with this in their name")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="ten-environments-"))
    heads = ["environment", "agent", "2,000 env steps", "resumed to 2,400", "claim"]
    print("|", " | ".join([*heads, "said", "exit codes", "seconds"]), "|")
    print("|" + "---|" * 8, flush=True)
    for i, (name, agent) in enumerate(TEN.items()):
        if options.only in name:
            print("|", " | ".join(tried(name, agent, folder / str(i))), "|", flush=True)


if __name__ == "__main__":
    main()

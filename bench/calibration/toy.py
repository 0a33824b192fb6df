"""Matching reward, the toy environment that an agent learns in 400 env steps: pools of forks.

    python bench/calibration/toy.py [--seeds 400] [--out runs/calibration/toy]

Double DQN with 16 hidden units (toy/matching_reward: 1 for the action that is shown, else 0; a
random policy earns 0.5). It is forked at 200 env steps, after damage of increasing strength, and
both arms train for 1,000 more, two replicates each; the return is the mean reward, in 20 bins of
time. Every 20 seeds are a file: stopped anywhere, it continues.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from regrow.agents import DoubleDQN
from regrow.environments.toy.matching_reward import MatchingReward
from regrow.registry import make
from regrow.training.run import Run

OUT = Path("runs/calibration/toy")
SCENARIOS = {
    "none": "",
    **{f"fit_noise {n}": f"fit_noise(rounds={n}, updates=200, transitions=200)" for n in (1, 20)},
    "fit_noise fixed": "fit_noise(rounds=20, updates=200, transitions=200, redraw=False)",
    **{f"deaden {share}": f"deaden(share={share})" for share in (0.5, 0.8, 0.9, 1.0)},
}
FORK_AT, HORIZON, REPLICATES, BINS, TOGETHER = 200, 1_000, 2, 20, 20
RANDOM = 0.5
AGENT = DoubleDQN(
    hidden=16, channels=4, learn_start=100, replay_capacity=2_000, exploration_steps=200
)


def curves(seed: int) -> np.ndarray:
    """(scenarios, 2, replicates, bins) mean rewards after the fork."""
    trunk, _ = Run.start(AGENT, MatchingReward(), seed=seed).advance(FORK_AT)
    found = np.zeros((len(SCENARIOS), 2, REPLICATES, BINS))
    for i, before in enumerate(SCENARIOS.values()):
        fork = trunk.fork()
        if before:
            fork = fork.intervene(make("interventions", before))
        for arm, name in enumerate(("nothing", "inject")):
            for replicate in range(REPLICATES):
                run = fork.fork(replicate).intervene(make("interventions", name))
                _, log = run.advance(HORIZON)
                found[i, arm, replicate] = np.asarray(log.reward).reshape(BINS, -1).mean(1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for start in range(0, options.seeds, TOGETHER):
        path = options.out / f"{start:05}.npy"
        if path.is_file():
            continue
        began = time.monotonic()
        held = np.stack([curves(seed) for seed in range(start, start + TOGETHER)], axis=3)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, held)
        part.rename(path)
        seconds = f"{time.monotonic() - began:.0f} s"
        print(path.name, np.round(held.mean((2, 3, 4)), 2).tolist(), seconds, flush=True)


if __name__ == "__main__":
    main()

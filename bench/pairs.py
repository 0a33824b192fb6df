"""Training of two checkouts of regrow beside each other, in turns: the ratio of their rates.

    git worktree add ../before 9d53989
    python bench/pairs.py ../before [--pairs 5]

Double DQN on MinAtar Breakout (device) and on Gymnasium's CartPole (host), one process and one core
each, after a warm-up in which everything is compiled. A ratio above 1: this checkout is faster.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[1]
ONE_CORE = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
TIMED = """
import time
from regrow.registry import make
from regrow.training.run import Run
agent, environment = make("agents", "double_dqn"), make("environments", {environment!r})
run, _ = Run.start(agent, environment, seed=0).advance({warm})
best = 0.0
for _ in range(3):
    began = time.perf_counter()
    run, _ = run.advance({env_steps})
    best = max(best, {env_steps} / (time.perf_counter() - began))
print(best)
"""
SETTINGS = {
    "minatar/breakout": {"warm": 4_000, "env_steps": 8_000},
    "gymnasium/CartPole-v1": {"warm": 2_000, "env_steps": 2_000},
}


def rate(checkout: Path, environment: str) -> float:
    """Env steps per second, the best of three pieces."""
    own = {"PYTHONPATH": str(checkout / "src"), "XLA_FLAGS": ONE_CORE}
    program = TIMED.format(environment=environment, **SETTINGS[environment])
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, env={**os.environ, **own}, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    for environment in SETTINGS:
        ratios = []
        for _ in range(options.pairs):
            before, now = rate(options.other, environment), rate(HERE, environment)
            ratios.append(now / before)
            print(f"{environment}: {now:,.0f} and {before:,.0f} env steps/s", flush=True)
        middle = statistics.median(ratios)
        shown = ", ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"{environment}: median ratio {middle:.3f} ({shown})")


if __name__ == "__main__":
    main()

"""What it costs to run jobs elsewhere, and what a second worker gains.

    python bench/clusters.py

- A study of 8 jobs that take as long each, on one worker process and on two: taking turns, the
  median of the ratios. Workers are started and stopped within the time.
- The overhead per job: 32 jobs that do nothing, minus none, by worker processes, Ray and submitit
  (its executor for this machine), each with two at once.
- How long training is held up by checkpoints: the seconds that it waited for copies, at the
  default of one a minute or less.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from setting import MACHINE, versions

from regrow.agents import DoubleDQN
from regrow.environments import Breakout
from regrow.execution.on_ray import Ray
from regrow.execution.on_slurm import Slurm
from regrow.execution.processes import Processes
from regrow.execution.tasks import Execute, Task
from regrow.training import saving
from regrow.training.run import Run
from regrow.training.train import train
from regrow.types import Report, silent

AGENT = DoubleDQN(replay_capacity=100_000)
JOB = 40_000  # env steps


def training(report: Report, seed: int) -> None:
    """A job of a study, its length apart from compilation."""
    run = Run.start(AGENT, Breakout(), seed=seed)
    for _ in range(JOB // 1_000):
        run, _ = run.advance(1_000)
        report("training", 1_000)


def nothing(report: Report) -> None:
    """A job that takes no time."""
    report("nothing", 1)


def seconds(execute: Execute, work: list[Callable[[Report], None]]) -> float:
    """How long tasks take."""
    began = time.perf_counter()
    execute([Task(f"task {n}", (), one) for n, one in enumerate(work)], silent)
    return time.perf_counter() - began


def second_worker(turns: int) -> list[float]:
    """Ratios of the time on one worker to that on two."""
    jobs = [partial(training, seed=seed) for seed in range(8)]
    seconds(Processes(2), jobs[:2])  # compiles
    return [seconds(Processes(1), jobs) / seconds(Processes(2), jobs) for _ in range(turns)]


def overhead(make: Callable[[], Execute], count: int = 32) -> float:
    """Seconds per job that does nothing, starting the place apart."""
    few = seconds(make(), [nothing] * 2)
    return (seconds(make(), [nothing] * count) - few) / (count - 2)


def held_up() -> tuple[float, float, int]:
    """(seconds of training, of which it waited, bytes of the last checkpoint)."""
    waits = list[saving.Saves]()
    kept = saving.Saves.__init__

    def noted(self: saving.Saves) -> None:
        kept(self)
        waits.append(self)

    saving.Saves.__init__ = noted
    with tempfile.TemporaryDirectory() as folder:
        train(AGENT, Breakout(), Path(folder) / "a", env_steps=20_000, report=silent)
        began = time.perf_counter()
        train(AGENT, Breakout(), Path(folder) / "b", env_steps=400_000, report=silent)
        took = time.perf_counter() - began
        size = (Path(folder) / "b" / "run.ckpt").stat().st_size
    return took, waits[-1].held_up, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=2)
    options = parser.parse_args()
    ratios = second_worker(options.turns)
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "local": overhead(lambda: Processes(2)),
            "ray": overhead(lambda: Ray(count=2)),
            "submitit": overhead(lambda: Slurm(Path(folder), {"cluster": "local"}), 8),
        }
    took, waited, size = held_up()
    print(json.dumps({"machine": MACHINE, "versions": versions()}))
    print(f"8 jobs of {JOB:,} env steps, one worker / two: {statistics.median(ratios):.2f}", ratios)
    for name, each in found.items():
        print(f"overhead per job, {name}: {each:.3f} s")
    print(
        f"checkpoints of {size / 1e6:.1f} MB: training waited {waited:.3f} s of {took:.1f} s, "
        f"{100 * waited / took:.2f}%"
    )


if __name__ == "__main__":
    main()

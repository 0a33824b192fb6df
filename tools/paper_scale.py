"""What a diagnosis of the paper's size would take: 57 games, 4 arms, 10 seeds, 2 replicates.

Simulates its jobs on a number of workers that die now and then: hours, lost work, bytes, requests.
Sizes come from the code (a checkpoint of the paper's agent), speeds and failures are assumptions,
which are printed and can be changed.

    python tools/paper_scale.py
"""

import argparse
import heapq
import itertools
import random
from typing import NamedTuple

import jax
import numpy as np

from regrow.agents import DoubleDQN
from regrow.environments import Atari
from regrow.execution.memory import in_words
from regrow.files.leases import BEAT, EXPIRES
from regrow.files.progress import TELL_STORE_EVERY
from regrow.training.run import abstract_state
from regrow.training.saving import SHARE

GAMES, ARMS, SEEDS, REPLICATES = 57, 4, 10, 2
FORK_AT, HORIZON = 50_000_000, 150_000_000  # frames, 200 million in all
HASHED, SENT = 0.5e9, 0.2e9  # bytes per second: checksums by one core; a worker's way to the store


class Site(NamedTuple):
    """Where the jobs run."""

    name: str
    workers: int
    frames_per_second: float  # of one worker
    hours_between_deaths: float  # of one worker
    minutes_to_come_back: float  # queue, start, compilation


SITES = (
    Site("64 GPUs", 64, 4_000, 30 * 24, 5),
    Site("1,000 cores, preempted", 1_000, 350, 12, 5),
)


def checkpoint_bytes(keep: int | None) -> tuple[int, int]:
    """(bytes in memory, bytes of a checkpoint) of the paper's agent; `keep`: transitions."""
    agent = DoubleDQN(**{**DoubleDQN.atari_paper, "replay_capacity": keep or 1_000_000})
    leaves = jax.tree.leaves(abstract_state(agent, Atari("pong"), ()))
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    bits = sum(leaf.size for leaf in leaves if leaf.dtype == np.bool_)
    return int(whole), int(whole - bits + bits / 8)


class Outcome(NamedTuple):
    """What a simulation found."""

    hours: float
    lost: float  # share of the work that was done twice
    deaths: int


def simulated(site: Site, interval: float, resume: float, draws: random.Random) -> Outcome:
    """Runs all jobs: forks first, the arms of a fork when it is done. Times are in hours."""
    ready = [(0, FORK_AT, fork) for fork in range(GAMES * SEEDS)]
    heapq.heapify(ready)
    free, events, count = site.workers, list[tuple[float, int, tuple[int, int, int]]](), 0
    now, lost, work, deaths = 0.0, 0.0, 0.0, 0
    number = itertools.count()
    while ready or events:
        while ready and free:
            job = heapq.heappop(ready)
            hours = job[1] / site.frames_per_second / 3600 * draws.lognormvariate(0, 0.1)
            work += hours
            took = 0.0
            while (until := draws.expovariate(1 / site.hours_between_deaths)) < hours:
                again = min(until, draws.uniform(0, interval))  # since the last checkpoint
                deaths, lost = deaths + 1, lost + again
                took += until + site.minutes_to_come_back / 60 + EXPIRES / 3600 + resume
                hours -= until - again
            heapq.heappush(events, (now + took + hours, next(number), job))
            free -= 1
        now, _, job = heapq.heappop(events)
        free, count = free + 1, count + 1
        if job[0] == 0:
            for _ in range(ARMS * REPLICATES):
                heapq.heappush(ready, (1, HORIZON, job[2]))
    return Outcome(now, lost / work, deaths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    forks, arms = GAMES * SEEDS, GAMES * SEEDS * ARMS * REPLICATES
    memory, size = checkpoint_bytes(None)
    print(f"{forks} forks of {FORK_AT:,} frames and {arms:,} arms of {HORIZON:,}")
    print(f"a job has {in_words(memory)} in memory, a checkpoint {in_words(size)}")
    print(f"forks in the store: {in_words(forks * size)}; rows: {in_words(arms * 60e3)}")
    for site in SITES:
        cost = size / HASHED + memory / 10e9  # seconds: the copy and the checksums
        print(
            f"\n{site.name}: {site.frames_per_second:,.0f} frames/s each, a worker dies every "
            f"{site.hours_between_deaths:g} h and is back after {site.minutes_to_come_back:g} min"
        )
        running = in_words(2 * site.workers * size)
        print(f"  of running jobs, two checkpoints each: {running}")
        for name, seconds in (("every 60 s", 60.0), ("at most 1%", max(60.0, cost / SHARE))):
            rate = site.workers * size / seconds
            slowed = max(cost / seconds, size / SENT / seconds)
            done = simulated(site, seconds / 3600, size / SENT / 3600, random.Random(options.seed))
            print(
                f"  checkpoints {name} ({seconds:,.0f} s): {in_words(rate)}/s into the store, "
                f"{100 * slowed:.1f}% of a worker's line or core; {done.hours / 24:.1f} days, "
                f"{done.deaths:,} deaths, {100 * done.lost:.2f}% done twice"
            )
        beats = site.workers * (2 / BEAT + 1 / TELL_STORE_EVERY)
        print(f"  leases and progress: {beats:.0f} requests/s")
    print(f"\nrows at a look: {arms:,} files; one after another {arms * 0.03:.0f} s at 30 ms each,")
    print(f"128 at once (as they are read) {arms * 0.03 / 128:.1f} s")
    print(f"SLURM: {forks} + {arms:,} jobs in arrays of at most 1,000")


if __name__ == "__main__":
    main()

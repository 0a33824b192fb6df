"""Where the time of the host loop goes: each part alone, and the loop, in which they overlap.

    act       the agent's action, fetched from the device
    learn     the updates of a round, waited for
    simulate  one step of every simulation
    add       what happened, into the replay
    loop      an env step of the loop as it is, beside the sum of the parts

On one core nothing overlaps but the loop's own waiting; on two, learning and simulating do.

    python bench/hosted.py [--environment control/walker-walk] [--agent sac] [--cores 2]
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

from setting import MACHINE, on_one_core, versions

from regrow.execution.processes import one_core

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--environment", default="control/walker-walk")
parser.add_argument("--agent", default="sac(replay_capacity=100_000, learn_start=1_000)")
parser.add_argument("--cores", type=int, default=2, help="1 or 2")
parser.add_argument("--turns", type=int, default=5)
OPTIONS = parser.parse_args()
if OPTIONS.cores == 1:
    on_one_core()
else:
    one_core()  # XLA's thread; the simulation has the other core
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: OPTIONS.cores])

import jax
import numpy as np

from regrow.registry import describe, make
from regrow.training import host_loop as hosted
from regrow.training.run import Run
from regrow.types import Continuous

REPEATS = 200


def milliseconds(work: Callable[[], object]) -> float:
    """Of one call, waited for."""
    began = time.perf_counter()
    for _ in range(REPEATS):
        jax.block_until_ready(work())
    return (time.perf_counter() - began) / REPEATS * 1e3


class Parts:
    """What the loop does in an env step, each by itself."""

    def __init__(self, run: Run):
        self.agent, self.environment, self.now = run.agent, run.environment, np.int32(run.env_steps)
        count = self.agent.num_envs
        self.simulators = [self.environment.simulator() for _ in range(count)]
        seen = [one.reset(n) for n, one in enumerate(self.simulators)]
        self.observation, self.seeds = hosted._together(seen), iter(range(10**9))
        self.draw = np.random.default_rng(0)
        state = run.fork().state
        self.learner, self.form = jax.tree.flatten(state.agent)
        self.replay, self.root = state.replay, state.root
        self.steps = self._stepped()

    def _stepped(self) -> list:
        space = self.environment.action_space
        steps = []
        for one in self.simulators:
            if isinstance(space, Continuous):
                action = self.draw.uniform(-1, 1, space.size).astype(np.float32)
            else:
                action = np.asarray(self.draw.integers(space.number))
            steps.append(one.step(action))
            if steps[-1].terminated or steps[-1].truncated:
                one.reset(next(self.seeds))
        self.action = hosted._together([action] * len(self.simulators))
        return steps

    def act(self):
        made = hosted._act(
            self.learner, self.form, self.observation, self.now, self.root, self.agent
        )
        return [np.asarray(x) for x in made]

    def learn(self):
        self.learner = hosted._learn(
            self.learner, self.form, self.replay, np.int32(0), self.root, self.agent
        )
        return self.learner

    def simulate(self):
        self.steps = self._stepped()

    def add(self):
        numbers, seen = hosted._numbers(self.steps), [step.observation for step in self.steps]
        after = hosted._together(seen)
        self.replay = hosted._add(self.replay, self.observation, self.action, numbers, after)
        return self.replay


def main() -> None:
    agent = make("agents", OPTIONS.agent)
    environment = make("environments", OPTIONS.environment)
    warm = agent.first_learning_round + 2 * agent.env_steps_per_round
    run, _ = Run.start(agent, environment, seed=0).advance(warm)
    parts = Parts(run)
    # A turn of a part is a turn of all environments; learning comes once in a round.
    turns_of_round = agent.env_steps_per_round / agent.num_envs
    shares = {"act": 1.0, "learn": 1 / turns_of_round, "simulate": 1.0, "add": 1.0}
    times: dict[str, list[float]] = {name: [] for name in (*shares, "loop")}
    steps = max(1, REPEATS * agent.num_envs // agent.env_steps_per_round)
    steps *= agent.env_steps_per_round
    for name in shares:
        milliseconds(getattr(parts, name))
    for _ in range(OPTIONS.turns):
        for name, share in shares.items():
            times[name].append(milliseconds(getattr(parts, name)) * share / agent.num_envs)
        began = time.perf_counter()
        run, _ = run.advance(steps)
        jax.block_until_ready(run.state.agent)
        times["loop"].append((time.perf_counter() - began) / steps * 1e3)
    middle = {name: statistics.median(each) for name, each in times.items()}
    result = {
        "agent": describe(agent),
        "environment": describe(environment),
        "milliseconds_per_env_step": {name: round(ms, 3) for name, ms in middle.items()},
        "sum_of_parts": round(sum(ms for name, ms in middle.items() if name != "loop"), 3),
        "env_steps_per_second": round(1e3 / middle["loop"]),
        "machine": MACHINE if OPTIONS.cores == 1 else MACHINE.replace("one core", "two cores"),
        "versions": versions(jax),
    }
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()

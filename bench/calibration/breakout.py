"""MinAtar Breakout with graded damage: pools of forks, made by the library itself.

    python bench/calibration/breakout.py [--seeds 20] [--processes 1] [--out FOLDER]

Double DQN, forked at 2,000 env steps after a stressor of increasing strength, then 20,000 env steps
of both arms, two replicates each. Seeds come in blocks of four over all scenarios, so that what is
there is balanced whenever it is stopped; the same command continues.
"""

import argparse
from pathlib import Path

from regrow.agents import DoubleDQN
from regrow.diagnosis.diagnose import tasks
from regrow.diagnosis.plan import Arm, Plan
from regrow.diagnosis.recording import alone
from regrow.environments import Breakout
from regrow.execution.processes import Processes
from regrow.files.leases import alone as only_one
from regrow.registry import make
from regrow.sources.native import Native

OUT = Path("runs/calibration/minatar")
SCENARIOS = {
    "none": (),
    **{f"fit_noise {n}": (f"fit_noise(rounds={n})",) for n in (1, 2, 5, 10, 20)},
    "fit_noise fixed": ("fit_noise(rounds=20, redraw=False)",),
    **{f"deaden {share}": (f"deaden(share={share})",) for share in (0.5, 0.9, 1.0)},
}
FORK_AT, HORIZON, BLOCK = 2_000, 20_000, 4


def plan_of(scenario: str, seeds: int) -> Plan:
    return Plan(
        Native(DoubleDQN(), Breakout()),
        arms=(Arm.parse("nothing"), Arm.parse("inject")),
        seeds=seeds,
        fork_at=FORK_AT,
        horizon=HORIZON,
        before=tuple(make("interventions", text) for text in SCENARIOS[scenario]),
        fixed=True,
    )


def folder_of(out: Path, scenario: str) -> Path:
    return out / scenario.replace(" ", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    execute = Processes(options.processes)
    for seeds in range(BLOCK, options.seeds + 1, BLOCK):
        for scenario in SCENARIOS:
            plan, folder = plan_of(scenario, seeds), folder_of(options.out, scenario)
            folder.mkdir(parents=True, exist_ok=True)
            with only_one(folder):
                since = seeds - BLOCK
                execute(tasks(alone(plan), folder, (), seeds, since), lambda phase, done: None)
            print(scenario, seeds, "seeds", flush=True)


if __name__ == "__main__":
    main()

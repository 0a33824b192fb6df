"""Fork a training run into arms that differ in one intervention, train them on, compare.

    seed ──train──▶ fork_at ──before──▶ fork ┬─ nothing ──horizon──▶ outcome
                                             ├─ again   (nothing, other draws: the noise floor)
                                             ├─ inject
                                             └─ reset

The work is cut into cells (`cells.py`), which any `Execute` may run; what they leave in the folder
is concluded from in `verdict.py`.
"""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from regrow.diagnosis.jobs import cells, final_mean, mean_return, outcomes_of, run_cell
from regrow.diagnosis.plan import Diagnosis
from regrow.diagnosis.verdict import Verdict, conclude
from regrow.environments.base import HostEnvironment
from regrow.errors import require
from regrow.execution.guard import leave_if_unguarded
from regrow.execution.tasks import Execute, Task, in_order
from regrow.files.folders import claimed
from regrow.records.sinks import checked
from regrow.training.environment_checks import check_before_training
from regrow.training.run import LONGEST, abstract_state, random_policy
from regrow.types import Log, Report, silent

RANDOM_STEPS = 10_000


def tasks(plan: Diagnosis, folder: Path, log: Sequence[str] = ()) -> list[Task]:
    """The cells of a diagnosis as tasks; `log`: the sinks that hear of them meanwhile."""
    return [
        Task(
            cell.name,
            (needs.name,) if needs else (),
            partial(run_cell, plan, cell, folder, log=log),
        )
        for cell, needs in cells(plan)
    ]


def diagnose(
    plan: Diagnosis,
    folder: str | Path | None = None,
    *,
    execute: Execute = in_order,
    report: Report = silent,
    log: str | Sequence[str] = (),
) -> Verdict:
    """Carries out a diagnosis and returns its verdict.

    `folder` keeps what was done: the same plan with the same folder goes on where it stopped.
    Without one nothing is kept. `log`: "csv", "tensorboard" or "wandb", or several of them, into
    which every cell is logged while it trains. Raises `RegrowError` where the plan cannot be
    carried out (a split outside the network, say), the environment does what it may not do
    (`check_environment`, in short), the folder holds a diagnosis with another plan or another
    process is at work in it, or `log` is none of these or its package is not there.
    """
    leave_if_unguarded()
    log = checked(log)
    require(folder is not None or not log, f"log is {', '.join(log)} and folder is None; give one")
    for arm in plan.arms:
        abstract_state(plan.agent, plan.environment, (*plan.before, arm.does))
    check_before_training(plan.environment)
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="regrow-") as temporary:
            return diagnose(plan, temporary, execute=execute, report=report)
    folder = Path(folder)
    with claimed(folder, {"kind": "diagnosis", **plan.config()}):
        execute(tasks(plan, folder, log), report)
        return verdict_of(plan, folder)


def verdict_of(plan: Diagnosis, folder: Path) -> Verdict:
    """The verdict on a diagnosis that is done."""
    return conclude(
        outcomes_of(plan, folder),
        inject=plan.injection(),
        resets=plan.resets(),
        splits=plan.splits(),
        random_return=random_return(plan),
        smallest_effect=plan.smallest_effect,
        confidence=plan.confidence,
        restarted=plan.restarts(),
    )


def random_return(plan: Diagnosis) -> float:
    """What the random policy earns where the arms end.

    Where the task stays as it is, that is what it earns at any time; else it is measured over the
    env steps of every environment that the arms are measured over.
    """
    if isinstance(plan.environment, HostEnvironment) or not plan.environment.shifts:
        log = random_policy(plan.environment, RANDOM_STEPS, seed=0)
        if not (log.terminated | log.truncated).any():
            log = random_policy(plan.environment, RANDOM_STEPS + LONGEST, seed=0)
        return mean_return(log)
    count = plan.agent.num_envs
    fork, end = (steps // count for steps in (plan.fork_at, plan.fork_at + plan.horizon))
    log = random_policy(plan.environment.with_num_envs(count), end, seed=0)
    return final_mean(Log(*(entries[fork:] for entries in log)))

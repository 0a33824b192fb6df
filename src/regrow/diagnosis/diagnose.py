"""Fork a training run into arms that differ in one intervention, continue all, compare.

    seed ──train──▶ fork_at ──before──▶ fork ┬─ nothing ──horizon──▶ outcome
                                             ├─ again   (nothing, another random seed)
                                             ├─ inject
                                             └─ reset

The work is cut into jobs (`jobs.py`), which any `Execute` may run. Each leaves a row of results
(`recording.py`), and the rows are concluded from (`verdict.py`).
"""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regrow.diagnosis.jobs import jobs
from regrow.diagnosis.plan import Plan
from regrow.diagnosis.recording import (
    STUDY,
    PlannedCondition,
    Recorded,
    alone,
    as_outcome,
    digest_of,
    judge,
    probes_of,
    random_file,
    run_random_policy,
)
from regrow.diagnosis.verdict import Verdict
from regrow.errors import require
from regrow.execution.guard import leave_if_unguarded
from regrow.execution.tasks import Execute, Task, in_order
from regrow.files.atomic import write_json
from regrow.files.folders import claimed
from regrow.records.provenance import source_commit, versions
from regrow.records.rows import Row, read_rows
from regrow.records.sinks import checked
from regrow.records.study_spec import write_plan
from regrow.registry import describe
from regrow.types import Report, silent

QUESTION = "Was the agent losing plasticity?"


class Diagnosed(NamedTuple):
    """A diagnosis that was carried out: its verdict, and the rows that it is made from."""

    verdict: Verdict
    rows: list[Row]


def diagnose(
    plan: Plan,
    folder: str | Path | None = None,
    *,
    execute: Execute = in_order,
    report: Report = silent,
    log: str | Sequence[str] = (),
) -> Verdict:
    """Carries out a diagnosis and returns its verdict.

    `folder` keeps what was done: the same plan with the same folder continues where it stopped.
    Without one nothing is kept. `log`: "csv", "tensorboard" or "wandb", or several of them, into
    which every job is logged while it trains. Raises `RegrowError` where the plan cannot be
    carried out (a split outside the network, say), the environment does what it may not do
    (`check_environment`, in short), the folder holds a diagnosis with another plan or another
    process is at work in it, or `log` is none of these or its package is not there.
    """
    log = checked(log)
    require(folder is not None or not log, f"log is {', '.join(log)} and folder is None; give one")
    if folder is not None:
        return carry_out(plan, Path(folder), execute=execute, report=report, log=log).verdict
    with tempfile.TemporaryDirectory(prefix="regrow-") as temporary:
        return carry_out(plan, Path(temporary), execute=execute, report=report).verdict


def carry_out(
    plan: Plan,
    folder: Path,
    *,
    execute: Execute = in_order,
    report: Report = silent,
    log: Sequence[str] = (),
) -> Diagnosed:
    """Carries out a diagnosis in a folder; `diagnose` says what is raised."""
    leave_if_unguarded()
    for arm in plan.arms:
        plan.source.check((*plan.before, arm.does))
    plan.source.check_environment()
    condition = alone(plan)
    with claimed(folder, {"kind": STUDY, **plan.config()}):
        content = {"study": STUDY, "scale": "", "question": QUESTION, "claims": []}
        write_plan(folder, {**content, "figure": "curves", "conditions": [condition.config()]})
        execute(tasks(condition, folder, log), report)
        rows = read_rows(folder).rows
        done = Diagnosed(judge(rows), rows)
        write_json(folder / "verdict.json", verdict_file(plan, done))
    return done


def verdict_file(plan: Plan, done: Diagnosed) -> dict[str, Any]:
    """What verdict.json holds: the verdict, the arms, the probes, and what made them.

    `seconds`: of all jobs added up, however many sittings they took.
    """
    rows = done.rows
    seconds = sum(row.seconds for row in rows)
    seconds += sum({row.seed: row.seconds_to_fork for row in rows}.values())
    return {
        **done.verdict.to_dict(),
        "arms": {
            arm.name: [_of_run(row) for row in rows if row.arm == arm.name] for arm in plan.arms
        },
        "probes": probe_means(rows),
        "interventions": {arm.name: describe(arm.does) for arm in plan.arms},
        "events": [
            {"arm": row.arm, "seed": row.seed, **event._asdict()}
            for row in rows
            for event in row.events[len(row.before) :]
        ],
        **{name: value for name, value in plan.config().items() if name != "arms"},
        "env_steps": plan.env_steps,
        "seconds": seconds,
        "versions": versions(),
    }


def _of_run(row: Row) -> dict[str, Any]:
    if row.stopped:
        return {"seed": row.seed, "stopped": row.stopped}
    run = as_outcome(row)
    return {
        "seed": run.seed,
        "area_under_curve": run.area,
        "final_return": run.final,
        "predicted_value_first": run.predicted[0],
        "predicted_value_last": run.predicted[-1],
        "realised_value": run.realised,
        "unfinished_episodes": run.unfinished,
        "seconds": run.seconds,
    }


def probe_means(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """For every probe its mean over seeds: at the fork, fresh there, and after each arm."""
    values: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        for at, place in (("fork", "fork"), ("fresh", "fresh"), ("end", row.arm)):
            for name, value in probes_of(row, at).items():
                values.setdefault(name, {}).setdefault(place, {})[row.seed] = value
    return {
        name: {place: float(np.mean([*held.values()])) for place, held in places.items()}
        for name, places in values.items()
    }


def tasks(condition: PlannedCondition, folder: Path, log: Sequence[str] = ()) -> list[Task]:
    """The jobs of a diagnosis as tasks; `log`: the sinks that hear of them meanwhile."""
    plan = condition.plan
    recorded = Recorded(folder / "work" / digest_of(plan), folder, source_commit(), tuple(log))
    random = random_file(folder, plan)
    first = Task(random.stem, (), partial(run_random_policy, plan, random))
    return [
        first,
        *(
            Task(
                job.name,
                (needs.name, random.stem) if needs else (),
                partial(recorded.run, plan, job, (condition,) if needs else ()),
            )
            for job, needs in jobs(plan)
        ),
    ]

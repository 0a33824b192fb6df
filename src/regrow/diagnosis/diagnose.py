"""Fork a training run into arms that differ in one intervention, continue all, compare.

    seed ──train──▶ fork_at ──before──▶ fork ┬─ nothing ──horizon──▶ outcome   (each `replicates`
                                             ├─ inject                           times)
                                             └─ reset

The work is cut into jobs (`jobs.py`), which any `Execute` may run. Each leaves a row of results
(`recording.py`), and the rows are concluded from (`verdict.py`). Seeds are added in looks, until
the verdict is settled, the most seeds are reached, or time is up.
"""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from regrow.diagnosis.jobs import jobs
from regrow.diagnosis.judging import as_outcome, judge, probes_of
from regrow.diagnosis.plan import Plan
from regrow.diagnosis.recording import (
    STUDY,
    PlannedCondition,
    Recorded,
    alone,
    digest_of,
    random_file,
    run_random_policy,
)
from regrow.diagnosis.verdict import Verdict
from regrow.errors import RegrowError, require
from regrow.execution.guard import leave_if_unguarded
from regrow.execution.tasks import Execute, Resources, Task, in_order
from regrow.files.atomic import DamagedError, damaged, write_json
from regrow.files.folders import claimed
from regrow.files.places import Place, place
from regrow.records.provenance import source_commit, versions
from regrow.records.rows import Row, read_rows
from regrow.records.sinks import checked, require_loggable
from regrow.records.study_spec import plan_file, read_plan, write_plan
from regrow.registry import describe
from regrow.types import Report, silent

QUESTION = "Was the agent losing plasticity?"


class Diagnosed(NamedTuple):
    """A diagnosis that was carried out: its verdict, and the rows that it is made from."""

    verdict: Verdict
    rows: list[Row]


def diagnose(
    plan: Plan,
    folder: str | Place | None = None,
    *,
    execute: Execute = in_order,
    report: Report = silent,
    log: str | Sequence[str] = (),
    minutes: float = math.inf,
) -> Verdict:
    """Carries out a diagnosis and returns its verdict.

    `folder` keeps what was done: the same plan with the same folder continues where it stopped,
    also with more seeds, in which case the error rate holds over all that was looked at. Without
    one nothing is kept. `minutes`: no look begins that would end later than this. `log`: "csv",
    "tensorboard" or "wandb", or several of them, into which every job is logged while it trains.
    Raises `RegrowError` where the plan cannot be carried out (a split outside the network, say),
    the environment does what it may not do (`check_environment`, in short), the folder holds a
    diagnosis with another plan or another process is at work in it, or `log` is none of these or
    its package is not there.
    """
    log = checked(log)
    require(folder is not None or not log, f"log is {', '.join(log)} and folder is None; give one")
    with ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="regrow-"))
        done = carry_out(
            plan, place(folder), execute=execute, report=report, log=log, minutes=minutes
        )
        return done.verdict


def carry_out(
    plan: Plan,
    folder: Place,
    *,
    execute: Execute = in_order,
    report: Report = silent,
    log: Sequence[str] = (),
    minutes: float = math.inf,
    looked: Callable[[Verdict, int], None] | None = None,
) -> Diagnosed:
    """Carries out a diagnosis in a folder; `diagnose` says what is raised.

    `looked` hears of the verdict at every look, and of the env steps up to the next one.
    """
    leave_if_unguarded()
    require(minutes >= 0, f"minutes is {minutes}; it must be a number, 0 or more")
    require_loggable(log, folder)
    for arm in plan.arms:
        plan.source.check((*plan.before, arm.does))
    plan.source.check_environment()
    with claimed(folder, {"kind": STUDY, **_fixed_part(plan)}):
        plan = _continued(plan, folder)
        condition = alone(plan)
        content = {"study": STUDY, "scale": "", "question": QUESTION, "claims": []}
        write_plan(folder, {**content, "figure": "curves", "conditions": [condition.config()]})
        began, before, units = time.monotonic(), 0, plan.looks[0]
        while True:
            started = time.monotonic()
            execute(tasks(condition, folder, log, units, before), report)
            done = _concluded(plan, folder, units)
            later = [n for n in plan.looks if n > units]
            # The next look takes about as long as this one, for each unit that it adds.
            now = time.monotonic()
            each = (now - started) / (units - before)
            if done.verdict.settled or not later:
                return done
            late = now - began + each * (later[0] - units) > 60.0 * minutes
            if late and not _are_there(plan, folder, later[0]):
                return done
            if looked is not None:
                looked(done.verdict, plan.env_steps(later[0]) - plan.env_steps(units))
            before, units = units, later[0]


def _fixed_part(plan: Plan) -> dict[str, Any]:
    """What of a plan must be the same to continue it: more seeds may be asked for later."""
    grows = {"looks"} if plan.fixed else {"looks", "replicates" if plan.single else "seeds"}
    return {name: value for name, value in plan.config().items() if name not in grows}


def _continued(plan: Plan, folder: Place) -> Plan:
    """The plan with the looks that were planned before in its folder, and those after them.

    What was looked at counts, even where one would choose other sizes now.
    """
    path = plan_file(folder, STUDY, "")
    if plan.fixed or not path.is_file():
        return plan
    grows = "replicates" if plan.single else "seeds"
    try:
        (held,) = read_plan(path).conditions.values()
        before, most = [int(n) for n in held.config["looks"]], int(held.config[grows])
        last = before[-1]
    except (RegrowError, KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error.__cause__, DamagedError):
            raise error.__cause__ from error
        raise damaged(path, "it is no plan of a diagnosis") from error
    for name, value in _fixed_part(plan).items():
        if held.config.get(name) != value:
            raise damaged(path, f"its {name} is {held.config.get(name)!r}, not {value!r}")
    looks = (*before, *(n for n in plan.looks if n > last))
    size = {"replicates": max(most, plan.most)} if plan.single else {"seeds": max(most, plan.most)}
    return replace(plan, looks=looks, **size)


def _are_there(plan: Plan, folder: Place, units: int) -> bool:
    """Whether all rows of a look at this many units are on disk already."""
    rows = {(row.arm, row.seed, row.replicate) for row in read_rows(folder).rows}
    arms = [(job.arm.name, job.seed, job.replicate) for job, _ in jobs(plan, units) if job.arm]
    return rows.issuperset(arms)


def _concluded(plan: Plan, folder: Place, units: int) -> Diagnosed:
    """The verdict on the first units, written down."""
    rows = [row for row in read_rows(folder).rows if plan.unit_of(row.seed, row.replicate) < units]
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
    units = plan.most if plan.fixed else done.verdict.n
    settings = {name: value for name, value in plan.config().items() if name != "arms"}
    return {
        **settings,
        "planned_looks": list(plan.looks),
        **done.verdict.to_dict(),
        "arms": {
            arm.name: [_of_run(row) for row in rows if row.arm == arm.name] for arm in plan.arms
        },
        "probes": probe_means(rows),
        "interventions": {arm.name: describe(arm.does) for arm in plan.arms},
        "events": [
            {
                "arm": row.arm,
                "seed": row.seed,
                "replicate": row.replicate,
                **event._asdict(),
            }
            for row in rows
            for event in row.events[len(row.before) :]
        ],
        "env_steps": plan.env_steps(units),
        "seconds": seconds,
        "versions": versions(),
    }


def _of_run(row: Row) -> dict[str, Any]:
    if row.stopped:
        return {"seed": row.seed, "replicate": row.replicate, "stopped": row.stopped}
    run = as_outcome(row)
    return {
        "seed": run.seed,
        "replicate": run.replicate,
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
        for at, column in (("fork", "fork"), ("fresh", "fresh"), ("end", row.arm)):
            for name, value in probes_of(row, at).items():
                values.setdefault(name, {}).setdefault(column, {})[row.seed] = value
    return {
        name: {place: float(np.mean([*held.values()])) for place, held in places.items()}
        for name, places in values.items()
    }


def tasks(
    condition: PlannedCondition,
    folder: Place,
    log: Sequence[str] = (),
    units: int | None = None,
    since: int = 0,
) -> list[Task]:
    """The jobs of the seeds (of a single agent, replicates) from `since` to `units` − 1 as tasks.

    `log`: the sinks that every job is logged into.
    """
    plan = condition.plan
    recorded = Recorded(folder / "work" / digest_of(plan), folder, source_commit(), tuple(log))
    random = random_file(folder, plan)
    random_task = Task(random.stem, (), partial(run_random_policy, plan, random))
    found, resources = [random_task] if not since else [], Resources(memory=plan.source.memory())
    there = {task.name for task in found}
    for job, needs in jobs(plan, units):
        if plan.unit_of(job.seed, job.replicate) < since:
            continue
        asked = (needs.name, random.stem) if needs else ()
        work = partial(recorded.run, plan, job, (condition,) if needs else ())
        env_steps = plan.horizon if needs else plan.fork_at
        before = tuple(name for name in asked if name in there)
        found.append(Task(job.name, before, work, env_steps=env_steps, resources=resources))
        there.add(job.name)
    return found

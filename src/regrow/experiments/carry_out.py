"""Runs studies: does the missing jobs, and writes rows for every finished job.

Rows that exist and belong to the current plan of their study are not computed again. For the
layout of the files, see `regrow.diagnosis.recording`.
"""

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import jax

from regrow.diagnosis.jobs import Job
from regrow.diagnosis.judging import config_of
from regrow.diagnosis.recording import PlannedCondition, Recorded, random_file, run_random_policy
from regrow.errors import require
from regrow.execution.guard import leave_if_unguarded
from regrow.execution.tasks import Resources, Task
from regrow.experiments.shared_jobs import Shared, parts_of, shared, written
from regrow.files.folders import is_empty
from regrow.files.formats import FORMAT as FOLDER_FORMAT
from regrow.files.formats import refused
from regrow.files.leases import LOCK, waited_for
from regrow.files.places import Place
from regrow.records.provenance import source_commit
from regrow.records.rows import SAME_NUMBERS, Key, Row, read_rows, write_row
from regrow.records.study_spec import read_plans, write_plan
from regrow.studies.base import Scale, Study
from regrow.types import Report


class Work(NamedTuple):
    """Tasks, and their total number of env steps."""

    tasks: list[Task]
    env_steps: int


def begin(studies: Sequence[Study], scale: Scale, out: Place) -> Work:
    """Writes the plans of the studies into a folder; the work that is left to do.

    Raises `RegrowError` if the folder has other contents, or studies that an earlier version began,
    or cannot be written to, or if a package that an environment needs is not installed.
    """
    leave_if_unguarded()
    parts = parts_of(studies, scale)
    for source in {part.plan.source: None for part in parts}:
        source.check(())
    _claim(out)
    with waited_for(out / LOCK):  # held while the plans are written, not while they run
        for study in studies:
            write_plan(out, written(study, scale, parts))
        return _to_do(parts, out)


def _to_do(parts: Sequence[PlannedCondition], out: Place) -> Work:
    there = {row.key: row for row in read_rows(out).rows if row.format in SAME_NUMBERS}
    commit, work = source_commit(), Work([], 0)
    for group in shared(parts, out):
        _refresh(group, out, there)
        more = _left(group, out, there, commit)
        known = {task.name for task in work.tasks}  # the random policy of a shared environment
        new = [task for task in more.tasks if task.name not in known]
        work = Work([*work.tasks, *new], work.env_steps + more.env_steps)
    return work


def _claim(out: Place) -> None:
    require(not out.exists() or out.is_dir(), f"{out} is a file; --out must be a folder")
    if out.is_dir() and not any((out / name).is_dir() for name in ("plans", "rows")):
        require(is_empty(out), f"{out} is not empty and holds no studies; choose another --out")
    for plan in read_plans(out).held.values():
        if plan.format != FOLDER_FORMAT:
            raise refused(f"the study {plan.study} in {out}", plan.format)


def _refresh(group: Shared, out: Place, there: Mapping[Key, Row]) -> None:
    """Updates the plan stored in existing rows, if arms or seeds were added since."""
    for job in group.jobs():
        for part in group.asking(job) if job.arm else ():
            row = there.get(part.key(job))
            if row is None:
                continue
            config = json.dumps({**config_of(row), **part.plan.config()})
            now = {"axis": part.axis, "level": part.level, "config": config}
            if any(getattr(row, name) != now[name] for name in now):
                write_row(out, replace(row, written=datetime.now(UTC), **now))


def _left(group: Shared, out: Place, there: Container[Key], commit: str) -> Work:
    """The remaining work of a group: arms with missing rows, and the forks that they need."""
    stem = group.folder.name
    random = random_file(out, group.plan)
    missing = {
        job: asking
        for job in group.jobs()
        if job.arm and (asking := [p for p in group.asking(job) if p.key(job) not in there])
    }
    forks = {job.seed: Job(job.seed, None) for job in missing}
    resources = Resources(memory=group.plan.source.memory() if missing else 0)
    tasks = [Task(random.stem, (), partial(run_random_policy, group.plan, random))]
    for seed, fork in forks.items():
        work = partial(_do, group, fork, (), out, commit)
        own = {"env_steps": group.plan.fork_at, "resources": resources}
        fork_task = Task(f"{stem}/{fork.name}", (), work, program=f"{stem}/fork", **own)
        tasks.append(fork_task)
        tasks += [
            Task(
                f"{stem}/{job.name}",
                (fork_task.name, random.stem),
                partial(_do, group, job, tuple(asking), out, commit),
                program=f"{stem}/{job.arm}",
                env_steps=group.plan.horizon,
                resources=resources,
            )
            for job, asking in missing.items()
            if job.seed == seed
        ]
    steps = sum(group.env_steps(job) for job in (*missing, *forks.values()))
    return Work(tasks if missing else [], steps)


# In a worker process.


def _do(
    group: Shared,
    job: Job,
    asking: Sequence[PlannedCondition],
    out: Place,
    commit: str,
    report: Report,
) -> None:
    _forget_old_programs(group, job)
    Recorded(group.folder, out, commit).run(group.plan, job, asking, report)


_compiled: set[tuple[Place, Any]] = set()


def _forget_old_programs(group: Shared, job: Job) -> None:
    """Clears a worker's compiled programs from time to time: thousands of them make XLA abort."""
    _compiled.add((group.folder, job.arm))
    if len(_compiled) > JOBS_KEPT:
        jax.clear_caches()
        _compiled.clear()


JOBS_KEPT = 50

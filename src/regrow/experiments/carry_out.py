"""Carries studies out: what is not there yet is done, and every finished cell becomes rows.

    OUT/plans/<study>--<scale>.json     what is to be done, written before it begins
    OUT/work/<digest>/cells/…           cells, as a diagnosis has them; may be deleted afterwards
    OUT/work/random-<digest>.json       what the random policy collects in an environment
    OUT/rows/…                          the results (`rows.py`)

A row that is there, and belongs to its study as it is now, is not made again. Any number of
processes may work in one folder: each cell is held by one of them.
"""

import json
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from regrow.diagnosis.diagnose import random_return
from regrow.diagnosis.jobs import Cell, Fork, fork_of, outcome_of, run_cell
from regrow.diagnosis.outcomes import Outcome
from regrow.diagnosis.plan import Diagnosis
from regrow.errors import require
from regrow.execution.guard import leave_if_unguarded
from regrow.execution.tasks import Task
from regrow.experiments.shared_jobs import Part, Shared, parts_of, random_file, shared, written
from regrow.files.atomic import read_json, write_json
from regrow.files.folders import is_empty
from regrow.files.formats import FORMAT as FOLDER_FORMAT
from regrow.files.formats import refused
from regrow.files.locks import LOCK, Hold, is_taken, waited_for, warn_of
from regrow.records.provenance import source_commit, versions
from regrow.records.rows import FORMAT, STOPPED, Happened, Key, Measured, Row, read_rows, write_row
from regrow.records.study_spec import read_plans, write_plan
from regrow.registry import describe
from regrow.stats.curves import bin_ends
from regrow.studies.base import Scale, Study
from regrow.training.flops import flops
from regrow.training.run import Event
from regrow.types import Report


class Work(NamedTuple):
    """Tasks, and the env steps of all of them together."""

    tasks: list[Task]
    env_steps: int


def begin(studies: Sequence[Study], scale: Scale, out: Path) -> Work:
    """Writes down what the studies are to do in a folder; what of it is left to do.

    Raises `RegrowError` where the folder holds something else, or studies that an earlier version
    began, where it cannot be written to, and where an environment's package is not there.
    """
    leave_if_unguarded()
    parts = parts_of(studies, scale)
    for environment in {part.plan.environment: None for part in parts}:
        _ = environment.observation_shape, environment.action_space
    _claim(out)
    with waited_for(out / LOCK) as hold:  # until the plans are written, not while they are done
        if hold.lock is None:
            warn_of(out)
        for study in studies:
            write_plan(out, written(study, scale, parts))
        return _to_do(parts, out)


def _to_do(parts: Sequence[Part], out: Path) -> Work:
    there = {row.key: row for row in read_rows(out).rows if row.format == FORMAT}
    commit, work = source_commit(), Work([], 0)
    for group in shared(parts, out):
        _refresh(group, out, there)
        more = _left(group, out, there, commit)
        known = {task.name for task in work.tasks}  # the random policy of a shared environment
        new = [task for task in more.tasks if task.name not in known]
        work = Work([*work.tasks, *new], work.env_steps + more.env_steps)
    return work


def _claim(out: Path) -> None:
    require(not out.exists() or out.is_dir(), f"{out} is a file; --out must be a folder")
    if out.is_dir() and not any((out / name).is_dir() for name in ("plans", "rows")):
        require(is_empty(out), f"{out} is not empty and holds no studies; choose another --out")
    for plan in read_plans(out).held.values():
        if plan.format != FOLDER_FORMAT:
            raise refused(f"the study {plan.study} in {out}", plan.format)


def _refresh(group: Shared, out: Path, there: Mapping[Key, Row]) -> None:
    """Brings the plan up to date that rows hold, where arms or seeds were added since."""
    for cell in group.cells():
        for part in group.asking(cell) if cell.arm else ():
            row = there.get(part.key(cell))
            if row is None:
                continue
            config = json.dumps({**_held_config(row), **part.plan.config()})
            now = {"axis": part.axis, "level": part.level, "config": config}
            if any(getattr(row, name) != now[name] for name in now):
                write_row(out, replace(row, written=datetime.now(UTC), **now))


def _held_config(row: Row) -> dict[str, Any]:
    try:
        return dict(json.loads(row.config))
    except (ValueError, TypeError):
        return {}  # written by somebody else


def _left(group: Shared, out: Path, there: Container[Key], commit: str) -> Work:
    """What of a group is left: arms without all of their rows, and the forks that they need."""
    stem = group.folder.name
    random = random_file(out, group.plan)
    missing = {
        cell: asking
        for cell in group.cells()
        if cell.arm and (asking := [p for p in group.asking(cell) if p.key(cell) not in there])
    }
    forks = {cell.seed: Cell(cell.seed, None) for cell in missing}
    tasks = [Task(random.stem, (), partial(_random_policy, group.plan, random))]
    for seed, fork in forks.items():
        work = partial(_do, group, fork, (), out, commit)
        fork_task = Task(f"{stem}/{fork.name}", (), work, program=f"{stem}/fork")
        tasks.append(fork_task)
        tasks += [
            Task(
                f"{stem}/{cell.name}",
                (fork_task.name, random.stem),
                partial(_do, group, cell, tuple(asking), out, commit),
                program=f"{stem}/{cell.arm}",
            )
            for cell, asking in missing.items()
            if cell.seed == seed
        ]
    steps = sum(group.env_steps(cell) for cell in (*missing, *forks.values()))
    return Work(tasks if missing else [], steps)


# What a worker does.


def _random_policy(plan: Diagnosis, path: Path, report: Report) -> None:
    if not path.is_file():
        report("the random policy", 0)
        earned = random_return(plan)
        write_json(path, {"environment": describe(plan.environment), "return": earned})


def _do(
    group: Shared, cell: Cell, asking: Sequence[Part], out: Path, commit: str, report: Report
) -> None:
    """Carries a cell out and writes its row for every condition that asks for it."""
    _forget_old_programs(group, cell)
    with (
        held(group.folder, cell, report),
        told(group.folder, cell, group.env_steps(cell), report) as tell,
    ):
        run_cell(group.plan, cell, group.folder, tell)
    for part in asking:
        write_row(out, _row(part, cell, group.folder, out, commit))


def held(folder: Path, cell: Cell, report: Report) -> AbstractContextManager[Hold]:
    """Holds a cell: two processes at the same one would spoil what each other keeps.

    Waits for as long as another process holds it. The hold ends with the process, however it ends.
    """
    path = folder / "held" / cell.name
    return waited_for(path, lambda: report("waiting for another process", 0))


def is_held(folder: Path, cell: Cell) -> bool:
    """Whether a process holds a cell just now.

    Where nobody can say (the lock may not be opened, or the file system has none): whether it told
    within the last minute how far it is.
    """
    taken = is_taken(folder / "held" / cell.name)
    if taken is not None:
        return taken
    try:
        return time.time() - progress_file(folder, cell).stat().st_mtime < SILENT
    except OSError:
        return False


_compiled: set[tuple[Path, Any]] = set()


def _forget_old_programs(group: Shared, cell: Cell) -> None:
    """Drops a worker's compiled programs now and then: thousands of them abort XLA."""
    _compiled.add((group.folder, cell.arm))
    if len(_compiled) > CELLS_KEPT:
        jax.clear_caches()
        _compiled.clear()


CELLS_KEPT = 50


def _row(part: Part, cell: Cell, folder: Path, out: Path, commit: str) -> Row:
    plan, arm = part.plan, cell.arm
    assert arm is not None, "a fork makes no row"
    fork = Fork(**fork_of(cell.seed, folder))
    outcome = outcome_of(cell, folder)
    history = [Event(plan.fork_at, describe(intervention)) for intervention in plan.before]
    history += [Event(*event) for event in outcome.events]
    events = [Happened(*event) for event in history]
    end = plan.fork_at + plan.horizon
    if outcome.stopped:
        events.append(Happened(end, f"{STOPPED}{outcome.stopped}"))
    return Row(
        study=part.study,
        scale=part.scale,
        condition=part.label,
        axis=part.axis,
        level=part.level,
        environment=describe(plan.environment),
        agent=describe(plan.agent),
        before=tuple(describe(intervention) for intervention in plan.before),
        arm=arm.name,
        intervention=describe(arm.does),
        seed=cell.seed,
        fork_at=plan.fork_at,
        horizon=plan.horizon,
        env_steps_to_fork=tuple(bin_ends(0, plan.fork_at, len(fork.curve)).tolist()),
        returns_to_fork=tuple(fork.curve),
        env_steps=_ends(plan, outcome),
        returns=outcome.curve,
        predicted=outcome.predicted,
        realised=outcome.realised,
        largest_reward=outcome.largest_reward,
        random_return=read_json(random_file(out, plan))["return"],
        probes=_probes(fork, outcome),
        events=tuple(events),
        seconds=outcome.seconds,
        seconds_to_fork=fork.seconds,
        flops=flops(plan.agent, plan.environment, history, plan.fork_at, end),
        flops_to_fork=flops(plan.agent, plan.environment, (), 0, plan.fork_at),
        config=_config(part, cell),
        versions=json.dumps(versions()),
        commit=commit,
        written=datetime.now(UTC),
    )


def _ends(plan: Diagnosis, outcome: Outcome) -> tuple[int, ...]:
    if outcome.stopped:
        return ()
    return tuple(bin_ends(plan.fork_at, plan.horizon, len(outcome.curve)).tolist())


def _probes(fork: Fork, outcome: Outcome) -> tuple[Measured, ...]:
    at = {"fork": fork.probes, "fresh": fork.probes_fresh, "end": outcome.probes}
    found: list[Measured] = []
    for when, probes in at.items():
        for name, value in probes.items():
            *learner, probe, part = name.split(".")
            found.append(Measured(".".join(learner), probe, part, when, value))
    return tuple(found)


def _config(part: Part, cell: Cell) -> str:
    """The plan, and every part with all of its fields: defaults may change in later versions."""
    plan = part.plan
    parts = {
        "agent": repr(plan.agent),
        "environment": repr(plan.environment),
        "before": [repr(intervention) for intervention in plan.before],
        "arm": repr(cell.arm),
    }
    return json.dumps({**plan.config(), "parts": parts})


# How far a running cell has come, for those who look at it from outside.


TELL_EVERY, SILENT = 2.0, 60.0  # seconds


def progress_file(folder: Path, cell: Cell) -> Path:
    """Where a running cell says how far it is."""
    return folder / "cells" / f"{cell.name}.progress.json"


@contextmanager
def told(folder: Path, cell: Cell, env_steps: int, report: Report) -> Iterator[Report]:
    """`report`, but it also keeps a small file on how far the cell is; gone when the cell ends."""
    path, began = progress_file(folder, cell), time.time()
    done, earlier, said_at = 0, 0, 0.0

    def tell(phase: str, steps: int) -> None:
        nonlocal done, earlier, said_at
        done += steps
        if said_at == 0.0:
            earlier = done  # what a sitting before this one did is there at once
        now = time.time()
        if now - said_at > TELL_EVERY:
            said_at = now
            content = {"phase": phase, "done": done, "of": env_steps, "earlier": earlier}
            write_json(path, {**content, "began": began, "written": now})
        report(phase, steps)

    try:
        yield tell
    finally:
        path.unlink(missing_ok=True)

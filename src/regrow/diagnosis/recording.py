"""From a finished job to the rows of results.

    OUT/plans/<study>--<scale>.json     what is to be done, written before it begins
    OUT/work/<digest>/jobs/…            jobs; may be deleted afterwards
    OUT/work/<digest>/held/…            which of them a process holds just now
    OUT/work/random-<digest>.json       what the random policy earns
    OUT/rows/…                          the results (`regrow.records.rows`)

A diagnosis is a study of one condition, so what it leaves is read as a study is. Any number of
processes and machines may work in one folder: each job is held by one of them.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from regrow.diagnosis.jobs import Fork, Job, fork_of, outcome_of, run_job
from regrow.diagnosis.outcomes import (
    Outcome,
)
from regrow.diagnosis.plan import BINS, Plan
from regrow.errors import require
from regrow.execution.memory import told_if_short
from regrow.files.atomic import create_atomically, damaged, read_sealed, sealed
from regrow.files.leases import EXPIRES, Lease, holder_of, waited_for
from regrow.files.places import Place
from regrow.files.progress import read_progress, report_progress
from regrow.records.provenance import versions
from regrow.records.rows import (
    SAME_NUMBERS,
    STOPPED,
    Happened,
    Key,
    Measured,
    Row,
    probe_place,
    write_row,
)
from regrow.registry import describe
from regrow.stats.curves import bin_ends
from regrow.types import Event, Report

STUDY = "diagnosis"
"""The study that a diagnosis by itself is a condition of; its scale is ""."""


class PlannedCondition(NamedTuple):
    """A condition of a study at a scale, with the plan that fills it with rows."""

    study: str
    scale: str
    label: str
    axis: str
    level: float | None
    plan: Plan

    def key(self, job: Job) -> Key:
        """The key of the row that an arm's job makes."""
        assert job.arm is not None, "a fork makes no row"
        return self.study, self.scale, self.label, job.arm.name, job.seed, job.replicate

    def config(self) -> dict[str, Any]:
        """As a plan of a study holds it (`regrow.records.study_spec`)."""
        named = {"label": self.label, "axis": self.axis, "level": self.level}
        return {**named, **self.plan.config()}


def alone(plan: Plan) -> PlannedCondition:
    """The condition that a diagnosis by itself is."""
    return PlannedCondition(STUDY, "", plan.source.config()["environment"], "", None, plan)


# What work is called.


def digest_of(plan: Plan) -> str:
    """What the numbers of a plan's jobs depend on, but for arm, seed and replicate."""
    before = [repr(intervention) for intervention in plan.before]
    return _digest(*plan.source.parts().values(), before, plan.fork_at, plan.horizon)


def random_file(out: Place, plan: Plan) -> Place:
    """Where it is kept what the random policy earns in a plan's environment (at that time)."""
    depends_on = plan.source.random_return_is_of(plan.fork_at, plan.fork_at + plan.horizon)
    return out / "work" / f"random-{_digest(*depends_on)}.json"


def _digest(*content: Any) -> str:
    text = json.dumps([*content, BINS, min(SAME_NUMBERS)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Work.


def run_random_policy(plan: Plan, path: Place, report: Report) -> None:
    """Measures what the random policy earns, unless that was done."""
    if not path.is_file():
        report("the random policy", 0)
        earned, error = plan.source.random_return(plan.fork_at, plan.fork_at + plan.horizon)
        require(
            math.isfinite(earned) or plan.returns_range is not None,
            "what a random policy earns is not known, and so there is no unit to measure effects "
            "in; give the training loop an environment (`environment=`), or the diagnosis a range "
            "of returns, as in --range 0 500",
        )
        told = {**plan.source.config(), "of": path.stem, "return": earned, "error": error}
        create_atomically(path, sealed(told))


def random_policy_of(path: Place) -> tuple[float, float]:
    """(what the random policy earns, its standard error); `RegrowError` where that is damaged."""
    told = read_sealed(path)
    try:
        of = told.get("of", path.stem)  # earlier versions did not say
        earned, error = told["return"], told.get("error", 0.0)
        numbers = tuple(math.nan if each is None else float(each) for each in (earned, error))
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise damaged(path, "it is not what the random policy earns") from problem
    if of != path.stem:
        raise damaged(path, f"it is {of}")
    return numbers[0], numbers[1]


class Recorded(NamedTuple):
    """Where a job works (`work`), and the folder that its rows are for."""

    work: Place
    out: Place
    commit: str
    log: tuple[str, ...] = ()

    def run(
        self, plan: Plan, job: Job, conditions: Sequence[PlannedCondition], report: Report
    ) -> None:
        """Carries a job out and writes its row for every condition that asks for it."""
        env_steps = plan.fork_at if job.arm is None else plan.horizon
        with held(self.work, job, report) as lease:

            def tell(phase: str, steps: int) -> None:
                report(phase, steps)
                lease.check()

            with (
                told_if_short(job.name),
                report_progress(progress_file(self.work, job), env_steps, tell) as told,
            ):
                run_job(plan, job, self.work, told, log=self.log, log_of=self.out)
        for condition in conditions:
            write_row(self.out, self._row(condition, job))

    def _row(self, condition: PlannedCondition, job: Job) -> Row:
        plan, arm = condition.plan, job.arm
        assert arm is not None, "a fork makes no row"
        fork, outcome = fork_of(job.seed, self.work), outcome_of(job, self.work)
        before = tuple(describe(intervention) for intervention in plan.before)
        history = [Event(plan.fork_at, text) for text in before]
        history += [Event(*event) for event in outcome.events]
        end, source = plan.fork_at + plan.horizon, plan.source
        random_return, random_error = random_policy_of(random_file(self.out, plan))
        return Row(
            study=condition.study,
            scale=condition.scale,
            condition=condition.label,
            axis=condition.axis,
            level=condition.level,
            environment=source.config()["environment"],
            agent=source.config()["agent"],
            before=before,
            arm=arm.name,
            intervention=describe(arm.does),
            seed=job.seed,
            replicate=job.replicate,
            fork_at=plan.fork_at,
            horizon=plan.horizon,
            env_steps_to_fork=tuple(bin_ends(0, plan.fork_at, len(fork.curve)).tolist()),
            returns_to_fork=tuple(fork.curve),
            env_steps=_ends(plan, outcome),
            returns=outcome.curve,
            predicted=outcome.predicted,
            realised=outcome.realised,
            largest_reward=outcome.largest_reward,
            random_return=random_return,
            random_error=random_error,
            probes=_probes(fork, outcome),
            events=_events(history, outcome, end),
            seconds=outcome.seconds,
            seconds_to_fork=fork.seconds,
            flops=source.flops(history, plan.fork_at, end),
            flops_to_fork=source.flops((), 0, plan.fork_at),
            config=_config(plan, job, outcome),
            versions=json.dumps(versions()),
            commit=self.commit,
            written=datetime.now(UTC),
        )


def held(work: Place, job: Job, report: Report) -> AbstractContextManager[Lease]:
    """Holds a job: two processes at the same one would do the same twice.

    Waits for as long as another process holds it.
    """
    return waited_for(_lease(work, job), lambda: report("waiting for another process", 0))


def is_held(work: Place, job: Job) -> bool:
    """Whether a process holds a job just now.

    One on another machine, whose end nobody has told: if it said within the last minutes how far it
    is. That takes both machines' clocks, and serves to show it only.
    """
    holder = holder_of(_lease(work, job))
    if holder is None or holder.is_here:
        return holder is not None
    told = read_progress(progress_file(work, job))
    return told is None or told.silent < 2 * EXPIRES


def _lease(work: Place, job: Job) -> Place:
    return work / "held" / job.name


def progress_file(work: Place, job: Job) -> Place:
    """Where a running job says how far it is."""
    return work / "jobs" / f"{job.name}.progress.json"


def _ends(plan: Plan, outcome: Outcome) -> tuple[int, ...]:
    if outcome.stopped:
        return ()
    return tuple(bin_ends(plan.fork_at, plan.horizon, len(outcome.curve)).tolist())


def _events(history: Sequence[Event], outcome: Outcome, end: int) -> tuple[Happened, ...]:
    events = [Happened(*event) for event in history]
    if outcome.stopped:
        events.append(Happened(end, f"{STOPPED}{outcome.stopped}"))
    return tuple(events)


def _probes(fork: Fork, outcome: Outcome) -> tuple[Measured, ...]:
    at = {"fork": fork.probes, "fresh": fork.probes_fresh, "end": outcome.probes}
    return tuple(
        Measured(*probe_place(name), when, value)
        for when, probes in at.items()
        for name, value in probes.items()
    )


def _config(plan: Plan, job: Job, outcome: Outcome) -> str:
    """The plan, and every part with all of its fields: defaults may change in later versions."""
    parts = {
        **plan.source.parts(),
        "before": [repr(intervention) for intervention in plan.before],
        "arm": repr(job.arm),
    }
    source = plan.source
    more = {
        "restarts": source.restarts,
        "remarks": source.remarks,
        "unfinished": outcome.unfinished,
        "resumed_with": outcome.resumed_with,
    }
    return json.dumps({**plan.config(), **more, "parts": parts})

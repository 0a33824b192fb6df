"""The jobs of a diagnosis: one per seed up to the fork, then one per seed and arm.

A job reads and writes files in one folder and nothing else. Jobs run in any order that respects the
fork, in as many processes as there are. A job that was stopped continues from what it kept: at
every `report` that stops it, and at least once a minute.
"""

import math
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regrow.diagnosis.outcomes import Outcome
from regrow.diagnosis.plan import BINS, Arm, Plan
from regrow.diagnosis.subject import Source, Subject
from regrow.errors import NotFiniteError, RegrowError
from regrow.files.atomic import damaged, read_json, write_atomically, write_json
from regrow.records.sinks import About
from regrow.registry import describe
from regrow.stats.curves import awaits_running, learning_curve, realised_values
from regrow.training.driver import drive
from regrow.training.live import Live
from regrow.training.schedule import Check, recent_return, until_now
from regrow.types import Log, Report


@dataclass(frozen=True)
class Job:
    """One piece of the work: `arm` None is a seed's way up to the fork."""

    seed: int
    arm: Arm | None
    replicate: int = 0

    @property
    def name(self) -> str:
        """What the job's files are called."""
        which = "fork" if self.arm is None else self.arm.file_name
        return f"seed{self.seed}-{which}{f'-{self.replicate}' if self.replicate else ''}"

    @property
    def stream(self) -> int:
        """Which replicate's random numbers the job has."""
        return self.replicate + (0 if self.arm is None else self.arm.replicate)

    def result(self, folder: Path) -> Path:
        """Where the job's result is written when it is done."""
        return folder / "jobs" / f"{self.name}.json"

    def checkpoint(self, folder: Path) -> Path:
        """Where a fork keeps its Subject for the arms."""
        return folder / "jobs" / f"{self.name}.ckpt"


def jobs(plan: Plan, units: int | None = None) -> list[tuple[Job, Job | None]]:
    """All jobs, each with the job it waits for; forks come first, seed by seed.

    `units`: the number of seeds (of a single agent, replicates); by default the most.
    """
    units = plan.most if units is None else units
    seeds, replicates = (1, units) if plan.single else (units, plan.replicates)
    forks = [Job(seed, None) for seed in range(seeds)]
    arms = [
        (Job(fork.seed, arm, replicate), fork)
        for fork in forks
        for replicate in range(replicates)
        for arm in plan.arms
    ]
    return [*((fork, None) for fork in forks), *arms]


def run_job(
    plan: Plan,
    job: Job,
    folder: Path,
    report: Report,
    *,
    log: Sequence[str] = (),
    log_of: Path | None = None,
) -> None:
    """Does one job and writes its result; does nothing where that is there already.

    Where `report` raises, what was done is kept and the next call continues from there; where
    anything else stops it, from the last save, a minute ago at most. `log`: sinks, as
    `regrow.records.sinks.checked` has them, that hear of it meanwhile; their files are in the
    `log` of the folder `log_of`, by default the job's own.
    """
    unfinished = _Unfinished(plan.source, folder / "jobs" / job.name)
    if job.result(folder).is_file():
        unfinished.forget()
        report(job.name, plan.fork_at if job.arm is None else plan.horizon)
        return
    log_of = log_of or folder
    with Live(log, log_of / "log", _about(plan, job, log_of)) as live:
        work = _Work(plan, job, folder, unfinished, report, live)
        content = work.fork() if job.arm is None else work.branch(job.arm)
    write_json(job.result(folder), {**content, "seconds": unfinished.seconds()})
    unfinished.forget()


def _about(plan: Plan, job: Job, folder: Path) -> About:
    """A job as a run that is logged."""
    own = {"seed": job.seed, "arm": "" if job.arm is None else job.arm.name}
    return About(job.name, job.name, folder.resolve().name, {**plan.config(), **own})


class _Work(NamedTuple):
    """A job being done."""

    plan: Plan
    job: Job
    folder: Path
    unfinished: "_Unfinished"
    report: Report
    live: Live

    def fork(self) -> dict[str, Any]:
        """Trains one seed up to the fork, does what comes before it, saves, measures."""
        plan, job = self.plan, self.job
        subject, log = self._driven(plan.fork_at, f"seed {job.seed} to the fork")
        curve = plan.source.so_far(job.seed)
        if log.reward.size:
            curve = _curve_of(subject, log, min(BINS, plan.fork_at)).returns
        for intervention in plan.before:
            self.report(f"seed {job.seed}, {describe(intervention)}", 0)
            subject = subject.intervene(intervention)
        plan.source.save(subject, job.checkpoint(self.folder))
        probes, fresh = subject.measure(), subject.measure(fresh=True)
        self.live.probed(subject, probes)
        self.live.probed(subject, fresh, fresh=True)
        measured = {"probes": probes, "probes_fresh": fresh}
        return {"seed": job.seed, "curve": list(curve), **measured}

    def branch(self, arm: Arm) -> dict[str, Any]:
        """Takes one seed's fork, carries out the arm's intervention, trains over the horizon.

        An arm whose numbers are no longer finite has no curve, and says so.
        """
        plan, seed = self.plan, self.job.seed
        try:
            subject, log = self._driven(plan.fork_at + plan.horizon, f"seed {seed}, {arm.name}")
        except NotFiniteError as error:
            stopped = Outcome(
                arm.name, seed, (), (), 0.0, 0.0, stopped=str(error), replicate=self.job.replicate
            )
            return asdict(stopped)
        before = fork_of(seed, self.folder).curve
        curve = _curve_of(subject, log, BINS, before[-1] if before else math.nan)
        fork, rewards = self._at_fork(), subject.learned_rewards(log)
        predicted = np.array_split(np.nan_to_num(np.abs(log.value), nan=np.inf), BINS)
        outcome = Outcome(
            arm=arm.name,
            seed=seed,
            curve=curve.returns,
            predicted=tuple(float(min(part.mean(dtype=np.float64), 1e30)) for part in predicted),
            realised=_realised(subject, log._replace(reward=rewards)),
            largest_reward=float(np.abs(rewards).max()),
            probes=subject.measure(since=fork),
            events=tuple((step, text) for step, text in subject.history[len(fork.history) :]),
            unfinished=curve.unfinished,
            replicate=self.job.replicate,
        )
        self.live.probed(subject, outcome.probes)
        return asdict(outcome)

    def _driven(self, until: int, phase: str) -> tuple[Subject, Log]:
        """(the Subject at `until`, its whole log since the job began)."""
        arm = self.job.arm
        kept = self.unfinished.read()
        if kept is not None:
            subject, checks = kept
        elif arm is None:
            subject, checks = self.plan.source.start(self.job.seed), []
        else:
            subject, checks = self._at_fork().fork(self.job.stream).intervene(arm.intervention), []
        self.report(phase, len(self.unfinished.log.reward))
        subject, _ = drive(
            subject,
            until,
            self.unfinished,
            round=self.plan.source.round,
            rules=() if arm is None else arm.rules,
            checks=checks,
            live=self.live,
            report=lambda steps: self.report(phase, steps),
        )
        return subject, self.unfinished.log

    def _at_fork(self) -> Subject:
        return self.plan.source.load(Job(self.job.seed, None).checkpoint(self.folder))


_LOG_TYPES = (np.float32, np.bool_, np.bool_, np.float32, np.float32)


class _Unfinished:
    """What an unfinished job has done so far: its Subject, its log, and the seconds it took."""

    def __init__(self, source: Source, stem: Path):
        self.source = source
        self.checkpoint, self.file = (Path(f"{stem}.part{kind}") for kind in (".ckpt", ".npz"))
        self.began, self.earlier = time.perf_counter(), 0.0
        self.log = Log(*(np.zeros(0, dtype) for dtype in _LOG_TYPES))

    def seconds(self) -> float:
        """Time spent on the job, earlier sittings included."""
        return self.earlier + time.perf_counter() - self.began

    def look(self, subject: Subject) -> None:
        """Nothing is due on the way."""

    def next_look(self, now: int, until: int) -> int:
        """As far as it may."""
        del now
        return until

    def add(self, subject: Subject, log: Log) -> None:
        """One chunk more."""
        del subject
        self.log = Log(*(np.concatenate(pair) for pair in zip(self.log, log, strict=True)))

    def recent_return(self) -> float:
        """The mean return of the last episodes."""
        log = self.log
        return recent_return(np.asarray(log.episode_return)[log.terminated | log.truncated])

    def save(self, subject: Subject, checks: Sequence[Check]) -> None:
        """Keeps a Subject, its log, and what its rules saw."""
        about = {
            "start": subject.env_steps - len(self.log.reward),
            "seconds": self.seconds(),
            "checks": np.array(checks, np.float64).reshape(-1, len(Check._fields)),
        }
        write_atomically(self.file, lambda file: np.savez(file, **about, **self.log._asdict()))
        self.source.save(subject, self.checkpoint)

    def read(self) -> tuple[Subject, list[Check]] | None:
        """What was kept, its log apart; None of nothing, `RegrowError` where it is damaged."""
        if not (self.checkpoint.is_file() and self.file.is_file()):
            return None
        subject = self.source.load(self.checkpoint)
        try:
            with self.file.open("rb") as file, np.load(file, allow_pickle=False) as held:
                # The log is written first: after a crash between the two it may be ahead.
                steps = subject.env_steps - int(held["start"])
                log = Log(*(held[name][:steps] for name in Log._fields))
                self.earlier = float(held["seconds"])
                checks = [
                    Check(int(at), int(rule), float(value), bool(fired))
                    for at, rule, value, fired in held["checks"]
                ]
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise damaged(self.file, str(error)) from error
        if len(log.reward) != steps:
            raise damaged(self.file, f"it ends before {self.checkpoint.name}")
        self.log = log
        return subject, until_now(checks, subject)

    def forget(self) -> None:
        """Deletes what was kept, once the result is written."""
        self.checkpoint.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)


class Curve(NamedTuple):
    """The returns of time bins, and how many episodes in them were given up before their end."""

    returns: tuple[float, ...]
    unfinished: int


def _curve_of(subject: Subject, log: Log, bins: int, before: float = math.nan) -> Curve:
    """The curve of a log that ends where the Subject is; its last episodes whole, where it matters.

    Raises `RegrowError` where no return is known, which takes an environment that cannot be copied,
    a run that was resumed, and no episode that ended since.
    """
    ended, count = log.terminated | log.truncated, subject.num_envs
    start, running, unfinished = subject.env_steps - len(ended), None, 0
    if awaits_running(ended, bins=bins, num_envs=count):
        running, over = subject.play_out()
        unfinished = int((~over & np.isfinite(running)).sum())
    returns = learning_curve(
        log.episode_return,
        ended,
        bins=bins,
        num_envs=count,
        before=before,
        running=running,
        restarts=[step - start for step in subject.restarts if step > start],
    )
    if not np.isfinite(returns).all():
        raise RegrowError(
            f"no episode has ended by env step {subject.env_steps}, and the running one cannot be "
            "continued: the run was stopped where its environment cannot be copied; choose another "
            "--out and let it run through"
        )
    return Curve(tuple(returns.tolist()), unfinished)


def _realised(subject: Subject, log: Log) -> float:
    """The mean |discounted return| that followed each env step, where it is known; else 0."""
    values = [
        realised_values(one.reward, one.terminated, one.truncated, subject.discount)
        for one in log.by_environment(subject.num_envs)
    ]
    known = np.abs(np.concatenate(values))
    known = known[np.isfinite(known)]
    return float(known.mean()) if known.size else 0.0


# What jobs left in their folder.


class Fork(NamedTuple):
    """A seed at its fork: the curve up to there, its probes and those of a fresh network."""

    seed: int
    curve: list[float]
    probes: dict[str, float]
    probes_fresh: dict[str, float]
    seconds: float


def fork_of(seed: int, folder: Path) -> Fork:
    """What a fork's job wrote; `RegrowError` where that is damaged."""
    path = Job(seed, None).result(folder)
    content = read_json(path)
    try:
        probes = {name: _with_nan(content[name]) for name in ("probes", "probes_fresh")}
        return Fork(**{**content, **probes})
    except (TypeError, KeyError, AttributeError) as error:
        raise damaged(path, "it is no job's result") from error


def outcome_of(job: Job, folder: Path) -> Outcome:
    """What an arm's job wrote; `RegrowError` where that is damaged."""
    path = job.result(folder)
    content = read_json(path)
    try:
        sequences = {name: tuple(content[name]) for name in ("curve", "predicted")}
        sequences["events"] = tuple((step, text) for step, text in content["events"])
        if not (content.get("stopped") or sequences["curve"]):
            raise KeyError("curve")
        return Outcome(**{**content, **sequences, "probes": _with_nan(content["probes"])})
    except (TypeError, KeyError, AttributeError) as error:
        raise damaged(path, "it is no job's result") from error


def _with_nan(probes: Mapping[str, float | None]) -> dict[str, float]:
    """Probes as they were measured: JSON has no NaN and holds null in its place."""
    return {name: float("nan") if value is None else value for name, value in probes.items()}

"""The jobs of a diagnosis: one per seed up to the fork, then one per seed and arm.

A job reads and writes files in one folder and nothing else. Jobs run in any order that respects the
fork, in as many processes as there are. A job that was stopped continues from its last checkpoint
(`checkpoints.py`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from regrow.diagnosis.checkpoints import Unfinished
from regrow.diagnosis.outcomes import Outcome
from regrow.diagnosis.plan import BINS, Arm, Plan
from regrow.diagnosis.subject import Subject
from regrow.errors import NotFiniteError, RegrowError
from regrow.files.atomic import create_atomically, damaged, read_sealed, sealed, write_atomically
from regrow.files.places import Place
from regrow.records.sinks import About
from regrow.registry import describe
from regrow.stats.curves import awaits_running, learning_curve, realised_values
from regrow.training.driver import drive
from regrow.training.live import Live
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

    def result(self, folder: Place) -> Place:
        """Where the job's result is written when it is done."""
        return folder / "jobs" / f"{self.name}.json"

    def checkpoint(self, folder: Place) -> Place:
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
    folder: Place,
    report: Report,
    *,
    log: Sequence[str] = (),
    log_of: Place | None = None,
) -> None:
    """Does one job and writes its result; does nothing where that is there already.

    Where `report` raises, what was done is kept and the next call continues from there; where
    anything else stops it, from the last save, a minute ago at most. `log`: sinks, as
    `regrow.records.sinks.checked` has them, that hear of it meanwhile; their files are in the
    `log` of the folder `log_of`, by default the job's own.
    """
    long_end = job.arm is None and bool(plan.before)
    unfinished = Unfinished(
        plan.source, folder / "jobs", job.name, _label(job, folder), long_end=long_end
    )
    if is_done(job, folder):
        unfinished.forget()
        report(job.name, plan.fork_at if job.arm is None else plan.horizon)
        return
    log_of = log_of or folder
    with Live(log, log_of / "log", _about(plan, job, log_of)) as live:
        work = _Work(plan, job, folder, unfinished, report, live)
        content = work.fork() if job.arm is None else work.branch(job.arm)
    about = {"job": _label(job, folder), "seconds": unfinished.seconds()}
    # Where another worker was as fast, its result is the same, but for the seconds.
    create_atomically(job.result(folder), sealed({**content, **about}))
    unfinished.forget()


def is_done(job: Job, folder: Place) -> bool:
    """Whether a job has its result; a fork its checkpoint, too."""
    kept = job.arm is not None or job.checkpoint(folder).is_file()
    return kept and job.result(folder).is_file()


def _label(job: Job, folder: Place) -> str:
    """What a job's files say that they are of: what the job depends on, and its name."""
    return f"{folder.name}/{job.name}"


def _about(plan: Plan, job: Job, folder: Place) -> About:
    """A job as a run that is logged."""
    own = {"seed": job.seed, "arm": "" if job.arm is None else job.arm.name}
    return About(job.name, job.name, folder.resolve().name, {**plan.config(), **own})


class _Work(NamedTuple):
    """A job being done."""

    plan: Plan
    job: Job
    folder: Place
    unfinished: Unfinished
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
        label = _label(job, self.folder)
        write_atomically(job.checkpoint(self.folder), plan.source.writer(subject, label))
        probes, fresh = subject.measure(), subject.measure(fresh=True)
        self.live.probed(subject, probes)
        self.live.probed(subject, fresh, fresh=True)
        measured = {"probes": probes, "probes_fresh": fresh}
        resumed = {"resumed_with": self.unfinished.resumed_with}
        return {"seed": job.seed, "curve": list(curve), **measured, **resumed}

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
        before = fork_of(seed, self.folder)
        curve = _curve_of(subject, log, BINS, before.curve[-1] if before.curve else math.nan)
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
            resumed_with=self.unfinished.resumed_with or before.resumed_with,
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
        fork = Job(self.job.seed, None)
        path = fork.checkpoint(self.folder)
        subject = self.plan.source.load(path, _label(fork, self.folder))
        before = [describe(intervention) for intervention in self.plan.before]
        # One that was kept on the way to the fork has the same label.
        if subject.env_steps != self.plan.fork_at:
            raise damaged(path, f"it is of env step {subject.env_steps}, ahead of the fork")
        if [text for _, text in subject.history[len(subject.history) - len(before) :]] != before:
            raise damaged(path, "it is of before the fork's interventions")
        return subject


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
    resumed_with: int = 0


def fork_of(seed: int, folder: Place) -> Fork:
    """What a fork's job wrote; `RegrowError` where that is damaged."""
    path, content = _result(Job(seed, None), folder)
    try:
        probes = {name: _with_nan(content[name]) for name in ("probes", "probes_fresh")}
        return Fork(**{**content, **probes})
    except (TypeError, KeyError, AttributeError) as error:
        raise damaged(path, "it is no job's result") from error


def outcome_of(job: Job, folder: Place) -> Outcome:
    """What an arm's job wrote; `RegrowError` where that is damaged."""
    path, content = _result(job, folder)
    try:
        sequences = {name: tuple(content[name]) for name in ("curve", "predicted")}
        sequences["events"] = tuple((step, text) for step, text in content["events"])
        if not (content.get("stopped") or sequences["curve"]):
            raise KeyError("curve")
        return Outcome(**{**content, **sequences, "probes": _with_nan(content["probes"])})
    except (TypeError, KeyError, AttributeError) as error:
        raise damaged(path, "it is no job's result") from error


def _result(job: Job, folder: Place) -> tuple[Place, dict[str, Any]]:
    path, label = job.result(folder), _label(job, folder)
    content = read_sealed(path)
    if not isinstance(content, dict):
        raise damaged(path, "it is no job's result")
    of = content.pop("job", label)  # earlier versions did not say
    if of != label:
        raise damaged(path, f"it is the result of {of}, not of {label}")
    return path, content


def _with_nan(probes: Mapping[str, float | None]) -> dict[str, float]:
    """Probes as they were measured: JSON has no NaN and holds null in its place."""
    return {name: float("nan") if value is None else value for name, value in probes.items()}

"""The progress of studies, read from their files, while another process runs them.

A job is `done` if its result or its rows exist, `running` while a process has its lock, `stopped`
if it left a checkpoint to resume from, and `waiting` otherwise.
"""

import math
from collections.abc import Collection
from typing import Literal, NamedTuple

from regrow.diagnosis.checkpoints import stems_in
from regrow.diagnosis.jobs import Job
from regrow.diagnosis.recording import is_held, progress_file
from regrow.errors import require
from regrow.experiments.shared_jobs import Shared, parts_in, shared
from regrow.files.folders import kind_of
from regrow.files.leases import LOCK, holder_of
from regrow.files.places import Place, listed
from regrow.files.progress import read_progress
from regrow.records.rows import Key, file_of, read_rows

State = Literal["done", "running", "stopped", "waiting"]


class Seen(NamedTuple):
    """The progress of a job. `done` and `of` are in env steps, `silent` in seconds."""

    studies: tuple[str, ...]  # "study: condition", for each that needs it
    job: str
    state: State
    done: int
    of: int
    phase: str = ""
    rate: float = 0.0  # env steps per second
    silent: float = 0.0  # since its last progress report

    @property
    def left(self) -> float | None:
        """Estimated seconds to its end, at the current rate; None if there is no rate."""
        return (self.of - self.done) / self.rate if self.rate > 0 else None


class Watched(NamedTuple):
    """All jobs of a folder, and a sentence for each problem."""

    jobs: list[Seen]
    problems: list[str]

    @property
    def done(self) -> int:
        """Env steps done."""
        return sum(job.done for job in self.jobs)

    @property
    def of(self) -> int:
        """Env steps in all."""
        return sum(job.of for job in self.jobs)

    @property
    def rate(self) -> float:
        """Env steps per second of all running jobs together."""
        return math.fsum(job.rate for job in self.jobs if job.state == "running")

    @property
    def finished(self) -> bool:
        """Whether all jobs are done."""
        return all(job.state == "done" for job in self.jobs)


def _of_looks(found: dict[Job, Seen], group: Shared) -> dict[Job, Seen]:
    """The jobs up to the look that is being worked for: a diagnosis may end there."""

    def unit(job: Job) -> int:
        return group.plan.unit_of(job.seed, job.replicate)

    begun = max(
        (unit(job) + 1 for job, seen in found.items() if seen.state != "waiting"), default=1
    )
    until = min((n for n in group.plan.looks if n >= begun), default=group.plan.most)
    return {job: seen for job, seen in found.items() if unit(job) < until}


class Watch:
    """Follows the progress of a folder; rows that exist at the start are read only once.

    Raises `RegrowError` if there is no such folder, or if it has no study.
    """

    def __init__(self, folder: Place, *, trust: bool = False):
        require(
            folder.is_dir(),
            f"there is no folder {folder}; give the --out of a regrow study, diagnose or train",
        )
        self.folder, self.trust = folder, trust
        self.rows = {row.key for row in read_rows(folder).rows}
        require(
            bool(self.look().jobs),
            f"there is no study in {folder}; `regrow study` writes what it is to do there",
        )

    def look(self) -> Watched:
        """The current progress of every job."""
        if kind_of(self.folder) == "training":
            return Watched([_training(self.folder)], [])
        parts, problems = parts_in(self.folder, trust=self.trust)
        self.files = {one.name for one in listed(self.folder / "rows")}
        return Watched(
            [seen for group in shared(parts, self.folder) for seen in self._jobs(group)],
            problems,
        )

    def _jobs(self, group: Shared) -> list[Seen]:
        names = {one.name for one in listed(group.folder / "jobs")}
        found = _of_looks({job: self._seen(group, job, names) for job in group.jobs()}, group)
        open_seeds = {c.seed for c, seen in found.items() if c.arm and seen.state != "done"}
        # If all arms of a seed have their rows, its fork is no longer needed.
        return [
            seen if job.seed in open_seeds else seen._replace(state="done", done=seen.of)
            for job, seen in found.items()
        ]

    def _seen(self, group: Shared, job: Job, files: Collection[str]) -> Seen:
        asking = group.asking(job) if job.arm else group.parts
        names = tuple(f"{part.study}: {part.label}" for part in asking)
        seen = Seen(names, job.name, "waiting", 0, group.env_steps(job))
        rows = [part.key(job) for part in asking] if job.arm else []
        if (rows and all(map(self._there, rows))) or job.result(group.folder).name in files:
            return seen._replace(state="done", done=seen.of)
        kept = bool(stems_in(files, job.name))
        seen = seen._replace(state="stopped") if kept else seen
        if not is_held(group.folder, job):
            return seen
        told = read_progress(progress_file(group.folder, job))
        if told is None:
            return seen._replace(state="running")  # it has just started
        return seen._replace(
            state="running", done=told.done, phase=told.phase, rate=told.rate, silent=told.silent
        )

    def _there(self, key: Key) -> bool:
        return key in self.rows or file_of(self.folder, key).name in self.files


def _training(folder: Place) -> Seen:
    """The progress of a training run, as one job."""
    at = max((row.horizon for row in read_rows(folder).rows), default=0)
    seen = Seen(("training",), folder.name, "stopped", at, max(at, 1))
    told = read_progress(folder / "training.progress.json")
    if told is None or holder_of(folder / LOCK) is None:
        return seen
    return seen._replace(
        state="running",
        done=told.done,
        of=told.of,
        phase=told.phase,
        rate=told.rate,
        silent=told.silent,
    )

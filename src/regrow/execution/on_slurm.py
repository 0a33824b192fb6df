"""Runs tasks on a SLURM cluster, through submitit.

The process that submits stays: it hands in what may begin as arrays of jobs, and the next when what
they wait for is done. A job that is preempted, or reaches its time limit, saves its progress and is
queued again (submitit's checkpoint hook). One whose node dies is handed in again.
"""

import re
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import SubprocessError
from types import FrameType
from typing import Any

from regrow.errors import RegrowError, in_a_line, require_package, warn_once
from regrow.execution.elsewhere import Parcel
from regrow.execution.interrupts import SIGNALS, STOPPED, StoppedError, interruptible, stopping
from regrow.execution.queue import Queue
from regrow.execution.tasks import Resources, Task
from regrow.types import Report, silent

ATTEMPTS = 5
ARRAY = 1_000
"""Jobs of an array at most: SLURM's default limit is 1,001."""
LOOK_EVERY = {"local": 0.2, "slurm": 5.0}  # seconds
_NAMES = ("partition", "account", "qos", "constraint", "array_parallelism", "additional_parameters")


class Slurm:
    """Runs tasks as SLURM jobs.

    `folder`: for submitit's files, on a file system that the nodes share. `options`: of submitit's
    `update_parameters`, such as `timeout_min` and `slurm_partition` (also without `slurm_`);
    `cluster`: "slurm", or "local" for processes of this machine, to try it out. `gpus`: of each
    job.

    Raises `RegrowError` if submitit is missing or does not know an option, or if a job failed
    `ATTEMPTS` times. Raises `StoppedError` after Ctrl-C, which cancels the jobs: each saves its
    progress.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any] = {}, *, gpus: int = 0):
        require_package("submitit", "--on slurm", "slurm")
        self.folder = folder.absolute()
        self.gpus, held = gpus, dict(options)
        self.cluster = str(held.pop("cluster", "slurm"))
        self.options = {f"slurm_{k}" if k in _NAMES else k: v for k, v in held.items()}

    def __call__(self, tasks: Sequence[Task], report: Report) -> None:
        """Returns when all tasks are done."""
        by_name = {task.name: task for task in tasks}
        queue, running, failed = Queue(tasks), dict[str, Any](), dict[str, int]()
        with interruptible() as asked:
            try:
                while queue.waiting or running:
                    ready = list(iter(queue.take, None))
                    running |= self._submitted(ready)
                    time.sleep(LOOK_EVERY.get(self.cluster, 5.0))
                    for name in [name for name, job in running.items() if job.done()]:
                        if self._is_done(name, running.pop(name), failed):
                            queue.finished(name)
                            report(name, by_name[name].env_steps)
                        else:
                            running |= self._submitted([by_name[name]])
                    if asked():
                        raise StoppedError(STOPPED)
            except BaseException:
                _cancel(running.values())
                raise

    def _submitted(self, tasks: Sequence[Task]) -> dict[str, Any]:
        """The jobs of tasks by name: an array for those that take the same resources."""
        found = dict[str, Any]()
        for resources in {task.resources for task in tasks}:
            alike = [task for task in tasks if task.resources == resources]
            for first in range(0, len(alike), ARRAY):
                array, executor = alike[first : first + ARRAY], self._executor(resources)
                with executor.batch():
                    jobs = [executor.submit(_Work(Parcel.of(task))) for task in array]
                found |= dict(zip((task.name for task in array), jobs, strict=True))
        return found

    def _executor(self, resources: Resources) -> Any:
        import submitit

        try:
            executor = submitit.AutoExecutor(
                self.folder, cluster=self.cluster, slurm_max_num_timeout=1_000
            )
            memory = {"mem_gb": resources.memory / 1e9} if resources.memory else {}
            gpus = {"gpus_per_node": self.gpus} if self.gpus else {}
            own = {"name": "regrow", "cpus_per_task": resources.cpus, "timeout_min": 24 * 60}
            executor.update_parameters(**{**own, **memory, **gpus, **self.options})
        except Exception as error:  # no sbatch, or an option that it does not know
            raise RegrowError(f"--on slurm: {in_a_line(error)}") from error
        return executor

    def _is_done(self, name: str, job: Any, failed: dict[str, int]) -> bool:
        """Whether a job has done its task; if not, whether it may be handed in again.

        Raises what the task raised, or `RegrowError` if it failed too often.
        """
        try:
            error = job.result()
        except Exception as problem:  # its process was killed, its node died, its result is broken
            failed[name] = failed.get(name, 0) + 1
            if failed[name] < ATTEMPTS:
                return False
            raise RegrowError(
                f"{name} failed {ATTEMPTS} times ({_why(problem)}); what it said is in "
                f"{job.paths.stderr}"
            ) from problem
        if isinstance(error, StoppedError):
            return False  # the cluster ended it, not the user
        if error is not None:
            raise error
        return True


def _why(problem: Exception) -> str:
    """The last error of a traceback that submitit hands on, or what it says itself."""
    found = re.findall(
        r"^[\w.]+(?:Error|Exception|Interrupt|Exit)\b.*$", str(problem), re.MULTILINE
    )
    return found[-1][:300] if found else in_a_line(problem)


class _Work:
    """A task as a function of submitit, in a thread: the main one answers signals."""

    def __init__(self, parcel: Parcel):
        self.parcel = parcel

    def __call__(self) -> BaseException | None:
        """What the task raised, if it is one line for the user; anything else is raised."""
        for number in SIGNALS:  # of a cancelled job
            signal.signal(number, _here.ask)
        _here.begin(self.parcel)
        return _here.end()

    def checkpoint(self) -> Any:
        """Saves the progress; what is queued again."""
        import submitit

        _here.stop.set()
        _here.join()
        return submitit.helpers.DelayedSubmission(_Work(self.parcel))


class _Here:
    """The work of this process."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self.thread: threading.Thread | None = None

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Asks for a stop; a handler of signals."""
        del number, frame
        self.stop.set()

    def begin(self, parcel: Parcel) -> None:
        """Begins in a thread."""
        self.thread = threading.Thread(target=self._run, args=(parcel,), daemon=True)
        self.thread.start()

    def _run(self, parcel: Parcel) -> None:
        try:
            parcel.run(stopping(silent, self.stop.is_set))
        except BaseException as error:
            self.error = error

    def join(self) -> None:
        """Waits for its end; signals are answered meanwhile."""
        while self.thread is not None and self.thread.is_alive():
            self.thread.join(0.2)

    def end(self) -> BaseException | None:
        """Its error, if it is one line for the user."""
        self.join()
        if self.error is None or isinstance(self.error, RegrowError | OSError):
            return self.error
        raise self.error


_here = _Here()


def _cancel(jobs: Any) -> None:
    """Ends jobs; what they saved is kept."""
    for job in jobs:
        try:
            job.cancel()
        except (OSError, RuntimeError, SubprocessError) as error:
            warn_once(f"job {job.job_id} could not be cancelled: {in_a_line(error)}")

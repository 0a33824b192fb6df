"""Runs tasks on a Ray cluster: an existing one, or one that is started on this machine.

Ray chooses where a task runs, and runs it again elsewhere if its node or its process dies.
"""

import contextlib
import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from regrow.errors import RegrowError, in_a_line, require, require_package
from regrow.execution.elsewhere import Parcel
from regrow.execution.interrupts import STOPPED, StoppedError, interruptible, stopping
from regrow.execution.processes import cores
from regrow.execution.tasks import Task
from regrow.types import Report

RETRIES = 10
"""How often a task is begun again whose node or process died."""


class Ray:
    """Runs tasks on a cluster of Ray.

    `address`: as of `ray.init`, such as `ray://host:10001`; None is the cluster that RAY_ADDRESS
    names ("auto": the one that runs on this machine), and without one a new one of `count` cores
    (by default all), which ends with the work. `gpus`: of each task, also a part of one.

    Raises `RegrowError` if the package is missing, the cluster cannot be reached, or a task needs
    more than any node has. Raises `StoppedError` after Ctrl-C, once running tasks have saved their
    progress.
    """

    def __init__(self, address: str | None = None, *, count: int | None = None, gpus: float = 0.0):
        require_package("ray", "--on ray", "ray")
        self.address, self.count, self.gpus = address, count, gpus

    def __call__(self, tasks: Sequence[Task], report: Report) -> None:
        """Returns when all tasks are done."""
        with _connected(self.address, self.count) as ray, interruptible() as asked:
            _require_room(ray, tasks, self.gpus)
            desk = _desk(ray)
            refs = dict[str, Any]()
            for task in tasks:
                needs = [refs[name] for name in task.needs if name in refs]
                refs[task.name] = _submitted(ray, task, self.gpus, desk, needs)
            _wait_for(ray, refs, desk, report, asked)


@contextlib.contextmanager
def _connected(address: str | None, count: int | None) -> Iterator[Any]:
    """Ray, connected to a cluster. It stays connected if it was before."""
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None and "RAY_AUTH_MODE" not in os.environ:
        # Ray listens on all interfaces. Nobody else can use what is started here without a token.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    import ray

    if ray.is_initialized():
        yield ray
        return
    own = {"num_cpus": count or cores(), "include_dashboard": False} if address is None else {}
    try:
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **own)
    except Exception as error:  # Ray raises of many kinds: an address that is none, another version
        where = address or "this machine"
        raise RegrowError(f"cannot reach a Ray cluster at {where}: {in_a_line(error)}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_room(ray: Any, tasks: Sequence[Task], gpus: float) -> None:
    """Raises `RegrowError` if a task fits on no node: it would wait for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most_needed = {
        "CPU": max((task.resources.cpus for task in tasks), default=0),
        "GPU": gpus,
        "memory": max((task.resources.memory for task in tasks), default=0),
    }
    for name, needed in most_needed.items():
        most = max((node.get(name, 0.0) for node in nodes), default=0.0)
        require(
            needed <= most,
            f"a job needs {needed:g} of {name}, and the largest node of the Ray cluster has "
            f"{most:g}",
        )


class _Desk:
    """Where tasks say that they have begun, how far they are, and hear whether to stop."""

    def __init__(self) -> None:
        self._told: list[tuple[str, int]] = []
        self._running: set[str] = set()
        self._stop = False

    def begin(self, name: str) -> bool:
        """A task has begun; whether it is to stop."""
        self._running.add(name)
        return self._stop

    def tell(self, phase: str, env_steps: int) -> bool:
        """Says how far a task is; whether it is to stop."""
        self._told.append((phase, env_steps))
        return self._stop

    def end(self, name: str) -> None:
        """A task has ended."""
        self._running.discard(name)

    def told(self, stop: bool) -> tuple[list[tuple[str, int]], set[str]]:
        """(what was said since, the tasks that run); `stop`: what tasks will hear."""
        self._stop = stop
        told, self._told = self._told, []
        return told, self._running


def _desk(ray: Any) -> Any:
    """A desk; there is a new one if its node dies."""
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
    return ray.remote(_Desk).options(**options).remote()


def _submitted(ray: Any, task: Task, gpus: float, desk: Any, needs: Sequence[Any]) -> Any:
    cpus, memory = task.resources
    options = {"num_cpus": cpus, "num_gpus": gpus, "memory": memory or None}
    begin = ray.remote(_work).options(
        **options, name=task.name, max_retries=RETRIES, retry_exceptions=False
    )
    return begin.remote(Parcel.of(task), desk, *needs)


def _work(parcel: Parcel, desk: Any, *needs: None) -> None:
    """In a process of Ray."""
    import ray

    del needs
    stop = bool(ray.get(desk.begin.remote(parcel.name)))

    def report(phase: str, env_steps: int) -> None:
        nonlocal stop
        stop = bool(ray.get(desk.tell.remote(phase, env_steps)))

    try:
        if stop:
            raise StoppedError(STOPPED)
        parcel.run(stopping(report, lambda: stop))
    finally:
        desk.end.remote(parcel.name)


LAST = 120.0
"""Seconds that running tasks have to save their progress after Ctrl-C."""


def _wait_for(
    ray: Any, refs: dict[str, Any], desk: Any, report: Report, asked: Callable[[], bool]
) -> None:
    """Returns when all tasks are done. After Ctrl-C or a failure it waits for those that run.

    The others end with this connection.
    """
    names = {ref: name for name, ref in refs.items()}
    failure: BaseException | None = None
    end = math.inf
    while names and time.monotonic() < end:
        done, _ = ray.wait(list(names), num_returns=len(names), timeout=0.5)
        stop = asked() or failure is not None
        told, running = ray.get(desk.told.remote(stop))
        for one in told:
            report(*one)
        for ref in done:
            error = _error_of(ray, ref, names.pop(ref))
            failure = failure if failure and not isinstance(failure, StoppedError) else error
        if stop:
            end = min(end, time.monotonic() + LAST)
            if not running & set(names.values()):
                break
    if asked():
        raise StoppedError(STOPPED)
    if failure is not None:
        raise failure


def _error_of(ray: Any, ref: Any, name: str) -> BaseException | None:
    try:
        ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, RegrowError | OSError):
            return cause
        return cause if isinstance(cause, BaseException) else error
    except ray.exceptions.RayError as error:
        return RegrowError(
            f"{name} was begun {RETRIES + 1} times, and each time its node or process ended "
            f"({in_a_line(error)}); run the same command again to go on"
        )
    return None

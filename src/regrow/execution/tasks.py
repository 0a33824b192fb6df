"""Tasks with dependencies, and how to run them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from regrow.types import Report


class Resources(NamedTuple):
    """What a task takes while it runs: cores, bytes of memory. GPUs are given to an executor."""

    cpus: int = 1
    memory: int = 0  # 0: not known


class Task(NamedTuple):
    """A job to run, and the names of the tasks that must be done before it.

    It may run twice, also at the same time: what it writes is the same. Tasks with the same
    `program` compile the same code, so it helps to start one of them first. `env_steps`: how many
    it takes.
    """

    name: str
    needs: tuple[str, ...]
    work: Callable[[Report], None]
    program: str = ""
    env_steps: int = 0
    resources: Resources = Resources()


@runtime_checkable
class Execute(Protocol):
    """Runs tasks, each after its dependencies."""

    def __call__(self, tasks: Sequence[Task], report: Report) -> None:
        """Returns when all tasks are done."""
        ...


def in_order(tasks: Sequence[Task], report: Report) -> None:
    """Runs tasks one after the other, in this process."""
    for task in tasks:
        task.work(report)

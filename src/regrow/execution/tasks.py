"""Tasks with dependencies, and how to run them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from regrow.types import Report


class Task(NamedTuple):
    """A job to run, and the names of the tasks that must be done before it.

    Tasks with the same `program` compile the same code, so it helps to start one of them first.
    """

    name: str
    needs: tuple[str, ...]
    work: Callable[[Report], None]
    program: str = ""


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

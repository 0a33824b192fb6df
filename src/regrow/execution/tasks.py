"""Tasks that need each other, and what runs them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from regrow.types import Report


class Task(NamedTuple):
    """A cell to run and the cells that must be done before it.

    Tasks of one `program` compile the same: it is well to let one of them go ahead.
    """

    name: str
    needs: tuple[str, ...]
    work: Callable[[Report], None]
    program: str = ""


@runtime_checkable
class Execute(Protocol):
    """Runs tasks, each after those that it needs."""

    def __call__(self, tasks: Sequence[Task], report: Report) -> None:
        """Returns when all are done."""
        ...


def in_order(tasks: Sequence[Task], report: Report) -> None:
    """Runs tasks one after the other, in this process."""
    for task in tasks:
        task.work(report)

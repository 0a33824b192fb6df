"""Which task may begin next."""

from collections.abc import Sequence

from regrow.execution.tasks import Task


class Queue:
    """Tasks in order, each available once its dependencies are done.

    A task whose program is being compiled by another task is postponed while others are ready.
    """

    def __init__(self, tasks: Sequence[Task]):
        self.waiting = list(tasks)
        self.done = set[str]()
        self.compiling = dict[str, str]()  # program, by the first task that uses it
        self.compiled = {""}

    def take(self) -> Task | None:
        """The next task, or None if all remaining tasks wait for others."""
        ready = [task for task in self.waiting if self.done.issuperset(task.needs)]
        if not ready:
            return None
        busy = set(self.compiling.values())
        task = min(ready, key=lambda task: task.program in busy)
        self.waiting.remove(task)
        if task.program not in self.compiled:
            self.compiling[task.name] = task.program
        return task

    def finished(self, name: str) -> None:
        """Marks a task as done, and its program as compiled."""
        self.done.add(name)
        self.compiled.add(self.compiling.pop(name, ""))

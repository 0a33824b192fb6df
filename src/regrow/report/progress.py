"""Progress bars: phase, rate, and the estimated time left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

PLAIN_EVERY = 30.0  # seconds between lines where there is no terminal


class _Rate(ProgressColumn):
    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """The recent rate."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {self.unit}/s" if speed else "")


class Progressing(Protocol):
    """A `report(phase, done)`, and `more(env_steps)` where there is more to do than was known."""

    def __call__(self, phase: str, done: int, /) -> None:
        """So much more was done."""
        ...

    def more(self, total: int, /) -> None:
        """There is so much more to do."""
        ...


@contextmanager
def progress(unit: str, total: int) -> Iterator[Progressing]:
    """A `report(phase, done)` that shows a bar on a terminal, or else prints occasional lines."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console, unit, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, speed_estimate_period=60)
    try:
        bar.start()
        yield _Bar(bar, total)
    finally:
        bar.stop()


class _Bar:
    """Progress on a terminal."""

    def __init__(self, bar: Progress, total: int):
        self.bar, self.total = bar, total
        self.task = bar.add_task("starting", total=total)

    def __call__(self, phase: str, done: int) -> None:
        self.bar.update(self.task, description=phase, advance=done)

    def more(self, total: int) -> None:
        self.total += total
        self.bar.update(self.task, total=self.total)


class _Lines:
    """Progress as lines of text, for logs."""

    def __init__(self, console: Console, unit: str, total: int):
        self.console, self.unit, self.total, self.done = console, unit, total, 0
        self.said, self.said_at = 0, time.monotonic()

    def more(self, total: int) -> None:
        self.total += total

    def __call__(self, phase: str, done: int) -> None:
        self.done += done
        now = time.monotonic()
        if now - self.said_at < 1.0:
            self.said = self.done  # progress of an earlier session arrives at once
        if now - self.said_at < PLAIN_EVERY or self.done == self.said:
            return
        # The rate since the last line: the first one includes compilation, later ones do not.
        rate = (self.done - self.said) / (now - self.said_at)
        self.said, self.said_at = self.done, now
        left = (self.total - self.done) / rate
        self.console.print(
            f"{phase}: {self.done:,} of {self.total:,} {self.unit}, {rate:,.0f}/s, "
            f"about {left:,.0f} s left",
            highlight=False,
            soft_wrap=True,
        )

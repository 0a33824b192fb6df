"""Progress bars: phase, rate, and the estimated time left."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


@contextmanager
def progress(unit: str, total: int) -> Iterator[Callable[[str, int], None]]:
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
    task = bar.add_task("starting", total=total)

    def report(phase: str, done: int) -> None:
        bar.update(task, description=phase, advance=done)

    try:
        bar.start()
        yield report
    finally:
        bar.stop()


class _Lines:
    """Progress as lines of text, for logs."""

    def __init__(self, console: Console, unit: str, total: int):
        self.console, self.unit, self.total, self.done = console, unit, total, 0
        self.said, self.said_at = 0, time.monotonic()

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

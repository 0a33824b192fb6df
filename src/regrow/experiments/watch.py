"""How far studies are, from files alone: works beside the process that carries them out.

A cell is `done` where its result or its row is there, `running` while a process holds it, `stopped`
where it kept something to go on from, and `waiting` otherwise.
"""

import json
import math
import time
from pathlib import Path
from typing import Literal, NamedTuple

from regrow.diagnosis.jobs import Cell
from regrow.errors import require
from regrow.experiments.carry_out import is_held, progress_file
from regrow.experiments.shared_jobs import Shared, parts_in, shared
from regrow.records.rows import Key, file_of, read_rows

State = Literal["done", "running", "stopped", "waiting"]


class Seen(NamedTuple):
    """A cell as it was seen from outside; env steps, and seconds."""

    studies: tuple[str, ...]  # "study: condition", for each that asks for it
    cell: str
    state: State
    done: int
    of: int
    phase: str = ""
    rate: float = 0.0  # env steps per second
    silent: float = 0.0  # since it last told how far it is

    @property
    def left(self) -> float | None:
        """Seconds to its end, if it goes on at its rate."""
        return (self.of - self.done) / self.rate if self.rate > 0 else None


class Watched(NamedTuple):
    """All cells of a folder, and in a sentence each what could not be read."""

    cells: list[Seen]
    problems: list[str]

    @property
    def done(self) -> int:
        """Env steps that are done."""
        return sum(cell.done for cell in self.cells)

    @property
    def of(self) -> int:
        """Env steps in all."""
        return sum(cell.of for cell in self.cells)

    @property
    def rate(self) -> float:
        """Env steps per second of what is running."""
        return math.fsum(cell.rate for cell in self.cells if cell.state == "running")

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return all(cell.state == "done" for cell in self.cells)


class Watch:
    """Looks at a folder again and again; what it holds at first is read once.

    Raises `RegrowError` where there is no such folder, or no study in it.
    """

    def __init__(self, folder: Path):
        require(folder.is_dir(), f"there is no folder {folder}; give the --out of a `regrow study`")
        self.folder = folder
        self.rows = {row.key for row in read_rows(folder).rows}
        require(
            bool(self.look().cells),
            f"there is no study in {folder}; `regrow study` writes what it is to do there",
        )

    def look(self) -> Watched:
        """Every cell as it is now."""
        parts, problems = parts_in(self.folder)
        now = time.time()
        return Watched(
            [seen for group in shared(parts, self.folder) for seen in self._cells(group, now)],
            problems,
        )

    def _cells(self, group: Shared, now: float) -> list[Seen]:
        found = {cell: self._seen(group, cell, now) for cell in group.cells()}
        open_seeds = {c.seed for c, seen in found.items() if c.arm and seen.state != "done"}
        # Where all arms have their rows, the way up to the fork is not needed any more.
        return [
            seen if cell.seed in open_seeds else seen._replace(state="done", done=seen.of)
            for cell, seen in found.items()
        ]

    def _seen(self, group: Shared, cell: Cell, now: float) -> Seen:
        asking = group.asking(cell) if cell.arm else group.parts
        names = tuple(f"{part.study}: {part.label}" for part in asking)
        seen = Seen(names, cell.name, "waiting", 0, group.env_steps(cell))
        rows = [part.key(cell) for part in asking] if cell.arm else []
        if (rows and all(map(self._there, rows))) or cell.result(group.folder).is_file():
            return seen._replace(state="done", done=seen.of)
        kept = (group.folder / "cells" / f"{cell.name}.part.ckpt").is_file()
        seen = seen._replace(state="stopped") if kept else seen
        if not is_held(group.folder, cell):
            return seen
        try:
            told = json.loads(progress_file(group.folder, cell).read_text("utf-8"))
            done, took = int(told["done"]), told["written"] - told["began"]
            rate = (done - told["earlier"]) / took if took > 0 else 0.0
            return seen._replace(
                state="running",
                done=done,
                phase=str(told["phase"]),
                rate=rate,
                silent=max(0.0, now - told["written"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return seen._replace(state="running")  # it has just begun

    def _there(self, key: Key) -> bool:
        return key in self.rows or file_of(self.folder, key).is_file()

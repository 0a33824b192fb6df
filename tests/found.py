"""What a diagnosis left in its folder."""

import json
from pathlib import Path

from regrow.diagnosis.judging import as_outcome
from regrow.diagnosis.outcomes import Outcome
from regrow.records.rows import read_rows
from regrow.types import Report


def jobs_of(folder: Path) -> Path:
    """The folder of its jobs."""
    (jobs,) = (folder / "work").glob("*/jobs")
    return jobs


def outcomes_of(folder: Path) -> list[Outcome]:
    """Of all arms and seeds, as its rows have them."""
    return [as_outcome(row) for row in read_rows(folder).rows]


class StopHereError(Exception):
    """Raised by a report, to stop the work there."""


def stopping_at(call: int) -> Report:
    """A report that stops the work at its `call`-th call."""
    calls = iter(range(1, call + 1))

    def report(phase: str, steps: int) -> None:
        if next(calls) == call:
            raise StopHereError

    return report


def results(folder: Path) -> dict:
    """What every job found, without how long it took."""
    found = {path.name: json.loads(path.read_text()) for path in jobs_of(folder).glob("*.json")}
    return {name: {**content, "seconds": 0, "sha256": ""} for name, content in found.items()}

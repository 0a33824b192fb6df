"""Rows for other programs: TensorBoard event files, Weights & Biases, one Parquet file.

Each row becomes a run: its learning curve over env steps, what it predicted, its probes at the fork
and at the end, its configuration. Packages are imported where they are needed and named where they
are not there.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from regrow.checkpoint import write_atomically
from regrow.errors import RegrowError, require
from regrow.rows import Row, read_rows, table_of, write_table
from regrow.sinks import package
from regrow.study_plan import plain_name, plan_file


class Point(NamedTuple):
    """A number of a run at some env step."""

    name: str
    env_steps: int
    value: float


def points(row: Row) -> list[Point]:
    """What there is to see of a row, in the order of env steps; NaN is left out."""
    found = [
        *_curve("return", row.env_steps_to_fork, row.returns_to_fork),
        *_curve("return", row.env_steps, row.returns),
        *_curve("predicted_value", row.env_steps, row.predicted),
    ]
    ends = {"fork": row.fork_at, "fresh": row.fork_at, "end": row.fork_at + row.horizon}
    for one in row.probes:
        fresh = "_fresh" if one.at == "fresh" else ""
        name = "/".join(filter(None, ("probes" + fresh, one.learner, one.probe, one.part)))
        found.append(Point(name, ends[one.at], one.value))
    numbers = [point for point in found if point.value == point.value]
    return sorted(numbers, key=lambda point: point.env_steps)


def _curve(name: str, env_steps: Sequence[int], values: Sequence[float]) -> Iterator[Point]:
    return (Point(name, step, value) for step, value in zip(env_steps, values, strict=True))


def run_name(row: Row) -> str:
    """The name of a row's run, in folders: study/scale/condition/arm/seed."""
    parts = (row.study, row.scale, row.condition, row.arm, f"seed{row.seed}")
    plain = ("".join(c if c.isalnum() or c in "_-=." else "-" for c in part) for part in parts)
    return "/".join(part.lstrip(".") or "-" for part in plain)


def settings(row: Row) -> dict[str, Any]:
    """What a run was made with."""
    names = ("study", "scale", "condition", "environment", "agent", "arm", "seed", "fork_at")
    held = {name: getattr(row, name) for name in (*names, "horizon", "commit")}
    return {**held, "before": list(row.before), **_held("config", row), **_held("versions", row)}


def _held(name: str, row: Row) -> dict[str, Any]:
    try:
        return {name: json.loads(getattr(row, name))}
    except ValueError:
        return {}


def to_tensorboard(rows: Sequence[Row], folder: Path) -> None:
    """Writes event files, a folder per row; `RegrowError` where there are some already."""
    tensorboard = package("tensorboardX", "tensorboard")
    require(
        not (folder.is_dir() and any(folder.rglob("events.out.tfevents.*"))),
        f"{folder} holds event files already; delete it or choose another --into",
    )
    for row in rows:
        written = row.written.timestamp()
        with tensorboard.SummaryWriter(str(folder / run_name(row))) as writer:
            for name, env_steps, value in points(row):
                writer.add_scalar(name, value, env_steps, walltime=written)
            text = json.dumps(settings(row), indent=2)
            writer.add_text("settings", f"```\n{text}\n```", row.fork_at, walltime=written)


def to_wandb(rows: Sequence[Row], folder: Path, *, project: str = "regrow") -> None:
    """Logs a run per row to Weights & Biases, as that is set up (WANDB_MODE=offline: to disk)."""
    wandb = package("wandb", "wandb")
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        run = wandb.init(
            project=project,
            name=run_name(row),
            group=f"{row.study}/{row.condition}",
            config=settings(row),
            dir=str(folder),
            reinit="create_new",
        )
        by_step: dict[int, dict[str, float]] = {}
        for name, env_steps, value in points(row):
            by_step.setdefault(env_steps, {})[name] = value
        for env_steps, values in by_step.items():
            run.log(values, step=env_steps)
        run.finish()


def to_parquet(rows: Sequence[Row], folder: Path) -> None:
    """Joins rows into one small file per study, in the layout of a folder of studies.

    `RegrowError` where the folder holds rows of these studies that would be gone.
    """
    _keep(rows, folder)
    for study, scale in _studies(rows):
        own = [row for row in rows if row.key[:2] == (study, scale)]
        name = f"{study}--{scale}"
        if name != plain_name(name):
            digest = hashlib.sha256(name.encode()).hexdigest()[:16]
            name = f"{plain_name(name)}-{digest}"
        write_table(folder / "rows" / f"{name}.parquet", table_of(own))


def copy_plans(rows: Sequence[Row], source: Path, folder: Path) -> None:
    """What the studies of rows were to do, beside the rows that were joined elsewhere."""
    for study in _studies(rows):
        path = plan_file(source, *study)
        if path.is_file():
            write_atomically(plan_file(folder, *study), partial(_write, path.read_bytes()))


def _studies(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(row.key[:2] for row in rows))


def _keep(rows: Sequence[Row], folder: Path) -> None:
    there = read_rows(folder).rows if folder.is_dir() else []
    lost = {row.key for row in there if row.key[:2] in _studies(rows)} - {row.key for row in rows}
    for study, scale, *_ in sorted(lost)[:1]:
        raise RegrowError(
            f"{folder} holds {len(lost)} rows that would be gone, of {study} ({scale}) first of "
            "all; delete it or choose another --into"
        )


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)

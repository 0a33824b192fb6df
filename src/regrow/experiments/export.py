"""Exports runs to other programs: TensorBoard event files, Weights & Biases, Parquet.

A run is a row of a study, an arm of a diagnosis with one seed, or a run of `regrow train`. Its
returns over env steps, predicted values, probes and configuration are exported. Optional packages
are imported when needed; if one is not installed, the error names it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from regrow.errors import RegrowError, require
from regrow.files.atomic import read_json, write_atomically
from regrow.files.places import Place
from regrow.records.rows import Row, probe_place, read_rows, table_of, write_table
from regrow.records.sinks import package
from regrow.records.study_spec import plain_name, plan_file
from regrow.training.saved import read_probes, read_training


class Point(NamedTuple):
    """A named number of a run at an env step."""

    name: str
    env_steps: int
    value: float


class Logged(NamedTuple):
    """A run in the form that other programs show."""

    name: str  # a folder path, as in study/scale/condition/arm/seed0
    group: str
    points: list[Point]  # in the order of env steps, without NaN
    settings: dict[str, Any]
    fork_at: int
    written: float  # seconds since 1970


def of_row(row: Row) -> Logged:
    """Converts a row of a study."""
    run = f"seed{row.seed}" + (f"-{row.replicate}" if row.replicate else "")
    name = _run_name(row.study, row.scale, row.condition, row.arm, run)
    group = f"{row.study}/{row.condition}"
    return Logged(name, group, points(row), settings(row), row.fork_at, row.written.timestamp())


def points(row: Row) -> list[Point]:
    """All numbers of a row, as points."""
    ends = {"fork": row.fork_at, "fresh": row.fork_at, "end": row.fork_at + row.horizon}
    return _in_order(
        *_curve("return", row.env_steps_to_fork, row.returns_to_fork),
        *_curve("return", row.env_steps, row.returns),
        *_curve("predicted_value", row.env_steps, row.predicted),
        *(
            Point(_probe(one.learner, one.probe, one.part, one.at == "fresh"), ends[one.at], one[4])
            for one in row.probes
        ),
    )


def settings(row: Row) -> dict[str, Any]:
    """The configuration of a row's run."""
    names = ("study", "scale", "condition", "environment", "agent", "arm", "seed", "replicate")
    held = {name: getattr(row, name) for name in (*names, "fork_at", "horizon", "commit")}
    return {**held, "before": list(row.before), **_held("config", row), **_held("versions", row)}


def _held(name: str, row: Row) -> dict[str, Any]:
    try:
        return {name: json.loads(getattr(row, name))}
    except ValueError:
        return {}


def of_training(folder: Place) -> list[Logged]:
    """Reads a run of `regrow train`: every episode and every probe value."""
    told, path = read_training(folder), folder / "probes.parquet"
    episodes = told.episodes
    probes = read_probes(folder) if path.is_file() else []
    found = _in_order(
        *_curve("return", episodes.env_steps.tolist(), episodes.returns.tolist()),
        *_curve("length", episodes.env_steps.tolist(), episodes.lengths.astype(float).tolist()),
        *(
            Point(_probe(*probe_place(row["probe"]), row["fresh"]), row["env_steps"], row["value"])
            for row in probes
        ),
    )
    name = _run_name(told.environment, told.what, f"seed{told.seed}")
    written = (folder / "episodes.parquet").stat().st_mtime
    config = read_json(folder / "config.json")
    return [Logged(name, told.environment, found, config, 0, written)]


def _in_order(*found: Point) -> list[Point]:
    numbers = [point for point in found if point.value == point.value]
    return sorted(numbers, key=lambda point: point.env_steps)


def _curve(name: str, env_steps: Sequence[int], values: Sequence[float]) -> Iterator[Point]:
    return (Point(name, step, value) for step, value in zip(env_steps, values, strict=True))


def _probe(learner: str, probe: str, part: str, fresh: bool) -> str:
    return "/".join(filter(None, ("probes_fresh" if fresh else "probes", learner, probe, part)))


def _run_name(*parts: str) -> str:
    """The name of a run, as a folder path."""
    plain = ("".join(c if c.isalnum() or c in "_-=." else "-" for c in part) for part in parts)
    return "/".join(part.lstrip(".") or "-" for part in plain)


def to_tensorboard(runs: Sequence[Logged], folder: Place) -> None:
    """Writes event files, a folder per run; `RegrowError` if `folder` has some already."""
    tensorboard = package("tensorboardX", "tensorboard")
    require(
        not (folder.is_dir() and any(folder.rglob("events.out.tfevents.*"))),
        f"{folder} holds event files already; delete it or choose another --into",
    )
    for run in runs:
        with tensorboard.SummaryWriter(str(folder / run.name)) as writer:
            for name, env_steps, value in run.points:
                writer.add_scalar(name, value, env_steps, walltime=run.written)
            text = json.dumps(run.settings, indent=2)
            writer.add_text("settings", f"```\n{text}\n```", run.fork_at, walltime=run.written)


def to_wandb(runs: Sequence[Logged], folder: Place, *, project: str = "regrow") -> None:
    """Logs runs to Weights & Biases with its current settings (WANDB_MODE=offline: to disk)."""
    wandb = package("wandb", "wandb")
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs:
        logged = wandb.init(
            project=project,
            name=run.name,
            group=run.group,
            config=run.settings,
            dir=str(folder),
            reinit="create_new",
        )
        by_step: dict[int, dict[str, float]] = {}
        for name, env_steps, value in run.points:
            by_step.setdefault(env_steps, {})[name] = value
        for env_steps, values in by_step.items():
            logged.log(values, step=env_steps)
        logged.finish()


def to_table(runs: Sequence[Logged], folder: Place) -> None:
    """Writes runs that are not rows of a study to one Parquet file, with a row per number.

    Columns: run, name, env_steps, value. The metadata `settings` has the settings of every run.
    """
    columns: Mapping[str, list[Any]] = {
        "run": [run.name for run in runs for _ in run.points],
        "name": [point.name for run in runs for point in run.points],
        "env_steps": [point.env_steps for run in runs for point in run.points],
        "value": [float(point.value) for run in runs for point in run.points],
    }
    about = json.dumps({run.name: run.settings for run in runs})
    table = pa.table(columns).replace_schema_metadata({"settings": about})
    write_table(folder / "runs.parquet", table)


def to_parquet(rows: Sequence[Row], folder: Place) -> None:
    """Joins rows into one small file per study and scale, in the layout of a folder of studies.

    Raises `RegrowError` if the folder has rows of these studies that would be lost.
    """
    _keep(rows, folder)
    for study, scale in _studies(rows):
        own = [row for row in rows if row.key[:2] == (study, scale)]
        name = f"{study}--{scale}"
        if name != plain_name(name):
            digest = hashlib.sha256(name.encode()).hexdigest()[:16]
            name = f"{plain_name(name)}-{digest}"
        write_table(folder / "rows" / f"{name}.parquet", table_of(own))


def copy_plans(rows: Sequence[Row], source: Place, folder: Place) -> None:
    """Copies the plans of the rows' studies from `source` to `folder`."""
    for study in _studies(rows):
        path = plan_file(source, *study)
        if path.is_file():
            write_atomically(plan_file(folder, *study), partial(_write, path.read_bytes()))


def _studies(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(row.key[:2] for row in rows))


def _keep(rows: Sequence[Row], folder: Place) -> None:
    there = read_rows(folder).rows if folder.is_dir() else []
    lost = {row.key for row in there if row.key[:2] in _studies(rows)} - {row.key for row in rows}
    for study, scale, *_ in sorted(lost)[:1]:
        raise RegrowError(
            f"{folder} holds {len(lost)} rows that would be gone, of {study} ({scale}) first of "
            "all; delete it or choose another --into"
        )


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)

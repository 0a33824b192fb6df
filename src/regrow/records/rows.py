"""Rows: the results of studies, one row per study, condition, arm and seed.

    OUT/rows/<study>--<digest>.parquet    one row, or many after a join

A row has its curves, probes and events, and its configuration as text. The process that finishes a
job writes its row atomically, so many processes may write into one folder. The columns are the
fields of `Row`. Any Parquet reader can read them, e.g. `pandas.read_parquet(OUT / "rows")`.
"""

import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from regrow.errors import RegrowError, require
from regrow.files.atomic import write_atomically
from regrow.files.folders import kind_of
from regrow.files.formats import as_meant, plan_as_meant
from regrow.files.places import Place, contents, listed, place
from regrow.records.study_spec import Plan, plain_name, read_plans

FORMAT = 3
"""Incremented when a column changes its meaning, or when its numbers would come out differently.

Rows of format 1 can be read. Names of interventions and parts in them are translated to the current
ones (`regrow.files.formats`).
"""
READABLE = (1, 2, 3)
SAME_NUMBERS = (2, 3)
"""Formats whose numbers come out alike: 3 added the replicate and the random policy's error."""
_ADDED = {"replicate": (pa.int64(), 0), "random_error": (pa.float64(), 0.0)}
"""Columns that earlier formats do not have, with what they stand for there."""

Key = tuple[str, str, str, str, int, int]
"""The unique key of a row: study, scale, condition, arm, seed, replicate."""


WHEN = ("fork", "fresh", "end")
"""When a probe was measured: at the fork, on fresh networks at the fork, after the horizon.

Fresh networks are measured on the same observations.
"""


STOPPED = "stopped: "
"""The prefix of the last event if the arm was stopped; such a row has no curve."""


class Measured(NamedTuple):
    """The value of one probe on one part of one Learner; a single Learner has the name ""."""

    learner: str
    probe: str
    part: str
    at: str  # one of WHEN
    value: float  # NaN if the probe does not apply to such a part


def probe_place(name: str) -> tuple[str, str, str]:
    """(Learner, probe, part) from a name as in `Run.measure`; a single Learner is ""."""
    *learner, probe, part = name.split(".")
    return ".".join(learner), probe, part


class Happened(NamedTuple):
    """An intervention that was carried out, at the fork (those of `before` first) or later.

    Or the reason why the arm was stopped, with the prefix `STOPPED`.
    """

    env_steps: int
    intervention: str


@dataclass(frozen=True)
class Row:
    """The results of one arm with one seed, in one replicate.

    `axis`, `level`: the variable that a study varies across conditions, and its value, e.g.
    "learning_rate" and 1e-3; "" and None if the conditions have no order.
    `returns…`: mean returns per time bin; `env_steps…` are the ends of the bins.
    `predicted`: mean |value| in every bin after the fork. `realised`: mean |discounted return|
    that followed. `random_return`, `random_error`: of a random policy, and its standard error.
    `seconds`, `flops`: of this arm from the fork on; `…_to_fork`: of the shared run up to the fork.
    FLOPs are XLA's count for acting and updating, with the network sizes at the time.
    `config`: JSON of the plan (`Plan.from_config` reads it) and, under "parts", of every part with
    all of its fields.
    `commit`: the source commit, "" if the source is no git checkout.
    """

    study: str
    scale: str
    condition: str
    axis: str
    level: float | None
    environment: str
    agent: str
    before: tuple[str, ...]
    arm: str
    intervention: str
    seed: int
    replicate: int
    fork_at: int
    horizon: int
    env_steps_to_fork: tuple[int, ...]
    returns_to_fork: tuple[float, ...]
    env_steps: tuple[int, ...]
    returns: tuple[float, ...]
    predicted: tuple[float, ...]
    realised: float
    largest_reward: float
    random_return: float
    random_error: float
    probes: tuple[Measured, ...]
    events: tuple[Happened, ...]
    seconds: float
    seconds_to_fork: float
    flops: float
    flops_to_fork: float
    config: str
    versions: str
    commit: str
    written: datetime
    format: int = FORMAT

    @property
    def stopped(self) -> str:
        """Why the arm was stopped without a curve (numbers not finite); "" if it has a curve."""
        last = self.events[-1].intervention if self.events and not self.returns else ""
        return last.removeprefix(STOPPED) if last.startswith(STOPPED) else ""

    @property
    def key(self) -> Key:
        """The unique key of this row."""
        return self.study, self.scale, self.condition, self.arm, self.seed, self.replicate

    @property
    def parts(self) -> tuple[Any, ...]:
        """The parts of the setup that determine the numbers."""
        return self.environment, self.agent, self.before, self.fork_at, self.horizon


_PLAIN: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    float | None: pa.float64(),
    datetime: pa.timestamp("us", tz="UTC"),
}


def _column(kind: Any) -> pa.DataType:
    """The Arrow type of a field of `Row`."""
    if get_origin(kind) is tuple:
        return pa.list_(_column(get_args(kind)[0]))
    if kind in (Measured, Happened):
        return pa.struct({name: _column(of) for name, of in get_type_hints(kind).items()})
    return _PLAIN[kind]


SCHEMA = pa.schema({name: _column(kind) for name, kind in get_type_hints(Row).items()})


def file_of(folder: Place, key: Key) -> Place:
    """Where the row of (study, scale, condition, arm, seed, replicate) is."""
    named = key if key[5] else key[:5]  # as before there were replicates
    digest = hashlib.sha256("\n".join(map(str, named)).encode()).hexdigest()[:16]
    return folder / "rows" / f"{plain_name(key[0])}--{digest}.parquet"


def write_row(folder: Place, row: Row) -> None:
    """Writes a row to its file, replacing what was there."""
    write_table(file_of(folder, row.key), table_of([row]))


def write_table(path: Place, table: pa.Table) -> None:
    """Writes a table as a Parquet file, atomically."""
    write_atomically(
        path, lambda file: pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    )


def table_of(rows: Iterable[Row]) -> pa.Table:
    """Converts rows to an Arrow table."""
    return pa.Table.from_pylist([_plain(row) for row in rows], schema=SCHEMA)


def _plain(row: Row) -> dict[str, Any]:
    fields = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    lists = {name: [one._asdict() for one in fields[name]] for name in ("probes", "events")}
    return {**fields, **lists}


class Found(NamedTuple):
    """The rows of a folder, and a sentence for each problem."""

    rows: list[Row]
    problems: list[str]


def read_rows(folder: str | Place) -> Found:
    """All rows of a folder that belong to the current plans of its studies.

    `problems` lists damaged files, files of an unknown format, rows of an earlier definition of a
    study, and whether the folder has no rows; all other rows are returned. Of two rows with the
    same key, the later one is used. Raises `RegrowError` if there is no such folder.
    """
    folder = place(folder)
    require(
        folder.is_dir(),
        f"there is no folder {folder}; give the --out of a regrow study, diagnose or train",
    )
    latest: dict[Key, Row] = {}
    problems: list[str] = []
    for path, content in contents(listed(folder / "rows", ".parquet")):
        try:
            rows = _rows_of(path, content)
        except RegrowError as error:
            problems.append(str(error))
            continue
        for row in rows:
            held = latest.get(row.key)
            if held is None or held.written <= row.written:
                latest[row.key] = row
    plans, more = read_plans(folder)
    planned = {key: plans.get(key[:2]) for key in latest}
    found = [row for key, row in latest.items() if _belongs(row, planned[key])]
    earlier = len(latest) - len(found)
    if earlier:
        problems.append(
            f"{earlier} rows in {folder} are of an earlier definition of their study and are left "
            "out; run the study again for those that took their place"
        )
    if not latest:
        kind = kind_of(folder)
        held = f", the folder of a {kind} by an earlier version" if kind else ""
        problems.append(
            f"there are no rows in {folder}{held}; regrow study, diagnose and train write them"
        )
    found.sort(key=lambda row: _place(row, planned[row.key]))
    return Found(found, [*problems, *more])


def _rows_of(path: Place, content: bytes | OSError) -> list[Row]:
    if isinstance(content, OSError):
        may = "may not" if isinstance(content, PermissionError) else "cannot"
        raise RegrowError(f"{path} {may} be read; {content.strerror or content}") from content
    try:
        file = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True)
        table = file.read(use_threads=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _broken(path, str(error)) from error
    if "format" not in table.column_names:
        raise _broken(path, "it has no column 'format'")
    for number in table["format"].unique().to_pylist():
        require(
            number in READABLE,
            f"{path} has rows of format {number}; this version reads {READABLE[0]} to {FORMAT}: "
            "run the study again or read the file with the version that wrote it",
        )
    try:
        for name, (kind, value) in _ADDED.items():
            if name not in table.column_names:
                table = table.append_column(name, pa.array([value] * len(table), kind))
        held = table.select(SCHEMA.names).cast(SCHEMA)
        lacking = [name for name in SCHEMA.names if name != "level" and _lacks(held[name])]
        require(not lacking, f"{path}: {', '.join(lacking)} lacks values; delete it and run again")
        return [_row(_as_meant(values)) for values in held.to_pylist()]
    except RegrowError:
        raise
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise _broken(path, str(error)) from error


def _as_meant(values: dict[str, Any]) -> dict[str, Any]:
    """Translates a row of any readable format to current names."""
    if values["format"] > 1:
        return values
    events = [{**one, "intervention": as_meant(one["intervention"])} for one in values["events"]]
    try:
        config = json.dumps(plan_as_meant(json.loads(values["config"])))
    except (KeyError, TypeError, ValueError):
        config = values["config"]  # written by another program
    before = [as_meant(text) for text in values["before"]]
    done = {"intervention": as_meant(values["intervention"]), "before": before, "events": events}
    return {**values, **done, "config": config}


def _lacks(column: pa.ChunkedArray | pa.Array) -> bool:
    """Whether a value is missing, at any level of nesting."""
    if column.null_count:
        return True
    if pa.types.is_list(column.type):
        return any(_lacks(chunk.flatten()) for chunk in _chunks(column))
    if pa.types.is_struct(column.type):
        return any(_lacks(child) for chunk in _chunks(column) for child in chunk.flatten())
    return False


def _chunks(column: pa.ChunkedArray | pa.Array) -> list[pa.Array]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]


def _broken(path: Place, why: str) -> RegrowError:
    return RegrowError(f"{path} is no file of rows, or cut short ({why}); delete it and run again")


def _row(values: Mapping[str, Any]) -> Row:
    lists = {name: tuple(held) for name, held in values.items() if isinstance(held, list)}
    lists["probes"] = tuple(Measured(**held) for held in values["probes"])
    lists["events"] = tuple(Happened(**held) for held in values["events"])
    odd = {one.at for one in lists["probes"]} - set(WHEN)
    if odd:
        raise ValueError(f"probes at '{min(odd)}', which is none of {', '.join(WHEN)}")
    curves = ("env_steps_to_fork", "returns_to_fork"), ("env_steps", "returns", "predicted")
    if any(len({len(lists[name]) for name in names}) > 1 for names in curves):
        raise ValueError("a curve is longer than its env steps, or shorter")
    return Row(**{**values, **lists, "written": values["written"].astimezone(UTC)})


# Which rows belong to the plan of a study.


def _place(row: Row, plan: Plan | None) -> tuple[str, str, int, str, int, str, int, int]:
    """The sort key of a row: in the order of its plan, or alphabetical without a plan."""
    conditions = plan.conditions if plan else {}
    condition = conditions.get(row.condition)
    arms = condition.arm_names if condition else ()
    return (
        *(row.study, row.scale),
        *(list(conditions).index(row.condition) if condition else 0, row.condition),
        *(arms.index(row.arm) if row.arm in arms else 0, row.arm),
        *(row.seed, row.replicate),
    )


def _belongs(row: Row, plan: Plan | None) -> bool:
    """Whether the plan includes this row; without a plan, every row belongs."""
    if plan is None:
        return True
    held = plan.conditions.get(row.condition)
    if held is None:
        return False
    parts = held.environment, held.agent, held.before, held.fork_at, held.horizon
    if row.parts != parts or row.seed >= held.seeds:
        return False
    if row.replicate >= held.config.get("replicates", 1):
        return False
    does = {arm.name: arm.rule or arm.intervention for arm in held.arms}.get(row.arm, "")
    return does == row.intervention or does.startswith(f"{row.intervention} ")

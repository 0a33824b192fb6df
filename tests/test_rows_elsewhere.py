"""Rows in other programs (SQL, TensorBoard, Weights & Biases, one file); studies from outside."""

import dataclasses
import io
import json
import math
import os
import struct
import sys
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rows_made_up
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event

from regrow.analysis.conditions import cases
from regrow.analysis.summary import summarise
from regrow.diagnosis.jobs import Job
from regrow.diagnosis.plan import Arm
from regrow.diagnosis.recording import held, is_held, progress_file
from regrow.errors import RegrowError
from regrow.experiments.carry_out import begin
from regrow.experiments.export import of_row, points, to_parquet, to_tensorboard, to_wandb
from regrow.experiments.shared_jobs import parts_in, parts_of, shared, written
from regrow.experiments.watch import Watch
from regrow.files.atomic import read_sealed, write_json
from regrow.files.leases import take
from regrow.files.progress import report_progress
from regrow.records.query import query
from regrow.records.rows import Measured, Row, read_rows, write_row
from regrow.records.study_spec import plan_file, write_plan
from regrow.registry import make
from regrow.report.studies import verdicts_table, watch_table

HOSTILE = '../../../"<b>[red]$(rm)\n%s'


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return rows_made_up.rows_of(seeds=2)


@pytest.fixture
def folder(tmp_path, rows):
    return rows_made_up.write(tmp_path / "out", rows)


def shown(thing) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(thing)
    return console.export_text()


# SQL.


def test_a_query_gives_an_arrow_table(folder, rows):
    found = query(
        folder, "select arm, count(*) as n, avg(list_avg(returns)) from rows group by arm"
    )
    assert isinstance(found, pa.Table)
    assert sorted(found["arm"].to_pylist()) == ["again", "inject", "nothing", "reset"]
    assert set(found["n"].to_pylist()) == {2}
    at_fork = "p.probe = 'srank' and p.at = 'fork' and p.part = 'head'"
    probes = query(
        folder,
        "select p.value from (select unnest(probes) as p, * from rows) "
        f"where {at_fork} and seed = 1 and arm = 'inject'",
    )
    (row,) = [row for row in rows if (row.arm, row.seed) == ("inject", 1)]
    expected = [p.value for p in row.probes if p[1:4] == ("srank", "head", "fork")]
    assert probes["value"].to_pylist() == expected


def test_a_query_tells_what_could_not_be_read(folder):
    (folder / "rows" / "broken.parquet").write_bytes(b"junk")
    with pytest.warns(UserWarning, match=r"broken\.parquet is no file of rows"):
        assert query(folder, "select * from rows").num_rows == 8


def test_a_query_of_a_folder_without_rows_is_empty(tmp_path):
    with pytest.warns(UserWarning, match="there are no rows"):
        assert query(tmp_path, "select study from rows").num_rows == 0


@pytest.mark.parametrize("sql", ["selec 1", "select nonsense from rows", ""])
def test_a_query_that_cannot_be_carried_out_is_told(folder, sql):
    with pytest.raises(RegrowError, match="the query cannot be carried out"):
        query(folder, sql)


# Exports.


def events_in(path) -> list[Event]:
    """The events of a TensorBoard file: length, its checksum, the record, its checksum."""
    found, data = [], path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def test_event_files_hold_the_curves_and_probes(tmp_path, rows):
    row = next(row for row in rows if row.arm == "inject")
    to_tensorboard([of_row(row)], tmp_path / "events")
    (path,) = (tmp_path / "events" / of_row(row).name).iterdir()
    scalars = [
        (value.tag, event.step, value.simple_value, event.wall_time)
        for event in events_in(path)
        for value in event.summary.value
        if value.WhichOneof("value") == "simple_value"
    ]
    assert [(name, step) for name, step, *_ in scalars] == [point[:2] for point in points(row)]
    for (*_, got, when), point in zip(scalars, points(row), strict=True):
        assert got == pytest.approx(point.value)
        assert when == row.written.timestamp()
    curve = [value for name, _, value, _ in scalars if name == "return"]
    assert curve == pytest.approx([*row.returns_to_fork, *row.returns])
    with pytest.raises(RegrowError, match="holds event files already"):
        to_tensorboard([of_row(row)], tmp_path / "events")


def test_what_is_not_a_number_is_no_point(rows):
    assert not any(math.isnan(point.value) for point in points(rows[0]))
    assert "probes/nowhere/head" not in {point.name for point in points(rows[0])}


def test_a_file_of_rows_stays_within_the_folder(rows, tmp_path):
    away = [dataclasses.replace(row, study="../../evil/n") for row in rows]
    to_parquet(away, tmp_path / "a" / "b")
    write_row(tmp_path / "a" / "c", away[0])
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent for path in written} == {tmp_path / "a" / x / "rows" for x in "bc"}
    assert {row.key for row in read_rows(tmp_path / "a" / "b").rows} == {row.key for row in away}


def test_a_name_stays_within_the_folder(rows):
    name = of_row(dataclasses.replace(rows[0], condition=HOSTILE, study="..")).name
    parts = name.split("/")
    assert len(parts) == 5
    assert not {"..", "."} & set(parts)


def test_one_file_per_study(tmp_path, folder, rows):
    more = rows_made_up.rows_of("pace", "hidden = 32", seeds=2)
    to_parquet([*rows, *more], tmp_path / "joined")
    assert [path.name for path in sorted((tmp_path / "joined" / "rows").iterdir())] == [
        "generality--smoke.parquet",
        "pace--smoke.parquet",
    ]
    found = read_rows(tmp_path / "joined").rows
    assert {str(row) for row in found} == {str(row) for row in [*rows, *more]}
    assert [row.key for row in found] == sorted(row.key for row in [*rows, *more])


def test_a_package_that_is_not_there_is_named(tmp_path, rows, monkeypatch):
    for name in ("tensorboardX", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RegrowError, match=r"pip install 'regrow\[tensorboard\]'"):
        to_tensorboard([], tmp_path)
    with pytest.raises(RegrowError, match="this needs wandb: pip install"):
        to_wandb([], tmp_path)


def test_weights_and_biases_offline(tmp_path, rows, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    to_wandb([of_row(row) for row in rows[:2]], tmp_path)
    assert len(list(tmp_path.rglob("run-*.wandb"))) == 2


# From outside.


def quietly(phase: str, env_steps: int) -> None:
    pass


@pytest.fixture
def begun(tmp_path):
    """A study that was written down, and nothing done: (folder, its cells' group)."""
    study, out = make("studies", "primacy_bias"), tmp_path / "out"
    parts = parts_of([study], "smoke")
    write_plan(out, written(study, "smoke", parts))
    return out, shared(parts, out)[0]


def test_cells_are_seen_as_they_are(begun):
    out, group = begun
    fork, nothing = Job(0, None), Job(0, Arm.parse("nothing"))
    watch = Watch(out)
    assert {cell.state for cell in watch.look().jobs} == {"waiting"}
    assert len(watch.look().jobs) == 20
    with (
        held(group.folder, fork, quietly),
        report_progress(progress_file(group.folder, fork), 400, quietly) as tell,
    ):
        tell("seed 0 to the fork", 100)
        (seen,) = [cell for cell in watch.look().jobs if cell.state == "running"]
        assert (seen.job, seen.done, seen.of) == ("seed0-fork", 100, 400)
        assert seen.phase == "seed 0 to the fork"
        assert seen.studies == ("primacy-bias: ordinary training",)
        assert "100 of 400" in shown(watch_table(watch.look()))
    assert {cell.state for cell in watch.look().jobs} == {"waiting"}
    fork.result(group.folder).write_text("{}")
    for suffix in ("ckpt", "npz"):
        (group.folder / "jobs" / f"{nothing.name}.part-000001-abcd.{suffix}").write_text("")
    states = [cell.state for cell in watch.look().jobs if cell.studies[0].endswith("training")]
    assert states[:2] == ["done", "stopped"]
    assert not watch.look().finished
    assert watch.look().done == 400


def test_rates_and_silence_are_told(begun):
    out, group = begun
    now = time.time()
    content = {"phase": "p", "done": 300, "of": 400, "earlier": 100, "began": now - 610}
    fork = Job(0, None)
    write_json(progress_file(group.folder, fork), {**content, "written": now - 600})
    watch = Watch(out)
    assert not [cell for cell in watch.look().jobs if cell.state == "running"]  # it was killed
    with held(group.folder, fork, quietly):
        (seen,) = [cell for cell in watch.look().jobs if cell.state == "running"]
        assert seen.rate == pytest.approx(200 / 10)
        assert seen.left == pytest.approx(5)
        assert "silent for 10:0" in shown(watch_table(watch.look()))
        progress_file(group.folder, fork).write_text("{")
        (seen,) = [cell for cell in watch.look().jobs if cell.state == "running"]
        assert seen.done == 0


def test_rows_are_enough_to_be_done(tmp_path):
    rows = rows_made_up.rows_of(seeds=2)
    out = rows_made_up.write_study(tmp_path / "out", rows)
    plan = plan_file(out, "generality", "smoke")
    held = read_sealed(plan)
    for condition in held["conditions"]:
        condition |= {"arms": json.loads(rows[0].config)["arms"]}
    plan.write_text(json.dumps(held))
    assert Watch(out).look().finished


def test_a_folder_without_studies_is_named(tmp_path):
    with pytest.raises(RegrowError, match="there is no study in"):
        Watch(tmp_path)
    with pytest.raises(RegrowError, match="there is no folder"):
        Watch(tmp_path / "nowhere")


def test_a_cell_is_held_by_one_process(tmp_path):
    cell, said = Job(0, None), []
    assert not is_held(tmp_path, cell)
    with held(tmp_path, cell, lambda phase, steps: said.append(phase)):
        assert is_held(tmp_path, cell)
    assert not said
    assert not is_held(tmp_path, cell)
    other = take(tmp_path / "held" / cell.name)
    threading.Timer(0.3, other.release).start()
    with held(tmp_path, cell, lambda phase, steps: said.append(phase)):
        assert set(said) == {"waiting for another process"}


def test_verdicts_are_shown_whatever_names_there_are():
    rows = rows_made_up.rows_of(condition="[red]odd[/] </b>", gain=3.0)
    lonely = rows_made_up.rows_of(condition="one seed", seeds=1)
    found, _ = cases([*rows, *lonely])
    text = shown(verdicts_table("generality", found))
    for word in (
        "[red]odd[/] </b>",
        "plasticity loss",
        "inject",
        "none: a verdict needs at least 2",
    ):
        assert word in text, word


@pytest.mark.parametrize("column", ["seed", "returns", "seconds", "realised", "written", "probes"])
def test_rows_that_lack_values_are_told_and_left_out(folder, column):
    (path, *_) = sorted((folder / "rows").glob("*.parquet"))
    table = pq.read_table(path)
    index = table.schema.get_field_index(column)
    nothing = pa.nulls(table.num_rows, table.schema.field(column).type)
    pq.write_table(table.set_column(index, column, nothing), path)
    rows, problems = read_rows(folder)
    assert len(rows) == 7
    assert f"{column} lacks values" in problems[0]


def test_a_probe_at_another_time_is_told(tmp_path):
    rows = rows_made_up.rows_of(seeds=2, probes=(Measured("", "srank", "head", "noon", 1.0),))
    found, problems = read_rows(rows_made_up.write(tmp_path, rows[:1], rows_made_up.rows_of("x")))
    assert {row.study for row in found} == {"x"}
    assert "probes at 'noon', which is none of fork, fresh, end" in problems[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_not_called_broken(folder):
    (path, *_) = sorted((folder / "rows").glob("*.parquet"))
    path.chmod(0)
    assert "may not be read" in read_rows(folder).problems[0]


ODD = [("seeds", None), ("seeds", 1e400), ("arms", [1]), ("arms", [["inject"]]), ("fork_at", "x"),
       ("label", [1]), ("level", "x"), ("before", 3), ("axis", None), ("agent", {})]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), ODD)
def test_a_plan_that_is_not_as_it_was_written_is_told(tmp_path, name, value):
    begin([make("studies", "generality")], "smoke", tmp_path)
    rows_made_up.write(tmp_path, rows_made_up.rows_of(seeds=2))
    (path,) = (tmp_path / "plans").glob("*.json")
    plan = read_sealed(path)
    plan["conditions"][0][name] = value
    path.write_text(json.dumps(plan))
    (problem,) = summarise(tmp_path).problems
    assert f"{path.name} is no plan of a study (" in problem
    assert f" - at `$.{name}" in problem
    with pytest.raises(RegrowError, match="there is no study in"):
        Watch(tmp_path)


def test_a_plan_of_parts_that_are_not_there_is_told(tmp_path):
    begin([make("studies", "generality")], "smoke", tmp_path)
    (path,) = (tmp_path / "plans").glob("*.json")
    plan = json.dumps(read_sealed(path))
    path.write_text(plan.replace('"minatar/breakout"', '"minatar/brekout"'))
    _, (problem,) = parts_in(tmp_path)
    assert "cannot be carried out (no environment 'minatar/brekout'" in problem


def test_joined_rows_take_no_others_away(tmp_path, rows):
    joined = tmp_path / "joined"
    to_parquet(rows, joined)
    to_parquet(rows, joined)
    with pytest.raises(RegrowError, match=f"{len(rows) - 1} rows that would be gone, of general"):
        to_parquet(rows[:1], joined)
    assert len(read_rows(joined).rows) == len(rows)
    to_parquet(rows_made_up.rows_of("pace", seeds=2), joined)
    assert {row.study for row in read_rows(joined).rows} == {"generality", "pace"}

"""What earlier versions left: read as it was meant, or refused in a line, and never mixed."""

import dataclasses
import json
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import rows_made_up
from small import DQN
from trees import bit_equal

from regrow.analysis.conditions import cases
from regrow.analysis.summary import summarise
from regrow.cli.entry import run as regrow
from regrow.diagnosis.plan import Plan
from regrow.environments import Breakout
from regrow.files.atomic import read_sealed, write_json
from regrow.files.formats import as_meant
from regrow.interventions import Inject, Redo
from regrow.records.rows import read_rows, table_of, write_table
from regrow.records.study_spec import plan_file, read_plan
from regrow.registry import describe, make
from regrow.report.sections import write_page
from regrow.sources.native import Diagnosis
from regrow.training.checkpoint import load, save
from regrow.training.run import Run
from regrow.training.saved import read_training
from regrow.training.schedule import Rule
from regrow.types import Event

COMMITTED = Path(__file__).parents[1] / "docs" / "results"


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("inject", "inject(optimizer='keep')"),
        ("inject(split=0)", "inject(split=0, optimizer='keep')"),
        ("inject(only='critic')", "inject(only='critic', optimizer='keep')"),
        ("inject(optimizer='reset')", "inject(optimizer='reset')"),
        ("inject(freeze=False, optimizer='reset_all')",) * 2,
        ("inject every 10000", "inject(optimizer='keep') every 10000"),
        ("inject(split=2) at 7", "inject(split=2, optimizer='keep') at 7"),
        ("reset",) * 2,
        ("injection",) * 2,
        ("",) * 2,
    ],
)
def test_an_injection_of_then_kept_the_statistics(then, now):
    assert as_meant(then) == now
    assert as_meant(now) == now


@pytest.mark.parametrize("fields", [{}, {"split": 1}, {"only": "critic"}, {"subtract": False}])
def test_what_is_read_is_what_would_be_written(fields):
    """What it was called then is its description now, without the field."""
    kept = Inject(**fields, optimizer="keep")
    then = describe(Inject(**fields))
    assert as_meant(then) == describe(kept)
    rule = Rule.parse(f"{describe(kept)} at 500")
    assert as_meant(str(rule).replace(describe(kept), then)) == str(rule)


def test_a_checkpoint_of_then_is_read_with_the_history_that_it_had(tmp_path):
    """After `redo` ages are kept by element, so the tree of the statistics tells them apart."""
    saved = Run.start(DQN, Breakout(), seed=0).advance(60)[0].intervene(Redo(tau=0.9))
    saved = saved.intervene(Inject(optimizer="keep"))
    path = tmp_path / "run.ckpt"
    save(saved, path)
    with zipfile.ZipFile(path) as archive:
        contents = {member: archive.read(member) for member in archive.namelist()}
    manifest = json.loads(contents["manifest.json"])
    assert manifest["format"] == 4
    manifest["format"], manifest["history"][-1][1] = 2, "inject"
    contents["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in contents.items():
            archive.writestr(member, content)
    loaded = load(path)
    assert loaded.history[-1] == Event(60, "inject(optimizer='keep')")
    assert bit_equal(loaded.state, saved.state)


AGENT = "double_dqn(hidden=16, learn_start=40, replay_capacity=400)"
TRAIN = ["train", "toy/action_reward", "--env-steps", "40", "--probe-every", "0"]
DIAGNOSE = ["diagnose", "toy/action_reward", "--fork-at", "40", "--horizon", "80", "--seeds", "2"]


@pytest.mark.parametrize("command", [[*TRAIN, "--do", "inject at 20"], DIAGNOSE])
def test_a_folder_of_then_is_refused_in_a_line(tmp_path, command):
    out = tmp_path / "out"
    agent = AGENT
    command = [*command, "--agent", agent, "--out", str(out)]
    if command[0] == "diagnose":
        plan = Diagnosis(make("agents", agent), make("environments", "toy/action_reward"))
        write_json(out / "config.json", {"kind": "diagnosis", **plan.config()})
        told = regrow(command)
    else:
        assert regrow(command) is None
        held = read_sealed(out / "config.json")
        assert held.pop("format") == 2
        write_json(out / "config.json", held)
        assert read_training(out).what.endswith("; inject(optimizer='keep') at 20")
        told = regrow([*command, "--resume"])
    assert told is not None
    assert told.startswith(f"the run in {out} was begun by an earlier version of regrow (format 1")
    assert told.endswith("choose another --out, or go on with the version that made it")
    assert "\n" not in told


def older(folder: Path) -> Path:
    """A folder of studies as it was written in format 1."""
    for path in (folder / "plans").glob("*.json"):
        plan = read_sealed(path)
        assert plan.pop("format") == 2
        write_json(path, plan)
    for path in (folder / "rows").glob("*.parquet"):
        table = pq.read_table(path)
        at = table.schema.get_field_index("format")
        write_table(path, table.set_column(at, "format", [[1] * len(table)]))
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    rows = rows_made_up.rows_of(seeds=2, arms=("nothing", "again", "inject", "inject every 10000"))
    return rows_made_up.write_study(tmp_path / "out", rows)


def test_rows_of_then_say_what_was_done(folder):
    now = {row.key: row for row in read_rows(folder).rows}
    then, problems = read_rows(older(folder))
    assert not problems
    assert {row.key for row in then} == now.keys()  # arms keep their names
    kept = {"inject": "inject(optimizer='keep')"}
    kept["inject every 10000"] = f"{kept['inject']} every 10000"
    for row in then:
        assert row.format == 1
        assert row.intervention == kept.get(row.arm, row.arm)
        injected = [event for event in row.events if "inject" in event.intervention]
        assert all("optimizer='keep'" in event.intervention for event in injected)
        assert len(injected) == {"inject": 1, "inject every 10000": 2}.get(row.arm, 0)
        plan = Plan.from_config(json.loads(row.config))
        assert {arm.does.optimizer for arm in plan.arms if "inject" in arm.name} == {"keep"}
        assert row.returns == now[row.key].returns
    (case,), problems = cases(then)
    assert not problems
    assert case.injection == "inject"
    assert case.verdict is not None
    write_page(folder / "report.html", summarise(folder))
    page = (folder / "report.html").read_text()
    assert ">inject: inject(optimizer='keep')<" in page
    assert ">nothing<" in page
    # As a table they are what would be read again.
    write_table(folder / "rows" / "joined.parquet", table_of(then))
    again, problems = read_rows(folder)
    assert [str(row) for row in again] == [str(row) for row in then]  # a probe has NaN
    assert not problems


def test_a_configuration_that_nobody_wrote_stays_as_it_is(folder):
    rows = [dataclasses.replace(row, config="{}", format=1) for row in read_rows(folder).rows]
    write_table(folder / "rows" / "joined.parquet", table_of(rows))
    assert {row.config for row in read_rows(folder).rows} == {"{}"}


def test_rows_of_then_do_not_count_for_a_study_of_now(folder):
    """The study's `inject` is another one now; the arms that mean the same still count."""
    plan = plan_file(folder, "generality", "smoke")
    held = plan.read_text()
    older(folder)
    plan.write_text(held)
    rows, (problem,) = read_rows(folder)
    assert {row.arm for row in rows} == {"nothing", "again"}
    assert "4 rows" in problem
    assert "are of an earlier definition of their study" in problem


def test_a_study_of_then_is_not_gone_on_with(folder):
    older(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    told = regrow(["study", "generality", "--scale", "smoke", "--out", str(folder)])
    assert told is not None
    assert told.startswith(f"the study generality in {folder} was begun by an earlier version")
    assert "choose another --out" in told
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_a_later_version_left_is_refused(folder, tmp_path):
    path = plan_file(folder, "generality", "smoke")
    write_json(path, {**read_sealed(path), "format": 3})
    _, problems = read_rows(folder)
    assert any("has format 3; this version reads 1 to 2" in problem for problem in problems)
    out = tmp_path / "later"
    write_json(out / "config.json", {"format": 3, "kind": "training"})
    told = regrow([*TRAIN, "--agent", AGENT, "--out", str(out)])
    assert told == (
        f"the run in {out} was begun by another version of regrow (format 3, this is 2); choose "
        "another --out, or go on with the version that made it"
    )


def test_the_committed_results_are_read_as_they_were_made():
    rows, problems = read_rows(COMMITTED)
    assert not problems
    assert {row.format for row in rows} == {1}
    injected = [row for row in rows if row.arm.startswith("inject")]
    assert len(injected) > 50
    assert all("optimizer='keep'" in row.intervention for row in injected)
    done = [event for row in injected for event in row.events if "inject" in event.intervention]
    assert done
    assert all("optimizer='keep'" in event.intervention for event in done)
    found, problems = cases(rows)
    assert not problems
    assert all(case.verdict is not None for case in found)
    for path in (COMMITTED / "plans").glob("*.json"):
        for condition in read_plan(path).conditions.values():
            plan = Plan.from_config(condition.config)
            done = [arm.does for arm in plan.arms if isinstance(arm.does, Inject)]
            assert {one.optimizer for one in done} == {"keep"}
            assert tuple(arm.name for arm in plan.arms) == condition.arm_names

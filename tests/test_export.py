"""What `regrow train` and `regrow diagnose` made, in other programs: every number, and no other."""

import dataclasses
import json
import shutil
import sys
from itertools import product

import pyarrow.parquet as pq
import pytest
from rows_made_up import rows_of
from test_rows_elsewhere import events_in

from regrow.cli import entry as cli
from regrow.diagnosis.plan import Arm
from regrow.diagnosis.recording import STUDY, alone
from regrow.experiments.export import of_row, of_training
from regrow.records.query import query
from regrow.records.rows import read_rows, write_row
from regrow.records.study_spec import write_plan
from regrow.registry import make
from regrow.sources.native import Diagnosis

SMALL = "double_dqn(hidden=16, learn_start=40, replay_capacity=400)"
AGENT = ["toy/action_reward", "--agent", SMALL]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    command = ["train", *AGENT, "--env-steps", "400", "--probe-every", "200", "--out", str(out)]
    assert cli.run(command) is None
    return out


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory):
    out = tmp_path_factory.mktemp("diagnosed") / "run"
    command = ["diagnose", *AGENT, "--fork-at", "200", "--horizon", "200", "--seeds", "2"]
    command += ["--arms", "nothing", "inject", "--processes", "1", "--out", str(out)]
    assert cli.run(command) is None
    return out


def expected_of(trained) -> set[tuple[str, int, float]]:
    """(name, env steps, value) as the files of the run have them."""
    numbers = set()
    for row in pq.read_table(trained / "episodes.parquet").to_pylist():
        numbers |= {(name, row["env_steps"], row[name]) for name in ("return", "length")}
    for row in pq.read_table(trained / "probes.parquet").to_pylist():
        if row["value"] == row["value"]:
            name = ("probes_fresh/" if row["fresh"] else "probes/") + row["probe"].replace(".", "/")
            numbers.add((name, row["env_steps"], row["value"]))
    return numbers


def scalars(path) -> list[tuple[str, int, float]]:
    return [
        (value.tag, event.step, value.simple_value)
        for event in events_in(path)
        for value in event.summary.value
        if value.WhichOneof("value") == "simple_value"
    ]


def test_a_trained_run_in_tensorboard(trained, tmp_path, capsys):
    into = tmp_path / "events"
    command = ["export", str(trained), "--to", "tensorboard", "--into", str(into)]
    assert cli.run(command) is None
    assert capsys.readouterr().out == f"1 run; written to {into}\n"
    (path,) = into.rglob("events.out.tfevents.*")
    assert path.parent.relative_to(into).parts[0] == "toy-action_reward"
    assert path.parent.name == "seed0"
    found, expected = scalars(path), expected_of(trained)
    assert len(found) == len(expected) > 800
    by_place = {(name, step): value for name, step, value in found}
    for name, step, value in expected:
        assert by_place[name, step] == pytest.approx(value, rel=1e-6), name


def test_a_trained_run_as_one_table(trained, capsys):
    assert cli.run(["export", str(trained), "--to", "parquet"]) is None
    table = pq.read_table(trained / "parquet" / "runs.parquet")
    rows = table.to_pylist()
    assert {(row["name"], row["env_steps"], row["value"]) for row in rows} == expected_of(trained)
    (name,) = {row["run"] for row in rows}
    told = json.loads(table.schema.metadata[b"settings"])[name]
    assert told == json.loads((trained / "config.json").read_text())
    # The folder is a run as before: an export within it does not make it something else.
    resumed = ["train", *AGENT, "--env-steps", "400", "--probe-every", "200", "--resume"]
    assert cli.run([*resumed, "--out", str(trained)]) is None


def test_points_come_in_the_order_of_env_steps(trained):
    (run,) = of_training(trained)
    steps = [point.env_steps for point in run.points]
    assert steps == sorted(steps)


def test_a_diagnosis_as_one_table(diagnosed, tmp_path, capsys):
    command = ["export", str(diagnosed), "--to", "parquet", "--into", str(tmp_path)]
    assert cli.run(command) is None
    assert capsys.readouterr().out.startswith("8 rows; written to ")
    rows = read_rows(diagnosed).rows
    assert read_rows(tmp_path).rows == rows
    every = set(product(("nothing", "inject"), (0, 1), (0, 1)))
    assert {(row.arm, row.seed, row.replicate) for row in rows} == every
    (run,) = [of_row(r) for r in rows if (r.arm, r.seed, r.replicate) == ("inject", 1, 1)]
    names = [of_row(row).name for row in rows]
    assert len(set(names)) == 8  # replicates do not overwrite each other
    assert run.name == "diagnosis/-/toy-action_reward/inject/seed1-1"
    assert (run.settings["seed"], run.settings["replicate"]) == (1, 1)
    probed = {point[:2] for point in run.points if "srank/head" in point.name}
    both = {("probes/srank/head", 200), ("probes/srank/head", 400)}
    assert probed == both | {("probes_fresh/srank/head", 200)}


def test_a_diagnosis_that_is_not_done_is_named(diagnosed, tmp_path):
    shutil.copytree(diagnosed, tmp_path / "out")
    next((tmp_path / "out" / "rows").iterdir()).unlink()
    said = cli.run(["export", str(tmp_path / "out"), "--to", "parquet"])
    assert said == f"the diagnosis in {tmp_path / 'out'} is not done; run the same command again"


@pytest.mark.parametrize(("seeds", "replicates"), [(20, 2), (1, 20)])
def test_a_diagnosis_is_done_at_any_of_its_looks(tmp_path, capsys, seeds, replicates):
    """One that is settled early is done; one that was stopped between two looks is not."""
    arms = ("nothing", "inject")
    plan = Diagnosis(
        make("agents", AGENT[2]),
        make("environments", AGENT[0]),
        tuple(map(Arm.parse, arms)),
        seeds=seeds,
        replicates=replicates,
    )
    (tmp_path / "config.json").write_text('{"kind": "diagnosis"}')
    told = {"study": STUDY, "scale": "", "question": "", "claims": [], "figure": "curves"}
    write_plan(tmp_path, {**told, "conditions": [alone(plan).config()]})
    shared = {"study": STUDY, "condition": AGENT[0], "scale": "", "environment": AGENT[0]}
    (one,) = rows_of(seeds=1, arms=("nothing",), **shared)
    one = dataclasses.replace(
        one, agent=plan.source.config()["agent"], config=json.dumps(plan.config())
    )
    done = []
    for unit in range(7):
        runs = [(0, unit)] if seeds == 1 else [(unit, replicate) for replicate in range(2)]
        for arm in arms:
            for seed, replicate in runs:
                own = {"arm": arm, "intervention": arm, "seed": seed, "replicate": replicate}
                write_row(tmp_path, dataclasses.replace(one, **own))
                command = ["export", str(tmp_path), "--to", "parquet"]
                done.append(cli.run([*command, "--into", str(tmp_path / str(len(done)))]) is None)
    looks = [n * len(arms) * len(runs) for n in (4, 6)]
    assert [i + 1 for i, held in enumerate(done) if held] == looks


def test_a_training_is_reported_queried_and_watched_as_a_study(trained, capsys):
    (row,) = read_rows(trained).rows
    assert (row.study, row.horizon, row.env_steps[-1]) == ("training", 400, 400)
    episodes = pq.read_table(trained / "episodes.parquet").to_pylist()
    last = [one["return"] for one in episodes if 380 < one["env_steps"] <= 400]
    assert row.returns[-1] == pytest.approx(sum(last) / len(last))
    assert query(trained, "select seed from rows").to_pylist() == [{"seed": 0}]
    assert cli.run(["report", str(trained)]) is None
    page = (trained / "report.html").read_text("utf-8")
    assert "Training" in page
    assert ">Verdict<" not in page
    assert cli.run(["watch", str(trained), "--once"]) is None
    assert "training" in capsys.readouterr().out


def test_a_diagnosis_is_reported_queried_and_watched_as_a_study(diagnosed, capsys):
    sql = "select arm, count(*) as n, max(replicate) as r from rows group by arm order by arm"
    found = query(diagnosed, sql).to_pylist()
    assert found == [{"arm": "inject", "n": 4, "r": 1}, {"arm": "nothing", "n": 4, "r": 1}]
    claim = json.loads((diagnosed / "verdict.json").read_text())["claim"]
    page = (diagnosed / "report.html").read_text("utf-8")
    assert page.index(">Verdict<") < page.index(f">{claim}<") < page.index("What to do next")
    assert cli.run(["report", str(diagnosed), "--figures"]) is None
    assert cli.run(["watch", str(diagnosed), "--once"]) is None
    out = capsys.readouterr().out
    assert "diagnosis" in out
    assert "100%" in out


def test_a_trained_run_in_weights_and_biases(trained, tmp_path, monkeypatch):
    """Its calls, with a package made up: the real one is tested where it is installed."""
    logged = {}

    class Run:
        def log(self, values, step):
            logged.update({(name, step): value for name, value in values.items()})

        def finish(self):
            logged["finished"] = True

    class Wandb:
        @staticmethod
        def init(**options):
            logged["options"] = options
            return Run()

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    assert cli.run(["export", str(trained), "--to", "wandb", "--into", str(tmp_path)]) is None
    assert logged.pop("finished")
    assert logged.pop("options")["config"]["environment"] == "toy/action_reward"
    assert {(*place, value) for place, value in logged.items()} == expected_of(trained)


def test_a_trained_run_in_the_real_weights_and_biases(trained, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert cli.run(["export", str(trained), "--to", "wandb", "--into", str(tmp_path)]) is None
    assert len(list(tmp_path.rglob("run-*.wandb"))) == 1

"""The command line of studies: what is wrong in one line, and a study from end to end."""

import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest
import rows_made_up

from regrow import registry as families
from regrow.agents import DoubleDQN
from regrow.cli import entry as cli
from regrow.environments import ActionReward
from regrow.records.rows import read_rows
from regrow.studies.base import Figure, Setting, Study

CURVES = "replay_ratio,resets,task,seed,env_steps,return\n1,0,hop,0,10,1.0\n1,0,hop,1,10,3.0\n"


def main(arguments: list[str]) -> int:
    """The command line in this process; a problem is printed as the console script prints it."""
    problem = cli.run(arguments)
    if problem is not None:
        print(f"regrow: {problem}", file=sys.stderr)
    return 0 if problem is None else 2


WRONG = [
    (["study", "pase"], "no study 'pase'; did you mean 'pace'?"),
    (["study", "primacy_bias"], "no study 'primacy_bias'; did you mean 'primacy-bias'?"),
    (["study", "pace", "--scale", "lapto"], "no scale 'lapto'; did you mean 'laptop'?"),
    (["study", "pace", "--processes", "0"], "processes is 0; it must be at least 1"),
    (["study", "pace", "--seeds", "3"], "unrecognized arguments: --seeds 3"),
    (["study", "pace", "--at", "5"], "--at and --without go with --curves"),
    (["study", "pace", "--curves", "c.csv", "--at", "5"], "--curves goes with the study resets"),
    (["study", "resets", "--curves", "c.csv", "--at", "5"], "there is no file c.csv"),
    (["study", "resets", "--curves", "c.csv"], "--curves needs --at, the env step of the table"),
    (["study"], "the following arguments are required: NAME"),
    (
        ["watch", "nowhere"],
        "there is no folder nowhere; give the --out of a regrow study",
    ),
    (
        ["report", "nowhere"],
        "there is no folder nowhere; give the --out of a regrow study",
    ),
    (["export", "nowhere", "--to", "parquet"], "there is no folder nowhere"),
    (["export", ".", "--to", "tensorbord"], "no sink 'tensorbord'; did you mean 'tensorboard'?"),
    (["export", ".", "--to", "parquet"], "nothing to export: there are no rows in ."),
    (["export", "."], "the following arguments are required: --to"),
    (["list", "study"], "no family 'study'; did you mean 'studies'?"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda x: " ".join(x)[:60])
def test_what_is_wrong_is_said_in_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert not out
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_or_is_none_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["study", "pace", "--scale", "smoke", "--out", str(tmp_path / "file")]) == 2
    assert "is a file; --out must be a folder" in capsys.readouterr().err
    assert main(["study", "pace", "--scale", "smoke", "--out", "/proc/regrow"]) == 2
    assert "cannot write /proc/regrow/" in capsys.readouterr().err


def test_studies_are_listed_with_question_and_claims(capsys):
    assert main(["list", "studies"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    (line,) = [line for line in lines if line.startswith("resets ")]
    assert line.endswith("? (claims 2, 3)")


def test_the_table_of_curves_is_printed(tmp_path, capsys):
    (tmp_path / "curves.csv").write_text(CURVES)
    curves = ["study", "resets", "--curves", str(tmp_path / "curves.csv"), "--at", "1_000"]
    assert main(curves) == 0
    printed = capsys.readouterr().out
    for word in ("Return at 1,000 env steps: curves.csv", "without", "2.0", "1.0–3.0"):
        assert word in printed, word
    assert main([*curves, "--without", "1/0/hop/1"]) == 0
    assert "without 1/0/hop/1" in capsys.readouterr().out


@dataclass(frozen=True)
class Tiny(Study):
    """Two arms and two seeds."""

    question: ClassVar[str] = "Does it run?"
    claims: ClassVar[tuple[int, ...]] = (1, 6)
    figure: ClassVar[Figure] = "curves"

    def conditions(self, scale):
        agent = DoubleDQN(hidden=16, learn_start=40, replay_capacity=400)
        setting = Setting(agent, ActionReward(), ("nothing", "inject"), (), 2, 200, 200)
        return (setting.condition("plain"),)


@pytest.mark.always
def test_a_study_from_end_to_end(tmp_path, capsys, monkeypatch):
    known = families.members
    monkeypatch.setattr(
        families, "members", lambda f: {"tiny": Tiny} if f == "studies" else known(f)
    )
    out = str(tmp_path / "out")
    study = ["study", "tiny", "--scale", "smoke", "--out", out, "--processes", "1"]
    assert main(study) == 0
    printed = capsys.readouterr().out
    for word in ("tiny (smoke)", "plain", "inject", "claim 6", "4 rows", "written to"):
        assert word in printed, word
    assert len(read_rows(tmp_path / "out").rows) == 4
    assert main(study) == 0  # there is nothing left to do
    assert "4 rows" in capsys.readouterr().out
    assert main(["watch", out]) == 0
    assert "1,200 of 1,200 env steps" in capsys.readouterr().out
    (tmp_path / "out" / "rows" / "broken.parquet").write_bytes(b"junk")
    assert main(["export", out, "--to", "parquet", "--into", str(tmp_path / "joined")]) == 0
    shown = capsys.readouterr()
    assert "4 rows; written to" in shown.out
    assert "broken.parquet is no file of rows" in shown.err
    assert (tmp_path / "joined" / "plans" / "tiny--smoke.json").is_file()
    assert len(read_rows(tmp_path / "joined").rows) == 4


def test_rows_are_exported_into_the_folder(tmp_path, capsys):
    out = rows_made_up.write(tmp_path / "out", rows_made_up.rows_of(seeds=1))
    assert main(["export", str(out), "--to", "tensorboard"]) == 0
    assert "4 rows; written to" in capsys.readouterr().out
    assert len(list((out / "tensorboard").rglob("events.out.tfevents.*"))) == 4

"""Command lines and configurations drawn at random: whatever is wrong ends in one line.

A case is drawn from its number alone, so that `told(case(number))` in the folder `made` repeats it.
No case trains: what would begin to stops at once.
"""

import collections
import os
import shutil
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

import pytest
from fuzzed import Case, case

from regrow.agents import DoubleDQN
from regrow.cli import entry
from regrow.environments import ActionReward
from regrow.errors import RegrowError
from regrow.files.atomic import sealed
from regrow.registry import make
from regrow.training.run import Run, abstract_state
from regrow.training.schedule import check_rules
from regrow.training.train import train
from regrow.types import silent

AGENT = DoubleDQN(hidden=16, learn_start=40, replay_capacity=400)
STOPPED = "it would have begun"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with all that `PLACES` and `ZIPS` name."""
    folder = tmp_path_factory.mktemp("stage")
    train(AGENT, ActionReward(), folder / "run", env_steps=200, probe_every=200, report=silent)
    for name in ("empty", "others", "folder.zip"):
        (folder / name).mkdir()
    for name in ("file.txt", "others/thesis.tex", "bad.zip"):
        (folder / name).write_text("years of work")
    (folder / "script.py").write_text("def make(seed): return 1\ndef raises(seed): return 1 / 0\n")
    (folder / "broken.py").write_text("1 / 0\n")
    (folder / "empty.py").write_text("")
    shutil.make_archive(str(folder / "plain"), "zip", folder / "others")
    return folder


@pytest.fixture
def stage(made, monkeypatch) -> None:
    """To work in that folder; whatever would train or take long stops at once."""

    def stop(*_, **__):
        raise RegrowError(STOPPED)

    def diagnosed(plan, folder, execute, **_):
        for arm in plan.arms:
            plan.source.check((*plan.before, arm.does))
        sealed(plan.config())
        stop()

    def trained(agent, environment, folder, *, rules, **_):
        check_rules(rules, agent.env_steps_per_round)
        abstract_state(agent, environment, [rule.intervention for rule in rules])
        stop()

    def checked(environment, **_):
        make("environments", environment)
        stop()

    monkeypatch.chdir(made)
    monkeypatch.syspath_prepend(str(made))
    monkeypatch.setattr("regrow.cli.diagnose.diagnosed", diagnosed)
    monkeypatch.setattr("regrow.cli.demo.diagnosed", diagnosed)
    monkeypatch.setattr("regrow.training.train.train", trained)
    monkeypatch.setattr("regrow.experiments.carry_out.begin", stop)
    monkeypatch.setattr("regrow.training.evaluate.evaluate", stop)
    monkeypatch.setattr("regrow.training.environment_checks.check_environment", checked)
    monkeypatch.setattr(Run, "measure", stop)


def put(one: Case) -> list[str]:
    """The command line of a case, whose files are put in place."""
    shutil.rmtree("altered", ignore_errors=True)
    for name, content in one.files.items():
        path = Path("altered", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return one.arguments


def told(one: Case) -> str:
    """What a case says: "" if nothing was wrong. Fails if that is not one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            said = entry.run(put(one))
        except SystemExit as ended:
            if ended.code == 0:  # --help
                return ""
            raise
    assert said is None or (said.strip() and len(said.splitlines()) == 1)
    assert "Traceback" not in (said or "")
    return said or ""


def all_told(numbers: range) -> collections.Counter[str]:
    """How the cases ended; fails with all that ended otherwise than they may."""
    ends, wrong = collections.Counter[str](), []
    for number in numbers:
        one = case(number)
        try:
            said = told(one)
            ends["stopped" if said == STOPPED else "one line" if said else "nothing wrong"] += 1
        except (Exception, SystemExit) as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {str(error)[:200]} ({where.filename}:{where.lineno})"
            files = one.files.get("config.json", b"")[:200]
            wrong.append(f"{number}: {str(one.arguments)[:400]} {files}: {what}")
    assert not wrong, "\n".join([f"{len(wrong)} cases, of these numbers:", *wrong[:40]])
    return ends


@pytest.mark.always
def test_command_lines_drawn_at_random_end_in_one_line(stage, capsys):
    ends = all_told(range(300))
    assert ends["one line"] > 150


@pytest.mark.slow
def test_five_thousand_of_them(stage, capsys):
    ends = all_told(range(300, 5_300))
    with capsys.disabled():
        print(f"\n{ends.total()} command lines: {dict(ends)}")


@pytest.mark.slow
def test_forty_in_processes_of_their_own(made, monkeypatch, capsys):
    """Those that need no stop: what only reads, and what is wrong before it begins."""
    monkeypatch.chdir(made)
    reads, codes = ("list", "watch", "curves", "report", "export"), collections.Counter[int]()
    found = (
        one
        for one in map(case, range(10_000, 20_000))
        if "--no-such-option" in one.arguments or one.arguments[0] in reads
    )
    for one in (next(found) for _ in range(40)):
        words = [sys.executable, "-m", "regrow", *map(os.fsencode, put(one))]
        done = subprocess.run(words, capture_output=True, timeout=300)
        said = done.stderr.decode(errors="replace").splitlines()
        assert done.returncode in (0, 2), f"{one.arguments}: {said}"
        codes[done.returncode] += 1
        if done.returncode == 2:
            assert len(said) == 1, f"{one.arguments}: {said}"
            assert said[0].startswith("regrow: ")
    with capsys.disabled():
        print(f"\n40 processes: exit codes {dict(codes)}")

"""What is read runs no code, what is written stays in its folder."""

import importlib
import json
import os
import pickle
import stat
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import rows_made_up
import small
from found import jobs_of
from refusals import refused_in_a_line

from regrow.agents import DoubleDQN
from regrow.cli import entry as cli
from regrow.diagnosis.diagnose import carry_out
from regrow.diagnosis.plan import Arm
from regrow.environments import ActionReward
from regrow.errors import RegrowError, UntrustedError
from regrow.experiments.watch import Watch
from regrow.files import signatures
from regrow.files.atomic import DamagedError, read_sealed, write_json
from regrow.files.signatures import KEY, key, read_signed, signed
from regrow.interventions import Inject, Nothing
from regrow.records.study_spec import plan_file
from regrow.training.checkpoint import load, save
from regrow.training.run import Run

AGENT = DoubleDQN(hidden=16, learn_start=40, replay_capacity=400)


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that leaves a file when it is imported, and the name of an environment in it."""
    sprung = tmp_path / "sprung"
    (tmp_path / "trapped.py").write_text(f"import pathlib; pathlib.Path({str(sprung)!r}).touch()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "trapped", raising=False)
    yield sprung
    sys.modules.pop("trapped", None)


def renamed(path: Path, environment: str) -> None:
    """Makes a checkpoint name another environment."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(held["manifest.json"]) | {"environment": environment}
    held["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in held.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("name", ["jax/trapped:env", "gymnasium/trapped:Mine-v0", "trapped:Mine"])
def test_a_checkpoint_imports_nothing(tmp_path, trap, name):
    out = tmp_path / "run"
    agent = ["--agent", "double_dqn(hidden=16, learn_start=40, replay_capacity=400)"]
    short = ["--env-steps", "40", "--probe-every", "0", "--out", str(out)]
    assert cli.run(["train", "toy/action_reward", *agent, *short]) is None
    renamed(out / "run.ckpt", name)
    for command in (["evaluate"], ["probe", "--costly"], ["diagnose"]):
        told = cli.run([*command, str(out)])
        assert "names the module 'trapped', which is code: reading it runs that code" in told
        assert "add --trust" in told
        assert not trap.exists()
    assert cli.run(["evaluate", str(out), "--trust"]) is not None  # the module has no such thing
    assert trap.exists()


def test_what_was_imported_may_be_named(tmp_path, trap):
    save(Run.start(AGENT, ActionReward(), seed=0), tmp_path / "run.ckpt")
    renamed(tmp_path / "run.ckpt", "jax/trapped:env")
    with pytest.raises(UntrustedError):
        load(tmp_path / "run.ckpt")
    importlib.import_module("trapped")

    with refused_in_a_line("trapped"):
        load(tmp_path / "run.ckpt")


def test_plans_and_rows_import_nothing(tmp_path, trap):
    """A page and the watching of a folder that somebody else made."""
    rows = rows_made_up.rows_of(seeds=2)
    config = json.loads(rows[0].config)
    config["arms"] += [["trap", "trapped:Mine", 0, ""]]
    odd = [replace(row, config=json.dumps(config)) for row in rows]
    out = rows_made_up.write_study(tmp_path / "out", odd)
    path = plan_file(out, "generality", "smoke")
    plan = read_sealed(path)
    for condition in plan["conditions"]:
        condition["environment"] = "jax/trapped:env"
    write_json(path, plan)
    assert cli.run(["report", str(out)]) is None or not trap.exists()
    with refused_in_a_line("there is no study in"):
        Watch(out)
    assert not trap.exists()


class Evil:
    """An object that leaves a file when it is unpickled."""

    def __init__(self, sprung: Path):
        self.sprung = sprung

    def __reduce__(self):
        return open, (str(self.sprung), "w")


def test_a_snapshot_that_was_not_signed_here_is_not_read(tmp_path, monkeypatch):
    from regrow.torch.loop import LoopSubject

    sprung, path = tmp_path / "sprung", tmp_path / "snapshot"
    evil = pickle.dumps(Evil(sprung))
    monkeypatch.setenv(KEY, "00" * 32)
    foreign = signed(evil, "fork")
    monkeypatch.setenv(KEY, "11" * 32)
    altered = bytearray(signed(b"innocent" * 9, "fork"))
    altered[-1] ^= 1
    for content in (evil, foreign, bytes(altered), signed(b"", "fork")[:40], b""):
        path.write_bytes(content)
        with pytest.raises(DamagedError) as told:
            LoopSubject.read(read_signed(path, "fork"))
        assert str(path) in str(told.value)
        assert not sprung.exists()
    path.write_bytes(signed(b"innocent", "fork"))
    assert read_signed(path, "fork") == b"innocent"
    with pytest.raises(DamagedError, match="it is the checkpoint of fork, not of another"):
        read_signed(path, "another")
    monkeypatch.setenv(KEY, "no digits")
    with pytest.raises(RegrowError, match="REGROW_KEY must be hexadecimal digits"):
        read_signed(path, "fork")


def test_the_key_is_made_once_and_only_its_user_may_read_it(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    signatures._kept.cache_clear()
    try:
        made = key()
        assert len(bytes.fromhex(made)) == 32
        signatures._kept.cache_clear()
        assert key() == made
        if os.name == "posix":
            mode = (tmp_path / "regrow" / "key").stat().st_mode
            assert stat.S_IMODE(mode) == 0o600
    finally:
        signatures._kept.cache_clear()


@pytest.mark.parametrize(
    "name", ["../../escape", "/etc/escape", "a/../../b", "..", "nul\x00l", "x" * 400]
)
def test_names_stay_in_their_folder(tmp_path, name):
    """An arm may be called anything."""
    arms = (Arm("nothing", Nothing()), Arm(name, Inject()))
    plan = replace(small.diagnosis_of(AGENT, ActionReward(), 80, 80), arms=arms)
    out = tmp_path / "a" / "b" / "out"
    carry_out(plan, out)
    assert len(list(jobs_of(out).glob("*.json"))) == 6
    assert {path.name for path in tmp_path.iterdir()} == {"a"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"b"}
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {"out"}


def test_arms_with_names_alike_do_not_share_a_file():
    arms = [Arm("a b", Inject()), Arm("a-b", Inject(split=0)), Arm("inject(split=0)", Inject())]
    names = [arm.file_name for arm in arms]
    assert len(set(names)) == len(names)

"""A full disk, a place that is gone, too little memory: one line, with what was kept."""

import errno
import os

import pytest
import small
from refusals import refused_in_a_line
from test_kills import compared

from regrow.agents import DoubleDQN
from regrow.cli import entry as cli
from regrow.diagnosis.diagnose import carry_out
from regrow.environments import ActionReward
from regrow.errors import RegrowError, RegrowWarning
from regrow.execution import memory
from regrow.execution.memory import fitting, in_words, told_if_short, total_memory
from regrow.execution.tasks import Resources, Task
from regrow.files import atomic
from regrow.sources.native import Native

AGENT = DoubleDQN(hidden=16, learn_start=40, replay_capacity=400)
PLAN = small.diagnosis_of(AGENT, ActionReward(), 200, 200)
FULL = (errno.ENOSPC, "earlier files are kept: free some space, then run the same command again")
GONE = (errno.EIO, "earlier files are kept: when the place is back, run the same command again")


@pytest.mark.parametrize(("number", "said"), [FULL, GONE], ids=["full", "gone"])
@pytest.mark.parametrize("after", [2, 5, 9, 14])
def test_a_place_that_fails_on_the_way(tmp_path, monkeypatch, number, said, after):
    """It is told with what was kept, nothing half written stays, and the same call goes on."""
    whole = tmp_path / "whole"
    carry_out(PLAN, whole)
    out, writes, write = tmp_path / "out", [], os.fsync

    def failing(file):
        writes.append(file)
        if len(writes) > after:
            raise OSError(number, os.strerror(number))
        write(file)

    monkeypatch.setattr(atomic.os, "fsync", failing)
    with refused_in_a_line(said):
        carry_out(PLAN, out)
    monkeypatch.setattr(atomic.os, "fsync", write)
    assert not list(out.rglob("*.tmp"))
    carry_out(PLAN, out)
    assert compared(out) == compared(whole)


def test_the_folder_is_deleted_on_the_way(tmp_path):
    calls = []

    def report(phase, steps):
        calls.append(phase)
        if len(calls) == 6:
            (tmp_path / "out").rename(tmp_path / "elsewhere")
            (tmp_path / "out").write_text("no folder")

    with pytest.raises(RegrowError, match=r"cannot (write|read)") as told:
        carry_out(PLAN, tmp_path / "out", report=report)
    assert "\n" not in str(told.value)
    (tmp_path / "out").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "out")
    carry_out(PLAN, tmp_path / "out")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: 9 GB")])
def test_too_little_memory_is_told_by_the_job_that_ran_out(tmp_path, monkeypatch, error):
    def run_job(plan, job, folder, report, **options):
        raise error

    monkeypatch.setattr("regrow.diagnosis.recording.run_job", run_job)
    with refused_in_a_line("seed0-fork ran out of memory"):
        carry_out(PLAN, tmp_path)
    with pytest.raises(ZeroDivisionError), told_if_short("it"):
        _ = 1 / 0


def test_as_many_processes_start_as_fit(monkeypatch):
    def needing(gigabytes: float) -> list[Task]:
        return [Task("a", (), print, resources=Resources(memory=int(gigabytes * 1e9)))]

    monkeypatch.setattr(memory, "free_memory", lambda: 4_000_000_000)
    monkeypatch.setattr(memory, "total_memory", lambda: 8_000_000_000)
    assert fitting(8, [Task("a", (), print)]) == 8
    assert fitting(2, needing(2)) == 2
    with pytest.warns(RegrowWarning, match="2 processes in place of 8: a job needs about 1.5 GB"):
        assert fitting(8, needing(1.5)) == 2
    with pytest.warns(RegrowWarning, match="1 processes in place of 8"):
        assert fitting(8, needing(6)) == 1
    with refused_in_a_line("a job needs about 9 GB of memory, and this machine has 8 GB"):
        fitting(1, needing(9))


def test_the_estimate_is_above_what_the_state_takes():
    import jax

    from regrow.training.run import Run

    run = Run.start(AGENT, ActionReward(), seed=0)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(run.state) if hasattr(leaf, "nbytes"))
    assert held < Native(AGENT, ActionReward()).memory() < total_memory()
    assert in_words(7_350_000_000) == "7.35 GB"
    assert in_words(12) == "12 bytes"


def test_doctor_says_what_is_wrong(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    told = cli.run(["doctor", "--out", str(tmp_path / "file" / "x")])
    assert told == "something is wrong with writes; see above"
    said = capsys.readouterr().out
    assert "✗ writes" in said
    for word in ("JAX computes on", "minatar/breakout", "output unchanged", "as if never stopped"):
        assert word in said


def test_doctor_leaves_nothing_behind(tmp_path):
    assert cli.run(["doctor", "--out", str(tmp_path)]) is None
    assert list(tmp_path.iterdir()) == []

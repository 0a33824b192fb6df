"""One process at a time, also on NFS, where there are no locks, and after a kill."""

import errno
import fcntl
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest
from refusals import refused_in_a_line

from regrow.agents import DoubleDQN
from regrow.cli import entry as cli
from regrow.diagnosis.jobs import Job
from regrow.diagnosis.recording import held, is_held, progress_file
from regrow.environments import ActionReward
from regrow.errors import RegrowWarning
from regrow.experiments.carry_out import begin
from regrow.files import locks
from regrow.files.atomic import write_json
from regrow.files.folders import claimed
from regrow.files.locks import LOCK, alone, is_taken, take, waited_for
from regrow.training.evaluate import Episode
from regrow.training.evaluations import read_evaluations, write_evaluation
from regrow.training.run import Run

SMALL = "double_dqn(hidden=16, learn_start=40, replay_capacity=400)"
TRAIN = ["train", "toy/action_reward", "--agent", SMALL, "--probe-every", "0"]
DIAGNOSE = ["diagnose", "toy/action_reward", "--agent", SMALL, "--processes", "1"]
BUSY = "another process is at work in "

# Takes the lock of a folder and says so, then waits.
HOLDER = """
import sys, time
from pathlib import Path
from regrow.files.locks import alone
with alone(Path(sys.argv[1])):
    print("taken", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder():
    """A function that has another process take a folder's lock."""
    started = []

    def begun(folder) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLDER, str(folder)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "taken\n"
        return started[-1]

    yield begun
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def nfs(monkeypatch):
    """Locks as Linux' NFS client has them: of POSIX, on the whole file."""
    monkeypatch.setattr(fcntl, "flock", fcntl.lockf)


@pytest.fixture
def lockless(monkeypatch):
    """A file system without locks."""

    def refused(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path, holder):
    process = holder(tmp_path)
    assert is_taken(tmp_path / LOCK)
    with refused_in_a_line(BUSY), alone(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / LOCK).is_file()
    assert is_taken(tmp_path / LOCK) is False
    with alone(tmp_path):
        assert is_taken(tmp_path / LOCK)


@pytest.mark.parametrize("command", [TRAIN, DIAGNOSE], ids=lambda command: command[0])
def test_a_second_process_in_a_folder_is_refused(tmp_path, holder, command):
    holder(tmp_path)
    out = ["--out", str(tmp_path)]
    assert cli.run([*command, *out]) == f"{BUSY}{tmp_path}; wait for it, or choose another --out"
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]  # nothing was begun


def test_of_two_that_claim_a_folder_at_once_one_has_it(tmp_path, holder):
    """Neither writes its configuration over the other's."""
    holder(tmp_path)
    with refused_in_a_line(BUSY), claimed(tmp_path, {"kind": "training", "seed": 1}):
        pass
    assert not (tmp_path / "config.json").exists()


def test_a_folder_with_something_else_is_not_even_locked(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with refused_in_a_line("is not empty and holds no run"), claimed(tmp_path, {}):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_training_on_nfs(tmp_path, nfs):
    out = tmp_path / "run"
    assert cli.run([*TRAIN, "--env-steps", "400", "--out", str(out)]) is None
    assert (out / "run.ckpt").is_file()


def test_on_nfs_reading_the_configuration_does_not_end_the_lock(tmp_path, nfs, monkeypatch):
    """A lock of POSIX ends when its process closes any descriptor of the file."""
    with claimed(tmp_path, {"kind": "training"}):
        for path in tmp_path.iterdir():
            if path.name != LOCK:
                path.read_bytes()
        probe = (
            "import fcntl, sys; file = open(sys.argv[1], 'r+'); "
            "fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)"
        )
        done = subprocess.run(
            [sys.executable, "-c", probe, str(tmp_path / LOCK)], capture_output=True, text=True
        )
        assert "BlockingIOError" in done.stderr


def test_without_locks_the_work_goes_on_and_it_is_said_in_a_line(tmp_path, lockless, capsys):
    out = tmp_path / "run"
    assert cli.run([*TRAIN, "--env-steps", "400", "--out", str(out)]) is None
    err = capsys.readouterr().err
    assert err == (
        f"regrow: the file system of {out} has no locks; see to it that no other process works "
        "there\n"
    )
    assert cli.run([*TRAIN, "--env-steps", "800", "--resume", "--out", str(out)]) is None


def test_without_locks_a_study_says_so_once(tmp_path, lockless):
    with pytest.warns(RegrowWarning, match="has no locks") as said:
        begin([], "smoke", tmp_path / "out")
    assert len(said) == 1


@pytest.mark.parametrize("number", sorted(locks._UNSUPPORTED))
def test_whatever_a_file_system_says_where_it_has_none(tmp_path, monkeypatch, number):
    def refused(file, operation):
        raise OSError(number, "none")

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.warns(RegrowWarning, match="has no locks"), alone(tmp_path):
        pass
    assert is_taken(tmp_path / LOCK) is None


def test_what_else_goes_wrong_is_named(tmp_path, monkeypatch):
    def refused(file, operation):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refused)
    with refused_in_a_line(f"cannot write {tmp_path}: Input/output error"), alone(tmp_path):
        pass


def test_the_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), alone(tmp_path):
        _ = 1 / 0
    assert is_taken(tmp_path / LOCK) is False


def test_one_that_waits_is_let_in(tmp_path):
    hold = take(tmp_path / "lock")
    threading.Timer(0.3, hold.release).start()
    waited = []
    with waited_for(tmp_path / "lock", lambda: waited.append(1)):
        assert waited


def test_looking_makes_no_file(tmp_path):
    assert not is_held(tmp_path, Job(0, None))
    assert not list(tmp_path.iterdir())


def test_where_nobody_can_ask_what_a_job_said_last_counts(tmp_path, lockless):
    job = Job(0, None)
    with held(tmp_path, job, lambda phase, steps: None):
        assert not is_held(tmp_path, job)
        now = time.time()
        content = {"phase": "p", "done": 1, "of": 2, "earlier": 0, "began": now - 1}
        write_json(progress_file(tmp_path, job), {**content, "written": now})
        assert is_held(tmp_path, job)
        write_json(progress_file(tmp_path, job), {**content, "written": now - 100})
        assert not is_held(tmp_path, job)


def test_two_evaluations_at_once_keep_both(tmp_path):
    run = Run.start(DoubleDQN(hidden=8, replay_capacity=10), ActionReward(), seed=0)
    adding = [
        threading.Thread(target=write_evaluation, args=(tmp_path, run, seed, [Episode(1.0, 9)]))
        for seed in range(4)
    ]
    for one in adding:
        one.start()
    for one in adding:
        one.join()
    assert sorted(row["seed"] for row in read_evaluations(tmp_path)) == [0, 1, 2, 3]


def test_locks_warn_of_nothing_where_they_work(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with alone(tmp_path):
            pass

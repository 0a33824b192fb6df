"""One worker at a time: after a kill, on other machines, with clocks that differ, after a pause."""

import json
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
from regrow.files import leases
from regrow.files.atomic import create_atomically, write_json
from regrow.files.folders import claimed
from regrow.files.leases import LOCK, LostLeaseError, alone, holder_of, take, waited_for
from regrow.training.evaluate import Episode
from regrow.training.evaluations import read_evaluations, write_evaluation
from regrow.training.run import Run

SMALL = "double_dqn(hidden=16, learn_start=40, replay_capacity=400)"
TRAIN = ["train", "toy/action_reward", "--agent", SMALL, "--probe-every", "0"]
DIAGNOSE = ["diagnose", "toy/action_reward", "--agent", SMALL, "--processes", "1"]
BUSY = "another process is at work in "

# A worker on the machine that is named, whose clock is off by an hour. It says so when it has the
# lease, then works in steps, each of which it writes down unless it has lost the lease.
WORKER = """
import sys, time
from pathlib import Path
from regrow.files import leases
path, machine, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
leases.BEAT, leases.EXPIRES, leases.LOOK_EVERY = 0.1, 1.0, 0.02
if machine != "here":
    leases._machine = lambda: machine
right = time.time
time.time = lambda: right() + 3600 * (len(machine) - 3)
with leases.waited_for(path) as lease:
    print("taken", flush=True)
    for step in range(steps):
        time.sleep(0.05)
        lease.check()
        with path.with_name(".lock.log").open("a") as file:
            file.write(f"{lease._number} {machine}\\n")
print("done", flush=True)
"""


@pytest.fixture
def worker():
    """A function that starts a worker of a folder, and the workers that it started."""
    started = []

    def begun(folder, machine="here", steps=1_000, *, wait=True, name="work") -> subprocess.Popen:
        command = [sys.executable, "-c", WORKER, str(folder / name), machine, str(steps)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True))
        if wait:
            assert started[-1].stdout.readline() == "taken\n"
        return started[-1]

    yield begun
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def hasty(monkeypatch):
    """Leases that expire after a second."""
    monkeypatch.setattr(leases, "BEAT", 0.1)
    monkeypatch.setattr(leases, "EXPIRES", 1.0)
    monkeypatch.setattr(leases, "LOOK_EVERY", 0.02)


def test_a_lease_ends_with_its_process_however_that_ends(tmp_path, worker):
    process = worker(tmp_path)
    assert holder_of(tmp_path / "work").process == process.pid
    assert take(tmp_path / "work") is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert holder_of(tmp_path / "work") is None
    lease = take(tmp_path / "work")
    assert lease is not None  # at once: it was a process of this machine
    lease.release()


def test_one_on_another_machine_is_waited_for_until_it_is_silent(tmp_path, worker, hasty):
    process = worker(tmp_path, "elsewhere")
    wanted, end = leases.Wanted(tmp_path / "work"), time.monotonic() + 2.0
    while time.monotonic() < end:
        assert wanted.take() is None  # it is alive
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    began = time.monotonic()
    with waited_for(tmp_path / "work"):
        assert 0.8 < time.monotonic() - began < 10.0


def test_a_worker_that_was_suspended_stops_when_another_has_gone_on(tmp_path, worker):
    """It is woken after the other has begun, and after the other has finished."""
    for number, steps in enumerate((400, 3)):
        folder = tmp_path / str(number)
        folder.mkdir()
        first = worker(folder, "elsewhere")
        time.sleep(0.3)
        first.send_signal(signal.SIGSTOP)
        second = worker(folder, "nowhere", steps)
        if steps == 3:
            assert second.stdout.readline() == "done\n"
        before = (folder / ".lock.log").read_text().splitlines()
        first.send_signal(signal.SIGCONT)
        _, error = first.communicate(timeout=20)
        assert "LostLeaseError: another worker may have taken over work" in error
        after = (folder / ".lock.log").read_text().splitlines()[len(before) :]
        # It was within a step, and writes at most that one.
        assert sum(line.startswith("1 ") for line in after) <= 1
        second.kill()


def test_of_many_workers_one_works_at_a_time(tmp_path, worker):
    """On two machines, with clocks two hours apart; some are killed while they work."""
    machines = ("here", "here", "east", "western")
    workers = [worker(tmp_path, machine, 12, wait=False) for machine in machines * 2]
    time.sleep(4.0)
    for process in workers[::3]:
        process.kill()
    for process in workers:
        process.wait(timeout=60)
    numbers = [int(line.split()[0]) for line in (tmp_path / ".lock.log").read_text().splitlines()]
    assert numbers == sorted(numbers)  # nobody writes after a later one has begun
    finished = sum("done" in process.stdout.read() for process in workers)
    assert finished >= 5
    assert numbers.count(numbers[-1]) == 12


def test_one_that_cannot_say_that_it_is_alive_stops_by_itself(tmp_path, hasty, monkeypatch):
    lease = take(tmp_path / "work")
    lease.check()

    monkeypatch.setattr(leases, "write_atomically", lambda path, write: _out_of_reach())
    time.sleep(1.2)
    with refused_in_a_line("could not write to"):
        lease.check()
    lease.release()


def _out_of_reach():
    raise leases.RegrowError("cannot write: Input/output error")


def test_what_is_created_is_created_once(tmp_path):
    made = []

    def create(number):
        made.append(create_atomically(tmp_path / "once", str(number).encode() * 1_000))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert made.count(True) == 1
    assert len(set((tmp_path / "once").read_text())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["once"]


def test_without_links_it_is_created_once_too(tmp_path, monkeypatch):
    def refused(source, target):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", refused)
    assert create_atomically(tmp_path / "once", b"1")
    assert not create_atomically(tmp_path / "once", b"2")
    assert (tmp_path / "once").read_bytes() == b"1"


def test_a_lease_that_cannot_be_read_expires(tmp_path, hasty):
    (tmp_path / "work.lease-7").write_text('{"token": "ab')
    with waited_for(tmp_path / "work") as lease:
        assert lease._number == 8
    assert [path.name for path in tmp_path.iterdir()] == ["work.lease-8"]


@pytest.mark.parametrize("command", [TRAIN, DIAGNOSE], ids=lambda command: command[0])
def test_a_second_process_in_a_folder_is_refused(tmp_path, worker, command):
    process = worker(tmp_path, name=LOCK)
    out = ["--out", str(tmp_path)]
    assert cli.run([*command, *out]) == (
        f"{BUSY}{tmp_path} (process {process.pid}); wait for it, or choose another --out"
    )
    assert not (tmp_path / "config.json").exists()  # nothing was begun


def test_a_folder_of_one_on_another_machine(tmp_path, hasty):
    """It is looked whether that one is alive: it is refused, or taken when it is silent."""
    mine = take(tmp_path / LOCK)
    file = tmp_path / f"{LOCK}.lease-1"
    foreign = {**json.loads(file.read_text()), "machine": "elsewhere", "host": "node7"}
    leases._beating.remove(mine)
    write_json(file, foreign)
    beat = threading.Timer(0.3, lambda: write_json(file, {**foreign, "beats": 1}))
    beat.start()
    with (
        pytest.warns(RegrowWarning, match="on node7; looking whether it is alive"),
        refused_in_a_line(" on node7)"),
        alone(tmp_path),
    ):
        pass
    with alone(tmp_path):
        assert holder_of(tmp_path / LOCK).is_here


def test_of_two_that_claim_a_folder_at_once_one_has_it(tmp_path):
    """Neither writes its configuration over the other's."""
    mine = take(tmp_path / LOCK)
    with refused_in_a_line(BUSY), claimed(tmp_path, {"kind": "training", "seed": 1}):
        pass
    assert not (tmp_path / "config.json").exists()
    mine.release()


def test_a_folder_with_something_else_is_not_even_looked_at(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with refused_in_a_line("is not empty and holds no run"), claimed(tmp_path, {}):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_lease_is_given_back_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), alone(tmp_path):
        _ = 1 / 0
    assert holder_of(tmp_path / LOCK) is None


def test_one_that_waits_is_let_in(tmp_path):
    lease = take(tmp_path / "lock")
    threading.Timer(0.3, lease.release).start()
    waited = []
    with waited_for(tmp_path / "lock", lambda: waited.append(1)):
        assert waited


def test_looking_makes_no_file(tmp_path):
    assert not is_held(tmp_path, Job(0, None))
    assert not list(tmp_path.iterdir())


def test_of_another_machine_what_a_job_said_last_counts(tmp_path, monkeypatch):
    job = Job(0, None)
    with held(tmp_path, job, lambda phase, steps: None):
        assert is_held(tmp_path, job)
        monkeypatch.setattr(leases, "_machine", lambda: "elsewhere")
        now = time.time()
        content = {"phase": "p", "done": 1, "of": 2, "earlier": 0, "began": now - 1}
        write_json(progress_file(tmp_path, job), {**content, "written": now})
        assert is_held(tmp_path, job)
        write_json(progress_file(tmp_path, job), {**content, "written": now - 1_000})
        assert not is_held(tmp_path, job)


def test_a_job_ends_where_its_lease_is_lost(tmp_path, monkeypatch):
    """What it says of its progress is where it hears of it."""
    lease = take(tmp_path / "held" / "x")
    lease._lost = True
    with pytest.raises(LostLeaseError):
        lease.check()
    lease.release()


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


def test_leases_warn_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with alone(tmp_path):
            pass

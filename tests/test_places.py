"""Work in an object store: an S3 server on this machine (moto's)."""

import threading
from pathlib import Path

import pytest
import small
from found import StopHereError, jobs_of, stopping_at
from refusals import refused_in_a_line

from regrow.agents import DoubleDQN
from regrow.cli import entry as cli
from regrow.diagnosis.diagnose import carry_out
from regrow.diagnosis.jobs import Job, run_job
from regrow.environments import ActionReward
from regrow.errors import RegrowError
from regrow.execution.processes import Processes
from regrow.experiments.watch import Watch
from regrow.files import leases
from regrow.files.atomic import create_atomically, read_json, write_atomically, write_json
from regrow.files.places import contents, listed, place
from regrow.records.rows import read_rows

AGENT = DoubleDQN(hidden=16, learn_start=40, replay_capacity=400)
PLAN = small.diagnosis_of(AGENT, ActionReward(), 200, 200)


@pytest.fixture
def bucket(server, request):
    """A folder of a bucket, another for every test."""
    return place(f"s3://runs/{request.node.name}")


def compared(rows):
    """What rows say that does not depend on when and where they were made."""
    times = ("seconds", "seconds_to_fork", "written")
    return [{k: v for k, v in vars(row).items() if k not in times} for row in rows]


def test_what_is_a_place_and_what_is_not():
    assert place("runs/x") == Path("runs/x")
    assert place("file:///tmp/x") == Path("/tmp/x")
    with refused_in_a_line("ftp:// is none of file://, s3://, gs://"):
        place("ftp://host/x")
    with refused_in_a_line("names no bucket; it must be as s3://bucket/run"):
        place("s3://")


def test_files_are_whole_or_not_there(bucket):
    write_json(bucket / "a.json", {"x": 1})
    assert read_json(bucket / "a.json") == {"x": 1}

    def interrupted(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(bucket / "a.json", interrupted)
    assert read_json(bucket / "a.json") == {"x": 1}
    assert listed(bucket) == [bucket / "a.json"]
    assert listed(bucket / "nothing") == []
    with refused_in_a_line("there is no s3://"):
        read_json(bucket / "b.json")


def test_what_is_created_is_created_once(bucket):
    made = []
    creating = [
        threading.Thread(
            target=lambda n=n: made.append(create_atomically(bucket / "once", str(n).encode()))
        )
        for n in range(8)
    ]
    for one in creating:
        one.start()
    for one in creating:
        one.join()
    assert made.count(True) == 1


def test_leases_are_held_by_one(bucket, monkeypatch):
    monkeypatch.setattr(leases, "LOOK_STORE_EVERY", 0.05)
    monkeypatch.setattr(leases, "EXPIRES", 1.0)
    monkeypatch.setattr(leases, "BEAT", 0.2)
    at_work, most = [], []

    def work():
        with leases.waited_for(bucket / "work") as lease:
            at_work.append(1)
            most.append(len(at_work))
            lease.check()
            at_work.pop()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert most == [1] * 4
    # One that died on another machine.
    dead = leases.take(bucket / "work")
    leases._beating.remove(dead)
    (file,) = listed(bucket)
    write_json(file, {**read_json(file), "machine": "elsewhere"})
    with leases.waited_for(bucket / "work") as lease:
        assert lease._number == 6


def test_a_diagnosis_in_a_store_is_that_in_a_folder(bucket, tmp_path):
    """By worker processes, and stopped on the way."""
    here = carry_out(PLAN, tmp_path)
    with pytest.raises(StopHereError):
        carry_out(PLAN, bucket, report=stopping_at(9))
    there = carry_out(PLAN, bucket, execute=Processes(2))
    assert compared(there.rows) == compared(here.rows)
    assert there.verdict == here.verdict
    assert compared(read_rows(bucket).rows) == compared(here.rows)
    assert Watch(bucket).look().finished
    assert not [path for path in listed(jobs_of(bucket)) if ".part-" in path.name]


def test_commands_take_a_url(bucket, capsys):
    agent = "double_dqn(hidden=16, learn_start=40, replay_capacity=400)"
    own = ["--agent", agent, "--out", f"{bucket}/d", "--fork-at", "200", "--horizon", "200"]
    few = ["--seeds", "2", "--replicates", "1", "--fixed", "--processes", "1"]
    assert cli.run(["diagnose", "toy/action_reward", *own, *few]) is None
    assert f"written to {bucket}/d" in capsys.readouterr().out.replace("\n", "")
    for name in ("report.html", "curves.png", "verdict.json"):
        assert (bucket / "d" / name).is_file()
    assert cli.run(["report", f"{bucket}/d"]) is None
    assert cli.run(["watch", f"{bucket}/d", "--once"]) is None
    train = ["train", "toy/action_reward", "--agent", agent, "--out", f"{bucket}/t"]
    assert cli.run([*train, "--env-steps", "200", "--probe-every", "100"]) is None
    assert cli.run([*train, "--env-steps", "400", "--probe-every", "100", "--resume"]) is None
    assert cli.run(["probe", f"{bucket}/t"]) is None
    assert cli.run(["evaluate", f"{bucket}/t", "--episodes", "2"]) is None
    assert "--log csv writes into a folder" in cli.run([*train, "--resume", "--log", "csv"])


def test_many_rows_are_read_at_once(bucket):
    for number in range(30):
        write_json(bucket / f"{number}.json", number)
    found = dict(contents(listed(bucket)))
    assert sorted(int(held) for held in found.values()) == list(range(30))


def test_a_bucket_that_is_not_there_is_named(server):
    with refused_in_a_line("cannot write s3://nowhere/x/"):
        write_json(place("s3://nowhere/x/a.json"), 1)
    told = cli.run(["watch", "s3://nowhere/x", "--once"])
    assert "there is no folder s3://nowhere/x" in told


@pytest.fixture
def elsewhere(server, monkeypatch):
    """A place in a store that cannot be reached."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    found = place("s3://elsewhere/x")
    found.fs.clear_instance_cache()
    yield found
    found.fs.clear_instance_cache()


@pytest.mark.parametrize(
    "command", [["watch", "--once"], ["report"], ["export", "--to", "parquet"]]
)
def test_a_command_on_a_store_that_cannot_be_reached_ends_in_a_line(elsewhere, command):
    told = cli.run([command[0], str(elsewhere), *command[1:]])
    assert told is not None
    assert "\n" not in told


def test_a_store_that_cannot_be_reached_is_named(elsewhere):
    with pytest.raises(RegrowError, match=r"cannot (read|write) s3://elsewhere/x") as told:
        run_job(PLAN, Job(0, None), elsewhere, lambda phase, steps: None)
    assert "\n" not in str(told.value)

"""Studies that are killed at random moments, and gone on with by the same command."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from regrow.records.rows import Row, read_rows

STUDY = ["study", "primacy-bias", "--scale", "smoke", "--processes", "2"]
SMALL = ["--agent", "double_dqn(hidden=16, learn_start=40, replay_capacity=400)"]
DIAGNOSE = ["diagnose", "toy/action_reward", *SMALL, "--fork-at", "4000", "--horizon", "4000"]
QUICK = [*DIAGNOSE, "--seeds", "2", "--replicates", "1", "--fixed", "--processes", "2"]


def begun(command, out) -> subprocess.Popen:
    """A command in a process group of its own, which saves ten times a second."""
    words = [sys.executable, "-m", "regrow", *command, "--out", str(out)]
    env = {**os.environ, "REGROW_SAVE_EVERY": "0.1"}
    pipe = subprocess.DEVNULL
    return subprocess.Popen(words, env=env, stdout=pipe, stderr=pipe, start_new_session=True)


def killed(command, out: Path, draws: random.Random, kills: int) -> int:
    """Runs a command until it is done; kills it, its group or a worker, at most so often."""
    done = 0
    while True:
        process = begun(command, out)
        if done == kills:
            assert process.wait() == 0
            return done
        try:
            process.wait(timeout=draws.uniform(1.0, 9.0))
        except subprocess.TimeoutExpired:
            whom = draws.choice(("parent", "group", "worker"))
            workers = psutil.Process(process.pid).children(recursive=True)
            if whom == "group":
                os.killpg(process.pid, signal.SIGKILL)
            elif whom == "worker" and workers:
                draws.choice(workers).kill()
            else:
                process.kill()
            done += 1
            code = process.wait()
            assert code in (0, 2, -signal.SIGKILL), code
            _wait_for_the_end_of(workers)
            continue
        assert process.returncode == 0
        return done


def _wait_for_the_end_of(workers) -> None:
    """Workers end with their parent; they are given the time to."""
    psutil.wait_procs(workers, timeout=20)


def compared(folder: Path) -> dict[tuple, dict[str, str]]:
    """Rows without what depends on when they were made."""

    def of(row: Row) -> dict[str, str]:
        times = ("seconds", "seconds_to_fork", "written")
        # As text: a probe may be NaN, which equals nothing.
        return {name: repr(value) for name, value in vars(row).items() if name not in times}

    return {row.key: of(row) for row in read_rows(folder).rows}


@pytest.mark.always
def test_a_diagnosis_that_is_killed_comes_to_the_same_rows(tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert begun(QUICK, straight).wait() == 0
    assert killed(QUICK, broken, random.Random(0), kills=2) > 0
    assert compared(broken) == compared(straight)
    assert not list(broken.rglob("*.part-*"))


@pytest.mark.slow
def test_a_study_that_is_killed_fifty_times_comes_to_the_same_rows(tmp_path):
    draws, kills, rounds = random.Random(1), 0, 0
    straight = tmp_path / "straight"
    began = time.monotonic()
    assert begun(STUDY, straight).wait() == 0
    seconds = time.monotonic() - began
    expected = compared(straight)
    while kills < 50:
        out = tmp_path / f"broken{rounds}"
        kills += killed(STUDY, out, draws, 50 - kills)
        rounds += 1
        assert compared(out) == expected
    print(f"{kills} kills in {rounds} rounds of {len(expected)} rows; unbroken: {seconds:.0f} s")

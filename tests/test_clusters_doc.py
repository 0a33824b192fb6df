"""The commands of docs/clusters.md, run as they stand there, and its script for SLURM."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_kills import compared

from regrow.files.places import place

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "clusters.md").read_text()
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    regrow ")]
SBATCH = [line.strip() for line in PAGE.splitlines() if line.startswith("    sbatch ")]
QUICK = (
    "regrow doctor",
    "regrow diagnose minatar/breakout --fork-at 2000 --horizon 2000 --seeds 2 ",
)


def run(words, folder, **more) -> subprocess.CompletedProcess:
    """A command in a folder of its own."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}", **more}
    env.pop("RAY_ADDRESS", None)
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)


def prepared(line: str, folder: Path) -> list[str]:
    """The words of a command; a shared folder, a bucket and SLURM are those of this machine."""
    line = line.replace("/shared/", f"{folder}/shared/").replace("s3://my-bucket", "s3://runs")
    line = line.replace("--slurm partition=gpu", "--slurm cluster=local")
    return [sys.executable, "-m", *shlex.split(line)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


def test_the_page_has_its_commands():
    assert len(COMMANDS) == 9
    assert len(SBATCH) == 1


def slow_but_for_some(line: str):
    quick = line.startswith("regrow doctor")
    return pytest.param(line, id=line[7:50], marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("line", [slow_but_for_some(line) for line in COMMANDS])
def test_a_command_of_the_page(line, folder, server, request):
    pytest.importorskip("ray")
    done = run(prepared(line, folder), folder)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_their_results_are_the_same(folder, server):
    """That of one machine, of Ray, of SLURM's, and that in the bucket."""
    local = compared(folder / "runs" / "local")
    assert len(local) == 12
    for other in (folder / "runs" / "ray", folder / "runs" / "slurm", place("s3://runs/breakout")):
        assert compared(other) == local


SCONTROL = """#!/bin/sh
echo "$@" >> "$CALLED"
"""


AT_ONCE = [signal.SIGUSR1, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]


@pytest.mark.parametrize("number", AT_ONCE)
def test_the_script_saves_and_queues_itself_again(tmp_path, number):
    """As SLURM would: by the signal ahead of the time limit, and by that of a preemption."""
    called, bin_ = tmp_path / "called", tmp_path / "bin"
    bin_.mkdir()
    for name, text in (
        ("scontrol", SCONTROL),
        ("regrow", f'#!/bin/sh\nexec {sys.executable} -m regrow "$@"\n'),
    ):
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "SLURM_JOB_ID": "4711",
        "SLURM_CPUS_PER_TASK": "1",
        "CALLED": str(called),
    }
    _, *words = shlex.split(SBATCH[0].replace("/shared", str(tmp_path)))
    process = subprocess.Popen(
        ["bash", *words], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    held, end = tmp_path / "studies" / "work", time.monotonic() + 120
    while not list(held.glob("*/jobs/*.progress.json")):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"run the same command again to continue" in said
    assert called.read_text() == "requeue 4711\n"

"""The command line as a user meets it: whatever is wrong is one line and exit code 2."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from found import jobs_of

from regrow.agents import DoubleDQN
from regrow.cli import entry as cli
from regrow.cli.train import STOPPED as STOPPED_TRAINING
from regrow.environments import ActionReward
from regrow.errors import RegrowWarning
from regrow.execution.interrupts import AT_ONCE, STOPPED
from regrow.files.leases import alone
from regrow.training.checkpoint import load, save
from regrow.training.run import Run

SMALL = "double_dqn(hidden=16, learn_start=40, replay_capacity=400)"
TRAIN = ["train", "toy/action_reward", "--agent", SMALL]
DIAGNOSE = ["diagnose", "toy/action_reward", "--agent", SMALL, "--fork-at", "200", "--horizon"]
DIAGNOSE += ["200", "--seeds", "2", "--fixed", "--replicates", "1", "--processes", "1"]


def main(arguments: list[str]) -> int:
    """The command line in this process; a problem is printed as the console script prints it."""
    problem = cli.run(arguments)
    if problem is not None:
        print(f"regrow: {problem}", file=sys.stderr)
    return 0 if problem is None else 2


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "regrow", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


WRONG = [
    (["diagnos"], "no command 'diagnos'; did you mean 'diagnose'?"),
    (["list", "probe"], "no family 'probe'; did you mean 'probes'?"),
    (
        ["diagnose", "minatar/brekout"],
        "no environment 'minatar/brekout'; did you mean 'minatar/breakout'?",
    ),
    (["train", "control/walkr-walk"], "no task of control 'walkr-walk'; did you mean 'walker-"),
    (["diagnose", "atari/pongg"], "no game of atari 'pongg'; did you mean 'pong'?"),
    (["train", "gymnasium/ALE/Pong-v5"], "as DQN sees it, and copied exactly, it is atari/pong"),
    (["check", "gymnasium/no_such:Mine-v0"], "the module 'no_such' cannot be imported"),
    (["train", "jax/regrow:tracks"], "no environment in regrow 'tracks'"),
    (
        ["train", "minatar/breakout", "--agent", "double_dqn(replay_capacity=999_999_999)"],
        "replay_capacity can be at most ",
    ),
    (["train", "minatar/breakout", "--agent", "doubledqn"], "did you mean 'double_dqn'?"),
    (["diagnose", "minatar/breakout", "--arms", "nothing", "injct"], "did you mean 'inject'?"),
    (["diagnose", "minatar/breakout", "--before", "fit_nois"], "did you mean 'fit_noise'?"),
    (["diagnose", "minatar/breakout", "--fork-at", "-5"], "-5 is out of range"),
    (["diagnose", "minatar/breakout", "--fork-at", "many"], "'many' is not a whole number"),
    (["diagnose", "minatar/breakout", "--horizon", "0"], "horizon is 0; it must be at least 80"),
    (
        ["diagnose", "minatar/breakout", "--seeds", "1", "--replicates", "1"],
        "seeds is 1 and replicates 1; a verdict needs at least 2 seeds, or 2 replicates of one",
    ),
    (["diagnose", "minatar/breakout", "--seeds", "0"], "seeds is 0; it must be at least 1"),
    (
        ["diagnose", "minatar/breakout", "--replicates", "0"],
        "replicates is 0; it must be at least 1",
    ),
    (
        ["diagnose", "minatar/breakout", "--range", "3", "1"],
        "the range of returns is 3.0 to 1.0; give the lower end first",
    ),
    (["diagnose", "minatar/breakout", "--range", "1"], "expected 2 arguments"),
    (["diagnose", "minatar/breakout", "--minutes", "long"], "'long' is not a number"),
    (
        ["diagnose", "minatar/breakout", "toy/action_reward"],
        "'minatar/breakout' and 'toy/action_reward': give one environment, or folders",
    ),
    (
        ["diagnose", "minatar/breakout", "--fork-at", "9000", "--env-steps", "8000"],
        "the fork at 9000 env steps is not before the end at 8000",
    ),
    (
        ["diagnose", "minatar/breakout", "--env-steps", "8000", "--horizon", "80"],
        "give --horizon or --env-steps, not both",
    ),
    (["diagnose", "minatar/breakout", "--processes", "0"], "processes is 0"),
    (["diagnose", "minatar/breakout", "--smallest-effect", "x"], "'x' is not a number"),
    (["diagnose", "minatar/breakout", "--smallest-effect", "nan"], "smallest_effect is nan"),
    (["diagnose", "minatar/breakout", "--seed", "1"], "unrecognized arguments: --seed"),
    (["train", "minatar/breakout", "--env-steps", "99999999999"], "is out of range"),
    (["curves", "none"], "there is no run in none; give the --out of a `regrow train`"),
    (
        ["train", "minatar/breakout", "--env-steps", "3"],
        "3; it must be a multiple of 4",
    ),
    ([], "the following arguments are required: COMMAND"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda x: " ".join(x)[:60])
def test_what_is_wrong_is_said_in_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("regrow: ")
    assert not out
    assert not list(tmp_path.iterdir())  # nothing is begun that cannot be ended


def test_no_traceback_reaches_a_user():
    done = run("diagnose", "minatar/brekout")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder nobody can write to")
@pytest.mark.parametrize("command", [TRAIN, DIAGNOSE], ids=["train", "diagnose"])
def test_a_disk_that_cannot_be_written_to_is_named(command, capsys):
    assert main([*command, "--out", "/proc/regrow"]) == 2
    err = capsys.readouterr().err
    assert "regrow: cannot write /proc/regrow/" in err


def test_list_names_what_there_is(capsys):
    assert main(["list", "interventions"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("inject ") and "newly initialised pair" in line for line in lines)


def test_list_shows_what_the_names_of_many_look_like(capsys):
    assert main(["list", "environments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for start in ("control/<task> ", "atari/<game> ", "gymnasium/<env_id> ", "minatar/breakout "):
        assert any(line.startswith(start) for line in lines), start


def test_help_is_there(capsys):
    for arguments in (["--help"], ["diagnose", "--help"], ["train", "--help"]):
        with pytest.raises(SystemExit) as end:
            cli.run(arguments)
        assert end.value.code == 0
        assert "usage: regrow" in capsys.readouterr().out


@pytest.mark.always
def test_a_diagnosis_in_processes(tmp_path, capsys):
    out = tmp_path / "out"
    diagnose = [*DIAGNOSE, "--out", str(out)]
    assert main(diagnose) == 0
    printed = capsys.readouterr().out
    for word in ("nothing", "inject", "reset", "dead_units", "random policy", "2 seeds"):
        assert word in printed
    assert "not settled" not in printed  # there is one look
    for name in ("verdict.json", "report.html", "config.json", "curves.png"):
        assert (out / name).is_file(), name
    # The same again is there at once; another plan in that folder is refused.
    assert main(diagnose) == 0
    capsys.readouterr()
    assert main([*diagnose, "--before", "fit_noise"]) == 2
    assert "holds another run: its before is []" in capsys.readouterr().err
    checkpoint = jobs_of(out) / "seed0-fork.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    (jobs_of(out) / "seed0-inject.json").unlink()
    assert main(diagnose) == 2
    assert "seed0-fork.ckpt is cut short or altered" in capsys.readouterr().err


@pytest.mark.always
def test_training_stops_resumes_and_refuses(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert main([*TRAIN, "--env-steps", "400", *out]) == 0
    assert main([*TRAIN, "--env-steps", "800", *out]) == 2
    assert "holds a run already; add --resume" in capsys.readouterr().err
    assert main([*TRAIN, "--env-steps", "800", "--resume", "--seed", "1", *out]) == 2
    assert "its seed is 0, not 1" in capsys.readouterr().err
    assert main([*TRAIN, "--env-steps", "200", "--resume", *out]) == 2
    assert "is at 400 env steps, past the 200 asked for" in capsys.readouterr().err
    assert main([*TRAIN, "--env-steps", "800", "--resume", *out]) == 0
    assert main([*TRAIN, "--resume", "--out", str(tmp_path / "none")]) == 2
    assert "there is no run to resume" in capsys.readouterr().err
    straight = ["--out", str(tmp_path / "straight")]
    assert main([*TRAIN, "--env-steps", "800", *straight]) == 0
    a, b = (pq.read_table(tmp_path / n / "episodes.parquet") for n in ("out", "straight"))
    assert a.equals(b)
    assert a.num_rows == 800
    assert load(tmp_path / "out" / "run.ckpt").env_steps == 800
    picture = tmp_path / "all.svg"
    assert main(["curves", str(tmp_path / "out"), "--out", str(picture)]) == 0
    assert "1 run; written to" in capsys.readouterr().out
    assert picture.is_file()
    with alone(tmp_path / "out"):
        assert main([*TRAIN, "--env-steps", "1200", "--resume", *out]) == 2
    assert "another process is at work in" in capsys.readouterr().err
    # What was done is not begun over, even without its checkpoint, nor gone on with as another.
    checkpoint = tmp_path / "out" / "run.ckpt"
    other = Run.start(DoubleDQN(hidden=8), ActionReward(), seed=0)
    save(other, checkpoint)
    assert main([*TRAIN, "--env-steps", "1200", "--resume", *out]) == 2
    assert "not of what config.json beside it says; restore it" in capsys.readouterr().err
    checkpoint.unlink()
    assert main([*TRAIN, "--env-steps", "400", *out]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert pq.read_table(tmp_path / "out" / "episodes.parquet").num_rows == 800
    (tmp_path / "out" / "config.json").write_text('{"kind": "training"}')
    assert main(["curves", str(tmp_path / "out")]) == 2
    assert "config.json is cut short or altered" in capsys.readouterr().err


def test_training_that_ends_before_its_first_episode_does_is_drawn_too(tmp_path, capsys):
    endless = ["train", "toy/time_limit_reward(time_limit=1000)", "--probe-every", "0"]
    endless += ["--agent", SMALL]
    assert main([*endless, "--env-steps", "40", "--out", str(tmp_path / "out")]) == 0
    assert "return of the last 0 episodes: none finished" in capsys.readouterr().out
    assert (tmp_path / "out" / "curves.png").is_file()
    assert main(["probe", str(tmp_path / "out")]) == 2
    assert "was trained without probes (--probe-every 0); --costly" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "times", "number"),
    [
        ("train", 2, signal.SIGINT),
        ("diagnose", 1, signal.SIGTERM),
        pytest.param("train", 1, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("diagnose", 1, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("diagnose", 2, signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_signal_loses_nothing(tmp_path, command, times, number):
    """Once: stops where it can be saved. Twice: at once, and what was saved is whole."""
    out = tmp_path / "out"
    arguments = [*TRAIN, "--env-steps", "40_000_000"]
    if command == "diagnose":
        arguments = [*DIAGNOSE[:4], "--fork-at", "40_000_000", *DIAGNOSE[8:]]
    # A bar as on a terminal: it shows when the first steps are done.
    shown = os.environ | {"FORCE_COLOR": "1", "COLUMNS": "200"}
    with (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "regrow", *arguments, "--out", str(out)],
            stdout=subprocess.DEVNULL,
            stderr=err,
            env=shown,
            start_new_session=True,
        )

    def said() -> str:
        return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", (tmp_path / "err").read_text())

    wait_until(lambda: re.search(r"[1-9]\d*/\d{3,}", said()))
    for _ in range(times):
        os.killpg(process.pid, number)  # as a terminal sends it, to every process
        time.sleep(0.02)
    code = process.wait(timeout=60)
    wait_until(lambda: not alive(process.pid))  # nor does any process of its own outlive it
    lines = [line for line in said().splitlines() if line.startswith("regrow: ")]
    # The second may come when all is saved already.
    stopped = STOPPED if command == "diagnose" else STOPPED_TRAINING
    ends = [(2, f"regrow: {stopped}"), (130, f"regrow: {AT_ONCE}")]
    assert [(code, line) for line in lines] in [[end] for end in ends[:times]]
    for word in ("Traceback", "Warning"):
        assert word not in said()
    kept = [*out.rglob("*.ckpt")]
    if times == 1:
        assert kept
    for path in kept:
        assert load(path).env_steps >= 0


def test_a_folder_that_is_no_trained_run_is_said_to_be_none(tmp_path, capsys):
    assert main(["diagnose", str(tmp_path)]) == 2
    assert f"there is no run in {tmp_path}; give the --out of a `regrow train`" in (
        capsys.readouterr().err
    )


def test_one_trained_run_is_diagnosed_as_one_agent(tmp_path, capsys):
    run = tmp_path / "run"
    assert main([*TRAIN, "--env-steps", "400", "--probe-every", "0", "--out", str(run)]) == 0
    command = ["diagnose", str(run), "--horizon", "200", "--replicates", "3", "--processes", "1"]
    command += ["--arms", "nothing", "inject", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "The claim is about this one agent" in said
    held = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert (held["population"], held["n"]) == ("agent", 3)
    assert main([*command, "--fork-at", "200"]) == 2
    assert (
        "fork_at is 200; trained runs are forked where they are, at 400" in capsys.readouterr().err
    )


OUTSIDE = """
import signal, sys, time
from regrow.cli import entry as cli

def work(arguments):
    signal.raise_signal(getattr(signal, sys.argv[1]))
    time.sleep(60)

cli._carry_out = work
cli.main()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_where_nothing_can_be_saved_the_first_signal_ends_the_command(name):
    command = [sys.executable, "-c", OUTSIDE, name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 130
    assert done.stderr == f"\nregrow: {AT_ONCE}\n"


UNREAD = """
import os, signal, sys
from regrow.cli import entry as cli
from regrow.errors import RegrowError

def print_much(options):
    for _ in range(100_000):
        print("a line")

def print_little(options):
    print("a line")

def fail(options):
    raise RegrowError("that cannot be done")

def another_pipe(options):
    raise BrokenPipeError(32, "Broken pipe")

cli._carry_out = globals()[sys.argv[1]]
cli.main()
"""


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [
        ("print_much", 1, ""),
        ("print_little", 1, ""),
        ("fail", 2, "regrow: that cannot be done\n"),
        # Of a pipe that is not standard output it is told.
        ("another_pipe", 2, "regrow: [Errno 32] Broken pipe\n"),
    ],
)
def test_where_nobody_reads_on_it_ends_quietly(work, code, said):
    """As `regrow list environments | head -1` does."""
    process = subprocess.Popen(
        [sys.executable, "-c", UNREAD, work],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    if work != "another_pipe":
        process.stdout.close()
    assert process.stderr.read() == said
    assert process.wait() == code
    process.stderr.close()
    process.stdout.close()


def test_what_cannot_be_written_at_the_end_is_one_line():
    """Python would print a traceback as it ends."""
    if not Path("/dev/full").exists():
        pytest.skip("needs a device that is full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", UNREAD, "print_little"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.stderr == "regrow: [Errno 28] No space left on device\n"
    assert done.returncode == 2


def test_warnings_of_regrow_are_one_line_and_others_as_python_has_them(capsys, monkeypatch):
    def warned(options):
        warnings.warn("look out", RegrowWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)

    monkeypatch.setattr(cli, "_list", warned)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert cli.run(["list", "agents"]) is None
    ours, others = capsys.readouterr().err.split("\n", 1)
    assert ours == "regrow: look out"
    assert "UserWarning: something else" in others


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)

"""Windows and macOS, as far as they can be known on Linux: without what they lack."""

import ast
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from refusals import refused_in_a_line

import regrow
from regrow.execution import processes as local
from regrow.files import atomic
from regrow.files.atomic import write_atomically

ROOT = Path(regrow.__file__).parent
TINY = "double_dqn(hidden=16, learn_start=40, replay_capacity=400)"
# Run by Python as every process starts, workers included.
LACKING = """
import os, signal, sys
import psutil  # its part for Linux uses them
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
for name in ("fchmod", "sched_getaffinity", "sysconf", "geteuid", "killpg", "getpgid"):
    vars(os).pop(name, None)
for name in ("pthread_sigmask", "SIGHUP", "SIGPIPE"):
    vars(signal).pop(name, None)
"""


@pytest.fixture
def elsewhere(tmp_path):
    """A function that runs regrow where the calls of Unix alone are not there."""
    (tmp_path / "sitecustomize.py").write_text(LACKING)

    def run(*arguments: str) -> subprocess.CompletedProcess:
        path = os.pathsep.join([str(tmp_path), str(ROOT.parent)])
        command = [sys.executable, "-m", "regrow", *arguments]
        environment = os.environ | {"PYTHONPATH": path}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    return run


TRAIN = ["train", "toy/action_reward", "--agent", TINY, "--env-steps", "400"]
TRAIN += ["--probe-every", "0", "--out"]
DIAGNOSE = ["diagnose", "toy/action_reward", "--agent", TINY, "--fork-at", "200", "--horizon"]
DIAGNOSE += ["200", "--seeds", "2", "--arms", "nothing", "inject", "--processes", "2", "--out"]


@pytest.mark.parametrize(
    "command",
    [TRAIN, pytest.param(DIAGNOSE, marks=pytest.mark.slow)],
    ids=lambda command: command[0],
)
def test_it_works_without_the_calls_of_unix(tmp_path, elsewhere, command):
    done = elsewhere(*command, str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def _says_its_encoding(call: ast.Call) -> bool:
    """Whether a call that opens a text says how it is encoded: on Windows it is not UTF-8."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if name == "write_text":
        return len(call.args) > 1 or any(word.arg == "encoding" for word in call.keywords)
    if name == "read_text":
        return bool(call.args or call.keywords)
    if name == "open":
        modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
        binary = any("b" in mode for mode in modes if isinstance(mode, str))
        binary |= "webbrowser" in ast.unparse(call.func)
        encoded = any(word.arg in ("encoding", "force_zip64") for word in call.keywords)
        return binary or encoded or "archive" in ast.unparse(call.func)
    return True


def test_every_text_is_read_and_written_as_utf_8():
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and not _says_its_encoding(node)
    ]
    assert silent == []
    assert not _says_its_encoding(ast.parse("path.read_text()", mode="eval").body)
    assert not _says_its_encoding(ast.parse("path.open('a')", mode="eval").body)


def test_a_file_that_another_process_reads_is_replaced_a_moment_later(tmp_path, monkeypatch):
    """Windows refuses to rename over a file that is open."""
    refusals = []
    replace = os.replace

    def refused(source, target):
        if len(refusals) < 2:
            refusals.append(target)
            raise PermissionError(13, "Access is denied")
        replace(source, target)

    monkeypatch.setattr(atomic.sys, "platform", "win32")
    monkeypatch.setattr(atomic.os, "replace", refused)
    write_atomically(tmp_path / "file", lambda file: file.write(b"new"))
    assert (tmp_path / "file").read_bytes() == b"new"
    assert len(refusals) == 2
    monkeypatch.setattr(atomic.sys, "platform", "linux")
    refusals.clear()
    with refused_in_a_line(f"cannot write {tmp_path / 'file'}: Access is denied"):
        write_atomically(tmp_path / "file", lambda file: file.write(b"newer"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_is_for_others_what_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", lambda file: file.write(b""))
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_how_many_cores_there_are_where_nobody_says_which(monkeypatch):
    monkeypatch.delattr(local.os, "sched_getaffinity")
    assert local.cores() == os.cpu_count()


def test_a_process_starts_where_signals_cannot_be_masked(monkeypatch):
    with local._signals_blocked():
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.delattr(local.signal, "pthread_sigmask")
    with local._signals_blocked():
        pass


def test_the_metadata_and_the_readme_name_the_systems():
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    classifiers = " ".join(project["classifiers"])
    readme = (root / "README.md").read_text("utf-8")
    for system in ("Linux", "MacOS", "Windows"):
        assert system in classifiers
        assert system.lower() in readme.lower()

"""Scripts whose worker processes read them again: without a guard, from nowhere, and with one."""

import subprocess
import sys

import pytest

HEAD = """
import sys
import regrow
from regrow.execution.tasks import Task
from regrow.execution.processes import Processes
from regrow.diagnosis.plan import Arm

def work(report):
    report("working", 1)

def plan():
    return regrow.Diagnosis(
        agent=regrow.agents.DoubleDQN(hidden=16, learn_start=40, replay_capacity=400),
        environment=regrow.environments.ActionReward(),
        fork_at=200, horizon=200, seeds=2, replicates=1, fixed=True,
        arms=tuple(map(Arm.parse, ("nothing", "inject"))),
    )

def quiet(phase, steps):
    pass
"""
RUN = 'Processes(1)([Task("one", (), work)], quiet)\n'
KEPT = "regrow.diagnose(plan(), sys.argv[1], execute=Processes(2))\n"
CAUGHT = f"""
try:
    {RUN}
except regrow.RegrowError as error:
    print("caught:", error)
"""
GUARDED = f'EXECUTE = Processes(1)\nif __name__ == "__main__":\n    {RUN}'
ELSEWHERE = f"{HEAD}\nif __name__ != '__main__':\n    raise OSError('no such device')\n"
GUARD = "put what it does under `if __name__ == '__main__':`"


def run(arguments: list[str], text: str | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)


def last_line(done: subprocess.CompletedProcess) -> str:
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "body",
    [pytest.param(RUN, id="tasks", marks=pytest.mark.slow), pytest.param(KEPT, id="in a folder")],
)
def test_a_script_without_a_guard_is_told_of_it(tmp_path, body):
    (tmp_path / "script.py").write_text(HEAD + body)
    done = run([str(tmp_path / "script.py"), str(tmp_path / "out")])
    assert "`if __name__ == '__main__':`" in last_line(done)
    assert "memory" not in done.stderr
    assert done.stderr.count("Traceback") == 1  # that of the script itself


def test_the_workers_of_such_a_script_say_nothing(tmp_path):
    (tmp_path / "script.py").write_text(HEAD + CAUGHT)
    done = run([str(tmp_path / "script.py")])
    assert done.stdout.count("caught:") == 1
    assert GUARD in done.stdout
    assert not done.stderr


def test_a_script_with_a_guard_works(tmp_path):
    (tmp_path / "script.py").write_text(HEAD + GUARDED)
    done = run([str(tmp_path / "script.py")])
    assert (done.returncode, done.stderr) == (0, "")


def test_a_script_from_standard_input_is_told_to_be_saved():
    done = run(["-"], HEAD + GUARDED)
    assert "this one is no file (it came from standard input" in last_line(done)
    assert "`if __name__ == '__main__':`" in last_line(done)


def test_what_is_defined_at_a_prompt_is_named():
    done = run(["-c", HEAD + RUN])
    assert "cannot find 'work', which is defined in a notebook or at a prompt" in last_line(done)


@pytest.mark.slow
def test_at_a_prompt_what_modules_define_works():
    done = run(["-c", HEAD + 'Processes(1)([Task("one", (), callable)], quiet)\n'])
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_what_cannot_be_handed_over_is_named():
    done = run(["-c", HEAD + 'Processes(1)([Task("one", (), lambda report: None)], quiet)\n'])
    assert "'one' cannot be handed to a worker process (" in last_line(done)


def test_a_worker_that_fails_as_it_starts_is_not_said_to_lack_memory(tmp_path):
    (tmp_path / "script.py").write_text(ELSEWHERE + GUARDED)
    done = run([str(tmp_path / "script.py")])
    assert "no such device" in done.stderr
    assert "a worker process could not start, or ended by itself" in last_line(done)


@pytest.mark.slow
def test_of_another_program_s_workers_none_is_ended(tmp_path):
    """A script of one's own that starts processes and diagnoses at its top, as it may."""
    text = f"""{HEAD}
import multiprocessing
from regrow.execution.guard import leave_if_unguarded

leave_if_unguarded()
print("read", flush=True)
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(abs, (-3,)))
"""
    (tmp_path / "script.py").write_text(text)
    assert run([str(tmp_path / "script.py")]).stdout.split() == ["read", "read", "3"]

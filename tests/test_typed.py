"""What a type checker in strict mode makes of a script that uses regrow."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import regrow

SCRIPT = """
import regrow
from regrow.agents import DoubleDQN
from regrow.gradients import L2Init, WeightClipping

agent = DoubleDQN(hidden=64, gradient=(L2Init(strength=0.01), WeightClipping()))
environment = regrow.environments.Breakout(sticky_actions=0.0)
plan = regrow.Diagnosis(
    agent, environment, before=(regrow.interventions.FitNoise(),), seeds=3, fork_at=100_000
)
optimizer = regrow.Optimizer(terms=(L2Init(), WeightClipping()))
verdict = regrow.diagnose(plan, "runs/breakout")
print(verdict, optimizer, plan.source.round, regrow.probes.Srank(), agent.gradient[0].acts_on)
"""


def checked(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The script beside a configuration that asks for strict mode."""
    (folder / "script.py").write_text(script)
    (folder / "pyrightconfig.json").write_text(
        '{"include": ["script.py"], "typeCheckingMode": "strict", "pythonVersion": "3.11", '
        f'"extraPaths": ["{Path(regrow.__file__).parents[1].as_posix()}"]}}'
    )
    program = shutil.which("basedpyright", path=Path(sys.executable).parent.as_posix())
    if program is None:
        pytest.skip("basedpyright is not installed")
    command = [program, "--pythonpath", sys.executable, "--project", str(folder)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.always
def test_a_script_has_no_errors_in_strict_mode(tmp_path):
    done = checked(SCRIPT, tmp_path)
    assert done.returncode == 0, done.stdout
    assert "0 errors" in done.stdout


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("hidden=64", "hiden=64", 'No parameter named "hiden"'),
        ("L2Init(strength=0.01)", "regrow.interventions.Inject()", "GradientTerm"),
        ("environments.Breakout", "environments.Brekout", '"Brekout" is not a known attribute'),
    ],
)
def test_names_and_types_that_are_wrong_are_seen(right, wrong, message, tmp_path):
    done = checked(SCRIPT.replace(right, wrong), tmp_path)
    assert done.returncode == 1
    assert message in done.stdout

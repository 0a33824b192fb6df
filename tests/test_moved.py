"""What stood elsewhere in version 0.1 is still found, with a line on where it is now."""

import importlib
import subprocess
import sys

import pytest

from regrow.errors import RegrowWarning
from regrow.moved import MOVED


@pytest.mark.parametrize("old", sorted(MOVED))
def test_a_former_module_has_what_is_now_elsewhere(old):
    sys.modules.pop(f"regrow.{old}", None)
    with pytest.warns(RegrowWarning, match=rf"regrow\.{old} is now regrow\.{MOVED[old][0]}"):
        found = importlib.import_module(f"regrow.{old}")
    for place in MOVED[old]:
        held = importlib.import_module(f"regrow.{place}")
        assert {name for name in vars(held) if not name.startswith("__")} <= set(dir(found))


def test_what_people_wrote_goes_on_working():
    program = """
import regrow
from regrow.run import Run
from regrow.statistics import learning_curve, stratified_bootstrap
from regrow.plan import Arm, Diagnosis
from regrow.train import read_training, train
from regrow.execution.local import Processes
from regrow.cli import run
assert Run is regrow.Run
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "regrow.run is now regrow.training.run and regrow.types" in done.stderr


def test_what_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'regrow\.nothing_such'"):
        importlib.import_module("regrow.nothing_such")

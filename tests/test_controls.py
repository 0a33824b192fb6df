"""The controls of docs/controls.md: minutes each, so `make test-all` alone runs them."""

import pytest

from regrow.agents import DoubleDQN
from regrow.diagnosis.diagnose import diagnose
from regrow.diagnosis.verdict import Verdict
from regrow.environments import Breakout, SpaceInvaders
from regrow.execution.processes import Processes, cores
from regrow.interventions import FitNoise, Prime
from regrow.sources.native import Diagnosis

pytestmark = pytest.mark.slow


def judged(tmp_path, environment, **fields) -> Verdict:
    plan = Diagnosis(DoubleDQN(), environment, **fields)
    return diagnose(plan, tmp_path / "out", execute=Processes(cores()))


def test_an_agent_that_lost_its_plasticity_is_said_to_have(tmp_path):
    verdict = judged(tmp_path, Breakout(), before=(FitNoise(),))
    assert verdict.claim == "plasticity loss"
    areas = {row.arm: row.area for row in verdict.comparisons}
    assert areas["nothing"] < 1 < 2 < areas["inject"]


def test_the_matched_control_is_not(tmp_path):
    verdict = judged(tmp_path, Breakout(), before=(FitNoise(redraw=False),))
    assert verdict.claim != "plasticity loss"


def test_an_agent_in_the_middle_of_learning_is_not_and_a_reset_costs_it(tmp_path):
    verdict = judged(tmp_path, Breakout())
    assert verdict.claim != "plasticity loss"
    assert "reset_costs" in {finding.code for finding in verdict.findings}


def test_diverged_values_are_told_from_lost_plasticity(tmp_path):
    verdict = judged(tmp_path, SpaceInvaders(), before=(Prime(),), fork_at=5_000)
    assert verdict.claim != "plasticity loss"
    codes = {finding.code for finding in verdict.findings}
    assert {"reset_helps_injection_does_not", "values_diverged"} <= codes

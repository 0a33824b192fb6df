"""A diagnosis needs a Subject and a Source, and nothing else: here is one made of NumPy."""

import ast
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from found import StopHereError

import regrow.diagnosis
from regrow import cli
from regrow.analysis.summary import summarise
from regrow.diagnosis.diagnose import diagnose
from regrow.diagnosis.plan import Arm, Plan
from regrow.diagnosis.subject import Source, Subject
from regrow.errors import RegrowError
from regrow.files.atomic import as_json, read_json
from regrow.interventions import Inject, Nothing
from regrow.registry import describe
from regrow.types import Event, Log

LENGTH = 10  # env steps of an episode
PERIOD = 100  # after which the target is another one


@dataclass(frozen=True)
class Linear:
    """One weight that follows a target; each env step earns 1 less the distance.

    Its rate of learning is halved every 200 env steps where it `loses` plasticity; an injection
    gives it back. A replicate sees other noise, and so does what was injected.
    """

    loses: bool
    seed: int
    env_steps: int = 0
    weight: float = 0.0
    rate: float = 0.2
    replicate: int = 0
    history: tuple[Event, ...] = ()
    restarts: tuple[int, ...] = ()
    num_envs = 1
    discount = 0.9
    used_up = False

    def fork(self, replicate=0):
        return replace(self, replicate=self.replicate or replicate)

    def intervene(self, intervention):
        event = Event(self.env_steps, describe(intervention))
        later = replace(self, history=(*self.history, event))
        if not isinstance(intervention, Inject):
            return later
        return replace(later, rate=0.2, replicate=self.replicate + 7)  # what is new has draws

    def advance(self, env_steps):
        weight, rate, rewards = self.weight, self.rate, []
        for now in range(self.env_steps, self.env_steps + env_steps):
            draws = np.random.default_rng((self.seed, self.replicate, now))
            target = np.random.default_rng((self.seed, now // PERIOD)).normal()
            weight += rate * (target + draws.normal(0, 0.1) - weight)
            rate *= 0.5 if self.loses and now % 200 == 199 else 1.0
            rewards.append(1 - abs(target - weight))
        later = replace(self, env_steps=now + 1, weight=weight, rate=rate)
        reward = np.array(rewards, np.float32)
        ended = (np.arange(self.env_steps, now + 1) % LENGTH) == LENGTH - 1
        total = reward.reshape(-1, LENGTH).cumsum(axis=1).ravel()
        return later, Log(reward, np.zeros_like(ended), ended, total, np.full_like(reward, 0.5))

    def play_out(self):
        raise AssertionError("all episodes have ended")

    def learned_rewards(self, log):
        return log.reward

    def losses(self):
        return {}

    def measure(self, probes=(), *, fresh=False, since=None):
        return {"rate.network": 0.2 if fresh else self.rate}


@dataclass(frozen=True)
class Linears:
    """Where they come from."""

    loses: bool
    round = LENGTH
    splits = 1
    restarts = False
    agents = None
    starts_at = 0
    remarks = ()

    def start(self, seed):
        return Linear(self.loses, seed)

    def writer(self, subject, label, transitions=None):
        held = {**vars(subject), "history": [list(event) for event in subject.history]}
        content = as_json(held)
        return lambda file: file.write(content)

    def load(self, path, label):
        held = read_json(path)
        history = tuple(Event(*event) for event in held.pop("history"))
        return Linear(**{**held, "history": history, "restarts": ()})

    def check(self, interventions):
        for one in interventions:
            if not isinstance(one, Inject | Nothing):
                raise RegrowError(f"a linear learner knows no {describe(one)}")

    def memory(self):
        return 0

    def check_environment(self):
        pass

    def so_far(self, seed):
        return ()

    def random_return(self, start, end):
        return -20.0, 0.0

    def random_return_is_of(self, start, end):
        return ("linear",)

    def flops(self, history, start, end):
        return float("nan")

    def config(self):
        return {"source": "linear", "agent": f"linear(loses={self.loses})", "environment": "line"}

    @classmethod
    def from_config(cls, config):
        return cls("True" in config["agent"])

    def parts(self):
        return {"agent": repr(self), "environment": "line"}


ARMS = tuple(map(Arm.parse, ("nothing", "again", "inject")))


def plan(*, loses: bool) -> Plan:
    options = {"replicates": 1, "fixed": True, "smallest_effect": 0.05}
    return Plan(Linears(loses), ARMS, seeds=5, fork_at=1_000, horizon=400, **options)


def test_they_are_what_they_say():
    assert isinstance(Linears(loses=True), Source)
    assert isinstance(Linear(True, 0), Subject)


@pytest.mark.parametrize(
    ("loses", "claim"), [(True, "plasticity loss"), (False, "no plasticity loss")]
)
def test_the_verdict_is_right(loses, claim, tmp_path):
    began = time.perf_counter()
    verdict = diagnose(plan(loses=loses), tmp_path / "out")
    assert verdict.claim == claim, str(verdict)
    assert time.perf_counter() - began < 10  # under one on an idle machine


def test_what_it_leaves_is_read_as_any_other(tmp_path, capsys):
    """Without anything being made of the agent and the environment that the rows name."""
    verdict = diagnose(plan(loses=True), tmp_path)
    (told,) = summarise(tmp_path).studies
    assert told.cases[0].verdict == verdict
    assert cli.run(["report", str(tmp_path)]) is None
    assert verdict.claim in (tmp_path / "report.html").read_text("utf-8")
    assert cli.run(["export", str(tmp_path), "--to", "parquet"]) is None
    assert json.loads((tmp_path / "verdict.json").read_text())["agent"] == "linear(loses=True)"


def test_stopped_it_continues_to_the_same_verdict(tmp_path):
    reports = iter(range(100))

    def report(phase, steps):
        if next(reports) == 7:
            raise StopHereError

    with pytest.raises(StopHereError):
        diagnose(plan(loses=True), tmp_path, report=report)
    assert diagnose(plan(loses=True), tmp_path) == diagnose(plan(loses=True))


def test_what_a_source_cannot_do_is_refused():
    arms = (*ARMS, Arm.parse("reset"))
    with pytest.raises(RegrowError, match="a linear learner knows no reset"):
        diagnose(replace(plan(loses=True), arms=arms))


def test_diagnosis_knows_no_agent_and_no_environment():
    known = ("agents", "environments", "networks", "learners", "experience", "sources")
    runs = ("training.run", "training.checkpoint", "training.device_loop", "training.host_loop")
    for path in Path(regrow.diagnosis.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                module = (node.module or "").removeprefix("regrow.")
                assert module.split(".")[0] not in known, f"{path.name} imports {module}"
                assert module not in runs, f"{path.name} imports {module}"

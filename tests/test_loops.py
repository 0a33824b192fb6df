"""Training loops of one's own: the examples, and what can be wrong with a loop."""

import difflib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from regrow import interventions as does
from regrow.cli import entry
from regrow.diagnosis.subject import Source, Subject
from regrow.errors import RegrowError
from regrow.sources.sb3 import Sb3
from regrow.sources.script import Script
from regrow.torch import LoopSubject, Steps, TorchLearner
from regrow.torch.scripts import named_function

torch.set_num_threads(1)
EXAMPLES = Path(__file__).parents[1] / "examples"
LOOPS = {"dqn": 1, "ppo": 256}
CHANGED = {"dqn": (11, 6), "ppo": (9, 4)}
"""Lines added and removed, but for docstrings, as docs/loops.md has them."""


def made(name, seed=0):
    return Script.of(f"{EXAMPLES / f'{name}_loop_regrow.py'}:make_subject").start(seed)


def values(subject):
    (learner,) = subject.learners(subject.state)
    return torch.cat([p.detach().flatten() for p in learner.module.parameters()])


@pytest.mark.parametrize("name", LOOPS)
def test_a_fork_goes_on_as_if_nothing_had_happened(name):
    whole, log = made(name).advance(1536)
    half, _ = made(name).advance(768)
    assert isinstance(half, Subject)
    other, another = half.fork(), half.fork(1)
    for one, same in ((half, True), (other, True), (another, False)):
        after, _ = one.advance(768)
        assert torch.equal(values(after), values(whole)) == same
    assert log.reward.shape == (1536,)
    ended = log.terminated | log.truncated
    assert log.episode_return[ended].sum() == pytest.approx(1536, abs=500)


@pytest.mark.parametrize("name", LOOPS)
def test_interventions(name):
    held, _ = made(name).advance(768)
    before = values(held)
    for one in (does.Inject(), does.Reset(), does.ShrinkPerturb(), does.ResetOptimizer()):
        changed = held.intervene(one)
        assert changed.history[0].env_steps == 768
        after, _ = changed.advance(256)
        assert not torch.equal(values(after)[: len(before)], before)
    assert torch.equal(values(held), before)
    for one, text in [
        (does.Redo(), "it needs inputs"),
        (does.FitNoise(), "give LoopSubject stress="),
        (does.Inject(split=1), "the layers of '.*' are not known"),
        (does.Fire(), "this library only"),
    ]:
        with pytest.raises(RegrowError, match=text):
            held.intervene(one)


@pytest.mark.parametrize("name", LOOPS)
def test_the_example_is_the_plain_script_with_few_lines_changed(name):
    """And the plain script learns the same: it is run, for as long."""
    plain, ours = ((EXAMPLES / f"{name}_loop{end}.py").read_text() for end in ("", "_regrow"))
    changed = [
        line
        for line in difflib.ndiff(plain.splitlines(), ours.splitlines())
        if line[:1] in "+-" and line[1:].strip() and '"""' not in line
    ]
    added = [line for line in changed if line[0] == "+"]
    assert (len(added), len(changed) - len(added)) == CHANGED[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_the_plain_script_runs(name):
    subprocess.run([sys.executable, str(EXAMPLES / f"{name}_loop.py")], check=True)


@pytest.mark.always
def test_a_diagnosis_of_a_script(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("regrow.sources.base.RANDOM_STEPS", 4_000)
    function = f"{EXAMPLES / 'dqn_loop_regrow.py'}:make_subject"
    out = tmp_path / "out"
    line = ["diagnose", function, "--fork-at", "400", "--horizon", "400", "--seeds", "2",
            "--replicates", "1", "--fixed", "--processes", "1", "--out", str(out)]  # fmt: skip
    assert entry.run(line) is None
    told = " ".join(capsys.readouterr().out.split())
    assert "The claim is about the training" in told
    verdict = json.loads((out / "verdict.json").read_text())
    assert verdict["agent"] == function
    assert verdict["random_return"] == pytest.approx(22, abs=5)


LOOP_WITHOUT = """
import torch
from regrow.torch import LoopSubject, Steps, TorchLearner

def make(seed):
    q = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    optimizer = torch.optim.Adam(q.parameters())
    return LoopSubject(locals(), train, lambda s: [TorchLearner("q", s.q, ("2",), s.optimizer)])

def train(q, optimizer, step=0):
    while True:
        step += 1
        yield Steps(1.0, step % 10 == 0, False)
"""


def test_without_an_environment_a_range_is_needed(tmp_path):
    script = tmp_path / "without_environment.py"
    script.write_text(LOOP_WITHOUT)
    line = ["diagnose", f"{script}:make", "--fork-at", "40", "--horizon", "40", "--seeds", "2",
            "--replicates", "1", "--fixed", "--processes", "1"]  # fmt: skip
    said = entry.run([*line, "--out", str(tmp_path / "a")])
    assert "what a random policy earns is not known" in said
    assert "--range 0 500" in said
    assert entry.run([*line, "--range", "0", "500", "--out", str(tmp_path / "b")]) is None


def with_loop(train, **options):
    module = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))
    state = SimpleNamespace(module=module, optimizer=torch.optim.Adam(module.parameters()))

    def learners(state):
        return [TorchLearner("q", state.module, ("1",), state.optimizer)]

    return LoopSubject(state, train, learners, **options)


def ends(state):
    yield Steps(1.0, False, False)


def yields_a_number(state):
    while True:
        yield 1.0


def too_many(state):
    while True:
        yield Steps(np.ones(3), np.zeros(3), np.zeros(3))


def breaks(state):
    with torch.no_grad():
        state.module[0].weight[:] = float("nan")
    while True:
        yield Steps(1.0, False, False)


def by_name(counted, total=0, *, kept=1):
    while True:
        total += counted + kept
        yield Steps(float(total), False, False)


def deletes(counted):
    yield Steps(1.0, False, False)
    del counted
    while True:
        yield Steps(1.0, False, False)


def returns_an_iterator(counted):
    return iter([Steps(1.0, False, False)] * 4)


def test_a_loop_gets_its_state_by_name_and_leaves_it_in_its_variables():
    subject = LoopSubject({"counted": 2, "other": open}, by_name, lambda state: [])
    assert vars(subject.state) == {"counted": 2, "total": 0, "kept": 1}
    after, log = subject.advance(3)
    assert log.reward.tolist() == [3.0, 6.0, 9.0]
    assert vars(after.state) == {"counted": 2, "total": 9, "kept": 1}
    forked, _ = after.fork().advance(2)
    assert forked.state.total == 15
    assert after.advance(1)[0].state.total == 12  # the fork shares nothing


@pytest.mark.parametrize(
    ("train", "state", "text"),
    [
        (by_name, {"counter": 1}, "'counted'; did you mean 'counter'"),
        (deletes, {"counted": 1}, "the loop deleted its variable 'counted'"),
        (returns_an_iterator, {"counted": 1}, "train must be a generator"),
    ],
)
def test_a_state_that_does_not_fit_the_loop_is_told(train, state, text):
    with pytest.raises(RegrowError, match=text):
        LoopSubject(state, train, lambda state: []).advance(2)


@pytest.mark.parametrize(
    ("train", "text"),
    [
        (ends, "the loop ended after 1 env steps"),
        (yields_a_number, "the loop yielded a float"),
        (too_many, "the loop reported 6 instead"),
        (breaks, r"the parameter '0.weight' of 'q' is no longer finite"),
    ],
)
def test_wrong_loops_are_told(train, text):
    with pytest.raises(RegrowError, match=text):
        with_loop(train).advance(2)


def test_what_cannot_be_copied_is_told():
    subject = with_loop(ends)
    subject.state.handle = (x for x in ())
    with pytest.raises(RegrowError, match="cannot be copied"):
        subject.fork()
    with pytest.raises(RegrowError, match="round is 3"):
        with_loop(ends, num_envs=2, round=3)
    with pytest.raises(RegrowError, match="no module '7'"):
        TorchLearner("q", subject.state.module, ("7",), subject.state.optimizer)


def test_parallel_environments_take_turns():
    def train(state):
        while True:
            yield Steps([[1, 10], [2, 20]], [[0, 0], [1, 0]], np.zeros((2, 2)), np.ones((2, 2)))

    subject, log = with_loop(train, num_envs=2, round=4).advance(8)
    assert log.reward.tolist() == [1, 10, 2, 20, 1, 10, 2, 20]
    assert log.episode_return.tolist() == [1, 10, 3, 30, 1, 40, 3, 60]
    assert subject.running.tolist() == [0, 60]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("none.py:make", "there is no file none.py"),
        ("{here}:make_subjct", "did you mean 'make_subject'"),
        ("{own}:broken", "raised ValueError: no luck"),
        ("{own}:nothing", "it must return a regrow.torch.LoopSubject"),
        ("{own}2:make", "there is no file"),
    ],
)
def test_wrong_functions_are_told(text, told, tmp_path):
    own = tmp_path / "own_script.py"
    own.write_text("def broken(seed):\n    raise ValueError('no luck')\ndef nothing(seed): pass\n")
    text = text.format(here=EXAMPLES / "dqn_loop_regrow.py", own=own)
    if text.endswith("2:make"):
        text = str(own).replace("own_script", "other") + ":make"
    said = entry.run(["diagnose", text, "--out", str(tmp_path / "out")])
    assert said is not None
    assert told in said


def test_a_script_that_cannot_be_imported_is_told(tmp_path):
    (tmp_path / "bad_script.py").write_text("import nothing_of_that_name")
    with pytest.raises(RegrowError, match="cannot be imported: ModuleNotFoundError"):
        named_function(f"{tmp_path / 'bad_script.py'}:make")
    with pytest.raises(RegrowError, match="names no function"):
        named_function("make")


def test_they_are_sources():
    assert isinstance(
        Script(function="x.py:f", content="", env_steps_per_round=1, layers=1), Source
    )
    assert isinstance(Sb3, type)

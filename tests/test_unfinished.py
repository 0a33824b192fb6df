"""Diagnoses that are interrupted, and the checkpoints that they resume from."""

import dataclasses
import json
import time

import pytest
from found import StopHereError, jobs_of, results, stopping_at
from test_diagnose import AGENT, PLAN
from trees import bit_equal

from regrow import errors
from regrow.diagnosis.diagnose import diagnose
from regrow.diagnosis.jobs import Job, run_job
from regrow.environments import ActionReward
from regrow.errors import RegrowWarning
from regrow.interventions import FitNoise
from regrow.training.checkpoint import load
from regrow.training.run import Run
from regrow.types import silent


@pytest.mark.always
def test_stopped_anywhere_it_goes_on_to_the_same_result(tmp_path):
    folder = tmp_path / "unbroken"
    verdict = diagnose(PLAN, folder)
    for stop_after in (1, 3, 4, 9, 12):
        with pytest.raises(StopHereError):
            diagnose(PLAN, tmp_path / "out", report=stopping_at(stop_after))
    again = diagnose(PLAN, tmp_path / "out")
    assert results(tmp_path / "out") == results(folder)
    assert again == verdict
    assert not list(jobs_of(tmp_path / "out").glob("*.part-*"))


def test_a_cell_that_is_stopped_midway_keeps_its_env_steps(tmp_path):
    """The second call starts where the first was stopped."""
    plan = dataclasses.replace(PLAN, fork_at=6_000)
    steps = []

    def report(phase, done):
        steps.append(done)
        if sum(steps) >= 3_000:
            raise StopHereError

    with pytest.raises(StopHereError):
        run_job(plan, Job(0, None), tmp_path, report)
    done_before = sum(steps)
    assert 3_000 <= done_before < 6_000
    steps.clear()
    run_job(plan, Job(0, None), tmp_path, lambda phase, done: steps.append(done))
    first, *others = [n for n in steps if n]
    assert first == done_before
    assert sum(others) == 6_000 - done_before
    straight = Run.start(AGENT, ActionReward(), seed=0).advance(6_000)[0]
    assert bit_equal(load(Job(0, None).checkpoint(tmp_path)).state, straight.state)


def test_a_stop_after_training_keeps_the_training(tmp_path):
    """What comes before the fork may take minutes; a stop there must not cost the way up to it."""
    plan = dataclasses.replace(PLAN, before=(FitNoise(rounds=1, updates=3, transitions=20),))

    def report(phase, done):
        if "fit_noise" in phase:
            raise StopHereError

    with pytest.raises(StopHereError):
        run_job(plan, Job(0, None), tmp_path, report)
    steps = []
    run_job(plan, Job(0, None), tmp_path, lambda phase, done: steps.append(done))
    assert [n for n in steps if n] == [200]  # all of it was there at once


@pytest.mark.parametrize("kind", ["npz", "ckpt"])
def test_where_the_newest_checkpoint_is_damaged_the_one_before_is_used(tmp_path, kind):
    """A warning names the damaged file; with no good checkpoint left the job starts again."""
    plan = dataclasses.replace(PLAN, fork_at=800)

    def stopped_at(env_steps):
        steps = []

        def report(phase, done):
            steps.append(done)
            if sum(steps) >= env_steps:
                raise StopHereError

        errors._said.clear()
        with pytest.raises(StopHereError):
            run_job(plan, Job(0, None), tmp_path, report)
        return steps

    stopped_at(256)
    stopped_at(512)
    jobs = tmp_path / "jobs"
    kept = {path.name: path.read_bytes() for path in jobs.iterdir()}
    first, second = sorted(path for path in jobs.iterdir() if path.suffix == f".{kind}")
    for content in (b"", b"junk", kept[second.name][: len(kept[second.name]) // 2]):
        for damaged, env_steps in (([second], 256), ([first, second], 0)):
            for path in jobs.iterdir():
                path.unlink()
            for name, held in kept.items():
                (jobs / name).write_bytes(held)
            for path in damaged:
                path.write_bytes(content)
            with pytest.warns(RegrowWarning, match="is cut short or altered") as told:
                steps = stopped_at(env_steps + 256)
            assert steps[0] == env_steps
            named = [str(one.message).partition(" is ")[0] for one in told]
            assert named == [str(path) for path in reversed(damaged)]
    run_job(plan, Job(0, None), tmp_path, silent)
    straight = Run.start(AGENT, ActionReward(), seed=0).advance(800)[0]
    assert bit_equal(load(Job(0, None).checkpoint(tmp_path)).state, straight.state)


def test_seconds_add_up_over_sittings(tmp_path):
    def report(phase, done):
        if done:
            time.sleep(0.5)
            raise StopHereError

    with pytest.raises(StopHereError):
        run_job(PLAN, Job(0, None), tmp_path, report)
    began = time.perf_counter()
    run_job(PLAN, Job(0, None), tmp_path, lambda phase, done: None)
    sitting = time.perf_counter() - began
    assert json.loads((tmp_path / "jobs" / "seed0-fork.json").read_text())["seconds"] > sitting

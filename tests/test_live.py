"""Logs while a run trains: what is in them, after a resume too, and that training hears nothing."""

import dataclasses
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from found import results
from logs import Row, from_csv, from_tensorboard, from_wandb, session_starts
from small import DQN, PIXELS, POLICY, SOFT
from trees import bit_equal

from regrow.cli import entry as cli
from regrow.diagnosis.diagnose import diagnose
from regrow.diagnosis.plan import Arm
from regrow.environments import ActionReward, Breakout, Gymnasium, Reach, Shades, TimeLimitReward
from regrow.errors import RegrowError
from regrow.interventions import FitNoise
from regrow.learners.learner import learners
from regrow.records.sinks import SINKS, About, Csv, TensorBoard, WeightsAndBiases, checked
from regrow.registry import members
from regrow.sources.native import Diagnosis
from regrow.training import live
from regrow.training.checkpoint import load
from regrow.training.run import Run
from regrow.training.saved import read_probes
from regrow.training.schedule import Rule
from regrow.training.train import train
from regrow.types import silent

ALL = tuple(SINKS)
AGENTS = {
    "double_dqn": (DQN, Breakout()),
    "sac": (SOFT, Reach()),
    "drq": (PIXELS, Shades()),
    "ppo": (POLICY, Reach()),
}
RULES = [Rule.parse("inject at 100"), Rule.parse("reset at 200")]
ABOUT = About("one", "a title", "a group", {"seed": 3})


class CrashError(Exception):
    pass


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(live, "EVERY", 0.0)  # every piece is told
    monkeypatch.setattr(live, "SHARE", 1e9)


def trained(folder: Path, *, env_steps: int = 400, **options) -> Run:
    defaults = {"probe_every": 200, "rules": RULES, "report": silent}
    agent, environment = options.pop("of", (DQN, ActionReward()))
    return train(agent, environment, folder, env_steps=env_steps, **(defaults | options))[0]


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """(folder, Run) of a training with every sink."""
    folder = tmp_path_factory.mktemp("logged") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setattr(live, "EVERY", 0.0)
        patch.setattr(live, "SHARE", 1e9)
        return folder, trained(folder, log=ALL)


# What is in a log.


def test_every_sink_has_what_happened(logged):
    folder, _ = logged
    rows = from_csv(folder / "log" / "train.csv")
    names = {row.name for row in rows}
    assert {
        "rollout/episode_return",
        "rollout/episode_length",
        "train/value",
        "train/loss/q",
        "time/env_steps_per_second",
        "probes/dead_units/head",
        "probes_fresh/srank/encoder",
        "event",
    } <= names
    happened = [row for row in rows if row.name == "event"]
    assert happened == [Row(100, "event", "inject"), Row(200, "event", "reset")]
    assert [row.env_steps for row in rows] == sorted(row.env_steps for row in rows)
    assert rows[-1].env_steps == 400
    events = from_tensorboard(folder / "log" / "train")
    assert [row[:2] for row in events] == [row[:2] for row in rows]
    for ours, theirs in zip(rows, events, strict=True):
        expected = ours.value if isinstance(ours.value, str) else np.float32(ours.value)
        assert theirs.value == expected
    (run,) = from_wandb(folder / "log")
    assert Counter(run.rows) == Counter(rows)
    assert (run.name, run.project, run.exit_code) == ("out", "regrow", 0)
    assert run.step_metrics == {"*": "env_steps"}
    assert run.config["environment"] == "toy/action_reward"
    assert run.config["rules"] == ["inject at 100", "reset at 200"]


def test_probes_are_those_of_the_diary(logged):
    folder, _ = logged
    rows = from_csv(folder / "log" / "train.csv")
    told = {row[:2]: row.value for row in rows if row.name.startswith("probes")}
    measured = {
        (row["env_steps"], f"probes{'_fresh' * row['fresh']}/{row['probe'].replace('.', '/')}"): (
            row["value"]
        )
        for row in read_probes(folder)
        if np.isfinite(row["value"])
    }
    assert told == measured
    assert len(told) > 50


@pytest.mark.parametrize(
    ("agent", "environment", "env_steps"),
    [(DQN, Gymnasium("CartPole-v1"), 600), (POLICY, TimeLimitReward(3), 3_200)],
    ids=["alone", "side by side"],
)
def test_episodes_are_those_of_the_diary(tmp_path, agent, environment, env_steps):
    _, diary = train(
        agent, environment, tmp_path / "out", env_steps=env_steps, report=silent, log="csv"
    )
    rows = from_csv(tmp_path / "out" / "log" / "train.csv")
    means = {row[:2]: row.value for row in rows}
    ends = sorted({row.env_steps for row in rows})
    assert len(ends) > 1
    for start, end in itertools.pairwise([0, *ends]):
        steps = diary.episodes.env_steps
        within = (steps > start) & (steps <= end)
        assert within.any()
        assert means[end, "rollout/episode_return"] == diary.episodes.returns[within].mean()
        assert means[end, "rollout/episode_length"] == diary.episodes.lengths[within].mean()


def test_a_number_is_told_once_a_second_and_before_the_run_is_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "EVERY", 1e9)
    trained(tmp_path / "out", probe_every=0, rules=(), log="csv")
    rows = from_csv(tmp_path / "out" / "log" / "train.csv")
    assert {row.env_steps for row in rows} == {400}
    (mean,) = [row.value for row in rows if row.name == "rollout/episode_return"]
    straight = Run.start(DQN, ActionReward(), seed=0).advance(400)[1]
    assert mean == pytest.approx(np.mean(straight.episode_return, dtype=np.float64))


def test_a_reader_sees_what_was_told_so_far(tmp_path):
    """In the middle of the work, not after it."""
    log, seen = tmp_path / "out" / "log", []

    def report(phase, steps):
        if steps:
            csv = {row[:2] for row in from_csv(log / "train.csv")}
            events = {row[:2] for row in from_tensorboard(log / "train")}
            seen.append((csv, events))

    trained(tmp_path / "out", report=report, log=("csv", "tensorboard"))
    for n, (csv, events) in enumerate(seen):
        assert csv == events
        assert len(csv) > n
    assert max(seen[0][0])[0] < 400


# Losses.


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "drq" else ())
        for name in sorted(members("agents"))
    ],
)
def test_losses_are_those_that_are_descended(name):
    """The gradient of each, for the Learner it is named after, is the agent's own."""
    agent, environment = AGENTS[name]
    run = Run.start(agent, environment, seed=0).advance(400)[0]
    key, batch = jax.random.key(5), agent.batch(run.state.replay, jax.random.key(7))

    @jax.jit
    def compared(state):
        held, losses = learners(state), agent.losses(state, batch, key)

        def loss(network, learner):
            moved = dataclasses.replace(held[learner], network=network)
            changed = dataclasses.replace(state, **{learner: moved})
            return agent.losses(changed, batch, key)[learner]

        ours = {name: held[name].gradient(lambda n, name=name: loss(n, name)) for name in losses}
        return losses, ours, agent.gradients(state, batch, key)

    losses, ours, expected = compared(run.state.agent)
    assert losses
    for name, (value, gradient) in ours.items():
        assert value == pytest.approx(float(losses[name]), rel=1e-5)
        pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(expected[name]), strict=True)
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
        assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def test_who_has_not_learnt_has_no_loss():
    run = Run.start(DQN, ActionReward(), seed=0)
    assert run.losses() == {}
    run = run.advance(200)[0]
    assert set(run.losses()) == {"q"}
    assert run.losses() == run.losses()


def test_losses_take_a_hundredth_of_the_time_at_most(monkeypatch):
    now, took = [0.0], iter([50.0, 2.0, 4.0, 30.0, 1.0, 1.0])  # two of them compile

    def losses(self):
        now[0] += next(took)
        return {"q": 1.0}

    monkeypatch.setattr(live, "SHARE", 0.01)
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(Run, "losses", losses)
    run, measured, at = Run.start(DQN, ActionReward(), seed=0), live._Losses(), []
    for _ in range(71):
        before = now[0]
        if measured.measured(run):
            at.append(before)
        now[0] += 10
    # 200 s of rest for the 2 s that it takes, and 100 once it takes 1.
    assert at == [0, 252, 456, 686, 787]


# Training hears nothing of it.


@pytest.mark.parametrize("environment", [ActionReward(), Gymnasium("CartPole-v1")])
def test_training_is_the_same_bit_for_bit(tmp_path, environment):
    of = (DQN, environment)
    runs = [
        trained(tmp_path / name, of=of, log=log) for name, log in (("with", "csv"), ("without", ()))
    ]
    assert bit_equal(*(run.state.agent for run in runs))
    assert bit_equal(*(run.state.replay for run in runs))
    assert int(runs[0].state.updates) == int(runs[1].state.updates) > 0
    assert not (tmp_path / "without" / "log").exists()


def test_without_a_sink_nothing_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "losses", lambda self: pytest.fail("somebody measured losses"))
    trained(tmp_path / "out")


# Stopped and resumed.


def rows_of(folder: Path) -> dict[str, list[Row]]:
    runs = from_wandb(folder)
    found = {"csv": from_csv(folder / "train.csv")}
    found["tensorboard"] = from_tensorboard(folder / "train")
    return found | {"wandb": [row for run in runs for row in run.rows]}


def without_times(rows: list[Row]) -> set[tuple[int, str]]:
    return {(row.env_steps, row.name) for row in rows}


def stopped(folder: Path, at: int, error: type[BaseException]) -> None:
    """Trains until `report` has heard of so many env steps, and then raises."""
    done = []

    def report(phase, steps):
        done.append(steps)
        if sum(done) >= at:
            raise error

    with pytest.raises(error):
        trained(folder, env_steps=10_000, report=report, log=ALL)


@pytest.mark.parametrize("error", [CrashError, KeyboardInterrupt])
def test_a_run_that_was_stopped_has_all_of_its_log(tmp_path, error):
    folder = tmp_path / "out"
    stopped(folder, 200, error)
    now = load(folder / "run.ckpt").env_steps
    trained(folder, env_steps=now + 200, resume=True, log=ALL)
    found = rows_of(folder / "log")
    for rows in found.values():
        assert max(Counter(row[:2] for row in rows).values()) == 1
        assert {200, now, now + 200} <= {row.env_steps for row in rows}
        assert [row for row in rows if row.name == "event"] == [
            Row(100, "event", "inject"),
            Row(200, "event", "reset"),
        ]
        assert (200, "probes/srank/head") in without_times(rows)
    assert without_times(found["csv"]) == without_times(found["tensorboard"])
    assert without_times(found["csv"]) == without_times(found["wandb"])
    assert [run.exit_code for run in from_wandb(folder / "log")] == [1, 0]
    assert session_starts(folder / "log" / "train") == [now + 1]


def test_what_was_told_after_the_last_save_is_told_once(tmp_path):
    """As after a machine that went down: the run goes back, and its log with it."""
    folder, aside = tmp_path / "out", tmp_path / "aside"
    trained(folder, env_steps=200, log=ALL)
    shutil.copytree(folder, aside, ignore=shutil.ignore_patterns("log"))
    trained(folder, env_steps=600, resume=True, log=ALL)
    shutil.copytree(aside, folder, dirs_exist_ok=True)
    with (folder / "log" / "train.csv").open("a") as file:
        file.write("601,rollout/epi")
    (last,) = [p for p in (folder / "log" / "train").iterdir() if p.suffix == ".1"]
    last.write_bytes(last.read_bytes()[:-5])
    trained(folder, env_steps=400, resume=True, log=ALL)
    found = rows_of(folder / "log")
    for name, rows in found.items():
        assert max(Counter(row[:2] for row in rows).values()) == 1, name
        assert {row.value for row in rows if row.name == "event"} == {"inject", "reset"}
    for name in ("csv", "tensorboard"):
        assert max(row.env_steps for row in found[name]) == 400
    # Weights & Biases takes nothing back: what it was told of up to 600 stays, and is true.
    assert max(row.env_steps for row in found["wandb"]) == 600
    assert from_wandb(folder / "log")[-1].rows == []
    assert session_starts(folder / "log" / "train") == [201, 201]


def test_a_run_that_is_known_online_goes_on_there(tmp_path, monkeypatch):
    asked, rows = [], []

    def init(**options):
        asked.append(options)
        return SimpleNamespace(
            offline=False,
            id="abc",
            define_metric=lambda *args, **options: None,
            log=rows.append,
            finish=lambda exit_code: None,
        )

    fake = SimpleNamespace(init=init, Settings=SimpleNamespace)
    fake.Settings = type("Settings", (SimpleNamespace,), {"model_fields": {}})
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    for start, steps in ((0, (10, 20)), (10, (20, 30))):
        sink = WeightsAndBiases(tmp_path, ABOUT, start)
        for step in steps:
            if not sink.told.holds("x", step):
                sink.scalar("x", 1.5, step)
        sink.close()
    assert [row["env_steps"] for row in rows] == [10, 20, 30]
    assert "id" not in asked[0]
    assert (asked[1]["id"], asked[1]["resume"]) == ("abc", "allow")
    assert {options["project"] for options in asked} == {"mine"}
    assert (asked[0]["name"], asked[0]["group"]) == ("a title", "a group")
    WeightsAndBiases(tmp_path, ABOUT, 0)  # from the beginning: that is another run
    assert "id" not in asked[2]


# A diagnosis.

PLAN = Diagnosis(
    DQN,
    ActionReward(),
    seeds=2,
    replicates=1,
    fixed=True,
    fork_at=200,
    horizon=200,
    arms=tuple(map(Arm.parse, ("nothing", "inject", "reset every 100 at most 1 times"))),
    before=(FitNoise(rounds=1, updates=3, transitions=20),),
)


def test_a_diagnosis_logs_every_cell(tmp_path):
    verdict = diagnose(PLAN, tmp_path / "with", log=("csv", "wandb"))
    assert diagnose(PLAN, tmp_path / "without") == verdict
    assert results(tmp_path / "with") == results(tmp_path / "without")
    log = tmp_path / "with" / "log"
    cells = {f"seed{seed}-{n}" for seed in (0, 1) for n in ("fork", "nothing", "inject")}
    cells |= {f"seed{seed}-reset-every-100-at-most-1-times" for seed in (0, 1)}
    assert {path.stem for path in log.glob("*.csv")} == cells
    fork = from_csv(log / "seed0-fork.csv")
    noise = "fit_noise(rounds=1, updates=3, transitions=20)"
    assert [row for row in fork if row.name == "event"] == [Row(200, "event", noise)]
    assert {row.env_steps for row in fork if row.name.startswith("probes")} == {200}
    assert any(row.name.startswith("probes_fresh/") for row in fork)
    inject = from_csv(log / "seed1-inject.csv")
    assert {(200, "event"), (400, "train/loss/q"), (400, "probes/srank/head")} <= {
        row[:2] for row in inject
    }
    assert min(row.env_steps for row in inject if row.name == "train/value") > 200
    ruled = from_csv(log / "seed0-reset-every-100-at-most-1-times.csv")
    assert (200, "event", "reset") in ruled
    runs = {run.name: run for run in from_wandb(log)}
    assert set(runs) == cells
    assert {run.group for run in runs.values()} == {"with"}
    assert (runs["seed1-inject"].config["seed"], runs["seed1-inject"].config["arm"]) == (
        1,
        "inject",
    )
    assert runs["seed1-inject"].config["fork_at"] == 200


def test_a_diagnosis_that_was_stopped_has_all_of_its_log(tmp_path):
    reports = []

    def report(phase, steps):
        reports.append(steps)
        if len(reports) in (3, 7, 12):
            raise CrashError

    for _ in range(3):
        with pytest.raises(CrashError):
            diagnose(PLAN, tmp_path / "out", report=report, log="csv")
    diagnose(PLAN, tmp_path / "out", log="csv")
    diagnose(PLAN, tmp_path / "straight", log="csv")
    paths = sorted((tmp_path / "out" / "log").glob("*.csv"))
    assert len(paths) == 8
    for path in paths:
        rows, straight = from_csv(path), from_csv(tmp_path / "straight" / "log" / path.name)
        assert max(Counter(rows).values()) == 1
        kinds = [[row for row in each if row.name.startswith(("event", "probes"))]
                 for each in (rows, straight)]  # fmt: skip
        assert kinds[0] == kinds[1]
        assert rows[-1].env_steps == straight[-1].env_steps


@pytest.mark.slow
def test_worker_processes_log_too(tmp_path, capfd):
    agent = "double_dqn(hidden=16, channels=4, learn_start=40, replay_capacity=300)"
    command = ["diagnose", "toy/action_reward", "--agent", agent, "--fork-at", "200"]
    command += ["--horizon", "200", "--seeds", "2", "--arms", "nothing", "inject"]
    command += ["--processes", "2", "--out", str(tmp_path / "out")]
    for sink in ALL:
        command += ["--log", sink]
    assert cli.run(command) is None
    assert "failed" not in capfd.readouterr().err
    log = tmp_path / "out" / "log"
    jobs = ("fork", "nothing", "nothing-1", "inject", "inject-1")
    for seed, arm in itertools.product((0, 1), jobs):
        rows = from_csv(log / f"seed{seed}-{arm}.csv")
        at = 200 if arm == "fork" else 400
        assert {(at, "rollout/episode_return"), (at, "probes/srank/head")} <= {
            row[:2] for row in rows
        }
        assert without_times(from_tensorboard(log / f"seed{seed}-{arm}")) == without_times(rows)
    assert len(from_wandb(log)) == 10


def test_a_diagnosis_without_a_folder_has_no_log():
    with pytest.raises(RegrowError, match="log is csv and folder is None; give one"):
        diagnose(PLAN, log="csv")


# What goes wrong.


def test_an_unknown_sink_is_named(tmp_path):
    with pytest.raises(RegrowError, match="no log 'tensorbord'; did you mean 'tensorboard'"):
        trained(tmp_path / "out", log=("csv", "tensorbord"))
    assert not (tmp_path / "out").exists()
    assert checked(["csv", "csv"]) == ("csv",)


@pytest.mark.parametrize(
    ("sink", "module", "extra"),
    [("tensorboard", "tensorboardX", "tensorboard"), ("wandb", "wandb", "wandb")],
)
def test_a_package_that_is_not_there_is_named(tmp_path, monkeypatch, sink, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    out = str(tmp_path / "out")
    for command in ("train", "diagnose"):
        said = cli.run([command, "toy/action_reward", "--log", sink, "--out", out])
        assert f"this needs {module}: pip install 'regrow[{extra}]'" in said
        assert "\n" not in said
    assert not (tmp_path / "out").exists()


def test_who_is_not_logged_in_is_told_before_the_work(tmp_path):
    own = {"WANDB_MODE": "online", "HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    environment = {name: x for name, x in os.environ.items() if not name.startswith("WANDB")} | own
    done = subprocess.run(
        [sys.executable, "-m", "regrow", "train", "toy/action_reward", "--log", "wandb"],
        capture_output=True, text=True, env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("regrow: Weights & Biases cannot be logged into (No API key")
    assert done.stderr.endswith("run `wandb login`, or set WANDB_MODE=offline\n")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_sink_that_fails_is_given_up_and_training_goes_on(tmp_path, monkeypatch, capsys):
    def full(self, name, value, env_steps):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorBoard, "scalar", full)
    run = trained(tmp_path / "out", log=("tensorboard", "csv"))
    assert run.env_steps == 400
    assert capsys.readouterr().err == (
        "regrow: --log tensorboard failed ([Errno 28] No space left on device); training goes on "
        "without it\n"
    )
    assert from_csv(tmp_path / "out" / "log" / "train.csv")[-1].env_steps == 400


def test_losses_that_cannot_be_measured_do_not_end_the_training(tmp_path, monkeypatch, capsys):
    def too_large(self):
        raise MemoryError("out of memory")

    monkeypatch.setattr(Run, "losses", too_large)
    assert trained(tmp_path / "out", log=("tensorboard", "csv")).env_steps == 400
    assert capsys.readouterr().err.count("failed (out of memory); training goes on") == 2


KILLED = """
import os, signal, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from small import DQN
from regrow.training import live
from regrow.environments import ActionReward
from regrow.training.run import Run
from regrow.records.sinks import About

live.EVERY = 0.0
with live.Live(("wandb", "csv"), Path(sys.argv[1]), About("one", "one", None, {})) as log:
    run = Run.start(DQN, ActionReward(), seed=0)
    for n in range(3):
        run, said = run.advance(100)
        log.advanced(run, said)
        if n == 0:
            mine = ["pgrep", "-P", str(os.getpid()), "wandb-core"]
            (own,) = subprocess.run(mine, capture_output=True, text=True).stdout.split()
            os.kill(int(own), signal.SIGKILL)
            time.sleep(0.5)
"""


def test_the_process_of_weights_and_biases_may_end(tmp_path):
    """Killed, as for want of memory."""
    own = {name: x for name, x in os.environ.items() if name != "WANDB_SERVICE"}  # not this one's
    command = [sys.executable, "-W", "ignore::ResourceWarning", "-c", KILLED]
    command += [str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, env=own)
    # Which call finds out, and in what words, is a matter of time.
    said = r"regrow: --log wandb failed \([^\n]+\); training goes on without it\n"
    assert re.search(said, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert from_csv(tmp_path / "one.csv")[-1].env_steps == 300


def test_a_table_of_somebody_else_is_left_as_it_is(tmp_path, capsys):
    trained(tmp_path / "out")
    (tmp_path / "out" / "log").mkdir()
    path = tmp_path / "out" / "log" / "train.csv"
    path.write_text("a,b\n1,2\n")
    trained(tmp_path / "out", env_steps=600, resume=True, log="csv")
    assert path.read_text() == "a,b\n1,2\n"
    assert "train.csv is cut short or altered (its columns are a,b)" in capsys.readouterr().err


def test_an_error_in_training_comes_after_what_was_told(tmp_path, monkeypatch):
    """What happened in the last second before it is what one wants to see."""
    monkeypatch.setattr(live, "EVERY", 1e9)
    advance, count = Run.advance, itertools.count()

    def fails(self, env_steps):
        if next(count) == 1:
            self.state.env_steps.delete()
            raise CrashError
        return advance(self, env_steps)

    monkeypatch.setattr(Run, "advance", fails)
    with pytest.raises(CrashError):
        trained(tmp_path / "out", rules=(), probe_every=0, log="csv")
    rows = from_csv(tmp_path / "out" / "log" / "train.csv")
    assert {row.name for row in rows} == {
        "train/value",
        "rollout/episode_return",
        "rollout/episode_length",
        "time/env_steps_per_second",
    }


def test_names_of_files_are_fit_for_any_system():
    odd = '<>:"/\\|?*'
    for text in ("inject(split=0)", "reset every 100", "inject when dead_units above 0.3"):
        assert not set(Arm.parse(text).file_name) & set(odd)


def test_what_was_written_there_is_begun_over(tmp_path):
    for cls in (Csv, TensorBoard):
        for value in (1.0, 2.0):
            sink = cls(tmp_path, ABOUT, 0)
            sink.scalar("x", value, 10)
            sink.close()
    assert from_csv(tmp_path / "one.csv") == from_tensorboard(tmp_path / "one") == [(10, "x", 2.0)]

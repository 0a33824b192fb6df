"""Every line of docs/errors.md, provoked: what is said is what stands there."""

import errno
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import gymnasium
import jax
import numpy as np
import pytest
import rows_made_up
import small
import test_guard
from found import jobs_of

from regrow.cli import entry as cli
from regrow.diagnosis.diagnose import diagnose
from regrow.environments import ActionReward
from regrow.environments.atari import _number_of_actions
from regrow.environments.suite.base import facts
from regrow.errors import RegrowError
from regrow.execution.processes import Processes
from regrow.execution.tasks import Task
from regrow.experience import replay
from regrow.experiments.carry_out import begin
from regrow.files.atomic import read_sealed
from regrow.files.leases import LOCK, take
from regrow.records.query import query
from regrow.records.sinks import TensorBoard
from regrow.registry import make
from regrow.training import numerics
from regrow.training.train import train
from regrow.types import silent

TABLE = Path(__file__).parents[1] / "docs" / "errors.md"
OUT = Path("runs/x")
TINY = "double_dqn(hidden=16, learn_start=40, replay_capacity=400)"
LAYER_NORM = "double_dqn(layer_norm=True)"
STUDY = ["study", "pace", "--scale", "smoke", "--out", "runs/x"]
TOY = ["toy/action_reward", "--agent", TINY, "--out", "runs/x"]
ARMS = ["--arms", "nothing", "inject", "--fork-at", "200", "--horizon", "200"]
DIAGNOSED = [
    "diagnose",
    *TOY,
    *ARMS,
    "--fixed",
    "--replicates",
    "1",
    "--seeds",
    "2",
]  # what `made` has as "diagnosed"
BREAKOUT = ["minatar/breakout", "--agent", "double_dqn", "--out", "runs/x"]


class Stage(NamedTuple):
    """An empty folder to be in, and what may be put there."""

    patch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    made: Path

    def run(self, *arguments: str) -> str:
        """All that the command line says on standard error, and its problem."""
        self.capsys.readouterr()
        problem = cli.run(list(arguments))
        return self.capsys.readouterr().err + (f"regrow: {problem}\n" if problem else "")

    def put(self, what: str) -> Path:
        """A folder that was made before, as runs/x."""
        return Path(shutil.copytree(self.made / what, OUT))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A trained run, a diagnosis, and a study's rows, made once."""
    folder, agent = tmp_path_factory.mktemp("made"), make("agents", TINY)
    train(agent, ActionReward(), folder / "trained", env_steps=200, report=silent)
    plan = small.diagnosis_of(agent, ActionReward(), 200, 200)
    diagnose(plan, folder / "diagnosed")
    rows_made_up.write_study(folder / "studied", rows_made_up.rows_of(seeds=2))
    return folder


@pytest.fixture
def stage(made, tmp_path, monkeypatch, capsys) -> Stage:
    monkeypatch.chdir(tmp_path)
    return Stage(monkeypatch, capsys, made)


def saying(*arguments: str) -> Callable[[Stage], str]:
    return lambda stage: stage.run(*arguments)


def python(act: Callable[[], object]) -> str:
    with pytest.raises(RegrowError) as caught:
        act()
    return str(caught.value)


def without(module: str, *arguments: str) -> Callable[[Stage], str]:
    """A command where a package is not there; with it, it gets further."""

    def provoked(stage: Stage) -> str:
        facts.cache_clear()  # what an earlier test asked for needs no package
        _number_of_actions.cache_clear()
        with stage.patch.context() as patch:
            patch.setitem(sys.modules, module, None)
            said = stage.run(*arguments)
        assert "needs" in said
        assert "needs" not in stage.run(*arguments)
        return said

    return provoked


def of_another_plan(stage: Stage) -> str:
    stage.put("diagnosed")
    return stage.run(*DIAGNOSED[:-1], "3")


def among_other_things(stage: Stage) -> str:
    OUT.mkdir(parents=True)
    (OUT / "thesis.tex").write_text("")
    return stage.run("train", *TOY)


def studies_among_other_things(stage: Stage) -> str:
    OUT.mkdir(parents=True)
    (OUT / "thesis.tex").write_text("")
    return stage.run(*STUDY)


def in_a_file(*arguments: str) -> Callable[[Stage], str]:
    def provoked(stage: Stage) -> str:
        OUT.parent.mkdir()
        OUT.write_text("")
        return stage.run(*arguments)

    return provoked


def on_a_full_disk(stage: Stage) -> str:
    """The system itself refuses to write more than a few bytes into a file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        problem = cli.run(["train", *TOY])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in OUT.iterdir()] == []
    return str(problem)


def beside_another(stage: Stage) -> str:
    hold = take(OUT / LOCK)
    try:
        return stage.run("train", *TOY)
    finally:
        hold.release()


def under_other_draws(stage: Stage) -> str:
    stage.put("trained")
    jax.config.update("jax_threefry_partitionable", False)
    try:
        return stage.run("evaluate", "runs/x")
    finally:
        jax.config.update("jax_threefry_partitionable", True)


def cut(name: str, *arguments: str) -> Callable[[Stage], str]:
    """A command on a folder in which a file ends in its middle."""

    def provoked(stage: Stage) -> str:
        trained = name == "run.ckpt"
        path = stage.put("trained") / name if trained else jobs_of(stage.put("diagnosed")) / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        before = path.read_bytes()
        path.with_name("run.previous.ckpt").unlink(missing_ok=True)
        said = stage.run(*arguments)
        assert path.read_bytes() == before
        return said

    return provoked


def trained_otherwise(stage: Stage) -> str:
    stage.put("trained")
    other = ["--env-steps", "40", "--probe-every", "0", "--out", "runs/y"]
    assert stage.run("train", *TOY[:3], *other) == ""
    return stage.run("diagnose", "runs/x", "runs/y", "--out", "runs/z")


def with_a_run(*arguments: str) -> Callable[[Stage], str]:
    """A diagnosis of a trained run."""

    def provoked(stage: Stage) -> str:
        stage.put("trained")
        return stage.run("diagnose", "runs/x", *arguments, "--out", "runs/z")

    return provoked


def past_the_end(stage: Stage) -> str:
    stage.put("trained")
    return stage.run("train", *TOY, "--env-steps", "40", "--resume")


def a_broken_file_of_rows(stage: Stage) -> str:
    stage.put("studied")
    (OUT / "rows" / "broken.parquet").write_bytes(b"junk")
    return stage.run("export", "runs/x", "--to", "parquet")


def an_earlier_definition(stage: Stage) -> str:
    begin([make("studies", "generality")], "smoke", OUT)
    rows_made_up.write(OUT, rows_made_up.rows_of(seeds=1))
    rows_made_up.write(OUT, rows_made_up.rows_of("another", seeds=1))
    return stage.run("export", "runs/x", "--to", "parquet")


def no_rows(stage: Stage) -> str:
    OUT.mkdir(parents=True)
    return stage.run("export", "runs/x", "--to", "parquet")


def no_results(stage: Stage) -> str:
    OUT.mkdir(parents=True)
    return stage.run("report", "runs/x")


def not_done(stage: Stage) -> str:
    next((stage.put("diagnosed") / "rows").iterdir()).unlink()
    return stage.run("export", "runs/x", "--to", "parquet")


def no_curves(stage: Stage) -> str:
    Path("c.csv").write_text("a,b\n1,2\n")
    return stage.run("study", "resets", "--curves", "c.csv", "--at", "5")


def no_export(stage: Stage) -> str:
    stage.put("trained")
    return without("tensorboardX", "export", "runs/x", "--to", "tensorboard")(stage)


def no_wandb(stage: Stage) -> str:
    stage.put("trained")
    stage.patch.setitem(sys.modules, "wandb", None)
    return stage.run("export", "runs/x", "--to", "wandb")


def no_query(stage: Stage) -> str:
    return python(lambda: query(stage.put("studied"), "selec 1"))


def nothing_to_draw_with(stage: Stage) -> str:
    pytest.importorskip("dm_control.suite")
    stage.patch.setenv("MUJOCO_GL", "egl")
    stage.patch.setitem(sys.modules, "mujoco.egl", None)
    agent = "drq(replay_capacity=1000)"
    return stage.run("train", "pixels/walker-walk", "--agent", agent, "--out", "runs/x")


def little_memory(stage: Stage) -> str:
    stage.patch.setattr(replay, "_free_memory", lambda: int(22.4 * 2**30))
    return stage.run("train", "atari/pong", "--agent", "double_dqn(replay_capacity=100_000_000)")


def a_module_that_fails(stage: Stage) -> str:
    Path("mine.py").write_text("1 / 0")
    stage.patch.syspath_prepend(Path.cwd())
    return stage.run("train", *BREAKOUT[:1], "--agent", "mine:Agent")


def a_damaged_config(stage: Stage) -> str:
    path = stage.put("trained") / "config.json"
    path.write_bytes(path.read_bytes()[:-9])
    return stage.run("train", *TOY, "--resume")


def twice_damaged(stage: Stage) -> str:
    for name in ("run.ckpt", "run.previous.ckpt"):
        path = (OUT if OUT.is_dir() else stage.put("trained")) / name
        path.write_bytes(path.read_bytes()[:-9])
    return stage.run("train", *TOY, "--resume")


def a_package_that_fails(stage: Stage) -> str:
    """As dm_control does where MUJOCO_GL is no word that it knows."""
    for name in [n for n in sys.modules if n.split(".")[0] in ("dm_control", "mujoco")]:
        stage.patch.delitem(sys.modules, name)
    stage.patch.setenv("MUJOCO_GL", "nonsense")
    return stage.run("train", "control/walker-walk", "--agent", "sac")


def no_such_device(stage: Stage) -> str:
    numerics._require_device.cache_clear()
    before = jax.config.jax_default_device
    jax.config.update("jax_default_device", "gpu")
    try:
        return stage.run("train", *TOY)
    finally:
        jax.config.update("jax_default_device", before)


def a_number_that_is_none(stage: Stage) -> str:
    """Under JAX_DEBUG_NANS the first one stops the run where it was made."""
    tiny = "double_dqn(hidden=16, learn_start=40, replay_capacity=400, learning_rate=1e30)"
    with jax.debug_nans(True):
        return stage.run("train", TOY[0], "--agent", tiny, "--env-steps", "400", "--out", "runs/x")


def nothing_compiled(stage: Stage) -> str:
    numerics._warn_of_slowness.cache_clear()
    stage.put("trained")
    with jax.disable_jit():
        return stage.run("train", *TOY, "--resume", "--env-steps", "200", "--probe-every", "0")


def in_a_script(body: str, *, saved: bool = True) -> Callable[[Stage], str]:
    def provoked(stage: Stage) -> str:
        text = test_guard.HEAD + body
        if not saved:
            return test_guard.run(["-"], text).stderr
        Path("script.py").write_text(text)
        return test_guard.run(["script.py"]).stderr

    return provoked


def at_a_prompt(stage: Stage) -> str:
    return test_guard.run(["-c", test_guard.HEAD + test_guard.RUN]).stderr


def what_cannot_be_sent(stage: Stage) -> str:
    return python(lambda: Processes(1)([Task("one", (), lambda report: None)], silent))


def with_a_worker(act: Callable[[multiprocessing.Process], None]) -> Callable[[Stage], str]:
    """A diagnosis whose first worker is found and acted upon."""

    def provoked(stage: Stage) -> str:
        def found() -> None:
            while not (workers := multiprocessing.active_children()):
                time.sleep(0.01)
            act(workers[0])

        threading.Thread(target=found).start()
        command = ["diagnose", *TOY, "--fork-at", "200", "--horizon", "200", "--seeds", "2"]
        return stage.run(*command, "--arms", "nothing", "inject", "--processes", "1")

    return provoked


def when_begun(act: Callable[[int], None], pid: int) -> None:
    while not (OUT / "run.ckpt").is_file():
        time.sleep(0.02)
    act(pid)


def interrupted(stage: Stage) -> str:
    press = threading.Thread(
        target=when_begun, args=(lambda pid: os.kill(pid, signal.SIGINT), os.getpid())
    )
    press.start()
    return stage.run("train", *TOY, "--env-steps", "40_000_000", "--probe-every", "0")


def interrupted_twice(stage: Stage) -> str:
    command = [sys.executable, "-m", "regrow", "train", *TOY, "--env-steps", "40_000_000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def twice(pid: int) -> None:
        for _ in range(2):
            os.kill(pid, signal.SIGINT)
            time.sleep(0.02)

    when_begun(twice, process.pid)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    return err.removeprefix("\n")


FAULTY = "faulty:Host(fault='reward', at=30, copied=True)"


def trained_on(stage: Stage, name: str, seen: gymnasium.Space, taken: gymnasium.Space) -> str:
    class Own(gymnasium.Env):
        observation_space, action_space = seen, taken

    gymnasium.register(f"{name}-v0", entry_point=Own)
    try:
        return stage.run("train", f"gymnasium/{name}-v0")
    finally:
        del gymnasium.registry[f"{name}-v0"]


def words_to_see(stage: Stage) -> str:
    return trained_on(stage, "Words", gymnasium.spaces.Text(5), gymnasium.spaces.Discrete(2))


def rounded_actions(stage: Stage) -> str:
    taken = gymnasium.spaces.Box(0, 5, (2,), np.int64)
    return trained_on(stage, "Rounded", gymnasium.spaces.Box(-1, 1, (2,)), taken)


def no_longer_finite(stage: Stage) -> str:
    wild = TINY.replace(")", ", learning_rate=1e30)")
    options = ["--env-steps", "400", "--probe-every", "0", "--out", "runs/x"]
    return stage.run("train", "toy/action_reward", "--agent", wild, *options)


def impatient(stage: Stage) -> str:
    stage.patch.setenv("REGROW_PATIENCE", "soon")
    return stage.run("train", FAULTY, *TOY[1:])


def of_an_earlier_version(stage: Stage) -> str:
    path = stage.put("trained") / "config.json"
    config = read_sealed(path)
    del config["format"]
    path.write_text(json.dumps(config))
    return stage.run("train", *TOY, "--resume")


def nobody_logged_in(stage: Stage) -> str:
    here = os.getcwd()
    own = {"WANDB_MODE": "online", "HOME": here, "NETRC": f"{here}/netrc"}
    environment = {name: x for name, x in os.environ.items() if not name.startswith("WANDB")}
    command = [sys.executable, "-m", "regrow", "train", *TOY, "--log", "wandb"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment | own, stdin=subprocess.DEVNULL
    )
    return done.stderr


def a_full_log(stage: Stage) -> str:
    def full(self, name, value, env_steps):
        raise OSError(errno.ENOSPC, "No space left on device")

    stage.patch.setattr(TensorBoard, "scalar", full)
    short = ["--env-steps", "200", "--probe-every", "0"]
    return stage.run("train", *TOY, *short, "--log", "tensorboard")


def a_log_of_nothing(stage: Stage) -> str:
    plan = small.diagnosis_of(make("agents", TINY), ActionReward(), 200, 200)
    return python(lambda: diagnose(plan, log="csv"))


CASES: dict[str, Callable[[Stage], str]] = {
    "an unknown command, environment, agent": saying("train", "minatar/brekout"),
    "an unknown task, game or id": saying("train", "control/walkr-walk"),
    "a package of an environment that is not installed": without(
        "dm_control.suite", "train", "control/walker-walk", "--agent", "drq"
    ),
    "nothing to draw pictures with": nothing_to_draw_with,
    "observations that the agent does not take": saying(
        "train", "control/walker-walk", "--agent", "drq"
    ),
    "observations or actions of a kind that no agent": words_to_see,
    "actions that would not reach": rounded_actions,
    "observations that cannot be normalised": saying(
        "train", "minatar/breakout", "--agent", "double_dqn(normalize_observations=True)"
    ),
    "an environment that no module registers": saying("train", "gymnasium/no_such:Mine-v0"),
    "an id of Gymnasium that is a game": saying("train", "gymnasium/ALE/Pong-v5"),
    "an environment that shows or pays": saying("train", FAULTY, *TOY[1:], "--env-steps", "200"),
    "an agent whose parameters": no_longer_finite,
    "a patience that is no number": impatient,
    "an output folder, or a folder of studies, of an earlier": of_an_earlier_version,
    "an unknown log": saying("train", *TOY, "--log", "tensorbord"),
    "nobody is logged into Weights & Biases": nobody_logged_in,
    "a log that fails later": a_full_log,
    "a log of a diagnosis without a folder": a_log_of_nothing,
    "a replay that does not fit": little_memory,
    "networks that do not fit": saying(
        "train", *TOY[:1], "--agent", "double_dqn(hidden=10_000_000)"
    ),
    "a module of your own": a_module_that_fails,
    "an option without its value": saying("train", *TOY, "--out=--"),
    "a damaged config.json": a_damaged_config,
    "a run of which both saves": twice_damaged,
    "a time limit that is none": saying("diagnose", *BREAKOUT, "--seeds", "1M", "--fixed"),
    "a field that is given twice": saying("train", "atari/pong(game='breakout')"),
    "a field of the wrong type": saying(
        "diagnose", *BREAKOUT, "--arms", "nothing", "inject(split='a')"
    ),
    "a negative number of env steps": saying("diagnose", *BREAKOUT, "--fork-at", "-5"),
    "a number that is not whole": saying("train", *BREAKOUT, "--env-steps", "1.5"),
    "a fork after the end": saying(
        "diagnose", *BREAKOUT, "--fork-at", "9000", "--env-steps", "8000"
    ),
    "env steps that are not whole rounds": saying("train", *BREAKOUT, "--env-steps", "41"),
    "one seed with one replicate, arms without": saying(
        "diagnose", *BREAKOUT, "--seeds", "1", "--replicates", "1"
    ),
    "a range of returns": saying("diagnose", *BREAKOUT, "--range", "3", "1"),
    "two environments": saying("diagnose", *BREAKOUT[:1], *TOY[:1]),
    "trained runs that differ": trained_otherwise,
    "a rule that is none": saying("train", *BREAKOUT, "--do", "inject at noon"),
    "a rule that cannot be carried out": saying(
        "train", *BREAKOUT, "--do", "inject(split=7) at 40"
    ),
    "a shrink factor above 1": saying(
        "diagnose", *BREAKOUT, "--before", "shrink_perturb(shrink=1.2)"
    ),
    "`regrow probe` on a folder without a run": saying("probe", "runs/x"),
    "an output folder that holds another run": of_another_plan,
    "an output folder with other things in it": among_other_things,
    "a disk that is full": on_a_full_disk,
    "another process at work in the folder": beside_another,
    "a checkpoint of which JAX": under_other_draws,
    "a checkpoint cut in half": cut("run.ckpt", "train", *TOY, "--resume"),
    "a damaged result": cut("seed0-inject.json", *DIAGNOSED),
    "resuming where nothing is": saying("train", *TOY, "--resume"),
    "an unknown study or scale": saying("study", "pase"),
    "a folder for studies with other things in it": studies_among_other_things,
    "a file of rows that is broken": a_broken_file_of_rows,
    "rows of an earlier definition": an_earlier_definition,
    "a folder without rows": no_rows,
    "a report of what has no results": no_results,
    "an export of a diagnosis that was stopped": not_done,
    "published curves that are none": no_curves,
    "a package of an export or of `--log` that is not": no_export,
    "a query that cannot be carried out": no_query,
    "a package of an environment that is there, and fails": a_package_that_fails,
    "a platform or device that JAX does not find": no_such_device,
    "JAX_DEBUG_NANS": a_number_that_is_none,
    "JAX_DISABLE_JIT": nothing_compiled,
    "worker processes of a script without a guard": in_a_script(test_guard.RUN),
    "worker processes of a script from standard input": in_a_script(
        test_guard.GUARDED, saved=False
    ),
    "worker processes, and a class of a notebook": at_a_prompt,
    "worker processes, and what cannot be sent": what_cannot_be_sent,
    "a worker process that cannot start": in_a_script(
        test_guard.ELSEWHERE.removeprefix(test_guard.HEAD) + test_guard.GUARDED
    ),
    "a worker process ended from outside": with_a_worker(lambda worker: worker.kill()),
    "Ctrl-C, or SIGTERM": interrupted,
    "Ctrl-C twice, or where there is nothing to save (exit code 130)": interrupted_twice,
}
# What else a line of the table names, and a part of what is said then.
ARMS = ["diagnose", *BREAKOUT, "--arms"]
FURTHER: list[tuple[str, Callable[[Stage], str], str]] = [
    ("an unknown", saying("diagnos"), "no command 'diagnos'; did you mean 'diagnose'?"),
    ("an unknown", saying("train", "minatar/breakout", "--agent", "dubble_dqn"), "no agent 'dub"),
    ("an unknown", saying(*ARMS, "nothing", "injct"), "no intervention 'injct'; did you mean"),
    ("an unknown", saying(*ARMS, "nothing", "inject(at=1)"), "no field of inject 'at'; there are"),
    ("an unknown", saying("list", "probe"), "no family 'probe'; did you mean 'probes'?"),
    ("an unknown task", saying("train", "atari/pongg"), "no game of atari 'pongg'; did you mean"),
    ("an unknown task", saying("train", "gymnasium/CartPol-v1"), "'CartPol-v1'; did you mean"),
    (
        "a package of an environment",
        without("ale_py", "train", "atari/tennis", "--agent", "sac"),
        "atari/tennis needs ale-py: pip install 'regrow[atari]' (",
    ),
    (
        "a package of an environment",
        without("gymnasium", "train", "gymnasium/CartPole-v1", "--agent", "sac"),
        "gymnasium/CartPole-v1 needs gymnasium: pip install 'regrow[gymnasium]' (",
    ),
    (
        "a package of an environment",
        without("dm_control.suite", "train", "pixels/hopper-hop", "--agent", "double_dqn"),
        "pixels/hopper-hop needs dm_control: pip install 'regrow[pixels]' (",
    ),
    ("two env", with_a_run("--agent", TINY), "--agent is given, but the folders hold trained"),
    (
        "two env",
        with_a_run("--fork-at", "100"),
        "fork_at is 100; trained runs are forked where they are, at 200",
    ),
    ("trained runs", with_a_run("--seeds", "3"), "seeds is 3; there are 1 trained agents to fork"),
    ("trained runs", with_a_run("runs/x"), "a run is given twice"),
    ("one seed", saying("diagnose", *BREAKOUT, "--seeds", "0"), "seeds is 0; it must be at least"),
    (
        "one seed",
        saying("diagnose", *BREAKOUT, "--replicates", "0"),
        "replicates is 0; it must be at least 1",
    ),
    (
        "a time limit",
        saying("diagnose", *BREAKOUT, "--minutes", "nan"),
        "minutes is nan; it must be a number, 0 or more",
    ),
    ("one seed", saying(*ARMS, "inject", "reset"), "the arms must include 'nothing'"),
    ("one seed", saying(*ARMS, "nothing", "reset"), "the arms must include an injection"),
    ("one seed", saying(*ARMS, "nothing", "inject", "inject"), "the arm 'inject' is there twice"),
    ("a rule", saying("train", *BREAKOUT, "--do", "injekt at 4"), "no intervention 'injekt'; did"),
    (
        "a rule",
        saying("train", *BREAKOUT, "--do", "inject when ded_units above 1"),
        "no probe 'ded_units'; did you mean 'dead_units'?",
    ),
    ("a rule", saying(*ARMS, "nothing", "inject every 2M"), "is never due from the fork at"),
    (
        "a shrink factor",
        saying("train", BREAKOUT[0], "--do", "widen at 400", "--agent", LAYER_NORM),
        "widen: this network has layer normalisation, so new units would change its output",
    ),
    ("an output folder", in_a_file("train", *TOY), "runs/x is a file; --out must be"),
    ("a folder for studies", in_a_file(*STUDY), "runs/x is a file; --out must be a"),
    ("resuming where", past_the_end, "the run in runs/x is at 200 env steps, past the 40 asked"),
    ("an unknown study", saying("study", "pace", "--scale", "lapto"), "no scale 'lapto'; did you"),
    ("a package of an export or of", no_wandb, "this needs wandb: pip in"),
    ("a negative number", saying("train", *BREAKOUT, "--env-steps", "3G"), "'3G' is not a whole"),
    (
        "a negative number",
        saying("train", *BREAKOUT, "--env-steps", "1e10"),
        "1e10 is out of range",
    ),
]


# What starts processes of its own, or simulators: the files that it is in have it in short.
SLOW = {
    *(
        "worker processes of a script",
        "a worker process that cannot",
        "Ctrl-C twice, or where there is nothing to save (exit code 130)",
    ),
    *("worker processes, and a class of a notebook", "JAX_DEBUG_NANS", "nobody is logged into"),
}


def lines_of(table: str) -> list[tuple[str, str]]:
    """(what, what is said) of every line of the table."""
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return [(what, said) for what, said in rows if what != "what"]


ROWS = lines_of(TABLE.read_text("utf-8"))


def cases_of(what: str) -> list[str]:
    return [begins for begins in CASES if f"{what} |".startswith(begins)]


def test_every_line_of_the_table_has_one_case_and_every_case_a_line():
    assert len(ROWS) > 40
    for what, _ in ROWS:
        assert len(cases_of(what)) == 1, f"give CASES one that provokes: {what}"
    used = {begins for what, _ in ROWS for begins in cases_of(what)}
    assert used == set(CASES)


def test_a_line_that_is_not_provoked_is_found():
    table = TABLE.read_text("utf-8") + "| the moon, full | `no work at full moon` |\n"
    assert lines_of(table)[-1] == ("the moon, full", "`no work at full moon`")
    assert cases_of("the moon, full") == []


def matches(documented: str, said: str) -> bool:
    """Whether some line of what was said is the documented text, … being anything."""
    (text, *_) = re.findall(r"`([^`]*)`", documented)
    pattern = ".*".join(re.escape(part) for part in text.split("…"))
    lines = (re.sub(r"^(regrow|regrow\.errors\.\w+): ", "", line) for line in said.splitlines())
    return any(re.fullmatch(pattern, line.replace("`", "")) for line in lines)


def marked(what: str, said: str):
    slow = any(what.startswith(begins) for begins in SLOW)
    return pytest.param(what, said, id=what[:50], marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize(("what", "documented"), [marked(*row) for row in ROWS])
def test_what_is_said_is_what_stands_there(what, documented, stage):
    (begins,) = cases_of(what)
    said = CASES[begins](stage)
    assert matches(documented, said), f"documented: {documented}\nsaid: {said}"
    if "warning" not in what and "Python" not in what and "worker" not in what:
        assert said.count("\n") <= 1, said


def _name(x: object) -> str:
    return str(x)[:40] if isinstance(x, str) else ""


@pytest.mark.parametrize(("begins", "provoke", "part"), FURTHER, ids=_name)
def test_what_else_a_line_names(begins, provoke, part, stage):
    assert any(what.startswith(begins) for what, _ in ROWS)
    said = provoke(stage)
    assert part in said
    assert said.count("\n") == 1

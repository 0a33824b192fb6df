"""Work on a Ray cluster, and on SLURM through submitit's executor for this machine."""

import os
import random
import signal
import sys
import threading
import time
from functools import partial

import psutil
import pytest
import small
from refusals import refused_in_a_line
from test_kills import compared

from regrow.agents import DoubleDQN
from regrow.diagnosis.diagnose import carry_out
from regrow.environments import ActionReward
from regrow.errors import NotFiniteError
from regrow.execution.choice import executor
from regrow.execution.interrupts import StoppedError
from regrow.execution.on_ray import Ray
from regrow.execution.on_slurm import Slurm
from regrow.execution.tasks import Resources, Task

pytest.importorskip("ray")
submitit = pytest.importorskip("submitit")
# What Ray and submitit leave to Python's end to close.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
AGENT = DoubleDQN(hidden=16, learn_start=40, replay_capacity=400)
PLAN = small.diagnosis_of(AGENT, ActionReward(), 200, 200)
LONG = small.diagnosis_of(AGENT, ActionReward(), 8_000, 8_000)
LOCAL = {"cluster": "local"}


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of two nodes on this machine; the work is on the second, which may die."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        running = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        patch.setenv("RAY_ADDRESS", running.address)
        yield running
        running.shutdown()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The rows of the plan, and of the long one, as one process makes them."""
    found = {}
    for name, plan in (("plan", PLAN), ("long", LONG)):
        folder = tmp_path_factory.mktemp(name)
        carry_out(plan, folder)
        found[name] = compared(folder)
    return found


def quick(report):
    report("quick", 3)


def failing(report):
    raise NotFiniteError("q is NaN")


def raising(report):
    raise ZeroDivisionError


def dying(report):
    os.kill(os.getpid(), signal.SIGKILL)


def dying_once(marker, report):
    """Its process is killed at the first try."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def counting(file, report):
    """Counts to 60 over at least three seconds, and resumes where it was stopped."""
    count = int(file.read_text()) if file.exists() else 0
    with file.with_suffix(".begun").open("a") as begun:
        begun.write(f"{count}\n")
    try:
        while count < 60:
            time.sleep(0.05)
            count += 1
            report("counting", 1)
    finally:
        file.write_text(str(count))


def endless(report):
    while True:
        time.sleep(0.05)
        report("endless", 1)


def made(kind, folder):
    return Ray() if kind == "ray" else Slurm(folder / "slurm", LOCAL)


KINDS = ["ray", "slurm"]


@pytest.mark.parametrize("kind", ["ray", pytest.param("slurm", marks=pytest.mark.slow)])
def test_a_diagnosis_on_a_cluster_is_that_of_one_process(cluster, straight, tmp_path, kind):
    told = []
    carry_out(
        PLAN,
        tmp_path / "out",
        execute=made(kind, tmp_path),
        report=lambda phase, steps: told.append(steps),
    )
    assert compared(tmp_path / "out") == straight["plan"]
    assert sum(told) == PLAN.env_steps(PLAN.looks[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.always
def test_what_a_task_raises_is_raised_here(cluster, tmp_path, kind):
    needing = [Task("first", (), failing), Task("second", ("first",), quick)]
    with pytest.raises(NotFiniteError, match="q is NaN"):
        made(kind, tmp_path)(needing, lambda phase, steps: None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.always
def test_a_task_whose_process_dies_is_begun_again(cluster, tmp_path, kind):
    marker = tmp_path / "marker"
    task = Task("once", (), partial(dying_once, marker))
    made(kind, tmp_path)([task], lambda phase, steps: None)
    assert marker.exists()


def preempting(folder, sent: list[int], after: float = 0.0) -> None:
    """Sends SLURM's signal to the jobs of a folder that have run for so long."""
    for process in psutil.process_iter():
        words = _words(process)
        ours = "submitit.core._submit" in words and str(folder) in words[-1]
        if ours and time.time() - process.create_time() > after:
            process.send_signal(signal.SIGUSR2)
            sent.append(process.pid)


@pytest.mark.always
def test_a_preempted_task_saves_is_queued_again_and_goes_on(tmp_path):
    count, sent = tmp_path / "count", []
    begun = count.with_suffix(".begun")

    def preempt():
        while not begun.exists():
            time.sleep(0.1)
        time.sleep(1.0)
        preempting(tmp_path, sent)

    thread = threading.Thread(target=preempt)
    thread.start()
    task = Task("counting", (), partial(counting, count))
    Slurm(tmp_path / "slurm", LOCAL)([task], lambda phase, steps: None)
    thread.join()
    assert sent
    assert count.read_text() == "60"
    first, second = map(int, begun.read_text().split())
    assert first == 0 < second < 60


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS])
def test_a_task_that_always_dies_is_given_up(cluster, tmp_path, kind):
    with refused_in_a_line("always"):
        made(kind, tmp_path)([Task("always", (), dying)], lambda phase, steps: None)


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_ends_what_runs_and_does_not_begin_what_waits(cluster, tmp_path, kind):
    tasks = [Task(f"task {n}", (), endless) for n in range(3)]
    threading.Timer(4.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(StoppedError, match="everything so far is saved"):
        made(kind, tmp_path)(tasks, lambda phase, steps: None)
    assert time.monotonic() - began < 30
    if kind == "slurm":
        own = [p for p in psutil.process_iter() if str(tmp_path) in " ".join(_words(p))]
        _, left = psutil.wait_procs(own, timeout=20)
        assert not left


def _words(process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_task_that_fits_nowhere_is_told(cluster):
    huge = Task("huge", (), quick, resources=Resources(memory=10**15))
    with refused_in_a_line("of memory, and the largest node of the Ray cluster has"):
        Ray()([huge], lambda phase, steps: None)


def test_gpus_are_asked_for(cluster, tmp_path):
    """There is none here, so that Ray refuses; SLURM is handed the number."""
    with refused_in_a_line("a job needs 1 of GPU, and the largest node of the Ray cluster has 0"):
        Ray(gpus=1.0)([Task("a", (), quick)], lambda phase, steps: None)
    asked = executor("slurm", tmp_path, options=["cluster=local"], gpus=2.0)
    assert asked._executor(Resources())._executor.parameters["gpus_per_node"] == 2


def killing_node(cluster, straight, folder, after: float) -> bool:
    """Carries the long plan out; its node dies meanwhile and another comes. Whether it did."""
    nodes, hit = [cluster.add_node(num_cpus=1) for _ in range(2)], []

    def kill():
        hit.append(True)
        cluster.remove_node(nodes[0], allow_graceful=False)

    timer = threading.Timer(after, kill)
    timer.start()
    carry_out(LONG, folder, execute=Ray())
    timer.cancel()
    timer.join()
    assert compared(folder) == straight["long"]
    for node in nodes[bool(hit) :]:
        cluster.remove_node(node)
    return bool(hit)


@pytest.mark.slow
def test_where_a_node_dies_the_rows_are_the_same(cluster, straight, tmp_path):
    assert killing_node(cluster, straight, tmp_path, 8.0)


@pytest.mark.slow
def test_where_a_node_dies_at_ten_moments_the_rows_are_the_same(cluster, straight, tmp_path):
    draws, kills, rounds = random.Random(0), 0, 0
    while kills < 10:
        kills += killing_node(cluster, straight, tmp_path / str(rounds), draws.uniform(2, 15))
        rounds += 1
    print(f"{kills} nodes killed in {rounds} rounds")


@pytest.mark.slow
def test_a_preempted_job_goes_on_where_it_was(straight, tmp_path, monkeypatch):
    """By the signal that SLURM sends; the log of submitit says that it was queued again."""
    monkeypatch.setenv("REGROW_SAVE_EVERY", "0.2")
    sent = []
    timers = [
        threading.Timer(after, preempting, (tmp_path, sent, 5.0)) for after in range(6, 40, 3)
    ]
    for timer in timers:
        timer.start()
    carry_out(LONG, tmp_path / "out", execute=Slurm(tmp_path / "slurm", LOCAL))
    for timer in timers:
        timer.cancel()
    assert sent
    assert compared(tmp_path / "out") == straight["long"]
    logs = "".join(path.read_text() for path in (tmp_path / "slurm").glob("*_log.err"))
    assert "this job is preempted" in logs


def test_places_that_are_none_are_named(tmp_path):
    def made(on, processes=None, options=()):
        return executor(on, tmp_path, processes=processes, options=options)

    for on, options, said in (
        ("slrum", (), "no place to run on 'slrum'; did you mean 'slurm'?"),
        ("local", ["partition=gpu"], "--slurm goes with --on slurm, not with --on local"),
        ("slurm", ["gpu"], "--slurm takes KEY=VALUE, as in partition=gpu, not 'gpu'"),
    ):
        with refused_in_a_line(said):
            made(on, options=options)
    for on, gpus, said in (
        ("local", 1.0, "--gpus goes with --on ray and --on slurm"),
        ("slurm", 0.5, "--gpus is 0.5; SLURM gives whole GPUs"),
        ("slurm", float("inf"), "--gpus is inf; it must be from 0 to 1000"),
        ("ray", -1.0, "--gpus is -1; it must be from 0 to 1000"),
    ):
        with refused_in_a_line(said):
            executor(on, tmp_path, gpus=gpus)
    with refused_in_a_line("--processes goes with --on local"):
        made("slurm", processes=2)
    with refused_in_a_line("--on slurm: "):
        made("slurm", options=["cluster=local", "tpus=3"])([Task("a", (), quick)], print)


@pytest.mark.slow
def test_a_cluster_that_cannot_be_reached_is_named(tmp_path):
    """Ray tries for half a minute."""
    made = executor("ray://127.0.0.1:9", tmp_path, processes=None, options=())
    with refused_in_a_line("cannot reach a Ray cluster at ray://127.0.0.1:9"):
        made([Task("a", (), quick)], print)

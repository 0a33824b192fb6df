"""`regrow doctor`: what is installed, what would run where, and a small run."""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from regrow.cli.arguments import folder, shown
from regrow.errors import RegrowError, require

if TYPE_CHECKING:
    from regrow.files.places import Place

PACKAGES = {
    "jax": "",
    "equinox": "",
    "optax": "",
    "gymnasium": "gymnasium",
    "ale-py": "atari",
    "dm_control": "control",
    "torch": "torch",
    "stable-baselines3": "sb3",
    "sb3-contrib": "sb3",
    "flax": "flax",
    "tensorboardX": "tensorboard",
    "wandb": "wandb",
    "s3fs": "s3",
    "gcsfs": "gs",
    "ray": "ray",
    "submitit": "slurm",
}
"""Packages, and the extra of regrow that installs each."""


class Told(NamedTuple):
    """A line of the report; `wrong`: whether something has to be done about it."""

    what: str
    text: str
    wrong: bool = False


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `regrow doctor`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Says what is installed, what this machine has, what would run where, whether a folder or\n"
        "URL can be worked in, and carries out a small run. Exit code 2 if something is wrong."
    )
    parser.add_argument(
        "--out", type=folder, default="runs", help="a folder or URL to try (default: runs)"
    )
    parser.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> None:
    from regrow.execution.processes import keep_compiled_programs, one_core

    one_core()
    keep_compiled_programs()
    wrong = list[str]()
    parts: tuple[tuple[str, Callable[[], Iterator[Told]]], ...] = (
        ("Installed", _installed),
        ("This machine", _machine),
        ("What would run where", _places),
        (f"Results in {shown(options.out)}", lambda: _results(options.out)),
        ("A small run", _small_run),
    )
    for title, told in parts:
        print(f"\n{title}" if title != "Installed" else title)
        for line in told():
            print(f"  {'✗' if line.wrong else ' '} {line.what:<20} {line.text}", flush=True)
            wrong += [line.what] if line.wrong else []
    require(not wrong, f"something is wrong with {', '.join(wrong)}; see above")


def _installed() -> Iterator[Told]:
    yield Told("regrow", importlib.metadata.version("regrow"))
    yield Told("Python", f"{platform.python_version()}, {platform.platform()}")
    for name, extra in PACKAGES.items():
        try:
            yield Told(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Told(
                name, f"not installed; pip install 'regrow[{extra}]'" if extra else "missing"
            )


def _machine() -> Iterator[Told]:
    import jax

    from regrow.execution.memory import free_memory, in_words, total_memory
    from regrow.execution.processes import cores

    yield Told("cores", f"{cores()} of {os.cpu_count()}")
    yield Told("memory", f"{in_words(free_memory())} free of {in_words(total_memory())}")
    yield Told("temporary files", f"{in_words(shutil.disk_usage(tempfile.gettempdir()).free)} free")
    devices = ", ".join(f"{device.device_kind} ({device.platform})" for device in jax.devices())
    yield Told("JAX computes on", devices)
    try:
        import torch
    except ImportError:
        return
    cuda = torch.cuda.is_available()
    yield Told("PyTorch has", torch.cuda.get_device_name() if cuda else "no GPU")


def _places() -> Iterator[Told]:
    from regrow.execution.memory import free_memory, in_words
    from regrow.execution.processes import cores
    from regrow.registry import make
    from regrow.sources.native import Native
    from regrow.training.default_agent import default_agent

    for name in ("minatar/breakout", "atari/breakout"):
        try:
            environment = make("environments", name)
            needed = Native(default_agent(environment), environment).memory()
        except RegrowError as error:
            yield Told(name, str(error))
            continue
        fit = max(min(cores(), int(free_memory() // needed)), 0)
        yield Told(name, f"{in_words(needed)} of memory for a job: {fit} at once on this machine")
    address = os.environ.get("RAY_ADDRESS")
    found = f"the cluster at {address}" if address else "would start a cluster of this machine"
    yield Told("--on ray", found if _has("ray") else "pip install 'regrow[ray]'")
    found = "sbatch is here" if shutil.which("sbatch") else "no sbatch: not a machine of a cluster"
    yield Told("--on slurm", found if _has("submitit") else "pip install 'regrow[slurm]'")


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _results(out: "Place") -> Iterator[Told]:
    """Tries what work in a place takes: whole files, files that are created once, a lease."""
    from regrow.execution.memory import in_words
    from regrow.files.atomic import create_atomically, delete, write_atomically
    from regrow.files.leases import take
    from regrow.files.places import listed

    trial = out / f".doctor-{os.getpid()}"
    try:
        content, began = os.urandom(10_000_000), time.perf_counter()
        write_atomically(trial / "whole", lambda file: file.write(content))
        seconds = time.perf_counter() - began
        yield Told("writes", f"{in_words(len(content) / seconds)} per second")
        once = [create_atomically(trial / "once", b"") for _ in range(2)]
        yield Told("creates once", "yes" if once == [True, False] else "no", once != [True, False])
        lease = take(trial / "lease")
        second = take(trial / "lease")
        alone = lease is not None and second is None
        yield Told("leases", "one worker at a time" if alone else "two workers at once", not alone)
        if lease is not None:
            lease.release()
    except RegrowError as error:
        yield Told("writes", str(error), wrong=True)
        return
    for path in listed(trial):
        delete(path)
    if isinstance(trial, Path):
        trial.rmdir()


def _small_run() -> Iterator[Told]:
    """Trains, injects, saves and resumes, and compares."""
    from regrow.agents import DoubleDQN
    from regrow.environments import ActionReward
    from regrow.interventions import Inject
    from regrow.training.checkpoint import load, save
    from regrow.training.run import Run

    began = time.perf_counter()
    agent = DoubleDQN(hidden=16, learn_start=40, replay_capacity=400)
    try:
        run, _ = Run.start(agent, ActionReward(), seed=0).advance(400)
        injected, each = run.intervene(Inject()), agent.env_steps_per_round
        before, after = (one.fork().advance(each)[1].value[0] for one in (run, injected))
        same = bool(before == after)
        yield Told("injection", "output unchanged" if same else "output changed", not same)
        with tempfile.TemporaryDirectory() as place:
            save(injected, Path(place) / "run.ckpt")
            resumed = load(Path(place) / "run.ckpt")
        first, second = (one.advance(200)[1].value for one in (injected, resumed))
        same = bool((first == second).all())
        yield Told("resumed", "as if never stopped" if same else "otherwise", not same)
        yield Told("time", f"{time.perf_counter() - began:.0f} s, compilation included")
    except RegrowError as error:
        yield Told("training", str(error), wrong=True)

"""Fork a training run into arms that differ in one intervention, train them on, compare.

    seed ──train──▶ fork_at ──before──▶ fork ┬─ nothing ──horizon──▶ outcome
                                             ├─ again   (nothing, other draws: the noise floor)
                                             ├─ inject
                                             └─ reset

The work is cut into cells: one per seed up to the fork, then one per seed and arm. A cell reads and
writes files in one folder and nothing else, so cells run in any order that respects the fork, in as
many processes as there are, and a diagnosis that was stopped goes on where it was.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from regrow.agents.base import Agent
from regrow.checkpoint import load, read_json, save, write_atomically, write_json
from regrow.environments.base import Environment
from regrow.errors import RegrowError, require
from regrow.families import describe, make, members
from regrow.interventions.base import Intervention
from regrow.interventions.inject import Inject
from regrow.interventions.nothing import Nothing
from regrow.interventions.reset import Reset
from regrow.probes.base import Probe
from regrow.run import Run, random_policy
from regrow.statistics import learning_curve, realised_values
from regrow.types import Log
from regrow.verdict import Outcome, Verdict, conclude

BINS = 20
RANDOM_STEPS = 10_000
SAVE_EVERY = 60.0  # seconds between saves within a cell

Report = Callable[[str, int], None]
"""`report(phase, env_steps)`: so many more env steps are done. It may raise to stop the work."""


class Arm(NamedTuple):
    """What is done at the fork; `draws` other than 0 gives the arm random numbers of its own."""

    name: str
    intervention: Intervention
    draws: int = 0

    @staticmethod
    def parse(text: str) -> "Arm":
        """An arm from its name: `again`, or an intervention as in `inject(split=0)`."""
        if text == "again":
            return Arm("again", Nothing(), draws=1)
        return Arm(text.strip(), make("interventions", text))


DEFAULT_ARMS = ("nothing", "again", "inject", "reset")


@dataclass(frozen=True)
class Diagnosis:
    """A diagnosis to be made: what is trained, where it forks, and into what.

    `fork_at` and `horizon` are env steps, multiples of the agent's round; `before` is carried out
    ahead of the fork, in all arms; `seeds` counts from 0. Raises `RegrowError` for a plan that
    cannot give a verdict.
    """

    agent: Agent
    environment: Environment
    arms: tuple[Arm, ...] = tuple(Arm.parse(name) for name in DEFAULT_ARMS)
    seeds: int = 5
    fork_at: int = 60_000
    horizon: int = 40_000
    before: tuple[Intervention, ...] = ()
    smallest_effect: float = 0.05
    confidence: float = 0.95

    def __post_init__(self) -> None:
        per_round = self.agent.env_steps_per_round
        for name in ("fork_at", "horizon"):
            value = getattr(self, name)
            least = per_round * (BINS if name == "horizon" else 1)
            require(value >= least, f"{name} is {value}; it must be at least {least} env steps")
            require(
                value % per_round == 0,
                f"{name} is {value}; it must be a multiple of {per_round}, the env steps per round",
            )
        require(self.seeds >= 2, f"seeds is {self.seeds}; a verdict needs at least 2")
        require(
            self.smallest_effect > 0, f"smallest_effect is {self.smallest_effect}; it must be > 0"
        )
        require(
            0 < self.confidence < 1, f"confidence is {self.confidence}; it must be between 0 and 1"
        )
        names = [arm.name for arm in self.arms]
        for name in names:
            require(names.count(name) == 1, f"the arm '{name}' is there twice")
        require(
            "nothing" in names, "the arms must include 'nothing': the others are paired with it"
        )
        require(
            any(isinstance(arm.intervention, Inject) for arm in self.arms),
            f"the arms must include an injection, e.g. 'inject'; received: {', '.join(names)}",
        )

    def config(self) -> dict[str, Any]:
        """The plan as plain data; `from_config` reads it."""
        return {
            "agent": describe(self.agent),
            "environment": describe(self.environment),
            "arms": [arm.name for arm in self.arms],
            "seeds": self.seeds,
            "fork_at": self.fork_at,
            "horizon": self.horizon,
            "before": [describe(intervention) for intervention in self.before],
            "smallest_effect": self.smallest_effect,
            "confidence": self.confidence,
        }

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> "Diagnosis":
        """The plan that `config` wrote down."""
        return Diagnosis(
            agent=make("agents", config["agent"]),
            environment=make("environments", config["environment"]),
            arms=tuple(Arm.parse(text) for text in config["arms"]),
            before=tuple(make("interventions", text) for text in config["before"]),
            **{
                name: config[name]
                for name in ("seeds", "fork_at", "horizon", "smallest_effect", "confidence")
            },
        )

    @property
    def env_steps(self) -> int:
        """Env steps of all cells together."""
        return self.seeds * (self.fork_at + len(self.arms) * self.horizon)

    def injection(self) -> str:
        """The arm that the claim is about: the first injection."""
        return next(arm.name for arm in self.arms if isinstance(arm.intervention, Inject))

    def resets(self) -> list[str]:
        """The arms that are resets."""
        return [arm.name for arm in self.arms if isinstance(arm.intervention, Reset)]


# Cells.


@dataclass(frozen=True)
class Cell:
    """One piece of the work: `arm` None is a seed's way up to the fork."""

    seed: int
    arm: str | None

    @property
    def name(self) -> str:
        """What the cell's files are called."""
        word = "fork" if self.arm is None else "".join(c if c.isalnum() else "-" for c in self.arm)
        return f"seed{self.seed}-{word}"

    def result(self, folder: Path) -> Path:
        """Where the cell's result is written when it is done."""
        return folder / "cells" / f"{self.name}.json"

    def checkpoint(self, folder: Path) -> Path:
        """Where the cell keeps its Run."""
        return folder / "cells" / f"{self.name}.ckpt"


def cells(plan: Diagnosis) -> list[tuple[Cell, Cell | None]]:
    """All cells, each with the cell it waits for; forks come first, seed by seed."""
    forks = [Cell(seed, None) for seed in range(plan.seeds)]
    arms = [(Cell(fork.seed, arm.name), fork) for fork in forks for arm in plan.arms]
    return [*((fork, None) for fork in forks), *arms]


def run_cell(plan: Diagnosis, cell: Cell, folder: Path, report: Report) -> None:
    """Does one cell's work and writes its result; does nothing where that is there already.

    Where `report` raises, or anything else stops the work, what was done is kept and the next call
    goes on from there.
    """
    if cell.result(folder).is_file():
        steps = plan.fork_at if cell.arm is None else plan.horizon
        report(cell.name, steps)
        return
    began = time.perf_counter()
    if cell.arm is None:
        content = _fork(plan, cell, folder, report)
    else:
        content = _branch(plan, cell, folder, report)
    write_json(cell.result(folder), {**content, "seconds": time.perf_counter() - began})


def _fork(plan: Diagnosis, cell: Cell, folder: Path, report: Report) -> dict[str, Any]:
    """Trains one seed up to the fork, does what comes before it, saves the Run, probes."""
    run, log = _followed(
        lambda: Run.start(plan.agent, plan.environment, seed=cell.seed),
        plan.fork_at,
        folder / "cells" / f"{cell.name}.part",
        lambda steps: report(f"seed {cell.seed} to the fork", steps),
    )
    for intervention in plan.before:
        report(f"seed {cell.seed}, {describe(intervention)}", 0)
        run = run.intervene(intervention)
    report(f"seed {cell.seed}, probes", 0)
    save(run, cell.checkpoint(folder))
    return {
        "seed": cell.seed,
        "curve": _curve(log, min(BINS, plan.fork_at)),
        "probes": measured(run),
        "probes_fresh": measured(run, fresh=True),
    }


def _branch(plan: Diagnosis, cell: Cell, folder: Path, report: Report) -> dict[str, Any]:
    """Takes one seed's fork, carries out the arm's intervention, trains on over the horizon."""
    arm = next(arm for arm in plan.arms if arm.name == cell.arm)
    fork = Cell(cell.seed, None)

    def start() -> Run:
        return load(fork.checkpoint(folder)).fork(arm.draws).intervene(arm.intervention)

    run, log = _followed(
        start,
        plan.fork_at + plan.horizon,
        folder / "cells" / f"{cell.name}.part",
        lambda steps: report(f"seed {cell.seed}, {arm.name}", steps),
    )
    before = read_json(fork.result(folder))["curve"][-1]
    values = realised_values(log.reward, log.terminated, log.truncated, plan.agent.discount)
    known = np.abs(values[np.isfinite(values)])
    predicted = np.array_split(np.nan_to_num(np.abs(log.value), nan=np.inf), BINS)
    outcome = Outcome(
        arm=arm.name,
        seed=cell.seed,
        curve=tuple(_curve(log, BINS, before=before)),
        predicted=tuple(float(min(part.mean(dtype=np.float64), 1e30)) for part in predicted),
        realised=float(known.mean()) if known.size else 0.0,
        largest_reward=float(np.abs(log.reward).max()),
        probes=measured(run),
    )
    return asdict(outcome)


def _followed(
    start: Callable[[], Run], until: int, kept: Path, report: Callable[[int], None]
) -> tuple[Run, Log]:
    """(the Run at `until`, its whole log from where `start` had it); in `kept` on the way."""
    checkpoint, logs = kept.with_suffix(".part.ckpt"), kept.with_suffix(".part.npz")
    run, log = _resumed(start, checkpoint, logs)
    report(len(log.reward))
    saved = time.monotonic()
    piece = 2_000 // run.agent.env_steps_per_round * run.agent.env_steps_per_round
    while (now := run.env_steps) < until:
        run, more = run.advance(min(piece, until - now))
        log = Log(*(np.concatenate(pair) for pair in zip(log, more, strict=True)))
        try:
            report(len(more.reward))
        except BaseException:
            _keep(run, log, checkpoint, logs)
            raise
        if time.monotonic() - saved > SAVE_EVERY:
            _keep(run, log, checkpoint, logs)
            saved = time.monotonic()
    checkpoint.unlink(missing_ok=True)
    logs.unlink(missing_ok=True)
    return run, log


def _resumed(start: Callable[[], Run], checkpoint: Path, logs: Path) -> tuple[Run, Log]:
    """Where the last call left off, or the start with an empty log."""
    if not (checkpoint.is_file() and logs.is_file()):
        return start(), Log(*(np.zeros(0, dtype) for dtype in _LOG_TYPES))
    run = load(checkpoint)
    with np.load(logs, allow_pickle=False) as held:
        # The log is written first: after a crash between the two it may be ahead of the Run.
        steps = run.env_steps - int(held["start"])
        return run, Log(*(held[name][:steps] for name in Log._fields))


_LOG_TYPES = (np.float32, np.bool_, np.bool_, np.float32, np.float32)


def _keep(run: Run, log: Log, checkpoint: Path, logs: Path) -> None:
    start = run.env_steps - len(log.reward)
    write_atomically(logs, lambda file: np.savez(file, start=start, **log._asdict()))
    save(run, checkpoint)


def _curve(log: Log, bins: int, *, before: float = float("nan")) -> list[float]:
    ended = log.terminated | log.truncated
    return learning_curve(log.episode_return, ended, bins=bins, before=before).tolist()


def every_probe() -> dict[str, Probe]:
    """All probes with their default fields, for the encoder and for the head, by name."""
    return {
        f"{name}.{part}": probe(part=part)
        for name, probe in members("probes").items()
        for part in ("encoder", "head")
    }


def measured(run: Run, *, fresh: bool = False) -> dict[str, float]:
    """Every probe on every Learner; a lone Learner's name is left out."""
    probes = every_probe()
    values = run.probe(tuple(probes.values()), fresh=fresh)
    return {
        name if len(each) == 1 else f"{learner}.{name}": value
        for name, each in zip(probes, values, strict=True)
        for learner, value in each.items()
    }


# The whole.


class Task(NamedTuple):
    """A cell to run and the cells that must be done before it."""

    name: str
    needs: tuple[str, ...]
    work: Callable[[Report], None]


@runtime_checkable
class Execute(Protocol):
    """Runs tasks, each after those that it needs."""

    def __call__(self, tasks: Sequence[Task], report: Report) -> None:
        """Returns when all are done."""
        ...


def in_order(tasks: Sequence[Task], report: Report) -> None:
    """Runs tasks one after the other, in this process."""
    for task in tasks:
        task.work(report)


def _silent(phase: str, env_steps: int) -> None:
    del phase, env_steps


def tasks(plan: Diagnosis, folder: Path) -> list[Task]:
    """The cells of a diagnosis as tasks."""
    return [
        Task(cell.name, (needs.name,) if needs else (), partial(run_cell, plan, cell, folder))
        for cell, needs in cells(plan)
    ]


def diagnose(
    plan: Diagnosis,
    folder: str | Path | None = None,
    *,
    execute: Execute = in_order,
    report: Report = _silent,
) -> Verdict:
    """Carries out a diagnosis and returns its verdict.

    `folder` keeps what was done: the same plan with the same folder goes on where it stopped.
    Without one nothing is kept. Raises `RegrowError` where the folder holds a diagnosis with
    another plan.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="regrow-") as temporary:
            return diagnose(plan, Path(temporary), execute=execute, report=report)
    folder = Path(folder)
    claim_folder(folder, {"kind": "diagnosis", **plan.config()})
    execute(tasks(plan, folder), report)
    return verdict_of(plan, folder)


def claim_folder(folder: Path, config: dict[str, Any]) -> None:
    """Makes a folder this run's own; `RegrowError` where it holds something else."""
    path = folder / "config.json"
    if path.is_file():
        held = read_json(path)
        for name in sorted(config.keys() | held.keys()):
            ours, theirs = config.get(name), held.get(name)
            require(
                ours == theirs,
                f"{folder} holds another run: its {name} is {theirs!r}, not {ours!r}; "
                "choose another --out or delete it",
            )
        return
    if folder.exists() and not folder.is_dir():
        raise RegrowError(f"{folder} is a file; --out must be a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise RegrowError(f"{folder} is not empty and holds no run; choose another --out")
    write_json(path, config)


def outcomes_of(plan: Diagnosis, folder: Path) -> list[Outcome]:
    """The outcomes of all arms and seeds of a diagnosis that is done."""
    arms = [cell for cell, needs in cells(plan) if needs is not None]
    return [_outcome(read_json(cell.result(folder))) for cell in arms]


def forks_of(plan: Diagnosis, folder: Path) -> list[dict[str, Any]]:
    """For every seed its curve up to the fork and the probes there, of a diagnosis that is done."""
    forks = [read_json(Cell(seed, None).result(folder)) for seed in range(plan.seeds)]
    held = ("probes", "probes_fresh")
    return [{**fork, **{name: _with_nan(fork[name]) for name in held}} for fork in forks]


def _outcome(content: dict[str, Any]) -> Outcome:
    sequences = {name: tuple(content[name]) for name in ("curve", "predicted")}
    return Outcome(**{**content, **sequences, "probes": _with_nan(content["probes"])})


def _with_nan(probes: Mapping[str, float | None]) -> dict[str, float]:
    """Probes as they were measured: JSON has no NaN and holds null in its place."""
    return {name: float("nan") if value is None else value for name, value in probes.items()}


def verdict_of(plan: Diagnosis, folder: Path) -> Verdict:
    """The verdict on a diagnosis that is done."""
    played = random_policy(plan.environment, RANDOM_STEPS, seed=0)
    return conclude(
        outcomes_of(plan, folder),
        inject=plan.injection(),
        resets=plan.resets(),
        random_return=_curve(played, 1)[0],
        smallest_effect=plan.smallest_effect,
        confidence=plan.confidence,
    )

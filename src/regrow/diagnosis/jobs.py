"""The pieces of a diagnosis: one per seed up to the fork, then one per seed and arm.

A cell reads and writes files in one folder and nothing else. Cells run in any order that respects
the fork, in as many processes as there are. A cell that was stopped goes on from what it kept: at
every `report` that stops it, and at least once a minute.
"""

import math
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regrow.diagnosis.outcomes import Outcome
from regrow.diagnosis.plan import BINS, Arm, Diagnosis
from regrow.errors import NotFiniteError, RegrowError
from regrow.experience.normalization import as_learned
from regrow.files.atomic import damaged, read_json, write_atomically, write_json
from regrow.records.sinks import About
from regrow.registry import describe
from regrow.stats.curves import awaits_running, final_return, learning_curve, realised_values
from regrow.training.checkpoint import SAVE_EVERY, load, save
from regrow.training.live import Live
from regrow.training.pacing import ChunkPacer
from regrow.training.probing import measured
from regrow.training.run import Run
from regrow.training.schedule import Check, Rule, followed, next_check, recent_return, until_now
from regrow.types import Log, Report


@dataclass(frozen=True)
class Cell:
    """One piece of the work: `arm` None is a seed's way up to the fork."""

    seed: int
    arm: Arm | None

    @property
    def name(self) -> str:
        """What the cell's files are called."""
        return f"seed{self.seed}-{'fork' if self.arm is None else self.arm.file_name}"

    def result(self, folder: Path) -> Path:
        """Where the cell's result is written when it is done."""
        return folder / "cells" / f"{self.name}.json"

    def checkpoint(self, folder: Path) -> Path:
        """Where a fork keeps its Run for the arms."""
        return folder / "cells" / f"{self.name}.ckpt"


def cells(plan: Diagnosis) -> list[tuple[Cell, Cell | None]]:
    """All cells, each with the cell it waits for; forks come first, seed by seed."""
    forks = [Cell(seed, None) for seed in range(plan.seeds)]
    arms = [(Cell(fork.seed, arm), fork) for fork in forks for arm in plan.arms]
    return [*((fork, None) for fork in forks), *arms]


def run_cell(
    plan: Diagnosis, cell: Cell, folder: Path, report: Report, *, log: Sequence[str] = ()
) -> None:
    """Does one cell's work and writes its result; does nothing where that is there already.

    Where `report` raises, what was done is kept and the next call goes on from there; where
    anything else stops it, from the last save, a minute ago at most. `log`: sinks, as
    `regrow.records.sinks.checked` has them, that hear of it meanwhile.
    """
    kept = _Kept(folder / "cells" / cell.name)
    if cell.result(folder).is_file():
        kept.forget()
        report(cell.name, plan.fork_at if cell.arm is None else plan.horizon)
        return
    with Live(log, folder / "log", _about(plan, cell, folder)) as live:
        if cell.arm is None:
            content = _fork(plan, cell, folder, kept, report, live)
        else:
            content = _branch(plan, cell.seed, cell.arm, folder, kept, report, live)
    write_json(cell.result(folder), {**content, "seconds": kept.seconds()})
    kept.forget()


def _about(plan: Diagnosis, cell: Cell, folder: Path) -> About:
    """A cell as a run that is logged."""
    own = {"seed": cell.seed, "arm": "" if cell.arm is None else cell.arm.name}
    return About(cell.name, cell.name, folder.resolve().name, {**plan.config(), **own})


def _fork(
    plan: Diagnosis, cell: Cell, folder: Path, kept: "_Kept", report: Report, live: Live
) -> dict[str, Any]:
    """Trains one seed up to the fork, does what comes before it, saves the Run, probes."""
    run, log = _followed(
        lambda: Run.start(plan.agent, plan.environment, seed=cell.seed),
        plan.fork_at,
        kept,
        lambda steps: report(f"seed {cell.seed} to the fork", steps),
        live,
    )
    curve = _curve_of(run, log, min(BINS, plan.fork_at))
    for intervention in plan.before:
        report(f"seed {cell.seed}, {describe(intervention)}", 0)
        run = run.intervene(intervention)
    save(run, cell.checkpoint(folder))
    probes, fresh = measured(run), measured(run, fresh=True)
    live.probed(run, probes)
    live.probed(run, fresh, fresh=True)
    return {
        "seed": cell.seed,
        "curve": list(curve.returns),
        "probes": probes,
        "probes_fresh": fresh,
    }


def _branch(
    plan: Diagnosis,
    seed: int,
    arm: Arm,
    folder: Path,
    kept: "_Kept",
    report: Report,
    live: Live,
) -> dict[str, Any]:
    """Takes one seed's fork, carries out the arm's intervention, trains on over the horizon.

    An arm whose numbers are no longer finite has no curve, and says so.
    """
    fork = Cell(seed, None)
    try:
        run, log = _followed(
            lambda: load(fork.checkpoint(folder)).fork(arm.replicate).intervene(arm.intervention),
            plan.fork_at + plan.horizon,
            kept,
            lambda steps: report(f"seed {seed}, {arm.name}", steps),
            live,
            arm.rules,
        )
    except NotFiniteError as error:
        return asdict(Outcome(arm.name, seed, (), (), 0.0, 0.0, stopped=str(error)))
    curve = _curve_of(run, log, BINS, fork_of(seed, folder)["curve"][-1])
    # In the unit of what was predicted: normalised by the statistics at the end of the horizon.
    rewards = as_learned(run.state.replay, plan.environment.learned(np.asarray(log.reward)))
    learned = log._replace(reward=np.asarray(rewards))
    values = [
        realised_values(one.reward, one.terminated, one.truncated, plan.agent.discount)
        for one in learned.by_environment(plan.agent.num_envs)
    ]
    known = np.abs(np.concatenate(values))
    known = known[np.isfinite(known)]
    predicted = np.array_split(np.nan_to_num(np.abs(log.value), nan=np.inf), BINS)
    outcome = Outcome(
        arm=arm.name,
        seed=seed,
        curve=curve.returns,
        predicted=tuple(float(min(part.mean(dtype=np.float64), 1e30)) for part in predicted),
        realised=float(known.mean()) if known.size else 0.0,
        largest_reward=float(np.abs(learned.reward).max()),
        probes=measured(run, since=load(fork.checkpoint(folder))),
        events=tuple((step, text) for step, text in run.history[len(plan.before) :]),
        unfinished=curve.unfinished,
    )
    live.probed(run, outcome.probes)
    return asdict(outcome)


def _followed(
    start: Callable[[], Run],
    until: int,
    kept: "_Kept",
    report: Callable[[int], None],
    live: Live,
    rules: Sequence[Rule] = (),
) -> tuple[Run, Log]:
    """(the Run at `until`, its whole log since `start`); kept on the way and at the end."""
    run, log, checks = kept.read() or (
        start(),
        Log(*(np.zeros(0, dtype) for dtype in _LOG_TYPES)),
        list[Check](),
    )
    report(len(log.reward))

    def keep() -> None:
        live.flush(run)
        kept.write(run, log, checks)

    pieces = ChunkPacer(run.agent.env_steps_per_round)
    saved = time.monotonic()
    while (now := run.env_steps) < until:
        if rules:
            finished = np.asarray(log.episode_return)[log.terminated | log.truncated]
            run, checks = followed(run, rules, checks, recent_return(finished))
        run, more = run.advance(next_check(rules, now, min(now + pieces.next(), until)) - now)
        log = Log(*(np.concatenate(pair) for pair in zip(log, more, strict=True)))
        live.advanced(run, more)
        try:
            report(len(more.reward))
        except BaseException:
            keep()
            raise
        if time.monotonic() - saved > SAVE_EVERY or run.env_steps == until:
            keep()
            saved = time.monotonic()
    return run, log


_LOG_TYPES = (np.float32, np.bool_, np.bool_, np.float32, np.float32)


class _Kept:
    """What an unfinished cell has done so far: its Run, its log, and the seconds it took."""

    def __init__(self, stem: Path):
        self.checkpoint, self.log = (Path(f"{stem}.part{kind}") for kind in (".ckpt", ".npz"))
        self.began, self.earlier = time.perf_counter(), 0.0

    def seconds(self) -> float:
        """Time spent on the cell, earlier sittings included."""
        return self.earlier + time.perf_counter() - self.began

    def write(self, run: Run, log: Log, checks: Sequence[Check]) -> None:
        """Keeps a Run, its log, and what its rules saw."""
        about = {
            "start": run.env_steps - len(log.reward),
            "seconds": self.seconds(),
            "checks": np.array(checks, np.float64).reshape(-1, len(Check._fields)),
        }
        write_atomically(self.log, lambda file: np.savez(file, **about, **log._asdict()))
        save(run, self.checkpoint)

    def read(self) -> tuple[Run, Log, list[Check]] | None:
        """What was kept, or None; `RegrowError` where it is damaged."""
        if not (self.checkpoint.is_file() and self.log.is_file()):
            return None
        run = load(self.checkpoint)
        try:
            with self.log.open("rb") as file, np.load(file, allow_pickle=False) as held:
                # The log is written first: after a crash between the two it may be ahead of the
                # Run.
                steps = run.env_steps - int(held["start"])
                log = Log(*(held[name][:steps] for name in Log._fields))
                self.earlier = float(held["seconds"])
                checks = [
                    Check(int(at), int(rule), float(value), bool(fired))
                    for at, rule, value, fired in held["checks"]
                ]
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise damaged(self.log, str(error)) from error
        if len(log.reward) != steps:
            raise damaged(self.log, f"it ends before {self.checkpoint.name}")
        return run, log, until_now(checks, run)

    def forget(self) -> None:
        """Deletes what was kept, once the result is written."""
        self.checkpoint.unlink(missing_ok=True)
        self.log.unlink(missing_ok=True)


class Curve(NamedTuple):
    """The returns of time bins, and how many episodes in them were given up before their end."""

    returns: tuple[float, ...]
    unfinished: int


def _curve_of(run: Run, log: Log, bins: int, before: float = math.nan) -> Curve:
    """The curve of a log that ends where `run` is; where it hangs on running episodes, whole.

    Raises `RegrowError` where no return is known, which takes an environment that cannot be copied,
    a run that was resumed, and no episode that ended since.
    """
    ended, count = log.terminated | log.truncated, run.agent.num_envs
    start, running, unfinished = run.env_steps - len(ended), None, 0
    if awaits_running(ended, bins=bins, num_envs=count):
        running, over = run.play_out()
        unfinished = int((~over & np.isfinite(running)).sum())
    returns = learning_curve(
        log.episode_return,
        ended,
        bins=bins,
        num_envs=count,
        before=before,
        running=running,
        restarts=[step - start for step in run.restarts if step > start],
    )
    if not np.isfinite(returns).all():
        raise RegrowError(
            f"no episode has ended by env step {run.env_steps}, and the running one cannot be "
            "continued: the run was stopped where its environment cannot be copied; choose another "
            "--out and let it run through"
        )
    return Curve(tuple(returns.tolist()), unfinished)


def mean_return(log: Log) -> float:
    """The mean return of the episodes that end in a log; of none, what the last one collected."""
    ended = log.terminated | log.truncated
    counted = log.episode_return[ended] if ended.any() else log.episode_return[-1:]
    return float(np.mean(counted, dtype=np.float64))


def final_mean(log: Log) -> float:
    """What an arm with this log after the fork has for its `final`, from the episodes it ends."""
    ended = log.terminated | log.truncated
    if not ended.any():
        return mean_return(log)
    return final_return(learning_curve(log.episode_return, ended, bins=BINS))


# What cells left behind.


class Fork(NamedTuple):
    """A seed at its fork: the curve up to there, and the probes beside those of a fresh network."""

    seed: int
    curve: list[float]
    probes: dict[str, float]
    probes_fresh: dict[str, float]
    seconds: float


def outcomes_of(plan: Diagnosis, folder: Path) -> list[Outcome]:
    """The outcomes of all arms and seeds of a diagnosis that is done."""
    return [outcome_of(cell, folder) for cell, needs in cells(plan) if needs is not None]


def forks_of(plan: Diagnosis, folder: Path) -> list[Fork]:
    """Every seed at its fork, of a diagnosis that is done."""
    return [Fork(**fork_of(seed, folder)) for seed in range(plan.seeds)]


def fork_of(seed: int, folder: Path) -> dict[str, Any]:
    """What a fork's cell wrote; `RegrowError` where that is damaged."""
    path = Cell(seed, None).result(folder)
    content = read_json(path)
    try:
        probes = {name: _with_nan(content[name]) for name in ("probes", "probes_fresh")}
        return Fork(**{**content, **probes})._asdict()
    except (TypeError, KeyError, AttributeError) as error:
        raise damaged(path, "it is no cell's result") from error


def outcome_of(cell: Cell, folder: Path) -> Outcome:
    """What an arm's cell wrote; `RegrowError` where that is damaged."""
    path = cell.result(folder)
    content = read_json(path)
    try:
        sequences = {name: tuple(content[name]) for name in ("curve", "predicted")}
        sequences["events"] = tuple((step, text) for step, text in content["events"])
        if not (content.get("stopped") or sequences["curve"]):
            raise KeyError("curve")
        return Outcome(**{**content, **sequences, "probes": _with_nan(content["probes"])})
    except (TypeError, KeyError, AttributeError) as error:
        raise damaged(path, "it is no cell's result") from error


def _with_nan(probes: Mapping[str, float | None]) -> dict[str, float]:
    """Probes as they were measured: JSON has no NaN and holds null in its place."""
    return {name: float("nan") if value is None else value for name, value in probes.items()}

"""What a run leaves in its folder, for people and for other programs.

    config.json       the plan, in the grammar of `regrow.families`
    verdict.json      claim, effect, findings, arms, probes, versions
    curves.parquet    arm, seed, env_steps, return
    probes.parquet    probe, part, learner, at, seed, value
    evaluations.parquet  env_steps, seed, episode, return, length: of `regrow evaluate`

Everything is written whole or not at all. What studies leave is in `rows.py`; `query` asks it
anything.
"""

import importlib.metadata
import platform
import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from regrow.cells import forks_of, outcomes_of
from regrow.checkpoint import write_json
from regrow.errors import RegrowError
from regrow.evaluate import Episode
from regrow.families import describe
from regrow.locks import waited_for
from regrow.outcomes import Outcome
from regrow.plan import BINS, Diagnosis
from regrow.rows import read_rows, table_of, write_table
from regrow.run import Run
from regrow.verdict import Verdict

UP_TO_FORK = "fork"


def query(folder: str | Path, sql: str) -> pa.Table:
    """What a SQL query (DuckDB's) finds in the rows of a folder of studies, the table `rows`.

    `.to_pandas()` of it is a DataFrame. What could not be read is told in warnings. Raises
    `RegrowError` where there is no such folder, or the query cannot be carried out.

        query("runs/studies", "select arm, avg(list_avg(returns)) from rows group by arm")
    """
    import duckdb

    rows, problems = read_rows(Path(folder))
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    with duckdb.connect() as connection:
        connection.register("rows", table_of(rows))
        try:
            return connection.sql(sql).to_arrow_table()
        except (duckdb.Error, AttributeError) as error:
            # Where there is no statement, there is None.
            raise RegrowError(f"the query cannot be carried out: {error}") from error


def versions() -> dict[str, str]:
    """The versions that a number depends on."""
    packages = ("regrow", "jax", "jaxlib", "equinox", "optax", "numpy", "scipy")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found}


def source_commit() -> str:
    """The commit of the source, with a + where it was changed since; "" if it is none."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        commit, changes = (_git(root, *words) for words in (("rev-parse", "HEAD"), _CHANGES))
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit}+" if changes else commit


_CHANGES = ("status", "--porcelain", "--untracked-files=no", "--", "src")


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    done = subprocess.run(command, capture_output=True, check=True, timeout=10)
    return done.stdout.decode(errors="replace").strip()


def write_diagnosis(plan: Diagnosis, verdict: Verdict, folder: Path) -> None:
    """Writes verdict.json, curves.parquet and probes.parquet of a diagnosis that is done.

    `seconds` in verdict.json is the time of all cells added up, however many sittings it took.
    """
    write_rows(folder / "curves.parquet", curve_rows(plan, folder))
    write_rows(folder / "probes.parquet", probe_rows(plan, folder))
    outcomes = outcomes_of(plan, folder)
    content = verdict.to_dict()
    content["arms"] = {
        arm.name: [_of_run(run) for run in outcomes if run.arm == arm.name] for arm in plan.arms
    }
    content["probes"] = probe_means(plan, folder)
    content["interventions"] = {arm.name: describe(arm.does) for arm in plan.arms}
    content["events"] = [
        {"arm": run.arm, "seed": run.seed, "env_steps": step, "intervention": text}
        for run in outcomes
        for step, text in run.events
    ]
    content |= {k: v for k, v in plan.config().items() if k != "arms"}
    worked = [fork.seconds for fork in forks_of(plan, folder)] + [run.seconds for run in outcomes]
    content |= {"env_steps": plan.env_steps, "seconds": sum(worked), "versions": versions()}
    write_json(folder / "verdict.json", content)


def _of_run(run: Outcome) -> dict[str, Any]:
    if run.stopped:
        return {"seed": run.seed, "stopped": run.stopped}
    return {
        "seed": run.seed,
        "area_under_curve": run.area,
        "final_return": run.final,
        "predicted_value_first": run.predicted[0],
        "predicted_value_last": run.predicted[-1],
        "realised_value": run.realised,
        "unfinished_episodes": run.unfinished,
        "seconds": run.seconds,
    }


def curve_rows(plan: Diagnosis, folder: Path) -> list[dict[str, Any]]:
    """A row per arm, seed and time bin; env_steps is where the bin ends."""
    rows = []
    for fork in forks_of(plan, folder):
        ends = bin_ends(0, plan.fork_at, len(fork.curve))
        rows += _rows(UP_TO_FORK, fork.seed, ends, fork.curve)
    for run in outcomes_of(plan, folder):
        if not run.stopped:
            ends = bin_ends(plan.fork_at, plan.horizon, BINS)
            rows += _rows(run.arm, run.seed, ends, run.curve)
    return rows


def events(plan: Diagnosis, folder: Path) -> dict[str, list[int]]:
    """For every arm with a rule, at which env steps it acted, over all seeds."""
    ruled = {arm.name for arm in plan.arms if arm.rule is not None}
    found: dict[str, list[int]] = {name: [] for name in ruled}
    for run in outcomes_of(plan, folder):
        if run.arm in ruled:
            found[run.arm] += [step for step, _ in run.events]
    return found


def bin_ends(start: int, env_steps: int, bins: int) -> NDArray[np.int64]:
    """Where each of `bins` equal time bins ends, in env steps of training."""
    return start + (np.arange(1, bins + 1) * env_steps) // bins


def _rows(
    arm: str, seed: int, ends: NDArray[np.int64], curve: Sequence[float]
) -> list[dict[str, Any]]:
    return [
        {"arm": arm, "seed": seed, "env_steps": int(end), "return": float(value)}
        for end, value in zip(ends, curve, strict=True)
    ]


def probe_rows(plan: Diagnosis, folder: Path) -> list[dict[str, Any]]:
    """A row per probe, part and seed: at the fork, a fresh network there, after each arm."""
    rows = []
    for fork in forks_of(plan, folder):
        for at, probes in (("fork", fork.probes), ("fresh", fork.probes_fresh)):
            rows += [_probe_row(name, at, fork.seed, value) for name, value in probes.items()]
    for run in outcomes_of(plan, folder):
        rows += [_probe_row(name, run.arm, run.seed, v) for name, v in run.probes.items()]
    return rows


def _probe_row(name: str, at: str, seed: int, value: float) -> dict[str, Any]:
    learner, probe, part = probe_place(name)
    return {
        "probe": probe,
        "part": part,
        "learner": learner,
        "at": at,
        "seed": seed,
        "value": value,
    }


def probe_place(name: str) -> tuple[str, str, str]:
    """(Learner, probe, part) of what `cells.measured` names; a Learner that is alone is ""."""
    *learner, probe, part = name.split(".")
    return ".".join(learner), probe, part


def probe_means(plan: Diagnosis, folder: Path) -> dict[str, dict[str, float]]:
    """For every probe its mean over seeds: at the fork, fresh, and after each arm."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in probe_rows(plan, folder):
        name = ".".join(filter(None, (row["learner"], row["probe"], row["part"])))
        values.setdefault(name, {}).setdefault(row["at"], []).append(row["value"])
    return {
        name: {at: float(np.mean(numbers)) for at, numbers in ats.items()}
        for name, ats in values.items()
    }


def curves(plan: Diagnosis, folder: Path) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """For the way up to the fork and for every arm: (env steps (bins,), returns (seeds, bins))."""
    forks = [fork.curve for fork in forks_of(plan, folder)]
    found = {UP_TO_FORK: (bin_ends(0, plan.fork_at, len(forks[0])), np.array(forks))}
    outcomes, ends = outcomes_of(plan, folder), bin_ends(plan.fork_at, plan.horizon, BINS)
    for arm in plan.arms:
        returns = [run.curve for run in outcomes if run.arm == arm.name and not run.stopped]
        if returns:
            found[arm.name] = (ends, np.array(returns))
    return found


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows as a Parquet file."""
    write_table(path, pa.Table.from_pylist(list(rows)))


def write_evaluation(folder: Path, run: Run, seed: int, played: Sequence[Episode]) -> Path:
    """Adds the episodes to `evaluations.parquet`, in place of those of the same env step and seed.

    Columns: env_steps, seed, episode, return, length. Raises `RegrowError` where the file is
    damaged.
    """
    path, this = folder / "evaluations.parquet", {"env_steps": run.env_steps, "seed": seed}
    with waited_for(
        folder / ".evaluations.lock"
    ):  # or what two add at once, one of them would lose
        rows = [row for row in read_evaluations(folder) if {**row, **this} != row]
        for number, episode in enumerate(played):
            measured = {"return": episode.env_return, "length": episode.length}
            rows.append({**this, "episode": number, **measured})
        write_table(path, pa.Table.from_pylist(rows, _EVALUATIONS))
    return path


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """The rows of `evaluations.parquet`, none where it is absent; `RegrowError` where damaged."""
    path = folder / "evaluations.parquet"
    if not path.exists():
        return []
    try:
        with path.open("rb") as file:
            table = pq.read_table(file).select(_EVALUATIONS.names)
        return table.cast(_EVALUATIONS).to_pylist()
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise RegrowError(f"{path} is damaged ({error}); restore or delete it") from error


_EVALUATIONS = pa.schema(
    {
        "env_steps": pa.int64(),
        "seed": pa.int64(),
        "episode": pa.int64(),
        "return": pa.float64(),
        "length": pa.int64(),
    }
)

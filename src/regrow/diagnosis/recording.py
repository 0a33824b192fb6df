"""What a run leaves in its folder, for people and for other programs.

    config.json       the plan, in the grammar of `regrow.registry`
    verdict.json      claim, effect, findings, arms, probes, versions
    curves.parquet    arm, seed, env_steps, return
    probes.parquet    probe, part, learner, at, seed, value
    evaluations.parquet  env_steps, seed, episode, return, length: of `regrow evaluate`

Everything is written whole or not at all. What studies leave is in `rows.py`; `query` asks it
anything.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from regrow.diagnosis.jobs import forks_of, outcomes_of
from regrow.diagnosis.outcomes import Outcome
from regrow.diagnosis.plan import BINS, Diagnosis
from regrow.diagnosis.verdict import Verdict
from regrow.files.atomic import write_json
from regrow.records.provenance import versions
from regrow.records.rows import write_table
from regrow.registry import describe
from regrow.stats.curves import bin_ends

UP_TO_FORK = "fork"


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

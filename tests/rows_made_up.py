"""Rows as a study would leave them, without training: for tests of what is made of them."""

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from regrow.diagnosis.plan import Arm
from regrow.records.rows import Happened, Measured, Row, write_row
from regrow.records.study_spec import write_plan
from regrow.registry import make
from regrow.sources.native import Diagnosis

PROBES = {"weight_norm": 30.0, "srank": 80.0, "dead_units": 0.3, "gradient_norm": 2.0}
ARMS = ("nothing", "again", "inject", "reset")
BINS = 20
DEFAULT = tuple(map(Arm.parse, ARMS))


def rows_of(
    study: str = "generality",
    condition: str = "minatar/breakout",
    *,
    gain: float = 1.0,
    level: float = 5.0,
    arms: tuple[str, ...] = ARMS,
    seeds: int = 5,
    scale: str = "smoke",
    axis: str = "",
    at: float | None = None,
    environment: str = "minatar/breakout",
    agent: str = "double_dqn",
    **changes,
) -> list[Row]:
    """The rows of one condition; `gain`: of every arm but `nothing` and `again`, in returns."""
    plan = Diagnosis(
        agent=make("agents", agent),
        environment=make("environments", environment),
        arms=tuple(Arm.parse(arm) for arm in arms) if "inject" in arms else DEFAULT,
        seeds=max(seeds, 2),
        replicates=1,
        fixed=True,
    )
    config = json.dumps(plan.config())
    rng = np.random.default_rng(abs(hash_of(study, condition)))
    rows = []
    for seed in range(seeds):
        before = np.sort(rng.normal(level / 2, 0.4, BINS))
        for place, arm in enumerate(arms):
            lifted = gain * (1 + 0.1 * (place - 2)) if arm not in ("nothing", "again") else 0.0
            way = np.linspace(0.2, 1.2, BINS)
            returns = level + (lifted + rng.normal(0, 0.3)) * way + rng.normal(0, 0.25, BINS)
            fields = {
                "study": study,
                "scale": scale,
                "condition": condition,
                "axis": axis,
                "level": at,
                "environment": environment,
                "agent": plan.source.config()["agent"],
                "before": (),
                "arm": arm,
                "intervention": arm,
                "seed": seed,
                "replicate": 0,
                "fork_at": plan.fork_at,
                "horizon": plan.horizon,
                "env_steps_to_fork": ends(0, plan.fork_at),
                "returns_to_fork": tuple(before.tolist()),
                "env_steps": ends(plan.fork_at, plan.horizon),
                "returns": tuple(returns.tolist()),
                "predicted": tuple(np.linspace(3, 4, BINS).tolist()),
                "realised": 3.5,
                "largest_reward": 1.0,
                "random_return": 0.4,
                "random_error": 0.0,
                "probes": measured(rng, gain),
                "events": happened(plan, arm),
                "seconds": 60.0,
                "seconds_to_fork": 80.0,
                "flops": 2e12 * (1.3 if arm == "inject" else 1.0),
                "flops_to_fork": 3e12,
                "config": config,
                "versions": json.dumps({"python": "3.11.7", "regrow": "0.1.0", "jax": "0.10.2"}),
                "commit": "0123abc",
                "written": datetime(2026, 1, 2, 3, 4, seed, tzinfo=UTC),
            }
            rows.append(Row(**{**fields, **changes}))
    return rows


def hash_of(*words: str) -> int:
    """A number that is the same in every process."""
    return int.from_bytes(" ".join(words).encode()[-7:], "big")


def ends(start: int, env_steps: int) -> tuple[int, ...]:
    return tuple((start + (np.arange(1, BINS + 1) * env_steps) // BINS).tolist())


def measured(rng: np.random.Generator, gain: float) -> tuple[Measured, ...]:
    found = []
    for part in ("encoder", "head"):
        for probe, size in PROBES.items():
            at_fork = size * (1 + 0.3 * gain + rng.normal(0, 0.1))
            end = at_fork * rng.normal(1.1, 0.1)
            for at, value in (("fork", at_fork), ("fresh", size), ("end", end)):
                found.append(Measured("", probe, part, at, float(value)))
    found.append(Measured("", "nowhere", "head", "fork", float("nan")))
    return tuple(found)


def happened(plan: Diagnosis, arm: str) -> tuple[Happened, ...]:
    if arm in ("nothing", "again"):
        return ()
    first = (Happened(plan.fork_at, arm),)
    return (*first, Happened(plan.fork_at + 10_000, "inject")) if " every " in arm else first


def write(folder: Path, *groups: list[Row]) -> Path:
    """Writes rows through the real writer; the folder."""
    for rows in groups:
        for row in rows:
            write_row(folder, row)
    return folder


def write_study(folder: Path, *groups: list[Row], **told) -> Path:
    """Writes the rows of one study and its plan; `told`: question, claims, figure."""
    rows = [group[0] for group in groups]
    conditions = [
        {
            "label": row.condition,
            "axis": row.axis,
            "level": row.level,
            **json.loads(row.config),
            "environment": row.environment,
            "agent": row.agent,
            "arms": [[held.arm, held.intervention, 0, ""] for held in group],
            "seeds": 1 + max(held.seed for held in group),
        }
        for row, group in zip(rows, groups, strict=True)
    ]
    plan = {"study": rows[0].study, "scale": rows[0].scale, "conditions": conditions}
    write_plan(folder, {**plan, "question": "", "claims": [], "figure": "curves", **told})
    return write(folder, *groups)


def alike(rows: list[Row], arm: str, gain: float) -> list[Row]:
    """Rows in which an arm collects so much more than the control, the same in every seed.

    The control of a seed is the mean of `nothing` and `again`.
    """
    control = {
        row.seed: np.mean(
            [r.returns for r in rows if r.arm in ("nothing", "again") and r.seed == row.seed],
            axis=0,
        )
        for row in rows
    }
    return [
        dataclasses.replace(row, returns=tuple((control[row.seed] + gain).tolist()))
        if row.arm == arm
        else row
        for row in rows
    ]

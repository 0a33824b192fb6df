"""Cases: the rows of one condition of a study, paired by seed and judged.

A case that cannot be judged (an arm is missing, there is only one seed, this version cannot read
the plan) says why, and its data can still be plotted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from regrow.diagnosis.judging import as_outcome, judge, means_of_replicates, roles_of
from regrow.diagnosis.outcomes import Outcome
from regrow.diagnosis.plan import Roles
from regrow.diagnosis.verdict import Verdict
from regrow.errors import RegrowError
from regrow.records.rows import Row
from regrow.stats.intervals import Interval


def sample_of(cases: Sequence["Case"]) -> str:
    """What is counted in some cases: "seeds", or "replicates" where all are of single agents."""
    single = bool(cases) and all(case.sample == "replicate" for case in cases)
    return "replicates" if single else "seeds"


class Means(NamedTuple):
    """An arm's results as means over seeds.

    The predicted and realised values are mean absolute values, in discounted reward.
    """

    area: float
    final: float
    predicted_first: float
    predicted_last: float
    realised: float


@dataclass(frozen=True)
class Case:
    """One condition: its rows by arm (with the seeds that all arms have), and its verdict.

    A row is the mean of the replicates of its seed; of a single agent, a replicate. `again` counts
    as a replicate of the control. `seeds_left_out`: those that some arm does not have yet.
    `verdict` is None if `unjudged` says why. `relative`: per arm, the difference to `nothing` as a
    share of the verdict's unit.
    """

    study: str
    scale: str
    label: str
    arms: Mapping[str, tuple[Row, ...]]
    seeds_left_out: tuple[int, ...]
    injection: str
    verdict: Verdict | None
    unjudged: str
    relative: Mapping[str, Interval]

    @property
    def row(self) -> Row:
        """Any row, for the fields that all rows share."""
        return next(iter(self.arms.values()))[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that all arms have; of a single agent, the replicates of the control."""
        rows, single = next(iter(self.arms.values())), self.sample == "replicate"
        return tuple(row.replicate if single else row.seed for row in rows)

    @property
    def sample(self) -> str:
        """What the sample consists of: "seed", or of a single agent "replicate"."""
        rows = next(iter(self.arms.values()))
        return "replicate" if len({row.seed for row in rows}) < len(rows) else "seed"

    @cached_property
    def outcomes(self) -> Mapping[str, list[Outcome]]:
        """The outcomes by arm, from which verdicts are made."""
        return {arm: [as_outcome(row) for row in rows] for arm, rows in self.arms.items()}

    @cached_property
    def means(self) -> Mapping[str, Means]:
        """Every arm's means over seeds."""
        return {arm: _means([as_outcome(row) for row in held]) for arm, held in self.arms.items()}


def _means(runs: Sequence[Outcome]) -> Means:
    held = [
        (run.area, run.final, run.predicted[0], run.predicted[-1], run.realised) for run in runs
    ]
    return Means(*np.mean(held, axis=0).tolist())


def cases(rows: Sequence[Row]) -> tuple[list[Case], list[str]]:
    """(the cases, in the order of the rows; a sentence for each row or arm that is left out)."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    problems = []
    broken = {
        (row.study, row.scale, row.condition, arm)
        for row in rows
        if row.stopped
        for arm in _together(row)
    }
    for row in rows:
        if (row.study, row.scale, row.condition, row.arm) in broken:
            if row.stopped:
                where = f"{row.study}, {row.condition}, {row.arm}, seed {row.seed}"
                problems.append(f"an arm is left out ({where}): {row.stopped}")
            continue
        problem = _problem(row)
        if problem:
            where = f"{row.study}, {row.condition}, {row.arm}, seed {row.seed}"
            problems.append(f"a row is left out ({where}): {problem}")
        else:
            groups.setdefault((row.study, row.scale, row.condition), []).append(row)
    return [_case(*key, group) for key, group in groups.items()], problems


def _together(row: Row) -> tuple[str | None, ...]:
    """The arms that are left out where this row's is: the control goes with its replicate."""
    try:
        roles = roles_of(row)
    except RegrowError:
        roles = Roles()
    control = roles.control, roles.replicate
    return control if row.arm in control else (row.arm,)


def _problem(row: Row) -> str:
    """Why a row is invalid (no study writes such a row), or ""."""
    curves = (row.env_steps, row.returns), (row.env_steps_to_fork, row.returns_to_fork)
    if not row.returns or not row.predicted:
        return "it has no curve"
    if any(len(steps) != len(returns) for steps, returns in curves):
        return "a curve has not as many env steps as returns"
    if not all(map(math.isfinite, row.returns + row.returns_to_fork)):
        return "a return is no finite number"
    return ""


def _case(study: str, scale: str, label: str, rows: Sequence[Row]) -> Case:
    roles, verdict, relative, unjudged = Roles(), None, {}, ""
    try:
        roles = roles_of(rows[0])
    except RegrowError as error:
        unjudged = str(error)
    kept, left_out = _complete(rows)
    try:
        verdict = None if unjudged else judge(kept, roles)
    except RegrowError as error:
        unjudged = str(error)
    if verdict is not None:
        relative = {c.arm: c.share for c in verdict.comparisons if c.share is not None}
    arms: dict[str, list[Row]] = {}
    for row in means_of_replicates(kept, roles):
        arms.setdefault(row.arm, []).append(row)
    ordered = {arm: tuple(arms[arm]) for arm in sorted(arms, key=_place)}
    return Case(
        study, scale, label, ordered, left_out, roles.injection, verdict, unjudged, relative
    )


def _complete(rows: Sequence[Row]) -> tuple[list[Row], tuple[int, ...]]:
    """(the rows for the seeds that all arms have, the seeds left out).

    If the arms share no seed, every arm keeps its own.
    """
    seeds: dict[str, set[int]] = {}
    for row in rows:
        seeds.setdefault(row.arm, set()).add(row.seed)
    seen = set.union(*seeds.values())
    shared = set.intersection(*seeds.values())
    kept = [row for row in rows if not shared or row.seed in shared]
    return sorted(kept, key=lambda row: (row.seed, row.replicate)), tuple(sorted(seen - shared))


def _place(arm: str) -> int:
    """The position of an arm: `nothing`, injections, resets, then the others."""
    if arm == "nothing":
        return 0
    return 1 if arm.startswith("inject") else 2 if arm.startswith("reset") else 3

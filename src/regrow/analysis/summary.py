"""What a report shows of cases and of a folder of rows: curves, gains, probes, versions.

Everything here is plain numbers; `regrow.report` renders them.
"""

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

from regrow.analysis.across_conditions import Aggregate, Proxy, aggregates, proxies
from regrow.analysis.claim_rules import OPEN, Decision, decide
from regrow.analysis.claims import CLAIMS
from regrow.analysis.conditions import Case, cases
from regrow.diagnosis.judging import config_of, probes_of
from regrow.files.places import Place
from regrow.records.rows import Row, read_rows
from regrow.records.study_spec import Plan, read_plans
from regrow.stats.arrays import Floats
from regrow.stats.intervals import Interval, mean_band

AXES = ("env_steps", "flops", "seconds")
BEFORE = "before the fork"


class Curve(NamedTuple):
    """A learning curve: the ends of its bins, by axis (bins,); returns (seeds, bins); their band.

    The axes are env steps, and FLOPs and seconds if they are known.
    """

    arm: str
    over: Mapping[str, Floats]
    returns: Floats
    mean: Floats
    low: Floats
    high: Floats


def curves(case: Case) -> list[Curve]:
    """The curve up to the fork, and that of every arm after it.

    FLOPs and seconds are means over seeds, spread evenly over the way to the fork and over the
    horizon.
    """
    found = []
    first = next(iter(case.arms.values()))
    if all(row.returns_to_fork for row in first):
        found.append(_curve(BEFORE, first, before=True))
    return found + [_curve(arm, rows) for arm, rows in case.arms.items()]


def _curve(name: str, rows: Sequence[Row], *, before: bool = False) -> Curve:
    first = rows[0]
    steps = np.array(first.env_steps_to_fork if before else first.env_steps, dtype=np.float64)
    returns = np.array([row.returns_to_fork if before else row.returns for row in rows])
    over = {"env_steps": steps}
    for axis, (to_fork, after) in _spent(rows).items():
        over[axis] = to_fork * np.minimum(steps / first.fork_at, 1)
        over[axis] += after * np.maximum(steps - first.fork_at, 0) / first.horizon
    return Curve(name, over, returns, *mean_band(returns))


def _spent(rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """(up to the fork, after it) for FLOPs and for seconds, if they are known."""
    found = {}
    for axis in AXES[1:]:
        held = [(getattr(row, f"{axis}_to_fork"), getattr(row, axis)) for row in rows]
        to_fork, after = np.mean(held, axis=0).tolist()
        if math.isfinite(to_fork + after) and to_fork + after > 0:
            found[axis] = to_fork, after
    return found


class Panel(NamedTuple):
    """Curves in one plot; `reach` (low, high) if several panels share one scale."""

    name: str
    case: Case
    curves: list[Curve]
    reach: tuple[float, float] | None


MOST = 8  # arms in one panel


def panels(cases: Sequence[Case]) -> list[Panel]:
    """A panel per condition; if it has too many arms, one per arm, each with `nothing`."""
    found = []
    for case in cases:
        held = curves(case)
        if len(case.arms) <= MOST:
            found.append(Panel(case.label, case, held, None))
            continue
        beside = [curve for curve in held if curve.arm in (BEFORE, "nothing")]
        reach = reach_of(held)
        for curve in held:
            if curve.arm not in (BEFORE, "nothing"):
                name = curve.arm if len(cases) == 1 else f"{case.label}: {curve.arm}"
                found.append(Panel(name, case, [*beside, curve], reach))
    return found


def reach_of(held: Sequence[Curve]) -> tuple[float, float]:
    """The range of the runs; bands of few seeds may exceed it."""
    low = min(float(curve.returns.min()) for curve in held)
    high = max(float(curve.returns.max()) for curve in held)
    return low, high


def whole(case: Case) -> list[Curve]:
    """Every arm's curve from the first env step on: up to the fork, and after it."""
    first, *arms = curves(case)
    if first.arm != BEFORE:
        return [first, *arms]
    joined = []
    for curve in arms:
        # Of one agent, arms may not have as many replicates.
        before = _curve(BEFORE, case.arms[curve.arm], before=True)
        over = {axis: np.concatenate([before.over[axis], at]) for axis, at in curve.over.items()}
        returns = np.concatenate([before.returns, curve.returns], axis=1)
        joined.append(Curve(curve.arm, over, returns, *mean_band(returns)))
    return joined


def forks(case: Case) -> dict[str, float]:
    """The position of the fork on every axis."""
    rows = next(iter(case.arms.values()))
    spent = {axis: to_fork for axis, (to_fork, _) in _spent(rows).items()}
    return {"env_steps": float(rows[0].fork_at), **spent}


class Gain(NamedTuple):
    """The gain of an arm over `nothing` in a case, as a share; None if it is unknown."""

    case: Case
    effect: Interval | None


def gains(cases: Iterable[Case], arm: str | None = None) -> list[Gain]:
    """The gain of an arm (by default, of each case's injection), the largest first.

    Cases without the arm are left out; cases that cannot be judged come last.
    """
    found = [
        Gain(case, case.relative.get(arm or case.injection))
        for case in cases
        if (arm or case.injection) in case.arms
    ]
    return sorted(found, key=lambda gain: -gain.effect.estimate if gain.effect else math.inf)


class Probed(NamedTuple):
    """A probe's mean over seeds: on fresh networks, at the fork, and at the end of every arm."""

    name: str
    fresh: float
    fork: float
    end: Mapping[str, float]


def probes(case: Case) -> list[Probed]:
    """Every probe with a finite value, as `learner.probe.part`."""
    first = next(iter(case.arms.values()))
    fresh, fork = _means(first, "fresh"), _means(first, "fork")
    ends = {arm: _means(rows, "end") for arm, rows in case.arms.items()}
    names = dict.fromkeys([*fork, *fresh, *(name for end in ends.values() for name in end)])
    probed = [
        Probed(
            name,
            fresh.get(name, math.nan),
            fork.get(name, math.nan),
            {arm: end.get(name, math.nan) for arm, end in ends.items()},
        )
        for name in names
    ]
    return [p for p in probed if np.isfinite([p.fresh, p.fork, *p.end.values()]).any()]


def _means(rows: Sequence[Row], at: str) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in probes_of(row, at).items():
            values.setdefault(name, []).append(value)
    return {name: float(np.mean(held)) for name, held in values.items()}


def versions(rows: Iterable[Row]) -> list[tuple[str, int]]:
    """What rows were made with, as "package version, …; commit …", and how many rows each."""
    counts: dict[str, int] = {}
    for row in rows:
        made_with = f"{_listed(row.versions)}; commit {row.commit or 'unknown'}"
        counts[made_with] = counts.get(made_with, 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])


def _listed(versions: str) -> str:
    try:
        return ", ".join(f"{name} {version}" for name, version in json.loads(versions).items())
    except (ValueError, AttributeError):
        return versions


# Whole folders.


class Told(NamedTuple):
    """What a report shows of a study at one scale."""

    name: str
    scale: str
    question: str
    claims: Sequence[int]
    decisions: Mapping[int, Decision]
    figure: str
    cases: list[Case]
    proxies: list[Proxy]
    aggregates: list[Aggregate]

    @property
    def anchor(self) -> str:
        """The name for links to it."""
        text = f"{self.name}-{self.scale}"
        return "".join(c if c.isascii() and c.isalnum() else "-" for c in text)


class Summary(NamedTuple):
    """What a report shows of a folder of rows."""

    name: str
    studies: list[Told]
    problems: list[str]
    rows: int
    written: datetime | None
    commands: list[str]
    versions: list[tuple[str, int]]


def summarise(folder: Place) -> Summary:
    """All that a report shows of a folder; `problems` says what could not be read.

    Raises `RegrowError` if there is no such folder.
    """
    return summarise_rows(folder, *read_rows(folder))


def summarise_rows(folder: Place, rows: Sequence[Row], unread: Sequence[str] = ()) -> Summary:
    """The same for rows already read; `unread`: a sentence for each that could not be read."""
    name = folder.resolve().name
    held, unsound = cases(rows)
    plans = read_plans(folder).held  # its problems were reported with the rows
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in held:
        groups.setdefault((case.study, case.scale), []).append(case)
    return Summary(
        name=name,
        studies=sorted(
            (_told(plans.get(key, Plan(*key)), group) for key, group in groups.items()), key=_first
        ),
        # A report may be passed on to others, whom the path to its folder does not concern.
        problems=[text.replace(str(folder), name) for text in (*unread, *unsound)],
        rows=len(rows),
        written=max((row.written for row in rows), default=None),
        commands=[*(_command(*key, group[0].row) for key, group in groups.items()), _REPORT],
        versions=versions(rows),
    )


_REPORT = "regrow report DIR"


def _command(study: str, scale: str, row: Row) -> str:
    """The command that makes such rows."""
    if study in ("diagnosis", "training"):
        verb = {"diagnosis": "diagnose", "training": "train"}[study]
        what = f"regrow {verb} {shlex.quote(row.environment)} --agent {shlex.quote(row.agent)}"
        runs = config_of(row).get("runs")
        if study == "diagnosis" and runs:
            what = f"regrow diagnose {' '.join(map(shlex.quote, runs))}"
        if study == "training":
            return f"{what} --env-steps {row.horizon} --seed {row.seed} --out DIR"
        return f"{what}{_options(row)} --out DIR"
    return f"regrow study {shlex.quote(study)} --scale {shlex.quote(scale)} --out DIR"


def _options(row: Row) -> str:
    """The options of the diagnosis that made a row; those that are not recorded are left out."""
    config = config_of(row)
    text = f" --fork-at {row.fork_at} --horizon {row.horizon} --seeds {config.get('seeds', 5)}"
    for name in ("replicates", "smallest_effect"):
        if "looks" in config:  # before, both meant something else
            text += f" --{name.replace('_', '-')} {config[name]}"
    if config.get("fixed", False):
        text += " --fixed"
    if config.get("returns_range"):
        text += " --range {} {}".format(*config["returns_range"])
    text += "".join(f" --before {shlex.quote(before)}" for before in row.before)
    arms = " ".join(shlex.quote(name) for name, *_ in config.get("arms", ()))
    return f"{text} --arms {arms}"


def _told(plan: Plan, cases: list[Case]) -> Told:
    figure = plan.figure
    compared = figure in ("gains", "arms") and len(cases) > 2
    cases = sorted(cases, key=lambda case: _place(case, plan))
    return Told(
        plan.study,
        plan.scale,
        plan.question,
        plan.claims,
        _decisions(plan, cases),
        figure,
        cases,
        proxies(cases) if figure == "proxies" else [],
        aggregates(cases) if compared else [],
    )


def _first(told: Told) -> tuple[int, str]:
    """The sort key of studies: the order of the claims that they are about."""
    return min(told.claims, default=len(CLAIMS)), told.name


def _decisions(plan: Plan, cases: Sequence[Case]) -> dict[int, Decision]:
    """The decisions of claims that have a rule; undecided while the study is not complete."""
    there = {case.label: len(case.seeds) for case in cases}
    done = sum(there.get(label, 0) >= one.seeds for label, one in plan.conditions.items())
    found = {claim: held for claim in plan.claims if (held := decide(claim, cases)) is not None}
    if done == len(plan.conditions):
        return found
    early = f"{done} of {len(plan.conditions)} conditions are done."
    return dict.fromkeys(found, Decision(OPEN, early))


def _place(case: Case, plan: Plan) -> tuple[int, str, float, str]:
    """The sort key of a condition: as planned; in a sweep by axis and level."""
    labels = list(plan.conditions)
    known = case.label in labels
    level = case.row.level
    return (
        labels.index(case.label) if known and plan.figure != "sweep" else -1,
        case.row.axis,
        math.inf if level is None else level,
        case.label,
    )

"""The charts of the page, as plain data for JSON, which the page's scripts draw.

A chart is {kind, name, panels, …}. The kinds are those of report/page: curves, intervals, strips,
scatter.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from regrow.analysis.across_conditions import Aggregate, Proxy
from regrow.analysis.conditions import Case
from regrow.analysis.summary import (
    BEFORE,
    Curve,
    Gain,
    Panel,
    Told,
    forks,
    gains,
    panels,
    probes,
    whole,
)
from regrow.report.palette import Ink, inks
from regrow.stats.intervals import Interval

Chart = dict[str, Any]
AXES = (
    {"key": "env_steps", "title": "env steps", "unit": "env steps"},
    {"key": "flops", "title": "FLOPs", "unit": "FLOPs"},
    {"key": "seconds", "title": "seconds", "unit": "s"},
)


class Arms:
    """The arms of a page by number, as the page's scripts refer to them.

    In a chart with several conditions, each arm of each condition has its own name (`overlaid`). It
    has the arm's colour; the dash differs between conditions.
    """

    def __init__(self, studies: Sequence[Told]):
        self.inks = inks_of(studies)
        for told in studies:
            if told.figure == "compute":
                self.inks |= overlaid_inks(told.cases, self.inks)
        self.names = [BEFORE, *self.inks]
        self.numbers = {name: i for i, name in enumerate(self.names)}

    def to_json(self) -> list[dict[str, str]]:
        """The name and CSS classes of each arm."""
        classes = ["before", *(ink.classes for ink in self.inks.values())]
        return [
            {"name": name, "colour": colour}
            for name, colour in zip(self.names, classes, strict=True)
        ]

    def __getitem__(self, name: str) -> int:
        return self.numbers[name]


def inks_of(studies: Iterable[Told]) -> dict[str, Ink]:
    """The inks of all arms of a folder, common to all of its pictures."""
    return inks(arm for told in studies for case in told.cases for arm in case.arms)


def overlaid(case: Case, arm: str) -> str:
    """The name of an arm in a chart with several conditions."""
    return f"{case.label}: {arm}"


def overlaid_inks(cases: Sequence[Case], arms: Mapping[str, Ink]) -> dict[str, Ink]:
    """The inks of arms in a chart with several conditions."""
    return {
        overlaid(case, arm): arms[arm].shifted(place)
        for place, case in enumerate(cases)
        for arm in case.arms
    }


def learning_curves(cases: Sequence[Case], arms: Arms) -> Chart:
    """Learning curves: a panel per condition, or per arm if there are many."""
    found = panels(cases)
    drawn = [_curves_panel(panel, arms) for panel in found]
    alone = {panel.curves[-1].arm for panel in found if panel.reach}
    return {
        "kind": "curves",
        "name": "Learning curves",
        "choose": "arm" if alone else "condition",
        "all": f"all {len(drawn)}",
        "start": None,
        "axes": _axes(drawn),
        # An arm that has its own panel need not be in the legend, which hides arms.
        "legend": _legend(
            arms[curve.arm] for panel in found for curve in panel.curves if curve.arm not in alone
        ),
        "panels": drawn,
    }


def over_compute(cases: Sequence[Case], arms: Arms) -> Chart:
    """All conditions in one panel; FLOPs are the first choice of x axis."""
    lines = [
        _line(curve, arms[overlaid(case, curve.arm)]) for case in cases for curve in whole(case)
    ]
    panel = {
        **_curves_panel(panels(cases)[0], arms),
        "name": "all conditions",
        "reach": None,
        "note": "",
        "events": [],
        "lines": lines,
    }
    return {
        **learning_curves(cases[:1], arms),
        "name": "What learning costs",
        "axes": sorted(_axes([panel]), key=lambda axis: axis["key"] != "flops"),
        "legend": _legend(line["arm"] for line in lines),
        "panels": [panel],
    }


def _axes(panels: Sequence[Mapping[str, Any]]) -> list[Mapping[str, str]]:
    """The x axes on which every line is known."""
    lines = [line for panel in panels for line in panel["lines"]]
    return [axis for axis in AXES if all(axis["key"] in line["x"] for line in lines)]


def _legend(arms: Iterable[int]) -> list[int]:
    return sorted(set(arms))


def _curves_panel(panel: Panel, arms: Arms) -> dict[str, Any]:
    case = panel.case
    return {
        "name": panel.name,
        "note": _note(panel),
        "random": number(case.row.random_return),
        "reach": numbers(panel.reach) if panel.reach else None,
        "fork": {axis: number(at) for axis, at in forks(case).items()},
        "events": _events(panel, arms),
        "sample": case.sample,
        "seeds": list(case.seeds),
        "lines": [_line(curve, arms[curve.arm]) for curve in panel.curves],
    }


def _note(panel: Panel) -> str:
    if len(panel.case.seeds) == 1:
        return ONE_SEED
    return panel.case.verdict.claim if panel.case.verdict and not panel.reach else ""


ONE_SEED = "one seed: no interval"


def _line(curve: Curve, arm: int) -> dict[str, Any]:
    return {
        "arm": arm,
        "x": {axis: numbers(at) for axis, at in curve.over.items()},
        "seeds": [numbers(run) for run in curve.returns],
        "mean": numbers(curve.mean),
        "low": numbers(curve.low),
        "high": numbers(curve.high),
    }


def _events(panel: Panel, arms: Arms) -> list[dict[str, int]]:
    """The interventions of a panel's arms after the fork."""
    return [
        {"arm": arms[curve.arm], "at": event.env_steps}
        for curve in panel.curves
        for row in panel.case.arms.get(curve.arm, ())
        for event in row.events
        if event.env_steps > row.fork_at
    ]


def gains_by_arm(cases: Sequence[Case], arms: Arms, *, sort: bool) -> Chart:
    """The gain of each arm in every condition; a panel per arm.

    With `sort` the largest gain comes first. Without it the conditions stay in their order, below
    the name of the variable that they vary.
    """
    held = dict.fromkeys(arm for case in cases for arm in case.arms if arm != "nothing")
    injections = {case.injection for case in cases}
    panels = []
    for arm in sorted(held, key=lambda arm: arm not in injections):
        rows = gains(cases, arm)
        if not sort:
            rows.sort(key=lambda gain: cases.index(gain.case))
        shown = [(gain.case.row.axis, _gain(gain, arms[arm], arm)) for gain in rows]
        panels.append(
            {
                **_shares(f"gain of {arm} over nothing", "condition", cases),
                "name": arm,
                "rows": [row for _, row in shown] if sort else _under_headings(shown),
            }
        )
    return _chosen("Gains", "arm", panels)


def _under_headings(rows: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Adds a heading row above the rows of each axis; none if there is only one axis."""
    axes = dict.fromkeys(axis for axis, _ in rows)
    if len(axes) < 2:
        return [row for _, row in rows]
    found = []
    for axis in axes:
        found.append({"label": axis.replace("_", " ") or "other", "arm": None})
        found += [row for of, row in rows if of == axis]
    return found


def _gain(gain: Gain, arm: int, name: str) -> dict[str, Any]:
    verdict = gain.case.verdict
    says = verdict.claim if verdict is not None and name == gain.case.injection else ""
    return {"label": gain.case.label, "arm": arm, **interval(gain.effect), "says": says}


def arms_beside_nothing(cases: Sequence[Case], arms: Arms) -> Chart:
    """Every arm's difference from `nothing`; a panel per condition."""
    panels = [
        {
            **_shares("difference to nothing", "arm", [case]),
            "name": case.label,
            "rows": [
                {"label": arm, "arm": arms[arm], **interval(case.relative.get(arm)), "says": ""}
                for arm in case.arms
                if arm != "nothing"
            ],
        }
        for case in cases
    ]
    return _chosen("Arms beside nothing", "condition", panels)


def _chosen(name: str, choose: str, panels: list[dict[str, Any]]) -> Chart:
    return {
        "kind": "intervals",
        "name": name,
        "choose": choose,
        "all": None,
        "start": 0,
        "legend": [],
        "panels": panels,
    }


def _shares(title: str, row_title: str, cases: Iterable[Case]) -> dict[str, Any]:
    smallest = {case.verdict.smallest_effect for case in cases if case.verdict}
    marks = [{"at": 0, "name": "nothing"}]
    marks += [{"at": at, "name": "the smallest effect that matters"} for at in sorted(smallest)]
    return {"title": title, "rowTitle": row_title, "unit": "share", "marks": marks}


def aggregate_metrics(found: Sequence[Aggregate], arms: Arms) -> Chart:
    """Interquartile mean, optimality gap and probability of improvement; a panel per metric."""
    metrics: dict[str, tuple[Callable[[Aggregate], Interval | None], float]] = {
        "interquartile mean": (lambda one: one.interquartile_mean, 1),
        "optimality gap": (lambda one: one.optimality_gap, 0),
        "probability of improvement": (lambda one: one.improvement, 0.5),
    }
    panels = [
        {
            "title": name,
            "rowTitle": "arm",
            "unit": "number",
            "marks": [{"at": neutral, "name": "no difference"}],
            "name": name,
            "rows": [
                {"label": one.arm, "arm": arms[one.arm], **interval(read(one)), "says": ""}
                for one in found
                if read(one) is not None
            ],
        }
        for name, (read, neutral) in metrics.items()
    ]
    chart = _chosen("Over all conditions", "metric", panels)
    return {**chart, "all": "all metrics", "start": None}


def profiles(found: Sequence[Aggregate], arms: Arms) -> Chart:
    """Performance profiles: the share of runs above each score, for each arm."""
    lines = [
        {
            "arm": arms[one.arm],
            "x": {"score": numbers(one.thresholds)},
            **dict(zip(("mean", "low", "high"), map(numbers, one.profile), strict=True)),
            "seeds": [],
        }
        for one in found
    ]
    panel = {"name": "share of runs above a score", "note": "", "random": None, "fork": {}}
    panel |= {"reach": [0, 1], "events": [], "seeds": [], "lines": lines}
    return {
        "kind": "curves",
        "name": "Performance profile",
        "choose": "",
        "all": None,
        "start": 0,
        "axes": [{"key": "score", "title": "score (nothing is 1)", "unit": "score"}],
        "legend": _legend(line["arm"] for line in lines),
        "panels": [panel],
    }


def correlations(found: Sequence[Proxy]) -> Chart:
    """Every probe's rank correlation with the gain, the strongest first."""
    panel = {
        "title": "rank correlation with the gain from injection",
        "rowTitle": "probe at the fork",
        "unit": "number",
        "marks": [
            {"at": 0, "name": "no correlation"},
            {"at": -1, "name": ""},
            {"at": 1, "name": ""},
        ],
        "name": "rank correlation",
        "rows": [
            {"label": one.name, "arm": None, **interval(one.correlation), "says": ""}
            for one in found
        ],
    }
    return _chosen("Which probe predicts the gain", "", [panel])


def scatter(found: Sequence[Proxy], arms: Arms) -> Chart:
    """Gain over probe value, with a point per seed; a panel per probe."""
    return {
        "kind": "scatter",
        "name": "Probe at the fork and gain",
        "choose": "probe",
        "all": None,
        "start": 0,
        "legend": [],
        "panels": [
            {
                "name": one.name,
                "note": f"ρ = {plain(one.correlation)}",
                "across": one.name,
                "up": "gain",
                "unit": "share",
                "rowTitle": "condition and run",
                "points": [
                    {
                        "x": number(x),
                        "y": number(y),
                        "group": arms[case.injection],
                        "label": f"{case.label}, {case.sample} {seed}",
                    }
                    for x, y, case, seed in zip(
                        one.values, one.gains, one.cases, one.seeds, strict=True
                    )
                ],
            }
            for one in found
        ],
    }


def probes_before_and_after(cases: Sequence[Case], arms: Arms) -> Chart:
    """Every probe on fresh networks, at the fork and at each arm's end; a panel per condition."""
    probed = [(case, probes(case)) for case in cases]
    panels = [
        {
            "name": case.label,
            "rows": [
                {
                    "label": probe.name,
                    "fresh": number(probe.fresh),
                    "fork": number(probe.fork),
                    "ends": [[arms[arm], number(value)] for arm, value in probe.end.items()],
                }
                for probe in found
            ],
        }
        for case, found in probed
        if found
    ]
    legend = _legend(arms[arm] for case, found in probed if found for arm in case.arms)
    chart = _chosen("Probes", "condition", panels)
    return {**chart, "kind": "strips", "legend": legend}


# Numbers as JSON and as text.


def number(value: float) -> float | None:
    """A number rounded to five significant digits; None if it is not finite."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def numbers(values: Any) -> list[float | None]:
    """`number` of each value."""
    return [number(float(value)) for value in np.asarray(values)]


def interval(held: Interval | None) -> Mapping[str, float | None]:
    """Low, estimate and high of an interval; None for unknown ends, all None if not measured."""
    low, middle, high = (held.low, held.estimate, held.high) if held else (math.nan,) * 3
    return {"low": number(low), "estimate": number(middle), "high": number(high)}


def plain(held: Interval) -> str:
    """An interval as text."""
    return f"{held:+.2f}".replace("-", "−")

"""Figures of studies for papers, as PNG and SVG. This module draws, and computes nothing.

Each figure has one function, which returns a Matplotlib figure. `write_figures` writes all figures
of a folder of studies. `arms`: the inks of all arms, so that related figures use the same ones; by
default, only the arms in the figure get inks.
"""

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from regrow.analysis.across_conditions import Aggregate, Proxy
from regrow.analysis.conditions import Case
from regrow.analysis.summary import (
    BEFORE,
    Curve,
    Panel,
    Summary,
    Told,
    forks,
    gains,
    panels,
    reach_of,
    whole,
)
from regrow.files.atomic import write_atomically
from regrow.files.places import Place
from regrow.report.charts import ONE_SEED, inks_of, overlaid, overlaid_inks
from regrow.report.palette import INK, SOFT, Ink, inks
from regrow.stats.intervals import Interval

Inks = Mapping[str, Ink]
WIDTH = 6.75  # inches: two columns of most proceedings
LETTERS = 110  # characters in the width of a figure
ACROSS = 4  # panels per row
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.hashsalt": "regrow",
}
FORMATS = {"png": {"dpi": 200}, "svg": {"metadata": {"Date": None}}}


def write_figures(summary: Summary, folder: Place) -> list[Place]:
    """Writes every figure of every study into a folder, as PNG and SVG; the paths."""
    written, arms = [], inks_of(summary.studies)
    for told in summary.studies:
        for kind, draw in figures_of(told, arms).items():
            with mpl.rc_context(STYLE):
                figure = draw()
                for suffix, options in FORMATS.items():
                    path = folder / f"{told.anchor}-{kind}.{suffix}"
                    written.append(_write(figure, path, suffix, options))
    return written


def figures_of(told: Told, arms: Inks | None = None) -> dict[str, Callable[[], Figure]]:
    """The figures of a study by name, as functions that draw them."""
    arms = arms or inks_of([told])
    judged = [case for case in told.cases if case.verdict is not None]
    found: dict[str, Callable[[], Figure]] = {
        "curves": lambda: learning_curves(told.cases, arms=arms)
    }
    if len(judged) > 1:
        found["gains"] = lambda: gains_per_condition(judged, arms)
    if told.aggregates:
        found["aggregate"] = lambda: aggregate(told.aggregates, arms)
    if any(case.row.level is not None for case in judged):
        found["sweep"] = lambda: sweep(judged, arms)
    if told.figure == "compute":
        found["compute"] = lambda: over_compute(told.cases, arms)
    if told.proxies:
        found["proxies"] = lambda: proxies_and_gain(told.proxies, arms)
    if judged:
        found["arms"] = lambda: arms_beside_nothing(judged, arms)
    return found


def _write(figure: Figure, path: Place, suffix: str, options: dict[str, Any]) -> Place:
    picture = io.BytesIO()
    figure.savefig(picture, format=suffix, **options)
    write_atomically(path, lambda file: file.write(picture.getvalue()))
    return path


# One function per figure.


def learning_curves(
    cases: Sequence[Case], axis: str = "env_steps", arms: Inks | None = None
) -> Figure:
    """Mean and 95% t interval over seeds; a panel per condition, or per arm if there are many.

    The dashed line is the fork, the dotted line the return of the random policy.
    """
    held = panels(cases)
    figure, places = _grid(len(held), 1.5)
    arms = arms or _inks(cases)
    for panel, axes in zip_longest(held, places):
        axes.set_visible(panel is not None)
        if panel is not None:
            _curves_on(axes, panel, arms, axis)
            alone = f"\n({ONE_SEED})" if len(panel.case.seeds) == 1 else ""
            axes.set_title(plain(textwrap.fill(panel.name, 28) + alone))
    if not any(panel.reach for panel in held):
        _legend(figure, {arm: arms[arm] for case in cases for arm in case.arms})
    figure.supxlabel(axis.replace("_", " "), fontsize=8)
    figure.supylabel("return", fontsize=8)
    return figure


def over_compute(cases: Sequence[Case], arms: Inks | None = None) -> Figure:
    """All conditions from the first env step on, over env steps, FLOPs and seconds if known.

    An arm has the same colour in all conditions; the dash differs between conditions.
    """
    held = [(case, curve) for case in cases for curve in whole(case)]
    titles = {"env_steps": "env steps", "flops": "FLOPs", "seconds": "seconds"}
    across = [axis for axis in titles if all(axis in curve.over for _, curve in held)]
    names = [overlaid(case, curve.arm) for case, curve in held]
    styles = overlaid_inks(cases, arms or _inks(cases))
    figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
    for axis, axes in zip(across, figure.subplots(1, len(across), sharey=True), strict=True):
        for name, (_, curve) in zip(names, held, strict=True):
            _curve(axes, curve, axis, styles[name])
        axes.set_ylim(*_within(reach_of([curve for _, curve in held])))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.margins(x=0)
        axes.set_xlabel(titles[axis])
    figure.supylabel("return", fontsize=8)
    _legend(figure, {name: styles[name] for name in names})
    return figure


def gains_per_condition(cases: Sequence[Case], arms: Inks | None = None) -> Figure:
    """The gain of injection over `nothing` in each condition, the largest on top."""
    rows = [gain for gain in gains(cases) if gain.effect is not None]
    figure, axes = _rows(len(rows))
    arms = arms or _inks(cases)
    labels = [gain.case.label for gain in rows]
    injections = [arms[gain.case.injection] for gain in rows]
    _dots(axes, labels, [gain.effect for gain in rows], injections)
    _shares(axes, cases)
    axes.set_xlabel("gain from injection, as a share of what learning is worth (95% interval)")
    return figure


def arms_beside_nothing(cases: Sequence[Case], arms: Inks | None = None) -> Figure:
    """Every arm's difference from `nothing`, a panel per condition."""
    arms = arms or _inks(cases)
    rows = max(len(case.relative) for case in cases)
    across = min(len(cases), 3)
    down = -(-len(cases) // across)
    size = (WIDTH, 0.5 + down * (0.45 + 0.19 * rows))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharex=True).flat
    for case, axes in zip_longest(cases, panels):
        axes.set_visible(case is not None)
        if case is not None:
            held = [arms[arm] for arm in case.relative]
            _dots(axes, list(case.relative), list(case.relative.values()), held)
            _shares(axes, [case])
            axes.set_title(plain(case.label))
            axes.tick_params(axis="x", labelbottom=True)
    figure.supxlabel("difference to nothing, as a share of its return (95% t interval)", fontsize=8)
    return figure


def sweep(cases: Sequence[Case], arms: Inks | None = None) -> Figure:
    """The gain from injection over the variable that the study varies, a panel per variable."""
    found = {case.row.axis: [] for case in cases if case.row.level is not None}
    for case in cases:
        if case.row.level is not None:
            found[case.row.axis].append(case)
    arms = arms or _inks(cases)
    figure, panels = _grid(len(found), 1.7, share_x=False)
    for (axis, held), axes in zip(found.items(), panels, strict=False):
        held = sorted(held, key=lambda case: case.row.level or 0.0)
        levels = [case.row.level for case in held]
        effects = [case.relative[case.injection] for case in held]
        _errors(axes, levels, effects, [arms[case.injection] for case in held])
        if min(levels) > 0 and max(levels) >= 8 * min(levels):
            axes.set_xscale("log")
        axes.axhline(0, color=SOFT, linewidth=0.8)
        axes.yaxis.set_major_formatter(_percent)
        axes.set_xlabel(plain(axis.replace("_", " ")))
    for axes in list(panels)[len(found) :]:
        axes.set_visible(False)
    figure.supylabel("gain from injection", fontsize=8)
    return figure


def proxies_and_gain(found: Sequence[Proxy], arms: Inks | None = None, most: int = 8) -> Figure:
    """The probes that predict the gain best, with a point per seed and Spearman's ρ."""
    shown = found[:most]
    arms = arms or _inks([case for proxy in shown for case in proxy.cases])
    figure, panels = _grid(len(shown), 1.5, share_x=False)
    for proxy, axes in zip_longest(shown, panels):
        axes.set_visible(proxy is not None)
        if proxy is not None:
            colours = [arms[case.injection].hex for case in proxy.cases]
            axes.scatter(proxy.values, proxy.gains, s=6, c=colours, alpha=0.6)
            axes.axhline(0, color=SOFT, linewidth=0.8)
            axes.yaxis.set_major_formatter(_percent)
            axes.set_title(plain(f"{proxy.name}\nρ = {proxy.correlation:.2f}"))
    figure.supxlabel("probe at the fork", fontsize=8)
    figure.supylabel("gain from injection", fontsize=8)
    return figure


def aggregate(found: Sequence[Aggregate], arms: Inks | None = None) -> Figure:
    """IQM, optimality gap, probability of improvement and performance profile of each arm."""
    names = [one.arm for one in found]
    arms = arms or inks(names)
    size = (WIDTH, 2.6 + 0.16 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    heights = (0.8 + 0.16 * len(names), 1.8)
    above, below = figure.subfigures(2, 1, height_ratios=heights, squeeze=False).flat
    metrics: dict[str, Callable[[Aggregate], Interval | None]] = {
        "interquartile mean": lambda one: one.interquartile_mean,
        "optimality gap": lambda one: one.optimality_gap,
        "probability of improvement": lambda one: one.improvement,
    }
    held = [arms[name] for name in names]
    for axes, (name, read) in zip(above.subplots(1, 3, sharey=True), metrics.items(), strict=True):
        _dots(axes, names, [read(one) for one in found], held)
        axes.set_title(name)
    axes = below.subplots()
    for one in found:
        share, low, high = one.profile
        ink = arms[one.arm]
        axes.plot(one.thresholds, share, ink.line, color=ink.hex, label=plain(one.arm))
        axes.fill_between(one.thresholds, low, high, color=ink.hex, alpha=0.15, linewidth=0)
    axes.set_xlabel("score τ (nothing is 1)")
    axes.set_ylabel("runs above τ")
    axes.legend()
    return figure


# Shared helpers.


def plain(text: str) -> str:
    """Literal text: escapes dollar signs, between which Matplotlib would read formulas."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text).replace(
        "$", r"\$"
    )


def _inks(cases: Sequence[Case]) -> dict[str, Ink]:
    return inks(arm for case in cases for arm in case.arms)


def _grid(count: int, height: float, *, share_x: bool = True) -> tuple[Figure, Any]:
    across = min(max(count, 1), ACROSS)
    down = -(-max(count, 1) // across)
    height *= 1.7 if across == 1 else 1.0
    figure = Figure(figsize=(WIDTH, 0.6 + height * down), layout="constrained")
    axes = figure.subplots(down, across, sharex=share_x and down == 1, squeeze=False)
    return figure, axes.flat


def _rows(count: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 0.7 + 0.19 * count), layout="constrained")
    return figure, figure.subplots()


def _curve(axes: Axes, curve: Curve, axis: str, ink: Ink | None) -> None:
    """A mean and its band; in the text colour if `ink` is None (the curve belongs to no arm)."""
    colour, dash = (ink.hex, ink.line) if ink else (INK, "-")
    over = curve.over[axis]
    axes.plot(over, curve.mean, dash, color=colour, linewidth=1.2)
    shade = 0.15 if ink else 0.1
    axes.fill_between(over, curve.low, curve.high, color=colour, alpha=shade, linewidth=0)


def _curves_on(axes: Axes, panel: Panel, arms: Inks, axis: str) -> None:
    for curve in panel.curves:
        _curve(axes, curve, axis, None if curve.arm == BEFORE else arms[curve.arm])
    axes.axvline(forks(panel.case)[axis], color=SOFT, linestyle="--", linewidth=0.8)
    random_return = panel.case.row.random_return
    if math.isfinite(random_return):
        axes.axhline(random_return, color=SOFT, linestyle=":", linewidth=0.8)
    axes.set_ylim(*_within(panel.reach or reach_of(panel.curves)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(x=0)


def _within(reach: tuple[float, float]) -> tuple[float, float]:
    low, high = reach
    room = 0.04 * (high - low) or 0.5
    return low - room, high + room


def _legend(figure: Figure, arms: Inks) -> None:
    handles = [
        Line2D([], [], color=ink.hex, linestyle=ink.line, label=plain(arm))
        for arm, ink in arms.items()
    ]
    columns = min(len(handles), max(1, LETTERS // max(len(arm) + 6 for arm in arms)))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns)


def _dots(
    axes: Axes, labels: Sequence[str], held: Sequence[Interval | None], arms: Sequence[Ink]
) -> None:
    """Estimates with intervals, one below the other; hollow if there is no interval."""
    for place, (interval, ink) in enumerate(zip(held, arms, strict=True)):
        if interval is None:
            continue
        ends, fill = [interval.low, interval.high], "none" if interval.missing else ink.hex
        axes.plot(ends, [place, place], ink.line, color=ink.hex, linewidth=1.6)
        axes.plot(interval.estimate, place, "o", color=ink.hex, markersize=4, mfc=fill)
    axes.set_yticks(range(len(labels)), [plain(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _errors(
    axes: Axes, levels: Sequence[Any], effects: Sequence[Interval], arms: Sequence[Ink]
) -> None:
    """Estimates with intervals over the varied variable; hollow if there is no interval."""
    middles = [effect.estimate for effect in effects]
    axes.plot(levels, middles, "-", color=arms[0].hex)
    for level, effect, ink in zip(levels, effects, arms, strict=True):
        fill = "none" if effect.missing else ink.hex
        axes.plot([level, level], [effect.low, effect.high], "-", color=ink.hex)
        axes.plot(level, effect.estimate, "o", color=ink.hex, markersize=4, mfc=fill)


def _shares(axes: Axes, cases: Sequence[Case]) -> None:
    axes.axvline(0, color=SOFT, linewidth=0.8)
    for smallest in {case.verdict.smallest_effect for case in cases if case.verdict}:
        axes.axvline(smallest, color=SOFT, linestyle="--", linewidth=0.8)
    axes.xaxis.set_major_formatter(_percent)


def _percent(value: float, _: Any = None) -> str:
    return f"{value:+.0%}" if value else "0%"

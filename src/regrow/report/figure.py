"""Learning curves of a diagnosis, of a run, and of many runs side by side."""

import io
import textwrap
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from regrow.diagnosis.judging import means_of_replicates, roles_of
from regrow.errors import require
from regrow.files.atomic import write_atomically
from regrow.files.places import Place
from regrow.records.rows import Row
from regrow.report.palette import INK, SOFT, Ink, inks
from regrow.stats.curves import running_mean
from regrow.stats.intervals import mean_band
from regrow.training.saved import Episodes, Trained
from regrow.training.schedule import RECENT
from regrow.types import Event

TOGETHER = 7  # arms in one picture
PANELS = 5  # in a row
WINDOWS = 25  # of this share of a run's env steps are the means in its learning curve
PICTURES = (".png", ".svg", ".pdf")

Curves = Mapping[str, tuple[NDArray[Any], NDArray[Any]]]

UP_TO_FORK = "fork"


def draw_diagnosis(path: Place, rows: Sequence[Row], *, title: str, subtitle: str) -> None:
    """Writes the learning curves of the rows of a diagnosis to `path`, as `draw_curves` does.

    What an arm did after the fork is drawn as ticks.
    """
    curves, events = _curves_of(rows)
    draw_curves(
        path,
        curves,
        fork_at=rows[0].fork_at,
        title=title,
        subtitle=subtitle,
        random_return=rows[0].random_return,
        events=events,
        sample="replicates" if len({row.seed for row in rows}) == 1 < len(rows) else "seeds",
    )


def draw_side_by_side(path: Place, diagnoses: Mapping[str, Sequence[Row]], *, title: str) -> None:
    """Writes the learning curves of several diagnoses to `path`, a panel each, on one scale."""
    with mpl.rc_context(look_of(9)):
        size = (4.4 * len(diagnoses), 3.6)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(diagnoses), sharey=True, squeeze=False).flat
        for axes, (name, rows) in zip(panels, diagnoses.items(), strict=True):
            curves, events = _curves_of(rows)
            _draw_arms(axes, curves, events)
            axes.axvline(rows[0].fork_at, color=SOFT, linestyle="--", linewidth=1)
            axes.axhline(rows[0].random_return, color=SOFT, linestyle=":", label="random policy")
            axes.set_title(name, loc="left", fontsize=9)
            axes.set_xlabel("env steps")
            axes.margins(x=0)
            _tidy(axes)
        panels[0].set_ylabel("return")
        panels[0].legend(frameon=False, fontsize=8)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        write_figure(figure, path)


def _curves_of(rows: Sequence[Row]) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """(the curve up to the fork and of every arm, when arms acted after the fork)."""
    arms: dict[str, list[Row]] = {}
    counted = [row for row in rows if row.returns]
    for row in means_of_replicates(counted, roles_of(rows[0])):
        arms.setdefault(row.arm, []).append(row)
    first, *_ = arms.values() or [list(rows)]
    curves: dict[str, Any] = {}
    if first[0].returns_to_fork:
        to_fork = np.array([row.returns_to_fork for row in first])
        curves[UP_TO_FORK] = np.array(first[0].env_steps_to_fork), to_fork
    events: dict[str, list[int]] = {}
    for arm, held in arms.items():
        curves[arm] = np.array(held[0].env_steps), np.array([row.returns for row in held])
        if held[0].intervention != arm:  # a rule
            begun = len(held[0].before)
            events[arm] = [step for row in held for step, _ in row.events[begun:]]
    return curves, events


def draw_curves(
    path: Place,
    curves: Curves,
    *,
    fork_at: int,
    title: str,
    subtitle: str,
    random_return: float,
    events: Mapping[str, Sequence[int]] | None = None,
    sample: str = "seeds",
) -> None:
    """Writes learning curves to `path` (PNG, or what its suffix says).

    `curves`: for every arm (env steps (bins,), returns (seeds, bins)), the way up to the fork under
    "fork". Bands are t intervals of the mean over seeds, or over what `sample` says; one has none.
    `events`: for an arm, the env steps at which it acted in any seed, drawn as ticks at the bottom.
    With more than `TOGETHER` arms, each has a panel of its own, with `nothing` in grey.
    """
    if len(curves) > TOGETHER + 1:
        _draw_panels(path, curves, fork_at, title, subtitle, sample)
        return
    over = f"env steps ({_bands(curves, sample)})"
    with _returns_over(over, path, title, subtitle) as axes:
        _draw_arms(axes, curves, events or {})
        axes.axvline(fork_at, color=SOFT, linestyle="--", linewidth=1)
        top = axes.get_xaxis_transform()
        axes.text(fork_at, 1.0, " fork", color=SOFT, va="top", transform=top)
        axes.axhline(random_return, color=SOFT, linestyle=":", linewidth=1, label="random policy")


def _bands(curves: Curves, sample: str) -> str:
    """What is said of bands."""
    runs = max(len(returns) for _, returns in curves.values())
    return "one seed: no interval" if runs == 1 else f"bands: 95% t intervals over {sample}"


def draw_training(
    path: Place, episodes: Episodes, events: Sequence[Event], *, title: str, subtitle: str
) -> None:
    """Writes the returns of one run to `path`: episodes, their running mean, and every event."""
    with _returns_over("env steps", path, title, subtitle) as axes:
        axes.plot(*episodes[:2], ".", color=SOFT, alpha=0.15, markersize=2, rasterized=True)
        if episodes.returns.size:
            mean = running_mean(episodes.returns, RECENT)
            label = f"mean of {RECENT} episodes"
            axes.plot(episodes.env_steps, mean, color=INK, label=label)
        for name, ink in inks(event.intervention for event in events).items():
            at = [event.env_steps for event in events if event.intervention == name]
            for i, step in enumerate(at):
                label = f"{name} ({len(at)}×)" if i == 0 else None
                axes.axvline(step, color=ink.hex, linestyle=ink.line, linewidth=1, label=label)


def draw_learning(path: Place, runs: Sequence[Trained]) -> None:
    """Writes the returns of training runs to `path`: a panel per environment, a colour per agent.

    Thin lines are seeds, each the mean of what ended in the last 25th of the env steps; the thick
    one is their mean, as far as all of them go. Raises `RegrowError` where a run is given twice or
    has finished no episode, and for a suffix other than those of `PICTURES`.
    """
    require(path.suffix in PICTURES, f"--out is {path}; it must end in {' or '.join(PICTURES)}")
    environments = _by_agent(runs)
    colours = inks(what for agents in environments.values() for what in agents)
    columns = min(len(environments), 2)
    rows = -(-len(environments) // columns)
    with mpl.rc_context(look_of(8)):
        figure = Figure(figsize=(4.4 * columns, 3.2 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for name, axes in zip_longest(environments, panels):
            axes.set_visible(name is not None)
            if name is not None:
                _draw_agents(axes, name, environments[name], colours)
        figure.supxlabel("env steps")
        figure.supylabel("return")
        write_figure(figure, path)


Agents = dict[str, dict[int, Episodes]]  # seeds by what was trained


def _by_agent(runs: Sequence[Trained]) -> dict[str, Agents]:
    """Runs by environment, agent and seed."""
    environments: dict[str, Agents] = {}
    for run in runs:
        seeds = environments.setdefault(run.environment, {}).setdefault(run.what, {})
        called = f"{run.what} on {run.environment}, seed {run.seed},"
        require(run.seed not in seeds, f"{called} is given twice")
        require(run.episodes.returns.size > 0, f"{called} has finished no episode yet")
        seeds[run.seed] = run.episodes
    return environments


def _draw_agents(axes: Axes, title: str, agents: Agents, colours: Mapping[str, Ink]) -> None:
    for what, seeds in agents.items():
        ink = colours[what]
        spans = [(int(held.env_steps[0]), int(held.env_steps[-1])) for held in seeds.values()]
        window = max(end for _, end in spans) // WINDOWS
        for held, (start, end) in zip(seeds.values(), spans, strict=True):
            at = _times(start, end)
            recent = held.recent_at(at, window)
            axes.plot(at, recent, ink.line, color=ink.hex, alpha=0.35, linewidth=0.8)
        at = _times(max(start for start, _ in spans), min(end for _, end in spans))
        mean = np.mean([held.recent_at(at, window) for held in seeds.values()], axis=0)
        label = textwrap.fill(what, 60)
        axes.plot(at, mean, ink.line, color=ink.hex, linewidth=1.8, label=label)
    axes.set_title(title, loc="left", fontweight="bold")
    _tidy(axes)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.1), frameon=False, fontsize=6.5)


def _times(start: int, end: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(start, max(start, end), 400).astype(np.int64))


@contextmanager
def _returns_over(over: str, path: Place, title: str, subtitle: str) -> Generator[Axes]:
    """Axes to draw returns on; what stands around them is added at the end, and all is written."""
    with mpl.rc_context(look_of(10)):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.add_subplot()
        yield axes
        axes.set_xlabel(over)
        axes.set_ylabel("return")
        _tidy(axes)
        axes.margins(x=0)
        axes.set_title(subtitle, loc="left", fontsize=9, color=SOFT)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
        write_figure(figure, path)


def look_of(size: int) -> dict[Any, Any]:
    """Settings of Matplotlib for a picture with text of this size."""
    return {"font.size": size, "svg.hashsalt": "regrow", "text.parse_math": False}


def _tidy(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k")
    axes.spines[["top", "right"]].set_visible(False)


def write_figure(figure: Figure, path: Place) -> None:
    """Writes a figure whole or not at all, as what its suffix says."""
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.lstrip(".") or "png", dpi=150)
    write_atomically(path, lambda file: file.write(picture.getvalue()))


def _draw_panels(
    path: Place, curves: Curves, fork_at: int, title: str, subtitle: str, sample: str
) -> None:
    """A panel for every arm, the curve of `nothing` in grey in each."""
    colours = inks(name for name in curves if name != UP_TO_FORK)
    arms = [arm for arm in curves if arm not in (UP_TO_FORK, "nothing")]
    rows = -(-len(arms) // PANELS)
    with mpl.rc_context(look_of(7)):
        figure = Figure(figsize=(8, 0.7 + 1.25 * rows), layout="constrained")
        panels = figure.subplots(rows, PANELS, sharex=True, sharey=True, squeeze=False).flat
        for arm, axes in zip_longest(arms, panels):
            axes.set_visible(arm is not None)
            if arm is None:
                continue
            for name in ("nothing", arm):
                _draw_curve(axes, curves[name], colours[name], 1.2)
            axes.set_title(textwrap.fill(arm, 32), loc="left", fontsize=6.5)
            _tidy(axes)
        figure.supxlabel(
            f"env steps, from the fork at {fork_at:,} on; grey: nothing; {_bands(curves, sample)}",
            fontsize=7,
        )
        figure.suptitle(f"{title} · {subtitle}", x=0.01, ha="left", fontsize=8)
        write_figure(figure, path)


def _draw_arms(axes: Axes, curves: Curves, events: Mapping[str, Sequence[int]]) -> None:
    colours = inks(arm for arm in curves if arm != UP_TO_FORK)
    for arm, curve in curves.items():
        ink = colours.get(arm)
        _draw_curve(axes, curve, ink, 1.8 if ink else 1.2, arm if ink else "before the fork")
        at = events.get(arm, ())
        low = axes.get_xaxis_transform()
        axes.plot(at, [0.015] * len(at), "|", color=ink.hex if ink else INK, ms=8, transform=low)


def _draw_curve(
    axes: Axes,
    curve: tuple[NDArray[Any], NDArray[Any]],
    ink: Ink | None,
    width: float,
    label: str | None = None,
) -> None:
    """Mean and band of (env steps, returns); in the colour of text where it is no arm's."""
    colour, dash = (ink.hex, ink.line) if ink else (INK, "-")
    env_steps, returns = curve
    mean, low, high = mean_band(returns)
    axes.plot(env_steps, mean, dash, color=colour, label=label, linewidth=width)
    axes.fill_between(env_steps, low, high, color=colour, alpha=0.15 if ink else 0.1, linewidth=0)

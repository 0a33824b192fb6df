"""Pictures for papers: learning curves with the fork marked. Draws, never computes."""

import io
import textwrap
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from regrow.checkpoint import write_atomically
from regrow.results import UP_TO_FORK
from regrow.rules import RECENT
from regrow.run import Event
from regrow.statistics import mean_band, running_mean
from regrow.train import Episodes

# Okabe & Ito 2008: eight colours that colour-blind people can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
NEUTRAL = "#555555"
PANELS = 5  # in a row

Curves = Mapping[str, tuple[NDArray[Any], NDArray[Any]]]


def draw_curves(
    path: Path,
    curves: Curves,
    *,
    fork_at: int,
    title: str,
    subtitle: str,
    random_return: float,
    events: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Writes learning curves to `path` (PNG, or what its suffix says).

    `curves`: for every arm (env steps (bins,), returns (seeds, bins)), the way up to the fork under
    "fork". Bands are t intervals of the mean over seeds. `events`: for an arm, the env steps at
    which it acted in any seed, drawn as ticks at the bottom. More arms than colours get a panel
    each, beside `nothing`.
    """
    if len(curves) > len(COLOURS) + 1:
        _draw_panels(path, curves, fork_at, title, subtitle)
        return
    over = "env steps (bands: 95% t intervals over seeds)"
    with _returns_over(over, path, title, subtitle) as axes:
        _draw_arms(axes, curves, events or {})
        axes.axvline(fork_at, color=NEUTRAL, linestyle="--", linewidth=1)
        top = axes.get_xaxis_transform()
        axes.text(fork_at, 1.0, " fork", color=NEUTRAL, va="top", transform=top)
        axes.axhline(
            random_return, color=NEUTRAL, linestyle=":", linewidth=1, label="random policy"
        )


def draw_training(
    path: Path, episodes: Episodes, events: Sequence[Event], *, title: str, subtitle: str
) -> None:
    """Writes the returns of one run to `path`: episodes, their running mean, and every event."""
    with _returns_over("env steps", path, title, subtitle) as axes:
        axes.plot(*episodes[:2], ".", color=NEUTRAL, alpha=0.15, markersize=2, rasterized=True)
        if episodes.returns.size:
            mean = running_mean(episodes.returns, RECENT)
            label = f"mean of {RECENT} episodes"
            axes.plot(episodes.env_steps, mean, color=COLOURS[0], label=label)
        names = list(dict.fromkeys(event.intervention for event in events))
        for name, colour in zip(names, COLOURS[1:] * (1 + len(names)), strict=False):
            at = [event.env_steps for event in events if event.intervention == name]
            for i, step in enumerate(at):
                label = f"{name} ({len(at)}×)" if i == 0 else None
                axes.axvline(step, color=colour, linestyle="--", linewidth=1, label=label)


@contextmanager
def _returns_over(over: str, path: Path, title: str, subtitle: str) -> Generator[Axes]:
    """Axes to draw returns on; what stands around them is added at the end, and all is written."""
    with mpl.rc_context({"font.size": 10, "svg.hashsalt": "regrow"}):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.add_subplot()
        yield axes
        axes.set_xlabel(over)
        axes.set_ylabel("return")
        axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k")
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0)
        axes.set_title(subtitle, loc="left", fontsize=9, color=NEUTRAL)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
        _write(figure, path)


def _write(figure: Figure, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.lstrip(".") or "png", dpi=150)
    write_atomically(path, lambda file: file.write(picture.getvalue()))


def _draw_panels(path: Path, curves: Curves, fork_at: int, title: str, subtitle: str) -> None:
    """A panel for every arm, the curve of `nothing` in grey in each."""
    arms = [arm for arm in curves if arm not in (UP_TO_FORK, "nothing")]
    rows = -(-len(arms) // PANELS)
    with mpl.rc_context({"font.size": 7, "svg.hashsalt": "regrow"}):
        figure = Figure(figsize=(8, 0.7 + 1.25 * rows), layout="constrained")
        panels = figure.subplots(rows, PANELS, sharex=True, sharey=True, squeeze=False).flat
        for arm, axes in zip_longest(arms, panels):
            axes.set_visible(arm is not None)
            if arm is None:
                continue
            for name, colour in (("nothing", NEUTRAL), (arm, COLOURS[0])):
                env_steps, returns = curves[name]
                mean, low, high = mean_band(returns)
                axes.plot(env_steps, mean, color=colour, linewidth=1.2)
                axes.fill_between(env_steps, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.set_title(textwrap.fill(arm, 32), loc="left", fontsize=6.5)
            axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k")
            axes.spines[["top", "right"]].set_visible(False)
        figure.supxlabel(
            f"env steps, from the fork at {fork_at:,} on; grey: nothing; bands: 95% t intervals",
            fontsize=7,
        )
        figure.suptitle(f"{title} · {subtitle}", x=0.01, ha="left", fontsize=8)
        _write(figure, path)


def _draw_arms(axes: Axes, curves: Curves, events: Mapping[str, Sequence[int]]) -> None:
    colours = iter(COLOURS * (1 + len(curves) // len(COLOURS)))
    for arm, (env_steps, returns) in curves.items():
        before = arm == UP_TO_FORK
        colour = NEUTRAL if before else next(colours)
        mean, low, high = mean_band(returns)
        label = "before the fork" if before else arm
        axes.plot(env_steps, mean, color=colour, label=label, linewidth=1.8)
        axes.fill_between(env_steps, low, high, color=colour, alpha=0.15, linewidth=0)
        at = events.get(arm, ())
        axes.plot(
            at, [0.015] * len(at), "|", color=colour, ms=8, transform=axes.get_xaxis_transform()
        )

"""The statistic of every look and the boundaries that it has to cross, as a picture.

Above the upper boundary lies *plasticity loss*, below the lower one *no plasticity loss*.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regrow.diagnosis.verdict import Looked, Verdict
from regrow.files.places import Place
from regrow.report.figure import look_of, write_figure
from regrow.report.html import Element, tag
from regrow.report.palette import FIXED, INK, SOFT

TITLE = "Looks: t statistic against the smallest effect"
WIDTH, HEIGHT, LEFT, EDGE = 420, 190, 34, 26


def known(verdict: Verdict) -> list[Looked]:
    """The looks that can be drawn: those with a statistic and a boundary."""
    return [
        look
        for look in verdict.looks
        if math.isfinite(look.statistic) and math.isfinite(look.critical)
    ]


def _reach(looks: list[Looked]) -> float:
    """How far the axis goes: beyond twice the last boundary a statistic is drawn at the edge."""
    most = max(look.critical for look in looks)
    return 1.15 * max(most, min(2 * most, max(abs(look.statistic) for look in looks)))


def units(verdict: Verdict) -> str:
    """What the looks count."""
    return "seeds" if verdict.population == "training" else "replicates of each arm"


def draw_looks(path: Place, verdict: Verdict, *, title: str) -> None:
    """Writes the picture to `path`; nothing where there is no look to draw."""
    looks = known(verdict)
    if not looks:
        return
    with mpl.rc_context(look_of(10)):
        figure = Figure(figsize=(5.6, 3.4), layout="constrained")
        _draw(figure.add_subplot(), verdict, looks)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10)
        write_figure(figure, path)


def _draw(axes: Axes, verdict: Verdict, looks: list[Looked]) -> None:
    n, reach = [look.n for look in looks], _reach(looks)
    for sign in (1, -1):
        axes.plot(n, [sign * look.critical for look in looks], "--", color=SOFT, marker="_")
    shown = [max(-reach, min(reach, look.statistic)) for look in looks]
    axes.plot(n, shown, "-o", color=FIXED["inject"].hex)
    axes.axhline(0, color=INK, linewidth=0.8)
    for text, height, align in (("plasticity loss", 0.98, "top"), ("none", 0.02, "bottom")):
        axes.text(0.02, height, text, transform=axes.transAxes, va=align, color=SOFT, fontsize=9)
    axes.set_ylim(-reach, reach)
    axes.set_xticks(n)
    axes.set_xlabel(units(verdict))
    axes.set_ylabel(f"t against {verdict.smallest_effect:.0%}")
    axes.spines[["top", "right"]].set_visible(False)


class _Scale(NamedTuple):
    """Where a number of units and a statistic lie in the picture of a page."""

    first: int
    last: int
    reach: float

    def x(self, n: int) -> float:
        """From the left."""
        share = (n - self.first) / max(1, self.last - self.first)
        return LEFT + share * (WIDTH - LEFT - EDGE) + EDGE / 2

    def y(self, value: float) -> float:
        """From the top; what lies beyond is drawn at the edge."""
        held = max(-self.reach, min(self.reach, value))
        return EDGE / 2 + (self.reach - held) / (2 * self.reach) * (HEIGHT - 1.5 * EDGE)

    def line(self, x1: float, x2: float, value: float, class_: str) -> Element:
        """A level line."""
        y = f"{self.y(value):.1f}"
        return tag("line", class_=class_, x1=f"{x1:.1f}", x2=f"{x2:.1f}", y1=y, y2=y)

    def curve(self, ns: Sequence[int], values: Sequence[float], class_: str) -> Element:
        """A line through a value for each number of units."""
        points = (f"{self.x(n):.1f},{self.y(v):.1f}" for n, v in zip(ns, values, strict=True))
        return tag("polyline", class_=class_, points=" ".join(points), fill="none")


def looks_picture(verdict: Verdict) -> Element | None:
    """The same as part of a page."""
    looks = known(verdict)
    if not looks:
        return None
    ns = [look.n for look in looks]
    scale = _Scale(min(ns), ns[-1], _reach(looks))
    svg = tag(
        "svg",
        scale.line(float(LEFT), float(WIDTH), 0.0, "zero"),
        *_bounds(scale, looks),
        scale.curve(ns, [look.statistic for look in looks], "held"),
        *_dots(scale, looks),
        *_words(scale, ns),
        class_="looks c2 d0",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        width=str(WIDTH),
        height=str(HEIGHT),
        role="img",
        aria_label=TITLE,
    )
    caption = (
        f"{TITLE}, by {units(verdict)}. Dashed: what it has to cross; the error rate holds over "
        "all looks together."
    )
    return tag("figure", svg, tag("figcaption", tag("span", caption)))


def _bounds(scale: _Scale, looks: Sequence[Looked]) -> Iterator[Element]:
    """The boundaries; a look alone has one, too."""
    for sign in (1.0, -1.0):
        bounds = [sign * look.critical for look in looks]
        yield scale.curve([look.n for look in looks], bounds, "bound")
        for look, bound in zip(looks, bounds, strict=True):
            yield scale.line(scale.x(look.n) - 7, scale.x(look.n) + 7, bound, "crossed")


def _dots(scale: _Scale, looks: Sequence[Looked]) -> Iterator[Element]:
    for look in looks:
        at = scale.x(look.n), scale.y(look.statistic)
        yield tag("circle", cx=f"{at[0]:.1f}", cy=f"{at[1]:.1f}", r="3.5")


def _words(scale: _Scale, ns: Sequence[int]) -> Iterator[Element]:
    for n in ns:
        yield tag("text", str(n), x=f"{scale.x(n):.1f}", y=str(HEIGHT - 6), text_anchor="middle")
    for text, value in (("loss", scale.reach), ("0", 0.0), ("none", -scale.reach)):
        yield tag("text", text, x="0", y=f"{scale.y(value) + 4:.1f}")

"""The statistic of every look and the boundaries that it has to cross, as a picture.

Above the upper boundary lies *plasticity loss*, below the lower one *no plasticity loss*.
"""

import math

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


def looks_picture(verdict: Verdict) -> Element | None:
    """The same as part of a page."""
    looks = known(verdict)
    if not looks:
        return None
    reach, last = _reach(looks), looks[-1].n
    first = min(look.n for look in looks)

    def x(n: int) -> float:
        return LEFT + (n - first) / max(1, last - first) * (WIDTH - LEFT - EDGE) + EDGE / 2

    def y(value: float) -> float:
        held = max(-reach, min(reach, value))
        return EDGE / 2 + (reach - held) / (2 * reach) * (HEIGHT - 1.5 * EDGE)

    def line(values: list[float], **attributes: str) -> Element:
        points = " ".join(
            f"{x(look.n):.1f},{y(v):.1f}" for look, v in zip(looks, values, strict=True)
        )
        return tag("polyline", points=points, fill="none", **attributes)

    bounds = [
        line([sign * look.critical for look in looks], class_="bound") for sign in (1.0, -1.0)
    ]
    # A look alone has a boundary, too.
    bounds += [
        tag(
            "line",
            class_="crossed",
            x1=f"{x(look.n) - 7:.1f}",
            x2=f"{x(look.n) + 7:.1f}",
            y1=f"{y(sign * look.critical):.1f}",
            y2=f"{y(sign * look.critical):.1f}",
        )
        for look in looks
        for sign in (1.0, -1.0)
    ]
    ticks = [
        tag("text", str(look.n), x=f"{x(look.n):.1f}", y=str(HEIGHT - 6), text_anchor="middle")
        for look in looks
    ]
    dots = [tag("circle", cx=f"{x(k.n):.1f}", cy=f"{y(k.statistic):.1f}", r="3.5") for k in looks]
    svg = tag(
        "svg",
        tag("line", class_="zero", x1=str(LEFT), x2=str(WIDTH), y1=f"{y(0):.1f}", y2=f"{y(0):.1f}"),
        *bounds,
        line([look.statistic for look in looks], class_="held"),
        *dots,
        *ticks,
        tag("text", "loss", x="0", y=f"{y(reach) + 4:.1f}"),
        tag("text", "0", x="0", y=f"{y(0) + 4:.1f}"),
        tag("text", "none", x="0", y=f"{y(-reach) + 4:.1f}"),
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

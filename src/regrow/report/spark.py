"""Sparklines: small inline SVGs of intervals."""

from collections.abc import Callable, Sequence

from regrow.report.html import Element, tag
from regrow.stats.intervals import Interval

WIDTH, HEIGHT = 132, 14
EDGE = 6


def sparks(intervals: Sequence[Interval], smallest: float) -> Callable[[Interval, str], Element]:
    """A function that draws intervals on a common scale, with marks at 0 and `smallest`.

    The scale covers every estimate, and extends beyond them by at most their range: one very wide
    interval must not make all others look alike. An estimate without an interval is a hollow point.
    The second argument of the function is the classes of the arm's ink.
    """
    middles = [0.0, smallest, *(held.estimate for held in intervals)]
    low, high = min(middles), max(middles)
    reach = high - low
    known = [held for held in intervals if not held.missing]
    low = max(low - reach, min([low, *(held.low for held in known)]))
    high = min(high + reach, max([high, *(held.high for held in known)]))

    def at(value: float) -> str:
        share = (min(max(value, low), high) - low) / (high - low)
        return f"{EDGE + share * (WIDTH - 2 * EDGE):.1f}"

    def spark(held: Interval, ink: str) -> Element:
        middle, zero, least = str(HEIGHT / 2), at(0.0), at(smallest)
        ends = None if held.missing else {"x1": at(held.low), "x2": at(held.high)}
        return tag(
            "svg",
            tag("line", class_="zero", x1=zero, x2=zero, y1="0", y2=str(HEIGHT)),
            tag("line", class_="smallest", x1=least, x2=least, y1="0", y2=str(HEIGHT)),
            tag("line", class_="held", y1=middle, y2=middle, **ends) if ends else None,
            tag("circle", cx=at(held.estimate), cy=middle, r="3.5"),
            class_=f"spark {ink}{' alone' if held.missing else ''}",
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            width=str(WIDTH),
            height=str(HEIGHT),
            aria_hidden="true",
        )

    return spark

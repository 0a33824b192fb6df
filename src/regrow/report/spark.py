"""An interval as a picture within a line of text."""

from collections.abc import Callable, Sequence

from regrow.report.html import Element, tag
from regrow.stats.intervals import Interval

WIDTH, HEIGHT = 132, 14
EDGE = 6


def sparks(intervals: Sequence[Interval], smallest: float) -> Callable[[Interval, str], Element]:
    """A drawer of intervals on one scale, with marks at 0 and at the smallest effect.

    The scale holds every estimate, and of the intervals what lies within reach of those: one vague
    condition must not make all others look alike. What has no interval is a hollow point. The
    drawer takes the classes of the arm's ink, too.
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

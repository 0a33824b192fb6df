"""One colour for an arm, wherever it is drawn.

Okabe & Ito 2008: colours that colour-blind people can tell apart; their black gives way to two
greys, for `nothing` and `again`, and their yellow is darkened to be seen on white. Where the
colours are used up they come again, dashed.
"""

from collections.abc import Iterable
from typing import NamedTuple

GREYS = ("#6a7077", "#a5abb2")
HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a7500")
COLOURS = (*GREYS, *HUES)
_KNOWN = {"nothing": 0, "again": 1, "inject": 2, "reset": 3}


class Ink(NamedTuple):
    """Which of `COLOURS`, and how many times they were used up before."""

    colour: int
    round: int


def inks(arms: Iterable[str]) -> dict[str, Ink]:
    """An ink for every arm: well-known arms have theirs, the others take what is next."""
    found: dict[str, Ink] = {}
    later = 0
    order = list(dict.fromkeys(arms))
    free = [i for i in range(len(GREYS), len(COLOURS)) if i not in _reserved(order)]
    for arm in order:
        if arm in _KNOWN:
            found[arm] = Ink(_KNOWN[arm], 0)
            continue
        if later < len(free):
            found[arm] = Ink(free[later], 0)
        else:
            again, place = divmod(later - len(free), len(HUES))
            found[arm] = Ink(len(GREYS) + place, 1 + again)
        later += 1
    return found


def _reserved(arms: Iterable[str]) -> set[int]:
    return {_KNOWN[arm] for arm in arms if arm in _KNOWN}

"""The colour and dash of each arm, the same in `curves.png`, the page and figures for papers.

The colours are those of Okabe & Ito 2008, which colour-blind people can tell apart. Black is
reserved for text. Yellow is left out: on white it is invisible, and darkened it looks like
vermilion to protanopes. Two greys are for `nothing` and `again`. On a dark background the same hues
are lighter. Arms with the same colour have different dashes.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

Dash = Literal["-", "--", ":", "-."]
DASHES: tuple[Dash, ...] = ("-", "--", ":", "-.")
GREYS = ("#6a7077", "#a5abb2")
HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
COLOURS = (*GREYS, *HUES)
ON_DARK = ("#c3c9cf", "#7d858d", "#2b8ade", "#ee7020", "#1fb388", "#d67ab4", "#f7c95c", "#84cef7")
INK, SOFT = "#1b1d20", "#596067"
"""Colours of what belongs to no arm: curves up to the fork and means; axes and annotations."""


class Ink(NamedTuple):
    """A colour and a dash, as indices into `COLOURS` and `DASHES`."""

    colour: int
    dash: int

    @property
    def hex(self) -> str:
        """The colour on white."""
        return COLOURS[self.colour]

    @property
    def line(self) -> Dash:
        """The dash as a Matplotlib line style."""
        return DASHES[self.dash]

    @property
    def classes(self) -> str:
        """Both as CSS classes of the page."""
        return f"c{self.colour} d{self.dash}"

    def shifted(self, by: int) -> "Ink":
        """The same colour with another dash, for an arm in one of several conditions."""
        return Ink(self.colour, (self.dash + by) % len(DASHES))


# Reserved for these arms in every picture.
FIXED = {"nothing": Ink(0, 0), "again": Ink(1, 1), "inject": Ink(2, 0), "reset": Ink(3, 0)}
# Other known interventions have inks, too; if one is absent, other arms may use its ink.
KNOWN = {
    **FIXED,
    "shrink_perturb": Ink(4, 0),
    "redo": Ink(5, 0),
    "widen": Ink(6, 0),
    "reset_optimizer": Ink(7, 0),
    "continual_backprop": Ink(3, 1),
    "dash": Ink(4, 1),
    "regrama": Ink(5, 1),
    "hare_tortoise": Ink(6, 1),
    "self_normalized_reset": Ink(7, 1),
}
_ORDER = [Ink(len(GREYS) + hue, dash) for dash in range(len(DASHES)) for hue in range(len(HUES))]


def inks(arms: Iterable[str]) -> dict[str, Ink]:
    """Assigns an ink to every arm; it depends on the set of arms, not on their order.

    Arms with a known name have fixed inks. The others, in sorted order, take the free inks,
    undashed first. When all are used up, inks are reused. The result is in the order of `arms`.
    """
    order = list(dict.fromkeys(arms))
    found = {arm: KNOWN[arm] for arm in order if arm in KNOWN}
    taken = {*FIXED.values(), *found.values()}
    free = [ink for ink in _ORDER if ink not in taken]
    others = sorted(arm for arm in order if arm not in KNOWN)
    found |= {arm: free[i % len(free)] for i, arm in enumerate(others)}
    return {arm: found[arm] for arm in order}


def style() -> str:
    """The CSS of the page's colours: a variable and a class for each, light and dark."""
    pairs = list(enumerate(zip(COLOURS, ON_DARK, strict=True)))
    variables = " ".join(f"--c{i}: light-dark({light}, {dark});" for i, (light, dark) in pairs)
    classes = " ".join(f".c{i} {{ --it: var(--c{i}); }}" for i, _ in pairs)
    return f":root {{ --ink: light-dark({INK}, #e8eaed); {variables} }}\n{classes}\n"

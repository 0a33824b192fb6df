"""Translates texts that earlier versions wrote into their current meaning.

A text such as `inject` omits fields at their defaults, so its meaning changes with a default. Up to
format 1 of folders and rows, and format 2 of checkpoints, an injection gave the new head the
optimizer statistics of the old one, which is now `inject(optimizer='keep')`.
"""

import re
from collections.abc import Mapping
from typing import Any

from regrow.errors import RegrowError

FORMAT = 2
"""Of config.json and of plans of studies; increased when a text in them changes its meaning."""

_INJECT = re.compile(r"inject(?:\((.*?)\))?(\s.*)?", re.DOTALL)


def as_meant(text: str) -> str:
    """An intervention or a rule written before format 2, in the current grammar."""
    match = _INJECT.fullmatch(text)
    if match is None or "optimizer=" in (match[1] or ""):
        return text
    fields = ", ".join(filter(None, (match[1], "optimizer='keep'")))
    return f"inject({fields}){match[2] or ''}"


def plan_as_meant(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same for the plan of a diagnosis; arms keep their names."""
    arms = [
        [name, as_meant(text), draws, as_meant(rule)] for name, text, draws, rule in config["arms"]
    ]
    return {**config, "arms": arms, "before": [as_meant(text) for text in config["before"]]}


def refused(what: str, number: Any) -> RegrowError:
    """The error for work that another version started and that this one cannot continue."""
    if isinstance(number, int) and number < FORMAT:
        return RegrowError(
            f"{what} was begun by an earlier version of regrow (format {number}, this is "
            f"{FORMAT}), in which inject kept the old head's optimizer statistics; choose another "
            "--out, or go on with the version that made it"
        )
    return RegrowError(
        f"{what} was begun by another version of regrow (format {number!r}, this is {FORMAT}); "
        "choose another --out, or go on with the version that made it"
    )

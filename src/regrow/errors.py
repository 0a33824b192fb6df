"""Errors as part of the interface: what was wrong, what was received, what is right."""

import sys
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

_MANY = 40  # names that fit in a line


class RegrowError(ValueError):
    """A mistake in what the caller asked for; its text is one line fit for a terminal."""


class FaultyEnvironmentError(RegrowError):
    """An environment did what it may not do; the text names it, the env step and what came."""


class NotFiniteError(RegrowError):
    """An agent's own numbers are no longer finite; the text names them and the env step."""


class RegrowWarning(UserWarning):
    """What the caller should know of, while the work goes on; one line as well."""


_said: set[str] = set()


def warn_once(text: str, about: str = "") -> None:
    """Warns once in a process of what `about` names, in whatever words; by default of the text."""
    if (about or text) not in _said:
        _said.add(about or text)
        warnings.warn(text, RegrowWarning, stacklevel=3)


def said() -> frozenset[str]:
    """What was warned of once so far, for another process that need not say it again."""
    return frozenset(_said)


def already_said(about: Iterable[str]) -> None:
    """Takes it that these were warned of."""
    _said.update(about)


def show_warning(message: Warning | str, category: type[Warning], *place: Any) -> None:
    """A warning of regrow's in one line, any other as Python shows it."""
    if issubclass(category, RegrowWarning):
        print(f"regrow: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, *place[:2]), file=sys.stderr, end="")


def unknown(kind: str, name: str, choices: Iterable[str]) -> RegrowError:
    """The error for a name that no member of a family has, with the nearest one that exists."""
    choices = sorted(choices)
    near = get_close_matches(name, choices, n=1, cutoff=0.5)
    some = ", ".join(choices) if len(choices) <= _MANY else f"{', '.join(choices[:_MANY])}, …"
    hint = f"did you mean '{near[0]}'?" if near else f"there are: {some}"
    return RegrowError(f"no {kind} '{name}'; {hint}")


def require(condition: bool, message: str) -> None:
    """Raises `RegrowError(message)` unless the condition holds."""
    if not condition:
        raise RegrowError(message)


def require_rounds(what: str, env_steps: int | None, per_round: int) -> None:
    """Raises `RegrowError` unless the env steps are one whole round of the agent or more."""
    if env_steps is None or env_steps < per_round or env_steps % per_round:
        whole = max(per_round, (env_steps or 0) // per_round * per_round)
        near = f"{whole}" if whole > (env_steps or 0) else f"{whole} or {whole + per_round}"
        raise RegrowError(
            f"{what} is {env_steps}; it must be a multiple of {per_round}, the agent's env steps "
            f"per round, such as {near}"
        )


def in_a_line(error: BaseException) -> str:
    """What somebody else's code raised, in one line that is not too long."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else f"{text[:299]}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

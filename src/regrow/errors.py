"""Errors as part of the interface: what was wrong, what was received, what is right."""

import importlib.util
import sys
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

_MANY = 40  # names that fit in a line


class RegrowError(ValueError):
    """A mistake in what the caller asked for; its text is one line fit for a terminal."""


class FaultyEnvironmentError(RegrowError):
    """An environment broke its contract; the text names it, the env step and the value."""


class NotFiniteError(RegrowError):
    """An agent's own numbers are no longer finite; the text names them and the env step."""


class UntrustedError(RegrowError):
    """A file names code that is not run without the user's word."""


class RegrowWarning(UserWarning):
    """Something the caller should know while the work continues; one line as well."""


_said: set[str] = set()


def warn_once(text: str, about: str = "") -> None:
    """Warns once per process about `about`, whatever the text; by default, once per text."""
    if (about or text) not in _said:
        _said.add(about or text)
        warnings.warn(text, RegrowWarning, stacklevel=3)


def said() -> frozenset[str]:
    """What `warn_once` has warned about, for another process that need not repeat it."""
    return frozenset(_said)


def already_said(about: Iterable[str]) -> None:
    """Marks these as warned about, so that `warn_once` does not repeat them."""
    _said.update(about)


def show_warning(message: Warning | str, category: type[Warning], *place: Any) -> None:
    """Prints a warning of regrow in one line, and any other as Python shows it."""
    if issubclass(category, RegrowWarning):
        print(f"regrow: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, *place[:2]), file=sys.stderr, end="")


def unknown(kind: str, name: str, choices: Iterable[str]) -> RegrowError:
    """The error for an unknown name in a family, with the closest name that exists."""
    choices = sorted(choices)
    near = get_close_matches(name, choices, n=1, cutoff=0.5)
    some = ", ".join(choices) if len(choices) <= _MANY else f"{', '.join(choices[:_MANY])}, …"
    hint = f"did you mean '{near[0]}'?" if near else f"there are: {some}"
    return RegrowError(f"no {kind} '{name}'; {hint}")


def require(condition: bool, message: str) -> None:
    """Raises `RegrowError(message)` unless the condition holds."""
    if not condition:
        raise RegrowError(message)


def require_package(package: str, by: str, extra: str) -> None:
    """Raises `RegrowError` with what to install, if a package is missing that `by` needs."""
    require(
        importlib.util.find_spec(package) is not None,
        f"{by} needs {package}: pip install 'regrow[{extra}]'",
    )


def require_rounds(what: str, env_steps: int | None, per_round: int) -> None:
    """Raises `RegrowError` unless the env steps are one or more whole rounds of the agent."""
    if env_steps is None or env_steps < per_round or env_steps % per_round:
        whole = max(per_round, (env_steps or 0) // per_round * per_round)
        near = f"{whole}" if whole > (env_steps or 0) else f"{whole} or {whole + per_round}"
        raise RegrowError(
            f"{what} is {env_steps}; it must be a multiple of {per_round}, the agent's env steps "
            f"per round, such as {near}"
        )


def in_a_line(error: BaseException) -> str:
    """The exception of someone else's code, in one line of limited length."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else f"{text[:299]}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

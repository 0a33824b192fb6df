"""Errors as part of the interface: what was wrong, what was received, what is right."""

from collections.abc import Iterable
from difflib import get_close_matches

_MANY = 40  # names that fit in a line


class RegrowError(ValueError):
    """A mistake in what the caller asked for; its text is one line fit for a terminal."""


class RegrowWarning(UserWarning):
    """What the caller should know of, while the work goes on; one line as well."""


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

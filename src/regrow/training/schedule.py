"""Rules: an intervention and when to carry it out, parsed from text.

inject at 500_000
reset every 200_000 at most 3 times
inject when dead_units above 0.3
inject when trainability below 0.5 for 3 checks at most 2 times checked every 20_000
shrink_perturb when returns plateau for 5 checks
"""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from numpy.typing import NDArray

from regrow.errors import RegrowError, require, require_rounds
from regrow.interventions.base import Intervention
from regrow.registry import PATTERN, describe, make, whole
from regrow.training.triggers import RETURNS, At, Every, Plateau, Seen, Trigger, When
from regrow.types import Event

_NUMBER = f"({PATTERN})"
_RULE = re.compile(r"\s*(\S.*?)\s+(at|every|when)\s+(\S.*?)\s*", re.DOTALL)
_MOST = rf"(?:\s+at\s+most\s+{_NUMBER}\s+times?)?"
_LOOKS = (
    rf"(?:\s+for\s+{_NUMBER}\s+checks?)?(?:{_MOST}|\s+(without\s+limit))"
    rf"(?:\s+checked\s+every\s+{_NUMBER})?"
)
_EVERY = re.compile(_NUMBER + _MOST)
_BEYOND = re.compile(rf"(\S.*?)\s+(above|below)\s+(\S+?){_LOOKS}", re.DOTALL)
_PLATEAU = re.compile(rf"{RETURNS}\s+plateau{_LOOKS}")
FORMS = (
    "'inject at 500_000', 'reset every 200_000', 'inject when dead_units above 0.3' "
    "or 'inject when returns plateau'"
)

_ALLOWED = {
    "at": "'at' and a number of env steps, e.g. 'inject at 500_000'",
    "every": "'every' and a number of env steps, then 'at most 3 times' if need be",
    "when": "'when', then e.g. 'dead_units above 0.3' or 'returns plateau', then if need be, in "
    "this order, 'for 3 checks', 'at most 3 times' or 'without limit', 'checked every 20_000'",
}


class Rule(NamedTuple):
    """An intervention and its trigger."""

    intervention: Intervention
    trigger: Trigger

    @staticmethod
    def parse(text: str) -> "Rule":
        """Parses a rule; raises `RegrowError` if `text` is not a valid rule."""
        match = _RULE.fullmatch(text)
        if match is None:
            raise RegrowError(f"'{text}' is no rule; write e.g. {FORMS}")
        intervention = make("interventions", match[1])
        trigger = _trigger(text, match[2], match[3])
        if trigger.watches not in ("", RETURNS):
            make("probes", trigger.watches)
        return Rule(intervention, trigger)

    def __str__(self) -> str:
        return f"{describe(self.intervention)} {self.trigger}"


def is_rule(text: str) -> bool:
    """Whether a text has the form of a rule, rather than of an intervention alone."""
    return _RULE.fullmatch(text) is not None


def _trigger(text: str, word: str, rest: str) -> Trigger:
    if word == "at" and (found := re.fullmatch(_NUMBER, rest)):
        return At(whole(found[1]))
    if word == "every" and (found := _EVERY.fullmatch(rest)):
        return Every(whole(found[1]), _whole(found[2]))
    if word == "when" and (found := _PLATEAU.fullmatch(rest)):
        return Plateau(**_looks(found.groups()))
    if word == "when" and (found := _BEYOND.fullmatch(rest)):
        probe, side, level, *looks = found.groups()
        try:
            value = float(level)
        except ValueError as error:
            raise RegrowError(f"'{text}': {level} is not a number") from error
        return When(probe, **{side: value}, **_looks(looks))
    raise RegrowError(f"'{text}': '{word} {rest}' says no time; write {_ALLOWED[word]}")


def _looks(groups: Sequence[str | None]) -> dict[str, Any]:
    patience, times, limitless, every = groups
    given = {"patience": _whole(patience), "times": _whole(times), "every": _whole(every)}
    looks: dict[str, Any] = {name: number for name, number in given.items() if number is not None}
    return looks | ({"times": None} if limitless else {})


def _whole(text: str | None) -> int | None:
    return None if text is None else whole(text)


RECENT = 100
"""The number of episodes over which the recent return is averaged."""


def recent_return(returns: NDArray[Any]) -> float:
    """The mean of the last `RECENT` of `returns`, which is in order; NaN if there is none."""
    recent = returns[-RECENT:]
    return float(recent.mean()) if recent.size else math.nan


class Check(NamedTuple):
    """One check of one rule: when, the rule's index, the value, whether it fired."""

    env_steps: int
    rule: int
    value: float
    fired: bool


def check_rules(rules: Sequence[Rule], per_round: int) -> None:
    """Raises `RegrowError` if a rule occurs twice, or its time is not a multiple of a round."""
    names = [str(rule) for rule in rules]
    for name in names:
        require(names.count(name) == 1, f"the rule '{name}' is there twice")
    for rule in rules:
        require_rounds(f"the time of '{rule}'", rule.trigger.next(0), per_round)


def next_check(rules: Sequence[Rule], now: int, until: int) -> int:
    """The next env step after `now` at which a rule is due, at most `until`."""
    due = [step for rule in rules if (step := rule.trigger.next(now + 1)) is not None]
    return min([*due, until])


if TYPE_CHECKING:

    class Watched(Protocol):
        """A training run to which rules can be applied."""

        @property
        def env_steps(self) -> int:
            """Env steps taken so far."""
            ...

        @property
        def history(self) -> tuple[Event, ...]:
            """The interventions that were carried out."""
            ...

        def measure(self, probes: Sequence[str]) -> dict[str, float]:
            """Probe values by name."""
            ...

        def intervene(self, intervention: Intervention) -> Any:
            """A copy with the intervention applied."""
            ...

else:
    # Python 3.11 reads a protocol's properties when it checks an instance, and those of a used-up
    # Run raise. So at run time any object is accepted.
    Watched = Any


Subject = TypeVar("Subject", bound=Watched)


def followed(
    run: Subject, rules: Sequence[Rule], checks: Sequence[Check], recent_return: float
) -> tuple[Subject, list[Check]]:
    """Applies the rules due at this env step: (the run, `checks` and the new checks).

    A rule is skipped if it was checked at this env step already, or if it has fired as often as
    its trigger allows.
    """
    now, found = run.env_steps, list(checks)
    for number, rule in enumerate(rules):
        own = [check for check in found if check.rule == number]
        acted = [check.env_steps for check in own if check.fired]
        if rule.trigger.next(now) != now or any(check.env_steps == now for check in own):
            continue
        if rule.trigger.spent(acted):
            continue
        value = _watched(run, rule.trigger, recent_return)
        seen = [*(Seen(check.env_steps, check.value) for check in own), Seen(now, value)]
        fires = rule.trigger.fires(seen, acted)
        if fires:
            run = run.intervene(rule.intervention)
        found.append(Check(now, number, value, fires))
    return run, found


def _watched(subject: Watched, trigger: Trigger, recent_return: float) -> float:
    """The value that a trigger watches; of several Learners, the one closest to firing."""
    if trigger.watches == "":
        return math.nan
    if trigger.watches == RETURNS:
        return recent_return
    values = subject.measure([trigger.watches])
    known = [value for value in values.values() if not math.isnan(value)]
    if not known:
        return math.nan
    return max(known) if isinstance(trigger, When) and trigger.above is not None else min(known)


def until_now(checks: Sequence[Check], run: Watched) -> list[Check]:
    """The checks that a saved Run includes: none later, and none whose event it lacks."""
    now = run.env_steps
    here = [check for check in checks if check.env_steps == now]
    acted = sum(event.env_steps == now for event in run.history)
    complete = sum(check.fired for check in here) <= acted
    return [c for c in checks if c.env_steps < now or (c.env_steps == now and complete)]

"""Plans: what a study is to do, written down before it begins.

    OUT/plans/<study>--<scale>.json    question, claims, figure, conditions

Rows belong to a study only as its plan says, claims are decided only once all that was planned is
done, and whoever watches a study knows from its plan how much of it is left.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from regrow.errors import RegrowError, require
from regrow.files.atomic import read_json, write_json
from regrow.files.formats import FORMAT, plan_as_meant


class Condition(NamedTuple):
    """A condition as it was written; `config` is what `Plan.from_config` reads.

    Of a plan of format 1 it is what that meant then.
    """

    label: str
    axis: str
    level: float | None
    environment: str
    agent: str
    before: tuple[str, ...]
    fork_at: int
    horizon: int
    arms: tuple[str, ...]
    seeds: int
    config: Mapping[str, Any]


class Plan(NamedTuple):
    """What a study wrote down at a scale; conditions by their labels.

    With a name and a scale alone: of a study that wrote down nothing. `format`: see
    `regrow.files.formats`.
    """

    study: str
    scale: str
    question: str = ""
    claims: tuple[int, ...] = ()
    figure: str = "curves"
    conditions: Mapping[str, Condition] = MappingProxyType({})
    format: int = FORMAT


class Plans(NamedTuple):
    """The plans of a folder by (study, scale), and in a sentence each what could not be read."""

    held: Mapping[tuple[str, str], Plan]
    problems: list[str]


def plan_file(folder: Path, study: str, scale: str) -> Path:
    """Where the plan of a study is written."""
    return folder / "plans" / f"{plain_name(study)}--{plain_name(scale)}.json"


def plain_name(text: str) -> str:
    """A text as a part of a file's name: without what could lead elsewhere."""
    return "".join(c if c.isalnum() or c in "_-" else "-" for c in text)[:80]


def write_plan(folder: Path, content: Mapping[str, Any]) -> Path:
    """Writes a plan, whole or not at all; where to."""
    path = plan_file(folder, content["study"], content["scale"])
    write_json(path, {"format": FORMAT, **content})
    return path


def read_plans(folder: Path) -> Plans:
    """Every plan in a folder of studies."""
    held: dict[tuple[str, str], Plan] = {}
    problems: list[str] = []
    for path in sorted((folder / "plans").glob("*.json")):
        try:
            plan = read_plan(path)
            held[plan.study, plan.scale] = plan
        except RegrowError as error:
            problems.append(str(error))
    return Plans(held, problems)


def read_plan(path: Path) -> Plan:
    """The plan in a file; `RegrowError` where it is not as it was written, with what is odd."""
    content = read_json(path)
    try:
        _check("the file", content, dict)
        number = _check("format", content.get("format", 1), int)
        require(1 <= number <= FORMAT, f"it has format {number}; this version reads 1 to {FORMAT}")
        conditions = [_condition(one, number) for one in _held(content, "conditions", list)]
        return Plan(
            _held(content, "study", str),
            _held(content, "scale", str),
            _held(content, "question", str),
            _all(content, "claims", int),
            _held(content, "figure", str),
            {condition.label: condition for condition in conditions},
            number,
        )
    except RegrowError as error:
        raise RegrowError(f"{path} is no plan of a study ({error}); run the study again") from error


def _condition(content: Any, number: int) -> Condition:
    _check("a condition", content, dict)
    arms = _all(content, "arms", list)
    for arm in arms:
        kinds = [type(word) for word in arm]
        require(kinds == [str, str, int, str], f"one of arms is {arm!r}")
    _all(content, "before", str)
    if number < 2:
        content = plan_as_meant(content)
    return Condition(
        _held(content, "label", str),
        _held(content, "axis", str),
        _held(content, "level", (int, float, type(None))),
        _held(content, "environment", str),
        _held(content, "agent", str),
        _all(content, "before", str),
        _held(content, "fork_at", int),
        _held(content, "horizon", int),
        tuple(name for name, *_ in arms),
        _held(content, "seeds", int),
        content,
    )


def _held(content: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    require(name in content, f"it has no '{name}'")
    return _check(name, content[name], kind)


def _all(content: Mapping[str, Any], name: str, kind: type) -> tuple[Any, ...]:
    return tuple(_check(f"one of {name}", one, kind) for one in _held(content, name, list))


def _check(name: str, value: Any, kind: type | tuple[type, ...]) -> Any:
    require(isinstance(value, kind) and not isinstance(value, bool), f"{name} is {value!r}")
    return value

"""Plans: what a study is to do, written down before it begins.

    OUT/plans/<study>--<scale>.json    question, claims, figure, conditions

Rows belong to a study only as its plan says, claims are decided only once all that was planned is
done, and whoever watches a study knows from its plan how much of it is left.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from regrow.errors import RegrowError, require
from regrow.files.atomic import read_json, write_json
from regrow.files.formats import FORMAT, plan_as_meant


class PlannedArm(NamedTuple):
    """An arm as it was written: what it does at the fork, its replicate, its rule afterwards."""

    name: str
    intervention: str
    replicate: int
    rule: str


class Condition(msgspec.Struct, frozen=True):
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
    arms: tuple[PlannedArm, ...]
    seeds: int
    config: Mapping[str, Any] = {}

    @property
    def arm_names(self) -> tuple[str, ...]:
        """The arms in their order."""
        return tuple(arm.name for arm in self.arms)


class Plan(msgspec.Struct, frozen=True):
    """What a study wrote down at a scale; conditions by their labels.

    With a name and a scale alone: of a study that wrote down nothing. `format`: see
    `regrow.files.formats`.
    """

    study: str
    scale: str
    question: str = ""
    claims: tuple[int, ...] = ()
    figure: str = "curves"
    conditions: Mapping[str, Condition] = {}
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
    try:
        content = msgspec.convert(read_json(path), dict[str, Any])
        number = content.get("format", 1)
        known = number in range(1, FORMAT + 1)
        require(known, f"it has format {number}; this version reads 1 to {FORMAT}")
        stored = msgspec.convert(content.get("conditions"), list[dict[str, Any]])
        if number < 2:
            for condition in stored:
                msgspec.convert(condition, Condition)
            stored = [plan_as_meant(condition) for condition in stored]
        read = [msgspec.convert({**config, "config": config}, Condition) for config in stored]
        conditions = {condition.label: condition for condition in read}
        return msgspec.convert({**content, "format": number, "conditions": conditions}, Plan)
    except (msgspec.ValidationError, RegrowError) as error:
        raise RegrowError(f"{path} is no plan of a study ({error}); run the study again") from error

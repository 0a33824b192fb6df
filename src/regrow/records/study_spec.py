"""Plans: what a study will do, written to a file before it starts.

    OUT/plans/<study>--<scale>.json    question, claims, figure, conditions

The plan decides which rows belong to a study. Claims are decided only when everything in the plan
is done. `regrow watch` reads from the plan how much is left.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from regrow.errors import RegrowError, require
from regrow.files.atomic import read_sealed, sealed, write_atomically
from regrow.files.formats import FORMAT, plan_as_meant
from regrow.files.places import Place, listed


class PlannedArm(NamedTuple):
    """An arm in a plan: its intervention at the fork, its replicate, and its rule afterwards."""

    name: str
    intervention: str
    replicate: int
    rule: str


class Condition(msgspec.Struct, frozen=True):
    """A condition in a plan; `config` is the input of `Plan.from_config`.

    A condition of a format 1 plan is translated to what it meant then.
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
        """The names of the arms, in order."""
        return tuple(arm.name for arm in self.arms)


class Plan(msgspec.Struct, frozen=True):
    """The plan of a study at a scale; conditions by label.

    A study without a written plan has only a name and a scale. `format`: see
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
    """The plans of a folder by (study, scale), and a sentence for each that could not be read."""

    held: Mapping[tuple[str, str], Plan]
    problems: list[str]


def plan_file(folder: Place, study: str, scale: str) -> Place:
    """The path of a study's plan."""
    return folder / "plans" / f"{plain_name(study)}--{plain_name(scale)}.json"


def plain_name(text: str) -> str:
    """Makes a text safe for use in a file name."""
    return "".join(c if c.isalnum() or c in "_-" else "-" for c in text)[:80]


def write_plan(folder: Place, content: Mapping[str, Any]) -> Place:
    """Writes a plan atomically; its path."""
    path = plan_file(folder, content["study"], content["scale"])
    whole = sealed({"format": FORMAT, **content})
    write_atomically(path, lambda file: file.write(whole))
    return path


def read_plans(folder: Place) -> Plans:
    """Every plan in a folder of studies."""
    held: dict[tuple[str, str], Plan] = {}
    problems: list[str] = []
    for path in listed(folder / "plans", ".json"):
        try:
            plan = read_plan(path)
            held[plan.study, plan.scale] = plan
        except RegrowError as error:
            problems.append(str(error))
    return Plans(held, problems)


def read_plan(path: Place) -> Plan:
    """Reads the plan in a file; `RegrowError`, with the reason, if it is not valid."""
    try:
        content = msgspec.convert(read_sealed(path), dict[str, Any])
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
    except (msgspec.ValidationError, UnicodeError, RegrowError) as error:
        raise RegrowError(f"{path} is no plan of a study ({error}); run the study again") from error

"""What conditions of studies share: cells with the same numbers are carried out once.

A digest names all that a cell's numbers hang on (agent, environment, what comes before the fork,
where it is, the horizon, the format of rows) but for its arm and its seed. Conditions with one
digest are one piece of work, whatever their arms, seeds and studies.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from regrow.diagnosis.jobs import Cell, cells
from regrow.diagnosis.plan import BINS, Arm, Diagnosis
from regrow.errors import RegrowError, require
from regrow.records.rows import FORMAT, Key
from regrow.records.study_spec import plan_file, read_plans
from regrow.studies.base import Scale, Study


class Part(NamedTuple):
    """A condition of a study at a scale."""

    study: str
    scale: str
    label: str
    axis: str
    level: float | None
    plan: Diagnosis

    def key(self, cell: Cell) -> Key:
        """The key of the row that an arm's cell makes."""
        assert cell.arm is not None, "a fork makes no row"
        return self.study, self.scale, self.label, cell.arm.name, cell.seed


@dataclass(frozen=True)
class Shared:
    """Conditions that share their cells: one plan with the arms and seeds of all of them."""

    plan: Diagnosis
    folder: Path
    parts: tuple[Part, ...]

    def cells(self) -> list[Cell]:
        """Those that some condition asks for: a seed after the other, the fork before its arms."""
        found = [cell for cell, _ in cells(self.plan) if cell.arm is None or self.asking(cell)]
        return sorted(found, key=lambda cell: cell.seed)

    def asking(self, cell: Cell) -> list[Part]:
        """The conditions that ask for an arm's cell."""
        return [
            part
            for part in self.parts
            if cell.arm in part.plan.arms and cell.seed < part.plan.seeds
        ]

    def env_steps(self, cell: Cell) -> int:
        """How long a cell is."""
        return self.plan.fork_at if cell.arm is None else self.plan.horizon


def parts_of(studies: Iterable[Study], scale: Scale) -> list[Part]:
    """All conditions of studies; raises `RegrowError` where two of a study have one label."""
    parts: list[Part] = []
    for study in studies:
        conditions = study.conditions(scale)
        labels = [condition.label for condition in conditions]
        for label in labels:
            require(labels.count(label) == 1, f"{study.name} has two conditions '{label}'")
        parts += [Part(study.name, scale, c.label, c.axis, c.level, c.plan) for c in conditions]
    return parts


def shared(parts: Iterable[Part], out: Path) -> list[Shared]:
    """Conditions put together by their digests, in the order of the first of each."""
    groups: dict[str, list[Part]] = {}
    for part in parts:
        groups.setdefault(digest_of(part.plan), []).append(part)
    return [
        Shared(_union([part.plan for part in held]), out / "work" / digest, tuple(held))
        for digest, held in groups.items()
    ]


def digest_of(plan: Diagnosis) -> str:
    """What the numbers of a plan's cells hang on, but for arm and seed."""
    return _digest(
        repr(plan.agent),
        repr(plan.environment),
        [repr(intervention) for intervention in plan.before],
        plan.fork_at,
        plan.horizon,
    )


def random_file(out: Path, plan: Diagnosis) -> Path:
    """Where it is kept what the random policy earns in a plan's environment (at that time)."""
    when = (plan.fork_at, plan.horizon, plan.agent.num_envs) if plan.environment.shifts else ()
    return out / "work" / f"random-{_digest(repr(plan.environment), when)}.json"


def _digest(*content: Any) -> str:
    text = json.dumps([*content, BINS, FORMAT])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _union(plans: Sequence[Diagnosis]) -> Diagnosis:
    arms: dict[Arm, None] = dict.fromkeys(arm for plan in plans for arm in plan.arms)
    return replace(plans[0], arms=tuple(arms), seeds=max(plan.seeds for plan in plans))


# Written down before the work begins, for those who look at it from outside.


def written(study: Study, scale: Scale, parts: Iterable[Part]) -> dict[str, Any]:
    """What a study is to do, as plain data; `regrow.records.study_spec` and `parts_in` read it."""
    return {
        "study": study.name,
        "scale": scale,
        "question": study.question,
        "claims": list(study.claims),
        "figure": study.figure,
        "conditions": [
            {"label": part.label, "axis": part.axis, "level": part.level, **part.plan.config()}
            for part in parts
            if part.study == study.name
        ],
    }


def parts_in(out: Path) -> tuple[list[Part], list[str]]:
    """(the conditions that were written down in a folder, in a sentence each what is wrong)."""
    parts: list[Part] = []
    plans, problems = read_plans(out)
    for plan in plans.values():
        try:
            parts += [
                Part(plan.study, plan.scale, *held[:3], plan=Diagnosis.from_config(held.config))
                for held in plan.conditions.values()
            ]
        except (RegrowError, KeyError, TypeError) as error:
            path = plan_file(out, plan.study, plan.scale)
            problems.append(f"{path} cannot be carried out ({error}); run the study again")
    return parts, problems

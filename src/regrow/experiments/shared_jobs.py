"""What conditions of studies share: jobs with the same numbers are carried out once.

A digest names all that a job's numbers hang on (agent, environment, what comes before the fork,
where it is, the horizon, the format of rows) but for its arm and its seed. Conditions with one
digest are one piece of work, whatever their arms, seeds and studies.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regrow.diagnosis.jobs import Job, jobs
from regrow.diagnosis.plan import Arm, Plan
from regrow.diagnosis.recording import PlannedCondition, digest_of
from regrow.errors import RegrowError, require
from regrow.records.study_spec import plan_file, read_plans
from regrow.studies.base import Scale, Study


@dataclass(frozen=True)
class Shared:
    """Conditions that share their jobs: one plan with the arms and seeds of all of them."""

    plan: Plan
    folder: Path
    parts: tuple[PlannedCondition, ...]

    def jobs(self) -> list[Job]:
        """Those that some condition asks for: a seed after the other, the fork before its arms."""
        found = [job for job, _ in jobs(self.plan) if job.arm is None or self.asking(job)]
        return sorted(found, key=lambda job: job.seed)

    def asking(self, job: Job) -> list[PlannedCondition]:
        """The conditions that ask for an arm's job."""
        return [
            part for part in self.parts if job.arm in part.plan.arms and job.seed < part.plan.seeds
        ]

    def env_steps(self, job: Job) -> int:
        """How long a job is."""
        return self.plan.fork_at if job.arm is None else self.plan.horizon


def parts_of(studies: Iterable[Study], scale: Scale) -> list[PlannedCondition]:
    """All conditions of studies; raises `RegrowError` where two of a study have one label."""
    parts: list[PlannedCondition] = []
    for study in studies:
        conditions = study.conditions(scale)
        labels = [condition.label for condition in conditions]
        for label in labels:
            require(labels.count(label) == 1, f"{study.name} has two conditions '{label}'")
        parts += [
            PlannedCondition(study.name, scale, c.label, c.axis, c.level, c.plan)
            for c in conditions
        ]
    return parts


def shared(parts: Iterable[PlannedCondition], out: Path) -> list[Shared]:
    """Conditions put together by their digests, in the order of the first of each."""
    groups: dict[str, list[PlannedCondition]] = {}
    for part in parts:
        groups.setdefault(digest_of(part.plan), []).append(part)
    return [
        Shared(_union([part.plan for part in held]), out / "work" / digest, tuple(held))
        for digest, held in groups.items()
    ]


def _union(plans: Sequence[Plan]) -> Plan:
    arms: dict[Arm, None] = dict.fromkeys(arm for plan in plans for arm in plan.arms)
    return replace(plans[0], arms=tuple(arms), seeds=max(plan.seeds for plan in plans))


# Written down before the work begins, for those who look at it from outside.


def written(study: Study, scale: Scale, parts: Iterable[PlannedCondition]) -> dict[str, Any]:
    """What a study is to do, as plain data; `regrow.records.study_spec` and `parts_in` read it."""
    return {
        "study": study.name,
        "scale": scale,
        "question": study.question,
        "claims": list(study.claims),
        "figure": study.figure,
        "conditions": [part.config() for part in parts if part.study == study.name],
    }


def parts_in(out: Path) -> tuple[list[PlannedCondition], list[str]]:
    """(the conditions that were written down in a folder, in a sentence each what is wrong)."""
    parts: list[PlannedCondition] = []
    plans, problems = read_plans(out)
    for plan in plans.values():
        try:
            parts += [
                PlannedCondition(
                    plan.study, plan.scale, c.label, c.axis, c.level, Plan.from_config(c.config)
                )
                for c in plan.conditions.values()
            ]
        except (RegrowError, KeyError, TypeError) as error:
            path = plan_file(out, plan.study, plan.scale)
            problems.append(f"{path} cannot be carried out ({error}); run the study again")
    return parts, problems

"""Jobs shared between conditions: jobs with the same results run only once.

A digest identifies everything that determines a job's results, except its arm and seed: the agent,
the environment, the interventions before the fork, the env step of the fork, the horizon, and the
format of rows. Conditions with the same digest share their jobs, whatever their arms, seeds and
studies.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regrow.diagnosis.jobs import Job, jobs
from regrow.diagnosis.plan import Arm, Plan
from regrow.diagnosis.recording import PlannedCondition, digest_of
from regrow.errors import RegrowError, require
from regrow.files.places import Place
from regrow.records.study_spec import plan_file, read_plans
from regrow.registry import names_in
from regrow.studies.base import Scale, Study


@dataclass(frozen=True)
class Shared:
    """Conditions that share their jobs, with one plan that has all of their arms and seeds."""

    plan: Plan
    folder: Place
    parts: tuple[PlannedCondition, ...]

    def jobs(self) -> list[Job]:
        """The jobs that some condition needs, seed by seed, with the fork before its arms."""
        found = [job for job, _ in jobs(self.plan) if job.arm is None or self.asking(job)]
        return sorted(found, key=lambda job: job.seed)

    def asking(self, job: Job) -> list[PlannedCondition]:
        """The conditions that need an arm's job."""
        return [
            part
            for part in self.parts
            if job.arm in part.plan.arms
            and job.seed < part.plan.seeds
            and job.replicate < part.plan.replicates
        ]

    def env_steps(self, job: Job) -> int:
        """The length of a job in env steps."""
        return self.plan.fork_at if job.arm is None else self.plan.horizon


def parts_of(studies: Iterable[Study], scale: Scale) -> list[PlannedCondition]:
    """All conditions of studies; raises `RegrowError` if two of a study have the same label."""
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


def shared(parts: Iterable[PlannedCondition], out: Place) -> list[Shared]:
    """Groups conditions by digest, in the order of the first condition of each group."""
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


# Plans on disk: written before the work begins, and read by other processes.


def written(study: Study, scale: Scale, parts: Iterable[PlannedCondition]) -> dict[str, Any]:
    """The plan of a study as plain data, for `regrow.records.study_spec` and `parts_in`."""
    return {
        "study": study.name,
        "scale": scale,
        "question": study.question,
        "claims": list(study.claims),
        "figure": study.figure,
        "conditions": [part.config() for part in parts if part.study == study.name],
    }


def parts_in(out: Place, *, trust: bool = False) -> tuple[list[PlannedCondition], list[str]]:
    """(the conditions of all plans in a folder, a sentence for each problem).

    `trust`: import modules that the plans name.
    """
    parts: list[PlannedCondition] = []
    plans, problems = read_plans(out)
    for plan in plans.values():
        path = plan_file(out, plan.study, plan.scale)
        try:
            with names_in(path, trust=trust):
                parts += [
                    PlannedCondition(
                        plan.study, plan.scale, c.label, c.axis, c.level, Plan.from_config(c.config)
                    )
                    for c in plan.conditions.values()
                ]
        except (RegrowError, KeyError, TypeError) as error:
            problems.append(f"{path} cannot be carried out ({error}); run the study again")
    return parts, problems

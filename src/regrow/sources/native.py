"""Agents of this library, trained from the start."""

from collections.abc import Sequence
from dataclasses import dataclass

from regrow.agents.base import Agent
from regrow.diagnosis.plan import (
    DEFAULT_ARMS,
    FORK_AT,
    HORIZON,
    REPLICATES,
    SEEDS,
    SMALLEST_EFFECT,
    Arm,
    Plan,
)
from regrow.environments.base import Environment
from regrow.interventions.base import Intervention
from regrow.sources.base import RunSource


@dataclass(frozen=True)
class Native(RunSource):
    """An agent and an environment of this library, trained from the start."""


class Diagnosis:
    """The plan of a diagnosis of an agent of this library; a `Plan`, which explains the fields.

    `agent` and `environment` are trained from the start, once per seed.
    """

    def __new__(
        cls,
        agent: Agent,
        environment: Environment,
        arms: Sequence[Arm] = tuple(Arm.parse(name) for name in DEFAULT_ARMS),
        seeds: int = SEEDS,
        fork_at: int = FORK_AT,
        horizon: int = HORIZON,
        before: Sequence[Intervention] = (),
        smallest_effect: float = SMALLEST_EFFECT,
        confidence: float = 0.95,
        *,
        replicates: int = REPLICATES,
        fixed: bool = False,
        returns_range: tuple[float, float] | None = None,
    ) -> Plan:
        """A `Plan` whose source is `Native(agent, environment)`."""
        return Plan(
            Native(agent, environment),
            tuple(arms),
            seeds,
            fork_at,
            horizon,
            tuple(before),
            smallest_effect,
            confidence,
            replicates,
            fixed=fixed,
            returns_range=returns_range,
        )

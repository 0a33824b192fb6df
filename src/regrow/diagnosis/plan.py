"""The plan of a diagnosis: what is trained, where it forks, and into what."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from regrow.agents.base import Agent
from regrow.environments.base import Environment, HostEnvironment, World
from regrow.errors import require, require_rounds
from regrow.interventions.base import Intervention
from regrow.interventions.inject import Inject
from regrow.interventions.nothing import Nothing
from regrow.interventions.reset import Reset
from regrow.learners.learner import learners
from regrow.registry import describe, make
from regrow.training.run import abstract_state
from regrow.training.schedule import Rule, check_rules, is_rule

BINS = 20
"""Time bins of a learning curve after the fork."""


class Arm(NamedTuple):
    """What is done at the fork, or from there on by a rule.

    `replicate` other than 0 gives the arm random numbers of its own.
    """

    name: str
    intervention: Intervention
    replicate: int = 0
    rule: Rule | None = None

    @staticmethod
    def parse(text: str) -> "Arm":
        """An arm from its name: `again`, an intervention as in `inject(split=0)`, or a rule."""
        if text == "again":
            return Arm("again", Nothing(), replicate=1)
        if is_rule(text):
            rule = Rule.parse(text)
            return Arm(str(rule), Nothing(), rule=rule)
        intervention = make("interventions", text)
        return Arm(describe(intervention), intervention)

    @property
    def does(self) -> Intervention:
        """What the arm does, at the fork or later."""
        return self.intervention if self.rule is None else self.rule.intervention

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The arm's rule, if it has one."""
        return () if self.rule is None else (self.rule,)

    @property
    def file_name(self) -> str:
        """The name as part of a file's name."""
        return "".join(c if c.isalnum() or c == "_" else "-" for c in self.name)


DEFAULT_ARMS = ("nothing", "again", "inject", "reset")


def arms_at_every_split(agent: Agent, environment: World) -> tuple[str, ...]:
    """The default arms, with an injection at every split of the agent's networks."""
    state = abstract_state(agent, environment, ())
    layers = min(len(learner.network.layers) for learner in learners(state.agent).values())
    injections = tuple(f"inject(split={split})" for split in range(layers))
    return ("nothing", "again", *injections, "reset")


@dataclass(frozen=True)
class Diagnosis:
    """A diagnosis to be made: what is trained, where it forks, and into what.

    `fork_at` and `horizon` are env steps, multiples of the agent's round; `before` is carried out
    ahead of the fork, in all arms; `seeds` counts from 0. Raises `RegrowError` for a plan that
    cannot give a verdict.
    """

    agent: Agent
    environment: World
    arms: tuple[Arm, ...] = tuple(Arm.parse(name) for name in DEFAULT_ARMS)
    seeds: int = 5
    fork_at: int = 60_000
    horizon: int = 40_000
    before: tuple[Intervention, ...] = ()
    smallest_effect: float = 0.05
    confidence: float = 0.95

    def __post_init__(self) -> None:
        per_round = self.agent.env_steps_per_round
        for name in ("fork_at", "horizon"):
            value = getattr(self, name)
            least = per_round * (BINS if name == "horizon" else 1)
            require(value >= least, f"{name} is {value}; it must be at least {least} env steps")
            require_rounds(name, value, per_round)
        require(self.seeds >= 2, f"seeds is {self.seeds}; a verdict needs at least 2")
        require(
            self.fork_at + self.horizon < 2**31,
            f"fork_at + horizon is {self.fork_at + self.horizon}; it must be below 2^31",
        )
        require(
            0 < self.smallest_effect < math.inf,
            f"smallest_effect is {self.smallest_effect}; it must be a number > 0",
        )
        require(
            0 < self.confidence < 1, f"confidence is {self.confidence}; it must be between 0 and 1"
        )
        if isinstance(self.environment, Environment):
            self.environment.with_num_envs(self.agent.num_envs)
        self._check_arms()

    def _check_arms(self) -> None:
        names = [arm.name for arm in self.arms]
        files = [arm.file_name for arm in self.arms]
        for name, file in zip(names, files, strict=True):
            require(files.count(file) == 1, f"the arm '{name}' is there twice")
            require(file != "fork", "no arm can be called 'fork'; that is where they begin")
        require(
            "nothing" in names, "the arms must include 'nothing': the others are paired with it"
        )
        require(
            any(isinstance(arm.does, Inject) for arm in self.arms),
            f"the arms must include an injection, e.g. 'inject'; received: {', '.join(names)}",
        )
        for arm in self.arms:
            check_rules(arm.rules, self.agent.env_steps_per_round)
            for rule in arm.rules:
                first, end = rule.trigger.next(self.fork_at), self.fork_at + self.horizon
                require(
                    first is not None and first < end,
                    f"'{rule}' is never due from the fork at {self.fork_at} to the end at {end}",
                )

    def config(self) -> dict[str, Any]:
        """The plan as plain data; `from_config` reads it."""
        return {
            "agent": describe(self.agent),
            "environment": describe(self.environment),
            "arms": [
                [arm.name, describe(arm.intervention), arm.replicate, str(arm.rule or "")]
                for arm in self.arms
            ],
            "seeds": self.seeds,
            "fork_at": self.fork_at,
            "horizon": self.horizon,
            "before": [describe(intervention) for intervention in self.before],
            "smallest_effect": self.smallest_effect,
            "confidence": self.confidence,
        }

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> "Diagnosis":
        """The plan that `config` wrote down."""
        return Diagnosis(
            agent=make("agents", config["agent"]),
            environment=make("environments", config["environment"]),
            arms=tuple(
                Arm(
                    name, make("interventions", text), replicate, Rule.parse(rule) if rule else None
                )
                for name, text, replicate, rule in config["arms"]
            ),
            before=tuple(make("interventions", text) for text in config["before"]),
            **{
                name: config[name]
                for name in ("seeds", "fork_at", "horizon", "smallest_effect", "confidence")
            },
        )

    @property
    def env_steps(self) -> int:
        """Env steps of all cells together."""
        return self.seeds * (self.fork_at + len(self.arms) * self.horizon)

    def injection(self) -> str:
        """The arm that the claim is about: the first injection."""
        return next(arm.name for arm in self.arms if isinstance(arm.does, Inject))

    def splits(self) -> dict[str, int]:
        """The arms that inject at the fork and differ in the split alone, with their splits.

        Where there are such arms of several kinds, those of the kind with the most.
        """
        found: dict[Inject, dict[str, int]] = {}
        for arm in self.arms:
            done = arm.intervention
            if isinstance(done, Inject) and done.split is not None:
                found.setdefault(replace(done, split=None), {})[arm.name] = done.split
        return max(found.values(), key=len, default={})

    def restarts(self) -> bool:
        """Whether the arms begin new episodes at the fork, for want of a copy of the simulation."""
        environment = self.environment
        return isinstance(environment, HostEnvironment) and environment.snapshot_size == 0

    def resets(self) -> list[str]:
        """The arms that are resets."""
        return [arm.name for arm in self.arms if isinstance(arm.does, Reset)]

"""The contract of a study: a question, the claims it decides, and the conditions it compares.

A study is data. Each of its conditions is a diagnosis (environment, agent, what happens before the
fork, arms, seeds, sizes) with a label. Its cost depends on the scale:

    smoke    minutes for all studies together: checks that everything runs, no result
    laptop   for most studies, a quarter of an hour each on two cores
    paper    the published setting, as far as there is an agent for it

Identical conditions of different studies are run once, so studies use the settings below unless
something speaks against it.
"""

import abc
import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, get_args

from regrow.agents.base import Agent
from regrow.diagnosis.plan import Arm, Plan
from regrow.environments.base import Environment
from regrow.errors import require
from regrow.registry import make
from regrow.sources.native import Diagnosis

Scale = Literal["smoke", "laptop", "paper"]
SCALES: tuple[Scale, ...] = get_args(Scale)

Figure = Literal["curves", "gains", "proxies", "sweep", "compute", "arms"]
"""What a report draws of a study.

curves: learning curves, a panel per condition. gains: the gain from injection, condition by
condition, sorted. proxies: every probe at the fork against the gain. sweep: the gain along `axis`.
compute: learning curves over env steps and over FLOPs. arms: the difference of every arm to
`nothing`.
"""


@dataclass(frozen=True)
class Condition:
    """One diagnosis of a study. `axis`, `level`: what varies between conditions, and its value."""

    label: str
    plan: Plan
    axis: str = ""
    level: float | None = None

    def __post_init__(self) -> None:
        for arm in self.plan.arms:
            # The results of an arm are looked up by its name.
            require(arm == Arm.parse(arm.name), f"the arm '{arm.name}' does something else")


@dataclass(frozen=True)
class Study(abc.ABC):
    """A question, the claims that it decides (stated before it runs), and its conditions."""

    question: ClassVar[str]
    claims: ClassVar[tuple[int, ...]]
    figure: ClassVar[Figure]

    @property
    def name(self) -> str:
        """The name on the command line and in rows."""
        return study_name(type(self))

    @abc.abstractmethod
    def conditions(self, scale: Scale) -> tuple[Condition, ...]:
        """The diagnoses to run."""


def study_name(study: type[Study]) -> str:
    """The name of a study on the command line: `primacy-bias` of PrimacyBias."""
    return re.sub("(?<!^)(?=[A-Z])", "-", study.__name__).lower()


ARMS = ("nothing", "again", "inject", "reset")
"""`again` is a second replicate of `nothing`: of the other arms a study runs one."""


@dataclass(frozen=True)
class Setting:
    """What the conditions of a study share. All seeds are run: studies do not stop early."""

    agent: Agent
    environment: Environment
    arms: tuple[str, ...] = ARMS
    before: tuple[str, ...] = ()
    seeds: int = 5
    fork_at: int = 60_000
    horizon: int = 40_000

    def but(self, **changes: Any) -> "Setting":
        """The setting with some fields changed."""
        return dataclasses.replace(self, **changes)

    def on(self, environment: str) -> "Setting":
        """The setting with another environment."""
        return self.but(environment=make("environments", environment))

    def condition(
        self,
        label: str,
        *,
        agent: Mapping[str, Any] = MappingProxyType({}),
        environment: str | None = None,
        arms: Sequence[str] | None = None,
        before: Sequence[str] | None = None,
        axis: str = "",
        level: float | None = None,
    ) -> Condition:
        """A condition of this setting; `agent`: fields to change; others replace the setting's."""
        setting = self if environment is None else self.on(environment)
        as_it_is: Any = setting.agent  # agents are dataclasses, but their base class is not
        plan = Diagnosis(
            agent=dataclasses.replace(as_it_is, **agent),
            environment=setting.environment,
            arms=tuple(Arm.parse(arm) for arm in (self.arms if arms is None else arms)),
            seeds=self.seeds,
            fork_at=self.fork_at,
            horizon=self.horizon,
            before=tuple(
                make("interventions", text) for text in (self.before if before is None else before)
            ),
            replicates=1,
            fixed=True,
        )
        return Condition(label, plan, axis, level)


# Settings that studies share, so that identical conditions are run once.

DOUBLE_DQN: Mapping[Scale, Setting] = {
    "smoke": Setting(
        make("agents", "double_dqn(hidden=16, channels=4, learn_start=40, replay_capacity=400)"),
        make("environments", "toy/matching_reward"),
        seeds=2,
        fork_at=400,
        horizon=400,
    ),
    "laptop": Setting(make("agents", "double_dqn"), make("environments", "minatar/breakout")),
    # 200 million frames, forked at 50 million, four frames to an env step (arXiv 2305.15555).
    "paper": Setting(
        make("agents", "double_dqn:atari_paper"),
        make("environments", "atari/phoenix"),
        fork_at=12_500_000,
        horizon=37_500_000,
    ),
}
SAC: Mapping[Scale, Setting] = {
    "smoke": Setting(
        make("agents", "sac(hidden=16, batch_size=16, learn_start=40, replay_capacity=1_000)"),
        make("environments", "toy/reach"),
        seeds=2,
        fork_at=200,
        horizon=400,
    ),
    "laptop": Setting(
        make(
            "agents",
            "sac(hidden=64, batch_size=64, learn_start=1_000, replay_capacity=20_000, "
            "replay_ratio=16)",
        ),
        make("environments", "control/cartpole-swingup(action_repeat=8)"),
        fork_at=5_000,
        horizon=15_000,
    ),
    # A million env steps, ten seeds, resets every 200,000 (arXiv 2205.07802).
    "paper": Setting(
        make("agents", "sac"),
        make("environments", "control/quadruped-run"),
        seeds=10,
        fork_at=10_000,
        horizon=990_000,
    ),
}
FITTED_NOISE: Mapping[Scale, tuple[str, ...]] = {
    "smoke": ("fit_noise(rounds=2, updates=100, transitions=100)",),
    "laptop": ("fit_noise",),
    "paper": (),
}
"""Interventions before the fork that remove plasticity where training alone is too short to."""

"""The plan of a diagnosis: which source of Subjects, where it forks, into which arms, and when one
looks.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from regrow.diagnosis.subject import Source
from regrow.errors import RegrowError, require, require_rounds
from regrow.interventions.base import Intervention
from regrow.interventions.inject import Inject
from regrow.interventions.nothing import Nothing
from regrow.interventions.reset import Reset
from regrow.registry import describe, make, members
from regrow.stats.sequential import usual_looks
from regrow.training.schedule import Rule, check_rules, is_rule

BINS = 20
"""Time bins of a learning curve after the fork."""
SEEDS, REPLICATES, SMALLEST_EFFECT, FORK_AT, HORIZON = 20, 2, 0.1, 60_000, 40_000
"""The defaults of a diagnosis: the most seeds, runs of each arm of a seed, the smallest effect that
matters as a share of what learning is worth, env steps to the fork, and after it."""

MOST_RUNS = 1_000_000
"""How many runs a diagnosis may have; each is a file or two."""

Role = Literal["control", "replicate", "injection", "reset", "other"]


_LONGEST = 100  # characters of an arm in the name of a file


class Arm(NamedTuple):
    """What is done at the fork, or from there on by a rule.

    `replicate`: the first of its replicates; each has random numbers of its own, those of
    replicate 0 continue the trunk's.
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

    @staticmethod
    def from_config(content: Sequence[Any]) -> "Arm":
        """An arm as `Plan.config` wrote it."""
        name, text, replicate, rule = content
        parsed = Rule.parse(rule) if rule else None
        return Arm(name, make("interventions", text), replicate, parsed)

    def config(self) -> list[Any]:
        """The arm as plain data."""
        return [self.name, describe(self.intervention), self.replicate, str(self.rule or "")]

    @property
    def does(self) -> Intervention:
        """What the arm does, at the fork or later."""
        return self.intervention if self.rule is None else self.rule.intervention

    @property
    def role(self) -> Role:
        """What the arm is for: only the first of each role but "reset" and "other" counts."""
        if isinstance(self.does, Nothing):
            return "replicate" if self.replicate else "control"
        if isinstance(self.does, Inject):
            return "injection"
        return "reset" if isinstance(self.does, Reset) else "other"

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The arm's rule, if it has one."""
        return () if self.rule is None else (self.rule,)

    @property
    def file_name(self) -> str:
        """The name as part of a file's name; arms that differ have names that differ."""
        plain = "".join(c if c.isalnum() or c == "_" else "-" for c in self.name)
        if len(plain) <= _LONGEST and self._is_named_after_itself:
            return plain
        digest = hashlib.sha256(repr(self.config()).encode()).hexdigest()[:8]
        return f"{plain[:_LONGEST]}-{digest}"

    @property
    def _is_named_after_itself(self) -> bool:
        """Whether its name says all that it does."""
        if self.rule is not None:
            return self.name == str(self.rule)
        own = "again" if self.role == "replicate" else describe(self.intervention)
        return self.name == own and self.replicate == (own == "again")


class Roles(NamedTuple):
    """The names of the arms that a verdict is made from.

    `replicate`: the control once more, with other random numbers; None without one. `splits`: for
    injections at the fork that differ in the split alone, from which layer on each renews.
    """

    control: str = "nothing"
    replicate: str | None = "again"
    injection: str = "inject"
    resets: tuple[str, ...] = ("reset",)
    splits: Mapping[str, int] = {}

    @staticmethod
    def of(arms: Sequence[Arm]) -> "Roles":
        """Who does what; `RegrowError` where there is no control or no injection."""
        by_role: dict[Role, list[str]] = {}
        for arm in arms:
            by_role.setdefault(arm.role, []).append(arm.name)
        names = ", ".join(arm.name for arm in arms)
        require(
            "control" in by_role,
            "the arms must include 'nothing': the others are paired with it",
        )
        require(
            "injection" in by_role,
            f"the arms must include an injection, e.g. 'inject'; received: {names}",
        )
        return Roles(
            by_role["control"][0],
            by_role.get("replicate", [None])[0],
            by_role["injection"][0],
            tuple(by_role.get("reset", ())),
            _splits(arms),
        )


def _splits(arms: Sequence[Arm]) -> dict[str, int]:
    """Where there are injections of several kinds, those of the kind with the most splits."""
    found: dict[Inject, dict[str, int]] = {}
    for arm in arms:
        done = arm.intervention
        if isinstance(done, Inject) and done.split is not None:
            found.setdefault(replace(done, split=None), {})[arm.name] = done.split
    return max(found.values(), key=len, default={})


DEFAULT_ARMS = ("nothing", "inject", "reset")


def arms_at_every_split(splits: int) -> tuple[str, ...]:
    """The default arms, with an injection at every one of so many splits."""
    injections = tuple(f"inject(split={split})" for split in range(splits))
    return ("nothing", *injections, "reset")


@dataclass(frozen=True)
class Plan:
    """A diagnosis to be made: what is trained, where it forks, and into what.

    `fork_at` and `horizon` are env steps, multiples of the source's round; `before` is carried out
    ahead of the fork, in all arms. `seeds`, counted from 0: the most; `replicates`: how often each
    arm of a seed is run (`again` is the second replicate of `nothing`). With one seed the
    replicates are the sample, and `replicates` the most. `looks`: the numbers of seeds (of
    replicates) at which one looks and may stop; by default the usual ones
    (`regrow.stats.sequential`), or with `fixed` all of them at once. `returns_range`: (lowest,
    highest) return, the unit of effects in place of what learning is worth. Raises `RegrowError`
    for a plan that cannot give a verdict.
    """

    source: Source
    arms: tuple[Arm, ...] = tuple(Arm.parse(name) for name in DEFAULT_ARMS)
    seeds: int = SEEDS
    fork_at: int = FORK_AT
    horizon: int = HORIZON
    before: tuple[Intervention, ...] = ()
    smallest_effect: float = SMALLEST_EFFECT
    confidence: float = 0.95
    replicates: int = REPLICATES
    looks: tuple[int, ...] = ()
    fixed: bool = False
    returns_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.replicates > 1:  # `again` is one of them
            kept = tuple(arm for arm in self.arms if arm.role != "replicate")
            object.__setattr__(self, "arms", kept)
        if self.fixed:
            looks = (self.most,)
        elif self.looks:
            looks = (*(n for n in self.looks if n < self.most), self.most)
        else:
            looks = usual_looks(self.most)
        object.__setattr__(self, "looks", looks)
        for name in ("fork_at", "horizon"):
            value = getattr(self, name)
            least = self.source.round * (BINS if name == "horizon" else 1)
            require(value >= least, f"{name} is {value}; it must be at least {least} env steps")
            if name == "horizon" or value != self.source.starts_at:
                require_rounds(name, value, self.source.round)
        self._check_sizes()
        require(
            self.source.starts_at in (0, self.fork_at),
            f"fork_at is {self.fork_at}; trained runs are forked where they are, at "
            f"{self.source.starts_at}",
        )
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
        self._check_arms()

    def _check_sizes(self) -> None:
        require(self.seeds >= 1, f"seeds is {self.seeds}; it must be at least 1")
        require(self.replicates >= 1, f"replicates is {self.replicates}; it must be at least 1")
        require(
            self.most >= 2,
            f"seeds is {self.seeds} and replicates {self.replicates}; a verdict needs at least 2 "
            "seeds, or 2 replicates of one",
        )
        runs = self.seeds * self.replicates * len(self.arms)
        require(
            runs <= MOST_RUNS,
            f"seeds times replicates times arms is {runs}; it must be at most {MOST_RUNS}",
        )
        known = self.source.agents
        require(
            known is None or self.seeds <= known,
            f"seeds is {self.seeds}; there are {known} trained agents to fork",
        )
        if self.returns_range is not None:
            low, high = self.returns_range
            require(
                math.isfinite(low) and math.isfinite(high) and low < high,
                f"the range of returns is {low} to {high}; give the lower end first",
            )

    @property
    def single(self) -> bool:
        """Whether one agent is diagnosed, of which the replicates are the sample."""
        return self.seeds == 1

    def unit_of(self, seed: int, replicate: int) -> int:
        """Which unit of the sample a run belongs to, counted from 0."""
        return replicate if self.single else seed

    @property
    def most(self) -> int:
        """The largest number of units: seeds, or replicates of a single agent."""
        return self.replicates if self.single else self.seeds

    def _check_arms(self) -> None:
        names = [arm.name for arm in self.arms]
        for name in names:
            require(names.count(name) == 1, f"the arm '{name}' is there twice")
            require(name != "fork", "no arm can be called 'fork'; that is where they begin")
        _ = self.roles
        for arm in self.arms:
            check_rules(arm.rules, self.source.round)
            for rule in arm.rules:
                first, end = rule.trigger.next(self.fork_at), self.fork_at + self.horizon
                require(
                    first is not None and first < end,
                    f"'{rule}' is never due from the fork at {self.fork_at} to the end at {end}",
                )

    def config(self) -> dict[str, Any]:
        """The plan as plain data; `from_config` reads it."""
        return {
            **self.source.config(),
            "arms": [arm.config() for arm in self.arms],
            "seeds": self.seeds,
            "fork_at": self.fork_at,
            "horizon": self.horizon,
            "before": [describe(intervention) for intervention in self.before],
            "smallest_effect": self.smallest_effect,
            "confidence": self.confidence,
            "replicates": self.replicates,
            "looks": list(self.looks),
            "fixed": self.fixed,
            "returns_range": None if self.returns_range is None else list(self.returns_range),
        }

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> "Plan":
        """The plan that `config` wrote down.

        One without looks is of before there were any: all seeds at once, and one replicate.
        """
        given = config.get("returns_range")
        earlier = "looks" not in config
        return Plan(
            source=source_from_config(config),
            arms=tuple(map(Arm.from_config, config["arms"])),
            before=tuple(make("interventions", text) for text in config["before"]),
            smallest_effect=SMALLEST_EFFECT if earlier else config["smallest_effect"],
            replicates=config.get("replicates", 1),
            looks=tuple(config.get("looks", ())),
            fixed=config.get("fixed", earlier),
            returns_range=None if given is None else (given[0], given[1]),
            **{name: config[name] for name in ("seeds", "fork_at", "horizon", "confidence")},
        )

    def env_steps(self, units: int | None = None) -> int:
        """Env steps of all jobs together, for that many seeds (of a single agent, replicates)."""
        units = self.most if units is None else units
        runs = units if self.single else units * self.replicates
        trunks = 1 if self.single else units
        to_fork = self.fork_at - self.source.starts_at
        return trunks * to_fork + runs * len(self.arms) * self.horizon

    @property
    def roles(self) -> Roles:
        """Which arms the verdict is made from."""
        return Roles.of(self.arms)


def source_from_config(config: Mapping[str, Any]) -> Source:
    """The source that a plan names; where it names none, an agent trained from the start."""
    kind, kinds = config.get("source", "native"), members("sources")
    if kind not in kinds:
        raise RegrowError(f"no source '{kind}'; there are: {', '.join(kinds)}")
    return kinds[kind].from_config(config)

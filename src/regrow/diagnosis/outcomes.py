"""What the arms of a diagnosis did, run by run, and how they are compared.

Every arm of a fork is run several times, in replicates that differ in their random numbers alone.
With several agents (seeds), an arm counts once per agent, with the mean of its replicates, and the
arms are paired. With a single agent the replicates themselves are the sample.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import numpy as np

from regrow.errors import require
from regrow.stats.curves import area_under_curve, final_return
from regrow.stats.effects import Components, Measured, components, independent, paired
from regrow.stats.sequential import Design


@dataclass(frozen=True)
class Outcome:
    """What one arm did after the fork of one seed, in one replicate.

    `curve`: return per time bin. `predicted`, `realised`: mean |value| that the agent predicted in
    each bin, and mean |discounted return| that followed. `largest_reward`: the largest |reward|.
    Both are of rewards as the agent learns from them. `events`: (env steps, intervention) of what
    was done, at the fork and after. `unfinished`: episodes given up before their end, which count
    with what they had collected. `stopped`: why the arm has no curve; "" where it has one.
    `resumed_with`: transitions of the replay that it went on with after a stop; 0: all of them.
    """

    arm: str
    seed: int
    curve: tuple[float, ...]
    predicted: tuple[float, ...]
    realised: float
    largest_reward: float
    probes: Mapping[str, float] = field(default_factory=dict)
    events: tuple[tuple[int, str], ...] = ()
    seconds: float = 0.0
    unfinished: int = 0
    stopped: str = ""
    replicate: int = 0
    resumed_with: int = 0

    @property
    def area(self) -> float:
        """The mean of the curve."""
        return area_under_curve(np.array(self.curve))

    @property
    def final(self) -> float:
        """The mean of the last quarter of the curve."""
        return final_return(np.array(self.curve))


class Sample(NamedTuple):
    """The runs of a diagnosis as a verdict counts them.

    `arms`: for every arm its outcomes in the order of the units, which are seeds (an outcome is the
    mean of a seed's replicates) or, of a single agent, replicates. `runs`: all runs of every arm.
    """

    arms: Mapping[str, Sequence[Outcome]]
    runs: Mapping[str, Sequence[Outcome]]
    design: Design

    @property
    def size(self) -> int:
        """How many units the smallest arm has."""
        return min(len(held) for held in self.arms.values())

    @property
    def replicates(self) -> int:
        """How many runs a seed has of the first arm; 1 of a single agent, whose units they are."""
        first = next(iter(self.arms))
        return max(1, len(self.runs[first]) // len(self.arms[first]))

    def first(self, count: int) -> "Sample":
        """The same with the first `count` units."""
        arms = {arm: held[:count] for arm, held in self.arms.items()}
        units = {_unit(run, self.design) for held in arms.values() for run in held}
        runs = {
            arm: [run for run in held if _unit(run, self.design) in units]
            for arm, held in self.runs.items()
        }
        return Sample(arms, runs, self.design)


def _unit(run: Outcome, design: Design) -> int:
    return run.seed if design == "paired" else run.replicate


def sampled(outcomes: Sequence[Outcome], control: str, replicate: str | None) -> Sample:
    """The sample that outcomes are; `replicate`: an arm that is one more replicate of the control.

    Raises `RegrowError` where arms do not have the same seeds.
    """
    again = {run.seed for run in outcomes if run.arm == control and run.replicate == 1}
    both = again & {run.seed for run in outcomes if run.arm == replicate}
    require(not both, f"'{replicate}' is there with replicates of '{control}'")
    counted = with_replicates(outcomes, control, replicate)
    runs: dict[str, list[Outcome]] = {}
    for run in sorted(counted, key=lambda run: (run.seed, run.replicate)):
        runs.setdefault(run.arm, []).append(run)
    seeds = {arm: tuple(dict.fromkeys(run.seed for run in held)) for arm, held in runs.items()}
    require(len(set(seeds.values())) <= 1, f"the arms do not have the same seeds: {seeds}")
    if of_one_agent(counted):
        return Sample(runs, runs, "independent")
    arms = {arm: averaged(held, mean_of) for arm, held in runs.items()}
    return Sample(arms, runs, "paired")


@runtime_checkable
class Replicate(Protocol):
    """A run of an arm, as an Outcome or a row of results; a dataclass."""

    @property
    def arm(self) -> str:
        """The arm's name."""
        ...

    @property
    def seed(self) -> int:
        """Which fork it is of."""
        ...

    @property
    def replicate(self) -> int:
        """Which of the arm's runs from there."""
        ...


R = TypeVar("R", bound=Replicate)


def with_replicates(runs: Sequence[R], control: str, replicate: str | None) -> list[R]:
    """The runs, with those of the arm `replicate` as one more replicate of the control."""
    return [
        replace(cast(Any, run), arm=control, replicate=run.replicate + 1)
        if run.arm == replicate
        else run
        for run in runs
    ]


def of_one_agent(runs: Sequence[Replicate]) -> bool:
    """Whether the replicates are the sample: there is one seed, and every arm has several."""
    counts = Counter(run.arm for run in runs)
    return len({run.seed for run in runs}) == 1 and min(counts.values()) > 1


def averaged(runs: Sequence[R], mean: Callable[[Sequence[R]], R]) -> list[R]:
    """One run per arm and seed: the mean of its replicates."""
    groups: dict[tuple[str, int], list[R]] = {}
    for run in runs:
        groups.setdefault((run.arm, run.seed), []).append(run)
    return [held[0] if len(held) == 1 else mean(held) for held in groups.values()]


def mean_fields(runs: Sequence[Any], *names: str) -> dict[str, Any]:
    """The means over runs of fields that hold a number, or numbers of equal length."""
    means = {name: np.mean([getattr(run, name) for run in runs], axis=0) for name in names}
    return {
        name: tuple(mean.tolist()) if np.ndim(mean) else float(mean) for name, mean in means.items()
    }


def mean_of(runs: Sequence[Outcome]) -> Outcome:
    """The replicates of an arm of a seed as one outcome: means, and the events of the first."""
    names = set.intersection(*(set(run.probes) for run in runs))
    probes = {name: float(np.mean([run.probes[name] for run in runs])) for name in sorted(names)}
    return replace(
        runs[0],
        **mean_fields(runs, "curve", "predicted", "realised", "seconds"),
        largest_reward=max(run.largest_reward for run in runs),
        probes=probes,
        unfinished=sum(run.unfinished for run in runs),
    )


def areas(runs: Sequence[Outcome]) -> np.ndarray:
    """The mean return after the fork of every run; shape (runs,)."""
    return np.array([run.area for run in runs])


def finals(runs: Sequence[Outcome]) -> np.ndarray:
    """The mean return over the last quarter of the horizon, of every run; shape (runs,)."""
    return np.array([run.final for run in runs])


class Scale(NamedTuple):
    """The unit of effects: what learning is worth, or a range that the user gave.

    `value`: in returns; NaN where it is not known. `random`, `error`: the random policy's return
    and its standard error. `best`: the arm with the highest mean return; None with a range.
    """

    value: float
    random: float
    error: float
    best: str | None

    @property
    def text(self) -> str:
        """What the unit is, for tables and files."""
        if self.best is None:
            return "the range of returns that was given"
        return f"mean return of the best arm ('{self.best}') above the random policy's"

    @property
    def unit_error(self) -> float:
        """The standard error of the unit that all runs have in common; a given range has none."""
        return 0.0 if self.best is None else self.error

    def measured(self, sample: Sample, arm: str, control: str, share: float = 0.0) -> Measured:
        """An arm's difference to the control, with this unit."""
        values = {name: areas(sample.arms[name]) for name in (arm, control)}
        if self.best is not None and self.best not in values:
            values[self.best] = areas(sample.arms[self.best])
        treated, base = values[arm], values[control]
        if sample.design == "independent":
            best = np.zeros(0) if self.best is None else values[self.best]
            random = -self.value if self.best is None else self.random
            return independent(treated, base, best, random, self.unit_error, share)
        unit = self.value if self.best is None else values[self.best] - self.random
        return paired(treated, base, unit, self.unit_error)


def scale_of(
    arms: Mapping[str, Sequence[Outcome]],
    random: float,
    error: float = 0.0,
    given: tuple[float, float] | None = None,
) -> Scale:
    """The unit of effects: max over arms of the mean return − the random policy's.

    `given`: (lowest, highest) return instead.
    """
    if given is not None:
        return Scale(given[1] - given[0], random, error, None)
    means = {arm: float(areas(runs).mean()) for arm, runs in arms.items()}
    best = max(means, key=lambda arm: means[arm])
    return Scale(means[best] - random, random, error, best)


def components_of(sample: Sample, treated: str, control: str) -> Components | None:
    """Where the spread of the effect comes from."""
    forks = {run.seed for run in sample.runs[control]}
    held = [
        tuple(
            areas([run for run in sample.runs[arm] if run.seed == seed])
            for arm in (treated, control)
        )
        for seed in sorted(forks)
    ]
    return components([(pair[0], pair[1]) for pair in held])

"""What the arms of a diagnosis did, seed by seed, and the scale on which they are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from regrow.errors import require
from regrow.stats.curves import area_under_curve, final_return


@dataclass(frozen=True)
class Outcome:
    """What one arm did with one seed after the fork.

    `curve`: return per time bin. `predicted`, `realised`: mean |value| that the agent predicted in
    each bin, and mean |discounted return| that followed. `largest_reward`: the largest |reward|.
    Both are of rewards as the agent learns from them. `events`: (env steps, intervention) of what
    was done, at the fork and after. `unfinished`: episodes given up before their end, which count
    with what they had collected. `stopped`: why the arm has no curve; "" where it has one.
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

    @property
    def area(self) -> float:
        """The mean of the curve."""
        return area_under_curve(np.array(self.curve))

    @property
    def final(self) -> float:
        """The mean of the last quarter of the curve."""
        return final_return(np.array(self.curve))


def by_arm(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """The outcomes of every arm in the order of seeds; `RegrowError` unless all have the same."""
    arms: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        arms.setdefault(outcome.arm, []).append(outcome)
    for runs in arms.values():
        runs.sort(key=lambda run: run.seed)
    seeds = {arm: tuple(run.seed for run in runs) for arm, runs in arms.items()}
    require(len(set(seeds.values())) <= 1, f"the arms do not have the same seeds: {seeds}")
    return arms


def areas(runs: Sequence[Outcome]) -> np.ndarray:
    """The mean return after the fork of every run; shape (seeds,)."""
    return np.array([run.area for run in runs])


def scale_of(arms: Mapping[str, Sequence[Outcome]], control: str = "nothing") -> tuple[float, str]:
    """The unit of effects: the control arm's mean return; where that is 0, the best arm's."""
    means = {arm: abs(float(areas(runs).mean())) for arm, runs in arms.items()}
    largest = max(means.values())
    if means[control] > 1e-3 * largest:
        return means[control], f"mean return of the arm '{control}' after the fork"
    if largest > 0:
        return largest, f"mean return of the best arm after the fork ('{control}' collected none)"
    return 1.0, "return (no arm collected any)"

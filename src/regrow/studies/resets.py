"""SAC and DrQ with and without resets (arXiv 2205.07802), next to injection and `again`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from regrow.environments.pixels import Pixels
from regrow.registry import make
from regrow.studies.base import SAC, Condition, Figure, Scale, Setting, Study


class Series(NamedTuple):
    """Tasks with the same reset of one agent: what is reset, and every how many env steps."""

    setting: Setting
    tasks: Sequence[str]
    replay_ratios: Sequence[float]
    reset: str
    period: int

    def conditions(self) -> Iterator[Condition]:
        """Every task at every replay ratio."""
        arms = ("nothing", "again", "inject", f"{self.reset} every {self.period}")
        for task in self.tasks:
            for ratio in self.replay_ratios:
                yield self.setting.condition(
                    f"{task}, replay ratio {ratio:g}",
                    environment=task,
                    agent={"replay_ratio": ratio},
                    arms=arms,
                    axis="replay_ratio",
                    level=ratio,
                )


EVERYTHING, HEADS = "reset(where='everything')", "reset"
# The tasks of the published curves.
STATES = (
    *("acrobot-swingup", "cheetah-run", "finger-turn_hard", "fish-swim", "hopper-hop"),
    *("humanoid-run", "humanoid-stand", "quadruped-run", "swimmer-swimmer15", "walker-run"),
)
# DrQ's, by the number of frames they were trained for.
PIXELS = {
    500_000: (
        *("cartpole-balance", "cartpole-balance_sparse", "cartpole-swingup", "finger-spin"),
        *("walker-stand", "walker-walk"),
    ),
    1_000_000: ("hopper-stand", "pendulum-swingup"),
    2_000_000: (
        *("acrobot-swingup", "cartpole-swingup_sparse", "cheetah-run", "finger-turn_easy"),
        *("finger-turn_hard", "hopper-hop", "quadruped-run", "quadruped-walk", "reacher-easy"),
        *("reacher-hard", "walker-run"),
    ),
}
DRQ: Mapping[Scale, Setting] = {
    "smoke": Setting(
        make(
            "agents",
            "drq(channels=2, convolutions=2, latent=4, hidden=8, batch_size=8, learn_start=40, "
            "replay_capacity=1_000)",
        ),
        make("environments", "toy/shades"),
        seeds=2,
        fork_at=100,
        horizon=100,
    ),
    "laptop": Setting(
        make("agents", "drq:laptop"),
        make("environments", "pixels/cartpole-swingup"),
        seeds=3,
        fork_at=1_000,
        horizon=5_000,
    ),
    "paper": Setting(
        make("agents", "drq"),
        make("environments", "pixels/walker-walk"),
        seeds=10,
        fork_at=1_000,
        horizon=1_000,
    ),
}


def _published() -> Iterator[Series]:
    """DrQ as published: the given frames, with a reset of the heads every twentieth of them."""
    for frames, tasks in PIXELS.items():
        for task in tasks:
            setting = DRQ["paper"].but(environment=Pixels(task))
            horizon = frames // Pixels(task).repeat - setting.fork_at
            yield Series(
                setting.but(horizon=horizon), [f"pixels/{task}"], [1.0], HEADS, frames // 20
            )


SERIES: Mapping[Scale, Sequence[Series]] = {
    "smoke": (
        Series(SAC["smoke"], ["toy/reach"], [1.0], EVERYTHING, 200),
        Series(DRQ["smoke"], ["toy/shades"], [1.0], HEADS, 50),
    ),
    "laptop": (
        Series(
            SAC["laptop"],
            ["control/cartpole-swingup(action_repeat=8)", "control/finger-spin(action_repeat=2)"],
            [16.0],
            EVERYTHING,
            5_000,
        ),
        Series(DRQ["laptop"], ["pixels/cartpole-swingup"], [1.0], HEADS, 2_000),
    ),
    "paper": (
        Series(
            SAC["paper"], [f"control/{task}" for task in STATES], [1.0, 32.0], EVERYTHING, 200_000
        ),
        *_published(),
    ),
}


@dataclass(frozen=True)
class Resets(Study):
    """Periodic resets that keep the replay, task by task."""

    question: ClassVar[str] = (
        "Do resets that keep the replay improve SAC and DrQ, and does injection, which keeps the "
        "policy?"
    )
    claims: ClassVar[tuple[int, ...]] = (2, 3)
    figure: ClassVar[Figure] = "arms"

    def conditions(self, scale: Scale) -> tuple[Condition, ...]:
        """Every task of every series."""
        return tuple(one for series in SERIES[scale] for one in series.conditions())

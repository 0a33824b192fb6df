"""SAC with and without resets (arXiv 2205.07802); injection and `again` stand beside them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from regrow.studies.base import SAC, Condition, Figure, Scale, Study

# The tasks of the published curves.
DMC = (
    *("acrobot-swingup", "cheetah-run", "finger-turn_hard", "fish-swim", "hopper-hop"),
    *("humanoid-run", "humanoid-stand", "quadruped-run", "swimmer-swimmer15", "walker-run"),
)
TASKS: Mapping[Scale, tuple[str, ...]] = {
    "smoke": ("toy/reach",),
    "laptop": (
        "control/cartpole-swingup(action_repeat=8)",
        "control/finger-spin(action_repeat=2)",
    ),
    "paper": tuple(f"control/{task}" for task in DMC),
}
# (replay ratios, env steps between two resets)
RESETS: Mapping[Scale, tuple[tuple[float, ...], int]] = {
    "smoke": ((1.0,), 200),
    "laptop": ((16.0,), 5_000),
    "paper": ((1.0, 32.0), 200_000),
}


@dataclass(frozen=True)
class Resets(Study):
    """Resets of everything but the replay, again and again, task by task."""

    question: ClassVar[str] = (
        "Do resets that keep the replay improve SAC, and does injection, which keeps the policy?"
    )
    claims: ClassVar[tuple[int, ...]] = (2, 3)
    figure: ClassVar[Figure] = "arms"

    def conditions(self, scale: Scale) -> tuple[Condition, ...]:
        """Every task at every replay ratio."""
        setting, (ratios, period) = SAC[scale], RESETS[scale]
        arms = ("nothing", "again", "inject", f"reset(where='everything') every {period}")
        return tuple(
            setting.condition(
                f"{task}, replay ratio {ratio:g}",
                environment=task,
                agent={"replay_ratio": ratio},
                arms=arms,
                axis="replay_ratio",
                level=ratio,
            )
            for task in TASKS[scale]
            for ratio in ratios
        )

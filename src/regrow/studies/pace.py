"""How fast plasticity is lost: learning rate, replay ratio and network size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from regrow.studies.base import DOUBLE_DQN, Condition, Figure, Scale, Study

# The levels of every field; one of them is the agent's own.
LEVELS: Mapping[Scale, Mapping[str, tuple[Any, ...]]] = {
    "smoke": {"learning_rate": (1e-3, 4e-3), "replay_ratio": (0.25, 1.0), "hidden": (16, 32)},
    "laptop": {
        "learning_rate": (2.5e-4, 1e-3, 4e-3),
        "replay_ratio": (0.25, 1.0),
        "hidden": (32, 128, 512),
    },
    # The Atari network has one size only.
    "paper": {"learning_rate": (6.25e-5, 2.5e-4, 1e-3), "replay_ratio": (0.125, 0.25, 0.5)},
}


@dataclass(frozen=True)
class Pace(Study):
    """The gain from injection as learning rate, replay ratio and network size grow."""

    question: ClassVar[str] = (
        "Does the gain from injection grow with learning rate, replay ratio and network size?"
    )
    claims: ClassVar[tuple[int, ...]] = (8,)
    figure: ClassVar[Figure] = "sweep"

    def conditions(self, scale: Scale) -> tuple[Condition, ...]:
        """One field at a time, with the others unchanged."""
        setting = DOUBLE_DQN[scale].but(arms=("nothing", "again", "inject"))
        if scale == "laptop":
            setting = setting.but(seeds=3, fork_at=40_000, horizon=30_000)
        return tuple(
            setting.condition(
                f"{field} = {level:g}", agent={field: level}, axis=field, level=float(level)
            )
            for field, levels in LEVELS[scale].items()
            for level in levels
        )

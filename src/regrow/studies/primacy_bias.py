"""The primacy bias: many updates on the first data, then training as usual (arXiv 2205.07802)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from regrow.studies.base import DOUBLE_DQN, SAC, Condition, Figure, Scale, Setting, Study

# (the setting, the number of first transitions, the numbers of updates on them)
PRIMED: Mapping[Scale, tuple[Setting, int, tuple[int, ...]]] = {
    "smoke": (DOUBLE_DQN["smoke"], 100, (200,)),
    "laptop": (
        DOUBLE_DQN["laptop"].but(fork_at=5_000).on("minatar/space_invaders"),
        1_000,
        (5_000, 50_000),
    ),
    "paper": (SAC["paper"].but(fork_at=100, horizon=999_900), 100, (100_000,)),
}


@dataclass(frozen=True)
class PrimacyBias(Study):
    """Training after many updates on the first data, compared with training without them."""

    question: ClassVar[str] = (
        "Do too many updates on the first data damage the rest of learning, and what repairs it?"
    )
    claims: ClassVar[tuple[int, ...]] = (1,)
    figure: ClassVar[Figure] = "curves"

    def conditions(self, scale: Scale) -> tuple[Condition, ...]:
        """The same fork with no updates on the first transitions, and with more and more."""
        setting, transitions, amounts = PRIMED[scale]
        ordinary = setting.condition("ordinary training", axis="first updates", level=0.0)
        return ordinary, *(
            setting.condition(
                f"after {updates:,} updates on {transitions:,} transitions",
                before=[f"prime(updates={updates}, transitions={transitions})"],
                axis="first updates",
                level=float(updates),
            )
            for updates in amounts
        )

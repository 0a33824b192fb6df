"""Injection as a way to keep learning, compared with other known methods."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from regrow.studies.base import DOUBLE_DQN, Condition, Figure, Scale, Setting, Study

# S and P of shrink-and-perturb; the paper's best are 1 and 0.01.
GRID: Mapping[Scale, tuple[tuple[float, float], ...]] = {
    "smoke": ((1.0, 0.01), (0.8, 0.1)),
    "laptop": ((1.0, 0.01), (1.0, 0.1), (0.8, 0.01), (0.8, 0.1), (0.5, 0.01), (0.5, 0.1)),
    "paper": ((1.0, 0.01), (1.0, 0.1), (0.8, 0.01), (0.8, 0.1), (0.5, 0.01), (0.5, 0.1)),
}
OTHERS = ("reset", "reset(where='everything')", "redo", "dash", "hare_tortoise", "reset_optimizer")
# At laptop scale training alone is too short to lose plasticity, so the observations change.
SETTINGS: Mapping[Scale, Setting] = {
    "smoke": DOUBLE_DQN["smoke"].on("shifting/relabelled_actions(game='toy/matching_reward')"),
    "laptop": DOUBLE_DQN["laptop"]
    .but(fork_at=100_000, horizon=50_000)
    .on("shifting/permuted_observations(game='minatar/breakout', period=25_000)"),
    "paper": DOUBLE_DQN["paper"],
}


@dataclass(frozen=True)
class KeepLearning(Study):
    """Injection, shrink-and-perturb over its grid, resets, ReDo and others, from the same fork."""

    question: ClassVar[str] = (
        "How does injection compare with shrink-and-perturb, resets and the others?"
    )
    claims: ClassVar[tuple[int, ...]] = (10,)
    figure: ClassVar[Figure] = "arms"

    def conditions(self, scale: Scale) -> tuple[Condition, ...]:
        """One fork, many arms."""
        grid = (
            f"shrink_perturb(shrink={shrink}, perturb={perturb}, noise='normal')"
            for shrink, perturb in GRID[scale]
        )
        others = OTHERS[:3] if scale == "smoke" else OTHERS
        setting = SETTINGS[scale]
        arms = ("nothing", "again", "inject", *grid, *others)
        return (setting.condition("the same fork", arms=arms),)

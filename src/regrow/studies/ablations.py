"""The paper's ablations of injection, and a reset of the optimizer statistics alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from regrow.studies.base import DOUBLE_DQN, FITTED_NOISE, Condition, Figure, Scale, Study

PARTS = (
    *("inject(subtract=False)", "inject(freeze=False)"),
    *("inject(optimizer='keep')", "inject(optimizer='reset_all')", "reset_optimizer"),
)
# Splits of the network, and rules: several injections, later ones, one with a condition.
OTHERS: Mapping[Scale, tuple[str, ...]] = {
    "smoke": ("inject(split=0)", "inject every 200", "inject at 600"),
    "laptop": (
        *("inject(split=0)", "inject(split=2)"),
        *("inject every 10_000", "inject at 70_000", "inject at 80_000"),
        "inject when dead_units above 0.3 at most 3 times",
    ),
    "paper": (
        *("inject(split=0)", "inject(split=4)"),
        *("inject every 12_500_000", "inject at 25_000_000", "inject at 37_500_000"),
        "inject when dead_units above 0.3 at most 3 times checked every 1_000_000",
    ),
}


@dataclass(frozen=True)
class Ablations(Study):
    """Injection without one of its parts, at other layers, at other times, or more often."""

    question: ClassVar[str] = "Which parts of injection matter, and when and where to inject?"
    claims: ClassVar[tuple[int, ...]] = (11,)
    figure: ClassVar[Figure] = "arms"

    def conditions(self, scale: Scale) -> tuple[Condition, ...]:
        """One fork of agents that lost plasticity, many arms."""
        setting = DOUBLE_DQN[scale].but(before=FITTED_NOISE[scale])
        if scale == "laptop":
            setting = setting.but(seeds=3)
        arms = ("nothing", "again", "inject", *PARTS, *OTHERS[scale])
        return (setting.condition("the same fork", arms=arms),)

"""Injection at a fork against a network that was wider from the start."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from regrow.studies.base import DOUBLE_DQN, Condition, Figure, Scale, Study

# How the wider agent differs. The Atari network has one size only, so it is widened before it
# learns.
WIDER: Mapping[Scale, Mapping[str, Any]] = {
    "smoke": {"hidden": 32},
    "laptop": {"hidden": 256},
    "paper": {},
}


@dataclass(frozen=True)
class Growing(Study):
    """A network that grows by injection or widening, against one that was wider from the start."""

    question: ClassVar[str] = (
        "Does injecting late do as well as a wider network from the start, for less compute?"
    )
    claims: ClassVar[tuple[int, ...]] = (9,)
    figure: ClassVar[Figure] = "compute"

    def conditions(self, scale: Scale) -> tuple[Condition, ...]:
        """The agent, injected and widened at the fork; the wider agent."""
        setting, fields = DOUBLE_DQN[scale], WIDER[scale]
        small = setting.condition(
            "the agent", arms=["nothing", "again", "inject", "widen"], axis="width", level=1.0
        )
        if fields:
            wider = setting.condition(
                "wider from the start",
                agent=fields,
                arms=["nothing", "again", "inject"],
                axis="width",
                level=2.0,
            )
            return small, wider
        start, end = 50_000, setting.fork_at + setting.horizon
        before_learning = setting.but(fork_at=start, horizon=end - start)
        wider = before_learning.condition(
            "wider from the start",
            before=["widen"],
            arms=["nothing", "again", f"inject at {setting.fork_at}"],
            axis="width",
            level=2.0,
        )
        return small, wider

"""Proxies at the fork against the measured gain from injection."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from regrow.studies.base import DOUBLE_DQN, Condition, Figure, Scale, Study

# What came before the fork, and where: from agents that learn on well to agents that cannot.
PASTS: Mapping[Scale, tuple[tuple[str, str], ...]] = {
    "smoke": (
        ("toy/matching_reward", ""),
        ("toy/matching_reward", "fit_noise(rounds=2, updates=100, transitions=100)"),
        ("toy/matching_reward", "prime(updates=200, transitions=100)"),
    ),
    "laptop": (
        ("minatar/breakout", ""),
        ("minatar/breakout", "fit_noise(rounds=1)"),
        ("minatar/breakout", "fit_noise(rounds=5)"),
        ("minatar/breakout", "fit_noise"),
        ("minatar/breakout", "fit_noise(redraw=False)"),
        ("minatar/breakout", "prime"),
        ("minatar/asterix", ""),
        ("minatar/freeway", ""),
        ("minatar/seaquest", ""),
        ("minatar/space_invaders", ""),
    ),
    "paper": tuple(
        (f"atari/{game}", "")
        for game in ("assault", "asterix", "beam_rider", "breakout", "phoenix", "space_invaders")
    ),
}


@dataclass(frozen=True)
class Proxies(Study):
    """Weight norm, ranks, dead units and the rest at the fork, and what injection then gains."""

    question: ClassVar[str] = (
        "Does any measurement of a network at the fork predict what injection gains?"
    )
    claims: ClassVar[tuple[int, ...]] = (4,)
    figure: ClassVar[Figure] = "proxies"

    def conditions(self, scale: Scale) -> tuple[Condition, ...]:
        """Every past."""
        setting = DOUBLE_DQN[scale].but(arms=("nothing", "again", "inject"))
        if scale == "laptop":
            setting = setting.but(seeds=3)
        return tuple(
            setting.condition(
                f"{environment} after {past}" if past else environment,
                environment=environment,
                before=[past] if past else [],
            )
            for environment, past in PASTS[scale]
        )

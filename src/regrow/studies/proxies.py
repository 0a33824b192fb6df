"""Probes at the fork against the measured gain from injection."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from regrow.studies.base import DOUBLE_DQN, Condition, Figure, Scale, Study

# What happened before the fork, and where: from agents that still learn well to agents that cannot.
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
    """Weight norm, ranks, dead units and others at the fork, against the gain from injection."""

    question: ClassVar[str] = (
        "Does any measurement of a network at the fork predict what injection gains?"
    )
    claims: ClassVar[tuple[int, ...]] = (4,)
    figure: ClassVar[Figure] = "proxies"

    def conditions(self, scale: Scale) -> tuple[Condition, ...]:
        """One condition per environment and what happened before the fork."""
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

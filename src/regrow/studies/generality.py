"""The diagnosis over all games of a suite."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from regrow.studies.base import DOUBLE_DQN, Condition, Figure, Scale, Study

# The 57 games of Double DQN's and DQN Zoo's tables.
ATARI = (
    *("alien", "amidar", "assault", "asterix", "asteroids", "atlantis", "bank_heist"),
    *("battle_zone", "beam_rider", "berzerk", "bowling", "boxing", "breakout"),
    *("centipede", "chopper_command", "crazy_climber", "defender", "demon_attack"),
    *("double_dunk", "enduro", "fishing_derby", "freeway", "frostbite", "gopher"),
    *("gravitar", "hero", "ice_hockey", "jamesbond", "kangaroo", "krull"),
    *("kung_fu_master", "montezuma_revenge", "ms_pacman", "name_this_game", "phoenix"),
    *("pitfall", "pong", "private_eye", "qbert", "riverraid", "road_runner", "robotank"),
    *("seaquest", "skiing", "solaris", "space_invaders", "star_gunner", "surround"),
    *("tennis", "time_pilot", "tutankham", "up_n_down", "venture", "video_pinball"),
    *("wizard_of_wor", "yars_revenge", "zaxxon"),
)
GAMES: Mapping[Scale, tuple[str, ...]] = {
    "smoke": ("toy/matching_reward", "toy/action_reward", "minatar/breakout"),
    "laptop": tuple(
        f"minatar/{game}"
        for game in ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
    ),
    "paper": tuple(f"atari/{game}" for game in ATARI),
}


@dataclass(frozen=True)
class Generality(Study):
    """What injection gains or costs, game by game."""

    question: ClassVar[str] = "In which games of a suite does injection gain, and in which not?"
    claims: ClassVar[tuple[int, ...]] = (6, 7)
    figure: ClassVar[Figure] = "gains"

    def conditions(self, scale: Scale) -> tuple[Condition, ...]:
        """One condition per game."""
        setting = DOUBLE_DQN[scale]
        if scale == "laptop":
            setting = setting.but(seeds=3)
        return tuple(setting.condition(game, environment=game) for game in GAMES[scale])

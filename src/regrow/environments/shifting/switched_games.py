"""Switched games: one network plays MinAtar games in turn, each for `period` env steps.

After Abbas et al. 2023 (arXiv 2303.07507), who switch between Atari games and find that deep
reinforcement learning loses its ability to learn; here with MinAtar (Young & Tian 2019, arXiv
1903.03176).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from regrow.environments.base import DeviceEnvironment, Step
from regrow.environments.minatar.base import SIZE, MinAtar
from regrow.environments.shifting.base import own_period, require_period
from regrow.errors import require
from regrow.registry import make
from regrow.types import Key

ACTIONS = ("noop", "left", "up", "right", "down", "fire")  # as the reference numbers them


class SwitchedGamesState(NamedTuple):
    """The states of all games, one of which is being played, and the clock of the training run."""

    games: tuple[Any, ...]
    env_steps: Int[Array, ""]  # of this environment since the first reset, over all episodes


@dataclass(frozen=True)
class SwitchedGames(DeviceEnvironment):
    """Plays MinAtar games in turn, `period` env steps each, and then starts over with the first.

    A switch truncates the running episode. Its last step is `truncated` (unless the game itself
    ended there) and has the old game's last observation, so no value is bootstrapped across games.
    The next episode starts in the next game.

    All games share six actions (no-op, left, up, right, down, fire), as in the reference
    implementation of MinAtar. An action that a game does not have is a no-op there, as in the
    reference. Observations have as many channels as the game with the most; unused channels are
    zero. Channels are not matched: each game has its own from channel 0 on.

    Arguments:
        games: names of two or more MinAtar games, separated by blanks. A name may have fields,
            written without blanks: "breakout(sticky_actions=0.0) asterix".
        period: env steps of training between two switches, summed over all parallel environments.
    """

    shifts: ClassVar[bool] = True

    games: str = "breakout asterix freeway space_invaders"
    period: int = 100_000

    def __post_init__(self) -> None:
        require_period(self.period)
        require(
            len(self.inner) >= 2,
            f"games are two or more MinAtar games with blanks between them; received "
            f"{self.games!r}",
        )

    def with_num_envs(self, count: int) -> DeviceEnvironment:
        """One of `count` parallel copies: its period is divided by `count`."""
        return replace(self, period=own_period(self.period, count))

    @functools.cached_property
    def inner(self) -> tuple[MinAtar[Any, Any], ...]:
        """The games, in the order in which they are played."""
        return tuple(make("environments", f"minatar/{name}") for name in self.games.split())

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Rows, columns, channels of the game with the most."""
        return (SIZE, SIZE, max(len(game.channels) for game in self.inner))

    @property
    def observation_dtype(self) -> np.dtype[Any]:
        """Bool: whether a cell contains such an object."""
        return np.dtype(np.bool_)

    @property
    def num_actions(self) -> int:
        """Six, whichever games are played."""
        return len(ACTIONS)

    def reset(self, key: Key) -> tuple[SwitchedGamesState, Bool[Array, "10 10 channels"]]:
        """Starts the first episode of a training run, in the first game."""
        started = [game.reset(key) for game in self.inner]
        state = SwitchedGamesState(tuple(state for state, _ in started), jnp.zeros((), jnp.int32))
        return state, self._padded(started[0][1])

    def restart(
        self, state: SwitchedGamesState, key: Key
    ) -> tuple[SwitchedGamesState, Bool[Array, "10 10 channels"]]:
        """Starts the next episode, in the game whose turn it is."""

        def begin(i: int, game: MinAtar[Any, Any]) -> tuple[tuple[Any, ...], Array]:
            begun, observation = game.restart(state.games[i], key)
            return _replaced(state.games, i, begun), self._padded(observation)

        games, observation = self._in_turn(state, begin)
        return state._replace(games=games), observation

    def step(
        self, state: SwitchedGamesState, action: Int[Array, ""], key: Key
    ) -> tuple[SwitchedGamesState, Step]:
        """One env step of the current game; the last step of a turn truncates the episode."""

        def play(i: int, game: MinAtar[Any, Any]) -> tuple[tuple[Any, ...], Step]:
            known = [game.actions.index(name) if name in game.actions else 0 for name in ACTIONS]
            meant = jnp.array(known, jnp.int32)[action]
            played, step = game.step(state.games[i], meant, key)
            step = step._replace(observation=self._padded(step.observation))
            return _replaced(state.games, i, played), step

        games, step = self._in_turn(state, play)
        env_steps = state.env_steps + 1
        switches = (env_steps % self.period == 0) & ~step.terminated
        step = step._replace(truncated=step.truncated | switches)
        return SwitchedGamesState(games, env_steps), step

    def _in_turn(
        self, state: SwitchedGamesState, act: Callable[[int, MinAtar[Any, Any]], Any]
    ) -> Any:
        """The result of `act` for the game whose turn it is."""
        turn = state.env_steps // self.period % len(self.inner)
        branches = [functools.partial(act, i, game) for i, game in enumerate(self.inner)]
        return jax.lax.switch(turn, branches)

    def _padded(self, observation: Bool[Array, "10 10 filled"]) -> Bool[Array, "10 10 channels"]:
        missing = self.observation_shape[-1] - observation.shape[-1]
        return jnp.pad(observation, ((0, 0), (0, 0), (0, missing)))


def _replaced(games: tuple[Any, ...], i: int, game: Any) -> tuple[Any, ...]:
    return (*games[:i], game, *games[i + 1 :])

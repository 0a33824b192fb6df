"""Atari games in the Arcade Learning Environment (Bellemare et al. 2013, arXiv 1207.4708).

Preprocessing is that of DQN Zoo (Quan & Ostrovski 2020, `processors.py`). An action is repeated for
four frames. The maximum of the last two is turned grey and resized to 84×84 by Pillow's bilinear
filter (whose support grows with the scale factor, so it averages over areas). An observation stacks
the last four of these; after a reset, missing frames are zero and come last. An episode begins with
1 to 30 no-ops and is truncated after 108,000 frames. The agent learns from rewards clipped to ±1,
and for it the loss of a life is a termination. What is logged is the game's own score and its own
end.

The emulator's saved state leaves out the action that its own sticky actions would repeat. So sticky
actions are drawn here, frame by frame, and a copy of a simulation continues as the original does.
"""

import functools
from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from regrow.environments.base import HostEnvironment, HostStep, Simulator, needed
from regrow.errors import require, unknown
from regrow.types import Discrete

REPEAT, POOLED, STACKED, SIDE = 4, 2, 4, 84
NO_OPS = 30
FRAMES_PER_EPISODE = 108_000

_STATE_ROOM = 16_384  # bytes; the largest state seen in any game has 14,978
_COUNTER = np.dtype(np.int64)


@dataclass(frozen=True)
class Atari(HostEnvironment):
    """An Atari game, as in atari/pong; needs ale-py, which includes the games.

    `sticky_actions`: probability, at every frame, that the last action is repeated instead of the
    chosen one. `clip_rewards`: learn from rewards between −1 and 1. `lives_are_ends`: learn as if
    the loss of a life ended the episode, although it continues.
    """

    named_by: ClassVar[str] = "game"

    game: str = "pong"
    sticky_actions: float = 0.0
    clip_rewards: bool = True
    lives_are_ends: bool = True

    def __post_init__(self) -> None:
        require(
            0 <= self.sticky_actions < 1,
            f"sticky_actions is {self.sticky_actions}; it must be in [0, 1)",
        )

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """The last four frames, oldest first."""
        return (SIDE, SIDE, STACKED)

    @property
    def observation_dtype(self) -> np.dtype[Any]:
        """uint8."""
        return np.dtype(np.uint8)

    @property
    def action_space(self) -> Discrete:
        """The game's minimal action set; 0 is the no-op."""
        return Discrete(_number_of_actions(self.game))

    @property
    def frames(self) -> int:
        """Four, one channel each."""
        return STACKED

    def learned(self, reward: NDArray[Any]) -> NDArray[Any]:
        """Clipped to ±1, if `clip_rewards`."""
        return np.clip(reward, -1.0, 1.0) if self.clip_rewards else reward

    @property
    def snapshot_size(self) -> int:
        """The bytes of the emulator's state, the stacked frames, and some counters."""
        return _STATE_ROOM + SIDE * SIDE * STACKED + len(_Counters._fields) * _COUNTER.itemsize

    def simulator(self) -> Simulator:
        """A new simulation; raises `RegrowError` if ale-py or the game is missing."""
        return _Emulator(self)


class _Counters(NamedTuple):
    """What a snapshot stores besides the emulator's state and the frames."""

    state_bytes: int = 0
    frames_seen: int = 0
    env_steps: int = 0
    last_action: int = 0
    seed: int = 0
    draws: int = 0


class _Emulator(Simulator):
    """One emulator with one game."""

    def __init__(self, game: Atari):
        self._game = game
        self._ale = _loaded(game.game)
        self._actions = self._ale.getMinimalActionSet()
        self._fresh = self._ale.cloneSystemState()
        height, width = self._ale.getScreenDims()
        self._screens = [np.zeros((height, width, 3), np.uint8) for _ in range(POOLED)]
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=STACKED)
        self._counters = _Counters()
        self._random = np.random.Generator(np.random.PCG64(0))

    def reset(self, seed: int) -> NDArray[Any]:
        """The observation after the no-ops; their number is drawn from `seed`."""
        # Some games start differently after an earlier episode, so each starts from the fresh
        # state.
        self._ale.restoreSystemState(self._fresh)
        self._ale.reset_game()
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._counters = _Counters(seed=seed)
        for _ in range(1 + int(self._draw() * NO_OPS)):
            self._ale.act(self._actions[0])
            if self._ale.game_over():
                self._ale.reset_game()
        self._frames.clear()
        self._ale.getScreenRGB(self._screens[0])
        return self._seen(self._screens[:1])

    def step(self, action: NDArray[Any]) -> HostStep:
        """Four frames, fewer if the game ends."""
        ale, score, lost, shown = self._ale, 0, False, 0
        for frame in range(REPEAT):
            lives = ale.lives()
            score += ale.act(self._actions[self._done(int(action))])
            lost = lost or ale.lives() < lives
            over = ale.game_over()
            if frame >= REPEAT - POOLED or over:
                ale.getScreenRGB(self._screens[shown])
                shown += 1
            if over:
                break
        steps = self._counters.env_steps + 1
        self._counters = self._counters._replace(env_steps=steps)
        over = ale.game_over()
        reward = float(score)
        return HostStep(
            self._seen(self._screens[:shown]),
            reward,
            terminated=over,
            truncated=not over and steps * REPEAT >= FRAMES_PER_EPISODE,
            learned_reward=float(self._game.learned(np.array([reward]))[0]),
            life_lost=lost and self._game.lives_are_ends,
        )

    def snapshot(self) -> NDArray[np.uint8]:
        """The emulator's state, padded; the counters; the frames, padded."""
        state = np.frombuffer(self._ale.cloneSystemState().serialize(), np.uint8)
        require(
            state.size <= _STATE_ROOM,
            f"the state of atari/{self._game.game} is {state.size} bytes; there is room for "
            f"{_STATE_ROOM}",
        )
        counters = self._counters._replace(
            state_bytes=int(state.size), frames_seen=len(self._frames)
        )
        parts = np.array(counters, _COUNTER).view(np.uint8), self._stack().reshape(-1)
        return np.concatenate([np.pad(state, (0, _STATE_ROOM - state.size)), *parts])

    def restore(self, snapshot: NDArray[np.uint8]) -> None:
        """Continues from where the snapshot was taken."""
        import ale_py

        end = len(_Counters._fields) * _COUNTER.itemsize + _STATE_ROOM
        counters = _Counters(*(int(n) for n in snapshot[_STATE_ROOM:end].view(_COUNTER)))
        state = ale_py.ALEState(snapshot[: counters.state_bytes].tobytes())
        self._ale.restoreSystemState(state)
        stack = snapshot[end:].reshape(SIDE, SIDE, STACKED)
        self._frames.clear()
        self._frames.extend(stack[..., i] for i in range(counters.frames_seen))
        self._counters = counters
        self._random = np.random.Generator(np.random.PCG64(counters.seed).advance(counters.draws))

    def _done(self, chosen: int) -> int:
        """The action for one frame: the chosen one, or the last one if it is sticky."""
        sticky = self._game.sticky_actions
        if not (sticky and self._draw() < sticky):
            self._counters = self._counters._replace(last_action=chosen)
        return self._counters.last_action

    def _draw(self) -> float:
        """The next number in [0, 1); draws are counted, so that `restore` can continue."""
        self._counters = self._counters._replace(draws=self._counters.draws + 1)
        return float(self._random.random())

    def _seen(self, screens: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The stack of frames after adding one, made from the given screens."""
        self._frames.append(resized(grey(functools.reduce(np.maximum, screens))))
        return self._stack()

    def _stack(self) -> NDArray[np.uint8]:
        blank = [np.zeros((SIDE, SIDE), np.uint8)] * (STACKED - len(self._frames))
        return np.stack([*self._frames, *blank], axis=-1)


def grey(screen: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The luminance of a screen, rounded down; shape (height, width)."""
    weights = [0.299, 0.587, 1 - (0.299 + 0.587)]
    return np.tensordot(screen, weights, (-1, 0)).astype(np.uint8)


def resized(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """84×84, by Pillow's bilinear filter."""
    from PIL import Image

    small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.array(small, np.uint8)


@functools.cache
def _number_of_actions(game: str) -> int:
    return len(_loaded(game).getMinimalActionSet())


def _loaded(game: str) -> Any:
    """An emulator with the game loaded."""
    ale_py = needed("ale_py", "ale-py", f"atari/{game}")
    roms = needed("ale_py.roms", "ale-py", f"atari/{game}")
    # The emulator ends the process if it is given a game that it does not know.
    known = ale_py.ALEInterface.isSupportedROM
    games = {name for name in roms.get_all_rom_ids() if known(str(roms.get_rom_path(name)))}
    if game not in games:
        raise unknown("game of atari", game, games)
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.setInt("random_seed", 0)
    ale.loadROM(str(roms.get_rom_path(game)))
    return ale

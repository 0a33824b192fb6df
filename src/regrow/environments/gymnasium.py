"""Any environment of Gymnasium, by its id.

Observations are vectors of floats or images of bytes; actions are numbers, several choices at once
(MultiDiscrete, MultiBinary) or vectors within bounds. A time limit is a truncation, as the
environment says it is. There is no general way to copy such a simulation, so a fork and a loaded
run begin a new episode.
"""

import functools
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from regrow.environments.base import HostEnvironment, HostStep, Simulator, needed
from regrow.errors import RegrowError, unknown
from regrow.types import ActionSpace, Continuous, Discrete, MultiDiscrete


@dataclass(frozen=True)
class Gymnasium(HostEnvironment):
    """An environment of Gymnasium, as in gymnasium/CartPole-v1; needs gymnasium.

    `env_id`: the id under which it is registered.
    """

    named_by: ClassVar[str] = "env_id"

    env_id: str = "CartPole-v1"

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Of a vector, or of an image: height, width, channels."""
        return _spaces(self.env_id).observation_shape

    @property
    def observation_dtype(self) -> np.dtype[Any]:
        """float32 for vectors, uint8 for images."""
        return _spaces(self.env_id).observation_dtype

    @property
    def action_space(self) -> ActionSpace:
        """Numbered from 0, several choices, or vectors from −1 to 1, the environment's bounds."""
        return _spaces(self.env_id).actions

    @property
    def snapshot_size(self) -> int:
        """Nothing can be copied."""
        return 0

    def simulator(self) -> Simulator:
        """A new simulation.

        Raises `RegrowError` without gymnasium or what the environment needs, where there is no such
        id, and for observations or actions of another kind.
        """
        return _Single(self.env_id, _made(self.env_id))


class _Spaces(NamedTuple):
    """What agents see of an environment, and what its actions are."""

    observation_shape: tuple[int, ...]
    observation_dtype: np.dtype[Any]
    actions: ActionSpace


class _Single(Simulator):
    """One environment, stepped alone."""

    def __init__(self, env_id: str, environment: Any):
        self.spaces = _checked(env_id, environment)
        self._environment = environment
        self._dtype = self.spaces.observation_dtype
        self._space = environment.action_space

    def reset(self, seed: int) -> NDArray[Any]:
        """The first observation of an episode drawn from `seed`."""
        observation, _ = self._environment.reset(seed=seed)
        return np.array(observation, self._dtype)

    def step(self, action: NDArray[Any]) -> HostStep:
        """One step."""
        if isinstance(self.spaces.actions, Discrete):
            given: Any = int(action) + int(self._space.start)
        elif isinstance(self.spaces.actions, MultiDiscrete):
            given = (action + getattr(self._space, "start", 0)).astype(self._space.dtype)
        else:
            low, high = (bound.astype(np.float64) for bound in (self._space.low, self._space.high))
            given = ((low + high) / 2 + (high - low) / 2 * action).astype(self._space.dtype)
        observation, reward, terminated, truncated, _ = self._environment.step(given)
        # Both at once can be; then nothing follows.
        return HostStep(
            np.array(observation, self._dtype),
            float(reward),
            bool(terminated),
            bool(truncated) and not terminated,
        )

    def close(self) -> None:
        """Closes the environment."""
        self._environment.close()

    def snapshot(self) -> NDArray[np.uint8]:
        """Nothing."""
        return np.zeros(0, np.uint8)

    def restore(self, snapshot: NDArray[np.uint8]) -> None:
        """Not possible."""
        del snapshot
        raise RegrowError("an environment of Gymnasium cannot be copied")


@functools.cache
def _spaces(env_id: str) -> _Spaces:
    with closing(_Single(env_id, _made(env_id))) as single:
        return single.spaces


def _made(env_id: str) -> Any:
    """The environment of that id."""
    gymnasium = needed("gymnasium", "gymnasium", f"gymnasium/{env_id}")
    if env_id not in gymnasium.registry:
        raise unknown("id of gymnasium", env_id, gymnasium.registry)
    try:
        return gymnasium.make(env_id, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError) as error:
        why = " ".join(str(error).split())
        raise RegrowError(f"gymnasium/{env_id} cannot be made: {why}") from error


def _checked(env_id: str, environment: Any) -> _Spaces:
    """What agents see; `RegrowError` for observations or actions of a kind that none can take."""
    from gymnasium import spaces

    seen, done = environment.observation_space, environment.action_space
    image = isinstance(seen, spaces.Box) and len(seen.shape) == 3 and seen.dtype == np.uint8
    vector = isinstance(seen, spaces.Box) and len(seen.shape) == 1 and seen.dtype.kind == "f"
    if not (image or vector):
        raise RegrowError(
            f"gymnasium/{env_id} observes {seen}; it must be a Box of floats with one axis or of "
            "uint8 with three"
        )
    shape, dtype = tuple(seen.shape), np.dtype(np.uint8 if image else np.float32)
    if isinstance(done, spaces.Discrete):
        return _Spaces(shape, dtype, Discrete(int(done.n)))
    if isinstance(done, spaces.MultiDiscrete) and len(done.shape) == 1:
        return _Spaces(shape, dtype, MultiDiscrete(tuple(int(n) for n in done.nvec)))
    if isinstance(done, spaces.MultiBinary) and len(done.shape) == 1:
        return _Spaces(shape, dtype, MultiDiscrete((2,) * done.shape[0]))
    if not (isinstance(done, spaces.Box) and len(done.shape) == 1 and done.is_bounded()):
        raise RegrowError(
            f"gymnasium/{env_id} takes {done}; it must be Discrete, MultiDiscrete or MultiBinary "
            "with one axis, or a bounded Box with one"
        )
    return _Spaces(shape, dtype, Continuous(done.shape[0]))

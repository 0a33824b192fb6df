"""The contract of an environment: on the device or on the host.

An environment never resets itself and never hides its last observation: `step` returns the
observation that follows the action, also when the episode ends there, and says why it ended.
`terminated` means that nothing follows (no bootstrap); `truncated` means that a clock stopped the
episode (bootstrap).

An environment is a frozen dataclass: its fields are its options, it prints, compares and hashes by
value, so it can be a static argument of a compiled function.

On the device (`DeviceEnvironment`) it is pure functions of a state, an action and a key. `reset`
starts the first episode of a training. `restart` starts every later one from the state in which the
last one ended, so an environment may keep something across episodes. By default it only resets.

On the host (`HostEnvironment`) it makes simulators, which change as they are stepped. What would
make two of them go on alike is their snapshot, a string of bytes; where a simulator has none, a
fork and a loaded run begin a new episode.
"""

import abc
import importlib
from dataclasses import is_dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, PyTree, Shaped
from numpy.typing import NDArray

from regrow.errors import RegrowError
from regrow.registry import place_of
from regrow.types import ActionSpace, Discrete, Key

State = PyTree[Any]


class Step(NamedTuple):
    """What follows an action."""

    observation: Shaped[Array, "*obs"]
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]


class Environment(abc.ABC):
    """What every environment declares, on the device or on the host."""

    shifts: ClassVar[bool] = False
    """Whether the task changes as training goes on: then returns are of their time."""

    @property
    @abc.abstractmethod
    def observation_shape(self) -> tuple[int, ...]:
        """The shape of one observation."""

    @property
    @abc.abstractmethod
    def observation_dtype(self) -> np.dtype[Any]:
        """The dtype of an observation."""

    @property
    @abc.abstractmethod
    def action_space(self) -> ActionSpace:
        """What may be done: numbered actions, or vectors."""

    @property
    def frames(self) -> int:
        """How many frames an observation stacks on its last axis, oldest or newest first.

        Of environments that stack some, a replay keeps every frame once.
        """
        return 1

    def learned(self, reward: NDArray[Any]) -> NDArray[Any]:
        """What agents learn from where `reward` is logged: the same, unless it is clipped."""
        return reward


class DeviceEnvironment(Environment):
    """An environment that runs on the device, one episode at a time; vmap it for more."""

    _source = ""  # by what `module:attribute` it was asked for

    @property
    def num_actions(self) -> int:
        """How many discrete actions there are; they are numbered from 0.

        Raises `RegrowError` where actions are vectors.
        """
        raise RegrowError(f"{type(self).__name__} has no numbered actions")

    @property
    def action_space(self) -> ActionSpace:
        """The numbered actions; an environment whose actions are vectors has a space of its own."""
        return Discrete(self.num_actions)

    def with_num_envs(self, count: int) -> "DeviceEnvironment":
        """The environment of which `count` are stepped side by side: what each of them then is.

        Itself, unless it counts env steps of training, which are then those of all. Raises
        `RegrowError` where it cannot be one of as many.
        """
        del count
        return self

    def text(self) -> str | None:
        """What the grammar calls it, where that is not its class with its fields."""
        named = type(self).__module__.startswith("regrow.") or is_dataclass(self)
        return None if named else self.own_text() or type(self).__name__

    def own_text(self) -> str | None:
        """What an environment of one's own is called, as in jax/module:attribute.

        None where it was made elsewhere than at the top of a module.
        """
        source = self._source or place_of(self)
        return f"jax/{source}" if source else None

    @property
    def sure_to_end(self) -> bool:
        """Whether every episode is known to end."""
        return True

    @abc.abstractmethod
    def reset(self, key: Key) -> tuple[State, Shaped[Array, "*obs"]]:
        """Starts the first episode: (state, first observation)."""

    def restart(self, state: State, key: Key) -> tuple[State, Shaped[Array, "*obs"]]:
        """Starts the next episode after the one that ended in `state`; by default a `reset`.

        A compiled loop may call it at every step and keep what it returns at the end of an episode
        only.
        """
        del state
        return self.reset(key)

    @abc.abstractmethod
    def step(self, state: State, action: Shaped[Array, "*action"], key: Key) -> tuple[State, Step]:
        """One env step: (next state, what follows the action)."""


class HostStep(NamedTuple):
    """What follows an action on the host.

    `learned_reward`: what the agent is given, where that is not the reward that is logged.
    `life_lost`: for the agent nothing follows (no bootstrap), though the episode goes on.
    """

    observation: NDArray[Any]
    reward: float
    terminated: bool
    truncated: bool
    learned_reward: float | None = None
    life_lost: bool = False


class Simulator(abc.ABC):
    """A live simulation on the host; it changes as it is stepped."""

    @abc.abstractmethod
    def reset(self, seed: int) -> NDArray[Any]:
        """Starts an episode, all chance in it drawn from `seed`: its first observation."""

    @abc.abstractmethod
    def step(self, action: NDArray[Any]) -> HostStep:
        """One env step."""

    @abc.abstractmethod
    def snapshot(self) -> NDArray[np.uint8]:
        """What makes another simulator of this environment go on as this one; it may be empty."""

    @abc.abstractmethod
    def restore(self, snapshot: NDArray[np.uint8]) -> None:
        """Goes on where the simulator was from which the snapshot was taken."""

    def close(self) -> None:  # noqa: B027  (most have nothing to close)
        """Gives back what the simulation holds: windows, ports, processes."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What whoever declared it should think over, a sentence each, without a name."""
        return ()

    @property
    def declared(self) -> tuple[str, str]:
        """What it shows and takes in its package's words, where it has any."""
        return "", ""

    @property
    def sure_to_end(self) -> bool:
        """Whether every episode is known to end."""
        return True


class HostEnvironment(Environment):
    """An environment that is simulated on the host, in Python or C++."""

    @property
    @abc.abstractmethod
    def snapshot_size(self) -> int:
        """How many bytes a snapshot has; 0 where the simulation cannot be copied."""

    @abc.abstractmethod
    def simulator(self) -> Simulator:
        """A new simulation. Raises `RegrowError` where a package that it needs is not there."""


def needed(module: str, package: str, name: str) -> Any:
    """A module of a package that the environment `name`, as in atari/pong, is simulated in.

    Raises `RegrowError` with what to install where it is not there.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extra = name.partition("/")[0]
        raise RegrowError(
            f"{name} needs {package}: pip install 'regrow[{extra}]' ({error})"
        ) from error
    except Exception as error:  # as dm_control's, where MUJOCO_GL is no word that it knows
        raise RegrowError(f"{name}: {package} cannot be imported ({error})") from error

"""The environment contract: on the device or on the host.

An environment never resets itself and never hides its last observation. `step` returns the
observation after the action, also at the end of an episode, and says why the episode ended.
`terminated`: no state follows, so the value is not bootstrapped. `truncated`: a time limit ended
the episode, so the value is bootstrapped.

An environment is a frozen dataclass whose fields are its options. It prints, compares and hashes by
value, so it can be a static argument of a compiled function.

A `DeviceEnvironment` is pure functions of a state, an action and a key. `reset` starts the first
episode of a training run. `restart` starts every later one from the state in which the last one
ended, so an environment can keep state across episodes. By default it only resets.

A `HostEnvironment` makes simulators, which change as they are stepped. A snapshot, a string of
bytes, is what makes a second simulator continue exactly as the first. If a simulator has no
snapshot, a fork or a loaded run starts a new episode.
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
    """The result of one env step."""

    observation: Shaped[Array, "*obs"]
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]


class Environment(abc.ABC):
    """What every environment declares, on the device or on the host."""

    shifts: ClassVar[bool] = False
    """Whether the task changes during training; a return then describes the task at its time."""

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
        """The action space: discrete, multi-discrete or continuous."""

    @property
    def frames(self) -> int:
        """How many frames an observation stacks on its last axis, oldest or newest first.

        If it stacks several, the replay stores every frame once.
        """
        return 1

    def learned(self, reward: NDArray[Any]) -> NDArray[Any]:
        """The reward that agents learn from if `reward` is logged: the same, unless clipped."""
        return reward


class DeviceEnvironment(Environment):
    """An environment that runs on the device, one episode at a time; use `vmap` for several."""

    _source = ""  # the `module:attribute` that it was requested by

    @property
    def num_actions(self) -> int:
        """The number of discrete actions, which are numbered from 0.

        Raises `RegrowError` if actions are vectors.
        """
        raise RegrowError(f"{type(self).__name__} has no numbered actions")

    @property
    def action_space(self) -> ActionSpace:
        """The discrete actions. An environment whose actions are vectors overrides this."""
        return Discrete(self.num_actions)

    def with_num_envs(self, count: int) -> "DeviceEnvironment":
        """This environment as each of `count` parallel copies runs it.

        It is itself, unless it counts the env steps of training, which are summed over all copies.
        Raises `RegrowError` if it cannot run as `count` copies.
        """
        del count
        return self

    def text(self) -> str | None:
        """Its text in the grammar; None if that is its class with its fields."""
        named = type(self).__module__.startswith("regrow.") or is_dataclass(self)
        return None if named else self.own_text() or type(self).__name__

    def own_text(self) -> str | None:
        """The name of a user's environment, as in jax/module:attribute.

        None if it was not created at the top level of a module.
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

        A compiled loop may call it at every step and use the result only at the end of an episode.
        """
        del state
        return self.reset(key)

    @abc.abstractmethod
    def step(self, state: State, action: Shaped[Array, "*action"], key: Key) -> tuple[State, Step]:
        """One env step: (next state, result of the step)."""


class HostStep(NamedTuple):
    """The result of one env step on the host.

    `learned_reward`: the reward that the agent learns from, if it is not the logged one.
    `life_lost`: the agent treats this as an end (no bootstrap), although the episode continues.
    """

    observation: NDArray[Any]
    reward: float
    terminated: bool
    truncated: bool
    learned_reward: float | None = None
    life_lost: bool = False


class Simulator(abc.ABC):
    """A running simulation on the host; stepping changes it."""

    @abc.abstractmethod
    def reset(self, seed: int) -> NDArray[Any]:
        """Starts an episode, with all randomness from `seed`; returns the first observation."""

    @abc.abstractmethod
    def step(self, action: NDArray[Any]) -> HostStep:
        """One env step."""

    @abc.abstractmethod
    def snapshot(self) -> NDArray[np.uint8]:
        """The bytes from which another simulator continues exactly as this one; may be empty."""

    @abc.abstractmethod
    def restore(self, snapshot: NDArray[np.uint8]) -> None:
        """Continues from the state in which the snapshot was taken."""

    def close(self) -> None:  # noqa: B027  (most have nothing to close)
        """Releases the simulation's resources: windows, ports, processes."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Advice for the author of the environment: a sentence each, without its name."""
        return ()

    @property
    def declared(self) -> tuple[str, str]:
        """Its observation and action spaces as its package prints them, or empty strings."""
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
        """The size of a snapshot in bytes; 0 if the simulation cannot be copied."""

    @abc.abstractmethod
    def simulator(self) -> Simulator:
        """A new simulation. Raises `RegrowError` if a package that it needs is missing."""


def needed(module: str, package: str, name: str) -> Any:
    """Imports a module that the environment `name`, as in atari/pong, is simulated with.

    Raises `RegrowError` with what to install if the module is missing.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extra = name.partition("/")[0]
        raise RegrowError(
            f"{name} needs {package}: pip install 'regrow[{extra}]' ({error})"
        ) from error
    except Exception as error:  # e.g. dm_control, for an unknown value of MUJOCO_GL
        raise RegrowError(f"{name}: {package} cannot be imported ({error})") from error

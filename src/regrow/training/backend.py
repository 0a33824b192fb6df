"""The interface that the device loop and the host loop share."""

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import numpy as np

from regrow.types import Log


class Advanced(NamedTuple):
    """A state, the log of the env steps that led to it, and whether new episodes were forced."""

    state: Any
    log: Log
    restarted: bool


class Backend(NamedTuple):
    """The functions that step one kind of environment: device or host.

    `start(environment, num_envs, root)`: (environment state, first observation).
    `blank(environment, num_envs)`: arrays of the same shapes, for use in `jax.eval_shape`.
    `advance(state, agent, environment, env_steps)`: trains for whole rounds.
    `play_out(state, agent, environment, at_most)`: finishes the running episodes without learning;
    (their returns, whether each ended).
    `exploit(state, agent, environment, root)`: generates (reward, whether the episode ended), one
    pair per env step, without exploration or learning.
    `play_at_random(environment, env_steps, root)`: the log of a uniformly random policy.
    `keeps_world`: whether the array of environment state identifies the live simulations.
    """

    start: Callable[..., tuple[Any, Any]]
    blank: Callable[..., tuple[Any, Any]]
    advance: Callable[..., Advanced]
    play_out: Callable[..., tuple[np.ndarray, np.ndarray]]
    exploit: Callable[..., Generator[tuple[float, bool]]]
    play_at_random: Callable[..., Log]
    keeps_world: bool

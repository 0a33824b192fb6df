"""What the loop on the device and the loop on the host do alike."""

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import numpy as np

from regrow.types import Log


class Advanced(NamedTuple):
    """A state, what every env step up to it reported, and whether new episodes were forced."""

    state: Any
    log: Log
    restarted: bool


class Backend(NamedTuple):
    """A way to step environments of one kind.

    `start(environment, num_envs, root)`: (the environments' state, what is seen) at the start.
    `blank(environment, num_envs)`: arrays of their shapes, made in `jax.eval_shape`.
    `advance(state, agent, environment, env_steps)`: whole rounds of training.
    `play_out(state, agent, environment, at_most)`: (the returns of the running episodes, whether
    each ended), without learning. `exploit(state, agent, environment, root)`: (reward, whether the
    episode ended) of one env step after another, without exploring or learning.
    `play_at_random(environment, env_steps, root)`: the log of actions that are drawn uniformly.
    `keeps_world`: whether the array of the environments' state identifies their simulations.
    """

    start: Callable[..., tuple[Any, Any]]
    blank: Callable[..., tuple[Any, Any]]
    advance: Callable[..., Advanced]
    play_out: Callable[..., tuple[np.ndarray, np.ndarray]]
    exploit: Callable[..., Generator[tuple[float, bool]]]
    play_at_random: Callable[..., Log]
    keeps_world: bool

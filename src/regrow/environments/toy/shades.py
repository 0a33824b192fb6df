"""Shades: `reach` with image observations.

The numbers of `reach` are grey levels, one per channel of an image of a single shade: −1 is black,
1 is white. So the best action stays the same if the image is shifted.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from regrow.environments.base import DeviceEnvironment, Step
from regrow.errors import require
from regrow.types import ActionSpace, Continuous, Key


class ShadesState(NamedTuple):
    """The image."""

    shown: UInt8[Array, "side side size"]


@dataclass(frozen=True)
class Shades(DeviceEnvironment):
    """One-step episodes with minus the squared distance to a goal as reward, observed as an image.

    `size`: channels of an image, and dimension of an action. `side`: of an image, in pixels.
    """

    size: int = 2
    side: int = 8

    def __post_init__(self) -> None:
        for name in ("size", "side"):
            value = getattr(self, name)
            require(value >= 1, f"{name} is {value}; it must be at least 1")

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """An image."""
        return (self.side, self.side, self.size)

    @property
    def observation_dtype(self) -> np.dtype[Any]:
        """uint8."""
        return np.dtype(np.uint8)

    @property
    def action_space(self) -> ActionSpace:
        """One number per channel."""
        return Continuous(self.size)

    @staticmethod
    def best(observation: UInt8[Array, "*batch side side size"]) -> Float[Array, "*batch size"]:
        """The action with reward 0: minus half of the numbers that the grey levels encode."""
        return 0.5 - observation[..., 0, 0, :].astype(jnp.float32) / 255

    def reset(self, key: Key) -> tuple[ShadesState, UInt8[Array, "side side size"]]:
        """A random image and its observation."""
        levels = jax.random.randint(key, (1, 1, self.size), 0, 256).astype(jnp.uint8)
        shown = jnp.broadcast_to(levels, self.observation_shape)
        return ShadesState(shown), shown

    def step(
        self, state: ShadesState, action: Float[Array, " size"], key: Key
    ) -> tuple[ShadesState, Step]:
        """The episode ends with minus the squared distance to the best action."""
        del key
        reward = -jnp.sum((action - self.best(state.shown)) ** 2)
        return state, Step(state.shown, reward, jnp.bool_(True), jnp.bool_(False))

"""What the toy environments share: an observation of one number, and two actions."""

from typing import Any

import numpy as np

from regrow.environments.base import DeviceEnvironment


class Toy(DeviceEnvironment):
    """An environment whose observation is a vector of one number, with two actions."""

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """A vector of one number."""
        return (1,)

    @property
    def observation_dtype(self) -> np.dtype[Any]:
        """Float32."""
        return np.dtype(np.float32)

    @property
    def num_actions(self) -> int:
        """Two."""
        return 2

"""Actions: maps an agent's action to the environment's action.

Agents choose integers from 0, or vectors from −1 to 1. The environment receives exactly what was
chosen, including both bounds. A space for which that is impossible is refused.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from regrow.errors import RegrowError, require
from regrow.types import ActionSpace, Continuous, Discrete, MultiDiscrete

WIDEST = 1e9
"""A wider range counts as unbounded; MuJoCo gives a motor without limits ±1e10."""


class Actions(NamedTuple):
    """The action space of an agent, and the function that maps its actions to the environment's."""

    space: ActionSpace
    given: Callable[[NDArray[Any]], Any]


class Range:
    """Scales numbers in [−1, 1] to bounds: exact at both ends and never outside.

    Raises `RegrowError`, with the environment's name, unless the bounds are floats and finite, the
    upper one is above the lower one, and they are at most 1e9 apart.
    """

    def __init__(self, low: NDArray[Any], high: NDArray[Any], name: str):
        self._dtype, self._shape = np.dtype(low.dtype), low.shape
        require(
            self._dtype.kind == "f" and low.size > 0,
            f"{name} takes {self._dtype}{list(low.shape)}; vectors must be of floats, or what an "
            "agent chooses would be rounded. Whole numbers are a Discrete or MultiDiscrete space",
        )
        low, high = (np.asarray(bound, np.float64) for bound in (low, high))
        for i in np.ndindex(low.shape):
            bounds, place = f"{low[i]:g} to {high[i]:g}", f" at {list(i)}" if i else ""
            require(
                bool(np.isfinite([low[i], high[i]]).all() and high[i] - low[i] <= WIDEST),
                f"{name} has actions without bounds, which nothing can be scaled to: they go from "
                f"{bounds}{place}; bound them in a wrapper",
            )
            require(
                bool(low[i] < high[i]),
                f"{name} takes actions from {bounds}{place}; the upper bound must be above the "
                "lower one",
            )
        self._low, self._high = low, high
        self._middle, self._half = (low + high) / 2, (high - low) / 2
        self._ends_are_exact = bool(
            (self._middle + self._half == high).all() and (self._middle - self._half == low).all()
        )

    def __call__(self, action: NDArray[Any]) -> NDArray[Any]:
        """The environment's action, in the shape and dtype of its bounds."""
        chosen = np.asarray(action, np.float64).reshape(self._shape)
        if self._ends_are_exact:
            given = self._middle + self._half * chosen
        else:  # at each end one term is exactly 0 and the other is the bound
            given = self._low * (0.5 - chosen / 2) + self._high * (0.5 + chosen / 2)
        within = np.minimum(np.maximum(given, self._low), self._high)
        return np.asarray(within, self._dtype)


def actions(space: Any, name: str) -> Actions:
    """Actions of a Gymnasium space; `RegrowError`, with the environment's name, for others."""
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return Actions(Discrete(int(space.n)), lambda action: int(action) + start)
    if isinstance(space, spaces.MultiDiscrete):
        numbers = tuple(int(n) for n in np.ravel(space.nvec))
        return Actions(MultiDiscrete(numbers), _choices(space, np.ravel(space.start)))
    if isinstance(space, spaces.MultiBinary):
        numbers = (2,) * int(np.prod(space.shape))
        return Actions(MultiDiscrete(numbers), _choices(space, np.zeros(len(numbers), np.int64)))
    if isinstance(space, spaces.Box):
        given = Range(np.asarray(space.low), np.asarray(space.high), name)
        return Actions(Continuous(int(np.prod(space.shape))), given)
    raise RegrowError(
        f"{name} takes {' '.join(str(space).split())}; actions must be Discrete, MultiDiscrete, "
        "MultiBinary or a bounded Box of floats"
    )


def _choices(space: Any, start: NDArray[Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Maps several choices to integers that begin at `start`, in the shape of the space."""
    shape, dtype = space.shape, space.dtype
    return lambda action: (np.asarray(action, np.int64) + start).reshape(shape).astype(dtype)

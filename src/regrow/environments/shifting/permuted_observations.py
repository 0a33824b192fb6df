"""Permuted observations: a new permutation of the observation every `period` env steps.

The game stays the same; only where its objects are seen changes. A network has to unlearn what it
knew about places. This is the non-stationarity of permuted inputs (permuted MNIST; studied as a
cause of plasticity loss by Dohare et al. 2023, arXiv 2306.13812, and Kumar et al. 2023, arXiv
2308.11958), here in reinforcement learning.
"""

import math
from dataclasses import dataclass

from jaxtyping import Array, Int, Shaped

from regrow.environments.shifting.base import Reordered
from regrow.errors import require


@dataclass(frozen=True)
class PermutedObservations(Reordered):
    """Permutes the observations of a game, in a new way after every `period` env steps.

    An image (rows, columns, channels) has its cells permuted, all channels alike; a vector has its
    entries permuted. Entry i of what agents see is entry order[i] of the game's observation, with
    cells counted row by row. No episode ends at a change: from one step to the next the same board
    looks different. Observations in the replay stay as they were seen.

    See `Reordered` for the options.
    """

    def __post_init__(self) -> None:
        shape = self.inner.observation_shape
        require(
            len(shape) in (1, 3),
            f"permuted_observations takes vectors or images (height, width, channels); "
            f"{self.game} has observations of shape {shape}",
        )
        super().__post_init__()

    @property
    def count(self) -> int:
        """How many cells or entries an observation has."""
        return math.prod(self.inner.observation_shape[:2])

    @property
    def noun(self) -> str:
        """Places in an observation."""
        return "places in an observation"

    def meant(
        self, action: Shaped[Array, "*action"], order: Int[Array, " count"]
    ) -> Shaped[Array, "*action"]:
        """The action, unchanged."""
        del order
        return action

    def shown(
        self, observation: Shaped[Array, "*obs"], order: Int[Array, " count"]
    ) -> Shaped[Array, "*obs"]:
        """The observation with its cells, or entries, in this order."""
        return observation.reshape(self.count, -1)[order].reshape(observation.shape)

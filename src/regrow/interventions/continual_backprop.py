"""Continual backprop (Dohare et al. 2023, arXiv 2306.13812): re-initialise the least useful units.

    u_i ← η·u_i + (1 − η)·E|h_i|·mean_k |w_ik|      û_i = u_i / (1 − η^a_i),   a_i the unit's age
    c ← c + ρ·#{i : a_i > m};   re-initialise the ⌊c⌋ of these with the smallest û;   c ← c − ⌊c⌋

for every hidden layer after every update. This is the contribution utility, with η, ρ and m as in
the authors' reinforcement-learning experiments (lop/algos/gnt.py, rl/cfg/ant/cbp.yml). The paper
sums over k, which gives the same ranking within a layer. Details they leave open, and differences:

- c is accumulated, as with their `accumulate=True`. Their default decides at random whether a unit
  is replaced.
- If a dense layer reads a convolution, E|h|·mean|w| is computed per position, then averaged
  (convGnT.py). Outgoing weights in frozen heads are not counted.
- h is computed with the network after the update, not before.
- The bias of the next layer is not corrected for the mean activation of replaced units. Their code
  intends this correction, but adds 0 because it clears the mean first.
- Their RL runs keep Adam's moments of replaced units. Here every new element starts with zero
  moments and step count 0.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from regrow.errors import require
from regrow.interventions.base import UnitRecyclingHook
from regrow.networks.layers import Affine, Dense
from regrow.networks.network import Network


class _Record(NamedTuple):
    """The record of one hidden layer."""

    utility: Float[Array, " units"]
    age: Int[Array, " units"]  # updates
    owed: Float[Array, ""]  # c: units to be replaced


@dataclass(frozen=True)
class ContinualBackprop(UnitRecyclingHook):
    """Installs a hook that keeps re-initialising a few of the least useful hidden units.

    `rate` ρ: units to replace per update, for each unit older than `maturity` m updates. `decay` η:
    of the moving average of a unit's utility. Raises `RegrowError` for a network without hidden
    units.
    """

    rate: float = 1e-4
    maturity: int = 10_000
    decay: float = 0.99

    def __post_init__(self) -> None:
        require(
            0 < self.rate <= 1,
            f"continual_backprop: rate is {self.rate}; it must be above 0 and at most 1",
        )
        require(
            self.maturity >= 0,
            f"continual_backprop: maturity is {self.maturity}; it must be 0 or more",
        )
        require(
            0 <= self.decay < 1,
            f"continual_backprop: decay is {self.decay}; it must be at least 0 and below 1",
        )

    def init_record(self, units: int) -> _Record:
        """Utility 0 and age 0 for every unit."""
        utility, age = jnp.zeros(units, jnp.float32), jnp.zeros(units, jnp.int32)
        return _Record(utility, age, jnp.array(0.0, jnp.float32))

    def scores(self, network: Network, inputs: Shaped[Array, "batch *obs"]) -> list[Array]:
        """The contribution of every hidden unit."""
        hidden = network.features(inputs)[1:-1]
        layers = [layer for layer in network.layers if isinstance(layer, Affine)]
        return [
            contribution(features, layers[i + 1], layers[i].units)
            for i, features in enumerate(hidden)
        ]

    def select(
        self, record: _Record, scores: Float[Array, " units"]
    ) -> tuple[_Record, Bool[Array, " units"]]:
        """(record of a layer after an update, mask of the mature units to replace)."""
        age = record.age + 1
        utility = self.decay * record.utility + (1 - self.decay) * scores
        unbiased = utility / (1 - self.decay**age)
        mature = age > self.maturity
        owed = record.owed + self.rate * mature.sum()
        count = jnp.floor(owed)
        order = jnp.argsort(jnp.where(mature, unbiased, jnp.inf))
        goes = mature & (jnp.argsort(order) < count)
        kept = _Record(jnp.where(goes, 0.0, utility), jnp.where(goes, 0, age), owed - count)
        return kept, goes


def contribution(
    features: Float[Array, "batch *positions width"], reader: Affine, units: int
) -> Float[Array, " units"]:
    """E|h_i|·mean_k |w_ik| for every unit of a layer, given the layer that reads it.

    For a unit with two output features it is the sum over both.
    """
    width = features.shape[-1]
    sent = jnp.abs(features).mean(axis=0).reshape(-1, width)
    heard = jnp.abs(reader.weight).mean(axis=-1).reshape(-1, width)
    if isinstance(reader, Dense):
        each = (sent * heard).mean(axis=0)  # a dense layer has separate weights for every position
    else:
        each = sent.mean(axis=0) * heard.mean(axis=0)
    return each.reshape(-1, units).sum(axis=0)

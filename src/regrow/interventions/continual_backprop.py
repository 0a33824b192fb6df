"""Continual backprop (Dohare et al. 2023, arXiv 2306.13812): the least useful units drawn anew.

    u_i ← η·u_i + (1 − η)·E|h_i|·mean_k |w_ik|      û_i = u_i / (1 − η^a_i),   a_i the unit's age
    c ← c + ρ·#{i : a_i > m};   the ⌊c⌋ of these with the smallest û are drawn anew, c ← c − ⌊c⌋

for every hidden layer after every update. This is the contribution utility, with η, ρ and m as in
the authors' experiments in reinforcement learning (lop/algos/gnt.py, rl/cfg/ant/cbp.yml); the paper
sums over k, which ranks the units of a layer alike. What they leave open, or do otherwise:

- c is counted, as with their `accumulate=True`; by default they draw by chance whether a unit goes.
- Behind a convolution that a dense layer reads, E|h|·mean|w| is taken at each position, then
  averaged (convGnT.py). Of what a unit sends, frozen heads are not counted.
- h is what the network makes of the batch after the update, not before.
- The bias of the next layer is not corrected for the mean of what went: their code means to, and
  adds 0, for it has cleared the mean before.
- Their RL runs leave Adam's moments of replaced units. Here each new element is as old as it is.
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
    """What is known of one hidden layer."""

    utility: Float[Array, " units"]
    age: Int[Array, " units"]  # updates
    owed: Float[Array, ""]  # c: units to be replaced


@dataclass(frozen=True)
class ContinualBackprop(UnitRecyclingHook):
    """From here on draws a few of the least useful hidden units anew, update by update.

    `rate` ρ: units to replace per update and unit that is older than `maturity` m updates. `decay`
    η of the moving average of a unit's utility. Raises `RegrowError` for a network without hidden
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
        """No utility, and every unit of age 0."""
        utility, age = jnp.zeros(units, jnp.float32), jnp.zeros(units, jnp.int32)
        return _Record(utility, age, jnp.array(0.0, jnp.float32))

    def scores(self, network: Network, inputs: Shaped[Array, "batch *obs"]) -> list[Array]:
        """What every hidden unit contributes."""
        hidden = network.features(inputs)[1:-1]
        layers = [layer for layer in network.layers if isinstance(layer, Affine)]
        return [
            contribution(features, layers[i + 1], layers[i].units)
            for i, features in enumerate(hidden)
        ]

    def select(
        self, record: _Record, scores: Float[Array, " units"]
    ) -> tuple[_Record, Bool[Array, " units"]]:
        """(what is known of a layer after an update, its mature units whose turn it is)."""
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
    """E|h_i|·mean_k |w_ik| for every unit of a layer and the layer that reads it.

    Of a unit that sends two features it is the sum of both.
    """
    width = features.shape[-1]
    sent = jnp.abs(features).mean(axis=0).reshape(-1, width)
    heard = jnp.abs(reader.weight).mean(axis=-1).reshape(-1, width)
    if isinstance(reader, Dense):
        each = (sent * heard).mean(axis=0)  # it has weights of its own for every position
    else:
        each = sent.mean(axis=0) * heard.mean(axis=0)
    return each.reshape(-1, units).sum(axis=0)

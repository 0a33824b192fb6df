"""Self-normalised resets (Farias & Jozefiak 2024, arXiv 2410.20098): re-initialise silent units.

    a_i ← 0 if unit i fired in the batch, else a_i + 1;     re-initialise a unit with a_i ≥ τ_i

The threshold of a unit is a percentile of the lengths of its own silences. Every `period` updates

    τ_i ← q_i if q_i < τ_i else γ·τ_i,     q_i the smallest length that covers a share p of them

A silence that ended in a re-initialisation is included. The following is as in the authors' code
(SelfNormalizedResets, src/algorithms/snr.py), which counts examples where this counts updates:

- Adam's moments of re-initialised elements start at 0 (here their step count does too).
- A unit fires if its output is not 0, for a ReLU above 0, on any input of the batch and at any
  position.
- Firing in two consecutive batches is not a silence.
- A unit without a silence in a period gets the smallest q, one update.
- p = 0.99 and γ = 2 are its defaults.

Their code revises the thresholds after a number of tasks. It takes the first threshold as an
argument; here that is the largest, `limit`. We found no published values of `period` and `limit`
for reinforcement learning. Whether a unit fired is computed with the network after the update.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from regrow.errors import require
from regrow.interventions.base import UnitRecyclingHook
from regrow.networks.network import Network


class _Record(NamedTuple):
    """The record of one hidden layer; all times are in updates."""

    silence: Int[Array, " units"]
    threshold: Int[Array, " units"]
    lengths: Int[Array, "units lengths"]  # histogram of silence lengths; 0 is no silence
    since: Int[Array, ""]  # updates since the thresholds were last revised


@dataclass(frozen=True)
class SelfNormalizedReset(UnitRecyclingHook):
    """Installs a hook that re-initialises hidden units silent for longer than is usual for them.

    Every `period` updates a threshold is set to the `percentile` p of a unit's silences, or, if it
    is not longer than that, multiplied by `expansion` γ. `limit`: the initial and the largest
    threshold, in updates. Raises `RegrowError` for a network without hidden units.
    """

    percentile: float = 0.99
    period: int = 10_000
    limit: int = 1_000
    expansion: int = 2

    def __post_init__(self) -> None:
        require(
            0 < self.percentile <= 1,
            f"self_normalized_reset: percentile is {self.percentile}; "
            "it must be above 0 and at most 1",
        )
        for name, least in (("period", 1), ("limit", 1), ("expansion", 2)):
            value = getattr(self, name)
            require(
                value >= least,
                f"self_normalized_reset: {name} is {value}; it must be at least {least}",
            )

        require(
            self.expansion * self.limit < 2**31 and self.limit <= 1_000_000,
            f"self_normalized_reset: limit is {self.limit}, expansion {self.expansion}; limit must "
            "be at most 1,000,000, and the product of both below 2^31",
        )

    def init_record(self, units: int) -> _Record:
        """No silence yet, and the longest threshold for every unit."""
        return _Record(
            silence=jnp.zeros(units, jnp.int32),
            threshold=jnp.full(units, self.limit, jnp.int32),
            lengths=jnp.zeros((units, self.limit + 1), jnp.int32),
            since=jnp.array(0, jnp.int32),
        )

    def scores(self, network: Network, inputs: Shaped[Array, "batch *obs"]) -> list[Array]:
        """|h_i| of every hidden unit."""
        hidden = network.features(inputs)[1:-1]
        return [layer.sizes(h) for layer, h in zip(network.layers, hidden, strict=False)]

    def select(
        self, record: _Record, scores: Float[Array, "... units"]
    ) -> tuple[_Record, Bool[Array, " units"]]:
        """(record of a layer after an update, mask of its units that were silent for too long)."""
        fired = (scores > 0).reshape(-1, scores.shape[-1]).any(axis=0)
        silence = jnp.where(fired, record.silence, record.silence + 1)
        goes = ~fired & (silence >= record.threshold)
        over = fired | goes
        each = jnp.arange(len(over))
        lengths = record.lengths.at[each, silence].add(over.astype(jnp.int32))
        since = record.since + 1
        due = since == self.period
        threshold, lengths = jax.lax.cond(
            due, self._revised, lambda *same: same, record.threshold, lengths
        )
        kept = _Record(
            silence=jnp.where(over, 0, silence),
            threshold=threshold,
            lengths=lengths,
            since=jnp.where(due, 0, since),
        )
        return kept, goes

    def _revised(
        self, threshold: Int[Array, " units"], lengths: Int[Array, "units lengths"]
    ) -> tuple[Int[Array, " units"], Int[Array, "units lengths"]]:
        """(thresholds at the percentile of each unit's silences, or expanded; empty histograms)."""
        within = jnp.cumsum(lengths[:, 1:], axis=1)
        share = within / jnp.maximum(within[:, -1:], 1)
        usual = jnp.argmax(share >= self.percentile, axis=1).astype(jnp.int32) + 1
        longer = jnp.minimum(self.expansion * threshold, self.limit)
        return jnp.where(usual < threshold, usual, longer), jnp.zeros_like(lengths)

"""The episodes of a training run, and its row of results."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from regrow.records.provenance import source_commit, versions
from regrow.records.rows import Happened, Measured, Row, probe_place
from regrow.stats.curves import bin_ends
from regrow.training.run import Run

STUDY = "training"
"""The study name in the row of a training run; its scale is ""."""

BINS = 20


class Episodes(NamedTuple):
    """Finished episodes: training env steps at their end, undiscounted return, length."""

    env_steps: NDArray[np.int64]
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]

    def until(self, env_steps: int) -> "Episodes":
        """The episodes that ended by `env_steps`."""
        count = int(np.searchsorted(self.env_steps, env_steps, side="right"))
        return Episodes(self.env_steps[:count], self.returns[:count], self.lengths[:count])

    def recent_at(self, env_steps: NDArray[np.int64], window: int) -> NDArray[np.float64]:
        """At each env step, the mean return of the episodes that ended in the last `window` steps.

        If none ended in the window, the return of the last episode; NaN before the first.
        """
        ends = np.searchsorted(self.env_steps, env_steps, side="right")
        starts = np.searchsorted(self.env_steps, env_steps - window, side="right")
        starts = np.minimum(starts, np.maximum(ends - 1, 0))
        sums = np.concatenate([[0.0], np.cumsum(self.returns)])
        with np.errstate(invalid="ignore"):
            return (sums[ends] - sums[starts]) / (ends - starts)

    def binned(self, env_steps: int, bins: int) -> NDArray[np.float64]:
        """The mean return of the episodes that end in each of `bins` equal time bins.

        A bin in which none ends takes the value of the previous bin. Empty bins at the start take
        the first known value.
        """
        at = np.minimum((self.env_steps - 1) * bins // env_steps, bins - 1)
        counts = np.bincount(at, minlength=bins)
        totals = np.bincount(at, weights=self.returns, minlength=bins)
        known = np.flatnonzero(counts)
        source = known[np.maximum(np.searchsorted(known, np.arange(bins), side="right") - 1, 0)]
        return totals[source] / counts[source]


def row_of(
    run: Run, episodes: Episodes, probes: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> Row | None:
    """The run as a row with one arm from env step 0; None before the first episode has ended."""
    if not episodes.returns.size:
        return None
    env_steps, nan = run.env_steps, float("nan")
    bins = min(BINS, env_steps)
    last = max((row["env_steps"] for row in probes), default=0)
    return Row(
        study=STUDY,
        scale="",
        condition=config["environment"],
        axis="",
        level=None,
        environment=config["environment"],
        agent=config["agent"],
        before=(),
        arm=STUDY,
        intervention="; ".join(config["rules"]) or "nothing",
        seed=config["seed"],
        replicate=0,
        fork_at=0,
        horizon=env_steps,
        env_steps_to_fork=(),
        returns_to_fork=(),
        env_steps=tuple(bin_ends(0, env_steps, bins).tolist()),
        returns=tuple(episodes.binned(env_steps, bins).tolist()),
        predicted=(nan,) * bins,
        realised=nan,
        largest_reward=nan,
        random_return=nan,
        random_error=nan,
        probes=tuple(
            Measured(*probe_place(row["probe"]), "fresh" if row["fresh"] else "end", row["value"])
            for row in probes
            if row["env_steps"] == last
        ),
        events=tuple(Happened(*event) for event in run.history),
        seconds=nan,
        seconds_to_fork=0.0,
        flops=nan,
        flops_to_fork=0.0,
        config=json.dumps(dict(config)),
        versions=json.dumps(versions()),
        commit=source_commit(),
        written=datetime.now(UTC),
    )

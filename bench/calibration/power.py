"""What pairing, shared random numbers and the return before the fork are worth, from rows.

    python bench/calibration/power.py [FOLDER …]    # by default runs/calibration/natural/*

In every diagnosis with two replicates, for the arms `nothing` and `inject` and their mean returns
A(arm, seed, replicate):

    pairing    var(I_s − N_s) / (var I_s + var N_s), of the means over replicates
    numbers    the correlation of A(nothing, s, 1) − A(nothing, s, 2) with the same of `inject`:
               equal replicates share the random numbers of the environment, and above 0 that helps
    covariate  the variance of I_s − N_s that is left after a regression on the return before the
               fork, with the degree of freedom that it costs

Below 1 (numbers: above 0) is a gain. Printed by diagnosis, then over all: the median of the first
and the last, and the pooled correlation with a bootstrap interval over seeds.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from regrow.errors import RegrowError
from regrow.records.rows import Row, read_rows

LEAST = 6
"""Seeds: with fewer a regression has nothing left."""


class Gains(NamedTuple):
    seeds: int
    pairing: float
    covariate: float
    shifts: np.ndarray  # (seeds, 2): between the replicates of each arm, in standard deviations


def gains(rows: list[Row]) -> Gains | None:
    """None where it is no diagnosis with two replicates of enough seeds."""
    area = {(r.arm, r.seed, r.replicate): float(np.mean(r.returns)) for r in rows if r.returns}
    before = {r.seed: float(np.mean(r.returns_to_fork[-5:])) for r in rows if r.returns_to_fork}
    arms = "nothing", "inject"
    seeds = sorted(s for s in before if all((arm, s, k) in area for arm in arms for k in range(2)))
    if len(seeds) < LEAST:
        return None
    held = np.array([[[area[arm, s, k] for k in range(2)] for s in seeds] for arm in arms])
    control, treated = held.mean(2)
    gap = treated - control
    pairing = gap.var(ddof=1) / (control.var(ddof=1) + treated.var(ddof=1))
    known = np.array([before[s] for s in seeds])
    fit = np.polynomial.Polynomial.fit(known, gap, 1) if np.ptp(known) else None
    left = gap if fit is None else gap - fit(known)
    covariate = (left**2).sum() / (len(seeds) - 2) / gap.var(ddof=1)
    shifts = (held[..., 0] - held[..., 1]).T
    return Gains(len(seeds), float(pairing), float(covariate), shifts / shifts.std(0))


def correlation(shifts: np.ndarray) -> float:
    a, b = shifts.T
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def main() -> None:
    folders = [Path(text) for text in sys.argv[1:]]
    found = list[Gains]()
    for folder in folders or sorted(Path("runs/calibration/natural").iterdir()):
        try:
            one = gains(read_rows(folder).rows)
        except RegrowError as error:
            print(f"{folder.name}: {error}")
            continue
        if one is not None:
            found.append(one)
            told = f"pairing {one.pairing:.2f}, covariate {one.covariate:.2f}"
            print(
                f"{folder.name}, {one.seeds} seeds: {told}, numbers {correlation(one.shifts):+.2f}"
            )
    if not found:
        return
    shifts, rng = np.concatenate([one.shifts for one in found]), np.random.default_rng(0)
    drawn = [correlation(shifts[rng.integers(0, len(shifts), len(shifts))]) for _ in range(2_000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    print(
        f"over {len(found)} diagnoses: pairing {np.median([o.pairing for o in found]):.2f}, "
        f"covariate {np.median([o.covariate for o in found]):.2f}, numbers "
        f"{correlation(shifts):+.2f} [{low:+.2f}, {high:+.2f}] over {len(shifts)} seeds"
    )


if __name__ == "__main__":
    main()

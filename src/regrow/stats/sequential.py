"""Looks at data that are still coming in, with an error rate that holds over all of them.

Testing after every few seeds until something is significant is wrong far more often than 5% of the
time. Here every look has a critical value of its own, from an error-spending function of the sample
size (Lan & DeMets 1983), so that all looks together err as often as one test would. An interval
made with the critical value of its look is a repeated confidence interval (Jennison & Turnbull
1991): all intervals of all looks cover the truth together.

The t statistics of normal data at several looks have a joint distribution that depends on the
sample sizes alone, so critical values are simulated: `tools/boundaries.py` makes the table for the
default looks, and other looks are simulated when they are asked for.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from regrow.errors import require
from regrow.stats.arrays import Floats

Design = Literal["paired", "independent"]
"""Paired: a t test of one sample of differences. Independent: a Welch test of two samples."""

FIRST, STEP, LATER, LARGEST = 4, 2, 4, 200
USUAL = 20
"""Seeds by which nine tenths of the error are spent."""


def usual_looks(at_most: int) -> tuple[int, ...]:
    """The sample sizes at which one looks: 4, 6, 8 … 20, 24, 28 … below `at_most`, and that."""
    every = (*range(FIRST, USUAL, STEP), *range(USUAL, LARGEST + 1, LATER))
    return (*(n for n in every if n < at_most), at_most)


def spent(n: int) -> float:
    """The share of the error that may be spent by sample size n ≥ 2.

    0.9 √((n − 1.5) / 18.5) up to 20, then 1 − 2 / n. It depends on no largest sample size, so a
    run may be continued past the one that was planned.
    """
    return 0.9 * math.sqrt((n - 1.5) / (USUAL - 1.5)) if n < USUAL else 1.0 - 2.0 / n


class Levels(NamedTuple):
    """Two-sided p values below which a look is significant, in the order of the looks."""

    looks: tuple[int, ...]
    levels: tuple[float, ...]

    def critical(self, n: int, degrees: float) -> float:
        """The critical t at the look of sample size n."""
        level = self.levels[self.looks.index(n)]
        return float(stdtrit(degrees, 1.0 - level / 2.0)) if level > 0 else math.inf


def levels_of(looks: Sequence[int], *, confidence: float = 0.95) -> Levels:
    """The levels of looks at these sample sizes; each spends what `spent` leaves to it.

    They are those of a paired t test. A Welch test with the same levels errs in 4.0% of cases by 20
    replicates where both arms are as noisy, and in 5.0% at most, where one is six times as noisy
    (60,000 simulated paths each; 4.5% were planned).
    Raises `RegrowError` unless the sizes ascend from 2 or more, and for a confidence outside
    (0, 1).
    """
    looks = tuple(looks)
    require(0 < confidence < 1, f"confidence must lie strictly in (0, 1), got {confidence}")
    ascending = len(looks) > 0 and all(a < b for a, b in zip((1, *looks), looks, strict=False))
    require(ascending, f"looks must ascend from 2 or more, got {looks}")
    table = _table()
    held = table.levels if math.isclose(confidence, table.confidence) else {}
    if all(look in held for look in looks) and looks == usual_looks(LARGEST)[: len(looks)]:
        return Levels(looks, tuple(held[look] for look in looks))
    return Levels(looks, simulated_levels(looks, 1.0 - confidence))


class _Table(msgspec.Struct):
    """`boundaries.json`: the level of every usual look."""

    confidence: float
    paths: int
    levels: dict[int, float]


@functools.cache
def _table() -> _Table:
    text = files("regrow.stats").joinpath("boundaries.json").read_bytes()
    return msgspec.json.decode(text, type=_Table)


@functools.lru_cache(maxsize=64)
def simulated_levels(
    looks: tuple[int, ...], error: float, paths: int = 200_000, seed: int = 0
) -> tuple[float, ...]:
    """The levels of looks from simulated paths: each look spends what `spent` leaves to it."""
    generator, alive, used = np.random.default_rng(seed), np.ones(paths, bool), 0.0
    levels = []
    for n, (t, degrees) in zip(
        looks, _t_paths(looks, paths, generator, "paired", 0.0, 1.0), strict=True
    ):
        size = np.abs(t)
        spend = round((error * spent(n) - used) * paths)
        running = np.sort(size[alive])
        critical = float(running[-spend - 1]) if spend > 0 else math.inf  # the last not to reject
        alive &= ~(size > critical)
        used = 1.0 - float(alive.mean())
        levels.append(float(2.0 * stdtr(degrees, -critical)))
    return tuple(levels)


def p_paths(
    looks: Sequence[int],
    paths: int,
    generator: Generator,
    design: Design = "paired",
    shift: float = 0.0,
    ratio: float = 1.0,
) -> Iterator[Floats]:
    """Two-sided p values of normal data, look after look; (paths,) each.

    `shift`: the mean of the differences in their standard deviations. `ratio`: the standard
    deviation of the second sample, where the first has 1.
    """
    for t, degrees in _t_paths(looks, paths, generator, design, shift, ratio):
        yield 2.0 * stdtr(degrees, -np.abs(t))


def _t_paths(
    looks: Sequence[int],
    paths: int,
    generator: Generator,
    design: Design,
    shift: float,
    ratio: float,
) -> Iterator[tuple[Floats, Floats | float]]:
    spreads = (1.0,) if design == "paired" else (1.0, ratio)
    # A difference of two samples has the standard deviation √(1 + ratio²).
    shift *= math.sqrt(sum(spread**2 for spread in spreads))
    sums, squares, before = np.zeros((len(spreads), paths)), np.zeros((len(spreads), paths)), 0
    for n in looks:
        for i, spread in enumerate(spreads):
            for _ in range(n - before):
                drawn = generator.standard_normal(paths) * spread + (shift if i == 0 else 0.0)
                sums[i] += drawn
                squares[i] += drawn**2
        before = n
        means = sums / n
        errors = np.maximum(squares - n * means**2, 1e-300) / (n - 1) / n  # squared
        if design == "paired":
            yield means[0] / np.sqrt(errors[0]), n - 1.0
        else:
            degrees = errors.sum(0) ** 2 / (errors**2).sum(0) * (n - 1)
            yield (means[0] - means[1]) / np.sqrt(errors.sum(0)), degrees


# Evidence that holds at any time.


def e_value(t: float, n: int, prior: float = 1.0) -> float:
    """The t e-process against a mean of 0: evidence at any sample size, however it came about.

    Lai (1976), Wang & Ramdas (arXiv 2310.03722), with a Gaussian mixture of variance `prior` in
    units of the variance of the data: with ν = n − 1,
    (1 + n g)^−½ · [(1 + t²/ν) / (1 + t²/(ν (1 + n g)))]^(n/2). Large values speak against a mean
    of 0: a value of 20 or more ever occurs with probability 5% at most where the mean is 0.
    """
    degrees, wide = n - 1.0, 1.0 + n * prior
    return float(
        wide**-0.5 * ((1.0 + t * t / degrees) / (1.0 + t * t / (degrees * wide))) ** (n / 2)
    )


# What more data would bring.


class Outlook(NamedTuple):
    """What to expect of continuing: the mean number of further seeds, and the chance to settle."""

    further: float
    chance: float


def outlook(
    mean: float, sd: float, n: int, levels: Levels, *, paths: int = 2_000, seed: int = 0
) -> Outlook:
    """What the looks after sample size n would bring, with a mean and sd as uncertain as they are.

    `mean`, `sd` of the n differences whose sign is to be settled. Draws the true mean and variance
    from what the data say of them (normal, inverse χ²) and continues each path. Paths that do not
    settle count with all of the remaining looks.
    """
    later = tuple(look for look in levels.looks if look > n)
    if not later or not sd > 0:
        return Outlook(0.0, 0.0)
    generator = np.random.default_rng(seed)
    variance = sd**2 * (n - 1) / generator.chisquare(n - 1, paths)
    true = mean + generator.standard_normal(paths) * np.sqrt(variance / n)
    sums, squares = np.full(paths, n * mean), np.full(paths, (n - 1) * sd**2 + n * mean**2)
    settled, before = np.zeros(paths, int), n
    for look in later:
        drawn = true + np.sqrt(variance) * generator.standard_normal((look - before, paths))
        sums, squares, before = sums + drawn.sum(0), squares + (drawn**2).sum(0), look
        error = np.sqrt(np.maximum(squares - sums**2 / look, 1e-300) / (look - 1) / look)
        crossed = np.abs(sums / look / error) > levels.critical(look, look - 1.0)
        settled = np.where((settled == 0) & crossed, look, settled)
    reached = np.where(settled > 0, settled, later[-1])
    return Outlook(float(reached.mean() - n), float((settled > 0).mean()))


def power(shift: float, levels: Levels, *, paths: int = 4_000, seed: int = 0) -> float:
    """The probability that differences of mean `shift`, in their sd, settle by the last look.

    On the side that they are on.
    """
    if not math.isfinite(shift):
        return 1.0
    generator, settled = np.random.default_rng(seed), np.zeros(paths, bool)
    wrong = np.zeros(paths, bool)
    for n, (t, degrees) in zip(
        levels.looks, _t_paths(levels.looks, paths, generator, "paired", shift, 1.0), strict=True
    ):
        critical = levels.critical(n, float(degrees))
        wrong |= ~settled & (np.sign(shift) * t < -critical)
        settled |= ~wrong & (np.sign(shift) * t > critical)
    return float(settled.mean())


# What stands beside a t test.


def sign_test(values: NDArray[np.float64]) -> float:
    """The two-sided p value of the sign test of values against 0; those that are 0 do not count."""
    from scipy.stats import binomtest

    above, below = int((values > 0).sum()), int((values < 0).sum())
    return float(binomtest(above, above + below).pvalue) if above + below else 1.0

"""How often the verdict errs where the truth is known by construction: simulated outcomes.

    python bench/calibration/shapes.py [--paths 100_000] [--out docs/calibration/shapes.json]

The default design: looks at 4, 6, 8 … 20 seeds, two replicates, smallest effect 10% of what
learning is worth, two arms. The decision is the one of `conclude`, written once more for arrays; on
300 random cases both are compared first. Returns of the random policy are 0 with an error of 2%.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import stdtrit
from scipy.stats import binom

from regrow.diagnosis.conclusion import SIGNS, conclude
from regrow.diagnosis.findings import APART, APART_OF_FEW, FAR
from regrow.diagnosis.outcomes import Outcome
from regrow.diagnosis.plan import SMALLEST_EFFECT
from regrow.diagnosis.verdict import INCONCLUSIVE, LOSS, NO_LOSS
from regrow.stats.sequential import levels_of, usual_looks

Floats = NDArray[np.float64]
LOOKS = usual_looks(20)
LEVELS = levels_of(LOOKS)
REPLICATES, ERROR = 2, 0.02
OUT = Path(__file__).parents[2] / "docs" / "calibration" / "shapes.json"


class Shape(NamedTuple):
    """Noise of a run around its mean, of variance 1; and what befalls some runs of an arm."""

    name: str
    noise: Callable[[Generator, tuple[int, ...]], Floats]
    event: float = 0.0  # the probability that a seed's runs of `of` are multiplied
    factor: float = 1.0
    of: str = ""


def normal(generator: Generator, shape: tuple[int, ...]) -> Floats:
    return generator.standard_normal(shape)


def student(generator: Generator, shape: tuple[int, ...]) -> Floats:
    return generator.standard_t(3, shape) / math.sqrt(3.0)


def lognormal(generator: Generator, shape: tuple[int, ...]) -> Floats:
    sigma = 0.8
    drawn = np.exp(sigma * generator.standard_normal(shape))
    mean = math.exp(sigma**2 / 2)
    return (drawn - mean) / (mean * math.sqrt(math.expm1(sigma**2)))


SHAPES = (
    Shape("normal", normal),
    Shape("t with 3 degrees of freedom", student),
    Shape("lognormal", lognormal),
    Shape("one untreated seed in ten revives (twice the return)", normal, 0.1, 2.0, "control"),
    Shape("one injected seed in ten collapses (to nothing)", normal, 0.1, 0.0, "inject"),
)


def returns(
    shape: Shape, effect: float, sd: float, generator: Generator, paths: int
) -> tuple[Floats, Floats]:
    """(injected, control) means of replicates, (seeds, paths); their true effect is `effect`.

    As a share of the better arm's mean return; runs have the standard deviation `sd` of it, the
    trunk as much again.
    """
    control, inject = (1.0 - effect, 1.0) if effect > 0 else (1.0, 1.0 + effect)
    n = LOOKS[-1]
    trunk = sd * generator.standard_normal((n, paths))
    arms = {}
    for name, mean in (("inject", inject), ("control", control)):
        noise = shape.noise(generator, (REPLICATES, n, paths)).mean(axis=0)
        held = mean + trunk + sd * noise
        if shape.of == name:  # the mean over all seeds stays what it is
            hit = generator.random((n, paths)) < shape.event
            usual = mean / (1.0 + shape.event * (shape.factor - 1.0))
            held = np.where(hit, usual * shape.factor, usual) + trunk * ~hit + sd * noise
        arms[name] = held
    return arms["inject"], arms["control"]


def decided(inject: Floats, control: Floats, random: Floats) -> tuple[NDArray[np.int8], Floats]:
    """(1 for loss, −1 for no loss, 0 for neither; seeds used) of every path; (paths,)."""
    paths = inject.shape[1]
    claim, used = np.zeros(paths, np.int8), np.full(paths, float(LOOKS[-1]))
    open_, first = np.ones(paths, bool), np.zeros(paths, np.int8)
    for n in LOOKS:
        side, learned = _side(inject[:n], control[:n], random, n)
        first = np.where(first == 0, side, first)
        modes, signs, at_random = _seen(inject[:n], control[:n], random, n)
        crossed = open_ & (first != 0)
        vetoed = (modes & (signs > SIGNS)) | ((first < 0) & at_random) | ~learned
        claim[crossed & ~vetoed] = first[crossed & ~vetoed]
        done = (crossed & (~vetoed | ~modes)) | (open_ & ~learned & (n >= 6))
        used[done] = n
        open_ &= ~done
    return claim, used


def _side(
    inject: Floats, control: Floats, random: Floats, n: int
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    best = np.where(inject.mean(0) > control.mean(0), inject, control)
    d, u = inject - control, best - random
    z = d - SMALLEST_EFFECT * u
    error = np.sqrt(z.var(axis=0, ddof=1) / n + (SMALLEST_EFFECT * ERROR) ** 2)
    t = z.mean(0) / error
    critical = LEVELS.critical(n, n - 1)
    side = np.where(np.abs(t) > critical, np.sign(t), 0).astype(np.int8)
    pooled = (inject.var(axis=0, ddof=1) + control.var(axis=0, ddof=1)) / 2
    lead = np.maximum(inject.mean(0), control.mean(0)) - random
    learned = lead > stdtrit(2 * (n - 1), 0.95) * np.sqrt(pooled / n + ERROR**2)
    return np.where(u.mean(0) > 0, side, 0).astype(np.int8), learned


def _seen(
    inject: Floats, control: Floats, random: Floats, n: int
) -> tuple[NDArray[np.bool_], Floats, NDArray[np.bool_]]:
    """(whether two modes are seen, the sign test's p, whether no arm is clearly above random)."""
    best = np.maximum(inject.mean(0), control.mean(0)) - random
    shares = (inject - control) / best
    distance = np.abs(shares - np.median(shares, axis=0))
    spread = 1.4826 * np.median(distance, axis=0)
    far = (distance > (APART if n >= 8 else APART_OF_FEW) * spread) & (distance > FAR)
    above = (shares > SMALLEST_EFFECT).sum(axis=0)
    rarer = np.minimum(above, n - above)
    signs = np.minimum(1.0, 2 * binom.cdf(rarer, n, 0.5))
    above_random = np.zeros(inject.shape[1], bool)
    for arm in (inject, control):
        error = np.sqrt(arm.var(axis=0, ddof=1) / n + ERROR**2)
        above_random |= (arm.mean(0) - random) / error > LEVELS.critical(n, n - 1)
    return far.any(axis=0), signs, ~above_random


def check(generator: Generator) -> None:
    """`decided` against `conclude` on 300 random cases."""
    for i in range(300):
        shape, effect = SHAPES[i % len(SHAPES)], float(generator.choice([-0.1, 0, 0.1, 0.2, 1.0]))
        sd = float(generator.choice([0.02, 0.1, 0.3]))
        inject, control = returns(shape, effect, sd, generator, 1)
        random = ERROR * generator.standard_normal(1)
        claim, used = decided(inject, control, random)
        verdict = None
        for n in LOOKS:
            runs = [
                Outcome(arm, seed, (value,) * 4, (1.0,), 1.0, 1.0)
                for arm, values in (("nothing", control), ("inject", inject))
                for seed, value in enumerate(values[:n, 0].tolist())
            ]
            verdict = conclude(
                runs, random_return=float(random[0]), random_error=ERROR, looks=LOOKS
            )
            if verdict.settled:
                break
        assert verdict is not None
        expected = {LOSS: 1, NO_LOSS: -1, INCONCLUSIVE: 0}[verdict.claim]
        assert (claim[0], used[0]) == (expected, verdict.n), (shape.name, effect, sd, verdict)


def rates(shape: Shape, effect: float, sd: float, paths: int, seed: int) -> dict[str, float | str]:
    generator = np.random.default_rng(seed)
    claims, seeds, chunk = [], [], 10_000
    for _ in range(0, paths, chunk):
        inject, control = returns(shape, effect, sd, generator, chunk)
        claim, used = decided(inject, control, ERROR * generator.standard_normal(chunk))
        claims.append(claim)
        seeds.append(used)
    claim, used = np.concatenate(claims), np.concatenate(seeds)
    return {
        "shape": shape.name,
        "effect": effect,
        "run_sd": sd,
        "loss": float((claim > 0).mean()),
        "no_loss": float((claim < 0).mean()),
        "settled": float((claim != 0).mean()),
        "mean_seeds": float(used.mean()),
        "median_seeds": float(np.median(used)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paths", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    check(np.random.default_rng(3))
    print("the same as `conclude` on 300 random cases", flush=True)
    found = []
    for i, shape in enumerate(SHAPES):
        for effect in (-0.2, 0.0, SMALLEST_EFFECT, 2 * SMALLEST_EFFECT, 0.5, 1.0):
            for sd in (0.03, 0.07, 0.14):
                found.append(rates(shape, effect, sd, options.paths, 100 + i))
                print(json.dumps(found[-1]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    content = {"paths": options.paths, "smallest_effect": SMALLEST_EFFECT, "looks": LOOKS}
    options.out.write_text(json.dumps({**content, "rates": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()

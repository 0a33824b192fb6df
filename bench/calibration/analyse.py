"""What the verdict says of pools of real trainings, and how well probes would have told.

    python bench/calibration/analyse.py [--pools runs/calibration] [--out docs/calibration]

Diagnoses are made of seeds that no other diagnosis has, in their order, until they settle or 20
seeds are used up. The truth of a scenario is the mean effect over its whole pool; of A/A forks,
where both arms do nothing, it is 0. Probes are scored as classifiers of single forks: is the area
under the ROC curve of probe (fork / fresh) against whether the scenario's effect is above the
smallest one that matters; 1 and 0 are perfect, 0.5 is chance.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import toy
from scipy.stats import binomtest, mannwhitneyu
from supervised import DOSES, OUT

from regrow.diagnosis.conclusion import conclude
from regrow.diagnosis.judging import probes_of
from regrow.diagnosis.outcomes import Outcome
from regrow.diagnosis.plan import SMALLEST_EFFECT
from regrow.diagnosis.verdict import INCONCLUSIVE, LOSS, NO_LOSS, Verdict
from regrow.records.rows import read_rows
from regrow.stats.sequential import usual_looks

LOOKS, CHANCE = usual_looks(20), 0.1  # of ten classes
FOLDER = Path(__file__).parents[2] / "docs" / "calibration"
Curves = np.ndarray  # (replicates, seeds, bins)


def outcomes(arm: str, curves: Curves, seeds: Sequence[int]) -> list[Outcome]:
    return [
        Outcome(arm, seed, tuple(run[seed].tolist()), (1.0,), 1.0, 1.0, replicate=replicate)
        for replicate, run in enumerate(curves)
        for seed in seeds
    ]


def diagnoses(nothing: Curves, inject: Curves, random: float) -> Iterator[Verdict]:
    """One after the other, each with seeds of its own."""
    total, start = nothing.shape[1], 0
    while start + LOOKS[0] <= total:
        verdict = None
        for n in LOOKS:
            if start + n > total:
                break
            seeds = range(start, start + n)
            runs = outcomes("nothing", nothing, seeds) + outcomes("inject", inject, seeds)
            verdict = conclude(runs, random_return=random, looks=LOOKS)
            if verdict.settled:
                break
        # One that ran out of seeds is not counted: it was not allowed all of its looks.
        if verdict is None or not (verdict.settled or verdict.n == LOOKS[-1]):
            return
        yield verdict
        start += verdict.n


def rate(count: int, total: int) -> list[float]:
    """A share with its exact 95% interval (Clopper & Pearson 1934)."""
    interval = binomtest(count, total).proportion_ci(0.95, method="exact")
    return [count / total, float(interval.low), float(interval.high)]


def told(name: str, truth: float, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    claims = [verdict.claim for verdict in verdicts]
    return {
        "scenario": name,
        "true_effect": truth,
        "diagnoses": len(claims),
        "loss": rate(claims.count(LOSS), len(claims)),
        "no_loss": rate(claims.count(NO_LOSS), len(claims)),
        "inconclusive": rate(claims.count(INCONCLUSIVE), len(claims)),
        "median_seeds": float(np.median([verdict.n for verdict in verdicts])),
    }


def effect(nothing: Curves, inject: Curves, random: float) -> float:
    a, b = float(nothing.mean()), float(inject.mean())
    return (b - a) / (max(a, b) - random)


def supervised(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(what is said at every dose and of A/A forks, a record for every fork with its probes)."""
    parts = [np.load(path) for path in sorted(folder.glob("?????.npz"))]
    curves = np.concatenate([part["curves"] for part in parts], axis=3)
    rates, forks = [], []
    for i, dose in enumerate(DOSES):
        nothing, inject = curves[i]
        truth = effect(nothing, inject, CHANCE)
        rates.append(told(f"{dose} tasks", truth, list(diagnoses(nothing, inject, CHANCE))))
        same = list(diagnoses(nothing[:1], nothing[1:], CHANCE))
        rates.append(told(f"{dose} tasks, A/A", 0.0, same))
        names = {name.partition(".")[2] for name in parts[0].files if name.startswith("fork.")}
        values = {
            name: np.concatenate([part[f"fork.{name}"][i] for part in parts])
            / np.concatenate([part[f"fresh.{name}"][i] for part in parts]).mean()
            for name in names
        }
        for seed in range(nothing.shape[1]):
            probes = {name: float(value[seed]) for name, value in values.items()}
            gain = float(inject[:, seed].mean() - nothing[:, seed].mean())
            forks.append({"lost": truth > SMALLEST_EFFECT, "gain": gain, "probes": probes})
    return rates, forks


def matching(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What is said in every scenario of the toy environment and of A/A forks; no probes."""
    curves = np.concatenate([np.load(path) for path in sorted(folder.glob("?????.npy"))], axis=3)
    rates = []
    for name, (nothing, inject) in zip(toy.SCENARIOS, curves, strict=True):
        truth = effect(nothing, inject, toy.RANDOM)
        rates.append(told(name, truth, list(diagnoses(nothing, inject, toy.RANDOM))))
        same = list(diagnoses(nothing[:1], nothing[1:], toy.RANDOM))
        rates.append(told(f"{name}, A/A", 0.0, same))
    return rates, []


def minatar(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rates, forks = [], []
    for scenario in sorted(path for path in folder.iterdir() if path.is_dir()):
        rows = read_rows(scenario).rows
        seeds = [s for s in sorted({r.seed for r in rows}) if sum(r.seed == s for r in rows) == 4]
        rows = [row for row in rows if row.seed in seeds]
        held = {
            arm: np.array(
                [
                    [
                        next(
                            r.returns
                            for r in rows
                            if (r.arm, r.seed, r.replicate) == (arm, seed, replicate)
                        )
                        for seed in seeds
                    ]
                    for replicate in range(2)
                ]
            )
            for arm in ("nothing", "inject")
        }
        random, error = rows[0].random_return, rows[0].random_error
        truth = effect(held["nothing"], held["inject"], random)
        runs = [
            one for arm, curves in held.items() for one in outcomes(arm, curves, range(len(seeds)))
        ]
        verdict = conclude(runs, random_return=random, random_error=error, looks=LOOKS)
        rates.append(
            {
                "scenario": scenario.name.replace("-", " ", 1),
                "effect": list(verdict.effect[:3]),
                "claim": verdict.claim,
                "seeds": verdict.n,
            }
        )
        for place, seed in enumerate(seeds):
            row = next(r for r in rows if (r.arm, r.seed) == ("nothing", seed))
            fresh = probes_of(row, "fresh")
            probes = {
                name: value / fresh[name] if fresh.get(name) else value
                for name, value in probes_of(row, "fork").items()
            }
            gain = float(held["inject"][:, place].mean() - held["nothing"][:, place].mean())
            forks.append({"lost": truth > SMALLEST_EFFECT, "gain": gain, "probes": probes})
    return rates, forks


def area(values: np.ndarray, lost: np.ndarray) -> float:
    """The area under the ROC curve (Mann & Whitney 1947)."""
    above = mannwhitneyu(values[lost], values[~lost]).statistic
    return float(above / (lost.sum() * (~lost).sum()))


def scores(forks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every probe as a classifier of lost plasticity; bootstrap intervals over forks."""
    lost = np.array([fork["lost"] for fork in forks])
    rng, found = np.random.default_rng(0), []
    for name in forks[0]["probes"]:
        values = np.array([fork["probes"].get(name, np.nan) for fork in forks])
        known = np.isfinite(values)
        if not known.all() or len(set(values)) < 2 or not 0 < lost.sum() < len(lost):
            continue
        drawn = []
        for _ in range(500):
            rows = rng.integers(0, len(lost), len(lost))
            if 0 < lost[rows].sum() < len(rows):
                drawn.append(area(values[rows], lost[rows]))
        low, high = np.quantile(drawn, [0.025, 0.975])
        found.append({"probe": name, "area": [area(values, lost), float(low), float(high)]})
    return sorted(found, key=lambda one: -abs(one["area"][0] - 0.5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pools", type=Path, default=OUT.parent)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pools = {"supervised": supervised, "toy": matching, "minatar": minatar}
    for name, analyse in pools.items():
        if not (options.pools / name).is_dir():
            print(f"{name}: no pool in {options.pools}")
            continue
        rates, forks = analyse(options.pools / name)
        content = {"rates": rates, "forks": len(forks), "probes": scores(forks) if forks else []}
        (options.out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
        for one in (*rates, *content["probes"]):
            print(json.dumps(one))


if __name__ == "__main__":
    main()

"""The committed conditions of studies, each as a diagnosis that adds seeds until it is settled.

    python bench/calibration/natural.py [--processes 2] [--only TEXT] [--out FOLDER]
    python bench/calibration/natural.py --table    # what was found, as in docs/verdict.md

A condition of `docs/results/plans` has a fixed number of seeds and one replicate. Here it is
diagnosed with the defaults of `regrow diagnose`: the same agent, environment, fork, horizon and
arms (as they are today), two replicates, and at most 20 seeds. Conditions that are one and the same
are diagnosed once.
The same command continues; what is done is written to docs/calibration/natural.json.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from regrow.diagnosis.diagnose import Diagnosed, carry_out
from regrow.diagnosis.plan import REPLICATES, SEEDS, Arm, Plan
from regrow.execution.processes import Processes
from regrow.files.atomic import write_json
from regrow.records.study_spec import read_plans

ROOT = Path(__file__).parents[2]
OUT, TOLD = Path("runs/calibration/natural"), ROOT / "docs" / "calibration" / "natural.json"


def conditions() -> Iterator[tuple[str, Plan]]:
    """(study: label, the diagnosis), in the order of the studies."""
    for (study, _), planned in read_plans(ROOT / "docs" / "results").held.items():
        for label, condition in planned.conditions.items():
            fixed = Plan.from_config(condition.config)
            arms = tuple(Arm.parse(arm.name) for arm in fixed.arms)  # by today's meaning
            new = {"seeds": SEEDS, "replicates": REPLICATES, "fixed": False, "looks": ()}
            plan = replace(fixed, arms=arms, **new)
            yield f"{study}: {label}", plan


def told(done: Diagnosed) -> dict[str, Any]:
    """What is kept of a diagnosis; `core_seconds`: of all jobs, one core each."""
    verdict, rows = done.verdict, done.rows
    to_fork = {row.seed: row.seconds_to_fork for row in rows}
    effect = verdict.effect
    return {
        "claim": verdict.claim,
        "effect": [effect.estimate, effect.low, effect.high],
        "seeds": verdict.n,
        "findings": [finding.code for finding in verdict.findings],
        "core_seconds": round(sum(row.seconds for row in rows) + sum(to_fork.values())),
    }


def table(known: dict[str, Any]) -> Iterator[str]:
    """The lines of a table in Markdown."""
    yield "| condition | verdict | seeds |"
    yield "|---|---|---|"
    for name, _ in conditions():
        if name in known:
            estimate, low, high = map(_percent, known[name]["effect"])
            effect = f"{estimate} [{low}, {high}]"
            yield f"| {name} | {known[name]['claim']}, {effect} | {known[name]['seeds']} |"


def _percent(value: float | None) -> str:
    """A share as it is printed; None, which JSON has for infinity, is no bound."""
    return "∞" if value is None or math.isinf(value) else f"{value:+.0%}".replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="conditions whose name has this text")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="print what was found")
    options = parser.parse_args()
    known = json.loads(TOLD.read_text("utf-8")) if TOLD.exists() else {}
    if options.table:
        print("\n".join(table(known)))
        return
    same: dict[str, str] = {}
    for name, plan in conditions():
        first = same.setdefault(json.dumps(plan.config(), sort_keys=True), name)
        if options.only not in name:
            continue
        if first not in known:
            folder = options.out / "".join(c if c.isalnum() else "-" for c in first)
            known[first] = told(carry_out(plan, folder, execute=Processes(options.processes)))
        known[name] = known[first]
        write_json(TOLD, known)
        print(name, json.dumps(known[name]), flush=True)


if __name__ == "__main__":
    main()

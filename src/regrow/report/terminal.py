"""A diagnosis, or the probes of a run, in a terminal. Draws, never computes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from regrow.diagnosis.judging import as_outcome, means_of_replicates, roles_of
from regrow.diagnosis.outcomes import Outcome
from regrow.diagnosis.verdict import INCONCLUSIVE, LOSS, Verdict
from regrow.records.rows import Row
from regrow.stats.intervals import Interval

_COLOUR = {LOSS: "red", INCONCLUSIVE: "yellow"}


def show(
    console: Console,
    verdict: Verdict,
    rows: Sequence[Row],
    probes: Mapping[str, Mapping[str, float]],
) -> None:
    """Prints the table of arms, the probes at the fork, and the verdict with its findings."""
    console.print(arms_table(verdict, outcomes_of(rows)))
    console.print(probes_table(probes))
    colour = _COLOUR.get(verdict.claim, "green")
    console.print(f"[bold {colour}]{verdict.claim}[/]: {escape(verdict.reason)}", highlight=False)
    for text in context_of(verdict):
        console.print(f"  {escape(text)}", highlight=False)
    for finding in verdict.findings:
        console.print(f"  [bold]{finding.code}[/]: {escape(finding.text)}", highlight=False)


def outcomes_of(rows: Sequence[Row]) -> list[Outcome]:
    """What the runs did, replicates of the control under its name."""
    roles = roles_of(rows[0])
    kept = [row for row in rows if not row.stopped]
    return [as_outcome(row) for row in means_of_replicates(kept, roles)]


def context_of(verdict: Verdict) -> list[str]:
    """The context of a claim, a sentence each: unit, noise, power, evidence, signs, ratio."""
    if not verdict.comparisons:
        return []
    kind = "seeds" if verdict.population == "training" else "replicates"
    told = [
        (
            "The claim is about the training: seeds are the sample."
            if verdict.population == "training"
            else "The claim is about this one agent: replicates of each arm are the sample."
        ),
        f"100% is {verdict.unit_value:.3g}: {verdict.unit}.",
    ]
    if verdict.noise is not None:
        within, degrees, between = verdict.noise
        forks = (
            "" if math.isnan(between) else f"; the effect differs by {between:.1%} between seeds"
        )
        told.append(
            f"Noise: runs of one arm from one fork differ by {within:.1%} (standard deviation, "
            f"{degrees} degrees of freedom){forks}."
        )
    if math.isfinite(verdict.power):
        told.append(
            f"Power: an effect of 0, or of {2 * verdict.smallest_effect:.0%}, would have been "
            f"settled by now with probability {verdict.power:.0%}."
        )
    told.append(
        f"Other evidence: {verdict.positive} of {verdict.n} {kind} lie above "
        f"{verdict.smallest_effect:.0%} (sign test p = {verdict.sign_test:.2g}); e-value "
        f"{verdict.evidence:.3g}."
    )
    if verdict.ratio is not None:
        told.append(f"Injection / nothing − 1 = {verdict.ratio:+.0%} (Fieller's interval).")
    return told


def arms_table(verdict: Verdict, outcomes: Sequence[Outcome]) -> Table:
    """Per arm: final and mean return, the difference to the control, and the value scale."""
    level = f"{verdict.effect.confidence:.0%}"
    table = Table(
        title=f"After the fork (random policy: {verdict.random_return:.3g})", title_justify="left"
    )
    table.add_column("arm")
    share = f"difference to nothing\n(of what learning is worth) [{level}]"
    for heading in ("final\nreturn", "mean\nreturn", share):
        table.add_column(heading.replace("[", r"\["), justify="right")
    table.add_column("predicted value\nfirst → last", justify="right")
    table.add_column("realised\nvalue", justify="right")
    for row in verdict.comparisons:
        runs = [run for run in outcomes if run.arm == row.arm and not run.stopped]
        first, last = (float(np.mean([run.predicted[i] for run in runs])) for i in (0, -1))
        realised = float(np.mean([run.realised for run in runs]))
        table.add_row(
            escape(row.arm),
            f"{row.final:.2f}",
            f"{row.area:.2f}",
            interval(row.share),
            f"{first:.3g} → {last:.3g}",
            f"{realised:.3g}",
        )
    return table


def probes_table(probes: Mapping[str, Mapping[str, float]]) -> Table:
    """Per probe: at the fork beside a fresh network on the same observations, part by part.

    What was not measured there, such as a change since the fork, is left out.
    """
    probes = {name: at for name, at in probes.items() if {"fork", "fresh"} <= at.keys()}
    table = Table(title="Probes at the fork (fresh network)", title_justify="left")
    table.add_column("probe", overflow="fold")
    columns = list(dict.fromkeys(name.rsplit(".", 1)[1] for name in probes))
    for part in columns:
        table.add_column(part, justify="right")
    parts: dict[str, dict[str, str]] = {}
    for name, at in probes.items():
        probe, part = name.rsplit(".", 1)
        parts.setdefault(probe, {})[part] = f"{at['fork']:.3g} ({at['fresh']:.3g})"
    for probe, values in parts.items():
        table.add_row(probe, *(values.get(part, "") for part in columns))
    return table


def interval(difference: Interval | None) -> str:
    """An interval as text that the console shows as it stands."""
    if difference is None:
        return ""
    return escape(f"{difference:+.0%}")


def show_probes(
    console: Console,
    rows: Sequence[Mapping[str, Any]],
    costly: Mapping[str, tuple[float, float]],
) -> None:
    """Prints how the probes went over the life of a run, and those measured at its end alone.

    `rows` as `regrow.training.train` keeps them; `costly`: for a probe (at the end, on a fresh
    network).
    """
    console.print(life_table(rows))
    late = {name: values for name, values in costly.items() if name not in _names(rows)}
    if late:
        table = Table(title="Costly probes, at the end (fresh network)", title_justify="left")
        table.add_column("probe")
        table.add_column("now (fresh)", justify="right")
        for name, (now, fresh) in late.items():
            table.add_row(name, f"{now:.3g} ({fresh:.3g})")
        console.print(table)


def life_table(rows: Sequence[Mapping[str, Any]], columns: int = 6) -> Table:
    """Per probe its value at times spread over the run; at the last one a fresh network's too."""
    times = sorted({row["env_steps"] for row in rows})
    spread = np.unique(np.linspace(0, len(times) - 1, min(columns, len(times))).round().astype(int))
    chosen = [times[i] for i in spread]
    values = {(row["probe"], row["env_steps"], row["fresh"]): row["value"] for row in rows}
    table = Table(title="Probes by env steps (fresh network)", title_justify="left")
    table.add_column("probe")
    for time in chosen:
        table.add_column(f"{time:,}", justify="right")
    for name in _names(rows):
        cells = [f"{values.get((name, time, False), math.nan):.3g}" for time in chosen]
        cells[-1] += f" ({values.get((name, chosen[-1], True), math.nan):.3g})"
        table.add_row(name, *cells)
    return table


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["probe"] for row in rows))

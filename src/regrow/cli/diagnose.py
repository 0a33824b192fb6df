"""`regrow diagnose`."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from regrow.cli.arguments import (
    NEXT_ROUND,
    add_common,
    add_log,
    chosen,
    count,
    default_folder,
    given_or_whole,
    share,
    shown,
)
from regrow.errors import require

if TYPE_CHECKING:
    from regrow.diagnosis.plan import Plan


def add_diagnose(parser: argparse.ArgumentParser) -> None:
    """`regrow diagnose`."""
    parser.description = (
        "Trains an agent, forks it into arms that differ in one intervention, continues them all,\n"
        "and says whether the agent was losing plasticity.\n\n"
        "Writes report.html, verdict.json, curves.png, config.json and rows/ into --out.\n"
        "The same command with the same --out continues where it stopped."
    )
    add_common(parser)
    add = parser.add_argument
    add("--fork-at", type=count, help=f"env steps (default: 60000{NEXT_ROUND})")
    add("--horizon", type=count, help=f"env steps after the fork (default: 40000{NEXT_ROUND})")
    add("--env-steps", type=count, help="instead of --horizon: env steps in all, fork included")
    add("--seeds", type=count, default=5, help="how many (default: %(default)s)")
    add(
        "--arms",
        nargs="+",
        metavar="ARM",
        default=None,
        help="interventions, e.g. nothing again inject 'inject(split=0)' reset, or rules, e.g. "
        "'inject every 10_000'; `again` is nothing with another random seed, the noise floor "
        "(default: nothing again inject reset)",
    )
    add(
        "--where",
        action="store_true",
        help="inject at every split, to see which layer lost its plasticity; in place of --arms",
    )
    add(
        "--before",
        action="append",
        default=[],
        metavar="INTERVENTION",
        help="carry this out ahead of the fork, e.g. fit_noise or 'fit_noise(redraw=False)'",
    )
    add(
        "--smallest-effect",
        type=share,
        default=0.05,
        help="the smallest effect that matters, as a share of the control arm (default: 0.05)",
    )
    add("--out", type=Path, help="folder to write into (default: runs/diagnose-<environment>)")
    add("--processes", type=count, help="worker processes (default: one per core)")
    add_log(parser, "every seed and arm")
    parser.set_defaults(command=_diagnose)


# Imports of a command are its own, so that `regrow --help` answers at once.


def _diagnose(options: argparse.Namespace) -> None:
    from rich.console import Console

    from regrow.analysis.summary import summarise_rows
    from regrow.diagnosis.diagnose import carry_out, probe_means
    from regrow.diagnosis.recording import as_outcome
    from regrow.execution.processes import Processes, cores
    from regrow.records.sinks import checked
    from regrow.report import terminal
    from regrow.report.figure import draw_diagnosis
    from regrow.report.progress import progress
    from regrow.report.sections import write_page

    began = time.perf_counter()
    plan, log = _plan(options), checked(options.log)  # where W&B asks for a key, before the bar
    folder: Path = options.out or default_folder("diagnose", options.environment)
    execute = Processes(cores() if options.processes is None else options.processes)
    with progress("env steps", plan.env_steps) as report:
        done = carry_out(plan, folder, execute=execute, report=report, log=log)
    seconds = time.perf_counter() - began
    verdict, agent = done.verdict, plan.source.config()["agent"]
    title = f"{options.environment}: {verdict.claim}"
    draw_diagnosis(folder / "curves.png", done.rows, title=title, subtitle=_what(plan))
    write_page(folder / "report.html", summarise_rows(folder, done.rows))
    console = Console()
    outcomes = [as_outcome(row) for row in done.rows]
    terminal.show(console, verdict, outcomes, probe_means(done.rows))
    told = f"{agent}: {plan.seeds} seeds, {seconds:.0f} s; written to {shown(folder)}"
    console.print(told, highlight=False, markup=False)


def _plan(options: argparse.Namespace) -> "Plan":
    from regrow.diagnosis.plan import DEFAULT_ARMS, Arm, Plan, arms_at_every_split
    from regrow.registry import make
    from regrow.sources.native import Native

    source = Native(*chosen(options))
    fork_at = given_or_whole(options.fork_at, 60_000, source.round)
    horizon = given_or_whole(options.horizon, 40_000, source.round)
    if options.env_steps is not None:
        require(options.horizon is None, "give --horizon or --env-steps, not both")
        horizon = options.env_steps - fork_at
        require(
            horizon > 0,
            f"the fork at {fork_at} env steps is not before the end at "
            f"{options.env_steps}; give a smaller --fork-at or a larger --env-steps",
        )
    require(not (options.where and options.arms), "give --arms or --where, not both")
    arms = options.arms or DEFAULT_ARMS
    if options.where:
        arms = arms_at_every_split(source.splits)
    return Plan(
        source,
        arms=tuple(Arm.parse(text) for text in arms),
        seeds=options.seeds,
        fork_at=fork_at,
        horizon=horizon,
        before=tuple(make("interventions", text) for text in options.before),
        smallest_effect=options.smallest_effect,
    )


def _what(plan: "Plan") -> str:
    """The setting of a diagnosis in a line."""
    from regrow.registry import describe

    before = "".join(f" after {describe(intervention)}" for intervention in plan.before)
    agent = plan.source.config()["agent"]
    return f"{agent}, forked at {plan.fork_at:,} env steps{before}, {plan.seeds} seeds"

"""`regrow demo`: verdicts on an agent that lost its plasticity and on one that did not."""

import argparse
import time
from typing import TYPE_CHECKING

from regrow.cli.arguments import count, folder, shown
from regrow.cli.diagnose import diagnosed

if TYPE_CHECKING:
    from regrow.diagnosis.plan import Plan

FORK_AT, HORIZON = 2_000, 20_000
AGENTS = {"damaged": ("fit_noise",), "undamaged": ()}
"""What is done to each ahead of the fork: fitting noise that is redrawn takes plasticity away."""


def add_demo(parser: argparse.ArgumentParser) -> None:
    """`regrow demo`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Diagnoses two agents (Double DQN on MinAtar Breakout): one whose network was damaged by\n"
        "fitting it to noise, and one that was left alone. Prints both verdicts and writes one\n"
        "picture of both, both.png, next to the folders of the two diagnoses."
    )
    parser.add_argument("--out", type=folder, default="runs/demo", help="(default: runs/demo)")
    parser.add_argument("--processes", type=count, help="worker processes (default: one per core)")
    parser.set_defaults(command=_demo)


def _demo(options: argparse.Namespace) -> None:
    from regrow.execution.processes import Processes, cores
    from regrow.report.figure import draw_side_by_side

    began, panels, claims = time.perf_counter(), {}, {}
    for name in AGENTS:
        print(f"The {name} agent:", flush=True)
        execute = Processes(cores() if options.processes is None else options.processes)
        done = diagnosed(_plan(name), options.out / name, execute)
        claims[name] = done.verdict.claim
        panels[f"{name}: {done.verdict.claim}"] = done.rows
    draw_side_by_side(options.out / "both.png", panels, title="Double DQN on MinAtar Breakout")
    said = "; ".join(f"the {name} agent: {claim}" for name, claim in claims.items())
    seconds = time.perf_counter() - began
    print(f"{said}. {seconds:.0f} s; written to {shown(options.out)}")


def _plan(name: str) -> "Plan":
    from regrow.agents import DoubleDQN
    from regrow.environments import Breakout
    from regrow.registry import make
    from regrow.sources.native import Diagnosis

    before = [make("interventions", text) for text in AGENTS[name]]
    return Diagnosis(DoubleDQN(), Breakout(), fork_at=FORK_AT, horizon=HORIZON, before=before)

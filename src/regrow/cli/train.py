"""The command `regrow train`."""

import argparse
from typing import TYPE_CHECKING

from regrow.cli.arguments import (
    NEXT_ROUND,
    add_agent,
    add_environment,
    add_log,
    chosen,
    count,
    default_folder,
    folder,
    given_or_whole,
    shown,
)

if TYPE_CHECKING:
    from regrow.files.places import Place


def add_train(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `regrow train`."""
    parser.description = (
        "Trains one agent. Writes config.json, run.ckpt, episodes.parquet, probes.parquet,\n"
        "curves.png and, with --do, checks.parquet into --out."
    )
    add_environment(parser)
    add_agent(parser)
    add = parser.add_argument
    add("--env-steps", type=count, help=f"in all (default: 1000000{NEXT_ROUND})")
    add("--seed", type=count, default=0, help="(default: %(default)s)")
    add(
        "--do",
        action="append",
        default=[],
        metavar="RULE",
        help="an intervention and when, e.g. 'inject at 500_000', 'reset every 200_000', "
        "'inject when dead_units above 0.3', 'inject when returns plateau for 5 checks'; the last "
        "three may end in 'at most 3 times', the last two after that in 'checked every 20_000'; "
        "give --do again for another",
    )
    add(
        "--probe-every",
        type=count,
        help=f"measure the probes so often, in env steps; 0 is never (default: 50000{NEXT_ROUND})",
    )
    add("--out", type=folder, help="folder to write into (default: runs/train-<environment>)")
    add("--resume", action="store_true", help="go on with the run in --out")
    add_log(parser, "the run")
    parser.set_defaults(command=_train)


STOPPED = "stopped; everything so far is saved: run the same command with --resume to continue"


def _train(options: argparse.Namespace) -> None:
    from regrow.execution.interrupts import interruptible, stopping
    from regrow.execution.memory import told_if_short
    from regrow.execution.processes import keep_compiled_programs, one_core
    from regrow.records.sinks import checked
    from regrow.registry import describe
    from regrow.report.figure import draw_training
    from regrow.report.progress import progress
    from regrow.training.schedule import RECENT, Rule
    from regrow.training.train import train

    one_core()
    keep_compiled_programs()
    agent, environment = chosen(options)
    folder: Place = options.out or default_folder("train", options.environment)
    rules = [Rule.parse(text) for text in options.do]
    env_steps = given_or_whole(options.env_steps, 1_000_000, agent.env_steps_per_round)
    log = checked(options.log)  # W&B may ask for a key: before the progress bar starts
    with (
        interruptible() as asked,
        told_if_short("the run"),
        progress("env steps", env_steps) as report,
    ):
        run, diary = train(
            agent,
            environment,
            folder,
            env_steps=env_steps,
            seed=options.seed,
            rules=rules,
            probe_every=given_or_whole(options.probe_every, 50_000, agent.env_steps_per_round),
            resume=options.resume,
            report=stopping(report, asked, STOPPED),
            log=log,
        )
    draw_training(
        folder / "curves.png",
        diary.episodes,
        run.history,
        title=f"{options.environment}, seed {options.seed}",
        subtitle=describe(agent),
    )
    for event in run.history:
        print(f"at {event.env_steps:,} env steps: {event.intervention}")
    recent = diary.episodes.returns[-RECENT:]
    mean = f"{recent.mean():.2f}" if recent.size else "none finished"
    done = f"return of the last {recent.size} episodes: {mean}; written to {shown(folder)}"
    print(f"{describe(agent)}: {done}")

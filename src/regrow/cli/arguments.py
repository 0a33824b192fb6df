"""Arguments shared by commands: numbers, agents, environments and folders."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from regrow.errors import RegrowError
from regrow.registry import whole

if TYPE_CHECKING:
    from regrow.agents.base import Agent
    from regrow.environments.base import Environment
    from regrow.execution.tasks import Execute
    from regrow.files.places import Place


def count(text: str) -> int:
    """Parses a whole number (`regrow.registry`), for argparse."""
    try:
        return whole(text)
    except RegrowError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def folder(text: str) -> "Place":
    """Parses a folder or a URL, for argparse."""
    from regrow.files.places import place

    try:
        return place(text)
    except RegrowError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def shown(path: "Place") -> str:
    """A path as printable text, even if it is not valid UTF-8."""
    return os.fsencode(str(path)).decode(errors="replace")


def add_execution(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments for where the work runs."""
    add = parser.add_argument
    add("--processes", type=count, help="worker processes (default: one per core)")
    add(
        "--on",
        default="local",
        metavar="PLACE",
        help="local | ray | ray://HOST:PORT | slurm: where the work runs (default: this machine); "
        "--out is then a folder that all machines share, or a URL as s3://bucket/run",
    )
    add("--gpus", type=share, default=0.0, help="of each job on a cluster; on Ray also 0.25, say")
    add(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of --on slurm: e.g. partition=gpu, timeout_min=240, account=me; again for another",
    )


def execution(options: argparse.Namespace, out: "Place") -> "tuple[Execute, Place]":
    """(what carries out the work, the folder as other machines know it)."""
    from regrow.execution.choice import executor

    execute = executor(
        options.on,
        out,
        processes=options.processes,
        options=options.slurm,
        gpus=options.gpus,
    )
    return execute, out if options.on == "local" else out.absolute()


NEXT_ROUND = ", or to the next whole round of the agent"


def share(text: str) -> float:
    """Parses a number, for argparse."""
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from error


def add_environment(parser: argparse.ArgumentParser) -> None:
    """Adds the argument for an environment."""
    parser.add_argument("environment", help="e.g. minatar/breakout (`regrow list environments`)")


def add_agent(parser: argparse.ArgumentParser) -> None:
    """Adds the argument for an agent."""
    parser.allow_abbrev = False
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--agent",
        help="with fields if you like: 'double_dqn(learning_rate=3e-4)' (default: by "
        "environment: double_dqn for numbered actions on images, at 2.5e-4 on minatar/asterix and "
        "seaquest, ppo on vectors, sac for vectors as actions, drq:laptop for those from pixels, "
        "double_dqn:atari_laptop on images of bytes)",
    )


def add_log(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the argument for live logging."""
    parser.add_argument(
        "--log",
        action="append",
        default=[],
        metavar="SINK",
        help=f"tensorboard | wandb | csv: {what} while it trains, into log/ of --out (returns, "
        "values, losses, probes, events); give --log again for another",
    )


def chosen(options: argparse.Namespace) -> "tuple[Agent, Environment]":
    """(agent, environment) from the options; the environment's default agent if none is given."""
    from regrow.registry import make
    from regrow.training.default_agent import default_agent

    if options.agent is not None:
        return make("agents", options.agent), make("environments", options.environment)
    environment = make("environments", options.environment)
    return default_agent(environment), environment


def given_or_whole(given: int | None, default: int, per_round: int) -> int:
    """The given number of env steps, or the default rounded up to whole rounds of the agent."""
    return -(-default // per_round) * per_round if given is None else given


def default_folder(verb: str, environment: str) -> "Place":
    """The default output folder of a command."""
    word = "".join(c if c.isalnum() or c == "_" else "-" for c in environment)
    return Path("runs") / f"{verb}-{word}"

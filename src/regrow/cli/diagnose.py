"""`regrow diagnose`."""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from regrow.cli.arguments import (
    NEXT_ROUND,
    add_agent,
    add_execution,
    add_log,
    chosen,
    count,
    default_folder,
    execution,
    folder,
    given_or_whole,
    share,
    shown,
)
from regrow.errors import RegrowError, require

if TYPE_CHECKING:
    from regrow.diagnosis.diagnose import Diagnosed
    from regrow.diagnosis.plan import Plan
    from regrow.diagnosis.subject import Source
    from regrow.diagnosis.verdict import Verdict
    from regrow.execution.tasks import Execute
    from regrow.files.places import Place


def add_diagnose(parser: argparse.ArgumentParser) -> None:
    """`regrow diagnose`."""
    parser.description = (
        "Forks agents into arms that differ in one intervention, continues them all, and says\n"
        "whether they were losing plasticity. Seeds are added until the verdict is settled.\n\n"
        "Give an environment, in which agents are trained from the start; the folders of\n"
        "`regrow train`; zip files of Stable-Baselines3; or a function of a script of yours that\n"
        "makes a Subject, as in my_script.py:make_subject. One folder or file is one agent: the\n"
        "claim is then about this agent.\n\n"
        "Writes report.html, verdict.json, curves.png, looks.png, config.json and rows/ into\n"
        "--out. The same command with the same --out continues where it stopped."
    )
    parser.add_argument(
        "what",
        nargs="+",
        metavar="ENVIRONMENT",
        help="e.g. minatar/breakout (`regrow list environments`), folders of `regrow train`, "
        "model.zip, or my_script.py:make_subject",
    )
    _add_zip(parser)
    add_agent(parser)
    _add_comparison(parser)
    _add_sample(parser)
    parser.add_argument(
        "--out", type=folder, help="folder to write into (default: runs/diagnose-<environment>)"
    )
    add_execution(parser)
    add_log(parser, "every seed and arm")
    parser.set_defaults(command=_diagnose)


def _add_zip(parser: argparse.ArgumentParser) -> None:
    """What a zip of Stable-Baselines3 does not say."""
    add = parser.add_argument
    add(
        "--env",
        metavar="ID",
        help="of a zip: the id of Gymnasium, as in LunarLander-v3, or my_file.py:make_env",
    )
    add(
        "--trust",
        action="store_true",
        help="of a zip or a folder: run the code that it may hold or name (a features extractor or "
        "an environment of one's own, say)",
    )
    add(
        "--total",
        type=count,
        help="of a zip: env steps that its schedules count towards (default: as it was trained)",
    )


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    """Where agents are forked, into what, and for how long."""
    add = parser.add_argument
    add("--fork-at", type=count, help=f"env steps (default: 60000{NEXT_ROUND})")
    add("--horizon", type=count, help=f"env steps after the fork (default: 40000{NEXT_ROUND})")
    add("--env-steps", type=count, help="instead of --horizon: env steps in all, fork included")
    add(
        "--arms",
        nargs="+",
        metavar="ARM",
        default=None,
        help="interventions, e.g. nothing inject 'inject(split=0)' reset, or rules, e.g. "
        "'inject every 10_000' (default: nothing inject reset)",
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


def _add_sample(parser: argparse.ArgumentParser) -> None:
    """How many runs, and which effect matters."""
    add = parser.add_argument
    add(
        "--seeds",
        type=count,
        help="the most; they are added in looks until the verdict is settled (default: 20)",
    )
    add(
        "--replicates",
        type=count,
        help="runs of each arm from one fork, with other random numbers (default: 2; of one "
        "trained agent the most, 20)",
    )
    add("--minutes", type=share, help="begin no look that would end later than this")
    add("--fixed", action="store_true", help="one look, at all of --seeds; no more can be added")
    add(
        "--smallest-effect",
        type=share,
        help="the smallest effect that matters, as a share of what learning is worth: what the "
        "best arm earns above the random policy (default: 0.1)",
    )
    add(
        "--range",
        type=share,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="returns between which agents move, e.g. --range -200 300; the unit of effects, in "
        "place of what learning is worth",
    )


# Imports of a command are its own, so that `regrow --help` answers at once.


def _diagnose(options: argparse.Namespace) -> None:
    from regrow.records.sinks import checked

    plan, log = _plan(options), checked(options.log)  # where W&B asks for a key, before the bar
    folder: Place = options.out or default_folder("diagnose", options.what[0])
    minutes = math.inf if options.minutes is None else options.minutes
    execute, place = execution(options, folder)
    diagnosed(plan, place, execute, minutes=minutes, log=log)


def diagnosed(
    plan: "Plan",
    folder: "Place",
    execute: "Execute",
    *,
    minutes: float = math.inf,
    log: Sequence[str] = (),
) -> "Diagnosed":
    """Carries a diagnosis out with a bar, writes its pictures and its page, prints the verdict."""
    from rich.console import Console

    from regrow.analysis.summary import summarise_rows
    from regrow.diagnosis.diagnose import carry_out, probe_means
    from regrow.diagnosis.verdict import Verdict
    from regrow.report import terminal
    from regrow.report.figure import draw_diagnosis
    from regrow.report.looks import draw_looks, units
    from regrow.report.progress import progress
    from regrow.report.sections import write_page

    began, console = time.perf_counter(), Console()
    with progress("env steps", plan.env_steps(plan.looks[0])) as report:

        def looked(verdict: Verdict, to_come: int) -> None:
            report.more(to_come)
            effect = terminal.interval(verdict.effect)
            console.print(f"{verdict.n} {units(verdict)}: {effect}, not settled", highlight=False)

        done = carry_out(
            plan, folder, execute=execute, report=report, log=log, minutes=minutes, looked=looked
        )
    seconds = time.perf_counter() - began
    verdict, agent = done.verdict, plan.source.config()["agent"]
    title = f"{plan.source.config()['environment']}: {verdict.claim}"
    draw_diagnosis(folder / "curves.png", done.rows, title=title, subtitle=_what(plan, verdict))
    draw_looks(folder / "looks.png", verdict, title=title)
    write_page(folder / "report.html", summarise_rows(folder, done.rows))
    terminal.show(console, verdict, done.rows, probe_means(done.rows))
    told = f"{agent}: {verdict.n} {units(verdict)}, {seconds:.0f} s; written to {shown(folder)}"
    console.print(told, highlight=False, markup=False)
    return done


def _plan(options: argparse.Namespace) -> "Plan":
    from regrow.diagnosis.plan import (
        DEFAULT_ARMS,
        FORK_AT,
        HORIZON,
        REPLICATES,
        SEEDS,
        SMALLEST_EFFECT,
        Arm,
        Plan,
        arms_at_every_split,
    )
    from regrow.registry import make

    source = _source(options)
    default = source.starts_at or FORK_AT
    fork_at = given_or_whole(options.fork_at, default, source.round)
    horizon = given_or_whole(options.horizon, HORIZON, source.round)
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
    seeds, replicates = options.seeds, options.replicates
    if seeds is None:
        seeds = SEEDS if source.agents is None else source.agents
    if replicates is None:
        replicates = SEEDS if seeds == 1 else REPLICATES
    return Plan(
        source,
        arms=tuple(Arm.parse(text) for text in arms),
        seeds=seeds,
        fork_at=fork_at,
        horizon=horizon,
        before=tuple(make("interventions", text) for text in options.before),
        smallest_effect=SMALLEST_EFFECT
        if options.smallest_effect is None
        else options.smallest_effect,
        replicates=replicates,
        fixed=options.fixed,
        returns_range=None if options.range is None else (options.range[0], options.range[1]),
    )


def _source(options: argparse.Namespace) -> "Source":
    """An agent to be trained in an environment, or runs that were trained."""
    from regrow.files.folders import kind_of
    from regrow.files.places import place
    from regrow.sources.native import Native
    from regrow.sources.trained import Trained

    folders = [place(text) for text in options.what]
    if any(text.endswith(".zip") for text in options.what):
        return _models(options)
    if any(_is_function(text) for text in options.what):
        return _script(options)
    for given in ("env", "total"):
        require(not getattr(options, given), f"--{given} is of zip files of Stable-Baselines3")
    if any(kind_of(folder) == "training" for folder in folders):
        require(options.agent is None, "--agent is given, but the folders hold trained agents")
        return Trained.of(folders, trust=options.trust)
    require(not options.trust, "--trust is of folders and of zip files")
    first, *others = options.what
    require(not others, f"'{first}' and '{' '.join(others)}': give one environment, or folders")
    options.environment = first
    try:
        return Native(*chosen(options))
    except RegrowError:
        require(
            not folders[0].is_dir(),
            f"there is no run in {first}; give the --out of a `regrow train`, or an environment",
        )
        raise


def _is_function(text: str) -> bool:
    """Whether a text names a function of a file."""
    file, _, name = text.rpartition(":")
    return file.endswith(".py") and name.isidentifier()


def _script(options: argparse.Namespace) -> "Source":
    """The Subjects that a function of a script makes."""
    from regrow.sources.script import Script

    require(len(options.what) == 1, "give one function of a script")
    require(options.agent is None, "--agent is given, but the script makes the agent")
    return Script.of(options.what[0])


def _models(options: argparse.Namespace) -> "Source":
    """Zip files of Stable-Baselines3."""
    from regrow.sources.sb3 import Sb3

    paths = [Path(text) for text in options.what]
    for path in paths:
        require(path.suffix == ".zip", f"'{path}' and zip files: give one kind of agent")
    require(options.agent is None, "--agent is given, but the zip files hold trained agents")
    require(options.env is not None, f"{paths[0]} holds no environment; name it: --env CartPole-v1")
    return Sb3.of(paths, options.env, trust=options.trust, total=options.total)


def _what(plan: "Plan", verdict: "Verdict") -> str:
    """The setting of a diagnosis in a line."""
    from regrow.registry import describe
    from regrow.report.looks import units

    before = "".join(f" after {describe(intervention)}" for intervention in plan.before)
    agent = plan.source.config()["agent"]
    sample = f"{verdict.n} {units(verdict)}"
    return f"{agent}, forked at {plan.fork_at:,} env steps{before}, {sample}"

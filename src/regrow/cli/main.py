"""The command line: `regrow diagnose`, `train`, what looks at runs, and those of `cli_studies.py`.

Whatever is wrong with what the user asked for ends in one line that says what would be right, and
exit code 2. Nothing is lost: what was done is in the output folder, and the same command
(`regrow train` with `--resume`) goes on from there.
"""

import _thread
import argparse
import contextlib
import gc
import io
import os
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from regrow.cli import studies as cli_studies
from regrow.cli.studies import count, shown
from regrow.errors import RegrowError, RegrowWarning, require, show_warning, unknown

if TYPE_CHECKING:
    from regrow.agents.base import Agent
    from regrow.diagnosis.plan import Diagnosis
    from regrow.environments.base import World

FAMILIES = ("environments", "agents", "interventions", "gradients", "probes", "studies")
COMMANDS = (
    *("diagnose", "train", "check", "probe", "evaluate", "curves"),
    *("study", "watch", "report", "export", "list"),
)
# An OSError names the file and what is wrong with it: one that may not be read, a full disk. A
# FloatingPointError is what JAX_DEBUG_NANS asks for.
PROBLEMS = (RegrowError, OSError, FloatingPointError)
AT_ONCE = "stopped at once; what was saved before is kept, run the same command again"
NEXT_ROUND = ", or to the next whole round of the agent"


def main() -> NoReturn:
    """The console script: ends the process with 0, or with 2 and one line on what was wrong."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without θ shows ?
    sys.unraisablehook = _press_again
    with contextlib.suppress(OSError):  # the folder may be gone
        if not {"", os.getcwd()} & set(sys.path):
            sys.path.append(os.getcwd())  # modules of one's own are there, as of `python -m`
    code = 2
    try:
        _carry_out_and_show(sys.argv[1:])
    except (*PROBLEMS, KeyboardInterrupt) as error:
        # One Ctrl-C more must not garble the last line. And it is the error that still holds what
        # was at work: what processes shared is given back below, undisturbed.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        problem = AT_ONCE if isinstance(error, KeyboardInterrupt) else _in_one_line(error)
        if isinstance(error, BrokenPipeError) and _unread():
            problem, code = "", 1  # as of `regrow list agents | head -1`: there is nobody to tell
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit(0)
    gc.collect()
    with contextlib.suppress(OSError):  # what was said before may be unread, too
        if problem:
            print(f"regrow: {problem}", file=sys.stderr, flush=True)
        _flush()
    # Not by way of Python's own end: it would wait for a pool of processes that was dropped, and
    # print a traceback where a pipe to it is closed.
    os._exit(code)


def _carry_out_and_show(arguments: Sequence[str]) -> None:
    """Carries out a command line; where what it printed cannot be written, that is an error here.

    Python's own end would print a traceback of it.
    """
    try:
        _carry_out(arguments)
    except SystemExit:  # --help ends so
        _flush()
        raise
    _flush()


def _flush() -> None:
    if sys.stdout is not None:  # a shell may have closed it
        sys.stdout.flush()


def _unread() -> bool:
    """Whether standard output goes into a pipe that nobody reads: it is not the only pipe."""
    try:
        print(flush=True)
    except BrokenPipeError:
        return True
    return False


def run(arguments: Sequence[str]) -> str | None:
    """Carries out a command line; what was wrong with it in one line, or None."""
    try:
        _carry_out(arguments)
    except PROBLEMS as error:
        return _in_one_line(error)
    return None


def _carry_out(arguments: Sequence[str]) -> None:
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise unknown("command", arguments[0], COMMANDS)
    options = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("always", RegrowWarning)
        warnings.showwarning = show_warning
        options.command(options)


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _press() -> None:
    time.sleep(0.05)
    if sys.platform == "win32":
        _thread.interrupt_main()  # `os.kill` would end the process
    else:
        os.kill(os.getpid(), signal.SIGINT)


def _press_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """A Ctrl-C that came where Python can raise nothing, as in a finalizer, comes once more."""
    if unraisable.exc_type is KeyboardInterrupt:
        _thread.start_new_thread(_press, ())  # a Thread's start would wait, open to the next press
    else:
        sys.__unraisablehook__(unraisable)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise RegrowError(f"{message} (see `{self.prog} --help`)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="regrow",
        description="Has your agent's network stopped being able to learn? Fork it and see.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_diagnose(commands.add_parser("diagnose", help="train, fork into arms, give a verdict"))
    _add_train(commands.add_parser("train", help="train one agent, with checkpoints"))
    _add_check(commands.add_parser("check", help="whether an environment does what it says"))
    _add_probe(commands.add_parser("probe", help="the probes over the life of a trained run"))
    _add_evaluate(commands.add_parser("evaluate", help="episodes without exploring, of a run"))
    _add_curves(commands.add_parser("curves", help="learning curves of trained runs, a picture"))
    cli_studies.add_study(commands.add_parser("study", help="carry out a study, or all of them"))
    cli_studies.add_watch(commands.add_parser("watch", help="how far the studies in a folder are"))
    cli_studies.add_report(commands.add_parser("report", help="a page, and figures, of studies"))
    cli_studies.add_export(commands.add_parser("export", help="runs for TensorBoard, W&B, Parquet"))
    _add_list(commands.add_parser("list", help="name what there is, a line each"))
    return parser


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from error


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.allow_abbrev = False
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("environment", help="e.g. minatar/breakout (`regrow list environments`)")
    parser.add_argument(
        "--agent",
        help="with fields if you like: 'double_dqn(learning_rate=3e-4)' (default: by "
        "environment: double_dqn for numbered actions on images, at 2.5e-4 on minatar/asterix and "
        "seaquest, ppo on vectors, sac for vectors as actions, drq:laptop for those from pixels, "
        "double_dqn:atari_laptop on images of bytes)",
    )


def _add_log(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--log",
        action="append",
        default=[],
        metavar="SINK",
        help=f"tensorboard | wandb | csv: {what} while it trains, into log/ of --out (returns, "
        "values, losses, probes, events); give --log again for another",
    )


def _add_diagnose(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Trains an agent, forks it into arms that differ in one intervention, trains them on,\n"
        "and says whether the agent was losing plasticity.\n\n"
        "Writes verdict.json, curves.parquet, probes.parquet, config.json, curves.png into --out.\n"
        "The same command with the same --out goes on where it stopped."
    )
    _add_common(parser)
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
        "'inject every 10_000'; `again` is nothing with other draws, the noise floor "
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
        type=_share,
        default=0.05,
        help="the smallest effect that matters, as a share of the control arm (default: 0.05)",
    )
    add("--out", type=Path, help="folder to write into (default: runs/diagnose-<environment>)")
    add("--processes", type=count, help="worker processes (default: one per core)")
    _add_log(parser, "every seed and arm")
    parser.set_defaults(command=_diagnose)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Trains one agent. Writes config.json, run.ckpt, episodes.parquet, probes.parquet,\n"
        "curves.png and, with --do, checks.parquet into --out."
    )
    _add_common(parser)
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
    add("--out", type=Path, help="folder to write into (default: runs/train-<environment>)")
    add("--resume", action="store_true", help="go on with the run in --out")
    _add_log(parser, "the run")
    parser.set_defaults(command=_train)


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Looks at what an environment declares and at what it does, and says what is wrong with\n"
        "it (exit code 2) or seldom meant (a warning)."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("environment", help="e.g. gymnasium/module:Mine-v0 or jax/module:attribute")
    parser.add_argument(
        "--env-steps", type=count, default=200, help="how many to take (default: %(default)s)"
    )
    parser.set_defaults(command=_check)


def _add_probe(parser: argparse.ArgumentParser) -> None:
    parser.description = "Prints the probes over the life of a run that `regrow train` made."
    parser.add_argument("folder", type=Path, help="the --out of `regrow train`")
    parser.add_argument(
        "--costly",
        action="store_true",
        help="measure those that take long, too, at the end of the run",
    )
    parser.set_defaults(command=_probe)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Plays episodes with a run that `regrow train` made, which neither explores nor learns.\n"
        "Writes evaluations.parquet into its folder."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="the --out of `regrow train`")
    parser.add_argument(
        "--episodes", type=count, default=20, help="how many (default: %(default)s)"
    )
    parser.add_argument("--seed", type=count, default=0, help="(default: %(default)s)")
    parser.set_defaults(command=_evaluate)


def _add_curves(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Draws the returns of runs that `regrow train` made: a panel for every environment, a\n"
        "colour for every agent, a thin line for every seed and a thick one for their mean."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folders", type=Path, nargs="+", help="the --out of `regrow train`, each")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("curves.png"),
        help="a PNG, SVG or PDF (default: %(default)s)",
    )
    parser.set_defaults(command=_curves)


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", metavar="FAMILY", help=" | ".join(FAMILIES))
    parser.set_defaults(command=_list)


# Commands. Their imports are their own, so that `regrow --help` answers at once.


def _diagnose(options: argparse.Namespace) -> None:
    from rich.console import Console

    from regrow.diagnosis import recording as results
    from regrow.diagnosis.diagnose import diagnose
    from regrow.diagnosis.jobs import outcomes_of
    from regrow.execution.processes import Processes, cores
    from regrow.records.sinks import checked
    from regrow.registry import describe
    from regrow.report import terminal
    from regrow.report.figure import draw_curves
    from regrow.report.progress import progress

    began = time.perf_counter()
    plan, log = _plan(options), checked(options.log)  # where W&B asks for a key, before the bar
    folder: Path = options.out or _default_folder("diagnose", options.environment)
    processes = cores() if options.processes is None else options.processes
    execute = Processes(processes)
    with progress("env steps", plan.env_steps) as report:
        verdict = diagnose(plan, folder, execute=execute, report=report, log=log)
    seconds = time.perf_counter() - began
    results.write_diagnosis(plan, verdict, folder)
    draw_curves(
        folder / "curves.png",
        results.curves(plan, folder),
        fork_at=plan.fork_at,
        title=f"{options.environment}: {verdict.claim}",
        subtitle=_what(plan),
        random_return=verdict.random_return,
        events=results.events(plan, folder),
    )
    console = Console()
    terminal.show(console, verdict, outcomes_of(plan, folder), results.probe_means(plan, folder))
    done = f"{plan.seeds} seeds, {seconds:.0f} s; written to {shown(folder)}"
    console.print(f"{describe(plan.agent)}: {done}", highlight=False, markup=False)


def _plan(options: argparse.Namespace) -> "Diagnosis":
    from regrow.diagnosis.plan import DEFAULT_ARMS, Arm, Diagnosis, arms_at_every_split
    from regrow.registry import make

    agent, environment = _subject(options)
    fork_at = _given_or_whole(options.fork_at, 60_000, agent)
    horizon = _given_or_whole(options.horizon, 40_000, agent)
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
        arms = arms_at_every_split(agent, environment)
    return Diagnosis(
        agent=agent,
        environment=environment,
        arms=tuple(Arm.parse(text) for text in arms),
        seeds=options.seeds,
        fork_at=fork_at,
        horizon=horizon,
        before=tuple(make("interventions", text) for text in options.before),
        smallest_effect=options.smallest_effect,
    )


def _subject(options: argparse.Namespace) -> "tuple[Agent, World]":
    """The agent, where none was named the environment's own, and the environment."""
    from regrow.registry import make
    from regrow.training.default_agent import default_agent

    if options.agent is not None:
        return make("agents", options.agent), make("environments", options.environment)
    environment = make("environments", options.environment)
    return default_agent(environment), environment


def _given_or_whole(given: int | None, default: int, agent: "Agent") -> int:
    """A number of env steps as it was asked for; by default one of whole rounds of the agent."""
    per_round = agent.env_steps_per_round
    return -(-default // per_round) * per_round if given is None else given


def _what(plan: "Diagnosis") -> str:
    """The setting of a diagnosis in a line."""
    from regrow.registry import describe

    before = "".join(f" after {describe(intervention)}" for intervention in plan.before)
    return (
        f"{describe(plan.agent)}, forked at {plan.fork_at:,} env steps{before}, {plan.seeds} seeds"
    )


def _train(options: argparse.Namespace) -> None:
    from regrow.execution.interrupts import interruptible, stopping
    from regrow.execution.processes import keep_compiled_programs, one_core
    from regrow.records.sinks import checked
    from regrow.registry import describe
    from regrow.report.figure import draw_training
    from regrow.report.progress import progress
    from regrow.training.schedule import RECENT, Rule
    from regrow.training.train import train

    one_core()
    keep_compiled_programs()
    agent, environment = _subject(options)
    folder: Path = options.out or _default_folder("train", options.environment)
    rules = [Rule.parse(text) for text in options.do]
    env_steps = _given_or_whole(options.env_steps, 1_000_000, agent)
    log = checked(options.log)  # where W&B asks for a key, before the bar
    with interruptible() as asked, progress("env steps", env_steps) as report:
        run, diary = train(
            agent,
            environment,
            folder,
            env_steps=env_steps,
            seed=options.seed,
            rules=rules,
            probe_every=_given_or_whole(options.probe_every, 50_000, agent),
            resume=options.resume,
            report=stopping(report, asked),
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


def _check(options: argparse.Namespace) -> None:
    from regrow.execution.processes import keep_compiled_programs, one_core
    from regrow.training.environment_checks import check_environment

    one_core()
    keep_compiled_programs()
    print(check_environment(options.environment, env_steps=options.env_steps))


def _evaluate(options: argparse.Namespace) -> None:
    from regrow.execution.processes import keep_compiled_programs, one_core
    from regrow.report.progress import progress
    from regrow.stats.intervals import mean_band
    from regrow.training.checkpoint import load
    from regrow.training.evaluate import evaluate
    from regrow.training.evaluations import read_evaluations, write_evaluation

    checkpoint = _checkpoint(options.folder)
    one_core()
    keep_compiled_programs()
    run = load(checkpoint)
    read_evaluations(options.folder)  # a damaged file is found out before the work
    with progress("episodes", options.episodes) as report:
        played = evaluate(run, options.episodes, seed=options.seed, report=report)
    path = write_evaluation(options.folder, run, options.seed, played)
    returns = [episode.env_return for episode in played]
    mean, low, high = (float(each[0]) for each in mean_band([[value] for value in returns]))
    alike = "one episode" if len(returns) == 1 else "all alike"
    interval = f" [{low:.2f}, {high:.2f}]" if low < high else f" ({alike}: no interval)"
    print(f"after {run.env_steps:,} env steps of training, {len(returns)} episodes:")
    print(
        f"mean return {mean:.2f}{interval}, from {min(returns):.2f} to "
        f"{max(returns):.2f}; written to {shown(path)}"
    )


def _curves(options: argparse.Namespace) -> None:
    from regrow.report.figure import draw_learning
    from regrow.training.train import read_training

    draw_learning(options.out, [read_training(folder) for folder in options.folders])
    runs = f"{count} runs" if (count := len(options.folders)) > 1 else "1 run"
    print(f"{runs}; written to {shown(options.out)}")


def _checkpoint(folder: Path) -> Path:
    """Where the run in a folder of `regrow train` is saved; `RegrowError` where there is none."""
    path = folder / "run.ckpt"
    require(path.is_file(), f"there is no run in {folder}; give the --out of a `regrow train`")
    return path


def _probe(options: argparse.Namespace) -> None:
    from rich.console import Console

    from regrow.execution.processes import keep_compiled_programs, one_core
    from regrow.report import terminal
    from regrow.training.checkpoint import load
    from regrow.training.probing import measured
    from regrow.training.train import read_probes

    checkpoint = _checkpoint(options.folder)
    one_core()
    keep_compiled_programs()
    probed = (options.folder / "probes.parquet").is_file()
    require(
        probed or options.costly,
        f"the run in {options.folder} was trained without probes (--probe-every 0); --costly "
        "measures some now",
    )
    rows = read_probes(options.folder) if probed else []
    costly = {}
    if options.costly:
        run = load(checkpoint)
        costly = {
            name: (value, fresh)
            for (name, value), fresh in zip(
                measured(run, costly=True).items(),
                measured(run, costly=True, fresh=True).values(),
                strict=True,
            )
        }
    terminal.show_probes(Console(), rows, costly)


def _default_folder(verb: str, environment: str) -> Path:
    word = "".join(c if c.isalnum() or c == "_" else "-" for c in environment)
    return Path("runs") / f"{verb}-{word}"


def _list(options: argparse.Namespace) -> None:
    from regrow.registry import members, summary

    if options.family not in FAMILIES:
        raise unknown("family", options.family, FAMILIES)
    if options.family == "studies":
        cli_studies.list_studies()
        return
    found = {
        # A class that stands for many is shown as what its names look like: control/<task>.
        f"{name}/<{member.named_by}>" if hasattr(member, "named_by") else name: member
        for name, member in members(options.family).items()
    }
    width = max(len(name) for name in found)
    for name, member in found.items():
        print(f"{name:<{width}}  {summary(member)}")


if __name__ == "__main__":
    main()

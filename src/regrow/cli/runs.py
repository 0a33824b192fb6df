"""The commands on trained runs, and `regrow check`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from regrow.cli.arguments import count, folder, shown
from regrow.errors import require

if TYPE_CHECKING:
    from regrow.files.places import Place


def add_check(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `regrow check`."""
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


def add_probe(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `regrow probe`."""
    parser.description = "Prints the probes over the life of a run that `regrow train` made."
    parser.add_argument("folder", type=folder, help="the --out of `regrow train`")
    parser.add_argument(
        "--costly",
        action="store_true",
        help="measure those that take long, too, at the end of the run",
    )
    _add_trust(parser)
    parser.set_defaults(command=_probe)


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `regrow evaluate`."""
    parser.description = (
        "Plays episodes with a run that `regrow train` made, which neither explores nor learns.\n"
        "Writes evaluations.parquet into its folder."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=folder, help="the --out of `regrow train`")
    parser.add_argument(
        "--episodes", type=count, default=20, help="how many (default: %(default)s)"
    )
    parser.add_argument("--seed", type=count, default=0, help="(default: %(default)s)")
    _add_trust(parser)
    parser.set_defaults(command=_evaluate)


def _add_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust",
        action="store_true",
        help="import modules that the folder names (an environment of one's own), which runs them",
    )


def add_curves(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `regrow curves`."""
    parser.description = (
        "Draws the returns of runs that `regrow train` made: a panel for every environment, a\n"
        "colour for every agent, a thin line for every seed and a thick one for their mean."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folders", type=folder, nargs="+", help="the --out of `regrow train`, each")
    parser.add_argument(
        "--out",
        type=folder,
        default=Path("curves.png"),
        help="a PNG, SVG or PDF (default: %(default)s)",
    )
    parser.set_defaults(command=_curves)


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
    from regrow.training.evaluate import evaluate
    from regrow.training.evaluations import read_evaluations, write_evaluation
    from regrow.training.saved import load_run

    _require_run(options.folder)
    one_core()
    keep_compiled_programs()
    run = load_run(options.folder, trust=options.trust)
    read_evaluations(options.folder)  # fails on a damaged file before the work
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
    from regrow.training.saved import read_training

    draw_learning(options.out, [read_training(folder) for folder in options.folders])
    runs = f"{count} runs" if (count := len(options.folders)) > 1 else "1 run"
    print(f"{runs}; written to {shown(options.out)}")


def _require_run(folder: "Place") -> None:
    """`RegrowError` if a folder has no run of `regrow train`."""
    there = (folder / "run.ckpt").is_file()
    require(there, f"there is no run in {folder}; give the --out of a `regrow train`")


def _probe(options: argparse.Namespace) -> None:
    from rich.console import Console

    from regrow.execution.processes import keep_compiled_programs, one_core
    from regrow.report import terminal
    from regrow.training.saved import load_run, read_probes

    _require_run(options.folder)
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
        run = load_run(options.folder, trust=options.trust)
        costly = {
            name: (value, fresh)
            for (name, value), fresh in zip(
                run.measure(costly=True).items(),
                run.measure(costly=True, fresh=True).values(),
                strict=True,
            )
        }
    terminal.show_probes(Console(), rows, costly)

"""The commands for studies: `regrow study`, `watch`, `report`, `export`, `list studies`."""

import argparse
import os
import sys
import time
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from regrow.cli.arguments import add_execution, count, execution, folder, shown
from regrow.errors import require, unknown

if TYPE_CHECKING:
    from regrow.files.places import Place
    from regrow.records.rows import Row
    from regrow.studies.base import Scale, Study

LOOK_EVERY = 2.0  # seconds
SINKS = ("tensorboard", "wandb", "parquet")


def _prepare(parser: argparse.ArgumentParser, description: str) -> None:
    parser.description = description
    parser.allow_abbrev = False
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def add_study(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `regrow study`."""
    _prepare(
        parser,
        "Carries out a study (`regrow list studies`), or all of them, and prints the verdicts.\n\n"
        "Writes plans, work and rows into --out. What several conditions or studies share is done\n"
        "once; the same command with the same --out does only what is missing or changed.",
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="as `regrow list studies` has it, or all")
    add("--scale", default="laptop", help="smoke | laptop | paper (default: %(default)s)")
    add("--out", type=folder, default=Path("runs/studies"), help="folder (default: %(default)s)")
    add_execution(parser)
    add(
        "--curves",
        type=folder,
        metavar="FILE",
        help="of `resets`: do not train, print the table of published curves (CSV, also gzipped)",
    )
    add("--at", type=count, metavar="ENV_STEPS", help="with --curves: the time of the table")
    add(
        "--without",
        action="append",
        default=[],
        metavar="RUN",
        help="with --curves: leave a run out, as in 32/1/acrobot-swingup/5 (replay ratio, resets, "
        "task, seed)",
    )
    parser.set_defaults(command=_study)


def add_watch(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `regrow watch`."""
    _prepare(parser, "Shows how far the studies in a folder are, while another process works.")
    parser.add_argument("folder", type=folder, help="the --out of `regrow study`")
    parser.add_argument("--once", action="store_true", help="print it once")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="import modules that the plans name (an environment of one's own), which runs them",
    )
    parser.set_defaults(command=_watch)


def add_report(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `regrow report`."""
    _prepare(
        parser,
        "Writes report.html into a folder of studies: verdicts, curves, probes, tables, in one\n"
        "file that needs no network.",
    )
    parser.add_argument("folder", type=folder, help="the --out of `regrow study`")
    parser.add_argument("--open", action="store_true", help="show the page in a browser")
    parser.add_argument(
        "--figures", action="store_true", help="write figures/*.png and *.svg for papers, too"
    )
    parser.set_defaults(command=_report)


def add_export(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `regrow export`."""
    _prepare(
        parser,
        "Writes runs for other programs: TensorBoard event files, runs of Weights & Biases, or\n"
        "Parquet (of studies one small file each, else one of all numbers).",
    )
    parser.add_argument(
        "folder", type=folder, help="the --out of `regrow study`, `train` or `diagnose`"
    )
    parser.add_argument("--to", required=True, metavar="SINK", help=" | ".join(SINKS))
    parser.add_argument("--into", type=folder, help="folder (default: SINK in the folder)")
    parser.set_defaults(command=_export)


def list_studies() -> None:
    """Prints every study's name, question and claims."""
    from regrow.registry import members
    from regrow.studies.base import study_name

    studies = {study_name(member): member for member in members("studies").values()}
    width = max(map(len, studies))
    for name, study in studies.items():
        claims = ", ".join(map(str, study.claims))
        label = "claim" if len(study.claims) == 1 else "claims"
        print(f"{name:<{width}}  {study.question} ({label} {claims})")


# Commands. Each imports what it needs, so that `regrow --help` is fast.


def _study(options: argparse.Namespace) -> None:
    from regrow.studies.base import SCALES

    studies = _studies(options.name)
    if options.scale not in SCALES:
        raise unknown("scale", options.scale, SCALES)
    if options.curves is not None:
        _curves(options)
        return
    require(options.at is None and not options.without, "--at and --without go with --curves")
    _carry_out(studies, options.scale, options)


def _studies(name: str) -> "list[Study]":
    from regrow.registry import members
    from regrow.studies.base import study_name

    studies = {study_name(member): member for member in members("studies").values()}
    if name not in (*studies, "all"):
        raise unknown("study", name, (*studies, "all"))
    return [study() for known, study in studies.items() if name in ("all", known)]


def _carry_out(studies: "Sequence[Study]", scale: "Scale", options: argparse.Namespace) -> None:
    from regrow.experiments.carry_out import begin
    from regrow.report.progress import progress

    began = time.perf_counter()
    execute, out = execution(options, options.out)
    work = begin(studies, scale, out)
    if work.tasks:
        with progress("env steps", work.env_steps) as report:
            execute(work.tasks, report)
    seconds = time.perf_counter() - began
    rows = _show_verdicts({study.name for study in studies}, scale, options.out)
    print(f"{rows} rows, {seconds:.0f} s; written to {shown(options.out / 'rows')}")


def _show_verdicts(names: Container[str], scale: "Scale", folder: "Place") -> int:
    """Prints the verdicts and claims of studies; returns their number of rows."""
    from rich.console import Console

    from regrow.analysis.summary import summarise
    from regrow.report.studies import claims_lines, verdicts_table

    console = Console()
    summary = summarise(folder)
    for problem in summary.problems:
        print(problem, file=sys.stderr)
    own = [told for told in summary.studies if told.name in names and told.scale == scale]
    for told in own:
        console.print(verdicts_table(f"{told.name} ({told.scale})", told.cases))
        for line in claims_lines(told):
            console.print(line, highlight=False)
    return sum(len(runs) for told in own for case in told.cases for runs in case.arms.values())


def _curves(options: argparse.Namespace) -> None:
    from rich.console import Console

    from regrow.analysis.published import table
    from regrow.report.studies import curves_table

    require(options.name == "resets", f"--curves goes with the study resets, not {options.name}")
    require(options.at is not None, "--curves needs --at, the env step of the table")
    lines = table(options.curves, options.at, options.without)
    less = f", without {', '.join(options.without)}" if options.without else ""
    title = f"Return at {options.at:,} env steps: {options.curves.name}{less}"
    Console().print(curves_table(lines, title))


def _watch(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.live import Live

    from regrow.experiments.watch import Watch
    from regrow.report.studies import watch_table

    console, watch = Console(), Watch(options.folder, trust=options.trust)
    watched = watch.look()
    for problem in watched.problems:
        print(problem, file=sys.stderr)
    if options.once or not console.is_terminal:
        console.print(watch_table(watched))
        return
    try:
        with Live(watch_table(watched), console=console, auto_refresh=False) as live:
            while not watched.finished:
                time.sleep(LOOK_EVERY)
                watched = watch.look()
                live.update(watch_table(watched), refresh=True)
    except KeyboardInterrupt:
        print("the studies go on; this was only watching them")


def _report(options: argparse.Namespace) -> None:
    from regrow.analysis.summary import summarise
    from regrow.report.sections import write_page

    summary = summarise(options.folder)
    problems = summary.problems
    more = f"; and {len(problems) - 3} more like these" if len(problems) > 3 else ""
    require(summary.rows > 0, f"nothing to report: {'; '.join(problems[:3])}{more}")
    for problem in problems:
        print("".join(c if c.isprintable() else "\ufffd" for c in problem), file=sys.stderr)
    page: Place = options.folder / "report.html"
    write_page(page, summary)
    print(f"{summary.rows} runs; written to {shown(page)}")
    if options.figures:
        from regrow.report.paper import write_figures

        figures = options.folder / "figures"
        print(f"{len(write_figures(summary, figures))} figures in {shown(figures)}")
    if options.open and not _opened(page):
        print(f"there is no display to show it on; open {shown(page.resolve())} in a browser")


def _opened(page: "Place") -> bool:
    """Opens the page in a graphical browser; whether one was found."""
    import webbrowser

    # Without a display, Python would open a text browser in the terminal.
    windows = sys.platform in ("win32", "darwin")
    if not windows and not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        return False
    return webbrowser.open(page.resolve().as_uri())


def _export(options: argparse.Namespace) -> None:
    from regrow.experiments import export
    from regrow.files.folders import kind_of

    if options.to not in SINKS:
        raise unknown("sink", options.to, SINKS)
    writers = {"tensorboard": export.to_tensorboard, "wandb": export.to_wandb}
    write = writers.get(options.to, export.to_table)
    folder: Place = options.folder
    into: Place = options.into or folder / options.to
    if kind_of(folder) == "training":
        runs = export.of_training(folder)
        write(runs, into)
        print(f"{_counted(len(runs), 'run')}; written to {shown(into)}")
        return
    rows = _rows_to_export(folder)
    if options.to == "parquet":
        export.to_parquet(rows, into)
        export.copy_plans(rows, folder, into)
    else:
        write([export.of_row(row) for row in rows], into)
    print(f"{_counted(len(rows), 'row')}; written to {shown(into)}")


def _rows_to_export(folder: "Place") -> "list[Row]":
    from regrow.files.folders import kind_of
    from regrow.records.rows import read_rows

    rows, problems = read_rows(folder)
    if kind_of(folder) == "diagnosis":
        done = len(rows) in _rows_of_looks(folder)
        require(done, f"the diagnosis in {folder} is not done; run the same command again")
    require(bool(rows), f"nothing to export: {'; '.join(problems[:3])}")
    for problem in problems:
        print(problem, file=sys.stderr)
    return rows


def _rows_of_looks(folder: "Place") -> set[int]:
    """How many rows a diagnosis has at each of its looks; it may end at any of them."""
    from regrow.records.study_spec import read_plans

    found = set()
    for plan in read_plans(folder).held.values():
        for condition in plan.conditions.values():
            looks = condition.config.get("looks", [condition.seeds])  # before, all at once
            # Of a single agent the replicates are what is looked at.
            runs = 1 if condition.seeds == 1 else condition.config.get("replicates", 1)
            found |= {n * runs * len(condition.arms) for n in looks}
    return found


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

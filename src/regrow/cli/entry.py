"""The command line: `regrow diagnose`, `train`, what looks at runs, and those of `cli_studies.py`.

Whatever is wrong with what the user asked for ends in one line that says what would be right, and
exit code 2. Nothing is lost: what was done is in the output folder, and the same command
(`regrow train` with `--resume`) goes on from there.
"""

import argparse
import contextlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from regrow.cli import demo, diagnose, doctor, runs, train
from regrow.cli import studies as cli_studies
from regrow.errors import RegrowError, RegrowWarning, show_warning, unknown
from regrow.execution.interrupts import answer_signals, end_at_once

FAMILIES = ("environments", "agents", "interventions", "gradients", "probes", "studies")
# An OSError names the file and what is wrong with it: one that may not be read, a full disk. A
# FloatingPointError is what JAX_DEBUG_NANS asks for.
PROBLEMS = (RegrowError, OSError, FloatingPointError)


def main() -> NoReturn:
    """The console script: ends the process with 0, or with 2 and one line on what was wrong."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without θ shows ?
    with contextlib.suppress(OSError):  # the folder may be gone
        if not {"", os.getcwd()} & set(sys.path):
            sys.path.append(os.getcwd())  # modules of one's own are there, as of `python -m`
    code = 2
    answer_signals(end_at_once)
    try:
        _carry_out_and_show(sys.argv[1:])
    except PROBLEMS as error:
        problem = _in_one_line(error)
        if isinstance(error, BrokenPipeError) and _unread():
            problem, code = "", 1  # as of `regrow list agents | head -1`: there is nobody to tell
    else:
        sys.exit(0)
    answer_signals(signal.SIG_IGN)  # the work is over; only its last line is still to come
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
    for text in arguments:
        if text.startswith("--") and text.endswith("=--"):  # argparse reads an empty list there
            raise RegrowError(f"'{text}' gives no value; write {text.partition('=')[0]} VALUE")
    options = _parser().parse_args(arguments)
    from regrow.files.places import stores_told  # not for --help, which ends above

    with warnings.catch_warnings():
        warnings.simplefilter("always", RegrowWarning)
        warnings.showwarning = show_warning
        with stores_told():
            options.command(options)


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


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
    for name, (add, summary) in COMMANDS.items():
        add(commands.add_parser(name, help=summary))
    return parser


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", metavar="FAMILY", help=" | ".join(FAMILIES))
    parser.set_defaults(command=_list)


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


COMMANDS = {
    "demo": (demo.add_demo, "two agents, one damaged: what a verdict looks like"),
    "diagnose": (diagnose.add_diagnose, "train, fork into arms, give a verdict"),
    "train": (train.add_train, "train one agent, with checkpoints"),
    "doctor": (doctor.add_doctor, "what is installed, what would run where"),
    "check": (runs.add_check, "whether an environment does what it says"),
    "probe": (runs.add_probe, "the probes over the life of a trained run"),
    "evaluate": (runs.add_evaluate, "episodes without exploring, of a run"),
    "curves": (runs.add_curves, "learning curves of trained runs, a picture"),
    "study": (cli_studies.add_study, "carry out a study, or all of them"),
    "watch": (cli_studies.add_watch, "how far the work in a folder is"),
    "report": (cli_studies.add_report, "a page of results, and figures"),
    "export": (cli_studies.add_export, "runs for TensorBoard, W&B, Parquet"),
    "list": (_add_list, "name what there is, a line each"),
}

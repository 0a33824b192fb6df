"""Tables from published learning curves: interquartile mean and interval at one env step.

The format: CSV, gzipped or not, with the columns replay_ratio, resets (0 or 1), task, seed,
env_steps, return; others are ignored. So the curves published with *The Primacy Bias in Deep RL*
(arXiv 2205.07802) can be put into one table.
"""

import csv
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from regrow.errors import RegrowError, require
from regrow.stats.intervals import (
    Interval,
    interquartile_mean,
    no_interval,
    pooled_bootstrap,
    stratified_bootstrap,
)

RESAMPLES = 20_000
COLUMNS = ("replay_ratio", "resets", "task", "seed", "env_steps", "return")

Returns = dict[str, dict[str, float]]
"""The returns of one way to train, by task and seed."""


class Line(NamedTuple):
    """One way to train, over its tasks and seeds.

    `pooled`: interval by a bootstrap over all runs, as published. `within`: by a bootstrap over the
    seeds of each task, as arXiv 2108.13264 recommends. A single run has neither. `within` is also
    missing if a task has only one run, which says nothing of its spread.
    """

    replay_ratio: str
    resets: bool
    tasks: int
    runs: int
    pooled: Interval
    within: Interval


def table(path: Path, at: int, without: Sequence[str] = ()) -> list[Line]:
    """The IQM of returns at env step `at`, for every replay ratio without and with resets.

    Each run counts with its last evaluation up to `at`. `without`: runs to leave out, each as
    replay_ratio/resets/task/seed. Raises `RegrowError` if the file is not of that format, or has no
    such run.
    """
    found = returns_at(path, at)
    for run in without:
        replay_ratio, resets, task, seed = [*run.split("/"), "", "", ""][:4]
        held = found.get((replay_ratio, resets == "1"), {}).get(task, {})
        require(
            held.pop(seed, None) is not None,
            f"{path} has no run '{run}'; write replay_ratio/resets/task/seed, as in "
            "32/1/acrobot-swingup/5",
        )
    return [_line(*key, returns) for key, returns in sorted(found.items(), key=_order)]


def _order(item: tuple[tuple[str, bool], Returns]) -> tuple[float, bool]:
    (replay_ratio, resets), _ = item
    return float(replay_ratio), resets


def _line(replay_ratio: str, resets: bool, returns: Returns) -> Line:
    tasks = [list(seeds.values()) for seeds in returns.values() if seeds]
    values = [value for seeds in tasks for value in seeds]

    def drawn() -> np.random.Generator:
        return np.random.default_rng(0)

    pooled = within = no_interval(interquartile_mean(values))
    if len(values) > 1:
        pooled = pooled_bootstrap(
            values, interquartile_mean, generator=drawn(), resamples=RESAMPLES
        )
    if min(map(len, tasks)) > 1:
        within = stratified_bootstrap(
            tasks, interquartile_mean, generator=drawn(), resamples=RESAMPLES
        )
    return Line(replay_ratio, resets, len(tasks), len(values), pooled, within)


def returns_at(path: Path, at: int) -> dict[tuple[str, bool], Returns]:
    """{(replay ratio, resets): {task: {seed: return at the last evaluation by env step `at`}}}."""
    last: dict[tuple[str, bool, str, str], tuple[int, float]] = {}
    for number, row in enumerate(_rows(path), 2):
        try:
            env_steps, value = int(row["env_steps"]), float(row["return"])
            run = (
                f"{float(row['replay_ratio']):g}",
                row["resets"] == "1",
                row["task"],
                row["seed"],
            )
        except (TypeError, ValueError) as error:
            raise RegrowError(f"{path}, line {number}: {error}") from error
        if env_steps <= at and env_steps > last.get(run, (-1, 0.0))[0]:
            last[run] = (env_steps, value)
    require(bool(last), f"{path} has no evaluation at or before {at} env steps")
    found: dict[tuple[str, bool], Returns] = {}
    for (replay_ratio, resets, task, seed), (_, value) in last.items():
        found.setdefault((replay_ratio, resets), {}).setdefault(task, {})[seed] = value
    return found


def _rows(path: Path) -> list[Mapping[str, str]]:
    require(path.is_file(), f"there is no file {path}")
    try:
        packed = path.read_bytes()
        text = (gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise RegrowError(f"{path} is no table of curves ({error})") from error
    reader = csv.DictReader(text.splitlines())
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    require(not missing, f"{path} is no table of curves: it has no column '{''.join(missing[:1])}'")
    return list(reader)

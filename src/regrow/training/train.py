"""Training alone: one run in one folder, saved on the way, resumed exactly.

config.json        agent, environment, seed, rules
run.ckpt           the Run, as of the last save
episodes.parquet   env_steps (at its end), return, length: a row per finished episode
checks.parquet     env_steps, rule, value, fired: a row per look of a rule
probes.parquet     env_steps, probe, value, fresh: the probes over the life of the run
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from regrow.agents.base import Agent
from regrow.environments.base import World
from regrow.errors import RegrowError, require, require_rounds
from regrow.files.atomic import damaged, read_json
from regrow.files.folders import claimed, kind_of
from regrow.files.formats import as_meant
from regrow.records.rows import write_table
from regrow.records.sinks import About, checked
from regrow.registry import describe
from regrow.training.checkpoint import SAVE_EVERY, load, save
from regrow.training.environment_checks import check_before_training
from regrow.training.live import Live
from regrow.training.pacing import ChunkPacer
from regrow.training.probing import measured
from regrow.training.run import Run, abstract_state
from regrow.training.schedule import (
    Check,
    Rule,
    check_rules,
    followed,
    next_check,
    recent_return,
    until_now,
)
from regrow.types import Log, Report


class Episodes(NamedTuple):
    """Finished episodes: env steps of training at the end, undiscounted return, length."""

    env_steps: NDArray[np.int64]
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]

    def until(self, env_steps: int) -> "Episodes":
        """Those that end no later."""
        count = int(np.searchsorted(self.env_steps, env_steps, side="right"))
        return Episodes(self.env_steps[:count], self.returns[:count], self.lengths[:count])

    def recent_at(self, env_steps: NDArray[np.int64], window: int) -> NDArray[np.float64]:
        """At each of these the mean return of the episodes that ended within `window` env steps.

        That of the last one, where none did; NaN before the first.
        """
        ends = np.searchsorted(self.env_steps, env_steps, side="right")
        starts = np.searchsorted(self.env_steps, env_steps - window, side="right")
        starts = np.minimum(starts, np.maximum(ends - 1, 0))
        sums = np.concatenate([[0.0], np.cumsum(self.returns)])
        with np.errstate(invalid="ignore"):
            return (sums[ends] - sums[starts]) / (ends - starts)


class Diary(NamedTuple):
    """What happened in a run, beside the Run itself."""

    episodes: Episodes
    checks: list[Check]
    probes: list[dict[str, Any]]  # rows: env_steps, probe, value, fresh

    @staticmethod
    def empty() -> "Diary":
        """The diary of a run at env step 0."""
        return Diary(Episodes(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64)), [], [])

    def recent_return(self) -> float:
        """The mean return of the last episodes; NaN before the first."""
        return recent_return(self.episodes.returns)


def train(
    agent: Agent,
    environment: World,
    folder: Path,
    *,
    env_steps: int,
    seed: int = 0,
    rules: Sequence[Rule] = (),
    probe_every: int = 0,
    resume: bool = False,
    report: Report,
    log: str | Sequence[str] = (),
) -> tuple[Run, Diary]:
    """Trains until `env_steps` in all; (the Run, what happened), both also in `folder`.

    `rules`: what to do on the way, and when. `probe_every`: measure every probe that is not costly
    so often, in env steps (0: never). `log`: "csv", "tensorboard" or "wandb", or several of them,
    into which the run is logged while it trains. Raises `RegrowError` where the folder holds a run
    and `resume` is False, or where it holds none and `resume` is True, or another run than the one
    described; where a rule cannot be carried out on this agent; where the environment does what it
    may not do (`check_environment`, in short); where `log` is none of these or its package is not
    there. Where `report` raises, what was done is saved; where anything else stops it, it was saved
    a minute ago at most.
    """
    log = checked(log)
    folder, checkpoint = Path(folder), Path(folder) / "run.ckpt"
    per_round = agent.env_steps_per_round
    for name, number in (("env_steps", env_steps), ("probe_every", probe_every or per_round)):
        require_rounds(name, number, per_round)
    check_rules(rules, per_round)
    abstract_state(agent, environment, [rule.intervention for rule in rules])
    check_before_training(environment)
    if resume and not checkpoint.is_file():
        raise RegrowError(f"there is no run to resume in {folder}; leave --resume out to start one")
    _refuse_begun(folder, resume)
    config = {"agent": describe(agent), "environment": describe(environment), "seed": seed}
    config["rules"] = [str(rule) for rule in rules]
    with claimed(folder, {"kind": "training", **config}):
        _refuse_begun(folder, resume)  # another process may have begun and ended since
        if resume:
            run = _loaded(checkpoint, agent, environment, env_steps)
            diary = _read(folder, run)
        else:
            run, diary = Run.start(agent, environment, seed=seed), Diary.empty()
        about = About("train", folder.resolve().name, None, config)
        with Live(log, folder / "log", about) as live:
            training = _Training(folder, tuple(rules), probe_every, env_steps, report, live)
            return training.done(run, diary)


def _refuse_begun(folder: Path, resume: bool) -> None:
    for held in (folder / "run.ckpt", folder / "episodes.parquet"):
        require(
            resume or not held.exists(),
            f"{folder} holds a run already; add --resume, or choose another --out",
        )


def _loaded(checkpoint: Path, agent: Agent, environment: World, until: int) -> Run:
    run = load(checkpoint)
    require(
        (run.agent, run.environment) == (agent, environment),
        f"{checkpoint} is of {describe(run.agent)} on {describe(run.environment)}, not of what "
        "config.json beside it says; restore it",
    )
    require(
        run.env_steps <= until,
        f"the run in {checkpoint.parent} is at {run.env_steps} env steps, past the {until} asked "
        "for",
    )
    return run


class _Training(NamedTuple):
    """How a run is trained: what is looked at on the way, and where it is written."""

    folder: Path
    rules: tuple[Rule, ...]
    probe_every: int
    until: int
    report: Report
    live: Live

    def done(self, run: Run, diary: Diary) -> tuple[Run, Diary]:
        """The run at its end, saved."""
        self.report("training", run.env_steps)
        self.keep(run, diary)  # a folder that cannot be written to is found out before the work
        saved, pieces = time.monotonic(), ChunkPacer(run.agent.env_steps_per_round)
        try:
            while run.env_steps < self.until:
                run, diary = self.looked_at(run, diary)
                now = run.env_steps
                run, log = run.advance(self.piece(run, pieces.next()))
                episodes = _with(diary.episodes, log, now, run.agent.num_envs, run.restarts)
                diary = diary._replace(episodes=episodes)
                self.live.advanced(run, log)
                if time.monotonic() - saved > SAVE_EVERY:
                    self.keep(run, diary)
                    saved = time.monotonic()
                self.report(self.words(diary), len(log.reward))
            if self.probe_every and run.env_steps not in _probed_at(diary):
                self.probe(run, diary)
        finally:
            if not run.used_up:  # it is, if what stopped the work did so in the middle of `advance`
                self.keep(run, diary)
        return run, diary

    def looked_at(self, run: Run, diary: Diary) -> tuple[Run, Diary]:
        """Probes and rules, where they are due and were not seen to yet."""
        now = run.env_steps
        due = self.probe_every and now and now % self.probe_every == 0
        if due and now not in _probed_at(diary):
            self.probe(run, diary)
        run, checks = followed(run, self.rules, diary.checks, diary.recent_return())
        return run, diary._replace(checks=checks)

    def probe(self, run: Run, diary: Diary) -> None:
        """Every probe, of the run and of a fresh network, into the diary."""
        for fresh in (False, True):
            values = measured(run, fresh=fresh)
            diary.probes.extend(
                {"env_steps": run.env_steps, "probe": name, "value": value, "fresh": fresh}
                for name, value in values.items()
            )
            self.live.probed(run, values, fresh=fresh)

    def piece(self, run: Run, longest: int) -> int:
        """Env steps to the next look, `longest` at most."""
        now = run.env_steps
        end = min(self.until, now + longest)
        if self.probe_every:
            end = min(end, (now // self.probe_every + 1) * self.probe_every)
        return next_check(self.rules, now, end) - now

    def words(self, diary: Diary) -> str:
        """What the progress bar says."""
        mean = diary.recent_return()
        return "training" if math.isnan(mean) else f"training, return {mean:.2f}"

    def keep(self, run: Run, diary: Diary) -> None:
        """Saves the run; the diary first: after a crash between, it is ahead and never behind."""
        self.live.flush(run)
        columns = {
            "env_steps": diary.episodes.env_steps,
            "return": diary.episodes.returns,
            "length": diary.episodes.lengths,
        }
        write_table(self.folder / "episodes.parquet", pa.table(columns))
        if self.rules:
            rows = [
                {**check._asdict(), "rule": str(self.rules[check.rule])} for check in diary.checks
            ]
            write_table(self.folder / "checks.parquet", pa.Table.from_pylist(rows, _CHECKS))
        if self.probe_every:
            write_table(self.folder / "probes.parquet", pa.Table.from_pylist(diary.probes, _PROBES))
        save(run, self.folder / "run.ckpt")


_EPISODES = pa.schema({"env_steps": pa.int64(), "return": pa.float64(), "length": pa.int64()})
_CHECKS = pa.schema(
    {
        "env_steps": pa.int64(),
        "rule": pa.string(),
        "value": pa.float64(),
        "fired": pa.bool_(),
    }
)
_PROBES = pa.schema(
    {
        "env_steps": pa.int64(),
        "probe": pa.string(),
        "value": pa.float64(),
        "fresh": pa.bool_(),
    }
)


def _probed_at(diary: Diary) -> set[int]:
    return {row["env_steps"] for row in diary.probes}


def _with(
    episodes: Episodes, log: Log, start: int, num_envs: int, restarts: Sequence[int]
) -> Episodes:
    """`episodes` and those that end in a log that begins after env step `start`.

    Environments take turns; those that run at its start began at the last of the `restarts`, or
    after one that ended.
    """
    begun = max(restarts, default=0)
    (ends,) = np.nonzero(log.terminated | log.truncated)
    env_steps = start + ends + 1
    turn, environment = np.divmod(env_steps - 1, num_envs)
    turn_before, environment_before = np.divmod(episodes.env_steps - 1, num_envs)
    lengths = np.zeros_like(env_steps)
    for n in range(num_envs):
        own, before = environment == n, turn_before[environment_before == n] + 1
        first = max([begun // num_envs, *before[-1:]])
        lengths[own] = np.diff(turn[own] + 1, prepend=first)
    return Episodes(
        np.concatenate([episodes.env_steps, env_steps]),
        np.concatenate([episodes.returns, log.episode_return[ends]]),
        np.concatenate([episodes.lengths, lengths]),
    )


class Trained(NamedTuple):
    """A training run as its folder tells of it, without the networks."""

    environment: str
    what: str  # the agent, and the rules that it was trained with
    seed: int
    episodes: Episodes


def read_training(folder: Path) -> Trained:
    """What was trained in a folder; `RegrowError` where nothing was, or a file is damaged."""
    path = Path(folder) / "config.json"
    if kind_of(Path(folder)) != "training":
        raise RegrowError(f"there is no run in {folder}; give the --out of a `regrow train`")
    config = read_json(path)
    try:
        rules = config["rules"] if "format" in config else map(as_meant, config["rules"])
        what = "; ".join([config["agent"], *rules])
        named = config["environment"], what, int(config["seed"])
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, "it is no configuration") from error
    return Trained(*named, _read_episodes(Path(folder)))


def _read_episodes(folder: Path) -> Episodes:
    path = folder / "episodes.parquet"
    table = _table(path, _EPISODES)
    episodes = Episodes(*(table[name].to_numpy() for name in _EPISODES.names))
    if not np.isfinite(episodes.returns).all():
        raise damaged(path, "a return is no finite number")
    return episodes


def _read(folder: Path, run: Run) -> Diary:
    """The diary of a saved run, up to where that run is."""
    episodes = _read_episodes(folder)
    checks: list[Check] = []
    if (folder / "checks.parquet").is_file():
        rows = _table(folder / "checks.parquet", _CHECKS).to_pylist()
        texts = read_json(folder / "config.json")["rules"]
        if not {row["rule"] for row in rows} <= set(texts):
            raise damaged(folder / "checks.parquet", "it has a rule that the run has not")
        checks = [Check(**{**row, "rule": texts.index(row["rule"])}) for row in rows]
    probes = read_probes(folder) if (folder / "probes.parquet").is_file() else []
    return Diary(
        episodes.until(run.env_steps),
        until_now(checks, run),
        [row for row in probes if row["env_steps"] <= run.env_steps],
    )


def read_probes(folder: Path) -> list[dict[str, Any]]:
    """The rows of probes.parquet; `RegrowError` where it is absent or damaged."""
    return _table(folder / "probes.parquet", _PROBES).to_pylist()


def _table(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        with path.open("rb") as file:
            table = pq.read_table(file).select(schema.names).cast(schema)
    except PermissionError:
        raise
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise RegrowError(f"{path} is absent or damaged ({error}); restore it") from error
    if any(column.null_count for column in table.columns):
        raise RegrowError(f"{path} is damaged (numbers are missing); restore it")
    return table

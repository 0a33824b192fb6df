"""Training of one run in one folder, with saves and exact resumption.

config.json        agent, environment, seed, rules
run.ckpt           the Run at the last save
run.previous.ckpt  the Run at the save before, for when the last is damaged
episodes.parquet   env_steps (at its end), return, length: a row per finished episode
checks.parquet     env_steps, rule, value, fired: a row per check of a rule
probes.parquet     env_steps, probe, value, fresh: the probes over the course of the run
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regrow.agents.base import Agent
from regrow.environments.base import Environment
from regrow.errors import RegrowError, in_a_line, require, require_rounds, warn_once
from regrow.experience.recent import kept_transitions
from regrow.files.atomic import (
    DamagedError,
    damaged,
    keep_previous,
    read_sealed,
    write_atomically,
)
from regrow.files.folders import claimed, kind_of
from regrow.files.formats import as_meant
from regrow.files.places import Place, place
from regrow.files.progress import report_progress
from regrow.records.rows import write_row, write_table
from regrow.records.sinks import About, checked, require_loggable
from regrow.registry import describe
from regrow.training.checkpoint import load, writer
from regrow.training.driver import drive
from regrow.training.environment_checks import check_before_training
from regrow.training.episodes import Episodes, row_of
from regrow.training.live import Live
from regrow.training.run import Run, abstract_state
from regrow.training.schedule import (
    Check,
    Rule,
    check_rules,
    recent_return,
    until_now,
)
from regrow.types import Log, Report


class Diary(NamedTuple):
    """The history of a run: episodes, checks of rules, and probe values."""

    episodes: Episodes
    checks: list[Check]
    probes: list[dict[str, Any]]  # rows: env_steps, probe, value, fresh

    @staticmethod
    def empty() -> "Diary":
        """The diary of a run at env step 0."""
        return Diary(Episodes(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64)), [], [])

    def recent_return(self) -> float:
        """The mean return of the last episodes; NaN before the first has ended."""
        return recent_return(self.episodes.returns)


def train(
    agent: Agent,
    environment: Environment,
    folder: Place,
    *,
    env_steps: int,
    seed: int = 0,
    rules: Sequence[Rule] = (),
    probe_every: int = 0,
    resume: bool = False,
    report: Report,
    log: str | Sequence[str] = (),
) -> tuple[Run, Diary]:
    """Trains to `env_steps` in total: (the Run, its Diary). Both are also saved in `folder`.

    `rules`: interventions to carry out during training.
    `probe_every`: env steps between measurements of all probes that are not costly; 0: never.
    `log`: "csv", "tensorboard", "wandb", or several of them: the sinks for live logging.

    Raises `RegrowError` if
    - the folder has a run and `resume` is False, or has none, or a different one, and `resume` is
      True;
    - a rule cannot be carried out on this agent;
    - the environment fails a short `check_environment`;
    - `log` is unknown, or its package is not installed.

    If `report` raises, all progress is saved. If anything else stops training, the last save is at
    most about a minute old.
    """
    log = checked(log)
    folder, checkpoint = place(folder), place(folder) / CHECKPOINT
    require_loggable(log, folder)
    per_round = agent.env_steps_per_round
    for name, number in (("env_steps", env_steps), ("probe_every", probe_every or per_round)):
        require_rounds(name, number, per_round)
    check_rules(rules, per_round)
    abstract_state(agent, environment, [rule.intervention for rule in rules])
    check_before_training(environment)
    if resume and not (checkpoint.is_file() or (folder / previous(CHECKPOINT)).is_file()):
        raise RegrowError(f"there is no run to resume in {folder}; leave --resume out to start one")
    _refuse_begun(folder, resume)
    config = {"agent": describe(agent), "environment": describe(environment), "seed": seed}
    config["rules"] = [str(rule) for rule in rules]
    with claimed(folder, {"kind": "training", **config}):
        _refuse_begun(folder, resume)  # another process may have started and finished since
        if resume:
            run, diary, whole = _resumed(folder, config)
            _require_same(run, agent, environment, env_steps, folder)
        else:
            run, diary, whole = Run.start(agent, environment, seed=seed), Diary.empty(), True
        about = About("train", folder.resolve().name, None, config)
        with Live(log, folder / "log", about) as live:
            training = _Training(folder, config, probe_every, env_steps, report, live, whole)
            return training.done(run, diary, rules)


def _refuse_begun(folder: Place, resume: bool) -> None:
    for held in (folder / "run.ckpt", folder / "episodes.parquet"):
        require(
            resume or not held.exists(),
            f"{folder} holds a run already; add --resume, or choose another --out",
        )


CHECKPOINT = "run.ckpt"


def previous(name: str) -> str:
    """What a file of the save before the last is called."""
    return ".previous.".join(name.rsplit(".", 1))


def label_of(config: Mapping[str, Any]) -> str:
    """What the files of a training run say that they are of."""
    run = f"{config['agent']} in {config['environment']}, seed {config['seed']}"
    return ", ".join([run, *config["rules"]])


def _config_of(folder: Place) -> dict[str, Any]:
    """The configuration of a run; `RegrowError` where it is none."""
    path = folder / "config.json"
    config = read_sealed(path)
    fields = {"agent": str, "environment": str, "seed": int, "rules": list}
    if not (
        isinstance(config, dict)
        and all(type(config.get(name)) is kind for name, kind in fields.items())
        and all(isinstance(rule, str) for rule in config["rules"])
    ):
        raise damaged(path, "it is no configuration")
    return config


def load_run(folder: Place, *, trust: bool = False) -> Run:
    """The Run of a folder of `regrow train`; `RegrowError` where there is none that can be used.

    Where a file of its last save is damaged, it is the Run of the save before, with a warning.
    `trust`: import modules that the files name.
    """
    return _resumed(folder, _config_of(folder), trust=trust).run


class _Resumed(NamedTuple):
    """What was saved, and whether the last save was whole."""

    run: Run
    diary: Diary
    whole: bool


def _resumed(folder: Place, config: Mapping[str, Any], *, trust: bool = False) -> _Resumed:
    checkpoint, before = folder / CHECKPOINT, folder / previous(CHECKPOINT)
    try:
        if not checkpoint.is_file():
            raise _absent(checkpoint)
        run = load(checkpoint, label_of(config), trust=trust)
        return _Resumed(run, _read(folder, run, config), True)
    except DamagedError as error:
        remedy = "restore it, or train again in another --out"
        if not before.is_file():
            raise DamagedError(f"{error.brief}; {remedy}") from error
        try:
            run = load(before, label_of(config), trust=trust)
            diary = _read(folder, run, config, previous)
        except DamagedError as other:
            raise DamagedError(f"{error.brief}, and {other.brief}; {remedy}") from other
        warn_once(f"{error.brief}; used is the save before it, at env step {run.env_steps}")
        return _Resumed(run, diary, False)


def _absent(path: Place) -> DamagedError:
    return DamagedError(f"there is no {path}; restore it")


def _require_same(
    run: Run, agent: Agent, environment: Environment, until: int, folder: Place
) -> None:
    checkpoint = folder / CHECKPOINT
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


class _Training:
    """Measures and saves a run while it trains; a `regrow.training.driver.Record`."""

    def __init__(
        self,
        folder: Place,
        config: Mapping[str, Any],
        probe_every: int,
        until: int,
        report: Report,
        live: Live,
        whole: bool,
    ):
        """`whole`: whether the last save was; the one before it is kept until there is another."""
        self.whole = whole
        self.folder, self.config, self.probe_every, self.until = folder, config, probe_every, until
        self.report, self.live = report, live
        self.diary = Diary.empty()

    def done(self, run: Run, diary: Diary, rules: Sequence[Rule]) -> tuple[Run, Diary]:
        """Trains to the end: (the Run, its Diary), both saved."""
        self.diary = diary
        self.report("training", run.env_steps)
        self.copied(run, diary.checks)()  # fails now if the folder cannot be written to
        path = self.folder / "training.progress.json"
        with report_progress(path, self.until, self.report) as report:
            report(self.words(), 0)
            run, checks = drive(
                run,
                self.until,
                self,
                round=run.agent.env_steps_per_round,
                rules=rules,
                checks=diary.checks,
                live=self.live,
                report=lambda steps: report(self.words(), steps),
            )
        return run, self.diary._replace(checks=checks)

    def look(self, run: Run) -> None:
        """If probes are due, measures them all on the run and on fresh networks."""
        now, every = run.env_steps, self.probe_every
        due = every and ((now and now % every == 0) or now >= self.until)
        if not due or now in _probed_at(self.diary):
            return
        for fresh in (False, True):
            values = run.measure(fresh=fresh)
            self.diary.probes.extend(
                {"env_steps": now, "probe": name, "value": value, "fresh": fresh}
                for name, value in values.items()
            )
            self.live.probed(run, values, fresh=fresh)

    def next_look(self, now: int, until: int) -> int:
        """The env step at which probes are due next, at most `until`."""
        every = self.probe_every
        return min(until, (now // every + 1) * every) if every else until

    def add(self, run: Run, log: Log) -> None:
        """Adds the episodes that ended in a chunk to the diary."""
        start = run.env_steps - len(log.reward)
        episodes = _with(self.diary.episodes, log, start, run.agent.num_envs, run.restarts)
        self.diary = self.diary._replace(episodes=episodes)

    def recent_return(self) -> float:
        """The mean return of the last episodes."""
        return self.diary.recent_return()

    def words(self) -> str:
        """The text of the progress bar."""
        mean = self.diary.recent_return()
        return "training" if math.isnan(mean) else f"training, return {mean:.2f}"

    def reached(self, run: Run, checks: Sequence[Check]) -> None:
        """Saves the end."""
        self.copied(run, checks)()

    def copied(self, run: Run, checks: Sequence[Check]) -> Callable[[], None]:
        """A copy of the diary and the run, as a function that writes the diary, then the run.

        After a crash in between, the diary is ahead of the run. It is never behind, and `_read`
        drops what is later than the run.
        """
        self.diary = self.diary._replace(checks=list(checks))
        tables, write_run = self._tables(), writer(run, self.label, kept_transitions())
        row = row_of(run, self.diary.episodes, self.diary.probes, self.config)
        about, whole, self.whole = {"of": self.label, "at": str(run.env_steps)}, self.whole, True

        def write() -> None:
            for name, table in tables.items():
                self._keep_previous(name, whole)
                own = {**about, "sha256": _digest(table)}
                write_table(self.folder / name, table.replace_schema_metadata(own))
            self._keep_previous(CHECKPOINT, whole)
            write_atomically(self.folder / CHECKPOINT, write_run)
            if row is not None:
                write_row(self.folder, row)

        return write

    def _keep_previous(self, name: str, whole: bool) -> None:
        if whole:
            keep_previous(self.folder / name, self.folder / previous(name))

    def _tables(self) -> dict[str, pa.Table]:
        episodes, checks, probes = self.diary
        columns = {
            "env_steps": episodes.env_steps,
            "return": episodes.returns,
            "length": episodes.lengths,
        }
        found, rules = {"episodes.parquet": pa.table(columns)}, self.config["rules"]
        if rules:
            rows = [{**check._asdict(), "rule": rules[check.rule]} for check in checks]
            found["checks.parquet"] = pa.Table.from_pylist(rows, _CHECKS)
        if self.probe_every or probes:
            found["probes.parquet"] = pa.Table.from_pylist(probes, _PROBES)
        return found

    @property
    def label(self) -> str:
        """What the files say that they are of."""
        return label_of(self.config)


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
    """`episodes` and those that end in `log`, which begins after env step `start`.

    The environments take turns in the log. An episode that is running at the start of the log
    began at the last of the `restarts`, or after the previous episode of its environment.
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
    """A training run as read from its folder, without the networks."""

    environment: str
    what: str  # the agent and the rules that it was trained with
    seed: int
    episodes: Episodes


def read_training(folder: Place) -> Trained:
    """Reads the run in a folder; `RegrowError` if there is none, or a file is damaged."""
    if kind_of(place(folder)) != "training":
        raise RegrowError(f"there is no run in {folder}; give the --out of a `regrow train`")
    config = _config_of(place(folder))
    rules = config["rules"] if "format" in config else map(as_meant, config["rules"])
    what = "; ".join([config["agent"], *rules])
    episodes = _read_episodes(place(folder) / "episodes.parquet", label_of(config))
    return Trained(config["environment"], what, config["seed"], episodes)


def _read_episodes(path: Place, label: str = "", at: int = 0) -> Episodes:
    table = _table(path, _EPISODES, label, at)
    episodes = Episodes(*(table[name].to_numpy() for name in _EPISODES.names))
    if not np.isfinite(episodes.returns).all():
        raise damaged(path, "a return is no finite number")
    return episodes


def _read(
    folder: Place, run: Run, config: Mapping[str, Any], named: Callable[[str], str] = str
) -> Diary:
    """The diary of a saved run, up to the env step of that run. `named`: of which save."""
    files = ("episodes.parquet", "checks.parquet", "probes.parquet")
    of_episodes, of_checks, of_probes = (folder / named(name) for name in files)
    label, at, texts = label_of(config), run.env_steps, config["rules"]
    episodes, checks = _read_episodes(of_episodes, label, at), list[Check]()
    if texts:
        rows = _table(of_checks, _CHECKS, label, at).to_pylist()
        if not {row["rule"] for row in rows} <= set(texts):
            raise damaged(of_checks, "it has a rule that the run has not")
        checks = [Check(**{**row, "rule": texts.index(row["rule"])}) for row in rows]
    probes = _table(of_probes, _PROBES, label, at).to_pylist() if of_probes.is_file() else []
    return Diary(
        episodes.until(run.env_steps),
        until_now(checks, run),
        [row for row in probes if row["env_steps"] <= run.env_steps],
    )


def read_probes(folder: Place) -> list[dict[str, Any]]:
    """The rows of probes.parquet; `RegrowError` if it is absent or damaged."""
    return _table(folder / "probes.parquet", _PROBES).to_pylist()


def _table(path: Place, schema: pa.Schema, label: str = "", at: int = 0) -> pa.Table:
    """A table of the diary. `label`: of which run. `at`: an env step that it must have reached."""
    if not path.is_file():
        raise _absent(path)
    try:
        with path.open("rb") as file:
            held = pq.ParquetFile(file, page_checksum_verification=True).read()
        about = {
            name.decode(): text.decode() for name, text in (held.schema.metadata or {}).items()
        }
        reached = int(about.get("at", at))
        table = held.select(schema.names).cast(schema)
    except PermissionError:
        raise
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise _broken(path, in_a_line(error)) from error
    # Tables of earlier versions do not say what they are of.
    if label and about.get("of", label) != label:
        raise _broken(path, f"it is of {about['of']}, not of {label}")
    if reached < at:
        raise _broken(path, f"it ends at env step {reached}, and the run is at {at}")
    if any(column.null_count for column in table.columns):
        raise _broken(path, "numbers are missing")
    if "sha256" in about and about["sha256"] != _digest(table):
        raise _broken(path, "it does not match its checksum")
    return table


def _broken(path: Place, why: str) -> DamagedError:
    return DamagedError(f"{path} is damaged ({why}); restore it")


def _digest(table: pa.Table) -> str:
    """A checksum of what a table holds; that of Parquet leaves out the headers."""
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table[name]
        if pa.types.is_string(column.type):
            content = "\n".join(column.to_pylist()).encode()
        else:
            content = column.to_numpy().tobytes()
        digest.update(f"{name} {len(column)} {len(content)} ".encode() + content)
    return digest.hexdigest()

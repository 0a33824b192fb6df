"""What a training run leaves in its folder, and how it is read again.

config.json        agent, environment, seed, rules
run.ckpt           the Run at the last save
episodes.parquet   env_steps (at its end), return, length: a row per finished episode
checks.parquet     env_steps, rule, value, fired: a row per check of a rule
probes.parquet     env_steps, probe, value, fresh: the probes over the course of the run

and `run.previous.ckpt` and its like, of the save before, for when one of the last is damaged. Each
says which run it is of, and has checksums.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regrow.errors import RegrowError, in_a_line, warn_once
from regrow.files.atomic import DamagedError, damaged, keep_previous, read_sealed, write_atomically
from regrow.files.folders import kind_of
from regrow.files.formats import as_meant
from regrow.files.places import Place, place
from regrow.records.rows import write_table
from regrow.training.checkpoint import load
from regrow.training.episodes import Episodes
from regrow.training.run import Run
from regrow.training.schedule import Check, recent_return, until_now


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


CHECKPOINT = "run.ckpt"


def previous(name: str) -> str:
    """What a file of the save before the last is called."""
    return ".previous.".join(name.rsplit(".", 1))


def label_of(config: Mapping[str, Any]) -> str:
    """What the files of a training run say that they are of."""
    run = f"{config['agent']} in {config['environment']}, seed {config['seed']}"
    return ", ".join([run, *config["rules"]])


def config_of(folder: Place) -> dict[str, Any]:
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
    return resumed(folder, config_of(folder), trust=trust).run


class Resumed(NamedTuple):
    """What was saved, and whether the last save was whole."""

    run: Run
    diary: Diary
    whole: bool


def resumed(folder: Place, config: Mapping[str, Any], *, trust: bool = False) -> Resumed:
    """The run and diary of a folder. Where a file is damaged, the save before, with a warning."""
    checkpoint, before = folder / CHECKPOINT, folder / previous(CHECKPOINT)
    try:
        if not checkpoint.is_file():
            raise _absent(checkpoint)
        run = load(checkpoint, label_of(config), trust=trust)
        return Resumed(run, _read(folder, run, config), True)
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
        return Resumed(run, diary, False)


def _absent(path: Place) -> DamagedError:
    return DamagedError(f"there is no {path}; restore it")


def tables_of(diary: Diary, config: Mapping[str, Any], *, probed: bool) -> dict[str, pa.Table]:
    """The diary as the files that hold it. `probed`: whether probes are measured on the way."""
    episodes, checks, probes = diary
    columns = {
        "env_steps": episodes.env_steps,
        "return": episodes.returns,
        "length": episodes.lengths,
    }
    found, rules = {"episodes.parquet": pa.table(columns)}, config["rules"]
    if rules:
        rows = [{**check._asdict(), "rule": rules[check.rule]} for check in checks]
        found["checks.parquet"] = pa.Table.from_pylist(rows, _CHECKS)
    if probed or probes:
        found["probes.parquet"] = pa.Table.from_pylist(probes, _PROBES)
    return found


def write_save(
    folder: Place,
    tables: Mapping[str, pa.Table],
    write_run: Callable[[Any], object],
    about: Mapping[str, str],
    *,
    whole: bool,
) -> None:
    """Writes the tables of a diary, then the run, and keeps what was there as the save before.

    `about`: what each says that it is of. `whole`: whether what is there can be used.
    """

    def keep(name: str) -> None:
        if whole:
            keep_previous(folder / name, folder / previous(name))

    for name, table in tables.items():
        keep(name)
        own = {**about, "sha256": _digest(table)}
        write_table(folder / name, table.replace_schema_metadata(own))
    keep(CHECKPOINT)
    write_atomically(folder / CHECKPOINT, write_run)


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
    config = config_of(place(folder))
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

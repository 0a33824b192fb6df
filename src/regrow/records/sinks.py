"""Sinks for live logging: CSV, TensorBoard, Weights & Biases.

FOLDER/<run>.csv           env_steps, name, value, text: a row per number or event
FOLDER/<run>/events.…      TensorBoard event files, a new one per session
FOLDER/wandb/…             the local files of Weights & Biases
FOLDER/<run>.wandb.json    the id of the W&B run, and how far it was logged

A sink is opened at an env step. Entries of later env steps, from a session that was not saved, are
removed from CSV and event files. Weights & Biases cannot remove entries: there they stay, and are
not sent twice.
"""

import csv
import importlib
import io
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Protocol, runtime_checkable

from regrow.errors import RegrowError, require, unknown
from regrow.files.atomic import damaged, read_json, write_atomically, write_json
from regrow.files.places import Place, is_url


class Told(NamedTuple):
    """What a log has already: everything before an env step, and these names at that env step."""

    env_steps: int = -1
    names: frozenset[str] = frozenset()

    def holds(self, name: str, env_steps: int) -> bool:
        """Whether the log has a number or an event of this name at this env step."""
        there = env_steps == self.env_steps and name in self.names
        return there or env_steps < self.env_steps


@runtime_checkable
class Sink(Protocol):
    """Receives the numbers and events of one run, in the order of env steps."""

    told: Told
    """What the log had when it was opened."""

    def scalar(self, name: str, value: float, env_steps: int) -> None:
        """Logs a finite number at an env step."""
        ...

    def event(self, text: str, env_steps: int) -> None:
        """Logs a text at an env step, under the name `event`."""
        ...

    def flush(self) -> None:
        """Makes everything logged so far readable."""
        ...

    def close(self, *, failed: bool = False) -> None:
        """Flushes and closes the sink; `failed`: whether an error ended the run."""
        ...


class About(NamedTuple):
    """Name and configuration of a logged run."""

    name: str  # usable as a file name
    title: str
    group: str | None  # the group of runs that it belongs to
    config: Mapping[str, Any]


EVENT = "event"


def event_name(text: str) -> str:
    """The name of an event in `Told`."""
    return f"{EVENT} {text}"


class Csv:
    """A CSV table in long format, as the names are not known in advance."""

    COLUMNS = ("env_steps", "name", "value", "text")

    def __init__(self, folder: Place, about: About, start: int):
        path = folder / f"{about.name}.csv"
        rows = self._kept(path, start) if start and path.is_file() else []
        there = [(name, text) for step, name, _, text in rows if step == start]
        self.told = Told(start, frozenset(event_name(t) if t else name for name, t in there))
        table = io.StringIO()
        self._writer(table).writerows([self.COLUMNS, *rows])
        write_atomically(path, lambda file: file.write(table.getvalue().encode()))
        self._file = path.open("a", encoding="utf-8", newline="")
        self._rows = self._writer(self._file)

    def _writer(self, file: Any) -> Any:
        return csv.writer(file, lineterminator="\n")

    def _kept(self, path: Place, start: int) -> list[tuple[int, str, str, str]]:
        """The rows up to env step `start`; a truncated last row is dropped."""
        text = path.read_bytes().decode(errors="replace")
        try:
            header, *rows = csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
            if tuple(header) != self.COLUMNS:
                raise ValueError(f"its columns are {','.join(header)}")
            read = [(int(step), name, value, said) for step, name, value, said in rows]
        except (ValueError, csv.Error) as error:
            raise damaged(path, str(error)) from error
        return [row for row in read if row[0] <= start]

    def scalar(self, name: str, value: float, env_steps: int) -> None:
        """Writes a row with a value."""
        self._rows.writerow([env_steps, name, repr(value), ""])

    def event(self, text: str, env_steps: int) -> None:
        """Writes a row with a text."""
        self._rows.writerow([env_steps, EVENT, "", text])

    def flush(self) -> None:
        """Flushes the file."""
        self._file.flush()

    def close(self, *, failed: bool = False) -> None:
        """Closes the file."""
        del failed
        self._file.close()


class TensorBoard:
    """TensorBoard event files.

    When a new file starts at an env step, TensorBoard discards what it read of later env steps.
    Records are written directly. `SummaryWriter` of tensorboardX 2.6 writes from a thread: its
    `flush` does not empty the queue, and the thread ends silently if the disk is full.
    """

    def __init__(self, folder: Place, about: About, start: int):
        package("tensorboardX", "tensorboard")
        self._event = importlib.import_module("tensorboardX.proto.event_pb2")
        self._summary = importlib.import_module("tensorboardX.summary")
        self._records = importlib.import_module("tensorboardX.record_writer")
        own = folder / about.name
        own.mkdir(parents=True, exist_ok=True)
        earlier, names = sorted(own.glob("events.out.tfevents.*")), set[str]()
        for path in earlier:
            names |= self._cut(path, start)
        self.told = Told(start, frozenset(names))
        # TensorBoard reads files in the order of their names: by second, then by number.
        name = f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{len(earlier)}"
        self._file = self._records.RecordWriter(str(own / name))
        self._write(file_version="brain.Event:2")
        if start:
            begins = self._event.SessionLog(status=self._event.SessionLog.START)
            self._write(session_log=begins, step=start + 1)

    def _cut(self, path: Place, start: int) -> set[str]:
        """Removes entries later than `start` from a file; the names of its entries at `start`."""
        if not start:
            path.unlink()
            return set()
        content, kept, names = path.read_bytes(), [], set[str]()
        for record, data in self._read(content):
            event = self._event.Event.FromString(data)
            if event.HasField("summary"):
                if event.step > start:
                    continue
                for value in event.summary.value if event.step == start else ():
                    said = [text.decode() for text in value.tensor.string_val]
                    names |= {event_name(text) for text in said} or {value.tag}
            kept.append(record)
        if (left := b"".join(kept)) != content:
            write_atomically(path, lambda file: file.write(left))
        return names

    def _read(self, content: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Generates (record, its data); stops at a truncated record.

        A record is: length (8 bytes), checksum of the length (4), data, checksum of the data (4).
        """
        at = 0
        while at + 16 <= len(content):
            length, check = struct.unpack_from("<QI", content, at)
            end = at + 16 + length
            whole = self._records.masked_crc32c(content[at : at + 8]) == check
            if not whole or end > len(content):
                return
            yield content[at:end], content[at + 12 : end - 4]
            at = end

    def _write(self, **content: Any) -> None:
        event = self._event.Event(wall_time=time.time(), **content)
        self._file.write(event.SerializeToString())

    def scalar(self, name: str, value: float, env_steps: int) -> None:
        """Adds a point to the curve `name`."""
        self._write(summary=self._summary.scalar(name, value), step=env_steps)

    def event(self, text: str, env_steps: int) -> None:
        """Adds a text under `event`."""
        self._write(summary=self._summary.text(EVENT, text), step=env_steps)

    def flush(self) -> None:
        """Flushes the file to disk."""
        self._file.flush()

    def close(self, *, failed: bool = False) -> None:
        """Closes the file."""
        del failed
        try:
            self._file.flush()
        finally:
            self._file.close()


class WeightsAndBiases:
    """A run of Weights & Biases, with `env_steps` as the x axis of all charts.

    W&B's own steps are not used: they cannot go back, and a past step accepts no more values. A
    resumed run continues the same W&B run. Offline, W&B cannot resume a run, so a resumed run
    becomes a new one with the same name and group.
    """

    def __init__(self, folder: Place, about: About, start: int):
        wandb = self._wandb = package("wandb", "wandb")
        self._state = folder / f"{about.name}.wandb.json"
        held = read_json(self._state) if start and self._state.is_file() else {}
        self.told = Told(held.get("env_steps", -1), frozenset(held.get("names", ())))
        folder.mkdir(parents=True, exist_ok=True)
        known, own = held.get("id"), {"silent": True, "console": "off"}
        if "x_transaction_log_flush_interval" in wandb.Settings.model_fields:
            own["x_transaction_log_flush_interval"] = 1.0  # seconds; 15 by default
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "regrow"),
            name=about.title,
            group=about.group,
            config=dict(about.config),
            dir=str(folder),
            reinit="create_new",
            settings=wandb.Settings(**own),
            **({"id": known, "resume": "allow"} if known else {}),
        )
        self._run.define_metric("*", step_metric="env_steps")
        self._last, self._rows = self.told, dict[int, dict[str, Any]]()

    def _at(self, env_steps: int, name: str) -> dict[str, Any]:
        names = self._last.names if env_steps == self._last.env_steps else frozenset()
        self._last = Told(env_steps, names | {name})
        return self._rows.setdefault(env_steps, {})

    def scalar(self, name: str, value: float, env_steps: int) -> None:
        """Adds a point to the chart `name`."""
        self._at(env_steps, name)[name] = value

    def event(self, text: str, env_steps: int) -> None:
        """Adds a text under `event`; several of one env step are separate lines."""
        row = self._at(env_steps, event_name(text))
        row[EVENT] = "\n".join(filter(None, (row.get(EVENT), text)))

    def flush(self) -> None:
        """Passes everything to W&B's process, which sends it or writes it to disk within 1 s."""
        with self._process():
            for env_steps, row in self._rows.items():
                self._run.log({"env_steps": env_steps, **row})
        if self._rows:
            about = {} if self._run.offline else {"id": self._run.id}
            names = sorted(self._last.names)
            write_json(self._state, {**about, "env_steps": self._last.env_steps, "names": names})
        self._rows.clear()

    def close(self, *, failed: bool = False) -> None:
        """Finishes the W&B run."""
        self.flush()
        with self._process():
            self._run.finish(exit_code=int(failed))

    @contextmanager
    def _process(self) -> Iterator[None]:
        """If W&B's process is gone, tears W&B down: its exit hook would print a traceback."""
        try:
            yield
        except ConnectionError:
            with suppress(ConnectionError):
                self._wandb.teardown()
            raise


SINKS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "csv": Csv}


def require_loggable(names: Sequence[str], folder: Place) -> None:
    """Raises `RegrowError` if sinks would write into an object store, where nothing is appended."""
    require(
        not names or not is_url(folder),
        f"--log {', '.join(names)} writes into a folder, and --out is {folder}; leave it out, and "
        "`regrow export` writes the same afterwards",
    )


def checked(names: str | Sequence[str]) -> tuple[str, ...]:
    """The names of sinks without duplicates.

    Raises `RegrowError` if a name is unknown, a package is not installed, or Weights & Biases is
    online and the login fails.
    """
    names = tuple(dict.fromkeys([names] if isinstance(names, str) else names))
    for name in names:
        if name not in SINKS:
            raise unknown("log", name, SINKS)
    if "tensorboard" in names:
        package("tensorboardX", "tensorboard")
    if "wandb" in names:
        _let_in(package("wandb", "wandb"))
    return names


def package(name: str, extra: str) -> Any:
    """Imports an optional package; `RegrowError` if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RegrowError(f"this needs {name}: pip install 'regrow[{extra}]' ({error})") from error


def _let_in(wandb: Any) -> None:
    if wandb.setup().settings.mode in ("offline", "dryrun", "disabled"):
        return
    try:
        there, why = wandb.login(verify=True), "nobody is logged in"
    except Exception as error:  # of many types, including httpx's and pydantic's
        there, why = False, " ".join(str(error).split())
    require(
        there,
        f"Weights & Biases cannot be logged into ({why}); run `wandb login`, or set "
        "WANDB_MODE=offline",
    )

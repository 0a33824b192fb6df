"""Logs, read back without the code that wrote them."""

import csv
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog


class Row(NamedTuple):
    env_steps: int
    name: str
    value: float | str


def from_csv(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return [
            Row(int(row["env_steps"]), row["name"], row["text"] or float(row["value"]))
            for row in csv.DictReader(file)
        ]


def from_tensorboard(folder: Path) -> list[Row]:
    """Every point of every file, in the order in which TensorBoard reads them."""
    rows = []
    for path in sorted(folder.glob("*tfevents*")):
        for event in events(path):
            for value in event.summary.value:
                if value.HasField("tensor"):
                    text = value.tensor.string_val[0].decode()
                    rows.append(Row(event.step, value.tag.removesuffix("/text_summary"), text))
                else:
                    rows.append(Row(event.step, value.tag, value.simple_value))
    return rows


def session_starts(folder: Path) -> list[int]:
    """The env steps from which on TensorBoard forgets what it read before."""
    files = sorted(folder.glob("*tfevents*"))
    return [
        event.step
        for path in files
        for event in events(path)
        if event.session_log.status == SessionLog.START
    ]


def events(path: Path) -> Iterator[Event]:
    content, at = path.read_bytes(), 0
    while at < len(content):
        length, head = struct.unpack_from("<QI", content, at)
        data = content[at + 12 : at + 12 + length]
        (tail,) = struct.unpack_from("<I", content, at + 12 + length)
        assert (head, tail) == (_masked(content[at : at + 8]), _masked(data))
        yield Event.FromString(data)
        at += 16 + length


def _masked(data: bytes) -> int:
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


class Offline(NamedTuple):
    name: str
    group: str
    project: str
    config: dict[str, Any]
    step_metrics: dict[str, str]  # by what names they are the x axis of
    rows: list[Row]
    exit_code: int | None


def from_wandb(folder: Path) -> list[Offline]:
    """The offline runs in a folder, all of them finished, in the order in which they were begun.

    A process of W&B's own writes them, and is a moment behind.
    """
    paths = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=_begun)
    end, runs = time.monotonic() + 60, [None]
    while any(run is None or run.exit_code is None for run in runs):
        assert time.monotonic() < end, f"runs in {folder} were not written to their end"
        runs = [_offline(path) for path in paths]
    return [run for run in runs if run is not None]


def _begun(path: Path) -> str:
    """offline-run-<time>-<id>; of those of one second, by what was there first."""
    return f"{path.parent.name.rsplit('-', 1)[0]} {path.parent.stat().st_ctime_ns}"


def _offline(path: Path) -> Offline | None:
    from wandb.proto.wandb_internal_pb2 import Record

    rows, steps, code, run = [], {}, None, None
    for data in _leveldb(path.read_bytes()):
        record = Record.FromString(data)
        match record.WhichOneof("record_type"):
            case "run":
                run = record.run
            case "metric":
                steps[record.metric.glob_name or record.metric.name] = record.metric.step_metric
            case "exit":
                code = record.exit.exit_code
            case "history":
                items = record.history.item
                held = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
                env_steps = held.pop("env_steps")
                rows += [
                    Row(env_steps, name, value)
                    for name, value in held.items()
                    if not name.startswith("_")
                ]
    if run is None:
        return None
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    return Offline(run.display_name, run.run_group, run.project, config, steps, rows, code)


def _leveldb(content: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format, behind 7 bytes that say whose it is."""
    assert content[:4] == b":W&B"
    at, parts, block = 7, b"", 32_768
    while at + 7 <= len(content):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        if kind == 0:
            return
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""

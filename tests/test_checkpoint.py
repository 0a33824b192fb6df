"""A checkpoint that is not whole is refused by name; a write that fails leaves the old one."""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from trees import bit_equal

from regrow.agents import DoubleDQN
from regrow.environments import Breakout
from regrow.errors import RegrowError
from regrow.files import atomic
from regrow.files.atomic import read_json, write_atomically, write_json
from regrow.training.checkpoint import load, save
from regrow.training.run import Run

AGENT = DoubleDQN(hidden=8, channels=2, replay_capacity=50)


@pytest.fixture
def saved(tmp_path) -> tuple[Run, Path]:
    run = Run.start(AGENT, Breakout(), seed=0)
    save(run, tmp_path / "run.ckpt")
    return run, tmp_path / "run.ckpt"


def alter(path: Path, name: str, change) -> None:
    """Rewrites one member of a checkpoint with what `change` makes of its bytes."""
    with zipfile.ZipFile(path) as archive:
        contents = {member: archive.read(member) for member in archive.namelist()}
    contents[name] = change(contents[name])
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in contents.items():
            archive.writestr(member, content)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_one_that_was_cut_short_is_named(saved, share):
    _, path = saved
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(RegrowError, match=r"run\.ckpt is cut short or altered"):
        load(path)


def test_any_altered_byte_of_an_array_is_found(saved):
    _, path = saved
    kernel = "agent.q.network.layers.0.weight.npy"
    alter(path, kernel, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(RegrowError, match=r"layers\.0\.weight does not match its checksum"):
        load(path)


def test_a_flipped_bit_in_the_file_is_found(saved):
    _, path = saved
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(bytes(data))
    with pytest.raises(RegrowError, match="is cut short or altered"):
        load(path)


def test_another_format_is_named(saved):
    _, path = saved
    alter(path, "manifest.json", lambda d: json.dumps({**json.loads(d), "format": 99}).encode())
    with pytest.raises(
        RegrowError, match="is a checkpoint of format 99; this version reads 2 to 4"
    ):
        load(path)


def test_a_pickle_is_never_read(saved):
    _, path = saved
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    alter(path, "env_steps.npy", lambda _: buffer.getvalue())
    with pytest.raises(RegrowError, match="is cut short or altered"):
        load(path)


def test_one_that_is_absent_is_named(tmp_path):
    with pytest.raises(RegrowError, match="no checkpoint at"):
        load(tmp_path / "run.ckpt")


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_write_that_fails_leaves_the_old_one(saved, monkeypatch, failing):
    run, path = saved

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, failing, full)
    other = Run.start(AGENT, Breakout(), seed=1)
    with pytest.raises(RegrowError, match=r"cannot write .*run\.ckpt: No space left on device"):
        save(other, path)
    monkeypatch.undo()
    assert bit_equal(load(path).state, run.state)
    assert os.listdir(path.parent) == ["run.ckpt"]


def test_an_interrupted_write_leaves_the_old_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupted(file):
        file.write(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_json_holds_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"x": [float("nan"), np.float32(1.5), np.int64(2)], 3: None})
    assert read_json(tmp_path / "a.json") == {"x": [None, 1.5, 2], "3": None}
    (tmp_path / "a.json").write_text('{"x": [1.')
    with pytest.raises(RegrowError, match=r"a\.json is cut short or altered"):
        read_json(tmp_path / "a.json")

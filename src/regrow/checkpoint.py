"""Saving and loading a Run: exact, atomic, and never a pickle.

One file: a zip of plain NumPy arrays, one per leaf, and a manifest with the agent, the environment,
the interventions carried out, and a SHA-256 of every array. The structure is rebuilt from those
names by the code that made it; the arrays must then fit it. A file that was cut short or altered is
refused by name.
"""

import hashlib
import json
import os
import secrets
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from regrow.earlier import FORMAT as FOLDER_FORMAT
from regrow.earlier import as_meant, refused
from regrow.errors import RegrowError, require
from regrow.families import describe, make
from regrow.locks import LOCK, alone
from regrow.numerics import in_float32, setting
from regrow.run import Event, Run, rehearsed

FORMAT = 3  # 2 had neither `restarts` nor, of what is remembered, `truncated`
READABLE = (2, 3)
SAVE_EVERY = 60.0  # seconds between saves of long work
_MANIFEST = "manifest.json"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file under another name and renames it: a reader sees the old one or the new one.

    Raises `RegrowError` where the folder cannot be written to or the disk is full; a file that was
    there before is then still there.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
        try:
            with temporary.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            _replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RegrowError(f"cannot write {path}: {error.strerror or error}") from error


def _replace(source: Path, target: Path) -> None:
    """Renames; on Windows that fails for as long as another process reads what is replaced."""
    for wait in (0.01, 0.1, 1.0) if sys.platform == "win32" else ():
        try:
            os.replace(source, target)
            return
        except PermissionError:
            time.sleep(wait)
    os.replace(source, target)


@contextmanager
def claimed(folder: Path, config: dict[str, Any]) -> Iterator[None]:
    """Makes a folder this run's own, and for the length of the block this process's alone.

    Raises `RegrowError` where it holds something else, or another process is at work in it: two of
    them would write over what the other has done.
    """
    config = {"format": FOLDER_FORMAT, **config}
    _refuse_others(folder, config)  # of what is not a run's, nothing is touched
    with alone(folder):
        _refuse_others(folder, config)  # another process may just have claimed it
        path = folder / "config.json"
        if not path.is_file():
            write_json(path, config)
        yield


def _refuse_others(folder: Path, config: dict[str, Any]) -> None:
    """Raises `RegrowError` where a folder holds anything but this run.

    Or what another version began in which the texts of a configuration mean something else.
    """
    path = folder / "config.json"
    if path.is_file():
        held = read_json(path)
        if not isinstance(held, dict):
            raise damaged(path, "it is no configuration")
        if held.get("format", 1) != FOLDER_FORMAT:
            raise refused(f"the run in {folder}", held.get("format", 1))
        for name in sorted(config.keys() | held.keys()):
            ours, theirs = config.get(name), held.get(name)
            require(
                ours == theirs,
                f"{folder} holds another run: its {name} is {theirs!r}, not {ours!r}; "
                "choose another --out or delete it",
            )
        return
    if folder.exists() and not folder.is_dir():
        raise RegrowError(f"{folder} is a file; --out must be a folder")
    require(is_empty(folder), f"{folder} is not empty and holds no run; choose another --out")


def is_empty(folder: Path) -> bool:
    """Whether a folder is not there, or holds nothing but what is left of a write or a lock."""
    held = folder.iterdir() if folder.is_dir() else ()
    return all(path.suffix == ".tmp" or path.name == LOCK for path in held)


def kind_of(folder: Path) -> str:
    """Whether a folder is that of a "training" or a "diagnosis"; of anything else ""."""
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else {}
    return str(config.get("kind", "")) if isinstance(config, dict) else ""


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically, indented, non-finite numbers as null."""
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, lambda file: file.write(text.encode() + b"\n"))


def read_json(path: Path) -> Any:
    """What is in a JSON file; raises `RegrowError` where it is absent or damaged."""
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError as error:
        raise RegrowError(f"there is no {path}") from error
    except PermissionError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from error


def _finite(content: Any) -> Any:
    """`content` as JSON can hold it: plain numbers, None in place of NaN and infinity."""
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, np.generic):
        content = content.item()
    if isinstance(content, float) and not np.isfinite(content):
        return None
    return content


def save(run: Run, path: Path) -> None:
    """Writes `run` to `path`, in place of what was there, or not at all."""
    arrays = {name: _to_numpy(leaf) for name, leaf in _named_leaves(run.state)}
    manifest = {
        "format": FORMAT,
        "agent": describe(run.agent),
        "environment": describe(run.environment),
        "history": [list(event) for event in run.history],
        "restarts": list(run.restarts),
        "key_impl": str(jax.random.key_impl(run.state.root)),
        "threefry_partitionable": setting("jax_threefry_partitionable"),
        "arrays": {name: _signature(array) for name, array in arrays.items()},
    }

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(_MANIFEST, json.dumps(manifest))
            for name, array in arrays.items():
                # Straight into the file: a replay may be half of the memory that there is.
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, _packed(array), allow_pickle=False)

    write_atomically(path, write)


@in_float32
def load(path: Path) -> Run:
    """The Run that was saved at `path`.

    Raises `RegrowError` where the file is absent, cut short, altered, or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise RegrowError(f"no checkpoint at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _checked(json.loads(archive.read(_MANIFEST)), path)
            arrays = {
                name: _unpacked(_read(archive, name), signature)
                for name, signature in manifest["arrays"].items()
            }
    except (RegrowError, PermissionError):
        raise
    except Exception as error:  # a byte that is not as it was may surface as anything at all
        raise damaged(path, str(error)) from error
    for name, signature in manifest["arrays"].items():
        if _signature(arrays[name]) != signature:
            raise damaged(path, f"{name} does not match its checksum")
    return _rebuilt(manifest, arrays, path)


def _checked(manifest: dict[str, Any], path: Path) -> dict[str, Any]:
    if manifest["format"] not in READABLE:
        raise RegrowError(
            f"{path} is a checkpoint of format {manifest['format']}; this version reads "
            f"{' and '.join(map(str, READABLE))}"
        )
    for name in ("agent", "environment", "key_impl"):
        require(isinstance(manifest[name], str), f"{path}: {name} is no text")
    manifest["restarts"] = tuple(int(step) for step in manifest.get("restarts", ()))
    meant = as_meant if manifest["format"] < 3 else str
    manifest["history"] = [(int(step), meant(str(text))) for step, text in manifest["history"]]
    return manifest


def damaged(path: Path, why: str) -> RegrowError:
    """The error for a file that is not as it was written."""
    return RegrowError(f"{path} is cut short or altered ({why}); restore or delete it")


def _rebuilt(manifest: dict[str, Any], arrays: dict[str, np.ndarray], path: Path) -> Run:
    agent = make("agents", manifest["agent"])
    environment = make("environments", manifest["environment"])
    history = tuple(Event(steps, text) for steps, text in manifest["history"])
    done = [make("interventions", event.intervention) for event in history]
    structure = rehearsed(agent, environment, done)
    expected = dict(_named_leaves(structure))
    if manifest["format"] == 2:
        new = {name for name in expected if name.endswith("replay.truncated")}
        new |= {name for name in expected if name.endswith("storage.truncated")}
        arrays |= {name: np.zeros(expected[name].shape, bool) for name in new}
    if expected.keys() != arrays.keys():
        odd = sorted(expected.keys() ^ arrays.keys())[0]
        raise RegrowError(f"{path} does not fit its own agent and environment: {odd} is odd")
    impl = manifest["key_impl"]
    _require_same_draws(manifest, path)
    leaves = [_to_jax(arrays[name], like, impl) for name, like in expected.items()]
    for (name, like), leaf in zip(expected.items(), leaves, strict=True):
        if (leaf.shape, leaf.dtype) != (like.shape, like.dtype):
            raise RegrowError(
                f"{path}: {name} is {leaf.dtype}{list(leaf.shape)}, "
                f"{like.dtype}{list(like.shape)} was expected"
            )
    state = jax.tree.unflatten(jax.tree.structure(structure), leaves)
    return Run(state, agent, environment, history, manifest["restarts"])


def _require_same_draws(manifest: dict[str, Any], path: Path) -> None:
    """Raises `RegrowError` where JAX would draw other numbers from the keys that were saved."""
    now = {
        "jax_default_prng_impl": (manifest["key_impl"], setting("jax_default_prng_impl")),
        "jax_threefry_partitionable": (
            manifest.get("threefry_partitionable", True),  # older checkpoints, JAX's default
            setting("jax_threefry_partitionable"),
        ),
    }
    for name, (then, here) in now.items():
        require(
            then == here,
            f"{path} was saved with {name} {then}, and it is {here} now: other random numbers; "
            f"set {name.upper()}={then}",
        )


def _named_leaves(state: PyTree) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]


def _to_numpy(leaf: Array) -> np.ndarray:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def _to_jax(array: np.ndarray, like: Any, impl: str) -> Array:
    leaf = jnp.array(array)
    is_key = jnp.issubdtype(like.dtype, jax.dtypes.prng_key)
    return jax.random.wrap_key_data(leaf, impl=impl) if is_key else leaf


def _signature(array: np.ndarray) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data).hexdigest()
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest}


def _packed(array: np.ndarray) -> np.ndarray:
    """Booleans eight to a byte: a replay of binary images shrinks to an eighth."""
    return np.packbits(array) if array.dtype == bool else array


def _read(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as entry:
        return np.lib.format.read_array(entry, allow_pickle=False)


def _unpacked(array: np.ndarray, signature: dict[str, Any]) -> np.ndarray:
    if signature["dtype"] != "bool":
        return array
    shape = tuple(signature["shape"])
    return np.unpackbits(array, count=int(np.prod(shape))).astype(bool).reshape(shape)

"""Saving and loading a Run: exact, atomic, and never a pickle.

A checkpoint is one zip file of plain NumPy arrays, one per leaf, and a manifest. The manifest has
the agent, the environment, the interventions carried out, and a SHA-256 of every array. Loading
rebuilds the structure from those names, and the arrays must fit it. A truncated or altered file
raises an error that names it.
"""

import hashlib
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jaxtyping import Array, PyTree

from regrow.errors import RegrowError, require, warn_once
from regrow.experience.recent import only_recent
from regrow.files.atomic import damaged, write_atomically
from regrow.files.formats import as_meant
from regrow.files.places import Place, local, place
from regrow.registry import describe, make, names_in
from regrow.training.numerics import in_float32, setting
from regrow.training.run import Run, abstract_state
from regrow.types import Event

FORMAT = 4
"""Format 3 used other field names. Format 2 had no `restarts`, and no `truncated` in its replay."""
READABLE = (2, 3, 4)
_RENAMED = {"habits": "hooks", "before": "previous_network"}  # after format 3
_MANIFEST = "manifest.json"


class Signature(msgspec.Struct):
    """The expected shape, dtype and checksum of an array in a checkpoint."""

    shape: tuple[int, ...]
    dtype: str
    sha256: str


class Manifest(msgspec.Struct, kw_only=True):
    """The metadata of a checkpoint."""

    format: int
    agent: str
    environment: str
    history: list[tuple[int, str]]
    restarts: tuple[int, ...] = ()
    key_impl: str
    threefry_partitionable: bool = True  # JAX's default, for older checkpoints without the field
    label: str = ""
    transitions: int = 0  # of the replay, if it has not all of them
    arrays: dict[str, Signature]


def save(run: Run, path: Place, label: str = "") -> None:
    """Saves `run` to `path` atomically, replacing what was there. `label`: what it belongs to."""
    write_atomically(path, writer(run, label))


def writer(run: Run, label: str = "", transitions: int | None = None) -> Callable[[BinaryIO], None]:
    """A copy of `run`, as a function that writes it to a file.

    `transitions`: how many of the replay it has at most, the newest; by default all.
    """
    arrays, kept = {name: _to_numpy(leaf) for name, leaf in _named_leaves(run.state)}, 0
    if transitions is not None and run.replay_size:
        arrays, kept = only_recent(arrays, transitions)
    # A copy: the buffers of a Run are donated when it advances.
    arrays = {n: held if held.flags.writeable else held.copy() for n, held in arrays.items()}
    manifest = Manifest(
        format=FORMAT,
        agent=describe(run.agent),
        environment=describe(run.environment),
        history=[(event.env_steps, event.intervention) for event in run.history],
        restarts=run.restarts,
        key_impl=str(jax.random.key_impl(run.state.root)),
        threefry_partitionable=setting("jax_threefry_partitionable"),
        label=label,
        transitions=kept,
        arrays={},
    )

    method = zipfile.ZIP_DEFLATED if kept else zipfile.ZIP_STORED

    def write(file: BinaryIO) -> None:
        manifest.arrays = {name: _signature(array) for name, array in arrays.items()}
        with zipfile.ZipFile(file, "w", method, compresslevel=1) as archive:
            archive.writestr(_MANIFEST, msgspec.json.encode(manifest))
            for name, array in arrays.items():
                # Write straight to the file: a replay may fill half of the memory.
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, _packed(array), allow_pickle=False)

    return write


@in_float32
def load(path: str | Place, label: str = "", *, trust: bool = False) -> Run:
    """The Run saved at `path`.

    Raises `RegrowError` if the file is absent, truncated, altered, of an unknown format, or if it
    has another label than this one, or if it names a module that was not imported: that is done
    with `trust` only, as it runs the module.
    """
    path = place(path)
    require(path.is_file(), f"no checkpoint at {path}")
    try:
        with local(path) as file, zipfile.ZipFile(file) as archive:
            manifest = _manifest(archive.read(_MANIFEST), path)
            arrays = {
                name: _unpacked(_read(archive, name), signature)
                for name, signature in manifest.arrays.items()
            }
    except (RegrowError, PermissionError):
        raise
    except Exception as error:  # a corrupted byte may raise any exception
        raise damaged(path, str(error)) from error
    if label and manifest.label and manifest.label != label:
        raise damaged(path, f"it is the checkpoint of {manifest.label}, not of {label}")
    for name, signature in manifest.arrays.items():
        if _signature(arrays[name]) != signature:
            raise damaged(path, f"{name} does not match its checksum")
    if manifest.transitions:
        warn_once(
            f"{path} has the last {manifest.transitions:,} transitions of its replay only; the run "
            "goes on, but not as it would have without the stop"
        )
    with names_in(path, trust=trust):
        return _rebuilt(manifest, arrays, path)


def _manifest(text: bytes, path: Place) -> Manifest:
    number = msgspec.json.decode(text)["format"]
    if number not in READABLE:
        raise RegrowError(
            f"{path} is a checkpoint of format {number}; this version reads {READABLE[0]} to "
            f"{READABLE[-1]}"
        )
    return msgspec.json.decode(text, type=Manifest)


def _rebuilt(manifest: Manifest, arrays: dict[str, np.ndarray], path: Place) -> Run:
    agent = make("agents", manifest.agent)
    environment = make("environments", manifest.environment)
    meant = as_meant if manifest.format < 3 else str
    history = tuple(Event(steps, meant(text)) for steps, text in manifest.history)
    done = [make("interventions", event.intervention) for event in history]
    structure = abstract_state(agent, environment, done)
    expected = dict(_named_leaves(structure))
    if manifest.format < 4:
        arrays = {_name_now(name): array for name, array in arrays.items()}
    if manifest.format == 2:
        new = {name for name in expected if name.endswith("replay.truncated")}
        new |= {name for name in expected if name.endswith("storage.truncated")}
        arrays |= {name: np.zeros(expected[name].shape, bool) for name in new}
    if expected.keys() != arrays.keys():
        odd = sorted(expected.keys() ^ arrays.keys())[0]
        raise RegrowError(f"{path} does not fit its own agent and environment: {odd} is odd")
    impl = manifest.key_impl
    _require_same_draws(manifest, path)
    leaves = [_to_jax(arrays[name], like, impl) for name, like in expected.items()]
    for (name, like), leaf in zip(expected.items(), leaves, strict=True):
        if (leaf.shape, leaf.dtype) != (like.shape, like.dtype):
            raise RegrowError(
                f"{path}: {name} is {leaf.dtype}{list(leaf.shape)}, "
                f"{like.dtype}{list(like.shape)} was expected"
            )
    state = jax.tree.unflatten(jax.tree.structure(structure), leaves)
    return Run(state, agent, environment, history, manifest.restarts)


def _name_now(name: str) -> str:
    return ".".join(_RENAMED.get(part, part) for part in name.split("."))


def _require_same_draws(manifest: Manifest, path: Place) -> None:
    """Raises `RegrowError` if JAX would draw other random numbers from the saved keys."""
    now = {
        "jax_default_prng_impl": (manifest.key_impl, setting("jax_default_prng_impl")),
        "jax_threefry_partitionable": (
            manifest.threefry_partitionable,
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


def _signature(array: np.ndarray) -> Signature:
    digest = hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data).hexdigest()
    return Signature(array.shape, str(array.dtype), digest)


def _packed(array: np.ndarray) -> np.ndarray:
    """Packs booleans eight to a byte: a replay of binary images shrinks to an eighth."""
    return np.packbits(array) if array.dtype == bool else array


def _read(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as entry:
        return np.lib.format.read_array(entry, allow_pickle=False)


def _unpacked(array: np.ndarray, signature: Signature) -> np.ndarray:
    if signature.dtype != "bool":
        return array
    shape = signature.shape
    return np.unpackbits(array, count=int(np.prod(shape))).astype(bool).reshape(shape)

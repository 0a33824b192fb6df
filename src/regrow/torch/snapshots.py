"""Copies of an agent with all that it holds: networks, optimizers, buffers, environments.

An agent is one graph of objects, in which a parameter is held by its module, its optimizer and a
target's list. It is copied as a whole by pickling, so that these stay the same object. What does
not copy by itself is told here:

- An environment of Gymnasium is copied with all of its attributes. By itself one that inherits
  `EzPickle` would be made anew, and its state would be lost without a word.
- Loggers and open files are left out.
- An emulator of Atari is made anew and gets the old one's state.
- Of a replay buffer that is not full, the empty part is left out.

Reading a snapshot runs code that it names, as every pickle does.
"""

import inspect
import io
import pickle
from typing import Any

import cloudpickle
import numpy as np

from regrow.errors import RegrowError, in_a_line


def dumped(content: Any) -> bytes:
    """A graph of objects as bytes.

    Raises `RegrowError` where something in it cannot be copied, with its class.
    """
    file = io.BytesIO()
    try:
        _Pickler(file, protocol=5).dump(content)
    except RegrowError:
        raise
    except Exception as error:  # what an environment holds may raise anything
        raise RegrowError(f"it cannot be copied: {in_a_line(error)}") from error
    return file.getvalue()


def loaded(content: bytes) -> Any:
    """The graph of objects that was dumped; `RegrowError` where it cannot be read."""
    try:
        return pickle.loads(content)
    except Exception as error:
        raise RegrowError(f"the snapshot cannot be read: {in_a_line(error)}") from error


class _Pickler(cloudpickle.CloudPickler):
    """A pickler that knows what does not copy by itself."""

    def reducer_override(self, obj: Any) -> Any:
        for name, reduce in _REDUCERS.items():
            if any(_is_named(kind, name) for kind in type(obj).__mro__):
                reduced = reduce(obj)
                if reduced is not None:
                    return reduced
        return super().reducer_override(obj)


def _is_named(kind: type, name: str) -> bool:
    return f"{kind.__module__}.{kind.__qualname__}" == name


def _environment(environment: Any) -> Any:
    attributes = dict(vars(environment))
    attributes.pop(_OF_ITS_CLASS, None)
    return _blank, (type(environment),), attributes, None, None, _set_attributes


_OF_ITS_CLASS = "class_attributes"
"""What a VecEnvWrapper keeps of its class, which is there again with the class."""


def _blank(kind: type) -> Any:
    return object.__new__(kind)


def _set_attributes(thing: Any, attributes: dict[str, Any]) -> None:
    vars(thing).update(attributes)
    if "venv" in attributes:
        vars(thing)[_OF_ITS_CLASS] = dict(inspect.getmembers(type(thing)))


def _emulator(environment: Any) -> Any:
    sticky = getattr(environment, "_repeat_action_probability", None)
    sticky = environment.ale.getFloat("repeat_action_probability") if sticky is None else sticky
    if sticky:
        raise RegrowError(
            "an emulator with sticky actions cannot be copied: its state leaves out the action "
            "that it would repeat"
        )
    attributes = {name: value for name, value in vars(environment).items() if name != "ale"}
    state = environment.ale.cloneState(include_rng=True)
    return _emulated, (type(environment), attributes, pickle.dumps(state))


def _emulated(kind: type, attributes: dict[str, Any], state: bytes) -> Any:
    import ale_py

    environment = object.__new__(kind)
    vars(environment).update(attributes)
    environment.ale = ale_py.ALEInterface()
    environment.ale.setLoggerMode(ale_py.LoggerMode.Error)
    environment.ale.setFloat("repeat_action_probability", 0.0)
    environment.load_game()
    environment.ale.restoreState(pickle.loads(state))
    return environment


def _nothing(thing: Any) -> Any:
    del thing
    return type(None), ()


def _logger(logger: Any) -> Any:
    return type(logger), (None, [])


def _processes(environments: Any) -> Any:
    raise RegrowError(
        f"its environments run in other processes ({type(environments).__name__}), which cannot be "
        "copied; give a DummyVecEnv"
    )


def _buffer(buffer: Any) -> Any:
    """A replay buffer without its empty part."""
    attributes = dict(vars(buffer))
    if buffer.full or type(buffer).__name__ not in ("ReplayBuffer", "DictReplayBuffer"):
        return None
    shapes = dict[str, tuple[Any, ...]]()
    for name, value in attributes.items():
        if isinstance(value, np.ndarray) and value.ndim and len(value) == buffer.buffer_size:
            shapes[name] = (value.shape, value.dtype)
            # One row more: where memory is saved, it holds the last observation.
            attributes[name] = value[: buffer.pos + 1].copy()
    return _blank, (type(buffer),), (attributes, shapes), None, None, _filled


def _filled(buffer: Any, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    attributes, shapes = state
    vars(buffer).update(attributes)
    for name, (shape, dtype) in shapes.items():
        whole = np.zeros(shape, dtype)
        whole[: len(attributes[name])] = attributes[name]
        setattr(buffer, name, whole)


_REDUCERS = {
    "ale_py.env.AtariEnv": _emulator,
    "gymnasium.core.Env": _environment,
    "stable_baselines3.common.vec_env.subproc_vec_env.SubprocVecEnv": _processes,
    "stable_baselines3.common.vec_env.base_vec_env.VecEnv": _environment,
    "stable_baselines3.common.buffers.ReplayBuffer": _buffer,
    "stable_baselines3.common.logger.Logger": _logger,
    "stable_baselines3.common.monitor.ResultsWriter": _nothing,
    "_io.TextIOWrapper": _nothing,
}

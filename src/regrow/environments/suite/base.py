"""A simulation of the DeepMind Control Suite (Tassa et al. 2018, arXiv 1801.00690) by dm_control.

A snapshot copies the state bit for bit: MuJoCo's integration state (with the warm start of its
solver), the arrays of the model that some tasks change at the start of an episode (the position of
the target, the directions of the motors), the step count, and the state of the task's random
generator. A test searches the tasks of the suite for anything else.
"""

import contextlib
import functools
import importlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from regrow.environments.actions.base import Range
from regrow.environments.base import HostStep, Simulator, needed
from regrow.errors import RegrowError, unknown

# Arrays of the model that tasks change at the start of an episode.
_CHANGES = ("body_pos", "body_quat", "geom_pos", "site_pos", "light_pos", "wrap_prm", "hfield_data")


class Facts(NamedTuple):
    """Sizes: numbers per observation and per action, bytes per snapshot."""

    observation: int
    actions: int
    snapshot: int


@functools.cache
def facts(family: str, task: str) -> Facts:
    """The sizes of a task; `family`, "control" or "pixels", is named in errors."""
    with contextlib.closing(Suite(family, task, 1)) as simulator:
        return Facts(simulator.reset(0).size, simulator.actions, simulator.snapshot().size)


class Suite(Simulator):
    """One environment of the suite, with the observations of its task.

    Raises `RegrowError`, with the name of the `family`, if dm_control or the task is missing.
    """

    def __init__(self, family: str, task: str, action_repeat: int):
        self._environment = _loaded(family, task)
        self._mujoco: Any = importlib.import_module("mujoco")
        self._action_repeat = action_repeat
        bounds = self._environment.action_spec()
        self.actions = bounds.shape[0]
        low, high = (np.broadcast_to(end, bounds.shape) for end in (bounds.minimum, bounds.maximum))
        self._given = Range(low, high, f"{family}/{task}")
        self._begin(f"{family}/{task}")

    @property
    def physics(self) -> Any:
        """The `Physics` of dm_control."""
        return self._environment.physics

    def _begin(self, name: str) -> None:
        """Runs a first reset, which also sets what a task sets once, so that `restore` need not."""
        try:
            self.reset(0)
        except Exception as error:
            # Only quadruped-escape: it passes its terrain to a renderer.
            raise RegrowError(
                f"{name} cannot begin an episode ({' '.join(str(error).split())}); "
                "it draws its terrain: try MUJOCO_GL=egl"
            ) from error

    def reset(self, seed: int) -> NDArray[Any]:
        """Starts an episode from `seed`; returns its first observation."""
        self._environment.task.random.seed(seed)
        return _flat(self._environment.reset().observation)

    def step(self, action: NDArray[Any]) -> HostStep:
        """`action_repeat` control steps, fewer if the episode ends."""
        control = self._given(action)
        now = self._environment.step(control)
        reward = float(now.reward)
        for _ in range(self._action_repeat - 1):
            if now.last():
                break
            now = self._environment.step(control)
            reward += float(now.reward)
        # The discount of dm_control is 1 at the time limit, and 0 where the task itself ends.
        terminated = bool(now.last() and now.discount == 0)
        return HostStep(
            _flat(now.observation), reward, terminated, bool(now.last()) and not terminated
        )

    def close(self) -> None:
        """Frees the simulation's memory."""
        self._environment.close()

    def snapshot(self) -> NDArray[np.uint8]:
        """The bytes of everything that a step or a reset depends on."""
        parts = [self._state(), *self._changes(), *self._counters()]
        return np.concatenate([part.reshape(-1).view(np.uint8) for part in parts])

    def restore(self, snapshot: NDArray[np.uint8]) -> None:
        """Continues from where the snapshot was taken."""
        model, data = self._model_and_data()
        state, counters = self._state(), self._counters()
        _read(snapshot, [state, *self._changes(), *counters])
        self._mujoco.mj_setState(model, data, state, self._mujoco.mjtState.mjSTATE_INTEGRATION)
        # A step of dm_control starts from the positions and forces that the previous one computed.
        self._mujoco.mj_forward(model, data)
        self._environment._step_count = int(counters[0][0])
        key, (pos, has_gauss), (gauss,) = counters[1:]
        generator = {"key": key, "pos": int(pos)}
        self._environment.task.random.set_state(
            {
                "bit_generator": "MT19937",
                "state": generator,
                "has_gauss": int(has_gauss),
                "gauss": float(gauss),
            }
        )

    def _model_and_data(self) -> tuple[Any, Any]:
        return self.physics.model.ptr, self.physics.data.ptr

    def _state(self) -> NDArray[np.float64]:
        """The state that MuJoCo continues from, including the warm start of its solver."""
        everything = self._mujoco.mjtState.mjSTATE_INTEGRATION
        model, data = self._model_and_data()
        state = np.zeros(self._mujoco.mj_stateSize(model, everything))
        self._mujoco.mj_getState(model, data, state, everything)
        return state

    def _changes(self) -> list[NDArray[Any]]:
        """The arrays of the live model, not copies."""
        model, _ = self._model_and_data()
        return [getattr(model, name) for name in _CHANGES]

    def _counters(self) -> list[NDArray[Any]]:
        """The control steps of the episode, and the state of the task's random generator."""
        random = self._environment.task.random.get_state(legacy=False)
        return [
            np.array([self._environment._step_count]),
            random["state"]["key"],
            np.array([random["state"]["pos"], random["has_gauss"]]),
            np.array([random["gauss"]]),
        ]


def _loaded(family: str, task: str) -> Any:
    """The suite's environment of that name."""
    with _silence():
        suite = needed("dm_control.suite", "dm_control", f"{family}/{task}")
    domain, _, name = task.partition("-")
    if (domain, name) not in suite.ALL_TASKS:
        raise unknown(f"task of {family}", task, ("-".join(pair) for pair in suite.ALL_TASKS))
    with _silence():
        return suite.load(domain, name, task_kwargs={"random": 0})


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Silences two warnings that nobody can act on: no display, and the suite's own models."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _flat(observation: Any) -> NDArray[np.float32]:
    """The observations of a task, in its own order, as one vector."""
    parts = [np.ravel(part) for part in observation.values()]
    return np.concatenate(parts).astype(np.float32)


def _read(snapshot: NDArray[np.uint8], into: Sequence[NDArray[Any]]) -> None:
    """Fills arrays with the bytes of a snapshot, one array after the other."""
    start = 0
    for part in into:
        end = start + part.nbytes
        part[...] = snapshot[start:end].view(part.dtype).reshape(part.shape)
        start = end

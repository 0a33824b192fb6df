"""Sessions: the live simulations of one Run, with checks, time limits and cleanup.

Everything that a simulation returns is checked against what its environment declares, before an
agent learns from it. A `FaultyEnvironmentError` names the environment, the env step and the value;
it closes the session.

A session belongs to the Run whose array of snapshots it was registered under. When that array is
garbage-collected, the session is closed. So a dropped Run leaves no simulation open.
"""

import math
import os
import signal
import threading
import warnings
import weakref
from time import monotonic
from types import FrameType
from typing import Any

import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from regrow.environments.base import HostEnvironment, HostStep, Simulator
from regrow.errors import FaultyEnvironmentError, RegrowError, in_a_line
from regrow.registry import describe
from regrow.types import Continuous

LARGEST = float(np.finfo(np.float32).max)
FEW = 32  # numbers of an array that Python looks at one by one as fast as NumPy does together

PATIENCE = "REGROW_PATIENCE"
"""The environment variable with the time limit of a reset or a step, in seconds; 0: no limit."""

_DEFAULT_PATIENCE = 600.0


class Session:
    """`count` simulations of an environment; a context manager that closes them."""

    def __init__(self, environment: HostEnvironment, count: int):
        self.name = describe(environment)
        self._shape = tuple(environment.observation_shape)
        self._dtype = np.dtype(environment.observation_dtype)
        self._floats = self._dtype.kind == "f"
        self._vectors = isinstance(environment.action_space, Continuous)
        self._simulators: list[Simulator] = []
        self._patience = _patience()
        try:
            for _ in range(count):
                self._simulators.append(environment.simulator())
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._simulators)

    @property
    def simulators(self) -> tuple[Simulator, ...]:
        """The simulations themselves; calls on them are neither checked nor timed."""
        return tuple(self._simulators)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset(self, n: int, seed: int, env_step: int) -> NDArray[Any]:
        """Starts an episode of the n-th simulation after `env_step`; its first observation."""
        _watch.begin(self._patience)
        try:
            seen = self._simulators[n].reset(seed)
        except (Exception, SystemExit) as error:
            raise self._raised("reset", error, env_step) from error
        finally:
            _watch.end()
        return self._observation(seen, env_step)

    def step(self, n: int, action: NDArray[Any], env_step: int) -> HostStep:
        """Takes env step `env_step` of training in the n-th simulation."""
        if self._vectors and not np.isfinite(action).all():
            raise self._fault(env_step, f"the agent's action is {_shown(action)}, not finite")
        _watch.begin(self._patience)
        try:
            step = self._simulators[n].step(action)
        except (Exception, SystemExit) as error:
            raise self._raised("step", error, env_step) from error
        finally:
            _watch.end()
        for reward in (step.reward, step.learned_reward):
            if reward is not None and not abs(reward) <= LARGEST:
                raise self._fault(env_step, f"the reward is {reward}; it must be a finite number")
        seen = self._observation(step.observation, env_step)
        return step if seen is step.observation else step._replace(observation=seen)

    def clipped(self, action: NDArray[Any]) -> NDArray[Any]:
        """The action as the environment receives it: continuous ones are clipped to [−1, 1]."""
        return np.clip(action, -1.0, 1.0) if self._vectors else action

    def snapshots(self) -> list[NDArray[np.uint8]]:
        """A snapshot of each simulation."""
        return [one.snapshot() for one in self._simulators]

    def restore(self, n: int, snapshot: NDArray[np.uint8]) -> None:
        """Continues the n-th simulation from a snapshot."""
        self._simulators[n].restore(snapshot)

    def rest(self) -> None:
        """Stops the timer until the next reset or step."""
        _watch.stop()

    def close(self) -> None:
        """Closes every simulation; warns of one that raises in `close()`."""
        self.rest()
        while self._simulators:
            try:
                self._simulators.pop().close()
            except Exception as error:
                # Nothing is lost, and the caller may be handling a more important error.
                warnings.warn(f"{self.name}: close() raised {in_a_line(error)}", stacklevel=2)

    def _raised(self, what: str, error: BaseException, env_step: int) -> FaultyEnvironmentError:
        """Turns any exception of a simulation into a `FaultyEnvironmentError`."""
        ours = isinstance(error, FaultyEnvironmentError)
        words = str(error) if ours else f"{what}() raised {in_a_line(error)}"
        return self._fault(env_step, words)

    def _observation(self, seen: Any, env_step: int) -> NDArray[Any]:
        array = np.asarray(seen)
        if array.dtype != self._dtype and np.can_cast(array.dtype, self._dtype, "same_kind"):
            with np.errstate(over="ignore"):
                array = array.astype(self._dtype)
        if array.shape != self._shape or array.dtype != self._dtype:
            came = f"{array.dtype}{list(array.shape)}"
            declared = f"{self._dtype}{list(self._shape)}"
            raise self._fault(env_step, f"the observation is {came}; declared is {declared}")
        if self._floats and not _finite(array):
            raise self._fault(env_step, f"the observation is not finite: {_shown(array)}")
        return array

    def _fault(self, env_step: int, what: str) -> FaultyEnvironmentError:
        self.close()
        return FaultyEnvironmentError(f"{self.name}, env step {env_step}: {what}")


def _patience() -> float:
    text = os.environ.get(PATIENCE, "")
    try:
        return max(float(text), 0.0) if text else _DEFAULT_PATIENCE
    except ValueError:
        raise RegrowError(f"{PATIENCE} is '{text}'; it must be a number of seconds") from None


class _Watch:
    """Raises TimeoutError in a call that takes longer than a number of seconds; 0: never.

    A timer for every call would cost two system calls per env step. Instead, one periodic timer
    fires ten times within the time limit, and checks when the current call began.
    """

    def __init__(self):
        self._seconds, self._began, self._rings = 0.0, 0.0, False

    def begin(self, seconds: float) -> None:
        """Call before a timed call."""
        if seconds and (self._rings or self._started(seconds)):
            self._seconds, self._began = seconds, monotonic()

    def end(self) -> None:
        """Call after a timed call."""
        self._began = 0.0

    def stop(self) -> None:
        """Stops the timer until the next `begin`."""
        if self._rings:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            self._rings = False

    def _started(self, seconds: float) -> bool:
        """Starts the timer if this is the main thread and SIGALRM is free; whether it started."""
        self._rings = (
            hasattr(signal, "setitimer")
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
        )
        if self._rings:
            signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, seconds / 10, seconds / 10)
        return self._rings

    def _ring(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._began and monotonic() - self._began >= self._seconds:
            raise TimeoutError(
                f"it did not come back in time; {PATIENCE} says how many seconds it has"
            )


_watch = _Watch()


def _finite(array: NDArray[Any]) -> bool:
    """Whether all numbers are finite; the fastest way differs with their number."""
    flat = array.ravel()
    if flat.size <= FEW:
        return all(map(math.isfinite, flat.tolist()))
    with np.errstate(over="ignore"):  # an overflow of finite numbers: then the second test decides
        return math.isfinite(np.dot(flat, flat)) or bool(np.isfinite(flat).all())


def _shown(array: NDArray[Any]) -> str:
    """The first non-finite number of an array, its index, and how many more there are."""
    flat = np.ravel(array)
    (odd,) = np.nonzero(~np.isfinite(flat))
    where = np.unravel_index(odd[0], array.shape)
    place = f"[{', '.join(str(int(i)) for i in where)}]"
    more = f", and at {len(odd) - 1} other places" if len(odd) > 1 else ""
    return f"{flat[odd[0]]} at {place}{more}"


# Sessions by Run.

_kept: dict[int, Session] = {}


def keep(mark: Array, session: Session) -> None:
    """Registers a session under `mark`, by identity; closes it when `mark` is collected."""
    session.rest()
    _kept[id(mark)] = session
    weakref.finalize(mark, _drop, id(mark), session)


def take(mark: Array) -> Session | None:
    """Removes and returns the session registered under `mark`; None if there is none."""
    return _kept.pop(id(mark), None)


def _drop(key: int, session: Session) -> None:
    if _kept.get(key) is session:
        del _kept[key]
        session.close()

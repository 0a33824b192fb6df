"""Checks whether an environment behaves as it declares: before training, and in `regrow check`.

Modelled on Stable-Baselines3's `check_env`, with more checks: actions at the bounds of the action
space, two episodes from the same seed, and two continuations of the same snapshot. Invalid
behaviour raises `FaultyEnvironmentError`, which says what was returned and what is expected. Valid
but suspicious behaviour becomes a warning.
"""

import functools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from regrow.environments.base import DeviceEnvironment, Environment, HostEnvironment, HostStep, Step
from regrow.errors import FaultyEnvironmentError, RegrowError, in_a_line, require, warn_once
from regrow.prng import keys_from
from regrow.registry import describe, make
from regrow.training.device_loop import tree_select
from regrow.training.session import Session
from regrow.types import ActionSpace, Discrete, MultiDiscrete

ENV_STEPS = 200
AT_START = 24
"""Env steps of the check before training."""
SECONDS = 2.0
"""Time limit of the check before training."""

LARGE_REWARD = 1_000.0
LARGE_NUMBER = 1_000.0  # in a vector observation
LARGE_SHADE = 10.0  # in an image observation of floats


class EnvironmentReport(NamedTuple):
    """The result of an environment check: what was checked, and the warnings."""

    environment: str
    looked_at: tuple[str, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        lines = [self.environment, *(f"  {line}" for line in self.looked_at)]
        return "\n".join([*lines, *(f"  warning: {line}" for line in self.warnings)])


def check_environment(
    environment: Environment | str, *, env_steps: int = ENV_STEPS
) -> EnvironmentReport:
    """Checks what an environment declares, and how it behaves over `env_steps` env steps.

    `environment`: an Environment or its name, e.g. gymnasium/CartPole-v1. Everything that is
    opened is closed. Raises `RegrowError` if the environment cannot be made, and
    `FaultyEnvironmentError` if its behaviour is invalid.
    """
    require(env_steps >= 1, f"env_steps is {env_steps}; it must be at least 1")
    made = make("environments", environment) if isinstance(environment, str) else environment
    _check_declared(made)
    if isinstance(made, DeviceEnvironment):
        _check_traced(made)
        return _on_device(made, env_steps)
    assert isinstance(made, HostEnvironment), made
    return _on_host(made, env_steps, np.inf)


def check_before_training(environment: Environment) -> None:
    """A quick check of an environment; suspicious behaviour becomes a warning.

    Device environments are traced but not run: the training loop checks what they return. Raises
    the same errors as `check_environment`.
    """
    _check_declared(environment)
    if isinstance(environment, DeviceEnvironment):
        _check_traced(environment)
        return
    assert isinstance(environment, HostEnvironment), environment
    report = _on_host(environment, AT_START, SECONDS)
    for warning in report.warnings:
        warn_once(f"{report.environment}: {warning}")


# Declarations.


def _check_declared(environment: Environment) -> None:
    name = describe(environment)
    shape, space = environment.observation_shape, environment.action_space
    require(
        isinstance(shape, tuple) and bool(shape) and all(type(n) is int and n > 0 for n in shape),
        f"{name}: its observation_shape is {shape}; it must be a tuple of whole numbers above 0",
    )
    dtype = np.dtype(environment.observation_dtype)
    require(
        dtype.kind in "biuf",
        f"{name}: its observation_dtype is {dtype}; it must be of numbers or booleans",
    )
    frames = environment.frames
    require(
        frames >= 1 and shape[-1] % frames == 0,
        f"{name}: its frames is {frames}; the last axis of {shape} must be so many times as long",
    )
    require(
        isinstance(space, ActionSpace) and all(n >= 1 for n in np.ravel(space[0])),
        f"{name}: its action_space is {space!r}; it must be regrow.types.Discrete or Continuous of "
        "1 or more",
    )


def _declared(environment: Environment, words: tuple[str, str] = ("", "")) -> list[str]:
    shape = ", ".join(str(n) for n in environment.observation_shape)
    seen = f"{np.dtype(environment.observation_dtype)}[{shape}]"
    return [
        f"observations: {seen}{f', of {words[0]}' if words[0] else ''}",
        f"actions: {environment.action_space}{f', of {words[1]}' if words[1] else ''}",
    ]


# On the host.


class _Seen:
    """The number of finished episodes, and the largest reward and observation so far."""

    def __init__(self) -> None:
        self.ended = 0
        self.reward = 0.0
        self.number = 0.0

    def add(self, step: HostStep) -> None:
        learned = step.reward if step.learned_reward is None else step.learned_reward
        self.reward = max(self.reward, abs(learned))
        self.look(step.observation)
        self.ended += step.terminated or step.truncated

    def look(self, observation: NDArray[Any]) -> None:
        if observation.dtype.kind == "f":
            self.number = max(self.number, float(np.abs(observation).max()))


def _on_host(environment: HostEnvironment, env_steps: int, seconds: float) -> EnvironmentReport:
    seen, until = _Seen(), time.monotonic() + seconds
    with Session(environment, 1) as session:
        session.name = f"{session.name} (in a check)"
        simulator = session.simulators[0]
        words, remarks = simulator.declared, list(simulator.remarks)
        looked_at = _declared(environment, words)
        chosen = list(_choices(environment.action_space, env_steps))
        first, played = _played(session, chosen, seen, until)
        looked_at.append(
            f"{len(played)} env steps: {_ends_of(environment.action_space, played)} and others at "
            f"random; {seen.ended} episodes ended"
        )
        again, replayed = _played(session, chosen[: len(played)], None, until)
        if not (_same(first, again) and _same_steps(played, replayed)):
            remarks.append(
                "two episodes from the same seed, with the same actions, are not the same; all "
                "that is drawn must come from the generator that reset(seed) seeds (np_random)"
            )
        looked_at.append("twice from the same seed")
        if environment.snapshot_size:
            _check_copies(environment, session, chosen)
            looked_at.append(f"a copy from a snapshot of {environment.snapshot_size:,} bytes")
        remarks += _remarks_on(environment, seen, len(played), simulator.sure_to_end)
    return EnvironmentReport(describe(environment), tuple(looked_at), tuple(remarks))


def _choices(space: ActionSpace, count: int) -> Iterator[NDArray[Any]]:
    """Actions at the bounds of the space first, then random ones; if few discrete, first all."""
    draw = np.random.default_rng(0)
    if isinstance(space, Discrete):
        few = range(space.number) if space.number <= count // 2 else (0, space.number - 1)
        chosen = [np.asarray(n, np.int32) for n in few]
        at_random = functools.partial(draw.integers, space.number, dtype=np.int32)
    elif isinstance(space, MultiDiscrete):
        most = np.array(space.numbers)
        chosen = [np.zeros(len(most), np.int32), (most - 1).astype(np.int32)]
        at_random = functools.partial(draw.integers, most, dtype=np.int32)
    else:
        ends = (-1.0, 1.0) if space.size > 1 else (-1.0, 0.0, 1.0)
        chosen = [np.full(space.size, end, np.float32) for end in ends]
        chosen += [(2.0 * draw.integers(2, size=space.size) - 1).astype(np.float32)]
        at_random = functools.partial(_uniform, draw, space.size)
    yield from chosen[:count]
    for _ in range(count - len(chosen)):
        yield np.asarray(at_random())


def _uniform(draw: np.random.Generator, size: int) -> NDArray[np.float32]:
    return draw.uniform(-1, 1, size).astype(np.float32)


def _played(
    session: Session, chosen: list[NDArray[Any]], seen: _Seen | None, until: float
) -> tuple[NDArray[Any], list[HostStep]]:
    """(first observation, env steps) from a fixed seed; starts a new episode when one ends."""
    first, steps = session.reset(0, 0, 0), list[HostStep]()
    for i, action in enumerate(chosen):
        steps.append(session.step(0, action, i + 1))
        if seen is not None:
            seen.add(steps[-1])
            if time.monotonic() > until:
                break
        if steps[-1].terminated or steps[-1].truncated:
            session.reset(0, i + 1, i + 1)
    return first, steps


def _check_copies(
    environment: HostEnvironment, session: Session, chosen: list[NDArray[Any]]
) -> None:
    """Raises `FaultyEnvironmentError` unless two continuations of a snapshot are equal."""
    session.reset(0, 1, 0)
    for i, action in enumerate(chosen[:4]):
        if (step := session.step(0, action, i + 1)).terminated or step.truncated:
            session.reset(0, i + 2, i + 1)
    (snapshot,) = session.snapshots()
    size = environment.snapshot_size
    if snapshot.dtype != np.uint8 or snapshot.shape != (size,):
        raise FaultyEnvironmentError(
            f"{session.name}: its snapshot is {snapshot.dtype}{list(snapshot.shape)}; its "
            f"snapshot_size says uint8[{size}]"
        )
    snapshot, after = snapshot.copy(), list[list[HostStep]]()
    for _ in range(2):
        after.append([])
        session.restore(0, snapshot)
        for i, action in enumerate(chosen[-4:]):
            after[-1].append(session.step(0, action, i + 1))
            if after[-1][-1].terminated or after[-1][-1].truncated:
                break
    if not _same_steps(*after):
        raise FaultyEnvironmentError(
            f"{session.name}: what follows a snapshot is not the same twice; `restore` must bring "
            "back all that a step depends on, random numbers included"
        )


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return np.array_equal(a, b)


def _same_steps(a: list[HostStep], b: list[HostStep]) -> bool:
    return len(a) == len(b) and all(
        one[1:] == other[1:] and _same(one.observation, other.observation)
        for one, other in zip(a, b, strict=True)
    )


# On the device.


def _check_traced(environment: DeviceEnvironment) -> None:
    """Raises `FaultyEnvironmentError` unless the functions return arrays as declared.

    The functions are traced; nothing is computed.
    """
    name = describe(environment)
    key = jax.eval_shape(lambda: jax.random.key(0))
    action = jax.eval_shape(lambda: _an_action(environment.action_space))

    def traced(what: str, function: Any, *arguments: Any) -> Any:
        try:
            return jax.eval_shape(function, *arguments)
        except RegrowError:
            raise
        except Exception as error:
            raise FaultyEnvironmentError(f"{name}: {what}() raised {in_a_line(error)}") from error

    state, seen = traced("reset", environment.reset, key)
    after, step = traced("step", environment.step, state, action, key)
    fresh, anew = traced("restart", environment.restart, after, key)
    for other, what in ((after, "step"), (fresh, "restart")):
        _require_alike(name, what, state, other)
    shape, dtype = environment.observation_shape, np.dtype(environment.observation_dtype)
    for what, came in (("reset", seen), ("step", step.observation), ("restart", anew)):
        _require_array(name, f"the observation of {what}", came, shape, dtype)
    _require_array(name, "the reward", step.reward, (), np.dtype(np.float32))
    for what in ("terminated", "truncated"):
        _require_array(name, what, getattr(step, what), (), np.dtype(np.bool_))


def _require_array(
    name: str, what: str, came: Any, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    if came.shape != shape or came.dtype != dtype:
        raise FaultyEnvironmentError(
            f"{name}: {what} is {came.dtype}{list(came.shape)}; it must be {dtype}{list(shape)}"
        )


def _require_alike(name: str, what: str, before: Any, after: Any) -> None:
    """Raises `FaultyEnvironmentError` unless two states have the same structure and arrays."""
    was, now = (jax.tree_util.tree_flatten_with_path(state) for state in (before, after))
    if was[1] != now[1]:
        raise FaultyEnvironmentError(
            f"{name}: the state after {what}() is another tree than that of reset()"
        )
    for (path, old), (_, new) in zip(was[0], now[0], strict=True):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise FaultyEnvironmentError(
                f"{name}: the state{jax.tree_util.keystr(path)} is {new.dtype}{list(new.shape)} "
                f"after {what}() and {old.dtype}{list(old.shape)} after reset()"
            )


def _an_action(space: ActionSpace) -> Any:
    return jnp.zeros(space.shape, space.dtype)


def _on_device(environment: DeviceEnvironment, env_steps: int) -> EnvironmentReport:
    name, space = describe(environment), environment.action_space
    environment = environment.with_num_envs(1)
    chosen = list(_choices(space, env_steps))
    first, steps = _carried_out(environment, jnp.asarray(np.stack(chosen)))
    seen = _Seen()
    seen.look(np.asarray(first))
    for i, step in enumerate(_each(steps, env_steps)):
        problem = _odd(step)
        if problem:
            raise FaultyEnvironmentError(f"{name} (in a check), env step {i + 1}: {problem}")
        seen.add(step)
    looked_at = [
        *_declared(environment),
        "reset, step and restart, traced: shapes, dtypes, and a state that stays as it is",
        f"{env_steps} env steps: {_ends_of(space, chosen)} and others at random; {seen.ended} "
        "episodes ended",
    ]
    remarks = _remarks_on(environment, seen, env_steps, environment.sure_to_end)
    return EnvironmentReport(name, tuple(looked_at), tuple(remarks))


@functools.partial(jax.jit, static_argnames="environment")
def _carried_out(environment: DeviceEnvironment, chosen: jax.Array) -> tuple[jax.Array, Step]:
    """(first observation, the step that follows each action)."""
    root = jax.random.key(0)
    keys = {name: keys_from(root, name, 0, len(chosen)) for name in ("step", "reset")}
    state, first = environment.reset(jax.random.fold_in(root, 1))

    def turn(state: Any, now: tuple[jax.Array, dict[str, jax.Array]]) -> tuple[Any, Step]:
        action, key = now
        after, step = environment.step(state, action, key["step"])
        fresh, _ = environment.restart(after, key["reset"])
        return tree_select(step.terminated | step.truncated, fresh, after), step

    return first, jax.lax.scan(turn, state, (chosen, keys))[1]


def _each(steps: Step, count: int) -> Iterator[HostStep]:
    held = [np.asarray(part) for part in steps]
    for i in range(count):
        observation, reward, terminated, truncated = (part[i] for part in held)
        yield HostStep(observation, float(reward), bool(terminated), bool(truncated))


def _odd(step: HostStep) -> str:
    if not np.isfinite(step.reward):
        return f"the reward is {step.reward}; it must be a finite number"
    if step.observation.dtype.kind == "f" and not np.isfinite(step.observation).all():
        return "the observation is not finite"
    return ""


# Warnings.


def _ends_of(space: ActionSpace, chosen: list[Any]) -> str:
    if isinstance(space, Discrete):
        all_of_them = space.number <= len(chosen) // 2
        return "every action" if all_of_them else "the first and the last action"
    return "the lower and the upper end of every action"


def _remarks_on(
    environment: Environment, seen: _Seen, env_steps: int, sure_to_end: bool
) -> list[str]:
    remarks = []
    if seen.reward > LARGE_REWARD:
        remarks.append(
            f"rewards of up to {seen.reward:,.0f}; values learn slowly what is so far from 0, so "
            "scale them (gymnasium.wrappers.TransformReward)"
        )
    image = len(environment.observation_shape) == 3
    if seen.number > (LARGE_SHADE if image else LARGE_NUMBER):
        what = "an image of floats" if image else "observations"
        remarks.append(
            f"{what} with numbers of up to {seen.number:,.0f}; networks are made for numbers about "
            "1, so scale them"
        )
    if not (sure_to_end or seen.ended):
        remarks.append(
            f"no episode ended in {env_steps} env steps, and it has no time limit that is known; "
            "returns are those of episodes that end"
            + (": give it max_episode_steps" if isinstance(environment, HostEnvironment) else "")
        )
    return remarks

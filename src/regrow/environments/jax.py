"""Your own environment in JAX: a pair of pure functions, or one of gymnax or of Brax.

    reset(key) -> (state, observation)
    step(state, action, key) -> (state, observation, reward, terminated, truncated)

Both are for one environment; the training loop maps them over several. `step` does not reset: at
the end of an episode it returns the last observation. A state is a pytree of arrays whose shapes do
not change.

An environment defined at the top level of a module is named jax/module:attribute: on the command
line, in a checkpoint, and in worker processes, which import the module. Any other
`DeviceEnvironment` defined there has such a name, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from regrow.environments.actions.base import Range
from regrow.environments.base import DeviceEnvironment, State, Step
from regrow.errors import (
    FaultyEnvironmentError,
    RegrowError,
    UntrustedError,
    in_a_line,
    require,
    unknown,
)
from regrow.registry import describe, named_module
from regrow.types import ActionSpace, Continuous, Discrete, Key

Reset = Callable[[Key], tuple[State, Any]]
StepFunction = Callable[[State, Array, Key], tuple[State, Any, Any, Any, Any]]


@dataclass(frozen=True, init=False)
class JAX(DeviceEnvironment):
    """Your own environment in JAX, as in jax/module:attribute.

    `reset` and `step`: pure functions of one environment (see the module). `actions`: with
    `Discrete(n)`, `step` is given an integer from 0; with `Continuous(n)`, it is given a vector
    between `low` and `high`, which are a number each or one per entry.
    """

    named_by: ClassVar[str] = "source"

    reset_function: Reset
    step_function: StepFunction
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    actions: ActionSpace
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __init__(
        self,
        reset: Reset,
        step: StepFunction,
        *,
        observation_shape: Sequence[int],
        actions: Any,  # an ActionSpace
        observation_dtype: Any = np.float32,
        low: Any = -1.0,
        high: Any = 1.0,
    ):
        require(
            isinstance(actions, ActionSpace),
            f"actions is {actions!r}; it must be regrow.types.Discrete(n) or Continuous(n)",
        )
        size = actions.size if isinstance(actions, Continuous) else 1
        bounds = [np.broadcast_to(np.asarray(b, np.float32), size) for b in (low, high)]
        Range(bounds[0], bounds[1], "JAX")
        held = {
            "reset_function": reset,
            "step_function": step,
            "shape": tuple(int(n) for n in observation_shape),
            "dtype": np.dtype(observation_dtype),
            "actions": actions,
            "low": tuple(bounds[0].tolist()),
            "high": tuple(bounds[1].tolist()),
        }
        for name, value in held.items():
            object.__setattr__(self, name, value)

    @staticmethod
    def from_gymnax(environment: Any, params: Any = None) -> "JAX":
        """One of gymnax: `JAX.from_gymnax(*gymnax.make("CartPole-v1"))`.

        Any environment with gymnax's interface will do. Its `step_env` is used, which does not
        reset. Its time limit is a truncation.
        """
        adapter = _Gymnax(environment, environment.default_params if params is None else params)
        space = environment.action_space(adapter.params)
        seen = _first_seen(adapter.reset)
        if hasattr(space, "n"):
            return JAX(adapter.reset, adapter.step, actions=Discrete(int(space.n)), **seen)
        bounds: dict[str, Any] = {
            name: np.broadcast_to(np.asarray(getattr(space, name), np.float32), space.shape)
            .ravel()
            .tolist()
            for name in ("low", "high")
        }
        adapter.action_shape = tuple(space.shape)
        size = Continuous(int(np.prod(space.shape)))
        return JAX(adapter.reset, adapter.step, actions=size, **seen, **bounds)

    @staticmethod
    def from_brax(environment: Any, *, episode_length: int = 1_000) -> "JAX":
        """One of Brax or MuJoCo Playground: `JAX.from_brax(brax.envs.get_environment("ant"))`.

        An episode is truncated after `episode_length` env steps. Raises `RegrowError` for an
        environment that resets itself, because the last observation of an episode is then lost.
        """
        layer = environment
        while layer is not None:
            require(
                "AutoReset" not in type(layer).__name__,
                f"{type(layer).__name__} resets the environment by itself; give it without, as "
                "brax.envs.get_environment makes it",
            )
            layer = getattr(layer, "env", None)
        adapter = _Brax(environment, episode_length)
        size = Continuous(int(environment.action_size))
        return JAX(adapter.reset, adapter.step, actions=size, **_first_seen(adapter.reset))

    @staticmethod
    def named(source: str) -> DeviceEnvironment:
        """The environment at `module:attribute`; raises `RegrowError` if there is none."""
        module_name, _, attribute = source.partition(":")
        if not module_name or not attribute:
            raise RegrowError("jax stands for environments of your own; write jax/module:attribute")
        try:
            module = named_module(module_name)
        except UntrustedError:
            raise
        except Exception as error:
            raise RegrowError(
                f"jax/{source}: the module {module_name!r} cannot be imported: {in_a_line(error)}"
            ) from error
        found = getattr(module, attribute, None)
        if found is None:
            names = (
                name for name, held in vars(module).items() if isinstance(held, DeviceEnvironment)
            )
            raise unknown(f"environment in {module_name}", attribute, names)
        require(
            isinstance(found, DeviceEnvironment),
            f"jax/{source} is a {type(found).__name__}; it must be a regrow.environments.JAX or "
            "another Environment",
        )
        if not found._source:
            object.__setattr__(found, "_source", source)
        return found

    @property
    def source(self) -> str:
        """`module:attribute`; "" if it was not created at the top level of a module."""
        return (self.own_text() or "").partition("/")[2]

    def text(self) -> str | None:
        """As in jax/module:attribute."""
        return self.own_text() or type(self).__name__

    def __reduce__(self) -> Any:
        # Another process imports the module, because functions made by gymnax cannot be sent to it.
        if self.source:
            return JAX.named, (self.source,)
        return _blank, (), vars(self)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """As declared."""
        return self.shape

    @property
    def observation_dtype(self) -> np.dtype[Any]:
        """As declared."""
        return self.dtype

    @property
    def action_space(self) -> ActionSpace:
        """As declared; −1 and 1 stand for the bounds of vectors."""
        return self.actions

    @property
    def sure_to_end(self) -> bool:
        """Unknown, so False."""
        return False

    def reset(self, key: Key) -> tuple[State, Shaped[Array, "*obs"]]:
        """Calls the user's `reset` and checks its result during tracing."""
        came = self.reset_function(key)
        if not isinstance(came, tuple) or len(came) != 2:
            raise self._fault(f"reset returned {_kind(came)}; it must return state and observation")
        return self._state(came[0]), self._observation(came[1])

    def step(self, state: State, action: Shaped[Array, "*action"], key: Key) -> tuple[State, Step]:
        """Calls the user's `step` and checks its result during tracing."""
        came = self.step_function(state, self._given(action), key)
        if not isinstance(came, tuple) or len(came) != 5:
            raise self._fault(
                f"step returned {_kind(came)}; it must return state, observation, reward, "
                "terminated, truncated"
            )
        after = self._state(came[0])
        self._require_same(state, after)
        terminated, truncated = (
            self._scalar(one, jnp.bool_, name)
            for one, name in zip(came[3:], ("terminated", "truncated"), strict=True)
        )
        reward = self._scalar(came[2], jnp.float32, "reward")
        return after, Step(self._observation(came[1]), reward, terminated, truncated & ~terminated)

    def _given(self, action: Shaped[Array, "*action"]) -> Array:
        """The environment's action: scaled to its bounds, exact at both ends and never outside."""
        if not isinstance(self.actions, Continuous):
            return action
        low, high = jnp.array(self.low), jnp.array(self.high)
        between = (low + high) / 2 + (high - low) / 2 * action
        between = jnp.clip(between, low, high)
        return jnp.where(action >= 1, high, jnp.where(action <= -1, low, between))

    def _state(self, state: State) -> State:
        """The state as arrays without weak types, which would change in operations with others."""
        try:
            return jax.tree.map(_strong, state)
        except TypeError as error:
            raise self._fault(f"a state must be a tree of arrays: {in_a_line(error)}") from error

    def _require_same(self, before: State, after: State) -> None:
        """Raises `FaultyEnvironmentError` unless both pytrees have the same shapes and dtypes."""
        was, now = (jax.tree_util.tree_flatten_with_path(state) for state in (before, after))
        if was[1] != now[1]:
            raise self._fault("the state after a step is another tree than the one before it")
        for (path, old), (_, new) in zip(was[0], now[0], strict=True):
            if (old.shape, old.dtype) != (new.shape, new.dtype):
                raise self._fault(
                    f"the state{jax.tree_util.keystr(path)} is {_kind(new)} after a step and "
                    f"{_kind(old)} before it"
                )

    def _observation(self, seen: Any) -> Array:
        if not hasattr(seen, "dtype") or seen.shape != self.shape or not _fits(seen, self.dtype):
            declared = f"{self.dtype}{list(self.shape)}"
            raise self._fault(f"the observation is {_kind(seen)}; declared is {declared}")
        return jnp.asarray(seen, self.dtype)

    def _scalar(self, value: Any, dtype: Any, name: str) -> Array:
        array = jnp.asarray(value)
        if array.shape or not _fits(array, dtype):
            raise self._fault(f"{name} is {_kind(array)}; it must be {np.dtype(dtype)}[]")
        return array.astype(dtype)

    def _fault(self, what: str) -> FaultyEnvironmentError:
        return FaultyEnvironmentError(f"{describe(self)}: {what}")


class _Gymnax:
    """Adapts gymnax's interface. Compared by identity, as the environment may not be hashable."""

    action_shape: tuple[int, ...] | None = None

    def __init__(self, environment: Any, params: Any):
        self.environment, self.params = environment, params

    def reset(self, key: Key) -> tuple[State, Any]:
        seen, state = self.environment.reset_env(key, self.params)
        return state, seen

    def step(self, state: State, action: Array, key: Key) -> tuple[State, Any, Array, Array, Array]:
        if self.action_shape is not None:
            action = action.reshape(self.action_shape)
        seen, after, reward, done, *_ = self.environment.step_env(key, state, action, self.params)
        done = jnp.asarray(done, bool)
        if hasattr(self.environment, "is_truncated"):  # since version 1 `done` is without limits
            truncated = self.environment.is_truncated(after, self.params)
        else:
            truncated = done & self._at_its_limit(after)
            done = done & ~truncated
        return after, seen, jnp.reshape(reward, ()), done, jnp.asarray(truncated, bool)

    def _at_its_limit(self, state: State) -> Array:
        """Whether only the time limit ends the episode here."""
        limit, time = (
            getattr(held, name, None)
            for held, name in ((self.params, "max_steps_in_episode"), (state, "time"))
        )
        if limit is None or time is None:
            return jnp.array(False)
        begun = state.replace(time=jnp.zeros_like(time))
        return (time >= limit) & ~self.environment.is_terminal(begun, self.params)


class _Brax:
    """Adapts Brax's interface, and counts the env steps of the episode."""

    def __init__(self, environment: Any, episode_length: int):
        self.environment, self.episode_length = environment, episode_length

    def reset(self, key: Key) -> tuple[State, Any]:
        state = self.environment.reset(key)
        return (state, jnp.array(0)), state.obs

    def step(self, state: State, action: Array, key: Key) -> tuple[State, Any, Array, Array, Array]:
        del key
        inner, steps = jax.tree.map(lambda leaf: leaf, state)  # a copy: wrappers write into `info`
        after = self.environment.step(inner, action)
        cut = jnp.asarray(after.info.get("truncation", False), bool)
        terminated = jnp.asarray(after.done, bool) & ~cut
        truncated = cut | (steps + 1 >= self.episode_length)
        return (after, steps + 1), after.obs, jnp.reshape(after.reward, ()), terminated, truncated


def _first_seen(reset: Reset) -> dict[str, Any]:
    """The shape and dtype of the first observation, without running `reset`."""
    seen = jax.eval_shape(lambda: reset(jax.random.key(0))[1])
    require(
        hasattr(seen, "shape"),
        f"the observation is a {type(seen).__name__} of several arrays; wrap the environment in "
        "one that shows a single one",
    )
    return {"observation_shape": seen.shape, "observation_dtype": seen.dtype}


def _blank() -> JAX:
    """An empty instance, which is then filled with what another process sent."""
    return object.__new__(JAX)


def _strong(leaf: Any) -> Array:
    array = jnp.asarray(leaf)
    if jnp.issubdtype(array.dtype, jax.dtypes.extended):  # a PRNG key
        return array
    return jax.lax.convert_element_type(array, array.dtype)


def _fits(array: Any, dtype: Any) -> bool:
    return bool(np.can_cast(np.dtype(array.dtype), np.dtype(dtype), "same_kind"))


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} values"
    if not hasattr(value, "dtype"):
        return f"a {type(value).__name__}"
    return f"{value.dtype}{list(value.shape)}"

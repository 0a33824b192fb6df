"""An environment played by chance in a compiled loop, with all that a replay of it needs."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regrow.environments.base import DeviceEnvironment, Step

STEPS = 3_000


class Record(NamedTuple):
    """What one env step was, gave and left; with a leading axis, of many steps."""

    action: Any
    state: Any  # before the step
    seen: Any  # the observation before the step
    step: Step


class Keys(NamedTuple):
    step: Any
    reset: Any


@partial(jax.jit, static_argnums=(0, 1))
def played(env: DeviceEnvironment, steps: int, key: Any) -> tuple[Any, Record, Keys]:
    """(the first key, random play as the loop plays it, its keys)."""
    first, act, on, again = jax.random.split(key, 4)
    actions = jax.random.randint(act, (steps,), 0, env.num_actions)
    keys = Keys(jax.random.split(on, steps), jax.random.split(again, steps))

    def body(carry: Any, given: Any) -> Any:
        state, seen = carry
        action, keys = given
        after, step = env.step(state, action, keys.step)
        fresh = env.restart(after, keys.reset)
        ended = step.terminated | step.truncated
        carry = jax.tree.map(partial(jnp.where, ended), fresh, (after, step.observation))
        return carry, Record(action, state, seen, step)

    _, record = jax.lax.scan(body, env.reset(first), (actions, keys))
    return first, record, keys


def play(env: DeviceEnvironment, steps: int = STEPS, key: int = 0) -> tuple[Any, Record, Keys]:
    first, record, keys = played(env, steps, jax.random.key(key))
    keys = Keys(*(list(ks) for ks in keys))
    return first, jax.tree.map(np.asarray, record), keys


def compiled(game: DeviceEnvironment) -> tuple[Any, Any]:
    return jax.jit(game.reset), jax.jit(game.step)


def at(record: Any, t: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[t], record)


def check_step(mine: Step, theirs: Step) -> None:
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        assert np.asarray(a).dtype == np.asarray(b).dtype

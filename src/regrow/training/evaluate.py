"""Episodes that an agent plays as well as it can: without exploring, and without learning."""

import functools
import itertools
from collections.abc import Generator
from contextlib import closing
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from regrow.agents.base import Agent
from regrow.environments.base import DeviceEnvironment, HostEnvironment
from regrow.errors import require
from regrow.experience.normalization import as_seen
from regrow.prng import key_at, keys_from
from regrow.training.device_loop import STEPS_PER_CHUNK, clip_action, tree_select
from regrow.training.numerics import in_float32
from regrow.training.run import Run
from regrow.training.session import Session
from regrow.types import Key, Memory, Report, silent

LONGEST = 1_000_000  # env steps in which some episode must end


class Episode(NamedTuple):
    """The undiscounted return of an episode, and how many env steps it took."""

    env_return: float
    length: int


@in_float32
def evaluate(
    run: Run, episodes: int = 20, *, seed: int = 0, report: Report = silent
) -> list[Episode]:
    """The next `episodes` episodes as the agent plays them (`Agent.exploit`); the Run stays as is.

    One environment, one episode after the other. Where the task changes as training goes on, each
    episode begins at the one that the Run is at. Rewards are the environment's own, unclipped.
    Raises `RegrowError` unless `episodes` is at least 1, and where no episode ends within a million
    env steps.
    """
    require(episodes >= 1, f"episodes is {episodes}; it must be at least 1")
    root = key_at(jax.random.key(seed), "evaluate", run.env_steps)
    play = _on_host if isinstance(run.environment, HostEnvironment) else _on_device
    played, total, length = [], 0.0, 0
    with closing(play(run, root)) as steps:
        for reward, ended in steps:
            total, length = total + reward, length + 1
            if ended:
                played.append(Episode(total, length))
                report("evaluating", 1)
                total, length = 0.0, 0
            if len(played) == episodes:
                break
            require(length < LONGEST, f"no episode ended within {LONGEST:,} env steps")
    return played


def _on_device(run: Run, root: Key) -> Generator[tuple[float, bool]]:
    """(reward, whether the episode ended there) for one env step after the other."""
    agent, environment, state = run.agent, run.environment, run.state
    assert isinstance(environment, DeviceEnvironment)
    environment = environment.with_num_envs(agent.num_envs)
    world = state.environment
    if agent.num_envs > 1:
        world = jax.tree.map(lambda leaf: leaf[0], world)
    carry = environment.restart(world, key_at(root, "restart", 0))
    for start in itertools.count(0, STEPS_PER_CHUNK):
        now = jnp.array(start)
        trained, memory = state.agent, state.replay
        carry, rewards, ended = _chunk(trained, memory, world, carry, root, now, agent, environment)
        yield from zip(np.asarray(rewards).tolist(), np.asarray(ended).tolist(), strict=True)


@functools.partial(jax.jit, static_argnames=("agent", "environment"))
def _chunk(
    trained: PyTree,
    memory: Memory,
    home: PyTree,
    carry: tuple[PyTree, Array],
    root: Key,
    start: Array,
    agent: Agent,
    environment: DeviceEnvironment,
) -> tuple[tuple[PyTree, Array], Array, Array]:
    def step(carry: Any, keys: dict[str, Key]) -> tuple[Any, tuple[Array, Array]]:
        world, seen = carry
        action = clip_action(
            environment, agent.exploit(trained, as_seen(memory, seen), keys["act"])
        )
        after, step = environment.step(world, action, keys["step"])
        ended = step.terminated | step.truncated
        fresh = environment.restart(home, keys["reset"])
        return tree_select(ended, fresh, (after, step.observation)), (step.reward, ended)

    keys = {name: keys_from(root, name, start, STEPS_PER_CHUNK) for name in _STREAMS}
    carry, (rewards, ended) = jax.lax.scan(step, carry, keys)
    return carry, rewards, ended


_STREAMS = ("act", "step", "reset")


def _on_host(run: Run, root: Key) -> Generator[tuple[float, bool]]:
    """The same of a simulation of its own."""
    environment = run.environment
    assert isinstance(environment, HostEnvironment)
    leaves, form = jax.tree.flatten(run.state.agent)
    ended, seen = True, np.zeros(0)
    with Session(environment, 1) as session:
        for now in itertools.count():
            if ended:
                seen = session.reset(0, int(jax.random.bits(key_at(root, "reset", now))), now)
            shown = as_seen(run.state.replay, seen)
            action = _exploited(leaves, form, shown, root, np.int32(now), run.agent)
            step = session.step(0, np.asarray(clip_action(environment, action)), now + 1)
            seen, ended = step.observation, step.terminated or step.truncated
            yield float(step.reward), ended


@functools.partial(jax.jit, static_argnames=("form", "agent"))
def _exploited(
    leaves: list[Array], form: Any, seen: Array, root: Key, now: Array, agent: Agent
) -> Array:
    return agent.exploit(jax.tree.unflatten(form, leaves), seen, key_at(root, "act", now))

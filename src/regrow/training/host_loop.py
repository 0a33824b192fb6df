"""The training loop for environments on the host: the simulation steps while the device learns.

    env step t:   act (device) → update, if a round begins (device, not waited for)
                  → step the simulation (host, meanwhile) → add to replay (device)

An update runs while the simulation steps, so it samples from the replay as it was before that env
step. After whole rounds the number of updates equals that of the device loop. An agent that waits
for its updates (`Agent.waits_for_updates`) learns at the end of a round instead, and acts with the
result. With several simulations (`agent.num_envs`), one call chooses all actions, and the
simulations step one after the other.

`advance` restores a simulation from its snapshot, and stores a new snapshot in the Run at the end.
Without snapshots, a Run that was forked or loaded starts new episodes. The last transitions in the
replay are then marked as truncated, and `Run.restarts` records the env step.
"""

import functools
import itertools
from collections.abc import Callable, Generator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from numpy.typing import NDArray

from regrow.agents.base import Agent
from regrow.environments.base import HostEnvironment, HostStep
from regrow.experience.normalization import as_seen
from regrow.prng import key_at, keys_from
from regrow.training.backend import Advanced, Backend
from regrow.training.device_loop import (
    State,
    keys_of,
    scan_updates,
    vmap_envs,
)
from regrow.training.finite import require_finite, require_finite_log
from regrow.training.session import Session, keep, take
from regrow.types import ActionSpace, Continuous, Discrete, Key, Log, Memory, Transition


def reset_envs(environment: HostEnvironment, num_envs: int, root: Key) -> tuple[Array, Array]:
    """(snapshots, first observation) at the start of training."""
    session = Session(environment, num_envs)
    seen = [session.reset(n, int(seed), 0) for n, seed in enumerate(_seeds(root, 0, num_envs))]
    return _marked(session), jnp.array(_together(seen))


def blank(environment: HostEnvironment, num_envs: int) -> tuple[Array, Array]:
    """Arrays of the shapes that `reset_envs` returns, without opening a simulation."""
    axes = () if num_envs == 1 else (num_envs,)
    shape, dtype = environment.observation_shape, environment.observation_dtype
    snapshots = jnp.zeros((*axes, environment.snapshot_size), jnp.uint8)
    return snapshots, jnp.zeros((*axes, *shape), dtype)


def advanced(state: State, agent: Agent, environment: HostEnvironment, env_steps: int) -> Advanced:
    """Trains for `env_steps`, which must be whole rounds.

    Raises `FaultyEnvironmentError` at the env step at which the environment's behaviour is
    invalid, and `NotFiniteError` if a number in the agent is not finite.
    """
    resumed = _resumed(state, environment, agent.num_envs)
    session = resumed[0]
    try:
        return _advanced(state, agent, env_steps, resumed)
    except BaseException:
        session.close()
        raise


def _advanced(
    state: State,
    agent: Agent,
    env_steps: int,
    resumed: tuple[Session, NDArray[Any], NDArray[np.float32], bool],
) -> Advanced:
    session, observation, totals, restarted = resumed
    start, warm = int(state.env_steps), agent.first_learning_round
    per_round, side_by_side = agent.env_steps_per_round, agent.num_envs
    resets = _seeds(state.root, start, env_steps)
    learner, form = jax.tree.flatten(state.agent)
    replay, updates = state.replay, int(state.updates)
    if restarted and start:
        replay = _cut_off(replay, side_by_side)
    state.env_steps.delete()  # marks this state as used up, like donation on the device
    log = _Pages(env_steps)
    for i in range(0, env_steps, side_by_side):
        now, then = start + i, start + i + side_by_side
        shown = as_seen(replay, observation)
        action, value = _act(learner, form, shown, np.int32(now), state.root, agent)
        if not agent.waits_for_updates and now >= warm and now % per_round == 0:
            learner = _learn(learner, form, replay, np.int32(updates), state.root, agent)
            updates += agent.updates_per_round
        action, value = np.asarray(action), np.asarray(value)
        steps, seen = env_step(session, action, now, lambda at: int(resets[at - start]))
        after = _together([step.observation for step in steps])
        replay = _add(replay, observation, action, _numbers(steps), after)
        for n, (step, predicted) in enumerate(zip(steps, value.ravel().tolist(), strict=True)):
            totals[n] += np.float32(step.reward)
            log.write(i + n, step, totals[n], predicted)
            if step.terminated or step.truncated:
                totals[n] = 0.0
        observation = seen
        if agent.waits_for_updates and then > warm and then % per_round == 0:
            learner = _learn(learner, form, replay, np.int32(updates), state.root, agent)
            updates += agent.updates_per_round
    state = State(
        agent=jax.tree.unflatten(form, learner),
        environment=_marked(session),
        observation=jnp.array(observation),
        episode_return=jnp.array(_together(list(totals))),
        replay=replay,
        root=state.root,
        origin=state.origin,
        env_steps=jnp.array(start + env_steps),
        updates=jnp.array(updates),
    )
    require_finite_log(log.log, session.name, start)
    require_finite(state.agent, agent, start + env_steps)
    return Advanced(state, log.log, restarted)


def env_step(
    session: Session, action: NDArray[Any], now: int, seed: Callable[[int], int]
) -> tuple[list[HostStep], NDArray[Any]]:
    """Steps every simulation, and starts the next episode where one ended.

    Returns (steps, next observations). `seed(now + n)` is the seed of simulation n's next episode.
    """
    steps = _stepped(session, action, now, range(len(session)))
    seen = [step.observation for step in steps]
    for n, step in enumerate(steps):
        if step.terminated or step.truncated:
            seen[n] = session.reset(n, seed(now + n), now + n + 1)
    return steps, _together(seen)


def _stepped(
    session: Session, action: NDArray[Any], now: int, running: Sequence[int]
) -> list[HostStep]:
    """One env step of the `running` simulations; `action` has a row for every simulation."""
    chosen = _apart(session.clipped(action), len(session))
    return [session.step(n, chosen[n], now + n + 1) for n in running]


def played_out(
    state: State, agent: Agent, environment: HostEnvironment, at_most: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(return of every running episode, whether it ended); see `Run.play_out`.

    The return is NaN if the episode cannot be continued. Without snapshots, the live simulation
    itself is stepped.
    """
    count, now = agent.num_envs, int(state.env_steps)
    if environment.snapshot_size:
        session, *_ = _resumed(state, environment, count)
    else:
        session = take(state.environment)
    if session is None:
        return np.full(count, np.nan), np.zeros(count, bool)
    learner, form = jax.tree.flatten(state.agent)
    observation = np.array(state.observation)
    totals, over = np.array(state.episode_return, np.float64).reshape(count), np.zeros(count, bool)
    with session:
        for i in range(0, at_most * count, count):
            shown = as_seen(state.replay, observation)
            action, _ = _act(learner, form, shown, np.int32(now + i), state.root, agent)
            running, seen = np.flatnonzero(~over).tolist(), list(_apart(observation, count))
            steps = _stepped(session, np.asarray(action), now + i, running)
            for n, step in zip(running, steps, strict=True):
                totals[n] += step.reward
                over[n], seen[n] = step.terminated or step.truncated, step.observation
            observation = _together(seen)
            if over.all():
                break
    return totals, over


def exploited(
    state: State, agent: Agent, environment: HostEnvironment, root: Key
) -> Generator[tuple[float, bool]]:
    """Generates (reward, whether the episode ended), one pair per env step, without exploration."""
    leaves, form = jax.tree.flatten(state.agent)

    def seed(index: int) -> int:
        return _seed(key_at(root, "reset", index))

    with Session(environment, 1) as session:
        seen = session.reset(0, seed(0), 0)
        for now in itertools.count():
            shown = as_seen(state.replay, seen)
            action = np.asarray(_exploit(leaves, form, shown, root, np.int32(now), agent))
            (step,), seen = env_step(session, action, now, lambda at: seed(at + 1))
            yield float(step.reward), step.terminated or step.truncated


@functools.partial(jax.jit, static_argnames=("form", "agent"))
def _exploit(
    leaves: list[Array], form: Any, seen: Array, root: Key, now: Int[Array, ""], agent: Agent
) -> Array:
    return agent.exploit(jax.tree.unflatten(form, leaves), seen, key_at(root, "act", now))


def random_policy(environment: HostEnvironment, env_steps: int, root: Key) -> Log:
    """The log of a uniformly random policy."""
    space, draw = environment.action_space, np.random.default_rng(_seed(root))
    resets = _seeds(root, 0, env_steps + 1)
    log, total = _Pages(env_steps), np.float32(0.0)
    with Session(environment, 1) as session:
        session.reset(0, int(resets[-1]), 0)
        for i in range(env_steps):
            (step,), _ = env_step(session, _at_random(space, draw), i, lambda at: int(resets[at]))
            total = np.float32(total + step.reward)
            log.write(i, step, total, float("nan"))
            if step.terminated or step.truncated:
                total = np.float32(0.0)
    require_finite_log(log.log, session.name, 0)
    return log.log


def _at_random(space: ActionSpace, draw: np.random.Generator) -> NDArray[Any]:
    if isinstance(space, Continuous):
        return draw.uniform(-1, 1, space.size).astype(np.float32)
    return np.asarray(draw.integers(space.number if isinstance(space, Discrete) else space.numbers))


def _marked(session: Session) -> Array:
    """The snapshots of a session; registers the session under the returned array."""
    mark = jnp.array(_together(session.snapshots()))
    keep(mark, session)
    return mark


def _resumed(
    state: State, environment: HostEnvironment, num_envs: int
) -> tuple[Session, NDArray[Any], NDArray[np.float32], bool]:
    """(session at the state, observation, returns so far, whether new episodes were started).

    New episodes are started if the running ones cannot be restored: without snapshots, in a Run
    that was forked or loaded. All such Runs then start the same new episodes.
    """
    kept = take(state.environment)
    session = kept or Session(environment, num_envs)
    totals = np.array(state.episode_return).reshape(num_envs)
    if environment.snapshot_size:
        for n, snapshot in enumerate(_apart(np.asarray(state.environment), num_envs)):
            session.restore(n, snapshot)
    elif kept is None:
        now = int(state.env_steps)
        keys = np.asarray(
            vmap_envs(jax.random.bits, num_envs)(keys_of(state.root, "restart", now, num_envs))
        ).reshape(num_envs)
        seen = [session.reset(n, int(seed), now) for n, seed in enumerate(keys)]
        return session, _together(seen), np.zeros_like(totals), True
    return session, np.asarray(state.observation), totals, False


def _together(arrays: Sequence[Any]) -> NDArray[Any]:
    """Stacks one array per simulation; a single array stays as it is."""
    return np.asarray(arrays[0]) if len(arrays) == 1 else np.stack(arrays)


def _apart(array: NDArray[Any], count: int) -> Sequence[NDArray[Any]]:
    """The inverse of `_together`."""
    return [array] if count == 1 else [np.asarray(each) for each in array]


def _seed(key: Key) -> int:
    return int(jax.random.bits(key))


def _seeds(root: Key, start: int, count: int) -> NDArray[np.uint32]:
    """For each env step, the seed of an episode that would start after it."""
    return np.asarray(jax.vmap(jax.random.bits)(keys_from(root, "reset", start, count)))


def _numbers(steps: Sequence[HostStep]) -> NDArray[np.float32]:
    """(reward, discount, truncated) as the agent learns from them.

    The log has the environment's own rewards and episode ends. All numbers go into one array,
    since each transfer to the device costs some microseconds.
    """
    numbers = [
        (
            s.reward if s.learned_reward is None else s.learned_reward,
            not (s.terminated or s.life_lost),
            s.truncated and not s.terminated,
        )
        for s in steps
    ]
    return np.array(numbers[0] if len(steps) == 1 else numbers, np.float32)


# The agent's state is passed as leaves. As modules, it would be flattened and rebuilt in Python at
# every call.
@functools.partial(jax.jit, static_argnames=("form", "agent"))
def _act(
    leaves: list[Array],
    form: Any,  # a PyTreeDef
    observation: Array,
    env_steps: Int[Array, ""],
    root: Key,
    agent: Agent,
) -> tuple[Array, Array]:
    state = jax.tree.unflatten(form, leaves)
    keys = keys_of(root, "act", env_steps, agent.num_envs)
    return vmap_envs(lambda obs, key: agent.act(state, obs, env_steps, key), agent.num_envs)(
        observation, keys
    )


@functools.partial(jax.jit, static_argnames=("form", "agent"), donate_argnames="leaves")
def _learn(
    leaves: list[Array],
    form: Any,  # a PyTreeDef
    replay: Memory,
    updates: Int[Array, ""],
    root: Key,
    agent: Agent,
) -> list[Array]:
    """The updates of one round."""
    keys = keys_from(root, "sample", updates, agent.updates_per_round)
    return jax.tree.leaves(scan_updates(jax.tree.unflatten(form, leaves), replay, keys, agent))


@functools.partial(jax.jit, donate_argnames="replay")
def _add(replay: Memory, observation: Array, action: Array, numbers: Array, seen: Array) -> Memory:
    reward, discount, truncated = numbers[..., 0], numbers[..., 1], numbers[..., 2] > 0
    return replay.add(Transition(observation, action, reward, discount, seen, truncated))


@functools.partial(jax.jit, static_argnames="count", donate_argnames="replay")
def _cut_off(replay: Memory, count: int) -> Memory:
    return replay.cut_off(count)


class _Pages:
    """A log under construction."""

    def __init__(self, env_steps: int):
        numbers = [np.zeros(env_steps, np.float32) for _ in range(3)]
        flags = [np.zeros(env_steps, np.bool_) for _ in range(2)]
        self.log = Log(numbers[0], *flags, *numbers[1:])

    def write(self, i: int, step: HostStep, episode_return: np.float32, value: float) -> None:
        """Writes the entry of one env step."""
        entry = (step.reward, step.terminated, step.truncated, episode_return, value)
        for page, number in zip(self.log, entry, strict=True):
            page[i] = number


BACKEND = Backend(
    reset_envs, blank, advanced, played_out, exploited, random_policy, keeps_world=True
)

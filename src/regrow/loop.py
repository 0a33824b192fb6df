"""The training loop on the device, in compiled chunks.

    round = env_steps_per_round × (act, step, add to replay), then updates_per_round × (take a
    batch, update, and what the Learners do after an update by habit)

Environment, replay and update stay inside one compiled loop with donated state. Environments side
by side (`agent.num_envs`) take their env steps at once: env step t·N + n is the t-th of the n-th.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped
from jaxtyping import Key as KeyArray

from regrow.agents.base import Agent
from regrow.environments.base import Environment, Spaces
from regrow.learner import learners, tended
from regrow.streams import key_at, keys_from, stream
from regrow.types import ActionSpace, Continuous, Key, Keys, Log, Memory, Transition

STEPS_PER_CHUNK = 2_000  # env steps; a chunk is whole rounds, one at least


class State(eqx.Module):
    """Everything that changes while a Run advances.

    Where environments are side by side, what is theirs has a leading axis for them.
    """

    # evolving
    agent: PyTree
    environment: PyTree
    observation: Shaped[Array, "*envs_and_obs"]
    episode_return: Float[Array, "*envs"]
    replay: Memory
    # random numbers: keys derive from (root, stream, counter)
    root: Key
    origin: Key  # the root that the Run started with; a fork with other draws keeps it
    env_steps: Int[Array, ""]
    updates: Int[Array, ""]


def each(function: Callable[..., Any], num_envs: int) -> Callable[..., Any]:
    """`function` of one environment as a function of all of them; of a lone one it stays as it is.

    A leading axis of length one would be another program, and a slower one.
    """
    return function if num_envs == 1 else jax.vmap(function)


def keys_of(root: Key, name: str, start: int | Int[Array, ""], num_envs: int) -> Key | Keys:
    """The keys of stream `name` for one env step of every environment; of a lone one just its."""
    return key_at(root, name, start) if num_envs == 1 else keys_from(root, name, start, num_envs)


def first(environment: Environment, num_envs: int, root: Key) -> tuple[PyTree, Array]:
    """(the environments' state, what is seen) at the start of a training."""
    return each(environment.beside(num_envs).reset, num_envs)(keys_of(root, "reset", 0, num_envs))


def advanced(
    state: State, agent: Agent, environment: Environment, env_steps: int
) -> tuple[State, Log]:
    """(the state `env_steps` later, whole rounds of them, what every env step reported)."""
    environment = environment.beside(agent.num_envs)
    per_round, now = agent.env_steps_per_round, int(state.env_steps)
    end, warm = now + env_steps, agent.first_learning_round
    logs: list[Log] = []
    while now < end:
        learning = now >= warm
        until = end if learning else min(end, warm)
        rounds = min((until - now) // per_round, _rounds_per_chunk(agent))
        state, log = _chunk(state, jnp.array(rounds), agent, environment, learning)
        steps = rounds * per_round
        logs.append(jax.tree.map(lambda x, steps=steps: np.asarray(x)[:steps], log))
        now += steps
    return state, jax.tree.map(lambda *parts: np.concatenate(parts), *logs)


@functools.partial(
    jax.jit, static_argnames=("agent", "environment", "learning"), donate_argnames="state"
)
def _chunk(
    state: State, rounds: Int[Array, ""], agent: Agent, environment: Environment, learning: bool
) -> tuple[State, Log]:
    """`rounds` rounds, at most those of a chunk; the log has room for that many."""
    steps, updates = agent.env_steps_per_round, agent.updates_per_round
    most = _rounds_per_chunk(agent)
    length = most * steps
    keys = {
        name: _by_round(keys_from(state.root, name, state.env_steps, length), agent)
        for name in ("act", "step", "reset")
    }
    sampling = keys_from(state.root, "sample", state.updates, most * updates)
    sampling = sampling.reshape(-1, updates)

    def body(i: Int[Array, ""], carry: tuple[State, Log]) -> tuple[State, Log]:
        state, log = carry
        now = {name: ks[i] for name, ks in keys.items()}
        state, entries = jax.lax.scan(
            lambda state, keys: _env_step(state, keys, agent, environment), state, now
        )
        log = jax.tree.map(
            lambda buffer, entry: jax.lax.dynamic_update_slice(buffer, entry.ravel(), (i * steps,)),
            log,
            entries,
        )
        if learning:
            state = updated(state, sampling[i], agent)
        return state, log

    return jax.lax.fori_loop(0, rounds, body, (state, _empty_log(length)))


def _rounds_per_chunk(agent: Agent) -> int:
    return max(1, STEPS_PER_CHUNK // agent.env_steps_per_round)


def _by_round(keys: Keys, agent: Agent) -> KeyArray[Array, "rounds turns *envs"]:
    """Keys of env steps by round, by turn of the environments, and, of more than one, by those."""
    turns = agent.env_steps_per_round // agent.num_envs
    own = () if agent.num_envs == 1 else (agent.num_envs,)
    return keys.reshape(-1, turns, *own)


def _empty_log(length: int) -> Log:
    number, flag = jnp.zeros(length), jnp.zeros(length, bool)
    return Log(number, flag, flag, number, number)


def _env_step(
    state: State, keys: dict[str, KeyArray[Array, "*envs"]], agent: Agent, environment: Environment
) -> tuple[State, Log]:
    """One env step of every environment; what happened goes into the replay."""

    def one(
        world: PyTree, observation: Array, total: Array, keys: dict[str, Key]
    ) -> tuple[tuple[PyTree, Array, Array], Transition, Log]:
        """Act and step; where the episode ended, start the next one."""
        action, value = agent.act(state.agent, observation, state.env_steps, keys["act"])
        after, step = environment.step(world, within(environment, action), keys["step"])
        discount = 1.0 - step.terminated.astype(jnp.float32)
        transition = Transition(observation, action, step.reward, discount, step.observation)
        ended = step.terminated | step.truncated
        fresh = environment.restart(after, keys["reset"])
        after, seen = either(ended, fresh, (after, step.observation))
        total = total + step.reward
        log = Log(step.reward, step.terminated, step.truncated, total, value)
        return (after, seen, jnp.where(ended, 0.0, total)), transition, log

    world = (state.environment, state.observation, state.episode_return)
    (after, observation, total), transition, log = each(one, agent.num_envs)(*world, keys)
    state = State(
        agent=state.agent,
        environment=after,
        observation=observation,
        episode_return=total,
        replay=state.replay.add(transition),
        root=state.root,
        origin=state.origin,
        env_steps=state.env_steps + agent.num_envs,
        updates=state.updates,
    )
    return state, log


def within(environment: Spaces, action: Shaped[Array, "*action"]) -> Array:
    """What the environment sees of an action; the replay has it as the agent chose it."""
    continuous = isinstance(environment.action_space, Continuous)
    return jnp.clip(action, -1.0, 1.0) if continuous else action


def random_policy(environment: Environment, env_steps: int, root: Key) -> Log:
    """What actions drawn uniformly collect."""

    @jax.jit
    def played(root: Key) -> Log:
        def step(carry: Any, keys: dict[str, Key]) -> tuple[Any, Log]:
            state, total = carry
            action = _at_random(environment.action_space, keys["act"])
            state, step = environment.step(state, action, keys["step"])
            total, ended = total + step.reward, step.terminated | step.truncated
            state = either(ended, environment.restart(state, keys["reset"])[0], state)
            log = Log(step.reward, step.terminated, step.truncated, total, jnp.array(jnp.nan))
            return (state, jnp.where(ended, 0.0, total)), log

        keys = {name: keys_from(root, name, 0, env_steps) for name in ("act", "step", "reset")}
        start, _ = environment.reset(key_at(root, "first reset", 0))
        return jax.lax.scan(step, (start, jnp.array(0.0)), keys)[1]

    return jax.tree.map(np.asarray, played(root))


def _at_random(space: ActionSpace, key: Key) -> Shaped[Array, "*action"]:
    if isinstance(space, Continuous):
        return jax.random.uniform(key, (space.size,), minval=-1.0, maxval=1.0)
    return jax.random.randint(key, (), 0, space.number)


def either(condition: Bool[Array, ""], yes: Any, no: Any) -> Any:
    """A tree: `yes` where the condition holds, else `no`."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def updated(state: State, keys: Keys, agent: Agent) -> State:
    """One update per key."""
    return eqx.tree_at(
        lambda s: (s.agent, s.updates),
        state,
        (taught(state.agent, state.replay, keys, agent), state.updates + len(keys)),
    )


def taught(state: PyTree, replay: Memory, keys: Keys, agent: Agent) -> PyTree:
    """The agent's state after one update per key."""
    if len(keys) == 1:
        # A loop of length one makes the round a quarter longer: XLA copies what it carries.
        return learnt(state, replay, keys[0], agent)
    return jax.lax.scan(lambda s, key: (learnt(s, replay, key, agent), None), state, keys)[0]


def learnt(state: PyTree, replay: Memory, key: Key, agent: Agent) -> PyTree:
    """The agent's state after one update on a sample from the replay, and after its habits."""
    sampling, learning = jax.random.split(key)
    batch = agent.batch(replay, sampling)
    after = agent.update(state, batch, learning)
    if any(learner.habits for learner in learners(after).values()):
        after = tended(after, agent.inputs(after, batch), stream(key, "habits"))
    return after

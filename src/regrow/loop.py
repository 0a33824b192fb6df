"""The training loop on the device, in compiled chunks.

    round = env_steps_per_round × (act, step, add to replay), then updates_per_round × (sample,
    update, and what the Learners do after an update by habit)

Environment, replay and update stay inside one compiled loop with donated state.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from regrow.agents.base import Agent
from regrow.environments.base import Environment
from regrow.learner import learners, tended
from regrow.replay import Replay
from regrow.streams import key_at, keys_from, stream
from regrow.types import ActionSpace, Continuous, Key, Keys, Log, Transition

ROUNDS_PER_CHUNK = 500


class State(eqx.Module):
    """Everything that changes while a Run advances."""

    # evolving
    agent: PyTree
    environment: PyTree
    observation: Shaped[Array, "*obs"]
    episode_return: Float[Array, ""]
    replay: Replay
    # random numbers: keys derive from (root, stream, counter)
    root: Key
    origin: Key  # the root that the Run started with; a fork with other draws keeps it
    env_steps: Int[Array, ""]
    updates: Int[Array, ""]


def first(environment: Environment, root: Key) -> tuple[PyTree, Array]:
    """(the environment's state, what is seen) at the start of a training."""
    return environment.reset(key_at(root, "reset", 0))


def advanced(
    state: State, agent: Agent, environment: Environment, env_steps: int
) -> tuple[State, Log]:
    """(the state `env_steps` later, whole rounds of them, what every env step reported)."""
    per_round, now = agent.env_steps_per_round, int(state.env_steps)
    end, warm = now + env_steps, first_learning_round(agent)
    logs: list[Log] = []
    while now < end:
        learning = now >= warm
        until = end if learning else min(end, warm)
        rounds = min((until - now) // per_round, ROUNDS_PER_CHUNK)
        state, log = _chunk(state, jnp.array(rounds), agent, environment, learning)
        steps = rounds * per_round
        logs.append(jax.tree.map(lambda x, steps=steps: np.asarray(x)[:steps], log))
        now += steps
    return state, jax.tree.map(lambda *parts: np.concatenate(parts), *logs)


def first_learning_round(agent: Agent) -> int:
    """The env step at which the first round begins that ends in updates."""
    return -(-agent.learn_start // agent.env_steps_per_round) * agent.env_steps_per_round


@functools.partial(
    jax.jit, static_argnames=("agent", "environment", "learning"), donate_argnames="state"
)
def _chunk(
    state: State, rounds: Int[Array, ""], agent: Agent, environment: Environment, learning: bool
) -> tuple[State, Log]:
    """`rounds` rounds, at most ROUNDS_PER_CHUNK; the log has room for that many."""
    steps, updates = agent.env_steps_per_round, agent.updates_per_round
    length = ROUNDS_PER_CHUNK * steps
    keys = {
        name: keys_from(state.root, name, state.env_steps, length).reshape(-1, steps)
        for name in ("act", "step", "reset")
    }
    sampling = keys_from(state.root, "sample", state.updates, ROUNDS_PER_CHUNK * updates)
    sampling = sampling.reshape(-1, updates)

    def body(i: Int[Array, ""], carry: tuple[State, Log]) -> tuple[State, Log]:
        state, log = carry
        now = {name: ks[i] for name, ks in keys.items()}
        state, entries = jax.lax.scan(
            lambda state, keys: _env_step(state, keys, agent, environment), state, now
        )
        log = jax.tree.map(
            lambda buffer, entry: jax.lax.dynamic_update_slice(buffer, entry, (i * steps,)),
            log,
            entries,
        )
        if learning:
            state = updated(state, sampling[i], agent)
        return state, log

    return jax.lax.fori_loop(0, rounds, body, (state, _empty_log(length)))


def _empty_log(length: int) -> Log:
    number, flag = jnp.zeros(length), jnp.zeros(length, bool)
    return Log(number, flag, flag, number, number)


def _env_step(
    state: State, keys: dict[str, Key], agent: Agent, environment: Environment
) -> tuple[State, Log]:
    """Act, step, store; where the episode ended, start the next one."""
    action, value = agent.act(state.agent, state.observation, state.env_steps, keys["act"])
    after, step = environment.step(state.environment, action, keys["step"])
    discount = 1.0 - step.terminated.astype(jnp.float32)
    transition = Transition(state.observation, action, step.reward, discount, step.observation)
    ended = step.terminated | step.truncated
    fresh = environment.restart(after, keys["reset"])
    after, observation = either(ended, fresh, (after, step.observation))
    episode_return = state.episode_return + step.reward
    log = Log(step.reward, step.terminated, step.truncated, episode_return, value)
    state = State(
        agent=state.agent,
        environment=after,
        observation=observation,
        episode_return=jnp.where(ended, 0.0, episode_return),
        replay=state.replay.add(transition),
        root=state.root,
        origin=state.origin,
        env_steps=state.env_steps + 1,
        updates=state.updates,
    )
    return state, log


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
    if len(keys) == 1:
        # A loop of length one makes the round a quarter longer: XLA copies what it carries.
        return _update(state, keys[0], agent)
    return jax.lax.scan(lambda state, key: (_update(state, key, agent), None), state, keys)[0]


def _update(state: State, key: Key, agent: Agent) -> State:
    return eqx.tree_at(
        lambda s: (s.agent, s.updates),
        state,
        (learnt(state.agent, state.replay, key, agent), state.updates + 1),
    )


def learnt(state: PyTree, replay: Replay, key: Key, agent: Agent) -> PyTree:
    """The agent's state after one update on a sample from the replay, and after its habits."""
    sampling, learning = jax.random.split(key)
    batch = replay.sample(sampling, agent.batch_size)
    after = agent.update(state, batch, learning)
    if any(learner.habits for learner in learners(after).values()):
        after = tended(after, agent.inputs(batch), stream(key, "habits"))
    return after

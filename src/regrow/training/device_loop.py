"""The training loop for environments on the device, compiled in chunks.

    round = env_steps_per_round × (act, step, add to replay), then updates_per_round × (sample a
    batch, update, run the Learners' update hooks)

Environment, replay and update stay inside one compiled loop with donated state. Parallel
environments (`agent.num_envs` = N) step together: env step t·N + n is step t of environment n.
"""

import functools
import itertools
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped
from jaxtyping import Key as KeyArray

from regrow.agents.base import Agent
from regrow.environments.base import DeviceEnvironment, Environment, Step
from regrow.errors import FaultyEnvironmentError
from regrow.experience.normalization import as_seen
from regrow.learners.learner import learners, run_hooks
from regrow.prng import key_at, keys_from, stream
from regrow.registry import describe
from regrow.training.backend import Advanced, Backend
from regrow.training.finite import require_finite, require_finite_log
from regrow.types import ActionSpace, Continuous, Discrete, Key, Keys, Log, Memory, Transition

STEPS_PER_CHUNK = 2_000  # env steps; a chunk is whole rounds, at least one
_STREAMS = ("act", "step", "reset")


class State(eqx.Module):
    """Everything that changes while a Run advances.

    With several parallel environments, per-environment leaves have a leading axis over them.
    """

    # training state
    agent: PyTree
    environment: PyTree
    observation: Shaped[Array, "*envs_and_obs"]
    episode_return: Float[Array, "*envs"]
    replay: Memory
    # random numbers: keys derive from (root, stream, counter)
    root: Key
    origin: Key  # the root at the start of the Run; a replicate keeps it
    env_steps: Int[Array, ""]
    updates: Int[Array, ""]


def vmap_envs(function: Callable[..., Any], num_envs: int) -> Callable[..., Any]:
    """`jax.vmap(function)` over environments; `function` itself if there is only one.

    A leading axis of length one would compile to a different, slower program.
    """
    return function if num_envs == 1 else jax.vmap(function)


def keys_of(root: Key, name: str, start: int | Int[Array, ""], num_envs: int) -> Key | Keys:
    """Keys of stream `name` for one env step of every environment; a single key if only one."""
    return key_at(root, name, start) if num_envs == 1 else keys_from(root, name, start, num_envs)


def reset_envs(environment: DeviceEnvironment, num_envs: int, root: Key) -> tuple[PyTree, Array]:
    """(environment state, first observation) at the start of training."""
    return vmap_envs(environment.with_num_envs(num_envs).reset, num_envs)(
        keys_of(root, "reset", 0, num_envs)
    )


def advanced(
    state: State, agent: Agent, environment: DeviceEnvironment, env_steps: int
) -> Advanced:
    """Trains for `env_steps`, which must be whole rounds; never forces new episodes.

    Raises `FaultyEnvironmentError` if an observation or a reward is not finite, and
    `NotFiniteError` if a number in the agent is not finite. Both are checked after each chunk.
    """
    name, environment = describe(environment), environment.with_num_envs(agent.num_envs)
    per_round, now = agent.env_steps_per_round, int(state.env_steps)
    end, warm = now + env_steps, agent.first_learning_round
    logs: list[Log] = []
    while now < end:
        learning = now >= warm
        until = end if learning else min(end, warm)
        rounds = min((until - now) // per_round, _rounds_per_chunk(agent))
        state, log, odd = _chunk(state, jnp.array(rounds), agent, environment, learning)
        steps = rounds * per_round
        logs.append(jax.tree.map(lambda x, steps=steps: np.asarray(x)[:steps], log))
        if int(odd) >= 0:
            raise FaultyEnvironmentError(
                f"{name}, env step {now + int(odd) + 1}: the observation is not finite"
            )
        require_finite_log(logs[-1], name, now)
        now += steps
        require_finite(state.agent, agent, now)
    return Advanced(state, jax.tree.map(lambda *parts: np.concatenate(parts), *logs), False)


@functools.partial(
    jax.jit, static_argnames=("agent", "environment", "learning"), donate_argnames="state"
)
def _chunk(
    state: State,
    rounds: Int[Array, ""],
    agent: Agent,
    environment: DeviceEnvironment,
    learning: bool,
) -> tuple[State, Log, Int[Array, ""]]:
    """Runs `rounds` rounds, at most a full chunk; the log has the length of a full chunk.

    The last result is the first env step of the chunk with a non-finite observation, or −1.
    """
    steps, updates = agent.env_steps_per_round, agent.updates_per_round
    most = _rounds_per_chunk(agent)
    length = most * steps
    keys = {
        name: _by_round(keys_from(state.root, name, state.env_steps, length), agent)
        for name in _STREAMS
    }
    sampling = keys_from(state.root, "sample", state.updates, most * updates)
    sampling = sampling.reshape(-1, updates)

    def body(i: Int[Array, ""], carry: tuple[State, Log, Array]) -> tuple[State, Log, Array]:
        state, log, odd = carry
        now = {name: ks[i] for name, ks in keys.items()}
        state, (entries, finite) = jax.lax.scan(
            lambda state, keys: _train_step(state, keys, agent, environment), state, now
        )
        if _floats(environment):
            met = ~finite.ravel()
            odd = jnp.where((odd < 0) & jnp.any(met), i * steps + jnp.argmax(met), odd)
        log = jax.tree.map(
            lambda buffer, entry: jax.lax.dynamic_update_slice(buffer, entry.ravel(), (i * steps,)),
            log,
            entries,
        )
        if learning:
            state = run_updates(state, sampling[i], agent)
        return state, log, odd

    return jax.lax.fori_loop(0, rounds, body, (state, _empty_log(length), jnp.array(-1)))


def _rounds_per_chunk(agent: Agent) -> int:
    return max(1, STEPS_PER_CHUNK // agent.env_steps_per_round)


def _by_round(keys: Keys, agent: Agent) -> KeyArray[Array, "rounds turns *envs"]:
    """Keys of env steps, reshaped to (rounds, turns), or (rounds, turns, num_envs) if several."""
    turns = agent.env_steps_per_round // agent.num_envs
    own = () if agent.num_envs == 1 else (agent.num_envs,)
    return keys.reshape(-1, turns, *own)


def _empty_log(length: int) -> Log:
    number, flag = jnp.zeros(length), jnp.zeros(length, bool)
    return Log(number, flag, flag, number, number)


class Playing(NamedTuple):
    """An environment during an episode: its state, the observation, the return so far."""

    state: PyTree
    observation: Array
    episode_return: Array


def env_step(
    environment: DeviceEnvironment,
    playing: Playing,
    policy: Callable[[Array, Key], tuple[Array, Array]],
    keys: dict[str, Key],
    restart: Callable[[PyTree, Key], tuple[PyTree, Array]] | None,
) -> tuple[Playing, tuple[Array, Step, Log]]:
    """Acts, steps and, if the episode ended, starts the next one: (after, (action, step, log)).

    `policy`: (observation, key) → (action, predicted value). `restart`: (state, key) → (state,
    first observation) of the next episode. With None the environment stays in the final state.
    """
    action, value = policy(playing.observation, keys["act"])
    state, step = environment.step(playing.state, clip_action(environment, action), keys["step"])
    seen, total = step.observation, playing.episode_return + step.reward
    did = action, step, Log(step.reward, step.terminated, step.truncated, total, value)
    if restart is not None:
        ended = step.terminated | step.truncated
        state, seen = tree_select(ended, restart(state, keys["reset"]), (state, seen))
        total = jnp.where(ended, 0.0, total)
    return Playing(state, seen, total), did


def _train_step(
    state: State,
    keys: dict[str, KeyArray[Array, "*envs"]],
    agent: Agent,
    environment: DeviceEnvironment,
) -> tuple[State, tuple[Log, Bool[Array, "*envs"]]]:
    """One env step of every environment; adds the transitions to the replay.

    Returns (state, (log, whether the observations are finite)).
    """

    def policy(observation: Array, key: Key) -> tuple[Array, Array]:
        return agent.act(state.agent, as_seen(state.replay, observation), state.env_steps, key)

    def one(
        playing: Playing, keys: dict[str, Key]
    ) -> tuple[Playing, Transition, tuple[Log, Array]]:
        after, (action, step, log) = env_step(
            environment, playing, policy, keys, environment.restart
        )
        discount = 1.0 - step.terminated.astype(jnp.float32)
        transition = Transition(
            playing.observation, action, step.reward, discount, step.observation, step.truncated
        )
        finite = jnp.isfinite(step.observation).all() & jnp.isfinite(after.observation).all()
        return after, transition, (log, finite)

    playing, transition, log = vmap_envs(one, agent.num_envs)(_playing(state), keys)
    state = State(
        agent=state.agent,
        environment=playing.state,
        observation=playing.observation,
        episode_return=playing.episode_return,
        replay=state.replay.add(transition),
        root=state.root,
        origin=state.origin,
        env_steps=state.env_steps + agent.num_envs,
        updates=state.updates,
    )
    return state, log


def _playing(state: State) -> Playing:
    return Playing(state.environment, state.observation, state.episode_return)


def _floats(environment: Environment) -> bool:
    """Whether observations are floats, and so may be non-finite."""
    return np.dtype(environment.observation_dtype).kind == "f"


def played_out(
    state: State, agent: Agent, environment: DeviceEnvironment, at_most: int
) -> tuple[np.ndarray, np.ndarray]:
    """(return of every running episode, whether it ended); see `Run.play_out`."""
    environment = environment.with_num_envs(agent.num_envs)
    totals, over = _played_out(
        state.agent,
        state.replay,
        _playing(state),
        state.env_steps,
        state.root,
        jnp.array(at_most),
        agent,
        environment,
    )
    return np.asarray(totals, np.float64).reshape(-1), np.asarray(over).reshape(-1)


@functools.partial(jax.jit, static_argnames=("agent", "environment"))
def _played_out(
    agent_state: PyTree,
    memory: Memory,
    playing: Playing,
    start: Int[Array, ""],
    root: Key,
    at_most: Int[Array, ""],
    agent: Agent,
    environment: DeviceEnvironment,
) -> tuple[Array, Array]:
    def one(
        playing: Playing, over: Array, keys: dict[str, Key], now: Array
    ) -> tuple[Playing, Array]:
        def policy(seen: Array, key: Key) -> tuple[Array, Array]:
            return agent.act(agent_state, as_seen(memory, seen), now, key)

        after, (_, step, _) = env_step(environment, playing, policy, keys, restart=None)
        return tree_select(over, playing, after), over | step.terminated | step.truncated

    def unfinished(carry: tuple[Array, Any, Array]) -> Array:
        turn, _, over = carry
        return (turn < at_most) & ~jnp.all(over)

    def step(carry: tuple[Array, Any, Array]) -> tuple[Array, Any, Array]:
        turn, playing, over = carry
        now = start + turn * agent.num_envs
        keys = {name: keys_of(root, name, now, agent.num_envs) for name in ("act", "step")}
        played = vmap_envs(lambda *each: one(*each, now=now), agent.num_envs)
        return turn + 1, *played(playing, over, keys)

    over = jnp.zeros(playing.episode_return.shape, bool)
    _, last, over = jax.lax.while_loop(unfinished, step, (jnp.array(0), playing, over))
    return last.episode_return, over


def exploited(
    state: State, agent: Agent, environment: DeviceEnvironment, root: Key
) -> Generator[tuple[float, bool]]:
    """Generates (reward, whether the episode ended), one pair per env step, without exploration.

    Every episode starts with `restart` from the environment state in `state`.
    """
    environment, home = environment.with_num_envs(agent.num_envs), state.environment
    if agent.num_envs > 1:
        home = jax.tree.map(lambda leaf: leaf[0], home)
    playing = Playing(*environment.restart(home, key_at(root, "restart", 0)), jnp.zeros(()))
    for start in itertools.count(0, STEPS_PER_CHUNK):
        playing, log = _exploited(
            state.agent, state.replay, home, playing, root, jnp.array(start), agent, environment
        )
        ended = np.asarray(log.terminated | log.truncated)
        yield from zip(np.asarray(log.reward).tolist(), ended.tolist(), strict=True)


@functools.partial(jax.jit, static_argnames=("agent", "environment"))
def _exploited(
    agent_state: PyTree,
    memory: Memory,
    home: PyTree,
    playing: Playing,
    root: Key,
    start: Int[Array, ""],
    agent: Agent,
    environment: DeviceEnvironment,
) -> tuple[Playing, Log]:
    """One chunk of env steps in one environment."""

    def policy(seen: Array, key: Key) -> tuple[Array, Array]:
        return agent.exploit(agent_state, as_seen(memory, seen), key), jnp.zeros(())

    def step(playing: Playing, keys: dict[str, Key]) -> tuple[Playing, Log]:
        after, (_, _, log) = env_step(
            environment, playing, policy, keys, lambda _, key: environment.restart(home, key)
        )
        return after, log

    keys = {name: keys_from(root, name, start, STEPS_PER_CHUNK) for name in _STREAMS}
    return jax.lax.scan(step, playing, keys)


def clip_action(environment: Environment, action: Shaped[Array, "*action"]) -> Array:
    """The action as the environment receives it; the replay stores it unclipped."""
    continuous = isinstance(environment.action_space, Continuous)
    return jnp.clip(action, -1.0, 1.0) if continuous else action


def random_policy(environment: DeviceEnvironment, env_steps: int, root: Key) -> Log:
    """The log of a uniformly random policy."""

    @jax.jit
    def played(root: Key) -> Log:
        def policy(_: Array, key: Key) -> tuple[Array, Array]:
            return _at_random(environment.action_space, key), jnp.array(jnp.nan)

        def step(playing: Playing, keys: dict[str, Key]) -> tuple[Playing, Log]:
            after, (_, _, log) = env_step(environment, playing, policy, keys, environment.restart)
            return after, log

        keys = {name: keys_from(root, name, 0, env_steps) for name in _STREAMS}
        first = environment.reset(key_at(root, "first reset", 0))
        return jax.lax.scan(step, Playing(*first, jnp.array(0.0)), keys)[1]

    return jax.tree.map(np.asarray, played(root))


def _at_random(space: ActionSpace, key: Key) -> Shaped[Array, "*action"]:
    if isinstance(space, Continuous):
        return jax.random.uniform(key, space.shape, minval=-1.0, maxval=1.0)
    numbers = space.number if isinstance(space, Discrete) else jnp.array(space.numbers)
    return jax.random.randint(key, space.shape, 0, numbers)


def tree_select(condition: Bool[Array, ""], yes: Any, no: Any) -> Any:
    """`yes` if the condition holds, else `no`, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def run_updates(state: State, keys: Keys, agent: Agent) -> State:
    """One update per key."""
    return eqx.tree_at(
        lambda s: (s.agent, s.updates),
        state,
        (scan_updates(state.agent, state.replay, keys, agent), state.updates + len(keys)),
    )


def scan_updates(state: PyTree, replay: Memory, keys: Keys, agent: Agent) -> PyTree:
    """The agent's state after one update per key."""
    if len(keys) == 1:
        # No scan of length one: XLA copies its carry, which makes a round 25% slower.
        return update_once(state, replay, keys[0], agent)
    return jax.lax.scan(lambda s, key: (update_once(s, replay, key, agent), None), state, keys)[0]


def update_once(state: PyTree, replay: Memory, key: Key, agent: Agent) -> PyTree:
    """The agent's state after one update on a sampled batch and its update hooks."""
    sampling, learning = jax.random.split(key)
    batch = agent.batch(replay, sampling)
    after = agent.update(state, batch, learning)
    if any(learner.hooks for learner in learners(after).values()):
        after = run_hooks(after, agent.inputs(after, batch), stream(key, "habits"))
    return after


def _blank(environment: DeviceEnvironment, num_envs: int) -> tuple[PyTree, Array]:
    return reset_envs(environment, num_envs, jax.random.key(0))


BACKEND = Backend(
    reset_envs, _blank, advanced, played_out, exploited, random_policy, keeps_world=False
)

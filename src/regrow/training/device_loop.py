"""The training loop on the device, in compiled chunks.

    round = env_steps_per_round × (act, step, add to replay), then updates_per_round × (take a
    batch, update, and what the Learners do after an update by hook)

Environment, replay and update stay inside one compiled loop with donated state. Environments side
by side (`agent.num_envs`) take their env steps at once: env step t·N + n is the t-th of the n-th.
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
from regrow.errors import FaultyEnvironmentError, NotFiniteError
from regrow.experience.normalization import as_seen
from regrow.learners.learner import LearnedScalar, learners, run_hooks
from regrow.prng import key_at, keys_from, stream
from regrow.registry import describe
from regrow.training.backend import Advanced, Backend
from regrow.types import ActionSpace, Continuous, Discrete, Key, Keys, Log, Memory, Transition

STEPS_PER_CHUNK = 2_000  # env steps; a chunk is whole rounds, one at least
_STREAMS = ("act", "step", "reset")


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
    origin: Key  # the root that the Run started with; a replicate keeps it
    env_steps: Int[Array, ""]
    updates: Int[Array, ""]


def vmap_envs(function: Callable[..., Any], num_envs: int) -> Callable[..., Any]:
    """`function` of one environment as a function of all of them; of a lone one it stays as it is.

    A leading axis of length one would be another program, and a slower one.
    """
    return function if num_envs == 1 else jax.vmap(function)


def keys_of(root: Key, name: str, start: int | Int[Array, ""], num_envs: int) -> Key | Keys:
    """The keys of stream `name` for one env step of every environment; of a lone one just its."""
    return key_at(root, name, start) if num_envs == 1 else keys_from(root, name, start, num_envs)


def reset_envs(environment: DeviceEnvironment, num_envs: int, root: Key) -> tuple[PyTree, Array]:
    """(the environments' state, what is seen) at the start of a training."""
    return vmap_envs(environment.with_num_envs(num_envs).reset, num_envs)(
        keys_of(root, "reset", 0, num_envs)
    )


def advanced(
    state: State, agent: Agent, environment: DeviceEnvironment, env_steps: int
) -> Advanced:
    """The state `env_steps` later, whole rounds of them; no episode is forced to begin anew.

    Raises `FaultyEnvironmentError` where the environment showed or gave what is not finite, and
    `NotFiniteError` where the agent's own numbers are no longer finite; both after a chunk.
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
    """`rounds` rounds, at most those of a chunk; the log has room for that many.

    Last: the first env step of the chunk at which an observation was not finite, else −1.
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
    """Keys of env steps by round, by turn of the environments, and, of more than one, by those."""
    turns = agent.env_steps_per_round // agent.num_envs
    own = () if agent.num_envs == 1 else (agent.num_envs,)
    return keys.reshape(-1, turns, *own)


def _empty_log(length: int) -> Log:
    number, flag = jnp.zeros(length), jnp.zeros(length, bool)
    return Log(number, flag, flag, number, number)


class Playing(NamedTuple):
    """An environment in the middle of an episode: its state, what is seen, the return so far."""

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
    """Acts, steps and, where the episode ended, starts the next one: (after, (action, step, log)).

    `policy`: (observation, key) → (action, predicted value). `restart`: (state, key) → (state,
    first observation) of the next episode; None: the environment stays where the episode ended.
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
    """One env step of every environment; what happened goes into the replay.

    (the state, (what is logged, whether what is seen is finite)).
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
    """Whether observations could be other than finite."""
    return np.dtype(environment.observation_dtype).kind == "f"


def require_finite_log(log: Log, name: str, start: int) -> None:
    """`FaultyEnvironmentError` where a reward or a return in a log is not finite.

    `name`: of the environment. `start`: the env step after which the log begins.
    """
    for what, numbers in (("reward", log.reward), ("return so far", log.episode_return)):
        finite = np.isfinite(numbers)
        if not finite.all():
            at = int(np.argmin(finite))
            raise FaultyEnvironmentError(
                f"{name}, env step {start + at + 1}: the {what} is {numbers[at]}; it must be a "
                "finite number"
            )


def require_finite(state: PyTree, agent: Agent, env_steps: int) -> None:
    """`NotFiniteError` where a parameter or a learned number is not finite.

    A loss or a gradient that is not finite makes the parameters so, in the same update.
    """
    held = [x for x in jax.tree.leaves(_learned(state)) if jnp.issubdtype(x.dtype, jnp.inexact)]
    if bool(_all_finite(held)):
        return
    for path, leaf in jax.tree_util.tree_flatten_with_path(_learned(state))[0]:
        numbers = np.asarray(leaf)
        if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            share = np.mean(~np.isfinite(numbers))
            raise NotFiniteError(
                f"{describe(agent)} is no longer finite by env step {env_steps}: {share:.0%} of "
                f"{name} is NaN or infinite; a lower learning_rate or smaller rewards may help"
            )


def _learned(state: PyTree) -> dict[str, PyTree]:
    """Networks, and learned numbers beside them, by name."""
    found: dict[str, PyTree] = {name: held.network for name, held in learners(state).items()}
    leaves, _ = jax.tree_util.tree_flatten_with_path(
        state, is_leaf=lambda x: isinstance(x, LearnedScalar)
    )
    for path, leaf in leaves:
        if isinstance(leaf, LearnedScalar):
            found[jax.tree_util.keystr(path, simple=True, separator=".")] = leaf.value
    return found


@jax.jit
def _all_finite(leaves: list[Array]) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]))


def played_out(
    state: State, agent: Agent, environment: DeviceEnvironment, at_most: int
) -> tuple[np.ndarray, np.ndarray]:
    """(the return of every running episode, whether it ended) as `Run.play_out` has it."""
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
    """(reward, whether the episode ended) of one env step after another, without exploring.

    Every episode begins where the environment of `state` is.
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
    """A chunk of env steps in one environment."""

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
    """What the environment sees of an action; the replay has it as the agent chose it."""
    continuous = isinstance(environment.action_space, Continuous)
    return jnp.clip(action, -1.0, 1.0) if continuous else action


def random_policy(environment: DeviceEnvironment, env_steps: int, root: Key) -> Log:
    """What actions drawn uniformly collect."""

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
    """A tree: `yes` where the condition holds, else `no`."""
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
        # A loop of length one makes the round a quarter longer: XLA copies what it carries.
        return update_once(state, replay, keys[0], agent)
    return jax.lax.scan(lambda s, key: (update_once(s, replay, key, agent), None), state, keys)[0]


def update_once(state: PyTree, replay: Memory, key: Key, agent: Agent) -> PyTree:
    """The agent's state after one update on a sample from the replay, and after its hooks."""
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

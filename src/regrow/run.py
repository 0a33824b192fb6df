"""The training loop: one pytree, advanced in compiled chunks.

    round = env_steps_per_round × (act, step, add to replay), then updates_per_round × (sample,
    update, and what the Learners do after an update by habit)

Environment, replay and update stay on the device inside one compiled loop with donated state.
Nothing that matters is kept elsewhere: a Run that was saved and loaded goes on bit for bit as if it
had never stopped, and so does a fork with nothing done to it.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from regrow.agents.base import Agent
from regrow.environments.base import Environment
from regrow.errors import RegrowError, require
from regrow.families import describe
from regrow.interventions.base import Intervention
from regrow.learner import learners, map_learners, tended
from regrow.probes.base import Past, Probe
from regrow.replay import Replay
from regrow.streams import key_at, keys_from, stream
from regrow.types import Key, Keys, Log, Transition

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


class Event(NamedTuple):
    """An intervention that was carried out, as the grammar of `regrow.families` writes it."""

    env_steps: int
    intervention: str


class Run(eqx.Module):
    """A training run: agent, environment, and all of its state."""

    state: State
    agent: Agent = eqx.field(static=True)
    environment: Environment = eqx.field(static=True)
    history: tuple[Event, ...] = eqx.field(static=True, default=())

    @staticmethod
    def start(agent: Agent, environment: Environment, *, seed: int) -> "Run":
        """A Run at env step 0; everything random in it follows from `seed`."""
        root = jax.random.key(seed)
        environment_state, observation = environment.reset(key_at(root, "reset", 0))
        shape, dtype = environment.observation_shape, environment.observation_dtype
        state = State(
            agent=_initial(agent, environment, root),
            environment=environment_state,
            observation=observation,
            episode_return=jnp.array(0.0),
            replay=Replay.empty(agent.replay_capacity, shape, dtype),
            root=root,
            origin=root,
            env_steps=jnp.array(0),
            updates=jnp.array(0),
        )
        return Run(_unshared(state), agent, environment)

    @property
    def env_steps(self) -> int:
        """Env steps taken so far."""
        return int(self._alive().state.env_steps)

    def advance(self, env_steps: int) -> tuple["Run", Log]:
        """(the Run `env_steps` later, what every env step reported); this Run is used up.

        Raises `RegrowError` unless `env_steps` is a positive multiple of the agent's round, or when
        this Run was advanced before (its memory has passed to the Run that came out).
        """
        per_round = self.agent.env_steps_per_round
        require(
            env_steps > 0 and env_steps % per_round == 0,
            f"env_steps is {env_steps}; it must be a positive multiple of {per_round}, "
            f"the env steps per round at a replay ratio of {self.agent.replay_ratio}",
        )
        state, now, end = self._alive().state, self.env_steps, self.env_steps + env_steps
        warm = -(-self.agent.learn_start // per_round) * per_round  # whole rounds
        logs: list[Log] = []
        while now < end:
            learning = now >= warm
            until = end if learning else min(end, warm)
            rounds = min((until - now) // per_round, ROUNDS_PER_CHUNK)
            state, log = _chunk(state, jnp.array(rounds), self.agent, self.environment, learning)
            steps = rounds * per_round
            logs.append(jax.tree.map(lambda x, steps=steps: np.asarray(x)[:steps], log))
            now += steps
        log = jax.tree.map(lambda *parts: np.concatenate(parts), *logs)
        return Run(state, self.agent, self.environment, self.history), log

    def fork(self, draws: int = 0) -> "Run":
        """A copy that shares nothing with this one.

        With `draws` 0 it goes on exactly as this Run would; any other number gives it random
        numbers of its own from here on.
        """
        state = _unshared(self._alive().state)
        if draws:
            state = eqx.tree_at(lambda s: s.root, state, key_at(state.root, "draws", draws))
        return Run(state, self.agent, self.environment, self.history)

    def intervene(self, intervention: Intervention) -> "Run":
        """A copy on whose agent the intervention was carried out; an Event in its history."""
        state = self._alive().state
        require(
            not intervention.needs_experience or int(state.replay.size) > 0,
            f"{describe(intervention)} needs experience, and the replay is empty; "
            "advance the run first",
        )
        key = key_at(state.root, "intervene", len(self.history))
        changed = _intervened(state.agent, state.replay, key, intervention, self.agent)
        state = _unshared(eqx.tree_at(lambda s: s.agent, state, changed))
        event = Event(self.env_steps, describe(intervention))
        return Run(state, self.agent, self.environment, (*self.history, event))

    def probe(
        self,
        probes: Sequence[Probe],
        *,
        count: int = 512,
        fresh: bool = False,
        since: "Run | None" = None,
    ) -> list[dict[str, float]]:
        """For every probe its value for each Learner, on `count` transitions from the replay.

        Probes that compare with an earlier time do so with `since`, or with the state before
        training where none is given. With `fresh` the same probes look at newly drawn networks of
        the same architectures, on the same transitions and beside the same past: what is normal
        there is no sign of loss. Raises `RegrowError` on an empty replay.
        """
        state = self._alive().state
        require(int(state.replay.size) > 0, "the replay is empty; advance the run first")
        batch = state.replay.sample(key_at(state.root, "probe", state.env_steps), count)
        key = key_at(state.root, "probe fresh", state.env_steps)
        initial = _initial(self.agent, self.environment, state.origin)
        past = Past(initial, initial if since is None else since._alive().state.agent)
        values = _probed(state.agent, batch, key, past, tuple(probes), self.agent, fresh)
        return [{name: float(value) for name, value in each.items()} for each in values]

    @property
    def used_up(self) -> bool:
        """Whether `advance` was called on this Run, so that its memory has passed on."""
        return self.state.env_steps.is_deleted()

    def _alive(self) -> "Run":
        if self.used_up:
            raise RegrowError(
                "this Run was advanced before and its memory has passed on; "
                "use the Run that `advance` returned, or `fork()` before advancing"
            )
        return self


def _initial(agent: Agent, environment: Environment, root: Key) -> PyTree:
    """The agent's state before training, the same in every bit whenever it is asked for."""
    shape, dtype = environment.observation_shape, environment.observation_dtype
    return agent.init(shape, dtype, environment.num_actions, key_at(root, "init", 0))


@functools.partial(jax.jit, static_argnames=("probes", "agent", "fresh"))
def _probed(
    state: PyTree,
    batch: Transition,
    key: Key,
    past: Past,
    probes: tuple[Probe, ...],
    agent: Agent,
    fresh: bool,
) -> list[dict[str, Array]]:
    if fresh:
        state = map_learners(lambda learner, key: learner.fresh(key), state, key)
    return [probe(state, agent=agent, batch=batch, key=key, past=past) for probe in probes]


def rehearsed(
    agent: Agent, environment: Environment, interventions: Sequence[Intervention]
) -> State:
    """The shapes of a Run's state after some interventions, without computing any of it.

    Raises what the interventions raise where they cannot be carried out on this agent.
    """

    def start() -> State:
        state = Run.start(agent, environment, seed=0).state
        changed = state.agent
        for intervention in interventions:
            changed = intervention(
                changed, agent=agent, experience=state.replay, key=jax.random.key(0)
            )
        return eqx.tree_at(lambda s: s.agent, state, changed)

    return jax.eval_shape(start)


def random_policy(environment: Environment, env_steps: int, *, seed: int) -> Log:
    """What actions drawn uniformly collect in `env_steps`; their predicted value is NaN."""

    @jax.jit
    def played(root: Key) -> Log:
        def step(carry: Any, keys: dict[str, Key]) -> tuple[Any, Log]:
            state, total = carry
            action = jax.random.randint(keys["act"], (), 0, environment.num_actions)
            state, step = environment.step(state, action, keys["step"])
            total, ended = total + step.reward, step.terminated | step.truncated
            state = _either(ended, environment.restart(state, keys["reset"])[0], state)
            log = Log(step.reward, step.terminated, step.truncated, total, jnp.array(jnp.nan))
            return (state, jnp.where(ended, 0.0, total)), log

        keys = {name: keys_from(root, name, 0, env_steps) for name in ("act", "step", "reset")}
        start, _ = environment.reset(key_at(root, "first reset", 0))
        return jax.lax.scan(step, (start, jnp.array(0.0)), keys)[1]

    log = played(key_at(jax.random.key(seed), "random policy", 0))
    return jax.tree.map(np.asarray, log)


def _unshared(state: State) -> State:
    """A copy in which no two leaves share memory, so that all of it can be donated."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)


@functools.partial(jax.jit, static_argnames=("intervention", "agent"))
def _intervened(
    state: PyTree, replay: Replay, key: Key, intervention: Intervention, agent: Agent
) -> PyTree:
    return intervention(state, agent=agent, experience=replay, key=key)


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
            state = _updated(state, sampling[i], agent)
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
    after, observation = _either(ended, fresh, (after, step.observation))
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


def _either(condition: Bool[Array, ""], yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _updated(state: State, keys: Keys, agent: Agent) -> State:
    """One update per key."""
    if len(keys) == 1:
        # A loop of length one makes the round a quarter longer: XLA copies what it carries.
        return _update(state, keys[0], agent)
    return jax.lax.scan(lambda state, key: (_update(state, key, agent), None), state, keys)[0]


def _update(state: State, key: Key, agent: Agent) -> State:
    sampling, learning = jax.random.split(key)
    batch = state.replay.sample(sampling, agent.batch_size)
    after = agent.update(state.agent, batch, learning)
    if any(learner.habits for learner in learners(after).values()):
        after = tended(after, agent.inputs(batch), stream(key, "habits"))
    return eqx.tree_at(lambda s: (s.agent, s.updates), state, (after, state.updates + 1))

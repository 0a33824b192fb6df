"""A training run as one pytree: start, advance, fork, intervene, probe.

A Run has all of its state. If the environment can be copied, a Run that was saved and loaded
continues bit for bit as if it had never stopped, and so does a fork without an intervention.
`device_loop.py` and `host_loop.py` advance a Run; both implement `backend.py`.
"""

import functools
import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from regrow.agents.base import Agent, OffPolicy
from regrow.environments.base import Environment, HostEnvironment
from regrow.errors import RegrowError, require, require_rounds
from regrow.experience.frame_replay import FrameReplay
from regrow.experience.normalization import NormalizingMemory, as_learned
from regrow.experience.replay import Replay, require_room
from regrow.interventions.base import Intervention
from regrow.learners.learner import map_learners
from regrow.prng import key_at
from regrow.probes.base import Past, Probe
from regrow.registry import describe, make
from regrow.training import device_loop, host_loop
from regrow.training.backend import Backend
from regrow.training.device_loop import State
from regrow.training.numerics import in_float32, nan_is_an_answer
from regrow.training.probing import every_probe
from regrow.types import Event, Key, Log, Memory, Transition

LONGEST = 30_000
"""Env steps after which `play_out` gives up an episode: slightly above the limit of Atari."""


class Run(eqx.Module):
    """A training run: agent, environment, and all of its state."""

    state: State
    agent: Agent = eqx.field(static=True)
    environment: Environment = eqx.field(static=True)
    history: tuple[Event, ...] = eqx.field(static=True, default=())
    restarts: tuple[int, ...] = eqx.field(static=True, default=())
    """Env steps at which new episodes were forced, as a simulation could not be copied."""

    @staticmethod
    @in_float32
    def start(agent: Agent, environment: Environment, *, seed: int) -> "Run":
        """A Run at env step 0; `seed` determines all of its random numbers."""
        root = jax.random.key(seed)
        first = backend_of(environment).start(environment, agent.num_envs, root)
        state = _begun(agent, environment, root, *first)
        # The replay shares no memory, and there may be no room for a second one.
        rest = _unshared_but_for(eqx.tree_at(lambda s: s.replay, state, None), environment)
        state = eqx.tree_at(
            lambda s: s.replay, rest, state.replay, is_leaf=lambda leaf: leaf is None
        )
        return Run(state, agent, environment)

    @property
    def env_steps(self) -> int:
        """Env steps taken so far."""
        return int(self._alive().state.env_steps)

    @property
    def num_envs(self) -> int:
        """The number of parallel environments."""
        return self.agent.num_envs

    @property
    def discount(self) -> float:
        """The agent's discount factor."""
        return self.agent.discount

    @property
    def replay_size(self) -> int:
        """Transitions in the replay; 0 for an agent that learns from each rollout once."""
        return int(self._alive().state.replay.size) if isinstance(self.agent, OffPolicy) else 0

    @in_float32
    def advance(self, env_steps: int) -> tuple["Run", Log]:
        """(the Run `env_steps` later, the log of those env steps); this Run is used up.

        This Run's buffers are donated to the returned Run, so this Run cannot be used again.

        Raises `FaultyEnvironmentError` if the environment's behaviour is invalid,
        `NotFiniteError` if a number in the agent is not finite, and `RegrowError` if `env_steps`
        is not a positive multiple of the agent's round or this Run was advanced before.
        """
        require_rounds("env_steps", env_steps, self.agent.env_steps_per_round)
        state, now = self._alive().state, self.env_steps
        backend = backend_of(self.environment)
        done = backend.advance(state, self.agent, self.environment, env_steps)
        restarts = (*self.restarts, now) if done.restarted else self.restarts
        return Run(done.state, self.agent, self.environment, self.history, restarts), done.log

    def play_out(self, *, at_most: int = LONGEST) -> tuple[np.ndarray, np.ndarray]:
        """Finishes the running episodes without learning: (returns, whether each ended).

        Both have shape (num_envs,), in the order of the environments. The agent acts as in
        training at this env step. After `at_most` further env steps an episode is given up, and
        its return is the sum so far. The return is NaN if an episode cannot be continued.

        This Run does not change, unless its simulation cannot be copied. Then the simulation
        itself is used, and a later `advance` starts new episodes.
        """
        state = self._alive().state
        backend = backend_of(self.environment)
        return backend.play_out(state, self.agent, self.environment, at_most)

    @in_float32
    def fork(self, replicate: int = 0) -> "Run":
        """A copy that shares no memory with this Run.

        With `replicate` 0 it continues exactly as this Run would. Any other number gives it
        different random numbers from here on.
        """
        state = _unshared(self._alive().state)
        if replicate:
            state = eqx.tree_at(lambda s: s.root, state, key_at(state.root, "draws", replicate))
            agent = jax.tree.map(functools.partial(_drawing_otherwise, replicate), state.agent)
            state = eqx.tree_at(lambda s: s.agent, state, agent)
        return Run(state, self.agent, self.environment, self.history, self.restarts)

    @in_float32
    def intervene(self, intervention: Intervention) -> "Run":
        """A copy with the intervention applied to its agent, and recorded in its history."""
        state = self._alive().state
        require(
            not intervention.needs_experience or int(state.replay.size) > 0,
            f"{describe(intervention)} needs experience, and the replay is empty; "
            "advance the run first",
        )
        key = key_at(state.root, "intervene", len(self.history))
        changed = _intervened(state.agent, state.replay, key, intervention, self.agent)
        changed = eqx.tree_at(lambda s: s.agent, state, changed)
        state = _unshared_but_for(changed, self.environment)
        event = Event(self.env_steps, describe(intervention))
        history = (*self.history, event)
        return Run(state, self.agent, self.environment, history, self.restarts)

    @in_float32
    @nan_is_an_answer
    def probe(
        self,
        probes: Sequence[Probe],
        *,
        count: int = 512,
        fresh: bool = False,
        since: "Run | None" = None,
    ) -> list[dict[str, float]]:
        """For every probe, its value for each Learner, on `count` transitions from the replay.

        `since`: the earlier Run with which some probes compare; by default the state before
        training. `fresh`: measure newly initialised networks of the same architectures instead, on
        the same transitions and with the same earlier state. Their values are the baseline: a value
        that is normal for fresh networks is no sign of lost plasticity.
        Raises `RegrowError` if the replay is empty.
        """
        state = self._alive().state
        require(int(state.replay.size) > 0, "the replay is empty; advance the run first")
        batch = state.replay.sample(key_at(state.root, "probe", state.env_steps), count)
        key = key_at(state.root, "probe fresh", state.env_steps)
        initial = _initial(self.agent, self.environment, state.origin)
        past = Past(initial, initial if since is None else since._alive().state.agent)
        looked_at = _drawn_anew(state.agent, key) if fresh else state.agent
        values = _probed(looked_at, batch, key, past, tuple(probes), self.agent)
        return [{name: float(value) for name, value in each.items()} for each in values]

    def measure(
        self,
        probes: Sequence[str] = (),
        *,
        fresh: bool = False,
        costly: bool = False,
        since: "Run | None" = None,
    ) -> dict[str, float]:
        """Probe values by name: `dead_units.head`, or `actor.dead_units.head` if several Learners.

        `probes`: which to measure, as written in the grammar; by default all with default fields,
        costly ones only with `costly=True`. `fresh` and `since` are as in `probe`.
        """
        named = {text: make("probes", text) for text in probes} or every_probe(costly=costly)
        values = self.probe(tuple(named.values()), fresh=fresh, since=since)
        return {
            name if len(each) == 1 else f"{learner}.{name}": value
            for name, each in zip(named, values, strict=True)
            for learner, value in each.items()
        }

    def learned_rewards(self, log: Log) -> np.ndarray:
        """The rewards of a log as the agent learns from them, with the current statistics."""
        rewards = self.environment.learned(np.asarray(log.reward))
        return np.asarray(as_learned(self._alive().state.replay, rewards))

    def losses(self) -> dict[str, float]:
        """The agent's current losses by Learner, on a batch as an update would sample it.

        Empty before the first update. The random numbers have their own stream, so training is
        not affected.
        """
        state = self._alive().state
        if not int(state.updates):
            return {}
        key = key_at(state.root, "losses", state.env_steps)
        values = _losses(state.agent, state.replay, key, self.agent)
        return {name: float(value) for name, value in values.items()}

    @property
    def used_up(self) -> bool:
        """Whether `advance` was called on this Run, so that its buffers are donated."""
        return self.state.env_steps.is_deleted()

    def _alive(self) -> "Run":
        if self.used_up:
            raise RegrowError(
                "this Run was advanced before and its memory has passed on; "
                "use the Run that `advance` returned, or `fork()` before advancing"
            )
        return self


def _begun(
    agent: Agent, environment: Environment, root: Key, world: PyTree, observation: Array
) -> State:
    """The state at env step 0, given the environment state and the first observation."""
    return State(
        agent=_initial(agent, environment, root),
        environment=world,
        observation=observation,
        episode_return=jnp.zeros(agent.num_envs if agent.num_envs > 1 else ()),
        replay=_empty(agent, environment),
        root=root,
        origin=root,
        env_steps=jnp.array(0),
        updates=jnp.array(0),
    )


def _empty(agent: Agent, environment: Environment) -> Memory:
    """An empty replay, with normalisation if the agent asks for it."""
    return NormalizingMemory.around(
        _stored(agent, environment),
        environment.observation_shape,
        environment.observation_dtype,
        num_envs=agent.num_envs,
        discount=agent.discount,
        observations=agent.normalize_observations,
        rewards=agent.normalize_rewards,
    )


def _stored(agent: Agent, environment: Environment) -> Memory:
    """An empty replay of raw transitions; with frame stacking it stores every frame once."""
    shape, dtype = environment.observation_shape, environment.observation_dtype
    actions, stacked = environment.action_space, environment.frames
    # On-policy agents need the whole round; with short episodes a FrameReplay would lose its start.
    if stacked == 1 or agent.waits_for_updates:
        return Replay.empty(agent.capacity, shape, dtype, actions)
    return FrameReplay.empty(
        agent.capacity, shape, dtype, actions, stacked=stacked, num_envs=agent.num_envs
    )


def _initial(agent: Agent, environment: Environment, root: Key) -> PyTree:
    """The agent's state before training; every call returns the same bits."""
    shape, dtype = environment.observation_shape, environment.observation_dtype
    return agent.init(shape, dtype, environment.action_space, key_at(root, "init", 0))


@jax.jit
def _drawn_anew(state: PyTree, key: Key) -> PyTree:
    """Separate from `_probed`, which compiles slowly, so that both cases share its program."""
    return map_learners(lambda learner, key: learner.fresh(key), state, key)


@functools.partial(jax.jit, static_argnames=("probes", "agent"))
def _probed(
    state: PyTree, batch: Transition, key: Key, past: Past, probes: tuple[Probe, ...], agent: Agent
) -> list[dict[str, Array]]:
    return [probe(state, agent=agent, batch=batch, key=key, past=past) for probe in probes]


@functools.partial(jax.jit, static_argnames="agent")
def _losses(state: PyTree, replay: Memory, key: Key, agent: Agent) -> dict[str, Array]:
    sampling, learning = jax.random.split(key)
    return agent.losses(state, agent.batch(replay, sampling), learning)


@in_float32
def abstract_state(
    agent: Agent, environment: Environment, interventions: Sequence[Intervention]
) -> State:
    """The shapes of a Run's state after some interventions; nothing is computed.

    If an intervention cannot be carried out on this agent, its error is raised. Networks that do
    not fit in memory are a `RegrowError`.
    """

    def start() -> State:
        root = jax.random.key(0)
        first = backend_of(environment).blank(environment, agent.num_envs)
        state = _begun(agent, environment, root, *first)
        changed = state.agent
        for intervention in interventions:
            changed = intervention(
                changed, agent=agent, experience=state.replay, key=jax.random.key(0)
            )
        return eqx.tree_at(lambda s: s.agent, state, changed)

    state = jax.eval_shape(start)
    leaves = [leaf for leaf in jax.tree.leaves(state.agent) if hasattr(leaf, "dtype")]
    require_room(sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves))
    return state


@in_float32
@nan_is_an_answer
def random_policy(environment: Environment, env_steps: int, *, seed: int) -> Log:
    """The log of `env_steps` of a uniformly random policy; predicted values are NaN."""
    root = key_at(jax.random.key(seed), "random policy", 0)
    return backend_of(environment).play_at_random(environment, env_steps, root)


def _drawing_otherwise(replicate: int, leaf: Array) -> Array:
    """A leaf of a replicate's agent state: keys (as in UPGD's noise) are replaced."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return key_at(leaf, "draws", replicate) if is_key else leaf


def _unshared_but_for(state: State, environment: Environment) -> State:
    """`_unshared`, except for the array that identifies the session of a host environment."""
    copy = _unshared(state)
    if backend_of(environment).keeps_world:
        copy = eqx.tree_at(lambda s: s.environment, copy, state.environment)
    return copy


def _unshared(state: State) -> State:
    """A copy in which no two leaves share memory, so that every leaf can be donated."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)


def backend_of(environment: Environment) -> Backend:
    """The backend that steps an environment: device or host."""
    on_host = isinstance(environment, HostEnvironment)
    return host_loop.BACKEND if on_host else device_loop.BACKEND


@functools.partial(jax.jit, static_argnames=("intervention", "agent"))
def _intervened(
    state: PyTree, replay: Memory, key: Key, intervention: Intervention, agent: Agent
) -> PyTree:
    return intervention(state, agent=agent, experience=replay, key=key)

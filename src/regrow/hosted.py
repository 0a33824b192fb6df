"""The training loop for an environment on the host: the simulation steps while the device learns.

    env step t:   act (device) → learn, where a round begins (device, not waited for)
                  → step the simulation (host, meanwhile) → add to replay (device)

So an update samples from what was there before the env step that it runs beside; after whole rounds
the number of updates is that of the loop on the device. The simulation is restored from its
snapshot when a Run is advanced, and copied into the Run at the end. Where there is no snapshot, a
Run that was forked or loaded begins a new episode.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree
from numpy.typing import NDArray

from regrow.agents.base import Agent
from regrow.environments.base import HostEnvironment, HostStep, Simulator
from regrow.loop import State, first_learning_round, learnt
from regrow.replay import Replay
from regrow.streams import key_at, keys_from
from regrow.types import Continuous, Key, Log, Transition

# For every environment the simulation that was last used, and the leaf of the Run it belongs to.
_live: dict[HostEnvironment, tuple[Array, Simulator]] = {}


def first(environment: HostEnvironment, root: Key) -> tuple[Array, Array]:
    """(the snapshot, what is seen) at the start of a training."""
    simulator = environment.simulator()
    observation = simulator.reset(_seed(key_at(root, "reset", 0)))
    mark = jnp.array(simulator.snapshot())
    _live[environment] = (mark, simulator)
    return mark, jnp.array(observation)


def blank(environment: HostEnvironment) -> tuple[Array, Array]:
    """Arrays of the shapes that `first` returns, without a simulation."""
    shape, dtype = environment.observation_shape, environment.observation_dtype
    return jnp.zeros(environment.snapshot_size, jnp.uint8), jnp.zeros(shape, dtype)


def advanced(
    state: State, agent: Agent, environment: HostEnvironment, env_steps: int
) -> tuple[State, Log]:
    """(the state `env_steps` later, whole rounds of them, what every env step reported)."""
    start, warm, per_round = (
        int(state.env_steps),
        first_learning_round(agent),
        agent.env_steps_per_round,
    )
    simulator, observation, total = _resumed(state, environment)
    resets = _seeds(state.root, start, env_steps)
    learner, replay, updates = state.agent, state.replay, int(state.updates)
    state.env_steps.delete()  # this state is used up from here on, as on the device
    log = _Pages(env_steps)
    for i in range(env_steps):
        now = start + i
        action, value = _act(learner, observation, np.int32(now), state.root, agent)
        if now >= warm and now % per_round == 0:
            learner = _learn(learner, replay, np.int32(updates), state.root, agent)
            updates += agent.updates_per_round
        action = np.asarray(action)
        step = simulator.step(action)
        total = np.float32(total + step.reward)
        replay = _add(replay, _transition(observation, action, step))
        log.write(i, step, total, float(value))
        observation = step.observation
        if step.terminated or step.truncated:
            observation, total = simulator.reset(int(resets[i])), np.float32(0.0)
    mark = jnp.array(simulator.snapshot())
    _live[environment] = (mark, simulator)
    state = State(
        agent=learner,
        environment=mark,
        observation=jnp.array(observation),
        episode_return=jnp.array(total),
        replay=replay,
        root=state.root,
        origin=state.origin,
        env_steps=jnp.array(start + env_steps),
        updates=jnp.array(updates),
    )
    return state, log.log


def random_policy(environment: HostEnvironment, env_steps: int, root: Key) -> Log:
    """What actions drawn uniformly collect."""
    simulator, space = environment.simulator(), environment.action_space
    draw = np.random.default_rng(_seed(root))
    resets = _seeds(root, 0, env_steps + 1)
    simulator.reset(int(resets[-1]))
    log, total = _Pages(env_steps), np.float32(0.0)
    for i in range(env_steps):
        if isinstance(space, Continuous):
            action = draw.uniform(-1, 1, space.size).astype(np.float32)
        else:
            action = np.asarray(draw.integers(space.number))
        step = simulator.step(action)
        total = np.float32(total + step.reward)
        log.write(i, step, total, float("nan"))
        if step.terminated or step.truncated:
            simulator.reset(int(resets[i]))
            total = np.float32(0.0)
    return log.log


def _resumed(
    state: State, environment: HostEnvironment
) -> tuple[Simulator, NDArray[Any], np.float32]:
    """(a simulation where the state's is, what is seen there, the episode's return so far)."""
    mark, simulator = _live.pop(environment, (None, None))
    simulator = simulator or environment.simulator()
    if environment.snapshot_size:
        simulator.restore(np.asarray(state.environment))
    elif mark is not state.environment:
        # No way back into the episode: every Run that was forked or loaded begins one alike.
        seed = _seed(key_at(state.root, "restart", state.env_steps))
        return simulator, simulator.reset(seed), np.float32(0.0)
    return simulator, np.asarray(state.observation), np.float32(state.episode_return)


def _seed(key: Key) -> int:
    return int(jax.random.bits(key))


def _seeds(root: Key, start: int, count: int) -> NDArray[np.uint32]:
    """The seed of the episode that would begin after each env step."""
    return np.asarray(jax.vmap(jax.random.bits)(keys_from(root, "reset", start, count)))


def _transition(observation: NDArray[Any], action: NDArray[Any], step: HostStep) -> Transition:
    """What the agent learns from; the log has the rewards and ends of the environment itself."""
    discount = np.float32(not (step.terminated or step.life_lost))
    reward = np.float32(step.reward if step.learned_reward is None else step.learned_reward)
    return Transition(observation, action, reward, discount, step.observation)  # pyright: ignore


@functools.partial(jax.jit, static_argnames="agent")
def _act(
    state: PyTree, observation: Array, env_steps: Int[Array, ""], root: Key, agent: Agent
) -> tuple[Array, Array]:
    return agent.act(state, observation, env_steps, key_at(root, "act", env_steps))


@functools.partial(jax.jit, static_argnames="agent", donate_argnames="state")
def _learn(
    state: PyTree, replay: Replay, updates: Int[Array, ""], root: Key, agent: Agent
) -> PyTree:
    """The updates of one round."""
    keys = keys_from(root, "sample", updates, agent.updates_per_round)
    if len(keys) == 1:
        return learnt(state, replay, keys[0], agent)
    return jax.lax.scan(lambda s, key: (learnt(s, replay, key, agent), None), state, keys)[0]


@functools.partial(jax.jit, donate_argnames="replay")
def _add(replay: Replay, transition: Transition) -> Replay:
    return replay.add(transition)


class _Pages:
    """A log that is being written."""

    def __init__(self, env_steps: int):
        numbers = [np.zeros(env_steps, np.float32) for _ in range(3)]
        flags = [np.zeros(env_steps, np.bool_) for _ in range(2)]
        self.log = Log(numbers[0], *flags, *numbers[1:])

    def write(self, i: int, step: HostStep, episode_return: np.float32, value: float) -> None:
        """The entry of one env step."""
        entry = (step.reward, step.terminated, step.truncated, episode_return, value)
        for page, number in zip(self.log, entry, strict=True):
            page[i] = number

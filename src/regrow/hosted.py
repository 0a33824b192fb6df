"""The training loop for an environment on the host: the simulation steps while the device learns.

    env step t:   act (device) → learn, where a round begins (device, not waited for)
                  → step the simulation (host, meanwhile) → add to replay (device)

So an update samples from what was there before the env step that it runs beside; after whole rounds
the number of updates is that of the loop on the device. An agent that waits for its updates learns
at the end of a round instead, and acts on what it learnt. Simulations side by side
(`agent.num_envs`) are acted on in one call and stepped one after the other.

A simulation is restored from its snapshot when a Run is advanced, and copied into the Run at the
end. Where there is no snapshot, a Run that was forked or loaded begins a new episode.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from numpy.typing import NDArray

from regrow.agents.base import Agent
from regrow.environments.base import HostEnvironment, HostStep, Simulator
from regrow.loop import State, each, keys_of, taught
from regrow.streams import keys_from
from regrow.types import Continuous, Key, Log, Memory, Transition

# For every environment the simulations that were last used, and the leaf of the Run whose they are.
_live: dict[HostEnvironment, tuple[Array, list[Simulator]]] = {}


def first(environment: HostEnvironment, num_envs: int, root: Key) -> tuple[Array, Array]:
    """(the snapshots, what is seen) at the start of a training."""
    simulators = [environment.simulator() for _ in range(num_envs)]
    seeds = _seeds(root, 0, num_envs)
    seen = [one.reset(int(seed)) for one, seed in zip(simulators, seeds, strict=True)]
    return _marked(environment, simulators), jnp.array(_together(seen))


def blank(environment: HostEnvironment, num_envs: int) -> tuple[Array, Array]:
    """Arrays of the shapes that `first` returns, without a simulation."""
    axes = () if num_envs == 1 else (num_envs,)
    shape, dtype = environment.observation_shape, environment.observation_dtype
    snapshots = jnp.zeros((*axes, environment.snapshot_size), jnp.uint8)
    return snapshots, jnp.zeros((*axes, *shape), dtype)


def advanced(
    state: State, agent: Agent, environment: HostEnvironment, env_steps: int
) -> tuple[State, Log]:
    """(the state `env_steps` later, whole rounds of them, what every env step reported)."""
    start, warm = int(state.env_steps), agent.first_learning_round
    per_round, side_by_side = agent.env_steps_per_round, agent.num_envs
    simulators, observation, totals = _resumed(state, environment, side_by_side)
    resets = _seeds(state.root, start, env_steps)
    learner, form = jax.tree.flatten(state.agent)
    replay, updates = state.replay, int(state.updates)
    state.env_steps.delete()  # this state is used up from here on, as on the device
    log, continuous = _Pages(env_steps), isinstance(environment.action_space, Continuous)
    for i in range(0, env_steps, side_by_side):
        now, then = start + i, start + i + side_by_side
        action, value = _act(learner, form, observation, np.int32(now), state.root, agent)
        if not agent.waits_for_updates and now >= warm and now % per_round == 0:
            learner = _learn(learner, form, replay, np.int32(updates), state.root, agent)
            updates += agent.updates_per_round
        action, value = np.asarray(action), np.asarray(value)
        within = np.clip(action, -1.0, 1.0) if continuous else action
        chosen = _apart(within, simulators)
        steps = [one.step(act) for one, act in zip(simulators, chosen, strict=True)]
        replay = _add(replay, _transition(observation, action, steps))
        seen = []
        for n, (step, predicted) in enumerate(zip(steps, value.ravel().tolist(), strict=True)):
            totals[n] += np.float32(step.reward)
            log.write(i + n, step, totals[n], predicted)
            seen.append(step.observation)
            if step.terminated or step.truncated:
                seen[n], totals[n] = simulators[n].reset(int(resets[i + n])), 0.0
        observation = _together(seen)
        if agent.waits_for_updates and then > warm and then % per_round == 0:
            learner = _learn(learner, form, replay, np.int32(updates), state.root, agent)
            updates += agent.updates_per_round
    state = State(
        agent=jax.tree.unflatten(form, learner),
        environment=_marked(environment, simulators),
        observation=jnp.array(observation),
        episode_return=jnp.array(_together(list(totals))),
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


def _marked(environment: HostEnvironment, simulators: list[Simulator]) -> Array:
    """The snapshots of simulations, which go on as those of the Run that this array belongs to."""
    mark = jnp.array(_together([one.snapshot() for one in simulators]))
    _live[environment] = (mark, simulators)
    return mark


def _resumed(
    state: State, environment: HostEnvironment, num_envs: int
) -> tuple[list[Simulator], NDArray[Any], NDArray[np.float32]]:
    """(simulations where the state's are, what is seen there, the episodes' returns so far)."""
    mark, simulators = _live.pop(environment, (None, []))
    if len(simulators) != num_envs:
        simulators = [environment.simulator() for _ in range(num_envs)]
    totals = np.array(state.episode_return).reshape(num_envs)
    if environment.snapshot_size:
        snapshots = _apart(np.asarray(state.environment), simulators)
        for one, snapshot in zip(simulators, snapshots, strict=True):
            one.restore(snapshot)
    elif mark is not state.environment:
        # No way back into the episode: every Run that was forked or loaded begins one alike.
        keys = np.asarray(
            each(jax.random.bits, num_envs)(
                keys_of(state.root, "restart", state.env_steps, num_envs)
            )
        ).reshape(num_envs)
        seen = [one.reset(int(seed)) for one, seed in zip(simulators, keys, strict=True)]
        return simulators, _together(seen), np.zeros_like(totals)
    return simulators, np.asarray(state.observation), totals


def _together(arrays: Sequence[Any]) -> NDArray[Any]:
    """What belongs to every simulation as one array; of a lone one it stays as it is."""
    return np.asarray(arrays[0]) if len(arrays) == 1 else np.stack(arrays)


def _apart(array: NDArray[Any], simulators: Sequence[Simulator]) -> Sequence[NDArray[Any]]:
    """What `_together` put together."""
    return [array] if len(simulators) == 1 else [np.asarray(each) for each in array]


def _seed(key: Key) -> int:
    return int(jax.random.bits(key))


def _seeds(root: Key, start: int, count: int) -> NDArray[np.uint32]:
    """The seed of the episode that would begin after each env step."""
    return np.asarray(jax.vmap(jax.random.bits)(keys_from(root, "reset", start, count)))


def _transition(
    observation: NDArray[Any], action: NDArray[Any], steps: Sequence[HostStep]
) -> Transition:
    """What the agent learns from; the log has the rewards and ends of the environment itself."""
    rewards = [s.reward if s.learned_reward is None else s.learned_reward for s in steps]
    discounts = [not (s.terminated or s.life_lost) for s in steps]
    seen = [step.observation for step in steps]
    numbers = [_together(x).astype(np.float32) for x in (rewards, discounts)]
    held: Any = (observation, action, *numbers, _together(seen))  # of NumPy, until they are added
    return Transition(*held)


# The agent's state goes in and out as leaves: its modules would be taken apart in Python, and put
# together again, at every call.
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
    return each(lambda obs, key: agent.act(state, obs, env_steps, key), agent.num_envs)(
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
    return jax.tree.leaves(taught(jax.tree.unflatten(form, leaves), replay, keys, agent))


@functools.partial(jax.jit, donate_argnames="replay")
def _add(replay: Memory, transition: Transition) -> Memory:
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

"""FLOPs of an agent's acting and learning, as XLA counts them.

The count is that of the program before XLA optimises it. It is the same on every machine, and
within a percent of the count after optimisation on a CPU. Not counted: the environment, sampling
from the replay, update hooks, and the computation of the interventions themselves.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jaxtyping import PyTree

from regrow.agents.base import Agent
from regrow.environments.base import Environment
from regrow.registry import make
from regrow.training.device_loop import State
from regrow.training.numerics import in_float32
from regrow.training.run import abstract_state
from regrow.types import Event


class Cost(NamedTuple):
    """FLOPs of one action and of one update."""

    act: float
    update: float


@in_float32
def flops(
    agent: Agent, environment: Environment, history: Sequence[Event], start: int, end: int
) -> float:
    """FLOPs from env step `start` to `end`, given the network sizes at each step.

    `history`: every event of the run up to `end`, in order. Interventions may change the network
    sizes. An event at `start` counts as done.
    """
    state = abstract_state(agent, environment, ())
    total, now = 0.0, start
    for event in history:
        if event.env_steps > now:
            total += _between(agent, cost(agent, state), now, min(event.env_steps, end))
            now = min(event.env_steps, end)
        state = _after(agent, state, event.intervention)
    return total + _between(agent, cost(agent, state), now, end)


def _between(agent: Agent, cost: Cost, start: int, end: int) -> float:
    learning = max(0, end - max(start, agent.first_learning_round))
    updates = learning / agent.env_steps_per_round * agent.updates_per_round
    return cost.act * (end - start) + cost.update * updates


def _after(agent: Agent, state: State, text: str) -> State:
    """The state's shapes after an intervention."""
    intervention = make("interventions", text)

    def changed(state: State) -> PyTree:
        key = jax.random.key(0)
        return intervention(state.agent, agent=agent, experience=state.replay, key=key)

    return eqx.tree_at(lambda s: s.agent, state, jax.eval_shape(changed, state))


def cost(agent: Agent, state: State) -> Cost:
    """The cost of acting and updating with networks of the shapes in `state`."""
    leaves, structure = jax.tree.flatten((state.agent, state.replay))
    shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
    return _cost(agent, structure, shapes)


@functools.lru_cache(maxsize=256)
def _cost(agent: Agent, structure: Any, shapes: tuple[jax.ShapeDtypeStruct, ...]) -> Cost:
    state, replay = jax.tree.unflatten(structure, shapes)
    key = jax.eval_shape(lambda: jax.random.key(0))
    batch = jax.eval_shape(agent.batch, replay, key)
    seen = jax.eval_shape(lambda batch: batch.obs_t[0], batch)
    now = jax.ShapeDtypeStruct((), jax.numpy.int32)
    return Cost(
        _counted(agent.act, state, seen, now, key), _counted(agent.update, state, batch, key)
    )


def _counted(function: Any, *arguments: PyTree) -> float:
    return _flops(jax.make_jaxpr(function)(*arguments))


def _flops(program: ClosedJaxpr) -> float:
    """XLA's count, corrected for scans: XLA counts the body of a loop only once."""
    return _once(program) + _repeats(program)


def _once(program: ClosedJaxpr) -> float:
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in program.in_avals]
    analysis = jax.jit(jaxpr_as_fun(program)).lower(*shapes).cost_analysis()
    return float(analysis["flops"]) if analysis else float("nan")


def _repeats(program: ClosedJaxpr) -> float:
    total = 0.0
    for equation in program.jaxpr.eqns:
        parts = [part for part in equation.params.values() if isinstance(part, ClosedJaxpr)]
        if equation.primitive.name == "scan":
            (body,) = parts
            total += equation.params["length"] * _flops(body) - _once(body)
        else:
            total += sum(_repeats(part) for part in parts)
    return total

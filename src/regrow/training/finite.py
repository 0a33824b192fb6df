"""Refuses numbers that are not finite, from an environment or in an agent's parameters."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from regrow.agents.base import Agent
from regrow.errors import FaultyEnvironmentError, NotFiniteError
from regrow.learners.learner import LearnedScalar, learners
from regrow.registry import describe
from regrow.types import Log


def require_finite_log(log: Log, name: str, start: int) -> None:
    """Raises `FaultyEnvironmentError` if a reward or a return in a log is not finite.

    `name`: the environment's name. `start`: env steps taken before the log begins.
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
    """Raises `NotFiniteError` if a parameter or a learned scalar is not finite.

    A non-finite loss or gradient makes the parameters non-finite in the same update.
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
    """All networks and learned scalars, by name."""
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

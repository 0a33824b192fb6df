"""The primacy bias, induced on purpose (Nikishin et al. 2022, arXiv 2205.07802).

Many updates on the first data that an agent collected impair the rest of its learning. What goes
wrong here is mostly the value estimates: they diverge, bootstrapped from few transitions.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from regrow.errors import require
from regrow.interventions.base import Intervention, State, Updates
from regrow.types import Experience, Key


@dataclass(frozen=True)
class Prime(Intervention):
    """Makes many updates on the oldest transitions in the replay buffer: the primacy bias.

    `updates`: how many. `transitions`: how many of the oldest ones to sample batches from.
    """

    updates: int = 50_000
    transitions: int = 1_000

    needs_experience: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("updates", "transitions"):
            value = getattr(self, name)
            require(value >= 1, f"prime: {name} is {value}; it must be at least 1")

    def __call__(self, state: State, *, agent: Updates, experience: Experience, key: Key) -> State:
        """The agent's state after the last update."""
        data = experience.first(self.transitions)

        def one_update(state: State, key: Key) -> tuple[State, None]:
            choosing, updating = jax.random.split(key)
            shape = (agent.rows_per_update,)
            rows = jax.random.randint(choosing, shape, 0, self.transitions, jnp.int32)
            batch = jax.tree.map(lambda x: x[rows], data)
            return agent.update(state, batch, updating), None

        # Hooks keep their state: the units are the same, only trained further.
        return jax.lax.scan(one_update, state, jax.random.split(key, self.updates))[0]

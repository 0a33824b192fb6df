"""A stressor that removes plasticity, and its matched control.

Fitting a network to targets that are resampled repeatedly destroys its ability to fit (Lyle et al.
2022, arXiv 2204.09560). Fitting it equally long to fixed targets does not. Both use the same data
and number of updates and differ in nothing else, so the pair can test a diagnosis.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from regrow.errors import require
from regrow.interventions.base import Intervention, State, Updates
from regrow.learners.learner import Learner, map_learners
from regrow.types import Experience, Key


@dataclass(frozen=True)
class FitNoise(Intervention):
    """Trains on random rewards to destroy plasticity; with redraw=False, the matched control.

    Samples `transitions` from the replay buffer once, and makes all of them terminal. In each of
    `rounds` rounds the agent makes `updates` updates on them with rewards from N(0, 1). The rewards
    are resampled every round, or kept with redraw=False. Finally targets become copies of their
    networks.
    """

    rounds: int = 20
    updates: int = 1_000
    transitions: int = 2_000
    redraw: bool = True

    needs_experience: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("rounds", "updates", "transitions"):
            value = getattr(self, name)
            require(value >= 1, f"fit_noise: {name} is {value}; it must be at least 1")

    def __call__(self, state: State, *, agent: Updates, experience: Experience, key: Key) -> State:
        """The agent's state after the last round."""
        sampling, rewards, learning = jax.random.split(key, 3)
        data = experience.sample(sampling, self.transitions)

        def one_round(state: State, i: PyTree) -> tuple[State, None]:
            drawn = jax.random.fold_in(rewards, i if self.redraw else 0)
            noise = jax.random.normal(drawn, (self.transitions,), jnp.float32)
            noisy = data._replace(reward=noise, discount=jnp.zeros_like(noise))

            def one_update(state: State, key: Key) -> tuple[State, None]:
                choosing, updating = jax.random.split(key)
                shape = (agent.rows_per_update,)
                rows = jax.random.randint(choosing, shape, 0, self.transitions, jnp.int32)
                batch = jax.tree.map(lambda x: x[rows], noisy)
                return agent.update(state, batch, updating), None

            keys = jax.random.split(jax.random.fold_in(learning, i), self.updates)
            return jax.lax.scan(one_update, state, keys)

        # Hooks keep their state: the units are the same, only trained further.
        state, _ = jax.lax.scan(one_round, state, jnp.arange(self.rounds))
        return map_learners(_with_synced_target, state, key)


def _with_synced_target(learner: Learner, key: Key) -> Learner:
    del key
    return learner if learner.target is None else learner.follow()

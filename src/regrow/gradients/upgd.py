"""Utility-based perturbed gradient descent, UPGD (Elsayed & Mahmood 2024, arXiv 2404.00781).

    U ← βU + (1 − β)(−g∘θ),     Û = U/(1 − βᵗ),     η = max Û over the whole network
    θ ← (1 − α·decay)θ + 2(1 − sigmoid(Û/η))∘(u − α·σ·ξ),     ξ ~ N(0, 1)

The utility of a weight is the rise in loss without it, to first order. Weights of utility 0 take
full steps and full noise; those of the highest utility take 0.54 of both. u is the step of the
optimizer. With Adam this is the authors' AdaUPGD, which trains their agents; its values are the
defaults here. Their code divides by the maximum of U where the paper has that of Û. The ratio is
then 1/(1 − βᵗ) times as large, which freezes all useful weights for about 1/(1 − β) steps. If no
weight has positive utility, as in a dead network, the ratio is taken to be 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from regrow.errors import require
from regrow.gradients.base import GradientTerm
from regrow.learners.optimizer import Trail
from regrow.types import Key, Scalar


class UPGDState(NamedTuple):
    """The state of one part: U, 1 − βᵗ with t the age of each weight, and the key of its noise."""

    utility: PyTree
    held: PyTree
    key: Trail


@dataclass(frozen=True)
class UPGD(GradientTerm):
    """Protects useful weights from steps and noise: 2(1 − sigmoid(Û/max Û))∘(u − α·noise·ξ)."""

    acts_on = "update"

    noise: float = 1e-3
    beta: float = 0.999
    decay: float = 1e-3

    def __post_init__(self) -> None:
        require(self.noise >= 0, f"upgd: noise is {self.noise}; it must be 0 or more")
        require(
            self.beta >= 0 and float(np.float32(self.beta)) < 1,
            f"upgd: beta is {self.beta}; it must be in [0, 1), as a number of 32 bits",
        )
        require(self.decay >= 0, f"upgd: decay is {self.decay}; it must be 0 or more")

    def read(self, gradient: PyTree, state: UPGDState, part: PyTree) -> Scalar:
        """The maximum of Û over a part."""
        worth = self._corrected(self._next(gradient, state, part))
        return jnp.max(jnp.stack([jnp.max(leaf) for leaf in jax.tree.leaves(worth)]))

    def gather(self, numbers: Sequence[Scalar]) -> Scalar:
        """η, the maximum over all parts."""
        return jnp.max(jnp.stack(list(numbers)))

    def transform(
        self, *, learning_rate: float, output: bool
    ) -> optax.GradientTransformationExtraArgs:
        """Each part draws independent noise, from a key derived from its initial parameters."""
        del output

        def init(params: PyTree) -> UPGDState:
            zeros = optax.tree.zeros_like(params)
            return UPGDState(zeros, zeros, Trail(_key_of(params)))

        def update(
            updates: PyTree, state: Any, params: PyTree | None = None, **extra_args: Any
        ) -> tuple[PyTree, Any]:
            later, drawing = jax.random.split(state.key.so_far)
            state = self._next(extra_args["gradient"], state, params)._replace(key=Trail(later))
            highest = extra_args["told"][self]
            drawn = optax.tree.random_like(drawing, updates, jax.random.normal)

            def one(u: Array, xi: Array, worth: Array, now: Array) -> Array:
                share = jnp.where(highest > 0, worth / highest, 0.0)
                free = 2 * (1 - jax.nn.sigmoid(share))
                return free * (u - learning_rate * self.noise * xi) - (
                    learning_rate * self.decay * now
                )

            return jax.tree.map(one, updates, drawn, self._corrected(state), params), state

        return optax.GradientTransformationExtraArgs(init, update)

    def _next(self, gradient: PyTree, state: UPGDState, part: PyTree) -> UPGDState:
        def mean(u: Array, g: Array, now: Array) -> Array:
            return self.beta * u - (1 - self.beta) * g * now

        utility = jax.tree.map(mean, state.utility, gradient, part)
        held = jax.tree.map(lambda h: self.beta * h + (1 - self.beta), state.held)
        return UPGDState(utility, held, state.key)

    def _corrected(self, state: UPGDState) -> PyTree:
        return jax.tree.map(jnp.divide, state.utility, state.held)


def _key_of(part: PyTree) -> Key:
    """A key from the bits of the parameters. Their integer sum does not depend on the order."""
    bits = [
        jnp.sum(jax.lax.bitcast_convert_type(leaf, jnp.uint32), dtype=jnp.uint32)
        for leaf in jax.tree.leaves(part)
    ]
    return jax.random.key(sum(bits, jnp.zeros((), jnp.uint32)))

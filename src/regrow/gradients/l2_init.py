"""Regenerative regularisation, L2 Init (Kumar et al. 2023, arXiv 2308.11958).

    L ← L + λ‖θ − θ₀‖²,     so  g ← g + 2λ(θ − θ₀)

The norm is squared, so its gradient grows with the distance. The authors' code has ½λ: their λ is
twice that of the paper and of this module. Their code excludes the parameters of layer norm, and so
does this one.
"""

from dataclasses import dataclass
from typing import Any

import jax
import optax
from jaxtyping import Array, PyTree

from regrow.errors import require
from regrow.gradients.base import GradientTerm, own
from regrow.learners.optimizer import Anchor


@dataclass(frozen=True)
class L2Init(GradientTerm):
    """Pulls weights and biases towards their initial values, with 2·strength·(θ − θ₀)."""

    acts_on = "gradient"

    strength: float = 1e-3

    def __post_init__(self) -> None:
        require(self.strength >= 0, f"l2_init: strength is {self.strength}; it must be 0 or more")

    def transform(self, *, learning_rate: float, output: bool) -> optax.GradientTransformation:
        """The state is θ₀, an `Anchor`: a re-initialised layer sets it to its new parameters."""
        del learning_rate, output

        def init(params: PyTree) -> Anchor:
            return Anchor(params)

        def pulled(is_own: bool, g: Array, now: Array, first: Array) -> Array:
            return g + 2 * self.strength * (now - first) if is_own else g

        def update(updates: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, Any]:
            return jax.tree.map(pulled, own(params), updates, params, state.first), state

        return optax.GradientTransformation(init, update)

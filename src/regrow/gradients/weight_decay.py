"""Decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101).

    θ ← θ + u − lr·λ·θ

The decay does not pass through the optimizer's statistics. 1e-2 is AdamW's default in PyTorch and
the value of SimBa (arXiv 2410.09754). BBF (arXiv 2305.19452) uses 0.1.
"""

from dataclasses import dataclass

import optax

from regrow.errors import require
from regrow.gradients.base import GradientTerm


@dataclass(frozen=True)
class WeightDecay(GradientTerm):
    """Shrinks every parameter by lr·strength of itself, decoupled from the optimizer (AdamW)."""

    acts_on = "update"

    strength: float = 1e-2

    def __post_init__(self) -> None:
        require(
            self.strength >= 0,
            f"weight_decay: strength is {self.strength}; it must be 0 or more",
        )

    def transform(self, *, learning_rate: float, output: bool) -> optax.GradientTransformation:
        """`optax.add_decayed_weights`, scaled by −lr: biases, scale and offset decay too."""
        del output
        return optax.add_decayed_weights(-learning_rate * self.strength)

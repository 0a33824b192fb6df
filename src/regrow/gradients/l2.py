"""L2 regularisation, coupled: it passes through the optimizer's statistics.

    g ← g + λ·θ,     the gradient of ½λ‖θ‖²

It is the `weight_decay` of PyTorch's Adam. With Adam it differs from decoupled weight decay
(arXiv 1711.05101). 1e-3 is the value in the continual-learning runs of Dohare et al. (arXiv
2306.13812).
"""

from dataclasses import dataclass

import optax

from regrow.errors import require
from regrow.gradients.base import GradientTerm


@dataclass(frozen=True)
class L2(GradientTerm):
    """Adds strength·θ to the gradient of every parameter."""

    acts_on = "gradient"

    strength: float = 1e-3

    def __post_init__(self) -> None:
        require(self.strength >= 0, f"l2: strength is {self.strength}; it must be 0 or more")

    def transform(self, *, learning_rate: float, output: bool) -> optax.GradientTransformation:
        """`optax.add_decayed_weights`: biases, scale and offset are included, as in PyTorch."""
        del learning_rate, output
        return optax.add_decayed_weights(self.strength)

"""Curvature of the loss."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from regrow.errors import require
from regrow.probes.base import Probe, View
from regrow.types import Scalar

Vector = Float[Array, " parameters"]


@dataclass(frozen=True)
class Curvature(Probe):
    """Largest eigenvalue of the Hessian of the agent's loss on the batch, by power iteration.

    v ← (H + sI)v / ‖(H + sI)v‖, value vᵀHv, over all live parameters. H v is the derivative of
    `agent.gradients` along v. The first `iterations` steps, with s = 0, find the eigenvalue λ of
    largest magnitude. If λ is negative, as many steps with s = −λ from the start find the largest
    eigenvalue; otherwise as many more continue with s = 0. The start is random. The value is a
    lower bound of the eigenvalue and approaches it with more iterations.
    """

    iterations: int = 30

    costly: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.iterations >= 1, f"iterations is {self.iterations}; it must be at least 1")

    def measure(self, view: View) -> Scalar:
        """In units of loss per parameter squared."""
        at, unravel = ravel_pytree(view.network.layers)
        drawing, learning = jax.random.split(view.key)

        def gradient(weights: Vector) -> Vector:
            return ravel_pytree(view.gradient(unravel(weights), view.batch, learning))[0]

        def bend(v: Vector) -> Vector:
            return jax.jvp(gradient, (at,), (v,))[1]

        def iterated(start: Vector, shift: Scalar) -> tuple[Vector, Scalar]:
            v = jax.lax.fori_loop(
                0, self.iterations, lambda _, v: _unit(bend(v) + shift * v), start
            )
            return v, v @ bend(v)

        start = _unit(jax.random.normal(drawing, at.shape, at.dtype))
        v, value = iterated(start, jnp.array(0.0))
        # Restart: v has converged to the negative direction and could not leave it.
        return iterated(jnp.where(value < 0, start, v), jnp.maximum(-value, 0.0))[1]


def _unit(v: Vector) -> Vector:
    norm = jnp.linalg.norm(v)
    return v / jnp.where(norm > 0, norm, 1.0)

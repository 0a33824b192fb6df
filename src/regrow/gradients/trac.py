"""TRAC, a tuner of how far to go from the start (Muppidi et al. 2024, arXiv 2405.16642).

    h = ⟨g, Δ⟩ over the whole network,     Δ ← Δ + u
    v_j ← β_j²v_j + h²,   σ_j ← β_jσ_j − h,   s_j = scale/erfi(1/√2) · erfi(σ_j/(√(2v_j) + ε))
    θ = θ₀ + SΔ,   S = max(0, Σs_j),   β = 0.9, 0.99, …, 0.999999

u is the step of the optimizer, Δ how far it alone would have gone. The tuner of 2402.02720 makes s
grow while the gradient still points away from θ₀, and fall where the way taken no longer pays.
Numbers, the clip of S and where a 1e-8 begins are those of the authors' PyTorch code. That code
computes Δ as (θ − θ₀)/(S + ε): in float32 a weight does not feel its first steps, of some 1e-9, so
that Δ stays 0, and once S is 0 it is for good. Δ is kept here, and θ moves by what SΔ changes, so
that it goes on from wherever an intervention put it.

A part has a tuner of its own, which hears the h of all: they are alike until the statistics of one
begin anew. A newly drawn layer that keeps statistics keeps its tuner, and goes from where it was
drawn.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special
from jaxtyping import Array, Float, PyTree

from regrow.errors import require
from regrow.gradients.base import GradientTerm
from regrow.learners.optimizer import Trail
from regrow.types import Scalar

BETAS = (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
SMALL = 1e-8


class TRACState(NamedTuple):
    """Of one part: Δ, and σ, v and s for every β."""

    way: Trail
    sigma: Float[Array, "betas"]
    variance: Float[Array, "betas"]
    s: Float[Array, "betas"]


@dataclass(frozen=True)
class TRAC(GradientTerm):
    """Scales the way of the optimizer by a learned number: θ₀ + SΔ."""

    acts_on = "update"

    scale: float = 1e-8

    def __post_init__(self) -> None:
        require(self.scale > 0, f"trac: scale is {self.scale}; it must be > 0")

    def read(self, gradient: PyTree, state: TRACState, part: PyTree) -> Scalar:
        """⟨g, Δ⟩ of a part."""
        del part
        return jnp.asarray(optax.tree.vdot(gradient, state.way.so_far))

    def gather(self, numbers: Sequence[Scalar]) -> Scalar:
        """h, their sum."""
        return jnp.sum(jnp.stack(list(numbers)))

    def transform(
        self, *, learning_rate: float, output: bool
    ) -> optax.GradientTransformationExtraArgs:
        """A layer whose statistics begin anew stays where it is and is tuned from there."""
        del learning_rate, output

        def init(params: PyTree) -> TRACState:
            none = jnp.zeros(len(BETAS), jnp.float32)
            return TRACState(Trail(optax.tree.zeros_like(params)), none + SMALL, none, none)

        def update(
            updates: PyTree, state: Any, params: PyTree | None = None, **extra_args: Any
        ) -> tuple[PyTree, Any]:
            del params
            before = state.way.so_far
            way = jax.tree.map(jnp.add, before, updates)
            tuned = self._tuned(state, extra_args["told"][self])._replace(way=Trail(way))
            was, now = _scale(state), _scale(tuned)
            return jax.tree.map(lambda a, b: now * b - was * a, before, way), tuned

        return optax.GradientTransformationExtraArgs(init, update)

    def _tuned(self, state: TRACState, h: Scalar) -> TRACState:
        betas = jnp.asarray(BETAS)
        variance = betas**2 * state.variance + h**2
        sigma = betas * state.sigma - h
        reach = erfi(sigma / (math.sqrt(2) * jnp.sqrt(variance) + SMALL))
        s = self.scale / scipy.special.erfi(1 / math.sqrt(2)) * reach
        return state._replace(sigma=sigma, variance=variance, s=s)


def erfi(x: Float[Array, "numbers"]) -> Float[Array, "numbers"]:
    """erfi(x) = 2x/√π ∫₀¹ exp(x²t²) dt, by Gauss and Legendre's rule: nothing there cancels.

    To 1e-5 of its value for |x| ≤ 9, past which float32 holds it no more.
    """
    t, weights = np.polynomial.legendre.leggauss(48)
    t, weights = (t + 1) / 2, weights / 2
    inner = jnp.exp(jnp.outer(x**2, jnp.asarray(t**2, x.dtype)))
    return 2 / math.sqrt(math.pi) * x * (inner @ jnp.asarray(weights, x.dtype))


def _scale(state: TRACState) -> Scalar:
    return jnp.maximum(jnp.sum(state.s), 0.0)

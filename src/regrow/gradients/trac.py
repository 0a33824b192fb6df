"""TRAC, parameter-free scaling of the distance from θ₀ (Muppidi et al. 2024, arXiv 2405.16642).

    h = ⟨g, Δ⟩ over the whole network,     Δ ← Δ + u
    v_j ← β_j²v_j + h²,   σ_j ← β_jσ_j − h,   s_j = scale/erfi(1/√2) · erfi(σ_j/(√(2v_j) + ε))
    θ = θ₀ + SΔ,   S = max(0, Σs_j),   β = 0.9, 0.99, …, 0.999999

u is the step of the optimizer; Δ is the sum of these steps, unscaled. The tuner of 2402.02720 makes
s grow while the negative gradient still points along Δ, and shrink when going further no longer
lowers the loss. The constants, the clip of S and the places where 1e-8 enters are those of the
authors' PyTorch code.

That code computes Δ as (θ − θ₀)/(S + ε). In float32 the first steps, of about 1e-9, are lost in
rounding, so Δ stays 0; and once S is 0 it stays 0. Here Δ is stored and θ moves by the change of
SΔ. Training therefore continues from wherever an intervention put θ.

Each part has its own tuner, and all tuners receive the same h. They are identical until the
optimizer state of one part is reset. A re-initialised layer that keeps its optimizer state keeps
its tuner and moves from its new parameters.
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
    """The state of one part: Δ, and σ, v and s for every β."""

    way: Trail
    sigma: Float[Array, "betas"]
    variance: Float[Array, "betas"]
    s: Float[Array, "betas"]


@dataclass(frozen=True)
class TRAC(GradientTerm):
    """Scales the optimizer's total displacement Δ from θ₀ by a tuned factor S: θ₀ + SΔ."""

    acts_on = "update"

    scale: float = 1e-8

    def __post_init__(self) -> None:
        require(self.scale > 0, f"trac: scale is {self.scale}; it must be > 0")

    def read(self, gradient: PyTree, state: TRACState, part: PyTree) -> Scalar:
        """⟨g, Δ⟩ of a part."""
        del part
        return jnp.asarray(optax.tree.vdot(gradient, state.way.so_far))

    def gather(self, numbers: Sequence[Scalar]) -> Scalar:
        """h, the sum over all parts."""
        return jnp.sum(jnp.stack(list(numbers)))

    def transform(
        self, *, learning_rate: float, output: bool
    ) -> optax.GradientTransformationExtraArgs:
        """A layer whose optimizer state is reset keeps its parameters, which become its new θ₀."""
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
    """erfi(x) = 2x/√π ∫₀¹ exp(x²t²) dt, by Gauss–Legendre quadrature, without cancellation.

    The relative error is at most 1e-5 for |x| ≤ 9. Soon beyond that float32 overflows.
    """
    t, weights = np.polynomial.legendre.leggauss(48)
    t, weights = (t + 1) / 2, weights / 2
    inner = jnp.exp(jnp.outer(x**2, jnp.asarray(t**2, x.dtype)))
    return 2 / math.sqrt(math.pi) * x * (inner @ jnp.asarray(weights, x.dtype))


def _scale(state: TRACState) -> Scalar:
    return jnp.maximum(jnp.sum(state.s), 0.0)

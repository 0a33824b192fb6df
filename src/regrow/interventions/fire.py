"""FIRE: Frobenius-isometry reinitialisation (Han et al. 2026, arXiv 2602.08040).

    W ← √(d_out / d_in) · argmin_Q ‖W − Q‖_F  over semi-orthogonal Q  =  √(d_out / d_in) · U Vᵀ

with W = U S Vᵀ: the scaled isometry nearest to the learned weight. The polar factor U Vᵀ is
approximated by Newton–Schulz iteration on the smaller Gram matrix:

    X₀ = W / ‖W‖_F,     X ← 1.5 X − 0.5 X Xᵀ X,     10 times

A k × k convolution is treated as k² matrices, one for each position in the kernel, each scaled by
√(d_out / d_in) / k². Ten iterations bring a singular value of 0.03 ‖W‖_F to 1. One of 0.003 ends
near 0.17, and one of 0 stays 0.

All this follows the authors' code, isaac7778/FIRE at c37a0ac. (Of the paper only the abstract and
secondary sources were available.) The code also projects the output layer, and leaves biases and
normalisation unchanged. The rest differs by domain:

- Atari (`rl/dqn`): only convolutions are projected. Dense layers return to their values before
  training. Adam's moments and counts stay, also those of the dense layers. The target gets the same
  weights, but keeps its own convolution biases. Here: `dense="reset"`, which re-initialises dense
  layers with new values.
- HumanoidBench (`rl/sac`): every dense layer is projected. The optimizers and the temperature are
  reset. The target is a copy. Here: `optimizer="reset", scalars="reset"`.
- Images (`vision`): all layers are projected. The optimizer is reset, as there for every new task.
  In vision transformers only queries and keys are projected. Language models: all layers, attention
  split in thirds.

The code divides by ‖W‖_F, in SAC by ‖W‖_F + 1e-8. Here a zero matrix stays zero.
"""

from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from regrow.errors import require
from regrow.interventions.base import LearnerIntervention
from regrow.learners.learner import LearnedScalar, Learner
from regrow.networks.layers import Conv, Dense
from regrow.networks.network import Network
from regrow.networks.residual import Layer, Residual
from regrow.types import Key


@dataclass(frozen=True)
class Fire(LearnerIntervention):
    """Projects every weight to the nearest scaled isometry (FIRE).

    `iterations`: of Newton–Schulz. `dense`: whether dense layers are projected or re-initialised;
    "reset" also drops the frozen heads of earlier injections, as a reset does. `optimizer`: whether
    the optimizer state is kept or reset. `scalars`: whether learned scalars such as a temperature
    are kept or set to their initial value. The target becomes a copy. Biases, normalisation and
    frozen heads are unchanged.
    """

    iterations: int = 10
    dense: Literal["project", "reset"] = "project"
    optimizer: Literal["keep", "reset"] = "keep"
    scalars: Literal["keep", "reset"] = "keep"

    def __post_init__(self) -> None:
        require(
            1 <= self.iterations <= 1_000,
            f"fire: iterations is {self.iterations}; it must be from 1 to 1000",
        )

    @property
    def is_random(self) -> bool:
        """Whether dense layers are re-initialised."""
        return self.dense == "reset"

    def change(self, learner: Learner, key: Key) -> Learner:
        """The Learner with its weights projected."""
        before = learner.network
        layers = [self._projected(layer) for layer in before.layers]
        network = Network(layers, split=before.split, residual=before.residual)
        target = None if learner.target is None else network
        drawn = [self.dense == "reset" and not isinstance(layer, Conv) for layer in layers]
        moved = [i for i, is_drawn in enumerate(drawn) if not is_drawn]
        learner = learner.with_moved_layers(network, target, moved=moved, moments=self.optimizer)
        if not any(drawn):
            return learner
        choices = zip(drawn, before.fresh(key).layers, layers, strict=True)
        network = Network([new if d else old for d, new, old in choices], split=before.split)
        target = None if learner.target is None else network
        origins = tuple(None if is_drawn else i for i, is_drawn in enumerate(drawn))
        return learner.with_network(network, target, origins=origins, fresh=self.optimizer)

    def turn(self, scalar: LearnedScalar) -> LearnedScalar:
        """The scalar unchanged, with a fresh optimizer state, or at its initial value with one."""
        if self.scalars == "reset":
            return scalar.fresh()
        return scalar.with_fresh_statistics() if self.optimizer == "reset" else scalar

    def _projected(self, layer: Layer) -> Layer:
        if isinstance(layer, Conv):
            size = layer.weight.shape[0]
            matrices = layer.weight.reshape(-1, *layer.weight.shape[2:])
            isometries = jax.vmap(self._isometry)(matrices) / size**2
            weight = isometries.reshape(layer.weight.shape)
            return eqx.tree_at(lambda one: one.weight, layer, weight)
        if self.dense == "reset":
            return layer
        if isinstance(layer, Dense):
            return eqx.tree_at(lambda one: one.weight, layer, self._isometry(layer.weight))
        assert isinstance(layer, Residual), "a layer is dense, a convolution or a block"
        both = self._projected(layer.inner), self._projected(layer.outer)
        return eqx.tree_at(lambda one: (one.inner, one.outer), layer, both)

    def _isometry(self, weight: Float[Array, "reads units"]) -> Float[Array, "reads units"]:
        reads, units = weight.shape
        return (units / reads) ** 0.5 * polar_factor(weight, self.iterations)


def polar_factor(matrix: Float[Array, "m n"], iterations: int) -> Float[Array, "m n"]:
    """U Vᵀ of a matrix U S Vᵀ, by Newton–Schulz iteration; a zero matrix stays zero."""

    def step(_: Array, x: Float[Array, "m n"]) -> Float[Array, "m n"]:
        wide = x.shape[0] < x.shape[1]
        cubed = _product(_product(x, x.T), x) if wide else _product(x, _product(x.T, x))
        return 1.5 * x - 0.5 * cubed

    start = matrix / jnp.maximum(jnp.linalg.norm(matrix), 1e-12)
    return jax.lax.fori_loop(0, iterations, step, start)


def _product(a: Float[Array, "m k"], b: Float[Array, "k n"]) -> Float[Array, "m n"]:
    # Accelerators use lower precision by default; PyTorch, as the authors use it, does not.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)

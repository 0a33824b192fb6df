"""Shrink and perturb (Ash & Adams 2020, arXiv 1910.08475), and its interpolating form.

noise="normal":  θ ← S·θ + P·ε,      ε ~ N(0, 1) for every parameter   (1910.08475)
noise="fresh":   θ ← S·θ + P·θ',     θ' newly initialised              (SR-SPR; BBF, 2305.19452)
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from regrow.errors import require
from regrow.interventions.base import LearnerIntervention
from regrow.learners.learner import Learner
from regrow.networks.network import Network
from regrow.types import Key


@dataclass(frozen=True)
class ShrinkPerturb(LearnerIntervention):
    """Shrinks parameters and adds noise, or interpolates towards a newly initialised network.

    `shrink`: S in [0, 1]. `perturb`: P ≥ 0; with normal noise, its standard deviation. `where`:
    which live layers; frozen heads are unchanged. `target`: "copy" makes the target a copy of the
    network; "own" treats the target alike with independent noise, as SR-SPR and BBF do.
    `optimizer`: whether the optimizer state of these layers is kept or reset. DASH's comparison
    keeps it. SR-SPR and BBF intend to keep that of their encoder, but BBF's released code does not
    find it behind `optax.masked` and resets all of it: "reset". The defaults are BBF's S and P.
    Presets: `sr_spr` has the values of SR-SPR, `dash_baseline` those with normal noise in DASH's
    comparison.
    """

    shrink: float = 0.5
    perturb: float = 0.5
    noise: Literal["normal", "fresh"] = "fresh"
    where: Literal["encoder", "head", "everything"] = "everything"
    target: Literal["copy", "own"] = "own"
    optimizer: Literal["keep", "reset"] = "keep"

    sr_spr: ClassVar[dict[str, Any]] = {"shrink": 0.8, "perturb": 0.2, "where": "encoder"}
    dash_baseline: ClassVar[dict[str, Any]] = {"shrink": 0.3, "perturb": 0.01, "noise": "normal"}

    def __post_init__(self) -> None:
        require(
            0 <= self.shrink <= 1,
            f"shrink_perturb: shrink is {self.shrink}; it must be between 0 and 1",
        )
        require(
            self.perturb >= 0, f"shrink_perturb: perturb is {self.perturb}; it must be 0 or more"
        )

    def change(self, learner: Learner, key: Key) -> Learner:
        """The Learner with its live layers shrunk and perturbed."""
        if not self._layers(learner.network):
            return learner
        own, other = jax.random.split(key)
        network, target = self._moved(learner.network, own), learner.target
        if target is not None:
            target = network if self.target == "copy" else self._moved(target, other)
        moved = self._layers(learner.network)
        return learner.with_moved_layers(network, target, moved=moved, moments=self.optimizer)

    def _layers(self, network: Network) -> range:
        """The indices of the layers to change; may be empty."""
        start = network.split if self.where == "head" else 0
        return range(start, network.split if self.where == "encoder" else len(network.layers))

    def _moved(self, network: Network, key: Key) -> Network:
        fresh = network.fresh(key).layers
        layers = list(network.layers)
        for i in self._layers(network):
            noise = fresh[i]
            if self.noise == "normal":
                leaves, structure = jax.tree.flatten(layers[i])
                keys = jax.random.split(jax.random.fold_in(key, i), len(leaves))
                drawn = [
                    jax.random.normal(k, leaf.shape, leaf.dtype)
                    for k, leaf in zip(keys, leaves, strict=True)
                ]
                noise = jax.tree.unflatten(structure, drawn)
            layers[i] = jax.tree.map(self._mixed, layers[i], noise)
        return Network(layers, split=network.split, residual=network.residual)

    def _mixed(self, old: jax.Array, noise: jax.Array) -> jax.Array:
        return jnp.asarray(self.shrink * old + self.perturb * noise)

"""The contract of a probe: a number measured on a Learner with a batch of experience.

A `Probe` measures a whole network. A `PartProbe` measures one part of it, "encoder" or "head".
Parameters and units are those of the live chain: frozen heads are excluded, and output units are
not counted as units. A unit of a convolution is a channel, measured at all its positions. A unit
with two output features is measured by both. The units of a residual block are the features of the
residual stream after it. The value is NaN in these cases:

- There is nothing to measure: no encoder at split 0, no head in a network that is all encoder, or
  no hidden layer in the head.
- The architecture differs from that of the earlier state to compare with.
- The parameters of the network or its features on the batch are not finite.
"""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from regrow.errors import require
from regrow.learners.learner import Learner, is_learner, learners
from regrow.networks.network import Network
from regrow.networks.residual import Layer
from regrow.types import Key, Scalar, Transition

Layers = tuple[Layer, ...]
Part = Literal["encoder", "head"]
NOTHING_THERE = np.float32("nan")


@runtime_checkable
class Learns(Protocol):
    """What a probe may use of an agent: network inputs, gradients and updates."""

    @property
    def rows_per_update(self) -> int:
        """Transitions per update."""
        ...

    def inputs(self, state: Any, batch: Transition) -> dict[str, Array]:
        """The input of each Learner's network for a batch, by Learner name."""
        ...

    def gradients(self, state: Any, batch: Transition, key: Key) -> dict[str, PyTree]:
        """The gradient for each Learner on a batch, by Learner name."""
        ...

    def update(self, state: Any, batch: Transition, key: Key) -> Any:
        """One update of every Learner on a batch."""
        ...


class Past(NamedTuple):
    """Earlier states of an agent: the initial one, and one to compare with."""

    initial: PyTree
    previous: PyTree


@dataclass(frozen=True)
class View:
    """The context of a measurement: a Learner in its agent's state, a batch, and earlier states."""

    name: str
    state: PyTree
    agent: Learns
    batch: Transition
    key: Key
    past: Past

    @property
    def learner(self) -> Learner:
        """The Learner to measure."""
        return learners(self.state)[self.name]

    @property
    def network(self) -> Network:
        """Its network, frozen heads included."""
        return self.learner.network

    @property
    def inputs(self) -> Shaped[Array, "batch *obs"]:
        """The network's inputs for the batch."""
        return self.agent.inputs(self.state, self.batch)[self.name]

    def gradient(self, layers: Layers, batch: Transition, key: Key) -> Layers:
        """The agent's gradient on a batch for the live layers, with `layers` in their place."""
        learner = eqx.tree_at(lambda one: one.network.layers, self.learner, layers)
        state = jax.tree_util.tree_map_with_path(
            lambda path, node: learner if _name(path) == self.name else node,
            self.state,
            is_leaf=is_learner,
        )
        return self.agent.gradients(state, batch, key)[self.name].layers

    def gradients_of_samples(self, layers: Layers, count: int | None = None) -> Layers:
        """Per-sample gradients of the first `count` transitions, along a leading axis."""
        batch = rows(self.batch, 0, count)
        singles = jax.tree.map(lambda x: x[:, None], batch)
        keys = jax.random.split(self.key, len(batch.action))
        return jax.vmap(lambda one, key: self.gradient(layers, one, key))(singles, keys)

    def updated(
        self,
    ) -> tuple[Float[Array, "reference *outputs"], Float[Array, "reference *outputs"]]:
        """(outputs before, outputs after) one update of the agent on other transitions.

        Outputs are for the first half of the batch. The update uses the second half, up to the
        number of transitions of one update. Raises `RegrowError` on fewer than two transitions.
        """
        count = len(self.batch.action)
        require(count >= 2, f"count is {count}; churn needs at least 2 transitions")
        half = count // 2
        data = rows(self.batch, half, min(count, half + self.agent.rows_per_update))
        after = learners(self.agent.update(self.state, data, self.key))[self.name]
        reference = self.inputs[:half]
        return self.network(reference), after.network(reference)

    def back_then(self, state: PyTree) -> Network | None:
        """The live chain of this Learner in an earlier state, with the present split.

        None if that state has no such Learner or its architecture differs.
        """
        earlier = learners(state).get(self.name)
        if earlier is None or _shape(earlier.network.layers) != _shape(self.network.layers):
            return None
        return Network(earlier.network.layers, split=self.network.split)

    def is_finite(self) -> Bool[Array, ""]:
        """False for a diverged network, whose units would count as dead and its rank as 0."""
        leaves = [*jax.tree.leaves(self.network.layers), *self.network.features(self.inputs)]
        return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _name(path: Sequence[Any]) -> str:
    return jax.tree_util.keystr(tuple(path), simple=True, separator=".")


def _shape(layers: Layers) -> tuple[Any, list[tuple[int, ...]]]:
    return jax.tree.structure(layers), [leaf.shape for leaf in jax.tree.leaves(layers)]


@dataclass(frozen=True)
class Probe(abc.ABC):
    """A measurement of every Learner."""

    costly: ClassVar[bool] = False
    """Whether it is expensive: it needs per-sample gradients, updates or the like."""

    @abc.abstractmethod
    def measure(self, view: View) -> Scalar:
        """The value for one Learner."""

    def __call__(
        self, state: PyTree, *, agent: Learns, batch: Transition, key: Key, past: Past
    ) -> dict[str, Scalar]:
        """The value for every Learner in an agent's state, by Learner name."""
        views = {name: View(name, state, agent, batch, key, past) for name in learners(state)}
        return {
            name: jnp.where(view.is_finite(), self.measure(view), NOTHING_THERE)
            for name, view in views.items()
        }


@dataclass(frozen=True)
class PartProbe(Probe):
    """A measurement of one part of every Learner."""

    part: Part = "head"

    def __post_init__(self) -> None:
        require(
            self.part in ("encoder", "head"),
            f"part is {self.part!r}; it must be 'encoder' or 'head'",
        )

    def layers(self, network: Network) -> Layers:
        """The live layers of the part."""
        return network.encoder if self.part == "encoder" else network.head

    def parameters(self, network: Network) -> Float[Array, " parameters"]:
        """All live parameters of the part, biases included, as one vector, possibly empty."""
        return vector(self.layers(network))

    def chosen(self, hidden: Sequence[Any], network: Network) -> Sequence[Any]:
        """The part's items of a sequence with one item per hidden layer of the live chain."""
        return hidden[: network.split] if self.part == "encoder" else hidden[network.split :]

    def activations(
        self, network: Network, inputs: Shaped[Array, "batch *obs"]
    ) -> list[Float[Array, "samples units"]]:
        """|h| of every unit on every input (and position), for each hidden layer of the part.

        For a unit with two output features it is the sum of both.
        """
        features = network.features(inputs)[1:]
        sizes = [one.sizes(sent) for one, sent in zip(network.layers, features, strict=True)]
        return [size.reshape(-1, size.shape[-1]) for size in self.chosen(sizes[:-1], network)]

    def representation(
        self, network: Network, inputs: Shaped[Array, "batch *obs"]
    ) -> Float[Array, "batch features"] | None:
        """Φ: the output of the encoder, or the input to the head's last layer."""
        depth = network.split if self.part == "encoder" else len(network.layers) - 1
        if depth == 0 or not self.layers(network):
            return None
        features = network.features(inputs)[depth]
        return features.reshape(features.shape[0], -1)

    def singular_values(self, view: View) -> Float[Array, " rank"] | None:
        """The singular values of Φ, largest first."""
        features = self.representation(view.network, view.inputs)
        return None if features is None else jnp.linalg.svd(features, compute_uv=False)


@dataclass(frozen=True)
class RankProbe(PartProbe):
    """The least k such that the k largest sizes sum to at least 1 − δ of the total.

    A subclass defines the sizes of Φ's principal directions.
    """

    delta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.delta < 1, f"delta is {self.delta}; it must be between 0 and 1")

    @abc.abstractmethod
    def sizes(self, sigma: Float[Array, " rank"]) -> Float[Array, " rank"]:
        """The sizes, in descending order, from the singular values of Φ."""

    def measure(self, view: View) -> Scalar:
        """An integer, at most min(batch, features); 0 if all features are 0."""
        sigma = self.singular_values(view)
        if sigma is None:
            return jnp.array(NOTHING_THERE)
        sizes = self.sizes(sigma)
        reached = jnp.cumsum(sizes) >= (1 - self.delta) * jnp.sum(sizes)
        return jnp.where(sizes[0] > 0, jnp.argmax(reached) + 1, 0).astype(jnp.float32)


def rows(batch: Transition, start: int, stop: int | None) -> Transition:
    """The transitions of a batch from `start` up to `stop`."""
    return jax.tree.map(lambda x: x[start:stop], batch)


def vector(tree: PyTree) -> Float[Array, " numbers"]:
    """All leaves of a tree as one vector, possibly empty."""
    return jnp.concatenate([np.zeros(0, np.float32), *map(jnp.ravel, jax.tree.leaves(tree))])


def share(flags: Sequence[Shaped[Array, " _"]]) -> Scalar:
    """The share of flagged units, pooled over layers; NaN if there are no units."""
    if not flags:
        return jnp.array(NOTHING_THERE)
    return jnp.mean(jnp.concatenate(flags).astype(jnp.float32))

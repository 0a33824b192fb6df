"""A network with its target and its optimizer: what an intervention changes.

The optimizer keeps one state per part of the network (see `optimizer`); clipping by the global norm
comes before, over all parts.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from regrow.errors import unknown
from regrow.learners.adam import aged
from regrow.learners.optimizer import Optimizer, anchored, redrawn
from regrow.networks.network import Network, Origins
from regrow.types import Key, Scalar

Statistics = Literal["keep", "reset"]
Other = TypeVar("Other")


@runtime_checkable
class HookRule(Protocol):
    """What acts on a Learner after every update, with a memory that it keeps in between.

    `regrow.interventions` holds those that there are: they are installed by being carried out.
    """

    renews_units: ClassVar[bool]
    """Whether it draws single units anew, so that the optimizer must count ages by element."""

    def init(self, learner: "Learner") -> PyTree:
        """What it remembers at first."""
        ...

    def after_update(
        self, learner: "Learner", memory: PyTree, inputs: Shaped[Array, "batch *obs"], key: Key
    ) -> "tuple[Learner, PyTree]":
        """(the Learner, the memory) after an update on `inputs`; trees and shapes as they were."""
        ...


class UpdateHook(eqx.Module):
    """What a Learner does after every update, and what it remembers for that."""

    rule: HookRule = eqx.field(static=True)
    memory: PyTree


class Learner(eqx.Module):
    """A network, its target network, and an optimizer state for each part of the network.

    `hooks`: what happens to it after every update of a Run. Where layers are replaced, their
    memories begin anew: what they knew was of other units. `previous_network`: as it was before
    the last update, for an agent whose loss asks for it; what changes the network between updates
    is no update.
    """

    network: Network
    target: Network | None
    statistics: tuple[optax.OptState, ...]  # one per network.parts()
    optimizer: Optimizer = eqx.field(static=True)
    hooks: tuple[UpdateHook, ...] = ()
    previous_network: Network | None = None

    @staticmethod
    def create(
        network: Network, optimizer: Optimizer, *, target: bool = True, keep_previous: bool = False
    ) -> "Learner":
        """A learner at its first step; the target and the network before start as copies."""
        statistics = tuple(optimizer.init(part) for part in network.parts())
        kept = network if keep_previous else None
        return Learner(
            network, network if target else None, statistics, optimizer, previous_network=kept
        )

    def fresh(self, key: Key) -> "Learner":
        """A learner of the same architecture at its first step, without hooks."""
        target, before = self.target is not None, self.previous_network is not None
        network = self.network.fresh(key)
        return Learner.create(network, self.optimizer, target=target, keep_previous=before)

    def gradient(self, loss: Callable[[Network], Scalar]) -> tuple[Scalar, PyTree]:
        """(loss, its gradient); the gradient is None wherever the network is frozen."""
        live, frozen = eqx.partition(self.network, self.network.trainable())
        return jax.value_and_grad(lambda live: loss(eqx.combine(live, frozen)))(live)

    def gradient_with(
        self, loss: Callable[[Network], tuple[Scalar, Other]]
    ) -> tuple[Scalar, PyTree, Other]:
        """(loss, its gradient, what comes with it) of a function that returns (loss, the other)."""
        live, frozen = eqx.partition(self.network, self.network.trainable())
        whole = jax.value_and_grad(lambda live: loss(eqx.combine(live, frozen)), has_aux=True)
        (value, other), gradient = whole(live)
        return value, gradient, other

    def descend(self, gradient: PyTree) -> "Learner":
        """One optimizer step along a gradient from `gradient`."""
        gradient = self._clipped(gradient)
        stepped = self.optimizer.steps(
            gradient.parts(), self.statistics, self.network.parts(), _are_outputs(self.network)
        )
        parts = [
            eqx.apply_updates(part, update)
            for part, (update, _) in zip(self.network.parts(), stepped, strict=True)
        ]
        network = self.network.with_parts(parts)
        before = None if self.previous_network is None else self.network
        statistics = tuple(state for _, state in stepped)
        return replace(self, network=network, statistics=statistics, previous_network=before)

    def moved_to(self, network: Network, **changed: Any) -> "Learner":
        """This Learner with a network that no update led to, and what else is `changed`."""
        before = None if self.previous_network is None else network
        return replace(self, network=network, previous_network=before, **changed)

    def _clipped(self, gradient: PyTree) -> PyTree:
        limit = self.optimizer.max_gradient_norm
        if limit is None:
            return gradient
        scale = jnp.minimum(1.0, limit / jnp.maximum(optax.tree.norm(gradient), 1e-12))
        return jax.tree.map(lambda g: g * scale, gradient)

    def follow(self, rate: float = 1.0) -> "Learner":
        """target ← (1 − rate)·target + rate·network, in all parts, the residual included."""
        if rate == 1.0:
            return self.sync()
        target = jax.tree.map(lambda t, n: t + rate * (n - t), self.target, self.network)
        return replace(self, target=target)

    def sync(self, due: bool | Bool[Array, ""] = True) -> "Learner":
        """The target a copy of the network, in all parts, where `due`; else as it was.

        A select of two trees: in a compiled loop it is cheaper than a branch, which XLA feeds with
        copies.
        """
        target = jax.tree.map(lambda n, t: jnp.where(due, n, t), self.network, self.target)
        return replace(self, target=target)

    def with_network(
        self, network: Network, target: Network | None, *, origins: Origins, fresh: Statistics
    ) -> "Learner":
        """This learner with other networks; every part that moved takes its statistics along.

        `origins`: for every part of the new network the part of the old one that it was, or None
        if it is newly drawn (`Network.inject_with_origins` and its like return them). `fresh`:
        whether a newly drawn layer keeps the statistics of the layer that it replaces or starts
        with new ones.
        """

        def state_of(i: int, part: PyTree, origin: int | None) -> optax.OptState:
            if origin is not None:
                return self.statistics[origin]
            first = self._first_state(part)
            replaces = fresh == "keep" and i < len(network.layers)
            return redrawn(self.statistics[i], first) if replaces else first

        statistics = tuple(
            state_of(i, part, origin)
            for i, (part, origin) in enumerate(zip(network.parts(), origins, strict=True))
        )
        changed = self.moved_to(network, target=target, statistics=statistics)
        return changed.with_fresh_hooks()

    def with_moved_layers(
        self,
        network: Network,
        target: Network | None,
        *,
        moved: Collection[int],
        moments: Statistics,
    ) -> "Learner":
        """This learner with live layers that were moved and not drawn: their anchors stay.

        `moved`: which layers. `moments`: whether their other statistics are kept or start anew.
        """
        statistics = tuple(
            anchored(self._first_state(part), state) if moments == "reset" and i in moved else state
            for i, (part, state) in enumerate(zip(network.parts(), self.statistics, strict=True))
        )
        changed = self.moved_to(network, target=target, statistics=statistics)
        return changed.with_fresh_hooks()

    def with_fresh_statistics(self, start: int = 0) -> "Learner":
        """The optimizer state of the live layers from `start` on drawn anew; parameters stay."""
        parts = self.network.parts()
        live = range(start, len(self.network.layers))
        statistics = tuple(
            anchored(self._first_state(part), state)
            if i in live or i >= len(self.network.layers)
            else state
            for i, (part, state) in enumerate(zip(parts, self.statistics, strict=True))
        )
        return replace(self, statistics=statistics)

    def _first_state(self, part: PyTree) -> optax.OptState:
        state = self.optimizer.init(part)
        return aged(state, part) if self._renews_units() else state

    def _renews_units(self) -> bool:
        return any(hook.rule.renews_units for hook in self.hooks)

    def with_hook(self, rule: HookRule) -> "Learner":
        """This Learner with one hook more, the last, and no other of the same kind."""
        others = tuple(hook for hook in self.hooks if type(hook.rule) is not type(rule))
        learner = replace(self, hooks=(*others, UpdateHook(rule, rule.init(self))))
        if not rule.renews_units:
            return learner
        # Ages by element from now on: in a compiled loop the tree cannot change with the first
        # unit that is renewed.
        statistics = tuple(
            aged(state, part)
            for state, part in zip(self.statistics, self.network.parts(), strict=True)
        )
        return replace(learner, statistics=statistics)

    def with_fresh_hooks(self) -> "Learner":
        """This Learner with every hook as on its first day."""
        hooks = tuple(UpdateHook(hook.rule, hook.rule.init(self)) for hook in self.hooks)
        return replace(self, hooks=hooks)

    def after_hooks(self, inputs: Shaped[Array, "batch *obs"], key: Key) -> "Learner":
        """This Learner after its hooks, in the order they were installed; `inputs`: as updated on.

        A hook does not hear of what another one did.
        """
        learner, kept = self, []
        for i, hook in enumerate(self.hooks):
            own = jax.random.fold_in(key, i)
            changed, memory = hook.rule.after_update(learner, hook.memory, inputs, own)
            learner = replace(changed, previous_network=_before(learner, changed))
            kept.append(UpdateHook(hook.rule, memory))
        return replace(learner, hooks=tuple(kept))


class LearnedScalar(eqx.Module):
    """Learned numbers beside the networks, like a temperature, with their optimizer state."""

    value: Float[Array, "*shape"]
    statistics: optax.OptState
    initial: float = eqx.field(static=True)
    optimizer: Optimizer = eqx.field(static=True)

    @staticmethod
    def create(
        initial: float, optimizer: Optimizer, shape: tuple[int, ...] = ()
    ) -> "LearnedScalar":
        """A number at its first step, or an array of them."""
        value = jnp.full(shape, initial, jnp.float32)
        return LearnedScalar(value, optimizer.init(value), initial, optimizer)

    def descend(self, gradient: Float[Array, "*shape"]) -> "LearnedScalar":
        """One optimizer step along a gradient."""
        transform = self.optimizer.transform_of(output=False)
        update, statistics = transform.update(gradient, self.statistics, self.value)
        value = optax.apply_updates(self.value, update)
        return LearnedScalar(jnp.asarray(value), statistics, self.initial, self.optimizer)

    def fresh(self) -> "LearnedScalar":
        """The number and its statistics as at the first step."""
        return LearnedScalar.create(self.initial, self.optimizer, self.value.shape)

    def with_fresh_statistics(self) -> "LearnedScalar":
        """The optimizer state drawn anew; the number stays."""
        statistics = self.fresh().statistics
        return LearnedScalar(self.value, statistics, self.initial, self.optimizer)

    def with_initial_value(self) -> "LearnedScalar":
        """The number as at the first step; the optimizer state stays."""
        return LearnedScalar(self.fresh().value, self.statistics, self.initial, self.optimizer)


def joint_gradient(
    learners: Mapping[str, Learner], loss: Callable[[Mapping[str, Network]], Scalar]
) -> tuple[Scalar, dict[str, PyTree]]:
    """(a loss of several networks, its gradient for each), by name; None where they are frozen."""
    halves = {
        name: eqx.partition(learner.network, learner.network.trainable())
        for name, learner in learners.items()
    }
    live = {name: half for name, (half, _) in halves.items()}

    def whole(live: Mapping[str, PyTree]) -> Scalar:
        return loss({name: eqx.combine(live[name], frozen) for name, (_, frozen) in halves.items()})

    return jax.value_and_grad(whole)(live)


def _before(updated: Learner, tended: Learner) -> Network | None:
    """The network before the last update, where a hook left the updated one as it was.

    Elsewhere it is what the hook put there. Most hooks change a few elements, or all of them once
    in a while: the rest of the update is to be seen.
    """
    if updated.previous_network is None:
        return None
    return jax.tree.map(
        lambda before, old, new: jnp.where(old == new, before, new),
        updated.previous_network,
        updated.network,
        tended.network,
    )


def _are_outputs(network: Network) -> tuple[bool, ...]:
    """For every part, whether it is the last layer of a head, unfrozen old ones included."""
    last = len(network.layers) - 1
    has_head = network.split <= last
    thawed = [_are_outputs(pair.old) for pair in network.residual if not pair.frozen]
    live = [has_head and i == last for i in range(last + 1)]
    return (*live, *(o for outputs in thawed for o in outputs))


def is_learner(node: Any) -> bool:
    """Whether a node of an agent's state is a Learner."""
    return isinstance(node, Learner)


def learners(state: PyTree) -> Mapping[str, Learner]:
    """The Learners in an agent's state, by the name of the field that holds each."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state, is_leaf=is_learner)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in leaves
        if is_learner(leaf)
    }


def map_learners(change: Callable[[Learner, Key], Learner], state: PyTree, key: Key) -> PyTree:
    """An agent's state with `change(learner, key)` for every Learner, each with its own key."""
    return map_named(lambda _, learner, key: change(learner, key), state, key)


def map_named(
    change: Callable[[str, Learner, Key], Learner],
    state: PyTree,
    key: Key,
    *,
    only: Collection[str] = (),
) -> PyTree:
    """An agent's state with `change(name, learner, key)` for its Learners.

    `only`: the names of those to change; empty means all. Raises `RegrowError` for an unknown name.
    """
    names = list(learners(state))
    for name in only:
        if name not in names:
            raise unknown("learner", name, names)
    leaves, structure = jax.tree.flatten(state, is_leaf=is_learner)
    at = [i for i, leaf in enumerate(leaves) if is_learner(leaf)]
    for i, name in zip(at, names, strict=True):
        if name in only or not only:
            leaves[i] = change(name, leaves[i], jax.random.fold_in(key, i))
    return jax.tree.unflatten(structure, leaves)


def run_hooks(state: PyTree, inputs: Mapping[str, Array], key: Key) -> PyTree:
    """An agent's state after the hooks of its Learners; `inputs`: what each was updated on."""
    return map_named(
        lambda name, learner, key: (
            learner.after_hooks(inputs[name], key) if learner.hooks else learner
        ),
        state,
        key,
    )


def map_knobs(change: Callable[[LearnedScalar], LearnedScalar], state: PyTree) -> PyTree:
    """An agent's state with `change(scalar)` for every LearnedScalar in it."""

    def is_knob(node: Any) -> bool:
        return isinstance(node, LearnedScalar)

    return jax.tree.map(
        lambda node: change(node) if is_knob(node) else node, state, is_leaf=is_knob
    )

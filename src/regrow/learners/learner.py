"""A network with its target and its optimizer state: what interventions change.

The optimizer has one state per part of the network (see `optimizer`). Gradients are clipped first,
by the global norm over all parts.
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
    """The rule of an update hook: it acts on a Learner after every update and has a state.

    The rules are interventions, in `regrow.interventions`. Carrying one out installs it.
    """

    renews_units: ClassVar[bool]
    """Whether it re-initialises single units; the optimizer must then count steps per element."""

    def init(self, learner: "Learner") -> PyTree:
        """The initial state of the hook."""
        ...

    def after_update(
        self, learner: "Learner", memory: PyTree, inputs: Shaped[Array, "batch *obs"], key: Key
    ) -> "tuple[Learner, PyTree]":
        """(Learner, hook state) after an update on `inputs`; tree structures and shapes stay."""
        ...


class UpdateHook(eqx.Module):
    """A rule that a Learner applies after every update, with the rule's state in `memory`."""

    rule: HookRule = eqx.field(static=True)
    memory: PyTree


class Learner(eqx.Module):
    """A network, its target network, and an optimizer state for each part of the network.

    `hooks`: applied after every update of a Run. Their state is re-initialised when layers are
    replaced, because it described other units. `previous_network`: the network before the last
    update, for agents whose loss needs it. Changes of the network between updates do not count as
    updates.
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
        """A new Learner; the target and the previous network start as copies of the network."""
        statistics = tuple(optimizer.init(part) for part in network.parts())
        kept = network if keep_previous else None
        return Learner(
            network, network if target else None, statistics, optimizer, previous_network=kept
        )

    def fresh(self, key: Key) -> "Learner":
        """A newly initialised Learner of the same architecture, without hooks."""
        target, before = self.target is not None, self.previous_network is not None
        network = self.network.fresh(key)
        return Learner.create(network, self.optimizer, target=target, keep_previous=before)

    def gradient(self, loss: Callable[[Network], Scalar]) -> tuple[Scalar, PyTree]:
        """(loss, its gradient); the gradient is None for frozen parameters."""
        live, frozen = eqx.partition(self.network, self.network.trainable())
        return jax.value_and_grad(lambda live: loss(eqx.combine(live, frozen)))(live)

    def gradient_with(
        self, loss: Callable[[Network], tuple[Scalar, Other]]
    ) -> tuple[Scalar, PyTree, Other]:
        """(loss, its gradient, auxiliary output) of a function that returns (loss, auxiliary)."""
        live, frozen = eqx.partition(self.network, self.network.trainable())
        whole = jax.value_and_grad(lambda live: loss(eqx.combine(live, frozen)), has_aux=True)
        (value, other), gradient = whole(live)
        return value, gradient, other

    def descend(self, gradient: PyTree) -> "Learner":
        """One optimizer step with a gradient as `gradient` returns it."""
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
        """This Learner with a network that is not the result of an update, and `changed` fields."""
        before = None if self.previous_network is None else network
        return replace(self, network=network, previous_network=before, **changed)

    def _clipped(self, gradient: PyTree) -> PyTree:
        limit = self.optimizer.max_gradient_norm
        if limit is None:
            return gradient
        scale = jnp.minimum(1.0, limit / jnp.maximum(optax.tree.norm(gradient), 1e-12))
        return jax.tree.map(lambda g: g * scale, gradient)

    def follow(self, rate: float = 1.0) -> "Learner":
        """target ← (1 − rate)·target + rate·network, for all parameters, the residual included."""
        if rate == 1.0:
            return self.sync()
        target = jax.tree.map(lambda t, n: t + rate * (n - t), self.target, self.network)
        return replace(self, target=target)

    def sync(self, due: bool | Bool[Array, ""] = True) -> "Learner":
        """Makes the target a full copy of the network if `due`; else leaves it unchanged.

        This selects between two trees. In a compiled loop that is cheaper than a branch, for whose
        operands XLA makes copies.
        """
        target = jax.tree.map(lambda n, t: jnp.where(due, n, t), self.network, self.target)
        return replace(self, target=target)

    def with_network(
        self, network: Network, target: Network | None, *, origins: Origins, fresh: Statistics
    ) -> "Learner":
        """This Learner with other networks; parts that were in the old one keep their statistics.

        `origins`: for every part of the new network, its index in the old one, or None if it is
        newly initialised (as `Network.inject_with_origins` returns them). `fresh`: whether a newly
        initialised layer keeps the statistics of the layer that it replaces ("keep") or starts with
        fresh ones ("reset").
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
        """This Learner with live layers that were modified, not re-initialised: anchors are kept.

        `moved`: indices of these layers. `moments`: whether their other statistics are kept or
        reset.
        """
        statistics = tuple(
            anchored(self._first_state(part), state) if moments == "reset" and i in moved else state
            for i, (part, state) in enumerate(zip(network.parts(), self.statistics, strict=True))
        )
        changed = self.moved_to(network, target=target, statistics=statistics)
        return changed.with_fresh_hooks()

    def with_fresh_statistics(self, start: int = 0) -> "Learner":
        """Resets the optimizer state of live layers from `start` on and of all unfrozen old heads.

        Parameters and anchors are kept.
        """
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
        """This Learner with a hook appended; an existing hook of the same kind is removed."""
        others = tuple(hook for hook in self.hooks if type(hook.rule) is not type(rule))
        learner = replace(self, hooks=(*others, UpdateHook(rule, rule.init(self))))
        if not rule.renews_units:
            return learner
        # Count ages per element from now on: in a compiled loop the tree structure cannot change
        # when the first unit is re-initialised.
        statistics = tuple(
            aged(state, part)
            for state, part in zip(self.statistics, self.network.parts(), strict=True)
        )
        return replace(learner, statistics=statistics)

    def with_fresh_hooks(self) -> "Learner":
        """This Learner with the state of every hook re-initialised."""
        hooks = tuple(UpdateHook(hook.rule, hook.rule.init(self)) for hook in self.hooks)
        return replace(self, hooks=hooks)

    def after_hooks(self, inputs: Shaped[Array, "batch *obs"], key: Key) -> "Learner":
        """This Learner after its hooks, in order of installation; `inputs`: those of the update.

        A hook is not notified of what the others changed.
        """
        learner, kept = self, []
        for i, hook in enumerate(self.hooks):
            own = jax.random.fold_in(key, i)
            changed, memory = hook.rule.after_update(learner, hook.memory, inputs, own)
            learner = replace(changed, previous_network=_before(learner, changed))
            kept.append(UpdateHook(hook.rule, memory))
        return replace(learner, hooks=tuple(kept))


class LearnedScalar(eqx.Module):
    """A learned scalar or array outside the networks, such as a temperature, and its optimizer."""

    value: Float[Array, "*shape"]
    statistics: optax.OptState
    initial: float = eqx.field(static=True)
    optimizer: Optimizer = eqx.field(static=True)

    @staticmethod
    def create(
        initial: float, optimizer: Optimizer, shape: tuple[int, ...] = ()
    ) -> "LearnedScalar":
        """A new LearnedScalar, or an array of `shape`, filled with `initial`."""
        value = jnp.full(shape, initial, jnp.float32)
        return LearnedScalar(value, optimizer.init(value), initial, optimizer)

    def descend(self, gradient: Float[Array, "*shape"]) -> "LearnedScalar":
        """One optimizer step with a gradient."""
        transform = self.optimizer.transform_of(output=False)
        update, statistics = transform.update(gradient, self.statistics, self.value)
        value = optax.apply_updates(self.value, update)
        return LearnedScalar(jnp.asarray(value), statistics, self.initial, self.optimizer)

    def fresh(self) -> "LearnedScalar":
        """The initial value with a fresh optimizer state."""
        return LearnedScalar.create(self.initial, self.optimizer, self.value.shape)

    def with_fresh_statistics(self) -> "LearnedScalar":
        """The same value with a fresh optimizer state."""
        statistics = self.fresh().statistics
        return LearnedScalar(self.value, statistics, self.initial, self.optimizer)

    def with_initial_value(self) -> "LearnedScalar":
        """The initial value with the same optimizer state."""
        return LearnedScalar(self.fresh().value, self.statistics, self.initial, self.optimizer)


def joint_gradient(
    learners: Mapping[str, Learner], loss: Callable[[Mapping[str, Network]], Scalar]
) -> tuple[Scalar, dict[str, PyTree]]:
    """(a loss of several networks, its gradients by name); None for frozen parameters."""
    halves = {
        name: eqx.partition(learner.network, learner.network.trainable())
        for name, learner in learners.items()
    }
    live = {name: half for name, (half, _) in halves.items()}

    def whole(live: Mapping[str, PyTree]) -> Scalar:
        return loss({name: eqx.combine(live[name], frozen) for name, (_, frozen) in halves.items()})

    return jax.value_and_grad(whole)(live)


def _before(updated: Learner, tended: Learner) -> Network | None:
    """The network before the last update, except for elements that a hook changed.

    Those have the hook's values. Most hooks change a few elements, or all of them rarely, and the
    update of the other elements must stay visible.
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
    """For every part, whether it is the last layer of a head, unfrozen old heads included."""
    last = len(network.layers) - 1
    has_head = network.split <= last
    thawed = [_are_outputs(pair.old) for pair in network.residual if not pair.frozen]
    live = [has_head and i == last for i in range(last + 1)]
    return (*live, *(o for outputs in thawed for o in outputs))


def is_learner(node: Any) -> bool:
    """Whether a node of an agent's state is a Learner."""
    return isinstance(node, Learner)


def learners(state: PyTree) -> Mapping[str, Learner]:
    """The Learners in an agent's state, by field name."""
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
    """An agent's state after its Learners' hooks; `inputs`: by Learner, those of the update."""
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

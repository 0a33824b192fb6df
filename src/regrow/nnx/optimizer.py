"""Moves the state of an Optax optimizer to the parameters after an injection or a reset.

New parameters start with a fresh state, all others keep theirs. Adam has one step count for all
parameters. With fresh moments and an old count its steps would be up to 6.5 times too large, so
moments and count must be fresh together. Hence groups of parameters, each with its own state.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from regrow.errors import RegrowError, in_a_line, require
from regrow.nnx.base import Path, leaves_of, named, require_same


class GroupedState(NamedTuple):
    """One state of the optimizer per group, with None for what belongs to other groups."""

    states: tuple[Any, ...]


@dataclass(frozen=True)
class Grouped:
    """An Optax optimizer with a state, step count included, for each group of parameters.

    `groups`: the paths of the parameters. Every group sees the gradient of all parameters, so a
    clip by the global norm is unchanged, and moments are stored once per parameter. The limit: a
    transformation that mixes parameters after Adam sees other updates for those of other groups.
    """

    optimizer: Any
    groups: tuple[frozenset[Path], ...]

    def init(self, params: Any) -> GroupedState:
        """The first state of every group."""
        layout = _Layout(self.optimizer.init(params), params)
        return GroupedState(tuple(layout.only(group) for group in self.groups))

    def update(
        self, updates: Any, state: GroupedState, params: Any = None, **extra: Any
    ) -> tuple[Any, GroupedState]:
        """(updates, next state), as of an Optax transformation."""
        update = optax.with_extra_args_support(self.optimizer).update
        # What stands in for the moments of other groups does not enter what is kept, so a compiled
        # update does not compute it.
        other = self.optimizer.init(updates if params is None else params)
        results = [update(updates, _filled(own, other), params, **extra) for own in state.states]
        states = [_pruned(new, own) for own, (_, new) in zip(state.states, results, strict=True)]

        def chosen(path: Any, *each: Any) -> Any:
            name = named(path)
            return next(u for u, group in zip(each, self.groups, strict=True) if name in group)

        moved = jax.tree_util.tree_map_with_path(chosen, *(updates for updates, _ in results))
        return moved, GroupedState(tuple(states))


def migrate(
    optimizer: Any, state: Any, before: Any, after: Any, fresh: Collection[Path]
) -> tuple[Any, Any]:
    """(optimizer, state) for the parameters `after`, where those at the paths `fresh` are new.

    `before`: the parameters that the state is of. The optimizer becomes `Grouped` if it counts the
    steps of all parameters at once, as Adam does. Raises `RegrowError` if the state is of other
    parameters, or holds all of them in one array.
    """
    require_same("the optimizer's state", state, jax.eval_shape(optimizer.init, before))
    grouped = isinstance(optimizer, Grouped)
    base = optimizer.optimizer if grouped else optimizer
    old_groups = optimizer.groups if grouped else (frozenset(leaves_of(before)),)
    old = [leaves_of(own) for own in (state.states if grouped else (state,))]
    layout = _Layout(_first(base, after), after)
    fresh = layout.parameters & frozenset(fresh)

    def kept(own: dict[Path, Any]) -> Callable[[Path, Any], Any]:
        return lambda path, first: first if layout.parameter(path) in fresh else own[path]

    def new(path: Path, first: Any) -> Any:
        is_common = layout.parameter(path) is None and path not in layout.counts
        return jnp.copy(old[0][path]) if is_common else first

    if not layout.counts:
        return base, layout.only(layout.parameters, kept(old[0]))
    states = [
        (left, layout.only(left, kept(own)))
        for group, own in zip(old_groups, old, strict=True)
        if (left := group & layout.parameters - fresh)
    ]
    states += [(fresh, layout.only(fresh, new))] if fresh else []
    if len(states) == 1:
        return base, states[0][1]
    groups, states = zip(*states, strict=True)
    return Grouped(base, groups), GroupedState(states)


def _first(optimizer: Any, params: Any) -> Any:
    """The first state for new parameters; one line on why if there can be none."""
    try:
        first = optimizer.init(params)
    except Exception as error:  # such as labels of Optax that are a tree of the old parameters
        raise RegrowError(
            f"the optimizer does not take the new parameters ({in_a_line(error)}); masks and "
            "labels must be functions of the parameters"
        ) from error
    total = sum(jnp.size(leaf) for leaf in jax.tree.leaves(params))
    layout = _Layout(first, params)
    for path, leaf in leaves_of(first).items():
        flat = layout.parameter(path) is None and jnp.ndim(leaf) > 0 and jnp.size(leaf) == total
        name = ".".join(path)
        require(not flat, f"the optimizer's state '{name}' holds all parameters in one array")
    return first


def _filled(state: Any, other: Any) -> Any:
    """A state with other values where it has None."""
    return jax.tree.map(
        lambda own, leaf: leaf if own is None else own, state, other, is_leaf=lambda x: x is None
    )


def _pruned(state: Any, like: Any) -> Any:
    """A state with None where another one has None."""
    return jax.tree.map(
        lambda own, leaf: None if own is None else leaf, like, state, is_leaf=lambda x: x is None
    )


class _Layout:
    """Which leaf of an optimizer's state is of which parameter."""

    def __init__(self, first: Any, params: Any):
        self.first = first
        self.parameters = frozenset(leaves_of(params))
        paths = leaves_of(first)
        owned = {path[: -len(name) - 1] for path in paths if (name := self.parameter(path))}
        # A count beside moments is theirs, as Adam's; that of a schedule is of all parameters.
        self.counts = {p for p in paths if self.parameter(p) is None and p[:-1] in owned}

    def parameter(self, path: Path) -> Path | None:
        """The parameter that a leaf of the state is of; None for one that is of all of them."""
        ends = (path[i:] for i in range(1, len(path)))
        return next((end for end in ends if end in self.parameters), None)

    def only(
        self,
        group: Collection[Path],
        value: Callable[[Path, Any], Any] = lambda _, first: first,
    ) -> Any:
        """The state of a group: `value(path, first)`, and None for parameters of other groups."""

        def leaf(path: Any, first: Any) -> Any:
            parameter = self.parameter(named(path))
            return value(named(path), first) if parameter is None or parameter in group else None

        return jax.tree_util.tree_map_with_path(leaf, self.first)

"""Plasticity injection into agents written with Flax NNX, and resets, in place.

    out = h_θ(φ) + h_θ'₁(φ) − h_θ'₂(φ),     θ'₁ = θ'₂ fresh,  only φ and θ'₁ learn

The head is replaced by an `Injected` module, which holds the old head and a copy of the fresh one
as `Frozen` variables. After n injections a head costs as much as 2n + 1 heads.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx
from flax.nnx.training.optimizer import to_opt_state

from regrow.errors import RegrowError, require
from regrow.nnx.base import copied
from regrow.nnx.heads import (
    Frozen,
    Head,
    Injected,
    cloned,
    folded,
    fresh_heads,
    frozen,
    heads_of,
    require_alike,
)
from regrow.nnx.optimizer import migrate

Init = Callable[[nnx.Rngs], nnx.Module]
Layers = list[Any]
_LEARNED_OR_STATE = nnx.Not(nnx.RngState)


def inject(
    module: nnx.Module,
    at: str | Sequence[str] = "head",
    *,
    rngs: nnx.Rngs,
    optimizer: nnx.Optimizer[Any] | None = None,
    targets: Sequence[nnx.Module] = (),
    init: Init | None = None,
) -> None:
    """Plasticity injection (arXiv 2305.15555, expression 1) into heads of a module, in place.

    `at`: the dotted path of the submodule that is the head, or with which it begins in an
    `nnx.Sequential`; several paths are heads side by side. `init`: builds the whole module anew,
    for the fresh heads. Without it Flax's layers are built from their options with Flax's default
    initialisers, because layers do not keep theirs. `optimizer`: fresh parameters start with a
    fresh state, others keep theirs. `targets`: target networks, which get the same fresh heads.
    Raises `RegrowError`, before anything changes, for what cannot be injected.
    """
    heads, others = _heads(module, at, targets)
    fresh = fresh_heads(heads, rngs, init)
    injected, *of_targets = (
        [_injected(head, layers) for head, layers in zip(own, fresh, strict=True)]
        for own in (heads, *others)
    )
    _replace(module, heads, injected, optimizer)
    for own, layers in zip(others, of_targets, strict=True):
        _put(own, layers)


def reset(
    module: nnx.Module,
    at: str | Sequence[str] = "head",
    *,
    rngs: nnx.Rngs,
    optimizer: nnx.Optimizer[Any] | None = None,
    targets: Sequence[nnx.Module] = (),
    init: Init | None = None,
) -> None:
    """Re-initialises heads (Nikishin et al. 2022, arXiv 2205.07802), in place.

    What earlier injections added is dropped. The optimizer's state of the heads is fresh, and
    `targets` become copies of the module. Arguments and errors are those of `inject`.
    """
    heads, others = _heads(module, at, targets)
    for i, target in enumerate(targets):
        found, expected = (nnx.state(one, _LEARNED_OR_STATE) for one in (target, module))
        require_alike(f"targets[{i}]", found, expected)
    fresh = fresh_heads(heads, rngs, init)
    of_targets = [[list(cloned(nnx.List(layers))) for layers in fresh] for _ in targets]
    _replace(module, heads, fresh, optimizer)
    for target, own, layers in zip(targets, others, of_targets, strict=True):
        _put(own, layers)
        nnx.update(target, copied(nnx.state(module, _LEARNED_OR_STATE)))


def _heads(
    module: nnx.Module, at: str | Sequence[str], targets: Sequence[nnx.Module]
) -> tuple[list[Head], list[list[Head]]]:
    """The heads of the module and those of every target, which must be alike and apart."""
    heads = heads_of(module, at)
    others = [heads_of(target, at, f"targets[{i}]") for i, target in enumerate(targets)]
    seen = {id(v): "the module" for head in heads for v in _variables(head.layers)}
    for i, own in enumerate(others):
        for head, other in zip(heads, own, strict=True):
            found, expected = (nnx.state(folded(one.layers)) for one in (other, head))
            require_alike(f"'{other.name}'", found, expected)
            for variable in _variables(other.layers):
                first = seen.setdefault(id(variable), f"targets[{i}]")
                apart = first == f"targets[{i}]"
                require(apart, f"'{other.name}' is also that of {first}; a target must be a copy")
    return heads, others


def _variables(layers: Layers) -> list[nnx.Variable[Any]]:
    nodes = (node for _, node in nnx.iter_graph(folded(layers)))
    return [node for node in nodes if isinstance(node, nnx.Variable)]


def _injected(head: Head, fresh: Layers) -> Layers:
    old, live, copy = nnx.clone(folded(head.layers)), cloned(folded(fresh)), cloned(folded(fresh))
    return [Injected(frozen(old), live, frozen(copy), rest=len(fresh) > 1)]


def _put(heads: Sequence[Head], layers: Sequence[Layers]) -> None:
    for head, own in zip(heads, layers, strict=True):
        head.put(own)


def _replace(
    module: nnx.Module,
    heads: Sequence[Head],
    layers: Sequence[Layers],
    optimizer: nnx.Optimizer[Any] | None,
) -> None:
    """Puts new layers in place of heads and moves the optimizer's state, or does neither."""
    before = None if optimizer is None else _learned(module, optimizer)
    _put(heads, layers)
    if optimizer is None:
        return
    new = {id(v) for own in layers for v in _variables(own) if isinstance(v, nnx.Param)}
    fresh = {tuple(map(str, path)) for path, node in nnx.iter_graph(module) if id(node) in new}
    try:
        after, state = _learned(module, optimizer), nnx.as_pure(optimizer.opt_state)
        transformation, state = migrate(optimizer.tx, state, before, after, fresh)
    except RegrowError:
        _put(heads, [head.layers for head in heads])
        raise
    optimizer.tx, optimizer.opt_state = transformation, nnx.data(to_opt_state(state))


def _learned(module: nnx.Module, optimizer: nnx.Optimizer[Any]) -> Any:
    """The parameters that the optimizer changes, as arrays."""
    state = nnx.state(module, optimizer.wrt)
    held = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, nnx.Variable))
    require(
        not any(isinstance(variable, Frozen) for variable in held),
        f"the optimizer's wrt is {optimizer.wrt}, which takes frozen heads too; give wrt=nnx.Param",
    )
    return nnx.as_pure(state)

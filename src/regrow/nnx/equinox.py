"""Plasticity injection into agents written with Equinox.

    out = h_θ(φ) + h_θ'₁(φ) − h_θ'₂(φ),     θ'₁ = θ'₂ fresh,  only φ and θ'₁ learn

The head is replaced by an `Injected` module, in which only the live head has a gradient, and
`trainable` says which leaves learn. After n injections a head costs as much as 2n + 1 heads.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax

from regrow.errors import RegrowError, in_a_line, require
from regrow.nnx.base import copied, leaves_of, named, options_of, require_same, summed
from regrow.nnx.optimizer import migrate

LAYERS = (
    eqx.nn.Linear,
    eqx.nn.Conv,
    eqx.nn.Conv1d,
    eqx.nn.Conv2d,
    eqx.nn.Conv3d,
    eqx.nn.LayerNorm,
    eqx.nn.RMSNorm,
    eqx.nn.GroupNorm,
)
"""Layers that keep all options of their constructors but the type of their numbers."""

Where = Callable[[Any], Any]


class Injected(eqx.Module):
    """A head after an injection, h_θ(φ) + (h_θ'₁(φ) − h_θ'₂(φ)): `old`, `live` and `copy`.

    `rest`: whether it stands for several layers of an `eqx.nn.Sequential`. Calls take what the
    heads take, and raise `RegrowError` if the output is not of floating arrays.
    """

    old: Any
    live: Any
    copy: Any
    rest: bool = eqx.field(static=True)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """The sum, of the shape that the old head's output has."""
        heads = (_stopped(self.old), self.live, _stopped(self.copy))
        old, live, copy = (head(*inputs, **options) for head in heads)
        return summed(old, live, copy)


class Injection(NamedTuple):
    """What an injection gives back; `optimizer` and `opt_state` are None if none was given."""

    module: Any
    trainable: Any
    optimizer: Any
    opt_state: Any


def inject(
    module: Any,
    where: Where,
    *,
    key: jax.Array,
    init: Callable[[jax.Array], Any] | None = None,
    optimizer: Any = None,
    opt_state: Any = None,
) -> Injection:
    """Plasticity injection (arXiv 2305.15555, expression 1) into heads of an Equinox module.

    `where`: gives the submodule that is the head, or with which it begins in an
    `eqx.nn.Sequential`, as in `eqx.tree_at`; several are heads side by side. `init`: builds the
    whole module anew from a key, for the fresh heads. Without it Equinox's layers are built from
    their options with Equinox's initialisation. `opt_state`: that of
    `eqx.filter(module, trainable(module))`. The same key gives a target network the same fresh
    heads. Raises `RegrowError` for what cannot be injected.
    """
    require(
        (optimizer is None) == (opt_state is None), "give both optimizer and opt_state, or neither"
    )
    heads = _heads(module, where, "the module")
    built = None if init is None else _heads(init(key), where, "init's module")
    keys = jax.random.split(key, len(heads))
    fresh = [
        _renewed(head, one) if built is None else _taken(head, built[i])
        for i, (head, one) in enumerate(zip(heads, keys, strict=True))
    ]
    injected = [
        Injected(_folded(head.layers), _folded(new), copied(_folded(new)), rest=len(new) > 1)
        for head, new in zip(heads, fresh, strict=True)
    ]
    after = _replaced(module, heads, injected)
    if optimizer is not None:
        before, learned = (eqx.filter(one, trainable(one)) for one in (module, after))
        new = [path for path in leaves_of(learned) if any(head.covers(path) for head in heads)]
        optimizer, opt_state = migrate(optimizer, opt_state, before, learned, new)
    return Injection(after, trainable(after), optimizer, opt_state)


def trainable(module: Any) -> Any:
    """A pytree like the module: True for floating arrays, but not for those of frozen heads."""

    def learns(node: Any) -> Any:
        if not isinstance(node, Injected):
            return eqx.is_inexact_array(node)
        old, copy = (jax.tree.map(lambda _: False, head) for head in (node.old, node.copy))
        return Injected(old, trainable(node.live), copy, rest=node.rest)

    return jax.tree.map(learns, module, is_leaf=lambda node: isinstance(node, Injected))


class _Head(NamedTuple):
    """A head: the submodule at a path of JAX, or the rest of its Sequential from `start` on."""

    path: tuple[Any, ...]
    start: int | None
    layers: list[Any]

    def name(self, i: int = 0) -> str:
        """The dotted path of layer i of the head."""
        names = named(self.path)
        names = names if self.start is None else (*names[:-1], str(self.start + i))
        return ".".join(names) or "module"

    def covers(self, path: tuple[str, ...]) -> bool:
        """Whether something at a path belongs to the head."""
        if not self.path:
            return True
        *above, first = named(self.path)
        *others, here = path[: len(self.path)]
        if len(path) < len(self.path) or others != above:
            return False
        return here == first if self.start is None else int(here) >= self.start


def _heads(module: Any, where: Where, what: str) -> list[_Head]:
    """The heads of a module. Raises `RegrowError` if one cannot be injected."""
    try:
        nodes = where(module)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise RegrowError(f"where does not fit {what} ({in_a_line(error)})") from error
    nodes = list(nodes) if isinstance(nodes, list | tuple) else [nodes]
    for node in nodes:
        kind = type(node).__name__
        is_head = isinstance(node, eqx.Module) and callable(node)
        require(is_head, f"where gives a {kind}; it must give a submodule that can be called")
    found = jax.tree_util.tree_leaves_with_path(
        module, is_leaf=lambda leaf: any(leaf is node for node in nodes)
    )
    heads: list[_Head] = []
    for node in nodes:
        paths = [path for path, leaf in found if leaf is node]
        places = " and ".join(f"'{'.'.join(named(path))}'" for path in paths) or "no part"
        require(
            len(paths) == 1,
            f"where gives a {type(node).__name__} that is {places} of {what}; every head must be "
            "one part of it, and none within another",
        )
        heads.append(_head(module, paths[0]))
        covered = any(head.covers(named(paths[0])) for head in heads[:-1])
        covered = covered or any(heads[-1].covers(named(head.path)) for head in heads[:-1])
        require(not covered, f"'{heads[-1].name()}' and another head overlap; give one of them")
    require(bool(heads), "where gives no submodule; it must give the head")
    return heads


def _head(module: Any, path: tuple[Any, ...]) -> _Head:
    """The head that begins at a path. Raises `RegrowError` if it cannot be injected."""
    around = [_at(module, path[:depth]) for depth in range(len(path))]
    if len(path) > 1 and isinstance(around[-2], eqx.nn.Sequential):
        start = path[-1].idx
        head = _Head(path, start, list(around[-2].layers[start:]))
    else:
        head = _Head(path, None, [_at(module, path)])
    shared = any(isinstance(node, eqx.nn.Shared) for node in around)
    require(
        not shared, f"'{head.name()}' is in an eqx.nn.Shared; a head must have its own parameters"
    )
    for i, layer in enumerate(head.layers):
        for inner, node in jax.tree_util.tree_leaves_with_path(layer, is_leaf=_refused):
            name = ".".join((head.name(i), *named(inner)))
            require(
                not _refused(node),
                f"'{name}' is a {type(node).__name__}; a head must not share parameters, keep "
                "state, or differ between training and evaluation",
            )
    learned = leaves_of(eqx.filter(head.layers, trainable(head.layers)))
    require(bool(learned), f"'{head.name()}' has no parameters; name a submodule that learns")
    return head


def _refused(node: Any) -> bool:
    if isinstance(node, eqx.nn.Dropout):
        return node.p != 0
    stateful = isinstance(node, eqx.nn.StatefulLayer) and not isinstance(node, eqx.nn.Sequential)
    return stateful or isinstance(node, eqx.nn.StateIndex | eqx.nn.Shared)


def _at(module: Any, path: tuple[Any, ...]) -> Any:
    """What stands at a path of JAX."""
    for key in path:
        if isinstance(key, jax.tree_util.GetAttrKey):
            module = getattr(module, key.name)
        else:
            module = module[key.key if isinstance(key, jax.tree_util.DictKey) else key.idx]
    return module


def _replaced(module: Any, heads: Sequence[_Head], new: Sequence[Any]) -> Any:
    """The module with other heads, each the last layer of its Sequential if it was the rest."""

    def parts(module: Any) -> list[Any]:
        return [_at(module, head.path if head.start is None else head.path[:-2]) for head in heads]

    whole = [
        one if head.start is None else eqx.nn.Sequential([*part.layers[: head.start], one])
        for head, part, one in zip(heads, parts(module), new, strict=True)
    ]
    return eqx.tree_at(parts, module, whole)


def _renewed(head: _Head, key: jax.Array) -> list[Any]:
    """The head's layers, built again from their options, without earlier injections."""
    layers = _plain(head.layers)
    keys = jax.random.split(key, len(layers))
    return [_built(layer, head.name(i), keys[i]) for i, layer in enumerate(layers)]


def _built(layer: Any, name: str, key: jax.Array) -> Any:
    """A layer of the same form with new layers in it."""
    nodes, structure = jax.tree_util.tree_flatten_with_path(
        layer, is_leaf=lambda node: type(node) in LAYERS
    )
    new: list[Any] = []
    for i, (path, node) in enumerate(nodes):
        place = ".".join((name, *named(path)))
        require(
            not eqx.is_inexact_array(node),
            f"'{place}' cannot be re-initialised, as it is not of a layer that keeps its options; "
            "give init=, a function of a key that builds the module",
        )
        if type(node) in LAYERS:
            dtypes = [leaf.dtype for leaf in jax.tree.leaves(node) if eqx.is_array(leaf)]
            given = {"key": jax.random.fold_in(key, i), "dtype": dtypes[0] if dtypes else None}
            accepted = inspect.signature(type(node).__init__).parameters
            given = {name: value for name, value in given.items() if name in accepted}
            one = type(node)(**options_of(node), **given)
            require_same(f"a new '{place}'", *(eqx.filter(x, eqx.is_array) for x in (one, node)))
            node = one
        new.append(node)
    return jax.tree.unflatten(structure, new)


def _taken(head: _Head, built: _Head) -> list[Any]:
    """The head's layers with the parameters of a newly built one, without earlier injections."""
    layers = _plain(head.layers)
    new, now = (eqx.filter(_folded(x), eqx.is_inexact_array) for x in (built.layers, layers))
    require_same(f"'{head.name()}' of init's module", new, now)
    values = leaves_of(eqx.filter(built.layers, eqx.is_inexact_array))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: values.get(named(path), leaf), layers
    )


def _plain(layers: Sequence[Any]) -> list[Any]:
    """Layers without injections; those of an injected rest stand side by side."""

    def inner(node: Any) -> Any:
        if isinstance(node, Injected):
            return _plain([node])[0]
        return (
            eqx.nn.Sequential(_plain(node.layers)) if isinstance(node, eqx.nn.Sequential) else node
        )

    found: list[Any] = []
    for layer in layers:
        if isinstance(layer, Injected):
            found += _plain(layer.live.layers if layer.rest else [layer.live])
        else:
            found.append(
                jax.tree.map(
                    inner,
                    layer,
                    is_leaf=lambda node: isinstance(node, Injected | eqx.nn.Sequential),
                )
            )
    return found


def _folded(layers: Sequence[Any]) -> Any:
    """Layers as one module."""
    return layers[0] if len(layers) == 1 else eqx.nn.Sequential(layers)


def _stopped(module: Any) -> Any:
    """The module with parameters that have no gradient."""
    learned, others = eqx.partition(module, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(learned), others)

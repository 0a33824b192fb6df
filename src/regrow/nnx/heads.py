"""Heads of Flax NNX modules: where they stand, what may not be in them, and fresh values."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flax import nnx

from regrow.errors import RegrowError, require, unknown
from regrow.nnx.base import Path, copied, options_of, require_same, summed

LAYERS = (
    nnx.Linear,
    nnx.LinearGeneral,
    nnx.Einsum,
    nnx.Conv,
    nnx.ConvTranspose,
    nnx.Embed,
    nnx.LayerNorm,
    nnx.RMSNorm,
)
"""Layers that keep all options of their constructors but the initialisers."""

MODES = ("deterministic", "use_running_average")
"""Fields by which Flax switches a layer between training and evaluation."""


class Frozen(nnx.Variable[Any]):
    """A value that no longer learns: `nnx.grad` and `nnx.Optimizer(wrt=nnx.Param)` skip it."""


class Injected(nnx.Module):
    """A head after an injection, h_θ(φ) + (h_θ'₁(φ) − h_θ'₂(φ)): `old`, `live` and `copy`.

    `rest`: whether it stands for several layers of an `nnx.Sequential`. Calls take what the heads
    take, and raise `RegrowError` if the output is not of floating arrays.
    """

    def __init__(self, old: Any, live: Any, copy: Any, *, rest: bool):
        self.old = old
        self.live = live
        self.copy = copy
        self.rest = rest

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """The sum, of the shape that the old head's output has."""
        old, live, copy = (head(*inputs, **options) for head in (self.old, self.live, self.copy))
        return summed(old, live, copy)


class Head:
    """The head of a module: the submodule at a dotted path, or the rest of its `nnx.Sequential`.

    `layers`: the submodule, or the layers of the Sequential from it on. `what` names the module in
    errors. Raises `RegrowError` for an unknown path and for a head that cannot be injected.
    """

    def __init__(self, module: nnx.Module, at: str, what: str = "the module"):
        nodes: list[Any] = [module]
        for name in at.split("."):
            children = _children(nodes[-1])
            if name not in children:
                raise unknown(f"submodule of {what}", at, _submodules(module))
            nodes.append(children[name])
        *parents, first = nodes
        self.at = at
        self.path: Path = tuple(at.split("."))
        self.name = at if what == "the module" else f"{what}.{at}"
        self.parent = parents[-1]
        above = parents[-2] if len(parents) > 1 else None
        is_rest = isinstance(above, nnx.Sequential) and above.layers is self.parent
        self.sequential = above if is_rest else None
        self.layers = list(self.parent)[int(self.path[-1]) :] if is_rest else [first]
        self._check(module)

    def put(self, layers: Sequence[Any]) -> None:
        """Puts other layers in place of the head's."""
        if self.sequential is not None:
            kept = list(self.parent)[: int(self.path[-1])]
            self.sequential.layers = self.parent = nnx.List([*kept, *layers])
        else:
            _set(self.parent, self.path[-1], layers[0])

    def plain(self) -> list[Any]:
        """A copy of the head's layers without earlier injections: each live head in its place."""
        return _plain(list(nnx.clone(nnx.Sequential(*self.layers)).layers))

    def covers(self, path: Path) -> bool:
        """Whether something at a path belongs to the head."""
        depth = len(self.path) - 1
        if path[:depth] != self.path[:depth] or len(path) <= depth:
            return False
        if self.sequential is not None:
            return int(path[depth]) >= int(self.path[depth])
        return path[depth] == self.path[depth]

    def _check(self, module: nnx.Module) -> None:
        for same in nnx.find_duplicates(module):
            paths = sorted(tuple(str(name) for name in path) for path in same)
            one, other, *_ = (".".join(path) for path in paths)
            shared = any(self.covers(path) for path in paths)
            require(
                not shared, f"'{one}' and '{other}' are shared; a head must have its own parameters"
            )
        first, kind = self.layers[0], type(self.layers[0]).__name__
        require(
            isinstance(first, nnx.Module) and all(callable(layer) for layer in self.layers),
            f"'{self.name}' is a {kind}; a head must be a module that can be called",
        )
        require(
            not isinstance(self.parent, tuple),
            f"'{self.name}' is in a tuple, which cannot be changed; use an nnx.List",
        )
        held = list(self._held())
        for name, node in held:
            switched = isinstance(node, nnx.Dropout | nnx.BatchNorm) or (
                isinstance(node, nnx.Module) and any(mode in vars(node) for mode in MODES)
            )
            require(
                not switched,
                f"'{name}' is a {type(node).__name__}, which differs between training and "
                "evaluation; a head must not, so name one without it",
            )
            require(
                not isinstance(node, nnx.Variable) or isinstance(node, nnx.Param | Frozen),
                f"'{name}' is a {type(node).__name__}; the variables of a head must be nnx.Param",
            )
        require(
            any(isinstance(node, nnx.Param) for _, node in held),
            f"'{self.name}' has no nnx.Param; name a submodule that learns",
        )

    def names(self, count: int) -> list[str]:
        """The dotted paths of the head's layers, of which there are `count`."""
        if self.sequential is None:
            return [self.name]
        prefix, _, start = self.name.rpartition(".")
        return [f"{prefix}.{int(start) + i}" for i in range(count)]

    def _held(self) -> Iterator[tuple[str, Any]]:
        """(name, node) of the layers, their submodules and their variables."""
        for name, layer in zip(self.names(len(self.layers)), self.layers, strict=True):
            yield name, layer
            yield from _walk(layer, name)


def heads_of(module: nnx.Module, at: str | Sequence[str], what: str = "the module") -> list[Head]:
    """The heads at one or several paths. Raises `RegrowError` also if one is within another."""
    heads = [Head(module, one, what) for one in ([at] if isinstance(at, str) else at)]
    require(bool(heads), "at is empty; name the submodule where the head begins")
    for head in heads:
        for other in heads:
            apart = other is head or not head.covers(other.path)
            require(apart, f"'{other.at}' is within the head '{head.at}'; give one of them")
    return heads


def fresh_heads(
    heads: Sequence[Head], rngs: nnx.Rngs, init: Callable[[nnx.Rngs], nnx.Module] | None
) -> list[list[Any]]:
    """New layers for every head, without earlier injections.

    `init` builds the whole module; by default each layer is built again from its fields. Raises
    `RegrowError` for what cannot be built, and for an `init` that builds other heads.
    """
    plain = [head.plain() for head in heads]
    built = None if init is None else init(rngs)
    for head, layers in zip(heads, plain, strict=True):
        if built is None:
            for name, layer in zip(head.names(len(layers)), layers, strict=True):
                _renew(layer, name, rngs)
        else:
            new = nnx.state(folded(Head(built, head.at, "init's module").layers))
            require_alike(f"the '{head.at}' of init's module", new, nnx.state(folded(layers)))
            nnx.update(folded(layers), new)
    return plain


def require_alike(what: str, found: nnx.State[Any, Any], expected: nnx.State[Any, Any]) -> None:
    """Raises `RegrowError` unless two states have the same variables, by path, shape and dtype."""
    require_same(what, nnx.as_pure(found), nnx.as_pure(expected))


def folded(layers: Sequence[Any]) -> Any:
    """Layers as one module."""
    return layers[0] if len(layers) == 1 else nnx.Sequential(*layers)


def cloned(module: nnx.Module) -> Any:
    """A copy of a module with memory of its own."""
    graph, state = nnx.split(module)
    return nnx.merge(graph, copied(state))


def frozen(module: Any) -> Any:
    """The module with every parameter in it made `Frozen`, in place."""
    for name, child in _children(module).items():
        if isinstance(child, nnx.Param):
            _set(module, name, Frozen(child.get_raw_value(), **child.get_metadata()))
        else:
            frozen(child)
    return module


def _renew(node: Any, name: str, rngs: nnx.Rngs) -> None:
    """Gives the layers within a node new values, drawn by Flax's default initialisers."""
    if type(node) in LAYERS:
        new = nnx.state(type(node)(**options_of(node), rngs=rngs))
        require_alike(f"a new '{name}'", new, nnx.state(node))
        nnx.update(node, new)
        return
    require(
        not isinstance(node, nnx.Param),
        f"'{name}' cannot be re-initialised, as it is not of a layer that keeps its options; give "
        "init=, a function of nnx.Rngs that builds the module",
    )
    for key, child in _children(node).items():
        _renew(child, f"{name}.{key}", rngs)


def _plain(layers: Sequence[Any]) -> list[Any]:
    """Layers without injections, in place; the layers of an injected rest stand side by side."""
    found: list[Any] = []
    for layer in layers:
        if isinstance(layer, Injected):
            found += _plain(list(layer.live.layers) if layer.rest else [layer.live])
            continue
        if isinstance(layer, nnx.Sequential):
            layer.layers = nnx.List(_plain(list(layer.layers)))
        else:
            for name, child in _children(layer).items():
                (plain,) = _plain([child])
                if plain is not child:
                    _set(layer, name, plain)
        found.append(layer)
    return found


def _walk(node: Any, name: str) -> Iterator[tuple[str, Any]]:
    for key, child in _children(node).items():
        yield f"{name}.{key}", child
        yield from _walk(child, f"{name}.{key}")


def _children(node: Any) -> dict[str, Any]:
    """What a module, list, tuple or dict holds, by name."""
    if isinstance(node, nnx.Module):
        return {
            name: child for name, child in vars(node).items() if not name.startswith("_pytree_")
        }
    if isinstance(node, list | tuple):
        return {str(i): child for i, child in enumerate(node)}
    return {str(key): child for key, child in node.items()} if isinstance(node, dict) else {}


def _set(parent: Any, name: str, child: Any) -> None:
    if isinstance(parent, nnx.Module):
        setattr(parent, name, child)
    elif isinstance(parent, list):
        parent[int(name)] = child
    elif isinstance(parent, dict):
        parent[next(key for key in parent if str(key) == name)] = child
    else:
        raise RegrowError(f"'{name}' is in a tuple, which cannot be changed; use an nnx.List")


def _submodules(module: nnx.Module) -> list[str]:
    """The dotted paths of everything that could be a head."""
    return [
        ".".join(str(name) for name in path)
        for path, node in nnx.iter_graph(module)
        if path and isinstance(node, nnx.Module) and callable(node)
    ]

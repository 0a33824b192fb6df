"""What injections into Flax NNX, Flax Linen and Equinox share: the sum, and leaves by name."""

import inspect
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp

from regrow.errors import RegrowError, require

Path = tuple[str, ...]
"""Where a leaf or a submodule stands, as in ("head", "layers", "0", "kernel")."""


def leaves_of(tree: Any) -> dict[Path, Any]:
    """The leaves of a pytree by path."""
    return {named(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def named(path: Collection[Any]) -> Path:
    """A path of JAX as names."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def copied(tree: Any) -> Any:
    """A pytree whose arrays have memory of their own, as none may be donated twice."""
    return jax.tree.map(lambda leaf: jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf, tree)


def summed(old: Any, live: Any, copy: Any) -> Any:
    """old + (live − copy), which is `old` to the last bit while live = copy.

    For floating arrays, alone or in tuples, lists and dicts. Raises `RegrowError` for other
    outputs: the parameters of a distribution, for example, may not be summed.
    """

    def one(old: Any, live: Any, copy: Any) -> jax.Array:
        floating = isinstance(old, jax.Array) and jnp.issubdtype(old.dtype, jnp.inexact)
        kind = old.dtype if isinstance(old, jax.Array) else type(old).__name__
        require(
            floating,
            f"the output of an injected head is {kind}; it must be of floating arrays, alone or "
            "in tuples, lists and dicts",
        )
        return old + (live - copy)

    return jax.tree.map(
        one, old, live, copy, is_leaf=lambda node: not isinstance(node, tuple | list | dict)
    )


def options_of(layer: Any) -> dict[str, Any]:
    """The arguments of a layer's constructor that the layer keeps as fields."""
    names = inspect.signature(type(layer).__init__).parameters
    return {name: getattr(layer, name) for name in names if name in vars(layer)}


def require_same(what: str, found: Any, expected: Any) -> None:
    """Raises `RegrowError` unless two pytrees have the same leaves, by path, shape and dtype."""
    found, expected = leaves_of(found), leaves_of(expected)
    for path in sorted(found.keys() | expected.keys()):
        name = ".".join(path)
        if path not in found or path not in expected:
            side = "lacks" if path in expected else "also has"
            raise RegrowError(f"{what} {side} '{name}'; it must have the same parameters")
        got, right = _described(found[path]), _described(expected[path])
        require(got == right, f"{what} has '{name}' of {got}; it must be of {right}")


def _described(leaf: Any) -> str:
    return f"{getattr(leaf, 'dtype', type(leaf).__name__)}{list(getattr(leaf, 'shape', ()))}"

"""Plasticity injection into agents written with Flax Linen, or any apply function of its form.

    out = f_θ(φ) + f_θ'₁(φ) − f_θ'₂(φ),     θ'₁ = θ'₂ fresh,  only φ and θ'₁ learn

Linen names the layers of a compact module (Dense_0, Dense_1, …) and has no object for several of
them. So a head is a set of names in `params`, and reaches to the output. The whole module is
applied with the old, the live and the copied values of these names: 2n + 1 times after n
injections. In a compiled function XLA computes the encoder's outputs once, because they are equal,
but its gradients 2n + 1 times.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from regrow.errors import require, unknown
from regrow.nnx.base import copied, leaves_of, named, require_same, summed
from regrow.nnx.optimizer import migrate

Apply = Callable[..., Any]
Values = dict[str, Any]
"""Arrays by dotted name, as in {"Dense_1.kernel": …}."""


class Pair(NamedTuple):
    """What one injection freezes: the values of the old head, and of the copy."""

    old: Values
    copy: Values


Frozen = tuple[Pair, ...]


@dataclass(frozen=True)
class Injected:
    """An apply function of Linen that takes frozen heads: {"params": params, "frozen": frozen}.

    Its other arguments are those of `apply`, which it is without frozen heads. Raises `RegrowError`
    if the output is not of floating arrays.
    """

    apply: Apply

    def __call__(self, variables: Mapping[str, Any], *inputs: Any, **options: Any) -> Any:
        """The output; with `mutable` also the collections, as the live head changed them."""
        others = {name: tree for name, tree in variables.items() if name != "frozen"}
        frozen: Frozen = variables.get("frozen", ())
        with_state = options.get("mutable", False) is not False

        def output(values: Values) -> tuple[Any, Any]:
            params = _with_values(others["params"], jax.lax.stop_gradient(values))
            result = self.apply({**others, "params": params}, *inputs, **options)
            return result if with_state else (result, None)

        heads = [*(pair.old for pair in frozen), Values()]
        out, state = output(heads[0])
        for pair, head in zip(frozen, heads[1:], strict=True):
            live, state = output(head)
            out = summed(out, live, output(pair.copy)[0])
        return (out, state) if with_state else out


class Injection(NamedTuple):
    """What an injection gives back; `optimizer` and `opt_state` are None if none was given."""

    apply: Injected
    params: Any
    frozen: Frozen
    optimizer: Any
    opt_state: Any


def inject(
    apply: Apply,
    params: Any,
    at: str | Sequence[str],
    *,
    key: jax.Array,
    init: Callable[[jax.Array], Mapping[str, Any]],
    frozen: Frozen = (),
    optimizer: Any = None,
    opt_state: Any = None,
) -> Injection:
    """Plasticity injection (arXiv 2305.15555, expression 1) into parameters of a Linen module.

    `at`: the names of the head's parameters, such as ("Dense_1", "Dense_2"); a dot leads into a
    submodule. What is not named is encoder. `init`: the variables of a new module, as
    `lambda key: module.init(key, x)`. `frozen`: that of earlier injections. The new `params` have
    the old tree, with a fresh head. The same key gives a target network the same fresh head. Raises
    `RegrowError` for unknown names, a head with other variables than parameters, and an `init` or
    `opt_state` of another module.
    """
    given = (optimizer is None) == (opt_state is None)
    require(given, "give both optimizer and opt_state, or neither")
    variables, now = init(key), _values(params)
    at = [at] if isinstance(at, str) else at
    head = _head(now, at)
    for name in _values({name: tree for name, tree in variables.items() if name != "params"}):
        collection, _, rest = name.partition(".")
        inside = any(_within(rest, one) for one in at)
        require(not inside, f"'{rest}' is in {collection}; a head may have parameters only")
    require_same("the params of init", variables["params"], params)
    fresh = {name: value for name, value in _values(variables["params"]).items() if name in head}
    old = {name: now[name] for name in head}
    # An earlier pair runs with parameters of its own for all that is frozen now.
    earlier = [Pair(*({**copied(old), **values} for values in pair)) for pair in frozen]
    new = _with_values(params, fresh)
    if optimizer is not None:
        paths = [path for path in leaves_of(params) if ".".join(path) in head]
        optimizer, opt_state = migrate(optimizer, opt_state, params, new, paths)
    apply = apply if isinstance(apply, Injected) else Injected(apply)
    return Injection(apply, new, (*earlier, Pair(old, copied(fresh))), optimizer, opt_state)


def _head(values: Values, at: Sequence[str]) -> frozenset[str]:
    """The names of all parameters of the head."""
    for name in at:
        if not any(_within(one, name) for one in values):
            parts = [one.split(".") for one in values]
            choices = {".".join(names[: i + 1]) for names in parts for i in range(len(names))}
            raise unknown("parameters", name, choices)
    require(len(at) > 0, "at is empty; name the parameters of the head")
    return frozenset(one for one in values if any(_within(one, name) for name in at))


def _within(name: str, submodule: str) -> bool:
    return name == submodule or name.startswith(f"{submodule}.")


def _values(params: Any) -> Values:
    return {".".join(path): value for path, value in leaves_of(params).items()}


def _with_values(params: Any, values: Values) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: values.get(".".join(named(path)), leaf), params
    )

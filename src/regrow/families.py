"""Families of parts, found by walking their package, and the grammar that names their members.

A member is the one public class of a file: `double_dqn.py` holds `DoubleDQN` and is called
`double_dqn`; `environments/minatar/breakout.py` holds `Breakout` and is called `minatar/breakout`.
Anywhere a name is accepted, fields may be given as in Python: `fit_noise(redraw=False)`. A class
may stand for many: `Control` is `named_by = "task"`, and `control/walker-walk` is its task of that
name. Settings that a class holds by name come after a colon: `double_dqn:young_tian_2019`.
"""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from regrow.errors import RegrowError, require, unknown

_SPEC = re.compile(r"\s*([A-Za-z_][\w/.-]*)(?::(\w+))?\s*(\(.*\))?\s*", re.DOTALL)


def members(family: str) -> Mapping[str, type]:
    """The classes of a family ("agents", "gradients", "interventions", …), by name."""
    package = importlib.import_module(f"regrow.{family}")
    found: dict[str, type] = {}
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        path = info.name.removeprefix(f"{package.__name__}.").split(".")
        if info.ispkg or path[-1] == "base":
            continue
        module = importlib.import_module(info.name)
        wanted = path[-1].replace("_", "")
        for name, member in inspect.getmembers(module, inspect.isclass):
            if member.__module__ == info.name and name.lower() == wanted:
                found["/".join(path)] = member
    return found


def make(family: str, text: str) -> Any:
    """The member that `text` describes, e.g. `inject(split=0)`.

    Raises `RegrowError` for an unknown name or field, a value of the wrong type, or text that is no
    name with fields.
    """
    kind = family.removesuffix("s")
    match = _SPEC.fullmatch(text)
    if match is None:
        raise RegrowError(f"'{text}' is not a name with fields; write e.g. fit_noise(redraw=False)")
    name, preset = match[1], match[2]
    family_members = members(family)
    fields = _parsed(text, match[3] or "()")
    if name not in family_members:
        name, _, rest = name.partition("/")
        named_by = getattr(family_members.get(name), "named_by", None)
        if named_by is None or not rest:
            raise unknown(kind, match[1], family_members)
        require(
            named_by not in fields,
            f"'{text}': {named_by} is given twice, in the name and in brackets",
        )
        fields[named_by] = rest
    member = family_members[name]
    known = field_types(member)
    if preset is not None:
        ready = presets(member)
        if preset not in ready:
            raise unknown(f"preset of {name}", preset, ready)
        fields = {**ready[preset], **fields}
    for field, value in fields.items():
        if field not in known:
            raise unknown(f"field of {name}", field, known)
        fields[field] = _fitted(value, known[field], f"{name}: {field}")
    return member(**fields)


def make_all(family: str, text: str) -> tuple[Any, ...]:
    """The members that `text` joins by a plus, e.g. `l2_init + weight_clipping(kappa=2)`.

    An empty text names no members. Raises `RegrowError` as `make` does.
    """
    # A plus that a closing bracket follows before any opening one stands within brackets.
    joined = re.split(r"\+(?![^()]*\))", text) if text.strip() else []
    return tuple(make(family, one.strip()) for one in joined)


def _parsed(text: str, arguments: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"f{arguments}", mode="eval").body
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name), "one pair of brackets"
        require(not call.args, f"'{text}': give fields by name, e.g. fit_noise(redraw=False)")
        fields: dict[str, Any] = {}
        for keyword in call.keywords:
            assert keyword.arg is not None, "** is no field"
            require(keyword.arg not in fields, f"'{text}': {keyword.arg} is given twice")
            fields[keyword.arg] = ast.literal_eval(keyword.value)
        return fields
    except (SyntaxError, TypeError, AssertionError) as error:
        raise RegrowError(f"'{text}' cannot be read as a name with fields") from error
    except RegrowError:
        raise
    except ValueError as error:
        raise RegrowError(
            f"'{text}': a field takes a number, a word in quotes, True or False"
        ) from error


def presets(member: type) -> dict[str, dict[str, Any]]:
    """The settings that a member's class holds by name, as `young_tian_2019` of `DoubleDQN`."""
    return {name: held for name, held in vars(member).items() if _is_preset(name, held)}


def _is_preset(name: str, held: Any) -> bool:
    return isinstance(held, dict) and not name.startswith("_")


def field_types(member: type) -> dict[str, Any]:
    """The fields of a member and their types."""
    hints = typing.get_type_hints(member)
    return {field.name: hints[field.name] for field in dataclasses.fields(member)}


def _fitted(value: Any, expected: Any, what: str) -> Any:
    """`value` if it fits the type (2 fits a float, 1e6 an int); `RegrowError` if not."""
    origin, options = typing.get_origin(expected), typing.get_args(expected)
    kinds = options if origin in (typing.Union, types.UnionType) else (expected,)
    words = [w for k in kinds if typing.get_origin(k) is typing.Literal for w in typing.get_args(k)]
    if words:
        words += [None] if type(None) in kinds else []
        choices = ", ".join(str(word) for word in words)
        require(value in words, f"{what} is {value!r}; it must be one of: {choices}")
        return value
    if float in kinds and type(value) in (int, float):
        require(abs(value) < 1e300, f"{what} is {str(value)[:20]}; it must be a finite number")
        return float(value)
    if int in kinds and type(value) is float and value.is_integer():
        value = int(value)
    if int in kinds and type(value) is int:
        require(abs(value) < 2**31, f"{what} is {str(value)[:20]}; it must be below 2^31")
    names = " or ".join(
        "None" if k is type(None) else getattr(k, "__name__", str(k)) for k in kinds
    )
    require(any(type(value) is kind for kind in kinds), f"{what} is {value!r}; it must be: {names}")
    return value


def name_of(member: Any) -> str:
    """The name of a member or of its class: its place in the family's package."""
    cls = member if isinstance(member, type) else type(member)
    return "/".join(cls.__module__.split(".")[2:])


def describe(member: Any) -> str:
    """A member in the grammar that `make` reads, without the fields left at their defaults."""
    named_by = getattr(member, "named_by", None)
    changed = [
        f"{field.name}={getattr(member, field.name)!r}"
        for field in dataclasses.fields(member)
        if getattr(member, field.name) != field.default and field.name != named_by
    ]
    name = name_of(member) + (f"/{getattr(member, named_by)}" if named_by else "")
    return name + (f"({', '.join(changed)})" if changed else "")


def summary(member: type) -> str:
    """The first line of a member's docstring."""
    return (inspect.getdoc(member) or "").split("\n", 1)[0]


def exports(family: str) -> tuple[Callable[[str], type], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for a family's package: its classes, without a list to keep."""

    def lookup(name: str) -> type:
        # Submodules are asked for while the package is walked; those are not classes.
        if not name.startswith("_") and name[:1].isupper():
            for member in members(family).values():
                if member.__name__ == name:
                    return member
        raise AttributeError(f"module 'regrow.{family}' has no attribute '{name}'")

    return lookup, lambda: sorted(member.__name__ for member in members(family).values())

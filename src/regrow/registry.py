"""Families of parts, found by walking their package, and the grammar that names their members.

A member is the one public class of a file: `double_dqn.py` defines `DoubleDQN`, named `double_dqn`;
`environments/minatar/breakout.py` defines `Breakout`, named `minatar/breakout`. Wherever a name is
accepted, fields may be given as in Python: `fit_noise(redraw=False)`. A class may stand for many
members: `Control` has `named_by = "task"`, and `control/walker-walk` is its task of that name.
Presets, which a class defines by name, come after a colon: `double_dqn:young_tian_2019`.

A field whose type is a tuple of a family's members takes them by name:
`double_dqn(gradient=(l2_init, weight_clipping(kappa=2)))`, a single one without brackets, or a text
that joins them by a plus, `'l2_init + weight_clipping(kappa=2)'`. A name that is not a Python name
is quoted there: `gradient=('mine:Pull(rate=2)', l2_init)`.

Your own class is named by its module: `mine:Maze(size=9)` is `Maze` of `mine.py`.

A class may differ in two ways. With `others_in = "kwargs"` it accepts unknown fields and stores
them in that field, as pairs of a name and of the value as Python writes it, sorted. So 1 and True
stay distinct, and all of it can be compared, hashed and printed back. With a method `named(value)`
it finds its members itself, as `jax/module:attribute`, and `text()` returns the name of one.
"""

import ast
import dataclasses
import decimal
import importlib
import inspect
import pkgutil
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from regrow.errors import RegrowError, UntrustedError, in_a_line, require, unknown

_SPEC = re.compile(r"\s*([A-Za-z_][\w/.:-]*)\s*(\(.*\))?\s*", re.DOTALL)


Written = tuple[tuple[str, str], ...]


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


_file: ContextVar[str] = ContextVar("file", default="")


@contextmanager
def names_in(path: Any, *, trust: bool = False) -> Iterator[None]:
    """Within, texts are those of a file, whose modules are not imported unless it is trusted.

    Importing a module runs it. One that was imported before may be named.
    """
    token = _file.set("" if trust else str(path))
    try:
        yield
    finally:
        _file.reset(token)


def named_module(name: str) -> ModuleType:
    """Imports a module that a text names; `UntrustedError` if the text is that of a file."""
    if _file.get() and name not in sys.modules:
        raise UntrustedError(
            f"{_file.get()} names the module '{name}', which is code: reading it runs that code. "
            "If you trust it, add --trust"
        )
    return importlib.import_module(name)


def make(family: str, text: str) -> Any:
    """The member that `text` describes, e.g. `inject(split=0)`.

    Raises `RegrowError` for an unknown name or field, a value of the wrong type, or text that is
    not a name with fields.
    """
    match = _SPEC.fullmatch(text)
    if match is None:
        raise RegrowError(f"'{text}' is not a name with fields; write e.g. fit_noise(redraw=False)")
    call = _parsed(text, match[2] or "()")
    name, member, value, preset = _found(family, match[1])
    fields = _read(call, member, name)
    if hasattr(member, "named"):
        require(not fields, f"'{text}': {name} takes no fields")
        return member.named(value or "")
    if value is not None:
        named_by = member.named_by
        require(
            named_by not in fields,
            f"'{text}': {named_by} is given twice, in the name and in brackets",
        )
        fields[named_by] = value
    if preset is not None:
        ready = presets(member)
        if preset not in ready:
            raise unknown(f"preset of {name}", preset, ready)
        fields = {**ready[preset], **fields}
    return member(**_checked(fields, member, name))


def _read(call: "_Call", member: Any, name: str) -> dict[str, Any]:
    """The values of a call's fields, each read by the type of its field."""
    known = {} if hasattr(member, "named") else field_types(member)
    if not hasattr(member, "others_in") and not hasattr(member, "named"):  # they check it
        for field in call.fields:
            if field not in known:
                raise unknown(f"field of {name}", field, known)
    values = dict[str, Any]()
    for field, node in call.fields.items():
        family = _family_within(known.get(field))
        values[field] = call.literal(node) if family is None else call.members(node, family)
    return values


def _family_within(expected: Any) -> str | None:
    """The family whose members a field of this type is a tuple of; None for other types."""
    for kind in _options(expected):
        match typing.get_args(kind):
            case (type() as base, last) if last is Ellipsis:
                return _family_of(base)
            case _:
                pass
    return None


def _options(expected: Any) -> tuple[Any, ...]:
    """The types in a union; for any other type, that type."""
    is_union = typing.get_origin(expected) in (typing.Union, types.UnionType)
    return typing.get_args(expected) if is_union else (expected,)


def _family_of(cls: type) -> str | None:
    """The family whose contract a class implements; None if there is none."""
    for base in cls.__mro__:
        for family, names in _BASES.items():
            if base.__name__ in names and base.__module__ == f"regrow.{family}.base":
                return family
    return None


def compose(member: Any, field: str, family: str) -> None:
    """Turns a field of a frozen dataclass into a tuple of a family's members.

    The field may be such a tuple, a single member, or a text that `make_all` reads. Raises
    `RegrowError` for anything else.
    """
    given = getattr(member, field)
    several = make_all(family, given) if isinstance(given, str) else given
    several = tuple(several) if isinstance(several, tuple | list) else (several,)
    for one in several:
        require(
            _family_of(type(one)) == family,
            f"{field} has {one!r}; it must be made of {family}, such as {min(members(family))}()",
        )
    object.__setattr__(member, field, several)


def _found(family: str, name: str) -> tuple[str, Any, str | None, str | None]:
    """(name, class, value of `named_by`, preset) of a member; the last two None if not given."""
    family_members = members(family)
    first, _, preset = name.partition(":")
    if first in family_members:
        return first, family_members[first], None, preset or None
    if preset and "/" not in first:
        return name, _imported(family, first, preset), None, None
    first, _, value = name.partition("/")
    if not value or not hasattr(family_members.get(first), "named_by"):
        raise unknown(family.removesuffix("s"), name.partition(":")[0], family_members)
    return first, family_members[first], value, None


def _checked(fields: dict[str, Any], member: Any, name: str) -> dict[str, Any]:
    """Fields checked against their types; unknown ones go into `others_in`, if the class has it."""
    known, others_in = field_types(member), getattr(member, "others_in", None)
    fitted, others = dict[str, Any](), dict[str, Any]()
    for field, value in fields.items():
        if field in known and _family_within(known[field]):
            fitted[field] = value  # the class turns it into members
        elif field in known and field != others_in:
            fitted[field] = _fitted(value, known[field], f"{name}: {field}")
        elif others_in is None:
            raise unknown(f"field of {name}", field, known)
        else:
            others[field] = value
    return {**fitted, others_in: others} if others_in and others else fitted


def written(values: Mapping[str, Any] | Sequence[tuple[str, str]], what: str) -> Written:
    """Names with values as Python writes them, sorted by name; such pairs are accepted, too.

    Raises `RegrowError` for a value that could not be read back.
    """
    if not isinstance(values, Mapping):
        return tuple(sorted((str(name), str(text)) for name, text in values))
    for name, value in values.items():
        try:
            ast.literal_eval(repr(value))
        except (ValueError, SyntaxError) as error:
            raise RegrowError(
                f"{what}: {name} is {' '.join(repr(value).split())[:80]}; it must be made of "
                "finite numbers, words, True, False, None, lists, tuples and dicts, so that it can "
                "be written down"
            ) from error
    return tuple(sorted((str(name), repr(value)) for name, value in values.items()))


def read_back(pairs: Written) -> dict[str, Any]:
    """The values that `written` wrote."""
    return {name: ast.literal_eval(text) for name, text in pairs}


def _imported(family: str, module: str, name: str) -> type:
    """The class of that name in a user's module."""
    kind = family.removesuffix("s")
    try:
        found = getattr(named_module(module), name, None)
    except ImportError as error:
        raise RegrowError(
            f"no {kind} '{module}:{name}': {error}; a module of your own must be on PYTHONPATH"
        ) from error
    except UntrustedError:
        raise
    except (Exception, SystemExit) as error:  # what a module runs may raise anything
        raise RegrowError(
            f"no {kind} '{module}:{name}': {module} cannot be imported ({in_a_line(error)})"
        ) from error
    base = inspect.getmembers(importlib.import_module(f"regrow.{family}.base"), inspect.isclass)
    kinds = tuple(cls for _, cls in base if cls.__name__ in _BASES[family])
    if not (isinstance(found, type) and issubclass(found, kinds) and _is_member(found)):
        wanted = " or ".join(_BASES[family])
        raise RegrowError(
            f"{module}:{name} is no {kind}; it must be a dataclass, a kind of {wanted}"
        )
    return found


_BASES = {
    "environments": ("DeviceEnvironment", "HostEnvironment"),
    "agents": ("Agent",),
    "interventions": ("Intervention",),
    "gradients": ("GradientTerm",),
    "probes": ("Probe",),
    "studies": ("Study",),
}


def _is_member(found: type) -> bool:
    return dataclasses.is_dataclass(found) and not inspect.isabstract(found)


def make_all(family: str, text: str) -> tuple[Any, ...]:
    """The members that `text` joins by a plus, e.g. `l2_init + weight_clipping(kappa=2)`.

    An empty text names no members. Raises `RegrowError` as `make` does.
    """
    # A plus is within brackets if a closing bracket follows before any opening one.
    joined = re.split(r"\+(?![^()]*\))", text) if text.strip() else []
    return tuple(make(family, one.strip()) for one in joined)


class _Call(typing.NamedTuple):
    """The arguments in the brackets after a name, by field."""

    text: str
    source: str
    fields: dict[str, ast.expr]

    def literal(self, node: ast.expr) -> Any:
        """A number, a string, True, False, None, or a list, tuple or dict of them."""
        try:
            value = ast.literal_eval(node)
            repr(value)  # fails for a whole number of thousands of digits
            return value
        except ValueError as error:
            raise RegrowError(
                f"'{self.text}': a field takes a number, a word in quotes, True or False"
            ) from error
        except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
            raise RegrowError(f"'{self.text}' cannot be read as a name with fields") from error

    def members(self, node: ast.expr, family: str) -> tuple[Any, ...]:
        """The members of a family that a field names: one, several, or a text with a plus."""
        if isinstance(node, ast.Tuple | ast.List):
            return tuple(one for each in node.elts for one in self.members(each, family))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return make_all(family, node.value)
        return make_all(family, ast.get_source_segment(self.source, node) or "")


def _parsed(text: str, arguments: str) -> _Call:
    source = f"f{arguments}"
    try:
        call = ast.parse(source, mode="eval").body
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name), "one pair of brackets"
        require(not call.args, f"'{text}': give fields by name, e.g. fit_noise(redraw=False)")
        fields: dict[str, ast.expr] = {}
        for keyword in call.keywords:
            assert keyword.arg is not None, "** is no field"
            require(keyword.arg not in fields, f"'{text}': {keyword.arg} is given twice")
            fields[keyword.arg] = keyword.value
        return _Call(text, source, fields)
    except (SyntaxError, AssertionError, RecursionError, MemoryError) as error:
        # The last two are of Python's parser, which gives up on thousands of brackets or signs.
        raise RegrowError(f"'{text}' cannot be read as a name with fields") from error


def presets(member: type) -> dict[str, dict[str, Any]]:
    """The presets that a member's class defines, such as `young_tian_2019` of `DoubleDQN`."""
    return {name: held for name, held in vars(member).items() if _is_preset(name, held)}


def _is_preset(name: str, held: Any) -> bool:
    return isinstance(held, dict) and not name.startswith("_")


def field_types(member: type) -> dict[str, Any]:
    """The fields of a member and their types."""
    hints = typing.get_type_hints(member)
    return {field.name: hints[field.name] for field in dataclasses.fields(member)}


def _fitted(value: Any, expected: Any, what: str) -> Any:
    """`value` if it fits the type (2 fits a float, 1e6 an int); `RegrowError` if not."""
    kinds = _options(expected)
    words = [w for k in kinds if typing.get_origin(k) is typing.Literal for w in typing.get_args(k)]
    if words:
        words += [None] if type(None) in kinds else []
        choices = ", ".join(str(word) for word in words)
        require(value in words, f"{what} is {value!r}; it must be one of: {choices}")
        return value
    if float in kinds and type(value) in (int, float):
        require(abs(value) < 1e300, f"{what} is {str(value)[:20]}; it must be a finite number")
        return float(value)
    if int in kinds and (type(value) is int or (type(value) is float and value.is_integer())):
        require(abs(value) < 2**31, f"{what} is {str(value)[:20]}; it must be below 2^31")
        value = int(value)
    names = " or ".join(
        "None" if k is type(None) else getattr(k, "__name__", str(k)) for k in kinds
    )
    require(any(type(value) is kind for kind in kinds), f"{what} is {value!r}; it must be: {names}")
    return value


def name_of(member: Any) -> str:
    """The name of a member or of its class: its place in the family's package.

    For a user's own class it is `module:Class`.
    """
    cls = member if isinstance(member, type) else type(member)
    if not cls.__module__.startswith("regrow."):
        return f"{cls.__module__}:{cls.__qualname__}"
    return "/".join(cls.__module__.split(".")[2:])


def describe(member: Any) -> str:
    """A member in the grammar that `make` reads, without fields at their defaults."""
    own = member.text() if hasattr(member, "text") else None
    if own is not None or not dataclasses.is_dataclass(member):
        return own or type(member).__name__  # a user's own, which no text can make
    named_by, others_in = getattr(member, "named_by", None), getattr(member, "others_in", None)
    changed = [
        f"{field.name}={_printed(getattr(member, field.name))}"
        for field in dataclasses.fields(member)
        if getattr(member, field.name) != field.default and field.name not in (named_by, others_in)
    ]
    changed += [
        f"{name}={text}" for name, text in (getattr(member, others_in) if others_in else ())
    ]
    name = name_of(member) + (f"/{getattr(member, named_by)}" if named_by else "")
    return name + (f"({', '.join(changed)})" if changed else "")


def _printed(value: Any) -> str:
    """A field's value: members by name, anything else as Python writes it."""
    if not (isinstance(value, tuple) and value and all(_family_of(type(one)) for one in value)):
        return repr(value)
    texts = [describe(one) for one in value]
    # Text that is not a call in Python, such as `mine:Pull(rate=2)`, is quoted.
    texts = [text if re.match(r"\w+(\(|$)", text) else repr(text) for text in texts]
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"


def place_of(thing: Any) -> str | None:
    """`module:attribute` of a module-level object, by identity; None if no module has it.

    The module that was imported first is taken; the main program comes last.
    """
    modules = list(sys.modules.items())
    modules.sort(key=lambda each: each[0] in ("__main__", "__mp_main__"))
    for name, module in modules:
        held = getattr(module, "__dict__", None) or {}
        for attribute, value in list(held.items()):
            if value is thing and not attribute.startswith("_"):
                return f"{name.replace('__mp_main__', '__main__')}:{attribute}"
    return None


def summary(member: type) -> str:
    """The first line of a member's docstring."""
    return (inspect.getdoc(member) or "").split("\n", 1)[0]


# Whole numbers as people write them: 1000000, 1_000_000, 1e6, 1M.

MOST = 2**31
"""Counters are int32."""

PATTERN = r"[\d_.]+(?:[eE]\+?\d+)?[kKM]?"
"""What may be such a number."""

_NUMBER = re.compile(r"\s*([+-]?[\d_.]+(?:[eE][+-]?\d+)?)([kKM]?)\s*")
_TIMES = {"": 0, "k": 3, "K": 3, "M": 6}


def whole(text: str) -> int:
    """The integer that a text writes; `RegrowError` unless it is whole and fits a counter."""
    match = _NUMBER.fullmatch(text)
    try:
        number = decimal.Decimal(match[1]).scaleb(_TIMES[match[2]]) if match else None
    except ArithmeticError:  # two decimal points, or a huge exponent
        number = None
    if number is not None and not 0 <= number < MOST:
        raise RegrowError(f"{text} is out of range; it must be from 0 to 2^31 − 1")
    if number is None or number != int(number):
        raise RegrowError(f"'{text}' is not a whole number; write 1000000, 1_000_000, 1e6 or 1M")
    return int(number)

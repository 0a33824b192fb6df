"""The probes by name, with their options and what they need, and how a text names one."""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from regrow.errors import RegrowError, require, unknown
from regrow.torch import formulas
from regrow.torch.view import View


@dataclass(frozen=True)
class Field:
    """An option of a probe: its default, and which values it may have."""

    default: float | int
    holds: Callable[[Any], bool]
    must: str


@dataclass(frozen=True)
class Probe:
    """A probe by its function, its options, and what it needs: names of `NEEDS`."""

    measure: Callable[..., formulas.Number]
    fields: dict[str, Field] = field(default_factory=dict)
    parts: bool = True
    costly: bool = False
    needs: tuple[str, ...] = ()


_TAU = Field(0.025, lambda x: x >= 0, "must be 0 or more")
_DELTA = Field(0.01, lambda x: 0 < x < 1, "must be between 0 and 1")


def _count(default: int, least: int) -> Field:
    return Field(default, lambda x: isinstance(x, int) and x >= least, f"must be at least {least}")


def _of_all(measure: Callable[..., formulas.Number], *needs: str, **fields: Field) -> Probe:
    return Probe(measure, fields, parts=False, costly=True, needs=needs)


PROBES = {
    "approximate_rank": Probe(formulas.approximate_rank, {"delta": _DELTA}),
    "curvature": _of_all(formulas.curvature, "loss", iterations=_count(30, 1)),
    "dead_by_firing": Probe(
        formulas.dead_by_firing,
        {"tau": Field(0.01, lambda x: 0 < x <= 1, "must be above 0 and at most 1")},
    ),
    "dead_overlap": Probe(formulas.dead_overlap, {"tau": _TAU}, needs=("previous",)),
    "dead_units": Probe(
        formulas.dead_units,
        {"threshold": Field(0.0, lambda x: 0 <= x <= 1, "must be between 0 and 1")},
    ),
    "distance_from_init": Probe(formulas.distance_from_init, needs=("initial",)),
    "dormant_units": Probe(formulas.dormant_units, {"tau": _TAU}),
    "effective_rank": Probe(formulas.effective_rank),
    "feature_norm": Probe(formulas.feature_norm),
    "feature_rank": Probe(
        formulas.feature_rank, {"epsilon": Field(0.01, lambda x: x > 0, "must be > 0")}
    ),
    "gradient_cosine": _of_all(formulas.gradient_cosine, "losses", samples=_count(64, 2)),
    "gradient_dormancy": Probe(
        formulas.gradient_dormancy,
        {"tau": Field(0.01, _TAU.holds, _TAU.must)},
        costly=True,
        needs=("losses",),
    ),
    "gradient_norm": Probe(formulas.gradient_norm, needs=("loss",)),
    "ntk_rank": _of_all(
        formulas.ntk_rank,
        "outputs",
        samples=_count(64, 1),
        threshold=Field(0.001, _DELTA.holds, _DELTA.must),
    ),
    "policy_churn": _of_all(formulas.policy_churn, "outputs", "update"),
    "srank": Probe(formulas.srank, {"delta": _DELTA}),
    "stable_rank": Probe(formulas.stable_rank),
    "trainability": _of_all(formulas.trainability, "outputs", "optimizer", updates=_count(200, 1)),
    "value_churn": _of_all(formulas.value_churn, "outputs", "update"),
    "weight_change": Probe(formulas.weight_change, needs=("previous",)),
    "weight_magnitude": Probe(formulas.weight_magnitude),
    "weight_norm": Probe(formulas.weight_norm),
}

NEEDS: dict[str, tuple[Callable[[View], bool], str]] = {
    "loss": (lambda view: view.loss is not None, "loss=, a function of the module"),
    "losses": (
        lambda view: view.has_losses,
        "loss=, a function of the module that returns a loss for every sample",
    ),
    "outputs": (
        lambda view: view.has_outputs,
        "forward=, a function of module and inputs that returns a tensor with a row per sample",
    ),
    "update": (
        lambda view: view.update is not None or (bool(view.optimizers) and view.has_losses),
        "update=, a function that makes one update of a module in place; or optimizer=, and a loss "
        "for every sample",
    ),
    "optimizer": (lambda view: bool(view.optimizers), "optimizer=, the one that trains the module"),
    "initial": (lambda view: view.initial is not None, "initial=, a copy of the module at first"),
    "previous": (
        lambda view: view.previous is not None,
        "previous=, an earlier copy of the module",
    ),
}
"""What a probe may need: whether it is there, and what to give otherwise."""


# Names.

Asked = tuple[str, Probe, dict[str, Any]]
"""A part, a probe, and values of its fields."""


def default(probe: Probe) -> dict[str, Any]:
    """The default of every field."""
    return {name: one.default for name, one in probe.fields.items()}


_SPEC = re.compile(r"\s*(\w+)(?:\.(\w+))?\s*(\(.*\))?\s*", re.DOTALL)


def read(text: str) -> Asked:
    """The probe that a text names, `dormant_units.head(tau=0.1)`; `part` may be a field, too."""
    match = _SPEC.fullmatch(text)
    if match is None:
        raise RegrowError(f"'{text}' is not a name; write e.g. dormant_units.head(tau=0.1)")
    name, part, call = match.groups()
    if name not in PROBES:
        raise unknown("probe", name, PROBES)
    probe = PROBES[name]
    fields = {**default(probe), **_fields(text, name, probe, call or "()")}
    part = fields.pop("part", part) or ("head" if probe.parts else "network")
    parts = ("encoder", "head") if probe.parts else ("network",)
    require(
        part in parts, f"part is '{part}'; for {name} it must be {' or '.join(map(repr, parts))}"
    )
    for one, option in probe.fields.items():
        value = fields[one]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        require(number and option.holds(value), f"{one} is {value!r}; it {option.must}")
    return part, probe, fields


def _fields(text: str, name: str, probe: Probe, call: str) -> dict[str, Any]:
    try:
        node = ast.parse(f"f{call}", mode="eval").body
        assert isinstance(node, ast.Call), "so it is, by the brackets"
        values = {one.arg or "**": ast.literal_eval(one.value) for one in node.keywords}
    except (SyntaxError, ValueError, AssertionError) as error:
        raise RegrowError(f"'{text}': fields are written as in Python, {name}(tau=0.1)") from error
    require(not node.args, f"'{text}': fields are written with their names, {name}(tau=0.1)")
    for one in values:
        if one not in (known := [*probe.fields, *(["part"] if probe.parts else [])]):
            raise unknown(f"field of {name}", one, known)
    return values

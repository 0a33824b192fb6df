"""A module imports lower floors only; members of a family never import each other."""

import ast
from pathlib import Path

import pytest

import regrow
from regrow.families import members

ROOT = Path(regrow.__file__).parent
FLOORS = [
    {
        *("errors", "types", "families", "streams", "statistics", "aggregates", "claims"),
        *("interrupts", "locks", "counts", "guard", "numerics", "earlier"),
    },
    {
        *("adam", "rmsprop", "product", "initialisers", "activations", "layers", "blocks"),
        *("style", "network"),
    },
    {"optimizer", "learner", "units", "widen", "churn"},
    {
        "replay",
        "frames",
        "normalizing",
        "environments",
        "agents",
        "gradients",
        "interventions",
        "probes",
        "triggers",
    },
    {
        *("loop", "session", "hosted", "run", "checkpoint", "evaluate", "pieces"),
        "environment_checks",
    },
    {
        *("subject", "outcomes", "findings", "verdict", "rules", "plan", "cells", "diagnose"),
        *("compute", "defaults", "sinks", "live"),
    },
    {
        *("study_plan", "rows", "results", "train", "studies", "shared", "study", "watch"),
        *("cases", "across", "decisions", "summary", "published"),
    },
    {"report"},
    {"execution", "adapters", "export"},
    {"cli_studies", "cli", "__main__"},
]
FAMILIES = {"environments", "agents", "gradients", "interventions", "probes", "studies"}
# Within a floor, files that are one chapter each may build on the one before.
SEQUENCES = [
    ("errors", "types", "streams"),
    ("errors", "types", "interrupts"),
    ("errors", "families"),
    ("errors", "earlier"),
    ("errors", "locks"),
    ("errors", "numerics"),
    ("errors", "counts"),
    ("errors", "statistics", "aggregates"),
    ("product", "initialisers", "activations", "layers", "blocks", "style", "network"),
    ("optimizer", "learner", "units", "widen"),
    ("replay", "frames"),
    ("session", "hosted"),
    ("loop", "hosted", "run", "checkpoint"),
    ("session", "evaluate"),
    ("loop", "environment_checks"),
    ("session", "environment_checks"),
    ("loop", "run", "evaluate"),
    ("loop", "pieces"),
    ("subject", "outcomes", "findings", "verdict", "rules", "plan", "cells", "diagnose"),
    ("sinks", "live", "cells", "diagnose"),
    ("study_plan", "rows", "results", "train"),
    ("study_plan", "rows", "results", "studies", "shared", "study", "watch"),
    ("study_plan", "rows", "cases", "across", "decisions", "summary"),
    ("cli_studies", "cli", "__main__"),
]


def floor_of(name: str) -> int:
    return next(i for i, floor in enumerate(FLOORS) if name in floor)


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, dotted module of this package) for every import in a file, those in functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("regrow"):
            if node.module == "regrow":
                found += [(node.lineno, f"regrow.{alias.name}") for alias in node.names]
            else:
                found.append((node.lineno, node.module))
        elif isinstance(node, ast.Import):
            found += [(node.lineno, a.name) for a in node.names if a.name.split(".")[0] == "regrow"]
    return found


def complaint(path: Path, line: int, module: str) -> str | None:
    here = path.relative_to(ROOT).with_suffix("").parts
    there = module.split(".")[1:]
    mine, other = here[0], there[0]
    where = f"{path.relative_to(ROOT.parent)}:{line} imports {module}"
    if mine == other:
        if mine not in FAMILIES or there[-1] in ("base", mine):
            return None
        return f"{where}: members of a family never import each other; move the line"
    if floor_of(other) < floor_of(mine):
        return None
    for sequence in SEQUENCES:
        earlier = sequence[: sequence.index(mine)] if mine in sequence else ()
        if other in earlier:
            return None
    return f"{where}: that is not a lower floor; move the line"


SOURCES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_lower_floors_only(path):
    complaints = [c for line, module in imports(path) if (c := complaint(path, line, module))]
    assert not complaints, "\n".join(complaints)


def test_the_check_sees_what_it_should():
    network, inject = ROOT / "network.py", ROOT / "interventions/inject.py"
    assert complaint(network, 1, "regrow.learner") is not None
    assert complaint(inject, 1, "regrow.interventions.reset") is not None
    assert complaint(inject, 1, "regrow.agents.double_dqn") is not None
    assert complaint(inject, 1, "regrow.learner") is None


def test_no_drawers_for_odds_and_ends():
    names = {part for path in SOURCES for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not names & {"utils", "common", "core", "helpers", "misc"}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_file_of_a_family_holds_one_member_named_as_the_file(family):
    found = set(members(family))
    files = {
        "/".join(path.relative_to(ROOT / family).with_suffix("").parts)
        for path in (ROOT / family).rglob("*.py")
        if path.stem not in ("__init__", "base")
    }
    assert found == files

"""A folder is a floor: what is in it imports lower floors only, and there are no cycles."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import regrow
from regrow.registry import members

ROOT = Path(regrow.__file__).parent
FLOORS = (
    ("errors", "types"),
    ("registry", "prng", "moved", "files", "stats", "networks", "nnx", "experience"),
    ("learners", "records", "environments", "execution"),
    ("gradients",),
    ("agents", "interventions", "probes"),
    ("training", "torch"),
    ("diagnosis",),
    ("sources",),
    ("analysis", "studies", "sb3"),
    ("experiments",),
    ("report",),
    ("cli", "__main__"),
)
FAMILIES = {"sources", "environments", "agents", "gradients", "interventions", "probes", "studies"}
SOURCES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, module within regrow) for every import in a file, those in functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "regrow":
            own = node.module.partition(".")[2]
            for alias in node.names:
                inner = f"{own}.{alias.name}".lstrip(".")
                there = ROOT / inner.replace(".", "/")
                is_module = there.with_suffix(".py").is_file() or there.is_dir()
                found.append((node.lineno, inner if is_module else own))
        elif isinstance(node, ast.Import):
            found += [
                (node.lineno, alias.name.removeprefix("regrow."))
                for alias in node.names
                if alias.name.startswith("regrow.")
            ]
    return found


def floor_of(module: str) -> int:
    return next(i for i, floor in enumerate(FLOORS) if module.split(".")[0] in floor)


def complaint(here: str, line: int, there: str) -> str | None:
    where = f"{here}, line {line} imports {there}"
    folder, other = here.split(".")[0], there.split(".")[0]
    if folder != other:
        lower = floor_of(there) < floor_of(here) or folder == "__main__"
        return None if lower else f"{where}: that is not a lower floor; move the line"
    if here == folder:
        return None  # a package names its members
    if folder not in FAMILIES or there.split(".")[-1] in ("base", folder):
        return None
    return f"{where}: members of a family never import each other; move the line"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_lower_floors_only(path):
    here = module_of(path)
    complaints = [c for line, module in imports(path) if (c := complaint(here, line, module))]
    assert not complaints, "\n".join(complaints)


def test_the_check_sees_what_it_should():
    assert complaint("networks.network", 1, "learners.learner") is not None
    assert complaint("experience.replay", 1, "networks.layers") is not None
    assert complaint("interventions.inject", 1, "interventions.reset") is not None
    assert complaint("interventions.inject", 1, "agents.double_dqn") is not None
    assert complaint("interventions.inject", 1, "learners.learner") is None


def test_no_file_imports_itself_by_way_of_others():
    below = {module_of(path): {there for _, there in imports(path)} for path in SOURCES}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " → ".join((*above[above.index(module) :], module))
        if module not in done:
            for other in below.get(module, ()):
                if other != module:
                    visit(other, (*above, module))
            done.add(module)

    for module in below:
        visit(module, ())


def test_a_newcomer_finds_a_dozen_floors_and_few_files_beside_the_folders():
    assert len(FLOORS) <= 12
    files = {path.stem for path in ROOT.glob("*.py")} - {"__init__", "__main__"}
    assert len(files) <= 5


def test_a_function_fits_on_a_screen():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                assert lines <= 60, f"{path.name}: {node.name} has {lines} lines"


def test_every_folder_says_its_contract():
    for folder in {path.parent for path in SOURCES} - {ROOT}:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), folder


def test_no_module_is_hidden_by_a_function_of_its_name():
    for info in pkgutil.walk_packages([str(ROOT)], "regrow."):
        if info.name != "regrow.__main__":
            package, _, name = info.name.rpartition(".")
            module = importlib.import_module(info.name)
            assert getattr(importlib.import_module(package), name) is module, info.name


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

"""Functions of files and modules, named as `my_file.py:function` or `my_module:function`."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regrow.errors import RegrowError, in_a_line, require, unknown


def named_function(text: str) -> Callable[..., Any]:
    """The function that a text names; `RegrowError` where there is none."""
    place, _, name = text.rpartition(":")
    require(bool(place) and name.isidentifier(), f"'{text}' names no function; write file.py:name")
    module = imported(Path(place)) if place.endswith(".py") else _module(place)
    found = getattr(module, name, None)
    if not callable(found):
        there = [n for n, held in vars(module).items() if callable(held) and n[0] != "_"]
        raise unknown(f"function in {place}", name, there)
    return found


def imported(path: Path) -> Any:
    """The module of a file; `RegrowError` where there is none, or it cannot be imported."""
    require(path.is_file(), f"there is no file {path}")
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.append(folder)  # what the file itself imports
    known = sys.modules.get(path.stem)
    if known is not None and str(getattr(known, "__file__", "")) == str(path.resolve()):
        return known
    # Under its own name where that is free: what is copied names the module of its class.
    name = path.stem if known is None and _is_free(path) else f"_regrow_{path.stem}"
    if name in sys.modules and name != path.stem:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None, "a file of Python has one"
    assert spec.loader is not None, "and a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise RegrowError(f"{path} cannot be imported: {in_a_line(error)}") from error
    return module


def _is_free(path: Path) -> bool:
    """Whether nothing else is imported under the name of a file."""
    try:
        found = importlib.util.find_spec(path.stem)
    except (ImportError, ValueError):
        return True
    return found is None or found.origin == str(path.resolve())


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # what a module runs may raise anything
        raise RegrowError(f"the module {name!r} cannot be imported: {in_a_line(error)}") from error

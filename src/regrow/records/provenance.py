"""Provenance of a result: package versions and the source commit."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that affect results."""
    packages = ("regrow", "jax", "jaxlib", "equinox", "optax", "numpy", "scipy")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found}


def source_commit() -> str:
    """The source commit, with a + if files changed since; "" if the source is no git checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        commit, changes = (_git(root, *words) for words in (("rev-parse", "HEAD"), _CHANGES))
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit}+" if changes else commit


_CHANGES = ("status", "--porcelain", "--untracked-files=no", "--", "src")


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    done = subprocess.run(command, capture_output=True, check=True, timeout=10)
    return done.stdout.decode(errors="replace").strip()

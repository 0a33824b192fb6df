"""What every benchmark is measured in: one core and one thread, of which machine, with what."""

import os
import platform
from types import ModuleType

from regrow.execution.processes import one_core

MACHINE = f"{platform.machine()}, one core of {os.cpu_count()}"


def on_one_core() -> None:
    """Keeps this process, and what it imports from here on, to one core and one thread."""
    one_core()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})


def versions(*packages: ModuleType) -> dict[str, str]:
    """The version of each package, by its name."""
    return {package.__name__: package.__version__ for package in packages}

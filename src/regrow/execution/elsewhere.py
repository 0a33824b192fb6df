"""What a task takes with it to another machine, and how it begins there."""

import os
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

from regrow.errors import require_package
from regrow.execution.processes import keep_compiled_programs, one_core
from regrow.execution.tasks import Task
from regrow.files.signatures import KEY, key
from regrow.types import Report


class Parcel(NamedTuple):
    """A task to be sent: its work as bytes, settings, and the folder that it is run from.

    `settings`: environment variables, those of regrow, with the key of signed files.
    """

    name: str
    work: bytes
    settings: Mapping[str, str]
    folder: str

    @staticmethod
    def of(task: Task) -> "Parcel":
        """A task; what is defined in a script or notebook travels with it."""
        require_package("cloudpickle", "a cluster", "ray")
        import cloudpickle

        own = {name: value for name, value in os.environ.items() if name.startswith("REGROW_")}
        return Parcel(task.name, cloudpickle.dumps(task.work), {**own, KEY: key()}, os.getcwd())

    def run(self, report: Report) -> None:
        """Does the work, in the process that it was sent to."""
        import pickle

        os.environ.update(self.settings)
        if os.path.isdir(self.folder):  # names of scripts are relative to it
            os.chdir(self.folder)
        if self.folder not in sys.path:
            sys.path.append(self.folder)
        one_core()
        keep_compiled_programs()
        work: Callable[[Report], None] = pickle.loads(self.work)
        work(report)

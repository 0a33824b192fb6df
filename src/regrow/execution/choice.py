"""Where tasks run: `--on local`, `ray`, `ray://HOST:PORT` or `slurm`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regrow.errors import RegrowError, require, unknown
from regrow.execution.processes import Processes, cores
from regrow.execution.tasks import Execute
from regrow.files.places import Place

PLACES = ("local", "ray", "ray://HOST:PORT", "slurm")


def executor(
    on: str,
    folder: Place,
    *,
    processes: int | None = None,
    options: Sequence[str] = (),
    gpus: float = 0.0,
) -> Execute:
    """What carries tasks out. `folder`: of the results. `options`: of SLURM, KEY=VALUE each.

    `gpus`: of each job; of a GPU that Ray shares between jobs also a part.

    Raises `RegrowError` if there is no such place, or its package is missing.
    """
    require(0 <= gpus <= 1_000, f"--gpus is {gpus:g}; it must be from 0 to 1000")
    require(not gpus or on != "local", "--gpus goes with --on ray and --on slurm")
    require(not options or on == "slurm", f"--slurm goes with --on slurm, not with --on {on}")
    if on == "local":
        return Processes(cores() if processes is None else processes)
    if on == "slurm":
        require(processes is None, "--processes goes with --on local; SLURM chooses how many run")
        from regrow.execution.on_slurm import Slurm

        # Its files are for the nodes, which share a file system; not for an object store.
        own = folder / "slurm" if isinstance(folder, Path) else Path("runs") / "slurm"
        require(gpus == int(gpus), f"--gpus is {gpus:g}; SLURM gives whole GPUs")
        return Slurm(own, dict(map(_option, options)), gpus=int(gpus))
    if on == "ray" or on.startswith("ray://"):
        from regrow.execution.on_ray import Ray

        return Ray(None if on == "ray" else on, count=processes, gpus=gpus)
    raise unknown("place to run on", on, PLACES)


def _option(text: str) -> tuple[str, Any]:
    name, mark, value = text.partition("=")
    require(bool(name and mark), f"--slurm takes KEY=VALUE, as in partition=gpu, not '{text}'")
    try:
        return name, int(value) if value.isdecimal() else value
    except ValueError as error:  # of thousands of digits
        raise RegrowError(
            f"--slurm {name} has {len(value)} digits; it must be a number below 10^4300"
        ) from error

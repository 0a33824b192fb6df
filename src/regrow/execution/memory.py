"""Memory: what there is, and how many tasks fit into it at once."""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from regrow.errors import RegrowError, in_a_line, require, warn_once
from regrow.execution.tasks import Task

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def total_memory() -> int:
    """Bytes of memory that processes here may use: the machine's, or the limit of a container."""
    found = [psutil.virtual_memory().total]
    for path in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # none of that kind, or "max"
            found.append(int(Path(path).read_text("utf-8")))
    return min(found)


def free_memory() -> int:
    """Bytes of it that are free, those that only cache files counted in."""
    return min(psutil.virtual_memory().available, total_memory())


def in_words(count: int | float) -> str:
    """A number of bytes as text: 1.4 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


@contextmanager
def told_if_short(what: str) -> Iterator[None]:
    """Turns what Python, XLA and PyTorch raise for want of memory into a `RegrowError`."""
    try:
        yield
    except Exception as error:
        kind, text = type(error).__name__, str(error)
        if not (kind in ("MemoryError", "OutOfMemoryError") or "RESOURCE_EXHAUSTED" in text):
            raise
        raise RegrowError(
            f"{what} ran out of memory ({in_a_line(error)}); what it saved before is kept: go on "
            "with fewer --processes, or choose a smaller replay"
        ) from error


def fitting(count: int, tasks: Sequence[Task]) -> int:
    """How many of `count` processes fit into the memory; fewer are told in a warning.

    Raises `RegrowError` if not even one does.
    """
    needed = max((task.resources.memory for task in tasks), default=0)
    free, total = free_memory(), total_memory()
    if not needed:
        return count
    require(
        needed <= total,
        f"a job needs about {in_words(needed)} of memory, and this machine has {in_words(total)}; "
        "choose a smaller replay, or a larger machine (--on ray, --on slurm)",
    )
    fits = max(int(free // needed), 1)
    if fits < count:
        warn_once(
            f"{fits} processes in place of {count}: a job needs about {in_words(needed)} of "
            f"memory, and {in_words(free)} are free",
            f"processes {fits} of {count}",
        )
    return min(count, fits)

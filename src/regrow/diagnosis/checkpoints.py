"""The checkpoints of a job that is being done: its Subject, and its log since it began.

    jobs/<name>.part-<number>-<writer>.ckpt    the Subject
    jobs/<name>.part-<number>-<writer>.npz     the log, the checks of rules, the seconds

Each checkpoint has a name of its own, so that a worker that was taken for dead cannot spoil what
its successor writes. The last two are kept: where the newest is damaged, the one before is used.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from regrow.diagnosis.subject import Source, Subject
from regrow.errors import RegrowError, warn_once
from regrow.files.atomic import DamagedError, damaged, delete, write_atomically
from regrow.files.places import Place, listed, local
from regrow.training.saving import kept_transitions
from regrow.training.schedule import Check, recent_return, until_now
from regrow.types import Log

KEPT = 2
_LOG_TYPES = (np.float32, np.bool_, np.bool_, np.float32, np.float32)
_MARK = ".part-"


class Unfinished:
    """What a job has done so far. `label`: what its checkpoints say that they are of.

    `long_end`: whether what comes after the training takes long.
    """

    def __init__(
        self, source: Source, folder: Place, name: str, label: str, *, long_end: bool = False
    ):
        self.source, self.folder, self.name, self.label = source, folder, name, label
        self.long_end, self.most = long_end, kept_transitions()
        self.resumed_with = 0  # transitions, after a stop; 0: all, or never stopped
        self.began, self.earlier = time.perf_counter(), 0.0
        self.log = Log(*(np.zeros(0, dtype) for dtype in _LOG_TYPES))
        self.writer = secrets.token_hex(4)

    def seconds(self) -> float:
        """Time spent on the job, earlier sittings included."""
        return self.earlier + time.perf_counter() - self.began

    def look(self, subject: Subject) -> None:
        """Nothing is due on the way."""

    def next_look(self, now: int, until: int) -> int:
        """As far as it may."""
        del now
        return until

    def add(self, subject: Subject, log: Log) -> None:
        """One chunk more."""
        del subject
        self.log = Log(*(np.concatenate(pair) for pair in zip(self.log, log, strict=True)))

    def recent_return(self) -> float:
        """The mean return of the last episodes."""
        log = self.log
        return recent_return(np.asarray(log.episode_return)[log.terminated | log.truncated])

    def copied(self, subject: Subject, checks: Sequence[Check]) -> Callable[[], None]:
        """A copy of the Subject, its log, and what its rules saw, as a function that writes it."""
        most = self.most
        cut = most is not None and getattr(subject, "replay_size", 0) > most
        about = {
            "label": np.array(self.label),
            "env_steps": subject.env_steps,
            "seconds": self.seconds(),
            "resumed_with": self.resumed_with,
            "transitions": most if cut else 0,
            "checks": np.array(checks, np.float64).reshape(-1, len(Check._fields)),
        }
        log = self.log
        write_subject = self.source.writer(subject, self.label, most)

        def write() -> None:
            before = stems(self.folder, self.name)
            number = 1 + max((_number(stem) for stem in before), default=0)
            stem = f"{self.name}{_MARK}{number:06d}-{self.writer}"
            write_atomically(
                self.folder / f"{stem}.npz", lambda file: np.savez(file, **about, **log._asdict())
            )
            write_atomically(self.folder / f"{stem}.ckpt", write_subject)
            for old in before[: len(before) + 1 - KEPT]:
                self._delete(old)

        return write

    def reached(self, subject: Subject, checks: Sequence[Check]) -> None:
        """Keeps the end, if what comes next takes long; else there is a result in an instant."""
        if self.long_end:
            self.copied(subject, checks)()

    def read(self) -> tuple[Subject, list[Check]] | None:
        """The Subject and checks of the newest checkpoint that is not damaged; None of nothing.

        Warns of each damaged one.
        """
        for stem in reversed(stems(self.folder, self.name)):
            try:
                return self._read(stem)
            except DamagedError as error:
                warn_once(f"{error.brief}; going on from what was kept before it")
        return None

    def _read(self, stem: str) -> tuple[Subject, list[Check]]:
        path = self.folder / f"{stem}.npz"
        subject = self.source.load(self.folder / f"{stem}.ckpt", self.label)
        try:
            with (
                local(path) as place,
                place.open("rb") as file,
                np.load(file, allow_pickle=False) as held,
            ):
                about = str(held["label"]), int(held["env_steps"])
                log = Log(*(held[name] for name in Log._fields))
                earlier = float(held["seconds"])
                resumed_with = int(held["transitions"]) or int(held["resumed_with"])
                checks = [
                    Check(int(at), int(rule), float(value), bool(fired))
                    for at, rule, value, fired in held["checks"]
                ]
        except (RegrowError, PermissionError):
            raise
        except Exception as error:  # a corrupted byte may raise any exception
            raise damaged(path, str(error)) from error
        if about != (self.label, subject.env_steps):
            raise damaged(path, f"it is of {about[0]} at env step {about[1]}")
        self.log, self.earlier, self.resumed_with = log, earlier, resumed_with
        return subject, until_now(checks, subject)

    def forget(self) -> None:
        """Deletes what was kept, once the result is written."""
        for stem in stems(self.folder, self.name, whole=False):
            self._delete(stem)

    def _delete(self, stem: str) -> None:
        for suffix in (".ckpt", ".npz"):  # the first is written last
            delete(self.folder / f"{stem}{suffix}")


def stems(folder: Place, name: str, *, whole: bool = True) -> list[str]:
    """The names of a job's checkpoints without their suffix, the newest last.

    `whole`: only those of which both files are there.
    """
    return stems_in([one.name for one in listed(folder)], name, whole=whole)


def stems_in(files: Iterable[str], name: str, *, whole: bool = True) -> list[str]:
    """The same from the names of the files in the folder."""
    held = [one for one in files if one.startswith(f"{name}{_MARK}")]
    ckpt, npz = ({n.removesuffix(s) for n in held if n.endswith(s)} for s in (".ckpt", ".npz"))
    return sorted(ckpt & npz if whole else ckpt | npz)


def _number(stem: str) -> int:
    number = stem.rpartition(_MARK)[2].partition("-")[0]
    return int(number) if number.isdecimal() else 0

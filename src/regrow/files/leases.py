"""Leases: one worker at a time at a piece of work, on any file system and any object store.

The lease of `x` is the newest of the files x.lease-1, x.lease-2, … Each is created only if there is
none of its name, and then written by its holder alone, every `BEAT` seconds. A worker that wants
the lease creates the next file once

- the holder has released it, or
- the holder was a process of this machine, and has ended, or
- the file has not changed for `EXPIRES` seconds, measured by the clock of the worker that waits.

Times of two machines are never compared, so their clocks may differ by any amount. A holder that
was suspended or cut off finds a newer file when it comes back, and stops (`LostLeaseError`). It
could write in between, so that does not suffice: whatever the holder of a lease writes must be
harmless if another has gone on. Results are created once and are the same whoever computes them;
checkpoints have names of their own.
"""

import contextlib
import json
import os
import platform
import secrets
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from regrow.errors import RegrowError, warn_once
from regrow.files.atomic import as_json, create_atomically, delete, write_atomically
from regrow.files.places import Place, listed

LOCK = ".lock"
"""What the lease of a folder is called."""

BEAT = 15.0  # seconds
EXPIRES = 90.0  # seconds
LOOK_EVERY = 0.2  # seconds; in an object store LOOK_STORE_EVERY
LOOK_STORE_EVERY = 3.0

_MARK = ".lease-"


class LostLeaseError(RegrowError):
    """This worker was suspended or cut off, and another has taken over."""


@dataclass(frozen=True)
class Holder:
    """What a lease's file says: who holds it, and how often it was written."""

    token: str
    machine: str
    host: str
    process: int
    began: float | None  # that process, in a unit of its machine
    beats: int = 0
    released: bool = False

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, a process of this machine."""
        return self.machine == _machine()

    @property
    def has_ended(self) -> bool:
        """Whether it is known that it has ended, which only its own machine can say.

        Within its process, too, when it could not write that it has released the lease.
        """
        if not self.is_here:
            return False
        if self.process == os.getpid() and self.began == _began(self.process):
            return self.token not in _held
        return _began(self.process) != self.began


@cache
def _machine() -> str:
    """This machine since it was started, and the namespace of its process numbers."""
    parts = [platform.node(), str(uuid.getnode())]
    for path in ("/proc/sys/kernel/random/boot_id", "/etc/hostname"):
        with contextlib.suppress(OSError):
            parts.append(Path(path).read_text("utf-8").strip())
    with contextlib.suppress(OSError):
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return uuid.uuid5(uuid.NAMESPACE_OID, "\n".join(parts)).hex


def _began(process: int) -> float | None:
    """When a process of this machine began, by a clock that nobody sets; None if it has ended."""
    if sys.platform == "linux":
        try:
            after_name = Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if after_name[0] == "Z" else float(after_name[19])  # ticks since the start
    try:
        return psutil.Process(process).create_time()
    except psutil.NoSuchProcess:
        return None


def _clock() -> float:
    """Seconds that go on while this machine is suspended, too."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class _Files:
    """The files of one lease."""

    def __init__(self, path: Place):
        self.path = path

    def file(self, number: int) -> Place:
        """The file of one holder."""
        return self.path.with_name(f"{self.path.name}{_MARK}{number}")

    def numbers(self) -> list[int]:
        """Those that there are, the newest last."""
        stem = f"{self.path.name}{_MARK}"
        names = (one.name for one in listed(self.path.parent) if one.name.startswith(stem))
        ends = (name.removeprefix(stem) for name in names)
        return sorted(int(end) for end in ends if end.isdecimal())

    def read(self, number: int) -> Holder | None:
        """What a file says; None if it is gone or cannot be read."""
        try:
            return Holder(**json.loads(self.file(number).read_bytes()))
        except Exception:  # absent, cut short, or out of reach: nothing is known of its holder
            return None


class Lease:
    """The lease of a piece of work, held by this process."""

    def __init__(self, files: _Files, number: int, holder: Holder):
        self._files, self._number, self._holder = files, number, holder
        self._written, self._lost = _clock(), False
        self._lock = threading.Lock()
        _beating.add(self)

    def check(self) -> None:
        """Raises `LostLeaseError` if another worker may have taken over."""
        if _clock() - self._written > EXPIRES / 2:  # suspended, or the place was out of reach
            self.beat()
        if self._lost or _clock() - self._written > EXPIRES:
            raise LostLeaseError(
                f"another worker may have taken over {self._files.path.name}: this one could not "
                f"write to {self._files.path.parent} for {EXPIRES:g} seconds, or was suspended; "
                "what it saved before is kept"
            )

    def beat(self) -> None:
        """Tells others that the holder is alive, unless one of them has taken over."""
        with self._lock, contextlib.suppress(RegrowError):  # out of reach: `check` counts the time
            if self._lost or self._holder.released:
                return
            now = _clock()
            held = self._files.read(self._number)
            newest = max(self._files.numbers(), default=0)
            if newest > self._number or (held is not None and held.token != self._holder.token):
                self._lost = True
                return
            self._holder = replace(self._holder, beats=self._holder.beats + 1)
            _write(self._files.file(self._number), self._holder)
            self._written = now

    def release(self) -> None:
        """Lets another worker have it at once."""
        _beating.remove(self)
        _held.discard(self._holder.token)
        with self._lock:
            if not self._lost and not self._holder.released:
                self._holder = replace(self._holder, released=True)
                with contextlib.suppress(RegrowError):  # out of reach: it expires
                    _write(self._files.file(self._number), self._holder)


_held = set[str]()
"""The tokens of the leases that this process holds."""


def _write(path: Place, holder: Holder) -> None:
    content = as_json(asdict(holder))
    write_atomically(path, lambda file: file.write(content))


class _Beating:
    """The thread that writes the leases of this process."""

    def __init__(self) -> None:
        self._held: set[Lease] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, lease: Lease) -> None:
        """Begins to write a lease."""
        with self._lock:
            self._held.add(lease)
            if self._thread is None or not self._thread.is_alive():  # not alive after a fork
                self._thread = threading.Thread(target=self._beat, daemon=True)
                self._thread.start()

    def remove(self, lease: Lease) -> None:
        """No longer writes it."""
        with self._lock:
            self._held.discard(lease)

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            with self._lock:
                held = list(self._held)
                if not held:
                    self._thread = None
                    return
            for lease in held:
                lease.beat()


_beating = _Beating()


class Wanted:
    """The wish for a lease, which has to be looked at until it can be had."""

    def __init__(self, path: Place):
        self._files = _Files(path)
        self._seen: Any = None
        self._since = _clock()

    def take(self) -> Lease | None:
        """The lease; None while another process holds it."""
        numbers = self._files.numbers()
        newest = numbers[-1] if numbers else 0
        if newest and not self._is_free(newest, self._files.read(newest)):
            return None
        token, me = secrets.token_hex(8), os.getpid()
        holder = Holder(token, _machine(), platform.node(), me, _began(me))
        _held.add(token)
        created = False
        try:
            created = create_atomically(self._files.file(newest + 1), as_json(asdict(holder)))
        finally:
            if not created:
                _held.discard(token)
        if not created:
            return None
        for number in numbers:
            delete(self._files.file(number))
        return Lease(self._files, newest + 1, holder)

    def _is_free(self, number: int, holder: Holder | None) -> bool:
        if holder is not None and (holder.released or holder.has_ended):
            return True
        if (number, holder) != self._seen:
            self._seen, self._since = (number, holder), _clock()
        if holder is not None and holder.is_here:
            return False  # it runs, suspended perhaps
        return _clock() - self._since > EXPIRES

    def holder(self) -> Holder | None:
        """Who holds it; None if nobody does, or it cannot be read."""
        numbers = self._files.numbers()
        found = self._files.read(numbers[-1]) if numbers else None
        return None if found is None or found.released or found.has_ended else found


def take(path: Place) -> Lease | None:
    """The lease, if it can be had at once."""
    return Wanted(path).take()


def holder_of(path: Place) -> Holder | None:
    """Who holds a lease; the holder may have died on another machine within `EXPIRES` seconds."""
    return Wanted(path).holder()


@contextmanager
def waited_for(path: Place, waiting: Callable[[], None] = lambda: None) -> Iterator[Lease]:
    """Holds a lease; calls `waiting` repeatedly until it can be had."""
    wanted = Wanted(path)
    while (lease := wanted.take()) is None:
        waiting()
        time.sleep(_pause(path))
    try:
        yield lease
    finally:
        lease.release()


def _pause(path: Place) -> float:
    return LOOK_EVERY if isinstance(path, Path) else LOOK_STORE_EVERY


@contextmanager
def alone(folder: Place) -> Iterator[Lease]:
    """Holds a folder for this process; `RegrowError` if another process is working in it.

    A holder on another machine is watched until it is known whether it is alive.
    """
    wanted, first = Wanted(folder / LOCK), None
    while (lease := wanted.take()) is None:
        held = wanted.holder()
        first = first or held
        if held is not None and (held.is_here or held != first):
            where = "" if held.is_here else f" on {held.host}"
            raise RegrowError(
                f"another process is at work in {folder} (process {held.process}{where}); wait for "
                "it, or choose another --out"
            )
        if held is not None:
            warn_once(
                f"{folder} was last worked in by process {held.process} on {held.host}; looking "
                f"whether it is alive, at most {EXPIRES:g} seconds",
                f"lease {folder}",
            )
        time.sleep(_pause(folder))
    try:
        yield lease
    finally:
        lease.release()

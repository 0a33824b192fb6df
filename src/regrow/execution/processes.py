"""Runs tasks in worker processes: one per core, all stopped by one request.

XLA gains nothing from more threads on networks of this size, so every worker process uses one
thread.
"""

import io
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from types import FunctionType
from typing import Any

from regrow.errors import RegrowError, already_said, require, said, show_warning
from regrow.execution.guard import THREADS, UNGUARDED, leave_if_unguarded, starting_workers
from regrow.execution.interrupts import (
    SIGNALS,
    STOPPED,
    StoppedError,
    answer_signals,
    interruptible,
    stopping,
)
from regrow.execution.memory import fitting
from regrow.execution.queue import Queue
from regrow.execution.tasks import Task
from regrow.types import Report

_LEAKED = "ignore:resource_tracker:UserWarning"
ONE_CORE = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

WORKER_ENDED = (
    "a worker process was ended from outside, perhaps for want of memory; "
    "run the same command again to go on, with fewer --processes"
)
NOT_STARTED = (
    "a worker process could not start, or ended by itself: what it said stands above; run the same "
    "again to go on"
)
NO_GUARD = (
    "worker processes read the script that starts them once more: put what it does under "
    "`if __name__ == '__main__':`, or leave `execute` out and work in this process"
)
NO_FILE = (
    "worker processes read the script that starts them once more, and this one is no file (it came "
    "from standard input, perhaps): save it, with what it does under `if __name__ == '__main__':`, "
    "or leave `execute` out and work in this process"
)


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def one_core() -> None:
    """Makes XLA and LAPACK use one thread; call it before the first computation.

    Else the last bits of sums and decompositions depend on the number of cores, and so do results.
    XLA's flags leave it a pool of threads, which is as large as NPROC says; that may be set.
    """
    for name in THREADS:
        os.environ[name] = os.environ.get("NPROC", "1") if name == "NPROC" else "1"
    flags = os.environ.get("XLA_FLAGS", "")
    if ONE_CORE not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {ONE_CORE}".strip()


def keep_compiled_programs() -> None:
    """Turns on JAX's compilation cache on disk, so that processes share compiled programs."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "regrow" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    # Another process may be writing an entry, or was stopped while writing. JAX then compiles the
    # program again, so no warning is needed.
    warnings.filterwarnings("ignore", message="Error reading persistent compilation cache")


class Processes:
    """Runs tasks in `count` worker processes.

    Raises `StoppedError` after Ctrl-C, once every worker has saved its progress.
    """

    def __init__(self, count: int):
        require(count >= 1, f"processes is {count}; it must be at least 1")
        self.count = count

    def __call__(self, tasks: Sequence[Task], report: Report) -> None:
        """Returns when all tasks are done."""
        leave_if_unguarded()
        _require_portable(tasks)
        count = fitting(self.count, tasks)
        # Python's resource tracker process releases what the processes share. It would report a
        # leak if a second Ctrl-C ended this process.
        if _LEAKED not in sys.warnoptions:
            sys.warnoptions.append(_LEAKED)
        context = multiprocessing.get_context("spawn")
        news, stop = context.Queue(), context.Event()  # from the workers, and to them
        with starting_workers(), interruptible() as asked:
            pool = ProcessPoolExecutor(
                count, context, initializer=_begin, initargs=(news, stop, said())
            )
            try:
                _run_all(pool, count, tasks, news, report, asked, stop)
            except BaseException:
                stop.set()
                _drop(pool)
                raise
            pool.shutdown()


def _run_all(
    pool: ProcessPoolExecutor,
    count: int,
    tasks: Sequence[Task],
    news: Any,
    report: Report,
    asked: Callable[[], bool],
    stop: Event,
) -> None:
    """Submits every task once its dependencies are done; after a failure, waits for running tasks.

    At most `count` tasks are submitted at once. So tasks finish roughly in their order, and early
    results can be inspected early.
    """
    queue, running = Queue(tasks), dict[Future[None], str]()
    failure: BaseException | None = None
    while running or (queue.waiting and failure is None):
        while failure is None and len(running) < count and (task := queue.take()):
            running[_submitted(pool, task)] = task.name
        finished, _ = wait(running, timeout=0.1, return_when=FIRST_COMPLETED)
        if asked():
            stop.set()
        while not news.empty():
            report(*news.get())
        for future in finished:
            name = running.pop(future)
            error = None if future.cancelled() else future.exception()
            if error is None:
                queue.finished(name)
                continue
            # The first failure is raised, unless it was only the request to stop.
            failure = failure if failure and not isinstance(failure, StoppedError) else error
            for other in running:
                other.cancel()
    if isinstance(failure, BrokenProcessPool):
        why = STOPPED if asked() else _why_ended(list((pool._processes or {}).values()))
        raise (StoppedError if asked() else RegrowError)(why) from failure
    if failure is not None:
        raise failure


def _why_ended(workers: Sequence[BaseProcess]) -> str:
    """Why a worker ended; the pool then terminates the others."""
    end = time.monotonic() + 5.0
    while any(worker.exitcode is None for worker in workers) and time.monotonic() < end:
        time.sleep(0.01)  # another thread of the pool may be waiting for it, too
    codes = {worker.exitcode for worker in workers}
    if UNGUARDED in codes:
        return NO_GUARD
    return NOT_STARTED if 1 in codes else WORKER_ENDED  # negative after a signal


def _require_portable(tasks: Sequence[Task]) -> None:
    """Raises `RegrowError` if worker processes could not start, or could not unpickle the tasks."""
    main = sys.modules["__main__"]
    file = None if main.__spec__ else getattr(main, "__file__", None)
    require(file is None or os.path.isfile(file), NO_FILE)
    for task in tasks:
        pickler = _Pickler(io.BytesIO())
        try:
            pickler.dump(task)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise RegrowError(
                f"'{task.name}' cannot be handed to a worker process ({error}); define its parts "
                "in a module, or leave `execute` out and work in this process"
            ) from error
        require(
            main.__spec__ is not None or file is not None or not pickler.of_main,
            f"worker processes cannot find '{pickler.of_main}', which is defined in a notebook or "
            "at a prompt; put it into a module, or leave `execute` out and work in this process",
        )


class _Pickler(pickle.Pickler):
    """Notes a class or function in the pickled object that is defined in `__main__`."""

    of_main = ""

    def persistent_id(self, obj: Any) -> None:
        """Never returns an id: pickle calls this for every object, so it can inspect each."""
        named = isinstance(obj, type | FunctionType)
        if named and obj.__module__ == "__main__":
            self.of_main = obj.__qualname__


def _submitted(pool: ProcessPoolExecutor, task: Task) -> "Future[None]":
    """The task's future. Workers start here, with signals blocked until `_begin` ignores them."""
    try:
        with _signals_blocked():
            return pool.submit(_work, task)
    except (BrokenProcessPool, BrokenPipeError) as error:  # the second: it ended while starting
        broken: Future[None] = Future()
        broken.set_exception(BrokenProcessPool(str(error)))
        return broken


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Processes that are started within inherit blocked signals; on Windows, does nothing."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)


def _drop(pool: ProcessPoolExecutor) -> None:
    """Kills the workers at once; safe, as all of their writes are atomic."""
    workers = list((pool._processes or {}).values())
    for worker in workers:
        worker.kill()
    pool.shutdown(cancel_futures=True)  # it waits for the thread that holds the pool's locks


_worker: dict[str, Any] = {}


def _begin(news: Any, stop: Event, warned_of: frozenset[str]) -> None:
    """Initialises a worker: only the parent handles signals, and no worker outlives it.

    `warned_of`: the warnings that the parent has shown already.
    """
    already_said(warned_of)
    warnings.showwarning = show_warning
    answer_signals(signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    one_core()
    keep_compiled_programs()
    _worker.update(news=news, stop=stop)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker process has a parent"
    parent.join()
    os._exit(1)


def _work(task: Task) -> None:
    news = _worker["news"]
    task.work(stopping(lambda phase, steps: news.put((phase, steps)), _worker["stop"].is_set))

"""No silent broadcasting, one thread, and compiled programs kept between runs.

Most of the time goes into compiling. So programs are compiled as fast as can be, which the slow
tests, that run for long and hold as well for what users run, are not.
"""

import gc
import json
import os
import sys
from collections import Counter
from pathlib import Path

os.environ.setdefault(
    "XLA_FLAGS",
    # Worker processes have this from the one that started them, and so what was asked of it.
    ("" if "--slow" in sys.argv else "--xla_backend_optimization_level=0 ")
    + "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
)
os.environ.setdefault("NPROC", "1")  # the pool of threads that these flags leave
# Processes that tests start have these, too.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
# The small programs, too: every file of tests needs them again, and both workers do.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES", "none")

import jax
import pytest
from hypothesis import HealthCheck, settings

jax.config.update("jax_numpy_rank_promotion", "raise")
# What was traced is much, and stays: to walk it all again and again was a twentieth of the time.
gc.set_threshold(50_000, 20, 50)

settings.register_profile(
    "regrow",
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("regrow")


MOST = 600
_programs = 0  # compiled or loaded since they were last dropped


def _counted(event: str, _: float, **__: object) -> None:
    global _programs
    _programs += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_counted)


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_are_dropped_when_they_are_many():
    """Thousands of them in one process end in an abort within XLA."""
    global _programs
    yield
    if _programs > MOST:
        jax.clear_caches()
        _programs = 0


DURATIONS = Path(__file__).with_name("durations.json")
"""Seconds of every test that took at least one when `make durations` was run."""
QUICK = 2.0
"""Seconds: what took longer runs under `make test` only where it is marked `always`."""
_took = Counter[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")
    parser.addoption(
        "--quick", action="store_true", help=f"leave out what took more than {QUICK} s before"
    )
    parser.addoption(
        "--write-durations", action="store_true", help=f"write {DURATIONS.name} at the end"
    )


def _known() -> dict[str, float]:
    return json.loads(DURATIONS.read_text("utf-8")) if DURATIONS.exists() else {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    known = _known()

    def runs(item: pytest.Item) -> bool:
        if config.getoption("--slow"):
            return True
        long = known.get(item.nodeid, 0.0) > QUICK and "always" not in item.keywords
        return "slow" not in item.keywords and not (config.getoption("--quick") and long)

    config.hook.pytest_deselected(items=[item for item in items if not runs(item)])
    items[:] = filter(runs, items)
    # Files that take long come first: no worker is left with one when the others are done.
    of_file = Counter[Path]()
    for item in items:
        of_file[item.path] += known.get(item.nodeid, 0.1)
    items.sort(key=lambda item: (-of_file[item.path], item.path))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _took[report.nodeid] += report.duration


ALLOWED = (
    "root may read everything",
    "the published learning curves are not at",
    "needs a device that is full",
    "is not installed",
)
"""How the reasons begin, or end, of what may be skipped where all that tests need was installed."""


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if config.getoption("--write-durations") and not hasattr(config, "workerinput"):
        whole = config.args_source is config.ArgsSource.TESTPATHS
        before = {} if whole else {n: s for n, s in _known().items() if n not in _took}
        told = before | {name: round(took, 1) for name, took in _took.items() if took >= 1}
        DURATIONS.write_text(json.dumps(dict(sorted(told.items())), indent=0) + "\n", "utf-8")
    _nothing_else_is_skipped(session)


def _nothing_else_is_skipped(session: pytest.Session) -> None:
    """Where all was installed (REGROW_COMPLETE, of .ci/run)."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("REGROW_COMPLETE"):
        return
    reasons = {str(report.longrepr) for report in reporter.stats.get("skipped", ())}
    odd = [why for why in reasons if not any(known in why for known in ALLOWED)]
    if odd:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"skipped, though all was installed: {'; '.join(sorted(odd))}")


@pytest.fixture(scope="module")
def server():
    """An S3 server on loopback, and the environment that leads to it."""
    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto.server")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="runs")
        yield running
    running.stop()

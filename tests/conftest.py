"""No silent broadcasting, one thread, and compiled programs kept between runs.

Most of the time goes into compiling. So programs are compiled as fast as can be, which the slow
tests, that run for long and hold as well for what users run, are not.
"""

import gc
import os
import sys
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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


ALLOWED = (
    "root may read everything",
    "the published learning curves are not at",
    "needs a device that is full",
    "is not installed",
)
"""How the reasons begin, or end, of what may be skipped where all that tests need was installed."""


LONGEST = (
    *("normalizing", "faults", "interventions", "live", "run", "network", "diagnose", "ppo"),
    *("evaluate", "shifting", "bad_environments", "sac", "jax_environments", "cli", "hosted"),
    *("hooks", "sb3_zips", "probes_gradients", "nnx", "loops", "double_dqn", "drq", "gradients"),
    *("minatar", "probes_units", "probes", "sb3", "decisions", "studies", "torch_docs"),
    *("jax_settings", "guard", "errors_table", "rows_elsewhere", "switched_games", "layers"),
)
"""Files of tests by the time that they take, half a minute and more down to a quarter."""


def _late(item: pytest.Item) -> tuple[int, int]:
    """Where a file comes: those that take long as they are named, then the others by size."""
    name = item.path.stem.removeprefix("test_")
    return LONGEST.index(name) if name in LONGEST else len(LONGEST), -item.path.stat().st_size


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # What takes long first: no worker is left with it when the others are done.
    items.sort(key=_late)
    if config.getoption("--slow"):
        return
    slow = [item for item in items if "slow" in item.keywords]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if "slow" not in item.keywords]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where all was installed (REGROW_COMPLETE, of .ci/run), nothing else may be skipped."""
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

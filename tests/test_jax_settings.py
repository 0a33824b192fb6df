"""Whatever JAX was told before: a Run comes out the same, or a line says why it cannot."""

import contextlib
import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refused_in_a_line
from small import DQN
from test_interventions import AGENTS, EVERY
from trees import bit_equal

from regrow.cli import entry as cli
from regrow.environments import ActionReward, Breakout
from regrow.errors import RegrowError
from regrow.experience.replay import Replay
from regrow.interventions import FitNoise, Inject
from regrow.probes.base import Past
from regrow.registry import describe, make
from regrow.training import numerics
from regrow.training.checkpoint import load, save
from regrow.training.evaluate import evaluate
from regrow.training.flops import flops
from regrow.training.probing import every_probe
from regrow.training.run import Run, random_policy

KEY = jax.random.key(0)

TINY = "double_dqn(hidden=16, learn_start=40, replay_capacity=400)"
SETTINGS = {
    "x64": lambda: jax.enable_x64(True),
    "strict types": lambda: jax.numpy_dtype_promotion("strict"),
    "strict ranks": lambda: jax.numpy_rank_promotion("raise"),
    "NaN": lambda: jax.debug_nans(True),
    "infinities": lambda: jax.debug_infs(True),
}


def grown(agent, environment, path) -> tuple[Run, dict[str, float], list[float]]:
    """(a Run after all that can become of one, its probes, the returns of an evaluation)."""
    run, _ = Run.start(agent, environment, seed=3).advance(80)
    run = run.intervene(Inject()).fork(replicate=1)
    save(run, path)
    run, _ = load(path).advance(80)
    played = evaluate(run, 2) if isinstance(environment, Breakout) else []
    return run, run.measure(), [episode.env_return for episode in played]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What comes out under JAX's defaults, made once for each agent."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = grown(*AGENTS[name], tmp_path_factory.mktemp(name) / "run.ckpt")
        return made[name]

    return of


def _case(agent: str, setting: str):
    quick = (agent, setting) in (("double_dqn", "x64"), ("double_dqn", "NaN"))
    return pytest.param(agent, setting, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(
    ("agent", "setting"), [_case(agent, setting) for agent in AGENTS for setting in SETTINGS]
)
def test_a_run_comes_out_the_same_in_every_bit(agent, setting, plain, tmp_path):
    expected, probes, returns = plain(agent)
    with SETTINGS[setting]():
        run, found, played = grown(*AGENTS[agent], tmp_path / "run.ckpt")
    assert bit_equal(run.state, expected.state)
    assert not [leaf for leaf in jax.tree.leaves(run.state) if "64" in str(leaf.dtype)]
    assert played == returns
    np.testing.assert_equal(found, probes)


def test_what_was_saved_in_double_precision_is_loaded_without_it(plain, tmp_path):
    expected, *_ = plain("double_dqn")
    with jax.enable_x64(True):
        run, _ = Run.start(*AGENTS["double_dqn"], seed=3).advance(80)
        run = run.intervene(Inject()).fork(replicate=1)
        save(run, tmp_path / "run.ckpt")
    run, _ = load(tmp_path / "run.ckpt").advance(80)
    assert bit_equal(run.state, expected.state)


def test_what_the_user_switched_on_stays_on_outside(tmp_path):
    with jax.enable_x64(True):
        run = Run.start(DQN, Breakout(), seed=0)
        assert run.state.episode_return.dtype == jnp.float32
        assert jnp.zeros(()).dtype == jnp.float64


def zeros(tree):
    """Arrays of the shapes and types in a tree; keys in place of keys."""

    def of(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.split(KEY, leaf.shape) if leaf.shape else KEY
        return jnp.zeros(leaf.shape, leaf.dtype)

    return jax.tree.map(of, tree)


def pieces_of(agent, environment):
    """What may be called by itself, by name."""
    seen = environment.observation_shape, environment.observation_dtype
    init = functools.partial(agent.init, *seen, environment.action_space, KEY)
    empty = functools.partial(Replay.empty, 300, *seen, environment.action_space)
    shapes, memory = jax.eval_shape(init), jax.eval_shape(empty)

    def batch():
        return agent.batch(zeros(memory), KEY)

    pieces = {
        "init": init,
        "empty": empty,
        "batch": batch,
        "act": lambda: agent.act(zeros(shapes), jnp.zeros(*seen), jnp.int32(3), KEY),
        "exploit": lambda: agent.exploit(zeros(shapes), jnp.zeros(*seen), KEY),
        "update": lambda: agent.update(zeros(shapes), batch(), KEY),
    }
    for name, probe in every_probe(costly=True).items():
        pieces[name] = lambda probe=probe: probe(
            *(zeros(shapes),), agent=agent, batch=batch(), key=KEY, past=Past(*[zeros(shapes)] * 2)
        )
    for one in EVERY:
        pieces[describe(one)] = lambda one=one: one(
            zeros(shapes), agent=agent, experience=zeros(memory), key=KEY
        )
    return pieces


@pytest.mark.parametrize(
    "name", [n if n == "double_dqn" else pytest.param(n, marks=pytest.mark.slow) for n in AGENTS]
)
def test_what_is_called_by_itself_is_float32_too(name):
    """Traced, not computed; what an agent's networks do not allow is left to its own tests."""
    traced = 0
    with jax.enable_x64(True):
        for piece, call in pieces_of(*AGENTS[name]).items():
            with contextlib.suppress(RegrowError):
                found = jax.tree.leaves(jax.eval_shape(call))
                assert "float64" not in {str(leaf.dtype) for leaf in found}, piece
                traced += 1
    assert traced > 40


def test_what_is_called_by_itself_draws_the_same_numbers():
    agent, environment = AGENTS["double_dqn"]
    seen = environment.observation_shape, environment.observation_dtype

    def drawn():
        state = agent.init(*seen, environment.action_space, KEY)
        keys = jax.random.split(KEY, 20)
        act = jax.vmap(lambda key: agent.act(state, jnp.ones(*seen), jnp.int32(0), key))
        return state.q.network, act(keys)[0]

    expected = drawn()
    with jax.enable_x64(True):
        assert bit_equal(drawn(), expected)


def test_the_random_policy_and_flops(tmp_path):
    agent, environment = make("agents", TINY), ActionReward()
    log, cost = random_policy(environment, 40, seed=0), flops(agent, environment, (), 0, 400)
    for setting in SETTINGS.values():
        with setting():
            assert flops(agent, environment, (), 0, 400) == cost
            again = random_policy(environment, 40, seed=0)
        for one, other in zip(log, again, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_a_stressor_too():
    run, _ = Run.start(DQN, Breakout(), seed=0).advance(80)
    noise = FitNoise(rounds=2, updates=5, transitions=50)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        under = run.intervene(noise)
    assert bit_equal(under.state, run.intervene(noise).state)


@pytest.mark.parametrize(
    ("name", "value", "was"),
    [("jax_default_prng_impl", "rbg", "threefry2x32"), ("jax_threefry_partitionable", False, True)],
)
def test_other_random_numbers_are_refused_in_a_line(tmp_path, name, value, was):
    before = getattr(jax.config, name)
    path = tmp_path / "run.ckpt"
    save(Run.start(DQN, Breakout(), seed=0), path)
    try:
        jax.config.update(name, value)
        line = f"{path} was saved with {name} {was}, and it is {value} now: other random numbers; "
        with refused_in_a_line(line + f"set {name.upper()}={was}"):
            load(path)
        save(Run.start(DQN, Breakout(), seed=0), path)
        assert load(path).env_steps == 0
    finally:
        jax.config.update(name, before)
    with refused_in_a_line(f"was saved with {name} {value}"):
        load(path)


@pytest.mark.parametrize(("asked", "named"), [(("cuda", None), "cuda"), ((None, "gpu"), "gpu")])
def test_a_device_that_is_not_there_is_named(monkeypatch, asked, named):
    def none(platform=None):
        raise AssertionError  # JAX's own, where the package for CUDA is not there

    monkeypatch.setattr(jax, "devices", none)
    with refused_in_a_line(f"JAX finds no '{named}' to work on; set JAX_PLATFORMS (or"):
        numerics._require_device.__wrapped__(*asked)


def test_a_number_that_jax_was_told_to_stop_at_is_one_line(monkeypatch):
    def stopped(options):
        raise FloatingPointError("invalid value (nan) encountered in scan\nsecond line")

    monkeypatch.setattr(cli, "_list", stopped)
    assert cli.run(["list", "agents"]) == "invalid value (nan) encountered in scan second line"


# As a user has them: in the variables of a process of its own.

VARIABLES = [
    ("JAX_ENABLE_X64", "1"),
    ("JAX_DEBUG_NANS", "1"),
    ("JAX_DEBUG_INFS", "1"),
    ("JAX_NUMPY_DTYPE_PROMOTION", "strict"),
    ("JAX_NUMPY_RANK_PROMOTION", "raise"),
    ("JAX_DEFAULT_MATMUL_PRECISION", "highest"),
    ("JAX_DEFAULT_MATMUL_PRECISION", "bfloat16"),
    ("JAX_THREEFRY_PARTITIONABLE", "0"),
    ("JAX_DEFAULT_PRNG_IMPL", "rbg"),
    ("JAX_DEFAULT_PRNG_IMPL", "unsafe_rbg"),
    ("JAX_DEFAULT_DEVICE", "cpu"),
    ("JAX_ENABLE_CHECKS", "1"),
    ("JAX_TRANSFER_GUARD", "log"),
    ("JAX_RANDOM_SEED_OFFSET", "7"),
]
REFUSED = [
    ("JAX_PLATFORMS", "cuda", "JAX finds no 'cuda' to work on"),
    ("JAX_PLATFORMS", "nonsense", "JAX finds no 'nonsense' to work on (Unable to initialize"),
    ("JAX_DEFAULT_DEVICE", "gpu", "JAX finds no 'gpu' to work on (Unknown backend: 'gpu'"),
]


def regrow(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "regrow", *arguments]
    environment = os.environ | variables
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), VARIABLES)
def test_with_a_variable_set_training_and_a_diagnosis_work(tmp_path, name, value):
    train = ["train", "toy/action_reward", "--agent", TINY, "--out", str(tmp_path / "run")]
    train += ["--env-steps", "400", "--probe-every", "400", "--do", "inject at 200"]
    diagnose = ["diagnose", "toy/action_reward", "--agent", TINY, "--out", str(tmp_path / "d")]
    diagnose += ["--fork-at", "200", "--horizon", "200", "--seeds", "2", "--processes", "1"]
    for command in (train, diagnose, ["probe", str(tmp_path / "run"), "--costly"]):
        done = regrow(*command, **{name: value})
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_without_jit_it_is_slow_and_works(tmp_path):
    train = ["train", "toy/action_reward", "--agent", TINY, "--out", str(tmp_path / "run")]
    done = regrow(*train, "--env-steps", "40", "--probe-every", "0", JAX_DISABLE_JIT="1")
    assert done.returncode == 0, done.stderr
    assert "JAX_DISABLE_JIT is set" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [pytest.param(*one, marks=pytest.mark.slow if n else ()) for n, one in enumerate(REFUSED)],
)
def test_a_device_of_a_variable_that_is_not_there_is_one_line(tmp_path, name, value, line):
    out = tmp_path / "run"
    train = ["train", "toy/action_reward", "--agent", TINY, "--out", str(out)]
    done = regrow(*train, **{name: value})
    assert done.returncode == 2
    assert done.stderr.startswith(f"regrow: {line}")
    assert done.stderr.count("\n") == 1
    assert not out.exists()


OTHER_DEVICE = """
import jax
jax.config.update("jax_default_device", jax.devices()[1])
from regrow.cli import entry as cli
said = cli.run([%r, "toy/action_reward", "--agent", %r, "--env-steps", "400", "--out", %r])
assert said is None, said
"""


@pytest.mark.slow
def test_on_another_device_than_the_first(tmp_path):
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=2"
    script = OTHER_DEVICE % ("train", TINY, str(tmp_path / "run"))
    environment = os.environ | {"XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "run" / "run.ckpt").env_steps == 400

"""Models of Stable-Baselines3: forks, interventions, zips, callbacks, verdicts."""

import json
import pickle
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from sb3_contrib import QRDQN, TQC
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecFrameStack,
    VecNormalize,
)

import regrow.sb3
from regrow import interventions as does
from regrow.cli import entry
from regrow.errors import NotFiniteError, RegrowError
from regrow.sources.sb3 import Sb3
from regrow.torch import inject
from regrow.torch.injected import Injected
from regrow.torch.randomness import Randomness
from regrow.torch.sb3.algorithms import learners_of, predicted
from regrow.torch.sb3.environments import Environments, why_not_copied
from regrow.torch.sb3.subject import Sb3Subject
from regrow.torch.sb3.zips import read_pickle

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::RuntimeWarning"
)


def small():
    """Options of their own each time: Stable-Baselines3 writes into `policy_kwargs`."""
    return {"policy_kwargs": {"net_arch": [16, 16]}, "device": "cpu", "seed": 3}


def noise():
    return OrnsteinUhlenbeckActionNoise(np.zeros(1), 0.3 * np.ones(1))


def replay():
    return {**small(), "learning_starts": 50, "buffer_size": 2_000, "batch_size": 16}


MODELS = {
    "dqn": lambda: DQN(
        "MlpPolicy", "CartPole-v1", exploration_fraction=0.9, target_update_interval=100,
        learning_rate=lambda left: 1e-3 * left, **replay()),
    "qrdqn": lambda: QRDQN("MlpPolicy", "CartPole-v1", **replay()),
    "sac": lambda: SAC("MlpPolicy", "Pendulum-v1", **replay()),
    "tqc": lambda: TQC("MlpPolicy", "Pendulum-v1", **replay()),
    "td3": lambda: TD3("MlpPolicy", "Pendulum-v1", action_noise=noise(), **replay()),
    "ddpg": lambda: DDPG("MlpPolicy", "Pendulum-v1", **replay()),
    "ppo": lambda: PPO(
        "MlpPolicy", "CartPole-v1", n_steps=64, batch_size=32, n_epochs=2,
        learning_rate=lambda left: 1e-3 * left, **small()),
    "a2c": lambda: A2C("MlpPolicy", "Pendulum-v1", n_steps=8, **small()),
    "sac, mujoco": lambda: SAC("MlpPolicy", "InvertedPendulum-v5", **replay()),
    "ppo, two environments": lambda: PPO(
        "MlpPolicy", _pair(), n_steps=32, batch_size=32, n_epochs=2, **small()),
    "ppo, normalised": lambda: PPO(
        "MlpPolicy", VecNormalize(_pair("Pendulum-v1"), gamma=0.9), n_steps=32, batch_size=32,
        n_epochs=2, **small()),
    "dqn, frames stacked": lambda: DQN("MlpPolicy", VecFrameStack(_pair(), 3), **replay()),
}  # fmt: skip


def _pair(name="CartPole-v1"):
    return DummyVecEnv([lambda: Monitor(gymnasium.make(name))] * 2)


def values(model):
    return torch.cat([p.detach().flatten() for p in model.policy.parameters()])


def subject(model, total=10**6):
    held = Sb3Subject.of(model, Randomness.now())
    return Sb3Subject(**{**vars(held), "total": total})


@pytest.fixture(autouse=True)
def _one_seed():
    Randomness.of(0).set()


ALIKE = ("tqc", "qrdqn", "ddpg", "a2c", "ppo, two environments")


def with_slow(names, slow):
    """The names, of which some run under `make test-all` only: they differ little from others."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in slow else n for n in names]


@pytest.mark.parametrize("name", with_slow(MODELS, ALIKE))
def test_a_fork_goes_on_as_if_nothing_had_happened(name):
    """Bit for bit as one call of `learn`, schedules and noise included."""
    whole = MODELS[name]()
    whole.learn(512)
    cut = MODELS[name]()
    cut._total_timesteps = 512
    held, _ = subject(cut, 512).advance(128)
    held, _ = held.advance(128)
    other, another = held.fork(), held.fork(1)
    held, log = held.advance(256)
    other, _ = other.advance(256)
    another, _ = another.advance(256)
    assert torch.equal(values(held.model), values(whole))
    assert torch.equal(values(other.model), values(whole))
    assert not torch.equal(values(another.model), values(whole)), "a replicate of its own"
    assert held.env_steps == 512
    assert log.reward.shape == (256,)
    assert np.isfinite(log.value).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dqn", "sac", "ppo", "sac, mujoco", "minatar", "ale"])
def test_a_fork_goes_on_for_ten_thousand_steps(name):
    steps = 10_240
    whole = (MODELS | GAMES)[name]()
    whole.learn(2 * steps)
    held, _ = subject((MODELS | GAMES)[name](), 2 * steps).advance(steps)
    other, _ = held.fork().advance(steps)
    assert torch.equal(values(other.model), values(whole))


def _minatar():
    from minatar.gym import register_envs

    if "MinAtar/Breakout-v1" not in gymnasium.registry:
        register_envs()
    return gymnasium.make("MinAtar/Breakout-v1")


def _ale(sticky=0.0):
    import ale_py

    gymnasium.register_envs(ale_py)
    made = gymnasium.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=sticky)
    return AtariWrapper(Monitor(made))


GAMES = {
    "minatar": lambda: DQN("MlpPolicy", _minatar(), **replay()),
    "ale": lambda: DQN("CnnPolicy", _ale(), device="cpu", seed=3, learning_starts=50,
                       buffer_size=2_000, batch_size=16, policy_kwargs={"net_arch": []}),
}  # fmt: skip


@pytest.mark.parametrize("make", [_minatar, _ale, lambda: gymnasium.make("Hopper-v5")])
def test_environments_are_copied_with_all_that_they_hold(make):
    """Those of EzPickle would be made anew by themselves, without a word."""
    assert why_not_copied(lambda: DummyVecEnv([lambda: Monitor(make())])) == ""


def test_environments_that_cannot_be_copied_are_known():
    for make in (lambda: _ale(0.25), Locked):
        assert why_not_copied(lambda make=make: DummyVecEnv([make])) != ""


class Locked(CartPoleEnv):
    """It holds what no process can copy, as environments of Box2D do."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Restless(gymnasium.Env):
    """It draws from a generator that nobody copies."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    drawn = np.random.default_rng(0)

    def reset(self, seed=None, options=None):
        return self.drawn.random(2, np.float32), {}

    def step(self, action):
        return self.drawn.random(2, np.float32), 0.0, False, False, {}


def test_a_copy_that_does_not_go_on_alike_is_seen():
    assert "does not go on" in why_not_copied(lambda: DummyVecEnv([Restless]))


@pytest.mark.parametrize("name", with_slow(MODELS, ALIKE))
def test_injection_changes_no_output_and_no_trap_is_left(name):
    held, _ = subject(MODELS[name]()).advance(128)
    model = held.model
    observed = model._last_obs
    taken = np.stack([model.action_space.sample() for _ in range(model.n_envs)])
    before = predicted(model, observed, taken)
    count = sum(p.numel() for p in model.policy.parameters() if p.requires_grad)
    model = (injected := held.intervene(does.Inject())).model
    assert torch.equal(predicted(model, observed, taken), before)
    assert sum(p.numel() for p in model.policy.parameters() if p.requires_grad) == count
    assert [event.intervention for event in injected.history] == ["inject"]
    grafted = [m for m in model.policy.modules() if isinstance(m, Injected)]
    assert grafted
    frozen = {n: p.clone() for n, p in _frozen(model).items()}
    live = values(model)
    after, _ = injected.advance(128)
    model = after.model
    if hasattr(model, "q_net"):
        assert model.q_net is model.policy.q_net, "the alias is the same network"
    if hasattr(model, "critic"):
        for i, critic in enumerate(model.critic.q_networks):
            assert critic is getattr(model.critic, f"qf{i}"), "the list that forward uses"
    assert all(torch.equal(p, frozen[n]) for n, p in _frozen(model).items())
    assert not torch.equal(values(model), live), "it learns"


def _frozen(model):
    """The frozen parameters of the networks that learn, by name."""
    return {
        f"{one.name}.{name}": parameter
        for one in learners_of(model)
        for name, parameter in one.module.named_parameters()
        if ".injected." in f".{name}"
    }


EVERY = (
    does.Nothing(),
    does.Inject(split=0),
    does.Inject(split=2),
    does.Inject(freeze=False),
    does.Reset(),
    does.Reset(where="last"),
    does.Reset(where="everything"),
    does.ShrinkPerturb(),
    does.Redo(tau=0.5),
    does.ResetOptimizer(),
    does.FitNoise(rounds=2, updates=3, transitions=40),
)


@pytest.mark.parametrize(
    "name", with_slow(["dqn", "sac", "td3", "ppo", "a2c", "tqc"], ("sac", "td3", "a2c", "tqc"))
)
def test_every_intervention_is_carried_out(name):
    held, _ = subject(MODELS[name]()).advance(128)
    before = values(held.model)
    for one in EVERY:
        changed = held.intervene(one)
        kept = isinstance(one, does.Nothing | does.ResetOptimizer)
        assert torch.equal(values(changed.model), before) == kept
        states = sum(len(learner.optimizer.state) for learner in learners_of(changed.model))
        if kept:
            assert (states == 0) == isinstance(one, does.ResetOptimizer)
        after, log = changed.advance(64)
        assert np.isfinite(log.value).all()
        assert after.measure(["dead_units", "srank"])
        assert torch.equal(values(held.model), before), "the fork itself is not changed"


@pytest.mark.parametrize(
    "name", ["ppo, two environments", "ppo, normalised", "dqn, frames stacked"]
)
def test_noise_is_fitted_side_by_side_too(name):
    held, _ = subject(MODELS[name]()).advance(128)
    noisy = held.intervene(does.FitNoise(rounds=2, updates=3, transitions=40))
    assert not torch.equal(values(noisy.model), values(held.model))
    noisy.advance(64)


def test_stressors_take_as_many_transitions_as_they_say(monkeypatch):
    held, _ = subject(MODELS["dqn"]()).advance(128)
    seen = []

    def train(model, gradient_steps, batch_size):
        seen.append((model.replay_buffer.size(), model.replay_buffer.rewards.copy()))

    monkeypatch.setattr(DQN, "train", train)
    held.intervene(does.FitNoise(rounds=2, updates=1, transitions=40))
    assert [size for size, _ in seen] == [40, 40]
    assert not np.array_equal(seen[0][1], seen[1][1]), "rewards are redrawn"
    held.intervene(does.FitNoise(rounds=2, updates=1, transitions=40, redraw=False))
    assert np.array_equal(seen[2][1], seen[3][1])
    held.intervene(does.Prime(updates=1, transitions=300))
    assert seen[4][0] == 300, "fewer are repeated"


def test_a_reset_renews_the_temperature():
    held, _ = subject(MODELS["sac"]()).advance(128)
    assert held.model.log_ent_coef.item() != 0
    assert held.intervene(does.Reset()).model.log_ent_coef.item() == 0
    assert held.intervene(does.Reset(where="last")).model.log_ent_coef.item() != 0


def test_what_is_not_there_for_pytorch_is_said():
    held, _ = subject(MODELS["ppo"]()).advance(64)
    for what, text in [
        (does.Fire(), "acts on agents of this library only"),
        (does.Inject(split=9), "split is 9"),
        (does.Inject(only="critic"), "no learner 'critic'"),
        (does.Prime(), "this model has none"),
    ]:
        with pytest.raises(RegrowError, match=text):
            held.intervene(what)


def test_probes_have_the_names_of_this_librarys_own():
    held, _ = subject(MODELS["dqn"]()).advance(128)
    measured = held.measure()
    assert {"dead_units.head", "srank.encoder", "gradient_norm.head"} <= set(measured)
    assert held.measure(fresh=True).keys() == measured.keys()
    assert "distance_from_init.head" not in measured, "its initial values are not known"
    after, _ = held.fork().advance(64)
    later, _ = after.fork().advance(256)
    changed = [one.measure(since=held)["weight_change.head"] for one in (after, later)]
    assert 0 < changed[0] < changed[1]
    two, _ = subject(MODELS["sac"]()).advance(128)
    assert {"actor.dead_units.head", "critic.dead_units.head"} <= set(two.measure())


def test_episodes_are_those_of_monitor():
    """A lost life ends no episode, and clipped rewards are not what it returned."""
    model = GAMES["ale"]()
    _, log = subject(model).advance(64)
    assert not (log.terminated | log.truncated).any()
    returns, over = subject(MODELS["dqn"]()).advance(100)[0].play_out()
    assert over.all()
    assert returns[0] >= 8


def test_returns_are_raw_under_normalisation():
    held, log = subject(MODELS["ppo, normalised"]()).advance(512)
    ended = log.truncated
    assert ended.sum() == 2
    assert log.episode_return[ended].max() < -100
    assert np.abs(held.learned_rewards(log)).max() <= 10


def test_numbers_that_are_not_finite_are_told():
    held, _ = subject(MODELS["dqn"]()).advance(128)
    with torch.no_grad():
        held.model.q_net.q_net[0].weight[:] = float("nan")
    with pytest.raises(NotFiniteError, match="no longer finite"):
        held.advance(64)
    with pytest.raises(RegrowError, match="was advanced before"):
        held.advance(64)


def test_environments_of_other_processes_are_refused():
    envs = SubprocVecEnv([lambda: gymnasium.make("CartPole-v1")])
    try:
        model = PPO("MlpPolicy", envs, n_steps=64, batch_size=32, **small()).learn(64)
        with pytest.raises(RegrowError, match="give a DummyVecEnv"):
            regrow.sb3.diagnose(model, horizon=1280)
    finally:
        envs.close()


# Zips.


@pytest.fixture(scope="module")
def zips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zips")
    for name in ("dqn", "sac", "td3", "ddpg", "ppo", "a2c", "qrdqn", "tqc"):
        model = MODELS[name]()
        model.learning_rate = 1e-3  # a function would be code
        model.lr_schedule = None
        model._setup_lr_schedule()
        model.learn(128)
        model.save(folder / f"{name}.zip")
    model = MODELS["dqn"]()
    model.learning_rate = 1e-3
    model._setup_lr_schedule()
    model.learn(256)
    model.save(folder / "kept.zip")
    model.save_replay_buffer(folder / "kept_replay_buffer.pkl")
    return folder


@pytest.mark.parametrize("name", ["dqn", "sac", "td3", "ddpg", "ppo", "a2c", "qrdqn", "tqc"])
def test_a_zip_is_recognised_and_read_without_running_code(name, zips, monkeypatch):
    env = "CartPole-v1" if name in ("dqn", "qrdqn", "ppo") else "Pendulum-v1"

    def forbidden(*_):
        raise AssertionError("a pickle was read")

    monkeypatch.setattr("cloudpickle.loads", forbidden)
    monkeypatch.setattr("stable_baselines3.common.save_util.cloudpickle.loads", forbidden)
    source = Sb3.of([zips / f"{name}.zip"], env)
    assert source.algorithm == name.upper()
    assert source.env_steps == 128
    assert source.refilled == (name not in ("ppo", "a2c"))
    assert not source.restarts
    assert Sb3.from_config(json.loads(json.dumps(source.config()))) == source


def test_the_replay_beside_a_zip_is_used(zips):
    source = Sb3.of([zips / "kept.zip"], "CartPole-v1")
    assert not source.refilled
    assert not source.remarks
    assert source.start(0).model.replay_buffer.size() == 256
    bare = Sb3.of([zips / "dqn.zip"], "CartPole-v1")
    assert bare.remarks[0][0] == "replay_refilled"
    started = bare.start(0)
    assert started.model.replay_buffer.size() == 2_000, "as much as it holds"
    assert started.env_steps == 128, "its counters stay"


class Mine(torch.nn.ReLU):
    """Code of the user's own."""


def test_code_in_a_zip_runs_only_where_it_is_trusted(tmp_path):
    own = {"net_arch": [16], "activation_fn": Mine}
    model = DQN("MlpPolicy", "CartPole-v1", **{**replay(), "policy_kwargs": own})
    model.learn(64)
    path = tmp_path / "mine.zip"
    model.save(path)
    with pytest.raises(RegrowError, match=r"add --trust"):
        Sb3.of([path], "CartPole-v1")
    assert Sb3.of([path], "CartPole-v1", trust=True).algorithm == "DQN"
    bad = tmp_path / "mine_replay_buffer.pkl"
    bad.write_bytes(pickle.dumps(subprocess.Popen))
    with pytest.raises(RegrowError, match=r"subprocess\.Popen"):
        read_pickle(bad.read_bytes(), str(bad), trust=False)


def _newer(path):
    with zipfile.ZipFile(path, "a") as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in held.items():
            archive.writestr(name, b"99.1.0" if "version" in name else content)


def _unknown(path):
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(held["data"])
    data["cg_max_steps"] = 1
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in held.items():
            archive.writestr(name, json.dumps(data) if name == "data" else content)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def _other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "no model")


WRONG = {
    "no zip": (lambda path: path.write_text("x"), [], "is no zip of Stable-Baselines3"),
    "cut": (_cut, [], "of Stable-Baselines3"),
    "another zip": (_other_zip, [], "holds no 'data'"),
    "newer": (_newer, [], "was written by Stable-Baselines3 99.1.0"),
    "unknown algorithm": (_unknown, [], "holds a model of TRPO"),
    "not there": (lambda path: path.unlink(), [], "there is no file"),
    "another environment": (None, ["--env", "Pendulum-v1"], "do not fit"),
    "unknown environment": (None, ["--env", "CartPole-v7"], "did you mean 'CartPole-v1'"),
    "no environment": (None, ["--env", ""], "holds no environment"),
    "horizon below a round": (None, ["--horizon", "10"], "it must be at least"),
    "horizon between rounds": (None, ["--horizon", "1281"], "it must be a multiple of 64"),
    "an arm that is not there": (None, ["--arms", "nothing", "inject", "fire"], "this library"),
    "a split too deep": (None, ["--arms", "nothing", "inject(split=5)"], "split is 5"),
    "a script that is not there": (None, ["--env", "none.py:make"], "there is no file none.py"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_a_sentence(case, zips, tmp_path):
    spoil, options, text = WRONG[case]
    path = tmp_path / "ppo.zip"
    path.write_bytes((zips / "ppo.zip").read_bytes())
    if spoil:
        spoil(path)
    given = {"--env": ["CartPole-v1"], "--horizon": ["1280"]}
    if options:
        given[options[0]] = options[1:]
    line = [word for name, values in given.items() for word in (name, *values)]
    told = entry.run(["diagnose", str(path), *line, "--out", str(tmp_path / "out")])
    assert told is not None
    assert text in told
    assert "\n" not in told


def test_several_zips_must_be_alike(zips, tmp_path):
    told = entry.run(
        ["diagnose", str(zips / "dqn.zip"), str(zips / "kept.zip"), "--env", "CartPole-v1",
         "--horizon", "1280", "--out", str(tmp_path / "out")]
    )  # fmt: skip
    assert "differ in env_steps" in told
    assert "given twice" in entry.run(
        ["diagnose", str(zips / "dqn.zip"), str(zips / "dqn.zip"), "--env", "CartPole-v1"]
    )


def test_a_diagnosis_of_a_zip_from_the_command_line(zips, tmp_path, capsys):
    out = tmp_path / "out"
    line = ["diagnose", str(zips / "kept.zip"), "--env", "CartPole-v1", "--horizon", "160",
            "--replicates", "4", "--processes", "1", "--out", str(out)]  # fmt: skip
    assert entry.run(line) is None
    told = capsys.readouterr().out
    assert "in this agent" in " ".join(told.split()) or "nothing can be read" in told
    verdict = json.loads((out / "verdict.json").read_text())
    assert verdict["agent"] == "sb3/dqn"
    assert set(verdict["arms"]) == {"nothing", "inject", "reset"}
    assert len(verdict["arms"]["inject"]) == 4
    assert verdict["probes"]["dead_units.head"]["fork"] >= 0
    assert (out / "report.html").is_file()
    assert entry.run(["report", str(out)]) is None
    assert entry.run(line) is None, "it is all there already"


def test_a_model_in_memory_is_diagnosed_and_left_as_it_is(tmp_path):
    model = MODELS["dqn"]()
    model.learn(128)
    before = values(model), model.num_timesteps, model._last_obs.copy()
    verdict = regrow.sb3.diagnose(
        model, horizon=160, replicates=4, arms=("nothing", "inject"), folder=tmp_path / "out"
    )
    assert verdict.n == 4
    assert torch.equal(values(model), before[0])
    assert model.num_timesteps == before[1]
    assert np.array_equal(model._last_obs, before[2])
    assert (tmp_path / "out" / "diagnosis" / "verdict.json").is_file()
    model.learn(64, reset_num_timesteps=False)
    with pytest.raises(RegrowError, match="of this one at 128 env steps"):
        regrow.sb3.diagnose(model, horizon=160, folder=tmp_path / "out")
    with pytest.raises(RegrowError, match="was not trained yet"):
        regrow.sb3.diagnose(MODELS["dqn"](), horizon=160)
    with pytest.raises(RegrowError, match="do not fit"):
        regrow.sb3.diagnose(model, gymnasium.make("Pendulum-v1"), horizon=160)


def test_environments_that_cannot_be_copied_begin_anew_alike(tmp_path):
    model = DQN("MlpPolicy", Locked(), **replay())
    model.learn(100)
    model.save(tmp_path / "locked.zip")
    source = Sb3.of([tmp_path / "locked.zip"], f"{__file__}:Locked")
    assert source.restarts
    held = source.start(0)
    one, two = held.fork(), held.fork()
    assert np.array_equal(one.model._last_obs, two.model._last_obs)
    assert not np.array_equal(one.model._last_obs, held.fork(1).model._last_obs)
    assert one.restarts == (100,)
    after, _ = one.advance(8)
    again, _ = two.advance(8)
    assert torch.equal(values(after.model), values(again.model))
    assert np.isnan(after.play_out()[0]).all()


def test_several_zips_are_paired(tmp_path, capsys):
    for seed in range(2):
        model = DQN("MlpPolicy", "CartPole-v1", **{**replay(), "seed": seed, "buffer_size": 200})
        model.learn(100)
        model.save(tmp_path / f"dqn{seed}.zip")
    line = ["diagnose", *(str(tmp_path / f"dqn{seed}.zip") for seed in range(2)), "--env",
            "CartPole-v1", "--horizon", "80", "--replicates", "1", "--fixed", "--processes", "1",
            "--out", str(tmp_path / "out")]  # fmt: skip
    assert entry.run(line) is None
    verdict = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert [run["seed"] for run in verdict["arms"]["nothing"]] == [0, 1]
    assert "The claim is about the training" in " ".join(capsys.readouterr().out.split())


# Callbacks.


def test_the_cure_while_a_model_learns(tmp_path):
    model = MODELS["dqn"]()
    cure = regrow.sb3.Inject(every=100, at_most=2)
    model.learn(512, callback=cure)
    assert [event.env_steps for event in cure.history] == [100, 200]
    first = next(m for m in model.policy.modules() if isinstance(m, Injected))
    assert len(first.injected) == 2
    model.learning_rate = 1e-3
    model.save(tmp_path / "cured.zip")
    other = regrow.sb3.load(DQN, tmp_path / "cured.zip", env=model.env, device="cpu")
    assert type(other) is DQN
    observed = torch.randn(5, 4)
    assert torch.equal(other.q_net(observed), model.q_net(observed))
    other.learn(64, reset_num_timesteps=False)
    source = Sb3.of([tmp_path / "cured.zip"], "CartPole-v1", trust=True)
    assert torch.equal(source.start(0).model.q_net(observed), model.q_net(observed))


def test_rules_by_probes_and_returns():
    model = MODELS["ppo"]()
    above = regrow.sb3.Inject(when="dead_units above -1", checked_every=64, at_most=1)
    never = regrow.sb3.Do("reset when dead_units above 2 checked every 64")
    model.learn(256, callback=[above, never])
    assert [event.env_steps for event in above.history] == [64]
    assert never.history == []
    for wrong, text in [
        (lambda: regrow.sb3.Inject(), "give one of at=, every= and when="),
        (lambda: regrow.sb3.Inject(when="dead above 1"), "no probe 'dead'"),
        (lambda: regrow.sb3.Do("inject sometimes"), "is no rule"),
        (lambda: MODELS["ppo"]().learn(64, callback=regrow.sb3.Do("fire at 10")), "this library"),
    ]:
        with pytest.raises(RegrowError, match=text):
            wrong()


def test_a_callback_that_does_nothing_changes_nothing():
    one = MODELS["dqn"]()
    one.learn(256)
    other = MODELS["dqn"]()
    other.learn(256, callback=regrow.sb3.Inject(at=10**6))
    assert torch.equal(values(one), values(other))


def test_a_replaced_attribute_would_be_inert():
    """Why the module itself changes: `critic.qf0 = …` does not reach what `forward` calls."""
    model = MODELS["sac"]()
    inject(model.policy.critic, ["qf0.2", "qf1.2"], seed=0)
    assert isinstance(model.policy.critic.q_networks[0], Injected)
    positions = [p.shape for p in model.policy.critic.parameters()]
    inject(model.policy.critic_target, ["qf0.2", "qf1.2"], seed=0)
    assert [p.shape for p in model.policy.critic_target.parameters()] == positions


def test_names_of_environments():
    made = Environments("CartPole-v1(max_episode_steps=7)", 2).make()
    assert made.num_envs == 2
    assert made.envs[0].spec.max_episode_steps == 7
    with pytest.raises(RegrowError, match=r"no function in .*own_gym\.py 'nothing'"):
        Environments(f"{Path(__file__).parent / 'own_gym.py'}:nothing").make()


def test_without_the_package_it_is_a_sentence():
    code = (
        "import sys; sys.modules['stable_baselines3'] = None; sys.path.insert(0, 'src')\n"
        "import regrow.sb3"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'regrow[sb3]'" in done.stderr

"""Models of Stable-Baselines3 from zip files, and diagnoses of them."""

import json
import pickle
import subprocess
import zipfile

import gymnasium
import numpy as np
import pytest
import torch
from sb3_models import MODELS, Locked, replay, values
from stable_baselines3 import DQN
from stable_baselines3.common.type_aliases import TrainFrequencyUnit

import regrow.sb3
from regrow.cli import entry
from regrow.errors import RegrowError, UntrustedError
from regrow.sources.sb3 import Sb3
from regrow.torch.randomness import Randomness
from regrow.torch.sb3.zips import read_pickle

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::RuntimeWarning"
)


@pytest.fixture(autouse=True)
def _one_seed():
    Randomness.of(0).set()


@pytest.fixture
def brief_chance(monkeypatch):
    """The random policy is measured over fewer env steps."""
    monkeypatch.setattr("regrow.sources.base.RANDOM_STEPS", 1_000)


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


class Got:
    """Pickled as what `getattr` gives, as members of enumerations are by Python 3.11.2."""

    def __init__(self, *of):
        self.of = of

    def __reduce__(self):
        return getattr, self.of


def test_of_what_getattr_gives_members_of_enumerations_are_read_and_nothing_else():
    unit = pickle.dumps(Got(TrainFrequencyUnit, "STEP"))
    assert read_pickle(unit, "a", trust=False) is TrainFrequencyUnit.STEP
    for of in ((dict, "fromkeys"), (TrainFrequencyUnit, "mro"), (Got(dict, "pop"), "x")):
        with pytest.raises(UntrustedError, match=r"builtins\.getattr"):
            read_pickle(pickle.dumps(Got(*of)), "a", trust=False)


@pytest.mark.always
@pytest.mark.usefixtures("brief_chance")
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


@pytest.mark.usefixtures("brief_chance")
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


@pytest.mark.usefixtures("brief_chance")
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

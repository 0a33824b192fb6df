"""Interventions while a model of Stable-Baselines3 learns, and names of environments."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sb3_models import MODELS, values
from stable_baselines3 import DQN

import regrow.sb3
from regrow.errors import RegrowError
from regrow.sources.sb3 import Sb3
from regrow.torch import inject
from regrow.torch.injected import Injected
from regrow.torch.randomness import Randomness
from regrow.torch.sb3.environments import Environments

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::RuntimeWarning"
)


@pytest.fixture(autouse=True)
def _one_seed():
    Randomness.of(0).set()


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

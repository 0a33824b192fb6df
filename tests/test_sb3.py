"""Models of Stable-Baselines3: forks, interventions, probes, logs."""

import gymnasium
import numpy as np
import pytest
import torch
from sb3_models import GAMES, MODELS, Locked, ale, minatar, small, subject, values
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
)

import regrow.sb3
from regrow import interventions as does
from regrow.errors import NotFiniteError, RegrowError
from regrow.torch.injected import Injected
from regrow.torch.randomness import Randomness
from regrow.torch.sb3.algorithms import learners_of, predicted
from regrow.torch.sb3.environments import why_not_copied

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::RuntimeWarning"
)


@pytest.fixture(autouse=True)
def _one_seed():
    Randomness.of(0).set()


ALIKE = ("tqc", "qrdqn", "td3", "ddpg", "a2c", "sac, mujoco", "ppo, two environments")


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


@pytest.mark.parametrize("make", [minatar, ale, lambda: gymnasium.make("Hopper-v5")])
def test_environments_are_copied_with_all_that_they_hold(make):
    """Those of EzPickle would be made anew by themselves, without a word."""
    assert why_not_copied(lambda: DummyVecEnv([lambda: Monitor(make())])) == ""


def test_environments_that_cannot_be_copied_are_known():
    for make in (lambda: ale(0.25), Locked):
        assert why_not_copied(lambda make=make: DummyVecEnv([make])) != ""


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


@pytest.mark.parametrize("name", ["dqn", "sac", "ppo"])
def test_dead_units_never_fire_again_until_a_new_head_comes(name):
    options = {"policy_kwargs": {"net_arch": [16, 16], "activation_fn": torch.nn.ReLU}}
    model = MODELS[name]() if name != "ppo" else PPO(
        "MlpPolicy", "CartPole-v1", n_steps=64, batch_size=32, device="cpu", seed=3, **options
    )  # fmt: skip
    held, _ = subject(model).advance(128)
    share = held.intervene(does.Deaden(share=0.5))
    for learner in learners_of(share.model):
        for chain in learner.layers:
            assert (learner.module.get_submodule(chain[1]).bias == -1e4).sum() == 8
        for target in learner.targets:
            ours = learner.module.state_dict()
            assert all(torch.equal(ours[n], value) for n, value in target.state_dict().items())
    dead, _ = held.intervene(does.Deaden()).advance(128)
    assert set(heads_dead(dead)) == {1.0}
    assert max(heads_dead(dead.intervene(does.Inject()))) < 1


def heads_dead(held):
    """The share of dead units in the head of every network."""
    return [share for name, share in held.measure().items() if name.endswith("dead_units.head")]


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
        (does.Deaden(), "what follows 'mlp_extractor.policy_net.2' is Tanh; it must be ReLU"),
        (does.Deaden(layer=2), "the hidden layers of 'policy' are 0 to 1"),
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

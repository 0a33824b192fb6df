"""Where no agent is named, one is taken that can begin there and that learns there."""

import importlib.util

import pytest

import regrow
from regrow.environments.base import HostEnvironment
from regrow.registry import describe, make, members
from regrow.training.default_agent import LEARNING_RATES, default_agent
from regrow.training.run import abstract_state

NESTED = "shifting/permuted_observations(game='minatar/seaquest')"
CHOSEN = {
    "minatar/breakout": "double_dqn",
    "minatar/asterix": "double_dqn(learning_rate=0.00025)",
    "minatar/seaquest(sticky_actions=0.0)": "double_dqn(learning_rate=0.00025)",
    "shifting/permuted_observations(game='minatar/breakout')": "double_dqn",
    "shifting/permuted_observations(game='minatar/asterix')": "double_dqn(learning_rate=0.00025)",
    f"shifting/relabelled_actions(game={NESTED!r})": "double_dqn(learning_rate=0.00025)",
    "shifting/switched_games(games='breakout freeway')": "double_dqn",
    "shifting/switched_games(games='breakout asterix')": "double_dqn(learning_rate=0.00025)",
    "toy/matching_reward": "ppo",
    "toy/reach": "sac",
    "toy/shades": describe(make("agents", "drq:laptop")),
}
ON_THE_HOST = {
    "gymnasium/CartPole-v1": ("gymnasium", "ppo"),
    "gymnasium/Pendulum-v1": ("gymnasium", "sac"),
    "control/walker-walk": ("dm_control", "sac"),
    "pixels/walker-walk": ("dm_control", describe(make("agents", "drq:laptop"))),
    "atari/pong": ("ale_py", describe(make("agents", "double_dqn:atari_laptop"))),
}


@pytest.mark.parametrize("environment", CHOSEN)
def test_the_agent_that_is_taken_where_none_is_named(environment):
    assert describe(regrow.default_agent(make("environments", environment))) == CHOSEN[environment]


@pytest.mark.parametrize("environment", ON_THE_HOST)
def test_the_agent_of_an_environment_on_the_host(environment):
    package, agent = ON_THE_HOST[environment]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    assert describe(default_agent(make("environments", environment))) == agent


@pytest.mark.parametrize("name", sorted(members("environments").keys() - {"jax"}))
def test_it_can_begin_in_every_environment_of_the_device(name):
    environment = members("environments")[name]()
    if isinstance(environment, HostEnvironment):
        assert hasattr(type(environment), "named_by")  # those above stand for them
        return
    agent = default_agent(environment)
    abstract_state(agent, environment, ())
    regrow.Diagnosis(agent, environment, fork_at=61_440, horizon=40_960)  # whole rounds of all


def test_every_game_with_a_learning_rate_of_its_own_is_there():
    assert LEARNING_RATES.keys() <= members("environments").keys()
    own = make("agents", "double_dqn").learning_rate
    assert own not in LEARNING_RATES.values()

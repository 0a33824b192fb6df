"""One small agent of each kind for all the files that train one: what is compiled, they share."""

from regrow.agents import PPO, SAC, DoubleDQN, DrQ
from regrow.agents.base import Agent
from regrow.diagnosis.plan import Arm, Plan
from regrow.environments.base import Environment
from regrow.sources.native import Diagnosis

_BRIEF = {"learn_start": 40, "replay_capacity": 300, "replay_ratio": 0.25}
DQN = DoubleDQN(hidden=16, channels=4, target_period=7, **_BRIEF)
SOFT = SAC(hidden=16, batch_size=16, **_BRIEF)
PIXELS = DrQ(channels=2, convolutions=2, hidden=8, latent=4, batch_size=8, **_BRIEF)
POLICY = PPO(hidden=16, activation="relu", num_envs=4, batch_size=16, epochs=4, minibatches=4)


def diagnosis_of(agent: Agent, environment: Environment, fork_at: int, horizon: int) -> Plan:
    """Two arms, two seeds, one run of each, and one look."""
    arms = tuple(map(Arm.parse, ("nothing", "inject")))
    sizes = {"seeds": 2, "replicates": 1, "fixed": True}
    return Diagnosis(agent, environment, arms, fork_at=fork_at, horizon=horizon, **sizes)

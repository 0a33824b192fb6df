"""The agents, one file each. `regrow.agents.base` is their contract.

`tests/test_families.py` fails if one is missing here.
"""

from regrow.agents.double_dqn import DoubleDQN as DoubleDQN
from regrow.agents.drq import DrQ as DrQ
from regrow.agents.ppo import PPO as PPO
from regrow.agents.sac import SAC as SAC

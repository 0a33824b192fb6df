"""The environments, one file each. `regrow.environments.base` is their contract.

`tests/test_families.py` fails if one is missing here.
"""

from regrow.environments.atari import Atari as Atari
from regrow.environments.control import Control as Control
from regrow.environments.gymnasium import Gymnasium as Gymnasium
from regrow.environments.jax import JAX as JAX
from regrow.environments.minatar.asterix import Asterix as Asterix
from regrow.environments.minatar.breakout import Breakout as Breakout
from regrow.environments.minatar.freeway import Freeway as Freeway
from regrow.environments.minatar.seaquest import Seaquest as Seaquest
from regrow.environments.minatar.space_invaders import SpaceInvaders as SpaceInvaders
from regrow.environments.pixels import Pixels as Pixels
from regrow.environments.shifting.permuted_observations import (
    PermutedObservations as PermutedObservations,
)
from regrow.environments.shifting.relabelled_actions import RelabelledActions as RelabelledActions
from regrow.environments.shifting.switched_games import SwitchedGames as SwitchedGames
from regrow.environments.toy.action_reward import ActionReward as ActionReward
from regrow.environments.toy.constant_reward import ConstantReward as ConstantReward
from regrow.environments.toy.delayed_reward import DelayedReward as DelayedReward
from regrow.environments.toy.matching_reward import MatchingReward as MatchingReward
from regrow.environments.toy.observation_reward import ObservationReward as ObservationReward
from regrow.environments.toy.reach import Reach as Reach
from regrow.environments.toy.shades import Shades as Shades
from regrow.environments.toy.time_limit_reward import TimeLimitReward as TimeLimitReward

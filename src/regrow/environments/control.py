"""The DeepMind Control Suite (Tassa et al. 2018, arXiv 1801.00690): states, by dm_control.

An observation is all that the task observes, one after the other; an episode of 1,000 control
steps is cut short by the clock, so its end is bootstrapped. A copy of a simulation goes on bit for
bit as the original (`regrow.environments.suite.base`).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from regrow.environments.base import HostEnvironment, Simulator
from regrow.environments.suite.base import Suite, facts
from regrow.errors import require
from regrow.types import Continuous


@dataclass(frozen=True)
class Control(HostEnvironment):
    """A task of the DeepMind Control Suite, as in control/walker-walk; needs dm_control.

    `task`: domain and task, joined by a hyphen. `action_repeat`: control steps per env step; their
    rewards are summed.
    """

    named_by: ClassVar[str] = "task"

    task: str = "walker-walk"
    action_repeat: int = 1

    def __post_init__(self) -> None:
        require(
            self.action_repeat >= 1, f"action_repeat is {self.action_repeat}; it must be at least 1"
        )

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """A vector."""
        return (facts("control", self.task).observation,)

    @property
    def observation_dtype(self) -> np.dtype[Any]:
        """Floats, rounded from the doubles of MuJoCo."""
        return np.dtype(np.float32)

    @property
    def action_space(self) -> Continuous:
        """A number per actuator; −1 and 1 are the ends of its range."""
        return Continuous(facts("control", self.task).actions)

    @property
    def snapshot_size(self) -> int:
        """Some kilobytes, as many as the task's model needs."""
        return facts("control", self.task).snapshot

    def simulator(self) -> Simulator:
        """A new simulation; `RegrowError` without dm_control, or where there is no such task."""
        return Suite("control", self.task, self.action_repeat)

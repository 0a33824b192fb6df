"""The DeepMind Control Suite (Tassa et al. 2018, arXiv 1801.00690) with state observations.

It is simulated by dm_control. An observation concatenates all that the task observes. An episode is
truncated after 1,000 control steps, so its end is bootstrapped. A copy of a simulation continues
bit for bit as the original (`regrow.environments.suite.base`).
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
        """float32, rounded from MuJoCo's float64."""
        return np.dtype(np.float32)

    @property
    def action_space(self) -> Continuous:
        """One number per actuator; −1 and 1 are the bounds of its range."""
        return Continuous(facts("control", self.task).actions)

    @property
    def snapshot_size(self) -> int:
        """Some kilobytes, depending on the task's model."""
        return facts("control", self.task).snapshot

    def simulator(self) -> Simulator:
        """A new simulation; raises `RegrowError` if dm_control or the task is missing."""
        return Suite("control", self.task, self.action_repeat)

"""Environments of fixed episodes that do what they may not do, on the device and on the host."""

import time
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from regrow.environments.base import DeviceEnvironment, HostEnvironment, HostStep, Simulator, Step
from regrow.types import Continuous, Discrete


class At(NamedTuple):
    """Env steps of training, and of the episode."""

    total: jnp.ndarray
    time: jnp.ndarray


@dataclass(frozen=True)
class Device(DeviceEnvironment):
    """Episodes of `length` steps that pay `pay` each; `fault` comes at env step `at` of training.

    `fault`: "reward", "observation" or "". `clock`: whether episodes are truncated.
    """

    length: int = 10
    pay: float = 1.0
    fault: str = ""
    at: int = 0
    clock: bool = False
    vectors: bool = False

    observation_shape: ClassVar = (2,)
    observation_dtype: ClassVar = np.dtype(np.float32)
    num_actions: ClassVar = 2

    @property
    def action_space(self):
        return Continuous(1) if self.vectors else Discrete(2)

    def reset(self, key):
        return At(jnp.array(0), jnp.array(0)), jnp.zeros(2)

    def restart(self, state, key):
        return At(state.total, jnp.array(0)), jnp.zeros(2)

    def step(self, state, action, key):
        total, time = state.total + 1, state.time + 1
        odd = jnp.where(total == self.at, jnp.nan, 0.0)
        reward = self.pay + (odd if self.fault == "reward" else 0.0)
        seen = jnp.array([1.0, 0.0]) * time / self.length
        seen = seen + (odd if self.fault == "observation" else 0.0)
        over = time >= self.length
        ends = (over & (not self.clock), over & self.clock)
        return At(total, time), Step(seen, jnp.float32(reward), *ends)


@dataclass(frozen=True)
class Host(HostEnvironment):
    """The same on the host.

    `fault` may be "raise", "shape", "dtype", "exit", "hang", "interrupt" or "close", too.
    """

    length: int = 10
    pay: float = 1.0
    fault: str = ""
    at: int = 0
    copied: bool = False
    vectors: bool = False

    observation_shape: ClassVar = (2,)
    observation_dtype: ClassVar = np.dtype(np.float32)

    @property
    def action_space(self):
        return Continuous(1) if self.vectors else Discrete(2)

    @property
    def snapshot_size(self):
        return 8 if self.copied else 0

    def simulator(self):
        return Counted(self)


class Counted(Simulator):
    """Counts how many there are, and how many at once."""

    made = closed = most = 0

    def __init__(self, world: Host):
        self.world, self.total, self.time = world, 0, 0
        Counted.made += 1
        Counted.most = max(Counted.most, Counted.made - Counted.closed)

    @classmethod
    def forget(cls) -> None:
        cls.made = cls.closed = cls.most = 0

    def close(self):
        Counted.closed += 1
        if self.world.fault == "close":
            raise RuntimeError("the window is gone")

    def reset(self, seed):
        self.time = 0
        return np.zeros(2, np.float32)

    def step(self, action):
        self.total, self.time = self.total + 1, self.time + 1
        fault = self.world.fault if self.total == self.world.at else ""
        if fault == "raise":
            raise ConnectionResetError("the simulator hung up")
        if fault == "hang":
            time.sleep(30)
        if fault == "exit":
            raise SystemExit(3)
        if fault == "interrupt":
            raise KeyboardInterrupt
        seen = np.array([self.time / self.world.length, 0.0], np.float32)
        if fault == "observation":
            seen[1] = np.inf
        if fault == "shape":
            seen = seen[None]
        if fault == "dtype":
            seen = seen.astype(np.complex64)
        reward = float("nan") if fault == "reward" else self.world.pay
        return HostStep(seen, reward, self.time >= self.world.length, False)

    def snapshot(self):
        return np.array([self.total, self.time], np.int32).view(np.uint8)[
            : self.world.snapshot_size
        ]

    def restore(self, snapshot):
        self.total, self.time = (int(n) for n in snapshot.view(np.int32))

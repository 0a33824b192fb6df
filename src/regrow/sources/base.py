"""What sources share: those of this library's own agents, and those of PyTorch."""

import abc
import functools
import math
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, cast

import jax
import numpy as np

from regrow.agents.base import Agent
from regrow.diagnosis.plan import BINS
from regrow.diagnosis.subject import Subject
from regrow.environments.base import DeviceEnvironment, Environment, HostEnvironment
from regrow.errors import require
from regrow.files.places import Place
from regrow.files.signatures import signed
from regrow.interventions.base import Intervention
from regrow.learners.learner import learners
from regrow.registry import describe, make
from regrow.stats.curves import final_return, learning_curve
from regrow.training.checkpoint import load, writer
from regrow.training.environment_checks import check_before_training
from regrow.training.flops import flops
from regrow.training.run import LONGEST, Run, abstract_state, random_policy
from regrow.types import Event, Log

RANDOM_STEPS = 10_000
_PROCESS = 1_200_000_000
"""Bytes that a worker process takes without the state of its agent, while it compiles.

Measured: 0.8 GB with MinAtar's Breakout, 1.2 GB with Seaquest.
"""


@dataclass(frozen=True)
class RunSource:
    """An agent and an environment of this library; its Subjects are Runs."""

    agent: Agent
    environment: Environment

    def __post_init__(self) -> None:
        if isinstance(self.environment, DeviceEnvironment):
            self.environment.with_num_envs(self.agent.num_envs)

    @property
    def round(self) -> int:
        """Env steps of a round of the agent."""
        return self.agent.env_steps_per_round

    @property
    def splits(self) -> int:
        """Layers of the smallest of the agent's networks."""
        held = learners(abstract_state(self.agent, self.environment, ()).agent).values()
        return min(len(learner.network.layers) for learner in held)

    @property
    def restarts(self) -> bool:
        """Whether the simulation cannot be copied."""
        environment = self.environment
        return isinstance(environment, HostEnvironment) and environment.snapshot_size == 0

    def start(self, seed: int) -> Run:
        """A Run at env step 0."""
        return Run.start(self.agent, self.environment, seed=seed)

    def writer(
        self, subject: Subject, label: str, transitions: int | None = None
    ) -> Callable[[BinaryIO], object]:
        """Writes a checkpoint."""
        assert isinstance(subject, Run), "a Subject of this source"
        return writer(subject, label, transitions)

    def load(self, path: Place, label: str) -> Run:
        """The Run of a checkpoint."""
        return load(path, label)

    def check(self, interventions: Sequence[Intervention]) -> None:
        """`RegrowError` where an intervention does not fit, or a package is missing."""
        _ = self.environment.observation_shape, self.environment.action_space
        if interventions:
            abstract_state(self.agent, self.environment, interventions)

    def check_environment(self) -> None:
        """`check_environment`, in short."""
        check_before_training(self.environment)

    def memory(self) -> int:
        """The Run, the fork it is compared with, and the copy that is written, beside the rest."""
        state = abstract_state(self.agent, self.environment, ())
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        return _PROCESS + 3 * int(size)

    @property
    def agents(self) -> int | None:
        """One for every seed."""
        return None

    @property
    def starts_at(self) -> int:
        """The beginning."""
        return 0

    @property
    def remarks(self) -> tuple[tuple[str, str], ...]:
        """None."""
        return ()

    def so_far(self, seed: int) -> tuple[float, ...]:
        """Nothing: it starts at env step 0."""
        del seed
        return ()

    def random_return(self, start: int, end: int) -> tuple[float, float]:
        """What actions drawn uniformly earn, and its standard error.

        Where the task stays as it is, that is what they earn at any time; else it is measured over
        these env steps of every environment.
        """
        environment, count = self.environment, self.agent.num_envs
        if isinstance(environment, DeviceEnvironment) and environment.shifts:
            log = random_policy(environment.with_num_envs(count), end // count, seed=0)
            return _final_mean(Log(*(entries[start // count :] for entries in log)))
        log = random_policy(environment, RANDOM_STEPS, seed=0)
        if not (log.terminated | log.truncated).any():
            log = random_policy(environment, RANDOM_STEPS + LONGEST, seed=0)
        return _mean_return(log)

    def random_return_is_of(self, start: int, end: int) -> tuple[Any, ...]:
        """The environment; where its task changes, when, and how many there are, too."""
        shifts = self.environment.shifts
        when = (start, end - start, self.agent.num_envs) if shifts else ()
        return repr(self.environment), when

    def flops(self, history: Sequence[Event], start: int, end: int) -> float:
        """What the compiler counts for acting and updating."""
        return flops(self.agent, self.environment, history, start, end)

    def config(self) -> dict[str, Any]:
        """Both in the grammar of `regrow.registry`."""
        return {"agent": describe(self.agent), "environment": describe(self.environment)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "RunSource":
        """The agent and the environment that `config` wrote down."""
        return cls(make("agents", config["agent"]), make("environments", config["environment"]))

    def parts(self) -> dict[str, str]:
        """Both with all of their fields."""
        return {"agent": repr(self.agent), "environment": repr(self.environment)}


@dataclass(frozen=True, kw_only=True)
class TorchSource(abc.ABC):
    """What sources of PyTorch agents share; their Subjects are written as bytes.

    `env_steps_per_round`, `layers`: read from a Subject.
    """

    env_steps_per_round: int
    layers: int

    @property
    def round(self) -> int:
        """Env steps from one update to the next."""
        return self.env_steps_per_round

    @property
    def splits(self) -> int:
        """Layers of the smallest of its networks, where they are known; else 1."""
        return self.layers

    def memory(self) -> int:
        """The Subject, the fork it is compared with, and the copy that is written, twice."""
        return _PROCESS + 4 * _size_of(self)

    @abc.abstractmethod
    def untouched(self) -> Any:
        """A Subject to look at, which is neither changed nor trained."""

    def writer(
        self, subject: Subject, label: str, transitions: int | None = None
    ) -> Callable[[BinaryIO], object]:
        """Writes a signed snapshot, with all of its experience."""
        del transitions
        content = signed(cast("_Written", subject).write(), label)
        return lambda file: file.write(content)

    def check(self, interventions: Sequence[Intervention]) -> None:
        """`RegrowError` where one cannot be carried out on these networks."""
        from regrow.torch.interventions import require_supported

        require_supported(interventions, self.untouched().networks())

    def check_environment(self) -> None:
        """`RegrowError` where a Subject, its environment with it, cannot be copied."""
        self.untouched().fork()

    def so_far(self, seed: int) -> tuple[float, ...]:
        """Not known."""
        del seed
        return ()

    def random_return(self, start: int, end: int) -> tuple[float, float]:
        """What actions drawn uniformly earn, and its standard error; NaN where nobody can say."""
        del start, end
        return mean_and_error(self.untouched().played_at_random(RANDOM_STEPS))

    def flops(self, history: Sequence[Event], start: int, end: int) -> float:
        """Not known."""
        del history, start, end
        return math.nan


@functools.lru_cache(maxsize=1)  # asked at every look; a replay may be large
def _size_of(source: TorchSource) -> int:
    return len(source.untouched().write())


class _Written(Protocol):
    def write(self) -> bytes: ...


def one_thread_in_workers() -> None:
    """A process per core does the work: threads of several would wait for each other."""
    import torch

    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)


def require_alike(
    held: Sequence[Any], places: Sequence[Place], names: Sequence[str], what: str
) -> None:
    """`RegrowError` where sources of one file each differ in a field. `what`: what they hold."""
    for other, place in zip(held, places, strict=True):
        for name in names:
            ours, theirs = getattr(held[0], name), getattr(other, name)
            require(
                ours == theirs,
                f"{place} and {places[0]} differ in {name} ({theirs!r} and {ours!r}); a diagnosis "
                f"of several {what} needs {what} that were trained alike",
            )


def _mean_return(log: Log) -> tuple[float, float]:
    """(mean return of the episodes that end in a log, its standard error).

    Where none ends, what the last one has collected.
    """
    ended = log.terminated | log.truncated
    return mean_and_error(log.episode_return[ended] if ended.any() else log.episode_return[-1:])


def mean_and_error(returns: Any) -> tuple[float, float]:
    """(mean, its standard error); the error of fewer than two is not known, and 0 stands for it."""
    counted = np.asarray(returns, np.float64)
    error = counted.std(ddof=1) / np.sqrt(len(counted)) if len(counted) > 1 else 0.0
    return float(counted.mean()), float(error)


def _final_mean(log: Log) -> tuple[float, float]:
    """What an arm with this log after the fork has for its `final`, from the episodes it ends.

    The standard error is that of its episodes.
    """
    ended = log.terminated | log.truncated
    mean, error = _mean_return(log)
    if ended.any():
        mean = final_return(learning_curve(log.episode_return, ended, bins=BINS))
    return mean, error

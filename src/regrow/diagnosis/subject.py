"""What a diagnosis needs of an agent, whoever trained it: a Source makes Subjects.

A Subject is a training run at some env step: it is forked, changed, trained on and measured. A
`Run` is one. A Source is where Subjects come from: plain data, of which a worker process, or one on
another machine, makes the same. The members of the family `regrow.sources` are Sources.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from regrow.files.places import Place
from regrow.interventions.base import Intervention
from regrow.types import Event, Log


@runtime_checkable
class Subject(Protocol):
    """A training run that can be forked."""

    @property
    def env_steps(self) -> int:
        """Env steps taken so far."""
        ...

    @property
    def num_envs(self) -> int:
        """How many environments take turns in its logs."""
        ...

    @property
    def discount(self) -> float:
        """The discount factor of the values in its logs."""
        ...

    @property
    def history(self) -> tuple[Event, ...]:
        """The interventions that were carried out, in order."""
        ...

    @property
    def restarts(self) -> tuple[int, ...]:
        """Env steps at which new episodes were begun, since a simulation could not be copied."""
        ...

    @property
    def used_up(self) -> bool:
        """Whether `advance` was called on it."""
        ...

    def fork(self, replicate: int = 0) -> "Subject":
        """A copy that shares nothing with this one.

        Replicate 0 continues exactly as this one would, others with random numbers of their own.
        """
        ...

    def intervene(self, intervention: Intervention) -> "Subject":
        """A copy on which an intervention was carried out; an Event in its history."""
        ...

    def advance(self, env_steps: int) -> "tuple[Subject, Log]":
        """(the Subject so many env steps later, what every env step reported).

        Raises `NotFiniteError` where its numbers are no longer finite. This one is used up.
        """
        ...

    def play_out(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(returns of the running episodes at their end, whether each ended); (num_envs,) each."""
        ...

    def learned_rewards(self, log: Log) -> NDArray[np.float32]:
        """The rewards of a log as the agent learns from them: clipped, normalised; (env_steps,)."""
        ...

    def losses(self) -> dict[str, float]:
        """The losses of now, by name; none where there are none."""
        ...

    def measure(
        self, probes: Sequence[str] = (), *, fresh: bool = False, since: Any = None
    ) -> dict[str, float]:
        """Probes by name, as `dead_units.head`, or `actor.dead_units.head` of several networks.

        `probes`: which; by default all that are not costly. `fresh`: of newly initialised networks
        on the same observations. `since`: what measures of change compare with.
        """
        ...


@runtime_checkable
class Source(Protocol):
    """Where Subjects come from: plain data that can be written down and compared."""

    @property
    def round(self) -> int:
        """The smallest number of env steps that a Subject can advance by."""
        ...

    @property
    def splits(self) -> int:
        """At how many layers an injection can begin, the smallest network's."""
        ...

    @property
    def restarts(self) -> bool:
        """Whether a fork begins new episodes, for want of a copy of the simulation."""
        ...

    def start(self, seed: int) -> Subject:
        """A Subject at its first env step."""
        ...

    def writer(
        self, subject: Subject, label: str, transitions: int | None = None
    ) -> Callable[[BinaryIO], object]:
        """A copy of a Subject, as a function that writes it to a file. `label`: what it is of.

        `transitions`: how many of its experience are needed; it may write all.
        """
        ...

    def load(self, path: Place, label: str) -> Subject:
        """The Subject that was written; `DamagedError` for a file that is not what was written."""
        ...

    def check(self, interventions: Sequence[Intervention]) -> None:
        """`RegrowError` where these cannot be carried out, one after the other."""
        ...

    def check_environment(self) -> None:
        """`RegrowError` where the environment does what it may not do."""
        ...

    def memory(self) -> int:
        """Bytes that a job needs at most, about; 0 where nobody can say."""
        ...

    @property
    def agents(self) -> int | None:
        """How many different Subjects there are; None: one for every seed."""
        ...

    @property
    def starts_at(self) -> int:
        """The env step at which Subjects start."""
        ...

    @property
    def remarks(self) -> Sequence[tuple[str, str]]:
        """(code, text) of findings that hold whatever comes out: how the Subjects were obtained."""
        ...

    def so_far(self, seed: int) -> tuple[float, ...]:
        """Returns of time bins from env step 0 to where a Subject starts; () where that is 0."""
        ...

    def random_return(self, start: int, end: int) -> tuple[float, float]:
        """What a random policy earns between two env steps of training, and its standard error."""
        ...

    def random_return_is_of(self, start: int, end: int) -> Sequence[Any]:
        """What that number depends on, as plain data."""
        ...

    def flops(self, history: Sequence[Event], start: int, end: int) -> float:
        """FLOPs from env step `start` to `end`, `history` carried out; NaN where unknown."""
        ...

    def config(self) -> dict[str, Any]:
        """The source as plain data: "source", "agent" and "environment" at least."""
        ...

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Source":
        """The source that `config` wrote down."""
        ...

    def parts(self) -> dict[str, str]:
        """ "agent" and "environment" with all of their fields, also those at their defaults."""
        ...

"""Subjects that a function of a script makes: `my_script.py:make_subject`."""

import math
import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from regrow.diagnosis.subject import Subject
from regrow.errors import RegrowError, in_a_line, require
from regrow.files.atomic import write_atomically
from regrow.interventions.base import Intervention
from regrow.types import Event

if TYPE_CHECKING:
    from regrow.torch.loop import LoopSubject

RANDOM_STEPS = 10_000


@dataclass(frozen=True)
class Script:
    """A function of a seed that makes a `regrow.torch.LoopSubject`.

    `function`: as in `my_script.py:make_subject`. `env_steps_per_round` and `layers` were read from
    a Subject by `of`; `content` is a digest of the file.
    """

    function: str
    env_steps_per_round: int
    layers: int
    content: str

    @staticmethod
    def of(function: str) -> "Script":
        """The Subjects that a function makes; `RegrowError` where it makes none."""
        subject = _made(function, 0)
        layers = min(one.splits for one in subject.learners(subject.state))
        return Script(function, subject.round, layers, _digest(function))

    @property
    def round(self) -> int:
        """Env steps between two yields of the loop."""
        return self.env_steps_per_round

    @property
    def splits(self) -> int:
        """Layers of the smallest of its networks, where they are known; else 1."""
        return self.layers

    @property
    def restarts(self) -> bool:
        """Never: the environment is part of the state."""
        return False

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

    def start(self, seed: int) -> Any:
        """A Subject from the seed."""
        return _made(self.function, seed)

    def save(self, subject: Subject, path: Path) -> None:
        """Writes a snapshot."""
        content = cast("LoopSubject", subject).write()
        write_atomically(path, lambda file: file.write(content))

    def load(self, path: Path) -> Any:
        """The Subject of a snapshot."""
        from regrow.torch.loop import LoopSubject

        _named(self.function)  # the classes that it names
        return LoopSubject.read(path.read_bytes())

    def check(self, interventions: Sequence[Intervention]) -> None:
        """`RegrowError` where one cannot be carried out on its networks."""
        from regrow.torch.interventions import require_supported

        subject = self.start(0)
        require_supported(interventions, subject.learners(subject.state))
        subject.fork()

    def check_environment(self) -> None:
        """Nothing: it is the script's own."""

    def so_far(self, seed: int) -> tuple[float, ...]:
        """Nothing: it starts at env step 0."""
        del seed
        return ()

    def random_return(self, start: int, end: int) -> tuple[float, float]:
        """What actions drawn uniformly earn, and its standard error; NaN without an environment."""
        del start, end
        subject = self.start(0)
        if subject.environment is None:
            return math.nan, 0.0
        earned = subject.played_at_random(RANDOM_STEPS)
        error = earned.std(ddof=1) / np.sqrt(len(earned)) if len(earned) > 1 else 0.0
        return float(earned.mean()), float(error)

    def random_return_is_of(self, start: int, end: int) -> tuple[Any, ...]:
        """The script."""
        del start, end
        return self.function, self.content

    def flops(self, history: Sequence[Event], start: int, end: int) -> float:
        """Not known."""
        del history, start, end
        return math.nan

    def config(self) -> dict[str, Any]:
        """The function."""
        return {"source": "script", "agent": self.function, "environment": "its own"}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Script":
        """The function that `config` wrote down."""
        return cls.of(config["agent"])

    def parts(self) -> dict[str, str]:
        """The function, and what its file holds."""
        return {"agent": f"{self.function} {self.content}", "environment": "its own"}


def _named(function: str) -> Any:
    import torch

    from regrow.torch.scripts import named_function

    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # a process per core does the work
    return named_function(function)


def _made(function: str, seed: int) -> Any:
    from regrow.torch.loop import LoopSubject
    from regrow.torch.randomness import Randomness, own_randomness

    make = _named(function)
    try:
        with own_randomness(Randomness.of(seed)):
            subject = make(seed)
            randomness = Randomness.now()
    except RegrowError:
        raise
    except Exception as error:
        raise RegrowError(f"{function}({seed}) raised {in_a_line(error)}") from error
    require(
        isinstance(subject, LoopSubject),
        f"{function}({seed}) returned a {type(subject).__name__}; it must return a "
        "regrow.torch.LoopSubject",
    )
    from dataclasses import replace

    return replace(subject, randomness=randomness)


def _digest(function: str) -> str:
    import hashlib

    path = Path(function.rpartition(":")[0])
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""

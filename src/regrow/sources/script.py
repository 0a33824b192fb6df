"""Subjects that a function of a script makes: `my_script.py:make_subject`."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regrow.errors import RegrowError, in_a_line, require
from regrow.files.places import Place
from regrow.files.signatures import read_signed
from regrow.sources.base import TorchSource, one_thread_in_workers


@dataclass(frozen=True, kw_only=True)
class Script(TorchSource):
    """A function of a seed that makes a `regrow.torch.LoopSubject`.

    `function`: as in `my_script.py:make_subject`. `content`: a digest of the file.
    """

    function: str
    content: str

    @staticmethod
    def of(function: str) -> "Script":
        """The Subjects that a function makes; `RegrowError` where it makes none."""
        subject = _made(function, 0)
        return Script(
            function=function,
            content=_digest(function),
            env_steps_per_round=subject.round,
            layers=min(one.splits for one in subject.networks()),
        )

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

    def load(self, path: Place, label: str) -> Any:
        """The Subject of a snapshot."""
        from regrow.torch.loop import LoopSubject

        _named(self.function)  # the classes that it names
        return LoopSubject.read(read_signed(path, label))

    def untouched(self) -> Any:
        """A Subject from seed 0."""
        return self.start(0)

    def random_return_is_of(self, start: int, end: int) -> tuple[Any, ...]:
        """The script."""
        del start, end
        return self.function, self.content

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
    from regrow.torch.scripts import named_function

    one_thread_in_workers()
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
    return replace(subject, randomness=randomness)


def _digest(function: str) -> str:
    path = Path(function.rpartition(":")[0])
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""

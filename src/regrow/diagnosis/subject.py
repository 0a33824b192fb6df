"""What a diagnosis needs of the thing it diagnoses: copy, intervene, advance, probe.

A `Run` has it. The cells of a diagnosis also save and load their Runs; an adapter for agents that
were trained elsewhere will need these members and that.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from regrow.interventions.base import Intervention
from regrow.probes.base import Probe
from regrow.types import Log


@runtime_checkable
class Subject(Protocol):
    """A training run that can be forked."""

    @property
    def env_steps(self) -> int:
        """Env steps taken so far."""
        ...

    def fork(self, replicate: int = 0) -> "Subject":
        """A copy that shares nothing; `replicate` other than 0 gives it draws of its own."""
        ...

    def intervene(self, intervention: Intervention) -> "Subject":
        """A copy on whose agent the intervention was carried out."""
        ...

    def advance(self, env_steps: int) -> tuple["Subject", Log]:
        """(the subject so many env steps later, what every step reported)."""
        ...

    def probe(
        self, probes: Sequence[Probe], *, count: int = 512, fresh: bool = False
    ) -> list[dict[str, float]]:
        """For every probe its value for each Learner; `fresh`: for newly drawn networks."""
        ...

"""Runs that `regrow train` has trained: each is an agent to fork where it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regrow.diagnosis.plan import BINS
from regrow.errors import require
from regrow.files.places import Place, place
from regrow.interventions.base import Intervention
from regrow.registry import describe, make
from regrow.sources.base import RunSource, require_alike
from regrow.training.run import Run, abstract_state
from regrow.training.saved import load_run, read_training
from regrow.types import Event


@dataclass(frozen=True)
class Trained(RunSource):
    """Folders of `regrow train`, all of one agent and environment, trained equally long.

    `env_steps`: where they are, and so where a diagnosis forks. `history`: what was done to the
    first of them on the way.
    """

    runs: tuple[str, ...] = ()
    env_steps: int = 0
    history: tuple[Event, ...] = ()

    @staticmethod
    def of(folders: Sequence[Place], *, trust: bool = False) -> "Trained":
        """The runs in these folders. Raises `RegrowError` where they differ in what was trained."""
        held = [Trained._alone(folder, trust) for folder in folders]
        first = held[0]
        require_alike(held, folders, ("agent", "environment", "env_steps"), "runs")
        runs = tuple(run for one in held for run in one.runs)
        require(len(set(runs)) == len(runs), "a run is given twice")
        return Trained(first.agent, first.environment, runs, first.env_steps, first.history)

    @staticmethod
    def _alone(folder: Place, trust: bool) -> "Trained":
        require(
            (folder / "run.ckpt").is_file(),
            f"there is no run in {folder}; give the --out of a `regrow train`",
        )
        run = load_run(folder, trust=trust)
        runs = (str(folder.resolve()),)
        return Trained(run.agent, run.environment, runs, run.env_steps, run.history)

    @property
    def agents(self) -> int | None:
        """How many there are."""
        return len(self.runs)

    @property
    def starts_at(self) -> int:
        """Where the runs are."""
        return self.env_steps

    def start(self, seed: int) -> Run:
        """The run, where it is."""
        return load_run(place(self.runs[seed]))

    def so_far(self, seed: int) -> tuple[float, ...]:
        """What its episodes returned, in bins of time."""
        episodes = read_training(place(self.runs[seed])).episodes
        if not episodes.returns.size:
            return ()
        return tuple(episodes.binned(self.env_steps, min(BINS, self.env_steps)).tolist())

    def check(self, interventions: Sequence[Intervention]) -> None:
        """`RegrowError` where an intervention does not fit what the runs have become."""
        done = [make("interventions", event.intervention) for event in self.history]
        abstract_state(self.agent, self.environment, [*done, *interventions])

    def flops(self, history: Sequence[Event], start: int, end: int) -> float:
        """What the compiler counts, with what was done to the runs before."""
        return super().flops([*self.history, *history], start, end)

    def config(self) -> dict[str, Any]:
        """The folders, and what was trained in them."""
        return {
            "source": "trained",
            "agent": describe(self.agent),
            "environment": describe(self.environment),
            "runs": list(self.runs),
            "env_steps": self.env_steps,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Trained":
        """The runs that `config` wrote down."""
        return cls.of([place(run) for run in config["runs"]])

    def parts(self) -> dict[str, str]:
        """Agent and environment with all of their fields, and the folders."""
        return {**super().parts(), "runs": repr(self.runs), "at": repr(self.env_steps)}

"""Models of Stable-Baselines3, from zip files or from memory: each is forked where it is."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regrow.errors import require, require_package
from regrow.files.places import Place
from regrow.files.signatures import read_signed
from regrow.sources.base import TorchSource, one_thread_in_workers, require_alike

if TYPE_CHECKING:
    from regrow.torch.sb3.subject import Sb3Subject

REFILL = 10_000
"""Transitions that the policy collects where no replay buffer is beside a zip."""
SNAPSHOT = ".snapshot"
"""Models from memory: written whole and signed, by `regrow.sb3.diagnose`."""
MODEL = "model"
"""What their signature says that they are."""


@dataclass(frozen=True, kw_only=True)
class Sb3(TorchSource):
    """Models of Stable-Baselines3 in files, all of one algorithm, trained equally long.

    `models`: their files. `environment`: its name, as `regrow.torch.sb3.environments` makes it; ""
    where the snapshots hold it. `trust`: whether code in the files may run. `total`: the env steps
    that schedules count towards. What else there is was read from the files by `of`.
    """

    models: tuple[str, ...]
    environment: str
    trust: bool
    algorithm: str
    env_steps: int
    num_envs: int
    copied: bool
    refilled: bool
    total: int
    digest: str

    @staticmethod
    def of(
        paths: Sequence[Path], environment: str, *, trust: bool = False, total: int | None = None
    ) -> "Sb3":
        """The models of these files.

        Raises `RegrowError` for files that hold none, or that do not fit together or with the
        environment.
        """
        require_package("stable_baselines3", "a model of Stable-Baselines3", "sb3")
        held = [_alone(path, environment, trust=trust, total=total) for path in paths]
        first = held[0]
        alike = ("algorithm", "env_steps", "env_steps_per_round", "layers")
        require_alike(held, paths, alike, "models")
        models = tuple(model for one in held for model in one.models)
        require(len(set(models)) == len(models), "a model is given twice")
        digests = hashlib.sha256("".join(one.digest for one in held).encode()).hexdigest()
        refilled = any(one.refilled for one in held)
        return replace(first, models=models, digest=digests, refilled=refilled)

    @property
    def restarts(self) -> bool:
        """Whether the environment cannot be copied mid-episode."""
        return not self.copied

    @property
    def agents(self) -> int | None:
        """How many models there are."""
        return len(self.models)

    @property
    def starts_at(self) -> int:
        """The env steps that they were trained for."""
        return self.env_steps

    def start(self, seed: int) -> "Sb3Subject":
        """The model, where it is."""
        path = Path(self.models[seed])
        subject = _started(path, self.environment, trust=self.trust, copied=self.copied)
        return replace(subject, total=self.total)

    def untouched(self) -> "Sb3Subject":
        """The first model, as it is in its file."""
        return _first(self)

    def load(self, path: Place, label: str) -> "Sb3Subject":
        """The Subject of a snapshot."""
        from regrow.torch.sb3.subject import Sb3Subject

        one_thread_in_workers()
        return Sb3Subject.read(read_signed(path, label))

    @property
    def remarks(self) -> tuple[tuple[str, str], ...]:
        """What a file does not hold: the replay buffer, say."""
        found = list[tuple[str, str]]()
        if self.refilled:
            found.append(
                (
                    "replay_refilled",
                    "no replay buffer lies beside the model, so that its policy collected up to "
                    f"{REFILL:,} transitions before the fork; with model_replay_buffer.pkl "
                    "(`model.save_replay_buffer`) the fork is as the training was",
                )
            )
        return tuple(found)

    def random_return_is_of(self, start: int, end: int) -> tuple[Any, ...]:
        """The environment, and the files where it is in them."""
        del start, end
        return self.environment, self.digest if not self.environment else ""

    def config(self) -> dict[str, Any]:
        """The files and what was read from them."""
        return {
            "source": "sb3",
            "agent": f"sb3/{self.algorithm.lower()}",
            "environment": self.environment or "its own",
            "models": list(self.models),
            "trust": self.trust,
            "env_steps": self.env_steps,
            "total": self.total,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Sb3":
        """The models that `config` wrote down."""
        name = "" if config["environment"] == "its own" else config["environment"]
        paths = [Path(path) for path in config["models"]]
        return cls.of(paths, name, trust=config["trust"], total=config["total"])

    def parts(self) -> dict[str, str]:
        """What the numbers depend on: the content of the files, the environment, the total."""
        return {
            "agent": f"{self.algorithm} {self.digest}",
            "environment": f"{self.environment} × {self.num_envs}, copied: {self.copied}",
            "total": repr(self.total),
        }


def _alone(path: Path, environment: str, *, trust: bool, total: int | None) -> Sb3:
    from regrow.torch.sb3.algorithms import algorithm_of, learners_of
    from regrow.torch.sb3.subject import round_of
    from regrow.torch.sb3.zips import beside, number_of_environments

    require(path.is_file(), f"there is no file {path}")
    copied = True
    if path.suffix != SNAPSHOT:
        require(
            bool(environment),
            f"{path} holds no environment; name it: --env CartPole-v1, or my_file.py:make_env",
        )
        copied = not _why_not_copied(environment, number_of_environments(path))
    subject = _started(path, environment, trust=trust, copied=copied, refill=False)
    model = subject.model
    require(subject.env_steps > 0, f"the model of {path} was not trained yet; train it first")
    content = hashlib.sha256(path.read_bytes())
    for other in beside(path):
        content.update(b"" if other is None else other.read_bytes())
    return Sb3(
        models=(str(path.resolve()),),
        environment=environment,
        trust=trust,
        algorithm=algorithm_of(model),
        env_steps=subject.env_steps,
        num_envs=subject.num_envs,
        env_steps_per_round=round_of(model),
        layers=min(learner.splits for learner in learners_of(model)),
        copied=subject.environments is None,
        refilled=subject.lacks_experience and hasattr(model, "replay_buffer"),
        total=subject.total if total is None else total,
        digest=content.hexdigest(),
    )


@functools.cache
def _why_not_copied(environment: str, count: int) -> str:
    from regrow.torch.sb3.environments import Environments, why_not_copied

    return why_not_copied(Environments(environment, count).make)


def _started(
    path: Path, environment: str, *, trust: bool, copied: bool, refill: bool = True
) -> "Sb3Subject":
    """The Subject of a file; its replay buffer filled by its policy where none is beside it."""
    one_thread_in_workers()
    from regrow.torch.randomness import Randomness
    from regrow.torch.sb3.environments import Environments, begin_anew
    from regrow.torch.sb3.subject import Sb3Subject
    from regrow.torch.sb3.zips import load_beside, load_model, normalized, number_of_environments

    if path.suffix == SNAPSHOT:
        return Sb3Subject.read(read_signed(path, MODEL))
    environments = Environments(environment, number_of_environments(path))
    made = normalized(environments.make(), path, trust=trust)
    model = load_model(path, made, trust=trust)
    begin_anew(model, 0)
    load_beside(model, path, trust=trust)
    subject = Sb3Subject.of(model, Randomness.of(0), None if copied else environments)
    return subject.refilled(REFILL) if refill else subject


@functools.lru_cache(maxsize=1)
def _first(source: Sb3) -> "Sb3Subject":
    path = Path(source.models[0])
    return _started(
        path, source.environment, trust=source.trust, copied=source.copied, refill=False
    )

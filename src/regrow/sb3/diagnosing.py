"""The diagnosis of a model that is in memory."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from regrow.diagnosis.diagnose import diagnose as carry_out
from regrow.diagnosis.plan import DEFAULT_ARMS, SEEDS, SMALLEST_EFFECT, Arm, Plan
from regrow.diagnosis.verdict import Verdict
from regrow.errors import RegrowError, require
from regrow.execution.processes import Processes, cores
from regrow.execution.tasks import in_order
from regrow.files.atomic import write_atomically
from regrow.files.signatures import read_signed, signed
from regrow.registry import make
from regrow.sources.sb3 import MODEL, SNAPSHOT, Sb3
from regrow.torch.randomness import Randomness
from regrow.torch.sb3.environments import Environments, begin_anew
from regrow.torch.sb3.subject import Sb3Subject
from regrow.types import Report, silent


def diagnose(
    model: Any,
    env: Any = None,
    *,
    horizon: int,
    folder: str | Path | None = None,
    arms: Sequence[str] = DEFAULT_ARMS,
    before: Sequence[str] = (),
    replicates: int = SEEDS,
    smallest_effect: float = SMALLEST_EFFECT,
    returns_range: tuple[float, float] | None = None,
    total: int | None = None,
    minutes: float = math.inf,
    processes: int | None = 1,
    report: Report = silent,
) -> Verdict:
    """Forks a model into arms, trains them on, and says whether it was losing plasticity.

    `env`: the environments to train on in, by default the model's own; a name as in
    `regrow diagnose --env` where they cannot be copied. `horizon`: env steps after the fork.
    `replicates`: the most runs of each arm; they are added until the verdict is settled, or
    `minutes` are over. `total`: the env steps that the model's schedules count towards, by default
    those of its last `learn`. `folder`: keeps what was done; `regrow report` draws it.
    `processes`: None is one per core. The model itself is not changed. Raises `RegrowError` for a
    model that was not trained yet, and for environments that cannot be copied.
    """
    require(model.num_timesteps > 0, "the model was not trained yet; call learn() first")
    with ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="regrow-"))
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"model{SNAPSHOT}"
        if file.is_file():
            _require_same(model, file)
        else:
            write_atomically(file, lambda held: held.write(signed(_snapshot(model, env), MODEL)))
        source = Sb3.of([file], "", total=total)
        plan = Plan(
            source,
            arms=tuple(Arm.parse(text) for text in arms),
            seeds=1,
            fork_at=source.env_steps,
            horizon=horizon,
            before=tuple(make("interventions", text) for text in before),
            smallest_effect=smallest_effect,
            replicates=replicates,
            returns_range=returns_range,
        )
        count = cores() if processes is None else processes
        execute = in_order if count == 1 else Processes(count)
        return carry_out(
            plan, folder / "diagnosis", execute=execute, report=report, minutes=minutes
        )


def _require_same(model: Any, file: Path) -> None:
    """`RegrowError` where a folder holds the diagnosis of another model, or of an earlier state."""
    held = Sb3Subject.read(read_signed(file, MODEL)).model
    ours, theirs = model.policy.state_dict(), held.policy.state_dict()
    same = ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name])
        for name, value in ours.items()
        if isinstance(value, torch.Tensor)
    )
    require(
        same and model.num_timesteps == held.num_timesteps,
        f"{file.parent} holds the diagnosis of another model, or of this one at "
        f"{held.num_timesteps} env steps; choose another folder",
    )


def _snapshot(model: Any, env: Any) -> bytes:
    """A model as it is, in these environments."""
    named = Environments(env, model.n_envs) if isinstance(env, str) else None
    with _in(model, None if named else env):
        require(model.env is not None, "the model has no environment; give env=")
        subject = Sb3Subject.of(model, Randomness.now(), named)
        try:
            content = subject.write()
            if model._last_obs is None and named is None:  # loaded from a zip, and not used since
                subject = Sb3Subject.read(content)
                begin_anew(subject.model, 0)
                content = subject.write()
            return content
        except RegrowError as error:
            raise RegrowError(
                f"the model {error}; if it is its environment, give env= as a name: 'CartPole-v1', "
                "or 'my_file.py:make_env'"
            ) from error


@contextmanager
def _in(model: Any, env: Any) -> Iterator[None]:
    """A model with other environments meanwhile."""
    if env is None:
        yield
        return
    kept = {name: getattr(model, name) for name in ("env", "n_envs", "_last_obs")}
    kept["_vec_normalize_env"] = model._vec_normalize_env
    try:
        model.set_env(env, force_reset=True)
        yield
    except (ValueError, AssertionError) as error:
        raise RegrowError(f"the model and env do not fit: {error}") from error
    finally:
        vars(model).update(kept)

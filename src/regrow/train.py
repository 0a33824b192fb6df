"""Training alone: one run in one folder, saved on the way, resumed exactly.

config.json        agent, environment, seed
run.ckpt           the Run, as of the last save
episodes.parquet   env_steps (at its end), return, length: a row per finished episode
"""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from regrow.agents.base import Agent
from regrow.checkpoint import SAVE_EVERY, claim_folder, load, save
from regrow.environments.base import Environment
from regrow.errors import RegrowError, require
from regrow.families import describe
from regrow.results import write_table
from regrow.run import Run
from regrow.types import Log, Report


class Episodes(NamedTuple):
    """Finished episodes: env steps of training at the end, undiscounted return, length."""

    env_steps: NDArray[np.int64]
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]

    def until(self, env_steps: int) -> "Episodes":
        """Those that end no later."""
        count = int(np.searchsorted(self.env_steps, env_steps, side="right"))
        return Episodes(self.env_steps[:count], self.returns[:count], self.lengths[:count])


def train(
    agent: Agent,
    environment: Environment,
    folder: Path,
    *,
    env_steps: int,
    seed: int = 0,
    resume: bool = False,
    report: Report,
) -> tuple[Run, Episodes]:
    """Trains until `env_steps` in all; (the Run, its episodes), both also in `folder`.

    Raises `RegrowError` where the folder holds a run and `resume` is False, or where it holds none
    and `resume` is True, or another run than the one described. Where
    `report` raises, what was done is saved; where anything else stops it, it was saved a minute ago
    at most.
    """
    folder, checkpoint = Path(folder), Path(folder) / "run.ckpt"
    per_round = agent.env_steps_per_round
    require(
        env_steps > 0 and env_steps % per_round == 0,
        f"env_steps is {env_steps}; it must be a positive multiple of {per_round}",
    )
    if resume and not checkpoint.is_file():
        raise RegrowError(f"there is no run to resume in {folder}; leave --resume out to start one")
    if not resume and checkpoint.is_file():
        raise RegrowError(f"{folder} holds a run already; add --resume, or choose another --out")
    config = {"agent": describe(agent), "environment": describe(environment), "seed": seed}
    claim_folder(folder, {"kind": "training", **config})
    if resume:
        run, episodes = load(checkpoint), _read(folder)
        episodes = episodes.until(run.env_steps)
        require(
            run.env_steps <= env_steps,
            f"the run in {folder} is at {run.env_steps} env steps, past the {env_steps} asked for",
        )
    else:
        run = Run.start(agent, environment, seed=seed)
        episodes = Episodes(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
    return _advanced(run, episodes, folder, env_steps, report)


def _advanced(
    run: Run, episodes: Episodes, folder: Path, until: int, report: Report
) -> tuple[Run, Episodes]:
    report("training", run.env_steps)
    _keep(run, episodes, folder)  # a folder that cannot be written to is found out before the work
    saved = time.monotonic()
    per_round = run.agent.env_steps_per_round
    piece = 2_000 // per_round * per_round or per_round
    try:
        while (now := run.env_steps) < until:
            run, log = run.advance(min(piece, until - now))
            episodes = _with(episodes, log, now)
            if time.monotonic() - saved > SAVE_EVERY:
                _keep(run, episodes, folder)
                saved = time.monotonic()
            recent = episodes.returns[-100:]
            words = f"training, return {recent.mean():.2f}" if recent.size else "training"
            report(words, len(log.reward))
    finally:
        if not run.used_up:  # it is, if what stopped the work did so in the middle of `advance`
            _keep(run, episodes, folder)
    return run, episodes


def _with(episodes: Episodes, log: Log, start: int) -> Episodes:
    """`episodes` and those that end in a log that begins after env step `start`."""
    (ends,) = np.nonzero(log.terminated | log.truncated)
    env_steps = np.concatenate([episodes.env_steps, start + ends + 1])
    return Episodes(
        env_steps,
        np.concatenate([episodes.returns, log.episode_return[ends]]),
        np.diff(env_steps, prepend=0),
    )


def _keep(run: Run, episodes: Episodes, folder: Path) -> None:
    columns = {
        "env_steps": episodes.env_steps,
        "return": episodes.returns,
        "length": episodes.lengths,
    }
    # Episodes first: after a crash between the two they may be ahead of the Run, never behind.
    write_table(folder / "episodes.parquet", pa.table(columns))
    save(run, folder / "run.ckpt")


def _read(folder: Path) -> Episodes:
    path = folder / "episodes.parquet"
    try:
        with path.open("rb") as file:
            table = pq.read_table(file)
        types = {"env_steps": np.int64, "return": np.float64, "length": np.int64}
        return Episodes(*(table[name].to_numpy().astype(t) for name, t in types.items()))
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise RegrowError(f"{path} is absent or damaged ({error}); restore or delete it") from error

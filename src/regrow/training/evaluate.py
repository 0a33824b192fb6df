"""Evaluation: episodes without exploration or learning."""

from contextlib import closing
from typing import NamedTuple

import jax

from regrow.errors import require
from regrow.prng import key_at
from regrow.training.numerics import in_float32
from regrow.training.run import Run, backend_of
from regrow.types import Report, silent

LONGEST = 1_000_000  # env steps within which an episode must end


class Episode(NamedTuple):
    """The undiscounted return of an episode, and its length in env steps."""

    env_return: float
    length: int


@in_float32
def evaluate(
    run: Run, episodes: int = 20, *, seed: int = 0, report: Report = silent
) -> list[Episode]:
    """Plays `episodes` episodes with `Agent.exploit`, without changing the Run.

    The episodes are played one after the other in one environment. If the task changes during
    training, each episode starts at the Run's current task. Rewards are the environment's own,
    unclipped. Raises `RegrowError` if `episodes` is below 1, or if an episode does not end within
    a million env steps.
    """
    require(episodes >= 1, f"episodes is {episodes}; it must be at least 1")
    root = key_at(jax.random.key(seed), "evaluate", run.env_steps)
    play = backend_of(run.environment).exploit(run.state, run.agent, run.environment, root)
    played, total, length = [], 0.0, 0
    with closing(play) as steps:
        for reward, ended in steps:
            total, length = total + reward, length + 1
            if ended:
                played.append(Episode(total, length))
                report("evaluating", 1)
                total, length = 0.0, 0
            if len(played) == episodes:
                break
            require(length < LONGEST, f"no episode ended within {LONGEST:,} env steps")
    return played

"""Training of one run in one folder, with saves and exact resumption (files: `saved.py`)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from regrow.agents.base import Agent
from regrow.environments.base import Environment
from regrow.errors import RegrowError, require, require_rounds
from regrow.files.folders import claimed
from regrow.files.places import Place, place
from regrow.files.progress import report_progress
from regrow.records.rows import write_row
from regrow.records.sinks import About, checked, require_loggable
from regrow.registry import describe
from regrow.training.checkpoint import writer
from regrow.training.driver import drive
from regrow.training.environment_checks import check_before_training
from regrow.training.episodes import Episodes, row_of
from regrow.training.live import Live
from regrow.training.run import Run, abstract_state
from regrow.training.saved import (
    CHECKPOINT,
    Diary,
    label_of,
    previous,
    resumed,
    tables_of,
    write_save,
)
from regrow.training.saving import kept_transitions
from regrow.training.schedule import Check, Rule, check_rules
from regrow.types import Log, Report


def train(
    agent: Agent,
    environment: Environment,
    folder: Place,
    *,
    env_steps: int,
    seed: int = 0,
    rules: Sequence[Rule] = (),
    probe_every: int = 0,
    resume: bool = False,
    report: Report,
    log: str | Sequence[str] = (),
) -> tuple[Run, Diary]:
    """Trains to `env_steps` in total: (the Run, its Diary). Both are also saved in `folder`.

    `rules`: interventions to carry out during training.
    `probe_every`: env steps between measurements of all probes that are not costly; 0: never.
    `log`: "csv", "tensorboard", "wandb", or several of them: the sinks for live logging.

    Raises `RegrowError` if
    - the folder has a run and `resume` is False, or has none, or a different one, and `resume` is
      True;
    - a rule cannot be carried out on this agent;
    - the environment fails a short `check_environment`;
    - `log` is unknown, or its package is not installed.

    If `report` raises, all progress is saved. If anything else stops training, the last save is at
    most about a minute old.
    """
    log = checked(log)
    folder, checkpoint = place(folder), place(folder) / CHECKPOINT
    require_loggable(log, folder)
    per_round = agent.env_steps_per_round
    for name, number in (("env_steps", env_steps), ("probe_every", probe_every or per_round)):
        require_rounds(name, number, per_round)
    check_rules(rules, per_round)
    abstract_state(agent, environment, [rule.intervention for rule in rules])
    check_before_training(environment)
    if resume and not (checkpoint.is_file() or (folder / previous(CHECKPOINT)).is_file()):
        raise RegrowError(f"there is no run to resume in {folder}; leave --resume out to start one")
    _refuse_begun(folder, resume)
    config = {"agent": describe(agent), "environment": describe(environment), "seed": seed}
    config["rules"] = [str(rule) for rule in rules]
    with claimed(folder, {"kind": "training", **config}):
        _refuse_begun(folder, resume)  # another process may have started and finished since
        if resume:
            run, diary, whole = resumed(folder, config)
            _require_same(run, agent, environment, env_steps, folder)
        else:
            run, diary, whole = Run.start(agent, environment, seed=seed), Diary.empty(), True
        about = About("train", folder.resolve().name, None, config)
        with Live(log, folder / "log", about) as live:
            training = _Training(folder, config, probe_every, env_steps, report, live, whole)
            return training.done(run, diary, rules)


def _refuse_begun(folder: Place, resume: bool) -> None:
    for held in (folder / "run.ckpt", folder / "episodes.parquet"):
        require(
            resume or not held.exists(),
            f"{folder} holds a run already; add --resume, or choose another --out",
        )


def _require_same(
    run: Run, agent: Agent, environment: Environment, until: int, folder: Place
) -> None:
    checkpoint = folder / CHECKPOINT
    require(
        (run.agent, run.environment) == (agent, environment),
        f"{checkpoint} is of {describe(run.agent)} on {describe(run.environment)}, not of what "
        "config.json beside it says; restore it",
    )
    require(
        run.env_steps <= until,
        f"the run in {checkpoint.parent} is at {run.env_steps} env steps, past the {until} asked "
        "for",
    )


class _Training:
    """Measures and saves a run while it trains; a `regrow.training.driver.Record`."""

    def __init__(
        self,
        folder: Place,
        config: Mapping[str, Any],
        probe_every: int,
        until: int,
        report: Report,
        live: Live,
        whole: bool,
    ):
        """`whole`: whether the last save was; the one before it is kept until there is another."""
        self.whole = whole
        self.folder, self.config, self.probe_every, self.until = folder, config, probe_every, until
        self.report, self.live = report, live
        self.diary = Diary.empty()

    def done(self, run: Run, diary: Diary, rules: Sequence[Rule]) -> tuple[Run, Diary]:
        """Trains to the end: (the Run, its Diary), both saved."""
        self.diary = diary
        self.report("training", run.env_steps)
        self.copied(run, diary.checks)()  # fails now if the folder cannot be written to
        path = self.folder / "training.progress.json"
        with report_progress(path, self.until, self.report) as report:
            report(self.words(), 0)
            run, checks = drive(
                run,
                self.until,
                self,
                round=run.agent.env_steps_per_round,
                rules=rules,
                checks=diary.checks,
                live=self.live,
                report=lambda steps: report(self.words(), steps),
            )
        return run, self.diary._replace(checks=checks)

    def look(self, run: Run) -> None:
        """If probes are due, measures them all on the run and on fresh networks."""
        now, every = run.env_steps, self.probe_every
        due = every and ((now and now % every == 0) or now >= self.until)
        if not due or now in _probed_at(self.diary):
            return
        for fresh in (False, True):
            values = run.measure(fresh=fresh)
            self.diary.probes.extend(
                {"env_steps": now, "probe": name, "value": value, "fresh": fresh}
                for name, value in values.items()
            )
            self.live.probed(run, values, fresh=fresh)

    def next_look(self, now: int, until: int) -> int:
        """The env step at which probes are due next, at most `until`."""
        every = self.probe_every
        return min(until, (now // every + 1) * every) if every else until

    def add(self, run: Run, log: Log) -> None:
        """Adds the episodes that ended in a chunk to the diary."""
        start = run.env_steps - len(log.reward)
        episodes = _with(self.diary.episodes, log, start, run.agent.num_envs, run.restarts)
        self.diary = self.diary._replace(episodes=episodes)

    def recent_return(self) -> float:
        """The mean return of the last episodes."""
        return self.diary.recent_return()

    def words(self) -> str:
        """The text of the progress bar."""
        mean = self.diary.recent_return()
        return "training" if math.isnan(mean) else f"training, return {mean:.2f}"

    def reached(self, run: Run, checks: Sequence[Check]) -> None:
        """Saves the end."""
        self.copied(run, checks)()

    def copied(self, run: Run, checks: Sequence[Check]) -> Callable[[], None]:
        """A copy of the diary and the run, as a function that writes the diary, then the run.

        After a crash in between, the diary is ahead of the run. It is never behind, and `_read`
        drops what is later than the run.
        """
        self.diary = self.diary._replace(checks=list(checks))
        tables = tables_of(self.diary, self.config, probed=self.probe_every > 0)
        write_run = writer(run, self.label, kept_transitions())
        row = row_of(run, self.diary.episodes, self.diary.probes, self.config)
        about, whole, self.whole = {"of": self.label, "at": str(run.env_steps)}, self.whole, True

        def write() -> None:
            write_save(self.folder, tables, write_run, about, whole=whole)
            if row is not None:
                write_row(self.folder, row)

        return write

    @property
    def label(self) -> str:
        """What the files say that they are of."""
        return label_of(self.config)


def _probed_at(diary: Diary) -> set[int]:
    return {row["env_steps"] for row in diary.probes}


def _with(
    episodes: Episodes, log: Log, start: int, num_envs: int, restarts: Sequence[int]
) -> Episodes:
    """`episodes` and those that end in `log`, which begins after env step `start`.

    The environments take turns in the log. An episode that is running at the start of the log
    began at the last of the `restarts`, or after the previous episode of its environment.
    """
    begun = max(restarts, default=0)
    (ends,) = np.nonzero(log.terminated | log.truncated)
    env_steps = start + ends + 1
    turn, environment = np.divmod(env_steps - 1, num_envs)
    turn_before, environment_before = np.divmod(episodes.env_steps - 1, num_envs)
    lengths = np.zeros_like(env_steps)
    for n in range(num_envs):
        own, before = environment == n, turn_before[environment_before == n] + 1
        first = max([begun // num_envs, *before[-1:]])
        lengths[own] = np.diff(turn[own] + 1, prepend=first)
    return Episodes(
        np.concatenate([episodes.env_steps, env_steps]),
        np.concatenate([episodes.returns, log.episode_return[ends]]),
        np.concatenate([episodes.lengths, lengths]),
    )

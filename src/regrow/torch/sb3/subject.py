"""A model of Stable-Baselines3 as a Subject of a diagnosis.

It trains by the model's own `learn`, in chunks. What `learn` would change at the start of a chunk
is put back: the total that schedules count towards, and the state of action noise.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from regrow.errors import NotFiniteError, RegrowError, require
from regrow.interventions.base import Intervention
from regrow.registry import describe
from regrow.torch.interventions import carry_out
from regrow.torch.learners import TorchLearner
from regrow.torch.measuring import values_of
from regrow.torch.randomness import Randomness, own_randomness, seed_from
from regrow.torch.sb3 import experience
from regrow.torch.sb3.agent import Sb3Agent
from regrow.torch.sb3.algorithms import learners_of
from regrow.torch.sb3.environments import Environments, begin_anew, reseed
from regrow.torch.sb3.measuring import measured
from regrow.torch.sb3.watching import Watch, episodes_ended, quiet, raw_rewards, running_returns
from regrow.torch.snapshots import dumped, loaded
from regrow.types import Event, Log

LONGEST = 30_000
"""Env steps after which `play_out` gives up an episode."""


def round_of(model: Any) -> int:
    """Env steps from one update to the next: the smallest number that it can train for.

    Raises `RegrowError` where it trains after every episode, however long that is.
    """
    if hasattr(model, "rollout_buffer"):
        return model.n_steps * model.n_envs
    unit = getattr(model.train_freq.unit, "value", model.train_freq.unit)
    require(
        unit == "step",
        f"train_freq is {model.train_freq.frequency} episodes; a diagnosis counts env steps: give "
        "the model a train_freq in steps",
    )
    return model.train_freq.frequency * model.n_envs


@dataclass(frozen=True)
class Sb3Subject:
    """A model, its environments, and the random numbers that it will draw.

    `total`: the env steps that its schedules count towards. `running`: what the running episodes
    have returned. `environments`: how to make its environments, where they cannot be copied.
    """

    model: Any
    randomness: Randomness
    total: int
    running: NDArray[np.float64]
    history: tuple[Event, ...] = ()
    restarts: tuple[int, ...] = ()
    environments: Environments | None = None
    _state: dict[str, bool] = field(default_factory=lambda: {"used_up": False}, repr=False)

    @staticmethod
    def of(
        model: Any, randomness: Randomness, environments: Environments | None = None
    ) -> "Sb3Subject":
        """A model where it is, with the random numbers that it will draw."""
        total = max(model._total_timesteps, 1)
        return Sb3Subject(
            model, randomness, total, running_returns(model), environments=environments
        )

    @property
    def env_steps(self) -> int:
        """Env steps taken so far, those before the fork included."""
        return int(self.model.num_timesteps)

    @property
    def num_envs(self) -> int:
        """The number of environments."""
        return int(self.model.n_envs)

    @property
    def discount(self) -> float:
        """The model's γ."""
        return float(self.model.gamma)

    @property
    def used_up(self) -> bool:
        """Whether `advance` was called on it: its model went on."""
        return self._state["used_up"]

    def fork(self, replicate: int = 0) -> "Sb3Subject":
        """A copy that shares nothing; replicates but 0 draw other random numbers from here on."""
        subject = Sb3Subject.read(self.write())
        if not replicate:
            return subject
        seed = seed_from(self.randomness.pytorch.numpy().tobytes(), self.env_steps, replicate)
        reseed(subject.model, seed)
        subject = replace(subject, randomness=Randomness.of(seed))
        if self.environments is not None:
            begin_anew(subject.model, seed)
        return subject

    def intervene(self, intervention: Intervention) -> "Sb3Subject":
        """A copy on which an intervention was carried out."""
        subject = Sb3Subject.read(self._alive().write())
        seed = seed_from(
            subject.randomness.pytorch.numpy().tobytes(), "intervene", len(self.history)
        )
        with own_randomness(Randomness.of(seed)):
            carry_out(intervention, Sb3Agent(subject.model), seed)
        event = Event(self.env_steps, describe(intervention))
        return replace(subject, history=(*subject.history, event))

    def advance(self, env_steps: int) -> "tuple[Sb3Subject, Log]":
        """(the Subject so many env steps later, what every env step reported).

        Raises `NotFiniteError` where a parameter is no longer finite. This one is used up.
        """
        model, start = self._alive().model, self.env_steps
        watch = Watch(self.running.copy())
        self._state["used_up"] = True
        with own_randomness(self.randomness), _as_if_learning_on(model, self.total, watch):
            model.learn(env_steps, callback=watch, log_interval=None, reset_num_timesteps=False)
            randomness = Randomness.now()
        took = model.num_timesteps - start
        require(took == env_steps, f"env_steps is {env_steps}; the model took {took} instead")
        _require_finite(model)
        after = replace(
            self, randomness=randomness, running=watch.running, _state={"used_up": False}
        )
        return after, watch.log()

    def play_out(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(returns of the running episodes at their end, whether each ended); (num_envs,) each.

        NaN where the environments cannot be copied.
        """
        if self.environments is not None:
            return np.full(self.num_envs, np.nan), np.zeros(self.num_envs, bool)
        copied = self.fork()
        returns, over = copied.running.copy(), np.zeros(self.num_envs, bool)
        with own_randomness(self.randomness):
            observation = copied.model._last_obs
            for _ in range(LONGEST):
                action = experience.action(copied.model, observation)
                observation, _, dones, infos = copied.model.env.step(action)
                ended = episodes_ended(copied.model, dones, infos)
                rewards = raw_rewards(copied.model, copied.model.env)
                returns = np.where(over, returns, returns + rewards)
                for n in np.flatnonzero(ended & ~over):
                    returns[n] = infos[n].get("episode", {}).get("r", returns[n])
                over |= ended
                if over.all():
                    break
        return returns, over

    def played_at_random(self, env_steps: int) -> NDArray[np.float64]:
        """The returns of the episodes that end while actions are drawn uniformly, on a copy.

        At least one: an episode that is running at the end is followed for as long again, and then
        counts with what it has.
        """
        model = self.fork().model
        with own_randomness(Randomness.of(0)):
            begin_anew(model, 0)
            model.action_space.seed(0)
            running, earned = np.zeros(self.num_envs), list[float]()
            for step in range(2 * env_steps // self.num_envs):
                if step >= env_steps // self.num_envs and earned:
                    break
                drawn = np.array([model.action_space.sample() for _ in range(self.num_envs)])
                _, rewards, dones, infos = model.env.step(drawn)
                running += raw_rewards(model, model.env, rewards)
                for n in np.flatnonzero(episodes_ended(model, dones, infos)):
                    earned.append(float(infos[n].get("episode", {}).get("r", running[n])))
                    running[n] = 0.0
        return np.array(earned or running.tolist())

    @property
    def lacks_experience(self) -> bool:
        """Whether what it learns from is empty: its replay buffer, or its last rollout."""
        if experience.is_on_policy(self.model):
            return not self.model.rollout_buffer.full
        return not self.model.replay_buffer.size()

    def refilled(self, transitions: int) -> "Sb3Subject":
        """This Subject with what its policy has collected, where it has nothing to learn from.

        `transitions`: for a replay buffer, as far as it holds them. Its counters, and so its
        schedules, stay as they are.
        """
        if not self.lacks_experience:
            return self
        with own_randomness(self.randomness), quiet(self.model):
            experience.refill(self.model, transitions)
            randomness = Randomness.now()
        return replace(self, randomness=randomness, running=running_returns(self.model))

    def networks(self) -> list[TorchLearner]:
        """The networks that it trains."""
        return learners_of(self.model)

    def learned_rewards(self, log: Log) -> NDArray[np.float32]:
        """The rewards of a log as the model learns from them: normalised by VecNormalize."""
        rewards = np.asarray(log.reward, np.float32)
        normalize = self.model._vec_normalize_env
        return rewards if normalize is None else normalize.normalize_reward(rewards)

    def losses(self) -> dict[str, float]:
        """The losses that the model logged last."""
        logged = getattr(self.model._logger, "name_to_value", {})
        losses = {n.removeprefix("train/"): v for n, v in logged.items() if "loss" in n}
        return {name: float(value) for name, value in losses.items()}

    def measure(
        self,
        probes: Sequence[str] = (),
        *,
        fresh: bool = False,
        since: "Sb3Subject | None" = None,
    ) -> dict[str, float]:
        """Probes by name, of every network that the model trains (`regrow.torch.measure`).

        A model does not keep its initial values: what compares with them is left out.
        """
        earlier = None if since is None else values_of(learners_of(since.model))
        with own_randomness(Randomness.of(seed_from("probe", self.env_steps))):
            return measured(self.model, probes, fresh=fresh, since=earlier)

    def write(self) -> bytes:
        """The Subject as bytes; its environments, too, where they can be copied."""
        model = self._alive().model
        with experience.without_environments(model, self.environments is not None):
            return dumped(replace(self, _state={"used_up": False}))

    @staticmethod
    def read(content: bytes) -> "Sb3Subject":
        """The Subject that was written; with new episodes where its environments are not in it."""
        subject = loaded(content)
        if not isinstance(subject, Sb3Subject):
            raise RegrowError("the snapshot holds no model of Stable-Baselines3")
        if subject.environments is None:
            return subject
        subject.environments.attach(subject.model)
        begin_anew(subject.model, seed_from("restart", subject.env_steps))
        restarts = (*subject.restarts, subject.env_steps)
        return replace(subject, running=np.zeros(subject.num_envs), restarts=restarts)

    def _alive(self) -> "Sb3Subject":
        require(
            not self.used_up,
            "this Subject was advanced before; use the one that `advance` returned, or `fork()` "
            "before advancing",
        )
        return self


@contextmanager
def _as_if_learning_on(model: Any, total: int, watch: Watch) -> Iterator[None]:
    """What `learn` would begin anew goes on: the schedules' total, and action noise."""
    remaining, kept = type(model)._update_current_progress_remaining, model._total_timesteps

    def progress(done: int, _: int) -> None:
        remaining(model, min(done, total), total)

    if model.action_noise is not None:
        watch.noise = copy.deepcopy(vars(model.action_noise))
    model._update_current_progress_remaining = progress
    try:
        with quiet(model):
            yield
    finally:
        del model._update_current_progress_remaining
        model._total_timesteps = kept


def _require_finite(model: Any) -> None:
    for name, parameter in model.policy.named_parameters():
        if not torch.isfinite(parameter).all():
            raise NotFiniteError(
                f"the parameter '{name}' is no longer finite after {model.num_timesteps} env steps"
            )

"""What every env step of a model reports as it learns: rewards, ends, returns, values."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from regrow.torch.sb3.algorithms import predicted
from regrow.torch.sb3.environments import monitored
from regrow.types import Log


class Watch(BaseCallback):
    """Writes down what every env step reports."""

    EVERY = 64  # env steps whose values are predicted at once, by the network at their end

    def __init__(self, running: NDArray[np.float64]):
        super().__init__()
        self.running = running
        self._rows: list[tuple[Any, ...]] = []
        self._waiting: list[tuple[Any, Any]] = []
        self._values: list[NDArray[np.float32]] = []
        self.noise: dict[str, Any] | None = None

    def _on_training_start(self) -> None:
        if self.noise is not None:
            vars(self.model.action_noise).update(self.noise)

    def _on_step(self) -> bool:
        held, model = self.locals, self.model
        dones, infos = held["dones"], held["infos"]
        rewards = raw_rewards(model, held["env"], held["rewards"])
        self.running = self.running + rewards
        ended = episodes_ended(model, dones, infos)
        returns = self.running.copy()
        for n in np.flatnonzero(ended):
            returns[n] = infos[n].get("episode", {}).get("r", returns[n])
        truncated = np.array([bool(info.get("TimeLimit.truncated")) for info in infos])
        self._rows.append((rewards, ended & ~truncated, ended & truncated, returns))
        self.running[ended] = 0.0
        if "values" in held:
            self._values.append(held["values"].detach().cpu().numpy().reshape(1, -1))
        else:
            self._waiting.append((copy.deepcopy(model._last_obs), held["buffer_actions"]))
            if len(self._waiting) >= self.EVERY:
                self._predict()
        return True

    def _on_training_end(self) -> None:
        self._predict()

    def _predict(self) -> None:
        if not self._waiting:
            return
        observed, taken = zip(*self._waiting, strict=True)
        stacked = (
            {key: np.concatenate([one[key] for one in observed]) for key in observed[0]}
            if isinstance(observed[0], dict)
            else np.concatenate(observed)
        )
        with torch.no_grad():
            values = predicted(self.model, stacked, np.concatenate(taken))
        self._values.append(values.cpu().numpy().reshape(len(observed), -1))
        self._waiting = []

    def log(self) -> Log:
        """All env steps; parallel environments take turns."""
        rewards, terminated, truncated, returns = (
            np.stack(each).reshape(-1) for each in zip(*self._rows, strict=True)
        )
        values = np.concatenate(self._values).reshape(-1)
        return Log(
            rewards.astype(np.float32),
            terminated,
            truncated,
            returns.astype(np.float32),
            values.astype(np.float32),
        )


def raw_rewards(model: Any, env: Any, given: Any = None) -> NDArray[np.float64]:
    """The rewards of the last step, before VecNormalize."""
    normalize = model._vec_normalize_env
    if normalize is not None:
        return np.asarray(normalize.get_original_reward(), np.float64)
    return np.asarray(env.buf_rews if given is None else given, np.float64)


def episodes_ended(model: Any, dones: Any, infos: Sequence[Any]) -> NDArray[np.bool_]:
    """Whether episodes ended: by Monitor where there is one, which a lost life does not end."""
    dones = np.asarray(dones, bool)
    if not monitored(model.env):
        return dones
    return np.array(["episode" in info for info in infos]) & dones


def running_returns(model: Any) -> NDArray[np.float64]:
    """What the running episodes have returned, as far as Monitor knows; else 0."""
    if model.env is None or not monitored(model.env):
        return np.zeros(model.n_envs)
    try:
        rewards = model.env.get_attr("rewards")
    except AttributeError:
        return np.zeros(model.n_envs)
    return np.array([float(np.sum(one)) for one in rewards])


@contextmanager
def quiet(model: Any) -> Iterator[None]:
    """The model logs to nowhere meanwhile."""
    before = model._custom_logger, getattr(model, "_logger", None)
    model._custom_logger, model._logger = True, Logger(None, [])
    try:
        yield
    finally:
        model._custom_logger = before[0]
        if before[1] is not None:
            before[1].name_to_value.update(model._logger.name_to_value)
            model._logger = before[1]

"""What a model has seen, and how it learns from it: samples, actions, stressors."""

import copy
import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from regrow.errors import RegrowError, require
from regrow.interventions.fit_noise import FitNoise
from regrow.interventions.prime import Prime


def is_on_policy(model: Any) -> bool:
    """Whether it learns from what it has just collected."""
    return hasattr(model, "rollout_buffer")


def action(model: Any, observation: Any) -> Any:
    """The action that a model takes in training, as its environments take it."""
    if not is_on_policy(model):
        model._last_obs = observation
        model.policy.set_training_mode(False)
        return model._sample_action(0, model.action_noise, model.n_envs)[0]
    chosen, _ = model.predict(observation, deterministic=False)
    return chosen


def sample(model: Any, count: int) -> Any:
    """Transitions as an update draws them; `RegrowError` where there are none."""
    if is_on_policy(model):
        require(
            model.rollout_buffer.pos > 0 or model.rollout_buffer.full,
            "the model has collected nothing yet; train it first",
        )
        return next(iter(_copied(model.rollout_buffer).get(count)))
    require(model.replay_buffer.size() > 0, "the replay buffer is empty; train the model first")
    return model.replay_buffer.sample(count, env=model._vec_normalize_env)


def _copied(buffer: Any) -> Any:
    """A rollout buffer of which one reads: reading flattens it."""
    return copy.deepcopy(buffer)


def inputs(model: Any, name: str, count: int) -> tuple[Any, ...]:
    """What a learner's module reads of some transitions, as its positional arguments."""
    batch = sample(model, count)
    return (batch.observations, batch.actions) if name == "critic" else (batch.observations,)


_COUNTERS = (
    "num_timesteps",
    "_n_calls",
    "_episode_num",
    "exploration_rate",
    "_current_progress_remaining",
    "target_update_interval",
)


def refill(model: Any, transitions: int) -> None:
    """Collects by the policy what a model learns from, without learning or counting."""
    from stable_baselines3.common.callbacks import ConvertCallback
    from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

    kept = {name: getattr(model, name) for name in _COUNTERS if hasattr(model, name)}
    if hasattr(model, "exploration_rate"):
        model.target_update_interval = 2**31  # its target does not follow meanwhile
    if model.ep_info_buffer is None:
        model.ep_info_buffer = deque(maxlen=model._stats_window_size)
        model.ep_success_buffer = deque(maxlen=model._stats_window_size)
    callback = ConvertCallback(lambda *_: True)
    callback.init_callback(model)
    model._update_current_progress_remaining = lambda *_: None
    try:
        if is_on_policy(model):
            model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
            return
        count = min(transitions, model.buffer_size)
        steps = TrainFreq(math.ceil(count / model.n_envs), TrainFrequencyUnit.STEP)
        model.collect_rollouts(
            model.env,
            callback,
            steps,
            model.replay_buffer,
            model.action_noise,
            learning_starts=0,
            log_interval=None,
        )
    finally:
        del model._update_current_progress_remaining
        for name, value in kept.items():
            setattr(model, name, value)


@contextmanager
def without_environments(model: Any, left_out: bool) -> Iterator[None]:
    """A model without its environments meanwhile, but for the statistics of VecNormalize."""
    if not left_out:
        yield
        return
    env, normalize = model.env, model._vec_normalize_env
    below = None if normalize is None else normalize.venv
    model.env = None
    if normalize is not None:
        normalize.venv = None
    try:
        yield
    finally:
        model.env = env
        if normalize is not None:
            normalize.venv = below


# Stressors, as in `regrow.interventions`.


def fit_noise(model: Any, what: FitNoise) -> None:
    """Trains on random rewards, redrawn every round; see `regrow.interventions.FitNoise`."""
    if is_on_policy(model):
        _fit_noise_on_policy(model, what)
    else:
        _fit_noise_off_policy(model, what)
    for name in ("q_net", "quantile_net", "actor", "critic"):
        network = getattr(model.policy, name, None)
        target = getattr(model.policy, f"{name}_target", None)
        if network is not None and target is not None:
            target.load_state_dict(network.state_dict())


def _fit_noise_off_policy(model: Any, what: FitNoise) -> None:
    kept, random = model.replay_buffer, np.random.default_rng(np.random.randint(2**31))
    held = _some(kept, random.integers(0, kept.size(), math.ceil(what.transitions / kept.n_envs)))
    held.dones[:] = 1.0
    if hasattr(held, "timeouts"):
        held.timeouts[:] = 0.0
    rewards = random.standard_normal(held.rewards.shape).astype(np.float32)
    try:
        model.replay_buffer = held
        for _ in range(what.rounds):
            held.rewards[:] = rewards
            model.train(gradient_steps=what.updates, batch_size=model.batch_size)
            if what.redraw:
                rewards = random.standard_normal(held.rewards.shape).astype(np.float32)
    finally:
        model.replay_buffer = kept


def _fit_noise_on_policy(model: Any, what: FitNoise) -> None:
    """Every env step of the last rollout is an episode by itself, with a random reward."""
    kept, random = model.rollout_buffer, np.random.default_rng(np.random.randint(2**31))
    require(kept.full, "the model has collected nothing yet; train it first")
    minibatches = math.ceil(kept.buffer_size * kept.n_envs / getattr(model, "batch_size", 2**31))
    passes = math.ceil(what.updates / (minibatches * getattr(model, "n_epochs", 1)))
    rewards = random.standard_normal(kept.returns.shape).astype(np.float32)
    try:
        for _ in range(what.rounds):
            for _ in range(passes):
                model.rollout_buffer = _with_rewards(model, kept, rewards)
                model.train()
            if what.redraw:
                rewards = random.standard_normal(kept.returns.shape).astype(np.float32)
    finally:
        model.rollout_buffer = kept


def _with_rewards(model: Any, kept: Any, rewards: Any) -> Any:
    """The rollout with these as its returns, and advantages as the present critic has them.

    `rewards`: as the buffer holds returns, whose shape changes when it is read.
    """
    held = _copied(kept)
    flat = held.observations, held.actions
    observed, taken = (torch.as_tensor(_flat(one, kept), device=model.device) for one in flat)
    with torch.no_grad():
        values, logs, _ = model.policy.evaluate_actions(
            observed.float() if observed.dtype != torch.uint8 else observed,
            taken.long().flatten() if hasattr(model.action_space, "n") else taken,
        )
    shape = held.values.shape
    held.values[:] = values.cpu().numpy().reshape(shape)
    held.log_probs[:] = logs.cpu().numpy().reshape(shape)
    held.returns[:] = rewards
    held.advantages[:] = held.returns - held.values
    return held


def _flat(array: Any, buffer: Any) -> Any:
    """(steps · environments, …); a buffer that was read is flat already."""
    rows = buffer.buffer_size * buffer.n_envs
    return array.reshape(rows, *array.shape[1 if len(array) == rows else 2 :])


def prime(model: Any, what: Prime) -> None:
    """Many updates on the oldest transitions; see `regrow.interventions.Prime`."""
    require(
        not is_on_policy(model),
        "prime trains on the oldest transitions of a replay buffer, and this model has none",
    )
    kept = model.replay_buffer
    oldest = kept.pos if kept.full else 0
    count = math.ceil(what.transitions / kept.n_envs)
    rows = (oldest + np.arange(count) % kept.size()) % kept.buffer_size  # fewer are repeated
    try:
        model.replay_buffer = _some(kept, rows)
        model.train(gradient_steps=what.updates, batch_size=model.batch_size)
    finally:
        model.replay_buffer = kept


def _some(buffer: Any, rows: Any) -> Any:
    """A full buffer of these rows of another."""
    kind = type(buffer).__name__
    if kind != "ReplayBuffer":
        raise RegrowError(f"its replay is a {kind}; stressors need a plain ReplayBuffer")
    require(
        not buffer.optimize_memory_usage,
        "its replay buffer has optimize_memory_usage=True, from which single rows cannot be taken",
    )
    some = copy.copy(buffer)
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        setattr(some, name, getattr(buffer, name)[rows].copy())
    some.buffer_size, some.pos, some.full = len(rows), 0, True
    return some

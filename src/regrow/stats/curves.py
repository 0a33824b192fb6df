"""Learning curves: from what every env step reported to returns over time."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regrow.errors import require
from regrow.stats.arrays import Floats, flags, numbers


def running_mean(values: ArrayLike, window: int) -> Floats:
    """For each of a series the mean of the last `window` values up to it; of fewer at the start.

    Raises `RegrowError` on non-finite values or a window below 1.
    """
    series = numbers("values", values, dims=1)
    require(window >= 1, f"window is {window}; it must be at least 1")
    sums = np.concatenate([[0.0], np.cumsum(series)])
    ends = np.arange(1, len(series) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def learning_curve(
    episode_return: ArrayLike,
    ended: ArrayLike,
    *,
    bins: int,
    num_envs: int = 1,
    before: float = math.nan,
    running: ArrayLike | None = None,
    restarts: Sequence[int] = (),
) -> Floats:
    """The return over time: the mean return of the episodes that end in each of `bins` time bins.

    `episode_return` and `ended` have shape (env_steps,): the undiscounted return of the running
    episode up to and including each step, and whether the episode ends there. Env step t falls into
    bin `t · bins // env_steps`, and belongs to environment `t % num_envs`. Returns shape (bins,).

    Only whole episodes count. A bin in which none ends lies inside one episode of each environment;
    it takes what those episodes return in all, on average. Of an episode that ends later in the log
    that is known; `running`, shape (num_envs,), has it for those that run at the end of the log
    (NaN: not known), as `Run.play_out` finds it. Where nothing is known, a bin takes the value of
    the one before it, the first one `before`, NaN if that is unknown too. What an unfinished
    episode has collected so far never counts: with negative rewards a longer, worse episode would
    look better.

    `restarts`: env steps of the log before which all environments began new episodes though the
    old ones had not ended; what those would have returned is not known.

    Raises `RegrowError` on unequal shapes, non-finite returns, or fewer env steps than bins.
    """
    returns = numbers("episode_return", episode_return, dims=1)
    (ends,) = flags(returns.shape, ended=ended)
    steps = len(returns)
    require(1 <= bins <= steps, f"bins must lie in [1, {steps}] for {steps} env steps, got {bins}")
    require(num_envs >= 1, f"num_envs is {num_envs}; it must be at least 1")
    require(not math.isinf(before), f"before must be finite or nan, got {before}")
    bin_of = np.arange(steps) * bins // steps
    episodes = np.bincount(bin_of[ends], minlength=bins)
    totals = np.bincount(bin_of[ends], weights=returns[ends], minlength=bins)
    last = np.full(num_envs, math.nan) if running is None else np.asarray(running, float)
    require(last.shape == (num_envs,), f"running must have shape ({num_envs},), got {last.shape}")
    middles = np.searchsorted(bin_of, np.arange(bins), side="right") - 1
    inside = _returns_at(middles, returns, ends, last, restarts)
    curve, previous = np.empty(bins), before
    for i in range(bins):
        known = inside[i][np.isfinite(inside[i])]
        if episodes[i]:
            previous = totals[i] / episodes[i]
        elif known.size:
            previous = known.mean()
        curve[i] = previous
    return curve


def awaits_running(ended: ArrayLike, *, bins: int, num_envs: int = 1) -> bool:
    """Whether a learning curve depends on what the episodes that run at the end of its log return.

    So it does where one of them fills a bin in which no other episode ends. `ended` as for
    `learning_curve`, whose `running` is then needed.
    """
    (ends,) = flags(np.shape(ended), ended=ended)
    bin_of = np.arange(len(ends)) * bins // len(ends)
    (empty,) = np.nonzero(np.bincount(bin_of[ends], minlength=bins) == 0)
    if not empty.size:
        return False
    after = int(np.searchsorted(bin_of, empty[-1], side="right"))
    over = {int(step) % num_envs for step in np.nonzero(ends)[0] if step >= after}
    return len(over) < num_envs


def _returns_at(
    steps: NDArray[np.int64], returns: Floats, ended: Any, last: Floats, restarts: Sequence[int]
) -> Floats:
    """At each of some env steps, what the episode of each environment that runs there returns.

    Shape (steps, num_envs); NaN where that is not known. Every one of them runs on after its step.
    """
    found = np.full((len(steps), len(last)), math.nan)
    for n in range(len(last)):
        (own,) = np.nonzero(ended[n :: len(last)])
        own = own * len(last) + n  # env steps at which an episode of this environment ends
        following = np.searchsorted(own, steps, side="right")
        finals = np.append(returns[own], last[n])
        found[:, n] = finals[following]
        until = np.append(own, len(returns))[following]
        for restart in restarts:
            found[(steps < restart) & (until >= restart), n] = math.nan
    return found


def area_under_curve(curve: ArrayLike) -> float:
    """The mean of a learning curve of shape (bins,), in the unit of a return.

    A mean over env steps, not over episodes: where an arm's early episodes are short, a mean over
    episodes counts that phase more often and can turn the sign of a comparison. Raises
    `RegrowError` where values are missing or not finite.
    """
    return float(numbers("curve", curve, dims=1).mean())


def final_return(curve: ArrayLike, fraction: float = 0.25) -> float:
    """The mean of the last `fraction` of a learning curve, in the unit of a return.

    Of a curve of shape (bins,) it takes the last ceil(fraction · bins): 3 of 10 by default. Raises
    `RegrowError` where values are missing or not finite, or the fraction lies outside (0, 1].
    """
    require(0 < fraction <= 1, f"fraction must lie in (0, 1], got {fraction}")
    array = numbers("curve", curve, dims=1)
    count = math.ceil(fraction * len(array) - 1e-9)  # 0.1 · 30 is 3 + 4e-16: three bins, not four
    return float(array[-max(count, 1) :].mean())


def realised_values(
    reward: ArrayLike,
    terminated: ArrayLike,
    truncated: ArrayLike,
    discount: float,
    *,
    unseen: float = 0.05,
) -> Floats:
    """The discounted return-to-go that followed each step, to hold against predicted values.

    `reward`, `terminated` and `truncated` have shape (env_steps,), so has the result:
    `G_t = r_t + discount · G_{t+1}`, with nothing after a termination. Nothing is bootstrapped
    from predictions: diverged values must not vouch for themselves.

    Where an episode is cut off after m more rewards, by truncation or by the end of the log, the
    unseen rest would enter G_t with weight `discount ** m`. Below `unseen` the rest counts as zero;
    else G_t is nan. A step both terminated and truncated is terminated.

    Raises `RegrowError` on unequal shapes, non-finite rewards, or a discount outside [0, 1].
    """
    rewards = numbers("reward", reward, dims=1)
    terminal, cut = flags(rewards.shape, terminated=terminated, truncated=truncated)
    require(0 <= discount <= 1, f"discount must lie in [0, 1], got {discount}")
    require(0 <= unseen <= 1, f"unseen must lie in [0, 1], got {unseen}")
    rewards, terminal, cut = rewards.tolist(), terminal.tolist(), cut.tolist()
    values = np.empty(len(rewards))
    to_go, rest = 0.0, 1.0  # rest: the weight of the unseen; the log's end cuts its last episode
    for t in reversed(range(len(rewards))):
        if terminal[t] or cut[t]:
            to_go, rest = 0.0, 0.0 if terminal[t] else 1.0
        to_go, rest = rewards[t] + discount * to_go, discount * rest
        values[t] = to_go if rest == 0 or rest < unseen else math.nan
    return values


def bin_ends(start: int, env_steps: int, bins: int) -> NDArray[np.int64]:
    """Where each of `bins` equal time bins ends, in env steps of training."""
    return start + (np.arange(1, bins + 1) * env_steps) // bins

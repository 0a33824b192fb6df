"""Learning curves: returns over time, computed from the log of every env step."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regrow.errors import require
from regrow.stats.arrays import Floats, flags, numbers


def running_mean(values: ArrayLike, window: int) -> Floats:
    """The mean of the last `window` values up to each one; of fewer at the start.

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

    Only complete episodes count. A bin in which none ends lies inside one episode of each
    environment. Its value is the mean of the total returns of those episodes. If an episode ends
    later in the log, its total is known from the log. For episodes that still run at the end of
    the log, `running` has the totals, shape (num_envs,), as `Run.play_out` returns them (NaN:
    unknown). If no total is known, a bin takes the value of the previous bin, and the first bin
    takes `before`, which may be NaN. The partial return of an unfinished episode never counts: with
    negative rewards a longer, worse episode would look better.

    `restarts`: env steps of the log before which all environments were forced to start new
    episodes. The total returns of the episodes that were cut off are unknown.

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
    """Whether `learning_curve` needs `running`.

    It does if an episode that runs at the end of the log fills a bin in which no episode ends.
    `ended` is as in `learning_curve`.
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
    """At each of `steps`, the total return of the episode that each environment is in.

    Shape (steps, num_envs); NaN if unknown. Each of these episodes continues after its step.
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

    This is a mean over env steps, not over episodes. If an arm's early episodes are short, a mean
    over episodes gives that phase more weight and can flip the sign of a comparison. Raises
    `RegrowError` if values are missing or not finite.
    """
    return float(numbers("curve", curve, dims=1).mean())


def final_return(curve: ArrayLike, fraction: float = 0.25) -> float:
    """The mean of the last `fraction` of a learning curve, in the unit of a return.

    It averages the last ceil(fraction · bins) of a curve of shape (bins,): 3 of 10 by default.
    Raises `RegrowError` if values are missing or not finite, or the fraction is outside (0, 1].
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
    """The discounted return-to-go of each step, for comparison with predicted values.

    `reward`, `terminated` and `truncated` have shape (env_steps,), and so has the result:
    `G_t = r_t + discount · G_{t+1}`, with G = 0 after a termination. There is no bootstrapping from
    predictions: diverged values would then confirm themselves.

    If an episode is cut off after m more rewards, by truncation or by the end of the log, the
    unseen rest has weight `discount ** m` in G_t. If that weight is below `unseen`, the rest counts
    as zero; otherwise G_t is NaN. A step that is both terminated and truncated counts as
    terminated.

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
    """The end of each of `bins` equal time bins, in env steps of training; shape (bins,)."""
    return start + (np.arange(1, bins + 1) * env_steps) // bins

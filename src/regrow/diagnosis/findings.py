"""What else was seen beside the effect: findings, which say how a claim is to be read.

"Injection did not help" is not "all is well": a reset may help where injection does not, values may
be supported by no return, no arm may have learned anything, runs may fall into two groups, and the
injection itself may cost.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from regrow.diagnosis.comparisons import Look, lead_over_random
from regrow.diagnosis.outcomes import Outcome, Sample, areas, finals
from regrow.diagnosis.plan import Roles
from regrow.stats.intervals import Interval

DIVERGED = 10.0
"""Mean |predicted value| this many times the scale of what was really collected is diverged."""
APART, APART_OF_FEW, FAR = 5.0, 8.0, 0.25
"""Units further from the median than this many scaled median absolute deviations (of fewer than 8
units the second number), and than this share of what learning is worth, stand apart. In normal data
that is said 5% of the time at most."""


class Finding(NamedTuple):
    """Something that bears on how the claim is to be read."""

    code: str
    text: str


def findings_of(look: Look, roles: Roles, restarted: bool) -> list[Finding]:
    """What else was seen, the gravest first."""
    inject, resets, shares = roles.injection, roles.resets, look.shares
    nobody = _nobody_learns(look)
    splits = {arm: split for arm, split in roles.splits.items() if arm in shares}
    found = [
        nobody,
        _no_spread(look, inject),
        None if nobody else _control_did_not_learn(look, roles),
        *(_reset_alone(look, inject, reset) for reset in resets if reset in shares),
        _diverged(look.sample, roles.control),
        _two_modes(look, inject),
        _injection_costs(look, roles),
        *(_reset_costs(shares[reset], reset) for reset in resets if reset in shares),
        _no_reset(resets, shares),
        _restarted() if restarted else None,
        _lost_in(look, splits) if len(splits) > 1 else None,
        _unfinished(look.sample),
    ]
    return [finding for finding in found if finding is not None]


def not_finite(broken: Mapping[str, Sequence[Outcome]]) -> Finding:
    """Arms with a run whose numbers are no longer finite: nothing of them is averaged."""
    told = [
        f"{arm}, seed {run.seed}: {run.stopped}" for arm, runs in broken.items() for run in runs
    ]
    rest = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
    return Finding("not_finite", f"left out is {', '.join(broken)}. {told[0]}{rest}")


def _nobody_learns(look: Look) -> Finding | None:
    """No arm is above the random policy: then there is nothing to compare.

    One-sided at 5%, with the spread of all arms together. It stops a claim and makes none.
    """
    scale = look.scale
    if not math.isfinite(scale.random):
        return None
    lead, degrees = lead_over_random(look.sample, scale)
    if lead > float(stdtrit(degrees, 0.95)):
        return None
    best = max(float(finals(runs).mean()) for runs in look.sample.arms.values())
    return Finding(
        "nobody_learns",
        f"no arm ends clearly above the random policy's return of {scale.random:.3g} (best "
        f"{best:.3g}): nothing can be read from this fork; give it a longer horizon or an easier "
        "task",
    )


def _no_spread(look: Look, inject: str) -> Finding | None:
    if not look.measured(inject).alike:
        return None
    return Finding(
        "no_spread",
        "the difference is the same in every run, so nothing is known of its interval",
    )


def _control_did_not_learn(look: Look, roles: Roles) -> Finding | None:
    """The untreated agent is not clearly above the random policy after the fork.

    Where the injected arm is, this is what lost plasticity looks like at its worst. Where it is not
    either, "no plasticity loss" would be said of agents that may never have learned anything.
    """
    if look.above_random(roles.control):
        return None
    control = look.sample.arms[roles.control]
    earned = (
        f"the arm '{roles.control}' is not clearly above the random policy's return of "
        f"{look.scale.random:.3g} "
        f"({areas(control).mean():.3g} after the fork, {finals(control).mean():.3g} at the end)"
    )
    above = [arm for arm in look.sample.arms if look.above_random(arm)]
    if roles.injection in above:
        text = f"{earned}, the injected arm is: what is compared is learning with none"
    else:
        advice = (
            f"only {', '.join(above)}"
            if above
            else "take an agent that learns this task, a longer horizon, or more seeds"
        )
        text = (
            f"{earned}, nor is the injected arm ({advice}): this cannot show that no plasticity "
            "was lost"
        )
    return Finding("control_did_not_learn", text)


def _reset_alone(look: Look, inject: str, reset: str) -> Finding | None:
    """The reset helps, injection is not seen to, and the difference between the two is clear."""
    injection, renewal = look.shares[inject], look.shares[reset]
    difference = look.difference(reset, inject)
    apart = (difference.estimate if difference.missing else difference.low) > 0
    if not (look.side(reset) > 0 and look.side(inject) <= 0 and apart):
        return None
    return Finding(
        "reset_helps_injection_does_not",
        f"{reset} improves learning by {percent(renewal)} where injection, which keeps what the "
        f"network predicts, gives {percent(injection)}: the problem is more likely "
        "wrong value estimates, poor exploration, or layers ahead of the split (--where looks "
        "there) than plasticity lost in the head",
    )


def _diverged(sample: Sample, control: str) -> Finding | None:
    """Values far above anything that was collected, by any arm, in the untreated one."""
    runs = [run for held in sample.runs.values() for run in held]
    predicted = max(float(np.max(run.predicted)) for run in sample.runs[control])
    realised = max(
        max(run.realised if math.isfinite(run.realised) else 0.0, run.largest_reward)
        for run in runs
    )
    # Rewards came, but no return-to-go is known where all episodes are cut off early: no scale.
    unknown = realised > 0 and not any(run.realised for run in runs)
    # Where nobody ever collected anything there is no scale either, and 1 stands in for it.
    if math.isfinite(predicted) and (unknown or predicted <= DIVERGED * (realised or 1.0)):
        return None
    return Finding(
        "values_diverged",
        f"the untreated agent predicts values of {predicted:.3g} where no arm ever saw more than "
        f"{realised:.3g}: its values have diverged",
    )


def shares_by_unit(look: Look, arm: str) -> np.ndarray:
    """An arm's difference to the control as a share of what learning is worth, unit by unit.

    Units are seeds or, of a single agent, replicates, put side by side in their order; shape (n,).
    """
    n, unit = look.n, look.scale.value
    if not unit > 0:
        return np.full(n, math.nan)
    treated, control = (areas(look.sample.arms[name])[:n] for name in (arm, look.control))
    return (treated - control) / unit


def _two_modes(look: Look, inject: str) -> Finding | None:
    """Some units stand far apart from the others: a mean describes neither group."""
    if not look.scale.value > 0:
        return None
    shares = shares_by_unit(look, inject)
    apart = stand_apart(shares)
    if not apart.any():
        return None
    few, many = shares[apart], shares[~apart]
    return Finding(
        "two_modes",
        f"{len(few)} of {len(shares)} stand apart: injection changes them by "
        f"{', '.join(f'{share:+.0%}' for share in sorted(few))}, the others by "
        f"{np.median(many):+.0%} (median); look at every run, and mind that a mean describes "
        "neither group",
    )


def stand_apart(shares: np.ndarray) -> np.ndarray:
    """Which units stand far apart from the median; a minority of them, if any."""
    distance = np.abs(shares - np.median(shares))
    spread = 1.4826 * float(np.median(distance))
    return (distance > (APART if len(shares) >= 8 else APART_OF_FEW) * spread) & (distance > FAR)


def _injection_costs(look: Look, roles: Roles) -> Finding | None:
    """The whole interval of injection lies below 0; and whether its end does, of the last quarter.

    A new head has to be learned, so the mean over the horizon counts a dip of which nothing may be
    left at the end.
    """
    effect = look.shares[roles.injection]
    if not effect.high < 0:
        return None
    end = look.difference(roles.injection, roles.control, finals).over(look.scale.value)
    if end.high < 0:
        last = f"the last quarter of the horizon shows it too, {percent(end)}"
    elif end.low > 0:
        last = (
            f"in the last quarter of the horizon it gains {percent(end)}: a transient, which a "
            "longer horizon may outweigh"
        )
    else:
        last = (
            f"in the last quarter of the horizon it is not told from none, {percent(end)}: it may "
            "be a transient, which the mean over the horizon counts"
        )
    return Finding("injection_costs", f"injection costs {percent(effect)}; {last}")


def _reset_costs(renewal: Interval, reset: str) -> Finding | None:
    if not renewal.high < 0:
        return None
    return Finding(
        "reset_costs", f"{reset} costs {percent(renewal)}: what it threw away was of use"
    )


def _no_reset(resets: Sequence[str], shares: Mapping[str, Interval]) -> Finding | None:
    if any(reset in shares for reset in resets):
        return None
    return Finding(
        "no_reset_arm", "no arm was reset, so wrong beliefs cannot be told from lost plasticity"
    )


def _restarted() -> Finding:
    return Finding(
        "episodes_restarted",
        "the environment cannot be copied: every arm began a new episode at the fork, alike",
    )


def _unfinished(sample: Sample) -> Finding | None:
    """Episodes that did not end, though they were played on after the horizon."""
    given_up = {arm: sum(run.unfinished for run in runs) for arm, runs in sample.runs.items()}
    told = ", ".join(f"{count} of {arm}" for arm, count in given_up.items() if count)
    if not told:
        return None
    return Finding(
        "episodes_unfinished",
        f"episodes were given up before their end ({told}): they count with what they had "
        "collected by then",
    )


def _lost_in(look: Look, splits: Mapping[str, int]) -> Finding:
    """Where plasticity was lost: the last layer from which on an injection still helps.

    An injection at split s renews the layers from s on. If it helps and the one at the next split
    does not, the layers between are those that could no longer learn. "Does not" needs a clear
    difference between the two: one interval above the bound and one across it are not enough. A
    split whose runs are all alike leaves it open.
    """
    ordered = sorted(splits.items(), key=lambda item: item[1])
    shares = look.shares
    tried = ", ".join(f"{shares[arm].estimate:+.0%} from layer {split}" for arm, split in ordered)
    alike = [split for arm, split in ordered if look.measured(arm).alike]
    if alike:
        text = f"not told: all seeds show the same difference at split {alike[0]} ({tried})"
        return Finding("lost_in", text)
    helps = [(arm, split) for arm, split in ordered if look.side(arm) > 0]
    if not helps:
        return Finding("lost_in", f"no split helps ({tried}): no layer is seen to have lost it")
    here, split = helps[-1]
    later = [(arm, s) for arm, s in ordered if s > split]
    if not later:
        text = f"renewing the layers from {split} on is enough ({tried}): it was lost there"
        return Finding("lost_in", text)
    beyond, following = later[0]
    if not look.difference(here, beyond).low > 0:
        text = (
            f"in layer {split} or after it: renewing from {split} and from {following} on are not "
            f"told apart ({tried}); run more seeds"
        )
    elif following == split + 1:
        text = (
            f"layer {split}: renewing it and what follows helps, from layer {split + 1} on does "
            f"not ({tried})"
        )
    else:
        text = f"one of layers {split} to {following - 1} ({tried})"
    return Finding("lost_in", text)


def percent(interval: Interval) -> str:
    """An effect and its interval, as reasons and findings write them."""
    return f"{interval:+.0%}"

"""What else was seen beside the effect: findings, which say how a claim is to be read.

"Injection did not help" is not "all is well": a reset may help where injection does not, values may
be supported by no return, no arm may have learned anything, noise may be as large as the effect,
and the injection itself may cost.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from regrow.diagnosis.outcomes import Outcome, areas, scale_of
from regrow.diagnosis.plan import Roles
from regrow.stats.intervals import Interval, paired_difference

# Mean |predicted value| this many times the scale of what was really collected counts as diverged.
DIVERGED = 10.0


class Finding(NamedTuple):
    """Something that bears on how the claim is to be read."""

    code: str
    text: str


def findings_of(
    arms: Mapping[str, Sequence[Outcome]],
    relative: Mapping[str, Interval],
    roles: Roles,
    random_return: float,
    smallest: float,
    confidence: float,
    restarted: bool,
) -> list[Finding]:
    """What else was seen, the gravest first."""
    inject, resets = roles.injection, roles.resets
    nobody = _nobody_learns(arms, random_return, confidence)
    found = [
        nobody,
        _no_spread(relative[inject]),
        None if nobody else _control_did_not_learn(arms, roles, random_return, confidence),
        *(_reset_alone(arms, relative, inject, r, smallest) for r in resets if r in relative),
        _diverged(arms, roles.control),
        _noisy(relative.get(roles.replicate or ""), relative[inject]),
        _injection_costs(arms, relative[inject], roles),
        *(_reset_costs(relative[reset], reset) for reset in resets if reset in relative),
    ]
    if not any(reset in relative for reset in resets):
        found.append(
            Finding(
                "no_reset_arm",
                "no arm was reset, so wrong beliefs cannot be told from lost plasticity",
            )
        )
    if restarted:
        found.append(
            Finding(
                "episodes_restarted",
                "the environment cannot be copied: every arm began a new episode at the fork, "
                "alike",
            )
        )
    return [finding for finding in found if finding is not None]


def not_finite(broken: Mapping[str, Sequence[Outcome]]) -> Finding:
    """Arms with a seed whose numbers are no longer finite: nothing of them is averaged."""
    told = [
        f"{arm}, seed {run.seed}: {run.stopped}" for arm, runs in broken.items() for run in runs
    ]
    rest = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
    return Finding("not_finite", f"left out is {', '.join(broken)}. {told[0]}{rest}")


def unfinished(arms: Mapping[str, Sequence[Outcome]]) -> Finding | None:
    """Episodes that did not end, though they were played on after the horizon."""
    given_up = {arm: sum(run.unfinished for run in runs) for arm, runs in arms.items()}
    told = ", ".join(f"{count} of {arm}" for arm, count in given_up.items() if count)
    if not told:
        return None
    return Finding(
        "episodes_unfinished",
        f"episodes were given up before their end ({told}): they count with what they had "
        "collected by then",
    )


def lost_in(
    arms: Mapping[str, Sequence[Outcome]],
    relative: Mapping[str, Interval],
    splits: Mapping[str, int],
    smallest: float,
) -> Finding:
    """Where plasticity was lost: the last layer from which on an injection still helps.

    An injection at split s renews the layers from s on. If it helps and the one at the next split
    does not, the layers between are those that could no longer learn. "Does not" asks for a
    difference between the two: one interval above the bound beside one across it is none. A split
    without an interval, all of its seeds alike, leaves it open.
    """
    ordered = sorted(splits.items(), key=lambda item: item[1])
    helps = [(arm, split) for arm, split in ordered if relative[arm].low > smallest]
    tried = ", ".join(f"{relative[arm].estimate:+.0%} from layer {split}" for arm, split in ordered)
    alike = [split for arm, split in ordered if relative[arm].missing]
    if alike:
        text = f"not told: all seeds show the same difference at split {alike[0]} ({tried})"
        return Finding("lost_in", text)
    if not helps:
        return Finding("lost_in", f"no split helps ({tried}): no layer is seen to have lost it")
    here, split = helps[-1]
    later = [(arm, s) for arm, s in ordered if s > split]
    if not later:
        text = f"renewing the layers from {split} on is enough ({tried}): it was lost there"
        return Finding("lost_in", text)
    beyond, following = later[0]
    confidence = relative[here].confidence
    apart = paired_difference(areas(arms[here]), areas(arms[beyond]), confidence=confidence)
    if not apart.low > 0:
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


def _nobody_learns(
    arms: Mapping[str, Sequence[Outcome]], random_return: float, confidence: float
) -> Finding | None:
    """No arm ends above the random policy: then there is nothing to compare.

    With many arms one would seem to by chance, so each is asked for more (Bonferroni).
    """
    if not math.isfinite(random_return):
        return None
    finals = {arm: _finals(runs) for arm, runs in arms.items()}
    each = 1 - (1 - confidence) / len(finals)
    if any(_above(values, random_return, each) for values in finals.values()):
        return None
    best = max(float(values.mean()) for values in finals.values())
    return Finding(
        "nobody_learns",
        f"no arm ends clearly above the random policy's return of {random_return:.3g} (best "
        f"{best:.3g}): nothing can be read from this fork; give it a longer horizon or an easier "
        "task",
    )


def _finals(runs: Sequence[Outcome]) -> np.ndarray:
    return np.array([run.final for run in runs])


def _above(values: np.ndarray, level: float, confidence: float) -> bool:
    """Whether runs lie clearly above a level: the t interval of their mean does.

    Equal runs have no interval; they do if they lie above it, as runs at the most that can be had.
    """
    interval = paired_difference(values, np.full(len(values), level), confidence=confidence)
    return (interval.estimate if interval.missing else interval.low) > 0


def learned(runs: Sequence[Outcome], random_return: float, confidence: float) -> bool:
    """Whether an arm is clearly above the random policy, over the horizon or at its end.

    The t interval of either has to lie above. That is one-sided: at 95%, of arms at the level of
    the random policy 2.5% do so by chance in each, 5% at most in one of the two. The policy's
    return is taken as known; where it is not (NaN), every arm is.
    """
    if not math.isfinite(random_return):
        return True
    return any(_above(values, random_return, confidence) for values in (areas(runs), _finals(runs)))


def _control_did_not_learn(
    arms: Mapping[str, Sequence[Outcome]], roles: Roles, random_return: float, confidence: float
) -> Finding | None:
    """The untreated agent is not clearly above the random policy after the fork.

    Where the injected arm is, this is what lost plasticity looks like at its worst. Where it is not
    either, "no plasticity loss" would be said of agents that may never have learned anything.
    """
    control, inject = arms[roles.control], roles.injection
    if learned(control, random_return, confidence):
        return None
    earned = (
        f"the arm '{roles.control}' is not clearly above the random policy's return of "
        f"{random_return:.3g} "
        f"({areas(control).mean():.3g} after the fork, {_finals(control).mean():.3g} at the end; "
        f"{len(control)} seeds)"
    )
    above = [arm for arm in arms if learned(arms[arm], random_return, confidence)]
    if inject in above:
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


def _injection_costs(
    arms: Mapping[str, Sequence[Outcome]], effect: Interval, roles: Roles
) -> Finding | None:
    """The whole interval of injection lies below 0; and whether its end does, of the last quarter.

    A new head has to be learned, so the mean over the horizon counts a dip of which nothing may be
    left at the end.
    """
    if not effect.high < 0:
        return None
    runs, control = (_finals(arms[name]) for name in (roles.injection, roles.control))
    scale, _ = scale_of(arms, roles.control)
    end = paired_difference(runs, control, confidence=effect.confidence).over(scale)
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


def _no_spread(effect: Interval) -> Finding | None:
    if not effect.missing:
        return None
    return Finding(
        "no_spread",
        "the paired difference is the same for every seed, so nothing is known of its interval",
    )


def _reset_alone(
    arms: Mapping[str, Sequence[Outcome]],
    relative: Mapping[str, Interval],
    inject: str,
    reset: str,
    smallest: float,
) -> Finding | None:
    """The reset helps, injection is not seen to, and the difference between the two is clear."""
    injection, renewal = relative[inject], relative[reset]
    apart = _above(areas(arms[reset]) - areas(arms[inject]), 0.0, renewal.confidence)
    if not (renewal.low > smallest and injection.low <= smallest and apart):
        return None
    return Finding(
        "reset_helps_injection_does_not",
        f"{reset} improves learning by {percent(renewal)} where injection, which keeps what the "
        f"network predicts, gives {percent(injection)}: the problem is more likely "
        "wrong value estimates or poor exploration than lost plasticity",
    )


def _diverged(arms: Mapping[str, Sequence[Outcome]], control: str) -> Finding | None:
    """Values far above anything that was collected, by any arm, in the untreated one."""
    predicted = max(float(np.max(run.predicted)) for run in arms[control])
    realised = max(
        max(run.realised if math.isfinite(run.realised) else 0.0, run.largest_reward)
        for runs in arms.values()
        for run in runs
    )
    runs = [run for runs in arms.values() for run in runs]
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


def _noisy(floor: Interval | None, effect: Interval) -> Finding | None:
    if floor is None:
        return Finding(
            "no_noise_floor", "without the arm 'again' the noise floor was assumed, not measured"
        )
    if floor.missing:
        return Finding(
            "no_noise_floor",
            f"the arm 'again' differs from 'nothing' by {floor.estimate:+.0%} in every seed: the "
            "noise floor was not measured",
        )
    if floor.low <= 0 <= floor.high and abs(floor.estimate) < abs(effect.estimate):
        return None
    if floor.low <= 0 <= floor.high and effect.low <= 0 <= effect.high:
        return None  # two intervals around zero: nothing to warn of
    return Finding(
        "noise_floor_high",
        f"a replicate of the control differs by {percent(floor)}, next to an effect of "
        f"{percent(effect)}: run more seeds before reading this",
    )


def _reset_costs(renewal: Interval, reset: str) -> Finding | None:
    if not renewal.high < 0:
        return None
    return Finding(
        "reset_costs", f"{reset} costs {percent(renewal)}: what it threw away was of use"
    )


def percent(interval: Interval) -> str:
    """An effect and its interval, as reasons and findings write them."""
    return f"{interval:+.0%}"

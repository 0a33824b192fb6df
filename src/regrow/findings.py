"""What else was seen beside the effect: findings, which say how a claim is to be read.

"Injection did not help" is not "all is well": a reset may help where injection does not, values may
be supported by no return, no arm may have learned anything, noise may be as large as the effect.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from regrow.outcomes import Outcome, areas
from regrow.statistics import Interval, paired_difference

# Mean |predicted value| this many times the scale of what was really collected counts as diverged.
DIVERGED = 10.0


class Finding(NamedTuple):
    """Something that bears on how the claim is to be read."""

    code: str
    text: str


def findings_of(
    arms: Mapping[str, Sequence[Outcome]],
    relative: Mapping[str, Interval],
    inject: str,
    resets: Sequence[str],
    random_return: float,
    smallest: float,
    confidence: float,
    restarted: bool,
) -> list[Finding]:
    """What else was seen, the gravest first."""
    found = [
        _nobody_learns(arms, random_return, confidence),
        _no_spread(relative[inject]),
        *(_reset_alone(arms, relative, inject, r, smallest) for r in resets if r in relative),
        _diverged(arms),
        _noisy(relative.get("again"), relative[inject]),
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
    difference between the two: one interval above the bound beside one across it is none.
    """
    ordered = sorted(splits.items(), key=lambda item: item[1])
    helps = [(arm, split) for arm, split in ordered if relative[arm].low > smallest]
    tried = ", ".join(f"{relative[arm].estimate:+.0%} from layer {split}" for arm, split in ordered)
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
    if apart.low <= 0:
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
    finals = {arm: np.array([run.final for run in runs]) for arm, runs in arms.items()}
    each = 1 - (1 - confidence) / len(finals)
    for values in finals.values():
        reference = np.full(len(values), random_return)
        if paired_difference(values, reference, confidence=each).low > 0:
            return None
    best = max(float(values.mean()) for values in finals.values())
    return Finding(
        "nobody_learns",
        f"no arm ends clearly above the random policy's return of {random_return:.3g} (best "
        f"{best:.3g}): nothing can be read from this fork; give it a longer horizon or an easier "
        "task",
    )


def _no_spread(effect: Interval) -> Finding | None:
    if effect.high - effect.low > 1e-9 * abs(effect.estimate):
        return None
    return Finding(
        "no_spread",
        "the paired difference is the same for every seed, so its interval says nothing",
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
    apart = paired_difference(
        areas(arms[reset]), areas(arms[inject]), confidence=renewal.confidence
    )
    if not (renewal.low > smallest and injection.low <= smallest and apart.low > 0):
        return None
    return Finding(
        "reset_helps_injection_does_not",
        f"{reset} improves learning by {percent(renewal)} where injection, which keeps what the "
        f"network predicts, gives {percent(injection)}: the trouble is not its ability to learn "
        "alone, but what it believes, or what it explores",
    )


def _diverged(arms: Mapping[str, Sequence[Outcome]]) -> Finding | None:
    """Values far above anything that was collected, by any arm, in the untreated one."""
    predicted = max(float(np.max(run.predicted)) for run in arms["nothing"])
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
    if floor.low <= 0 <= floor.high and abs(floor.estimate) < abs(effect.estimate):
        return None
    if floor.low <= 0 <= floor.high and effect.low <= 0 <= effect.high:
        return None  # two intervals around zero: nothing to warn of
    return Finding(
        "noise_floor_high",
        f"the same agent with other draws differs by {percent(floor)}, beside an effect of "
        f"{percent(effect)}: run more seeds before reading this",
    )


def _reset_costs(renewal: Interval, reset: str) -> Finding | None:
    if renewal.high >= 0:
        return None
    return Finding(
        "reset_costs", f"{reset} costs {percent(renewal)}: what it threw away was of use"
    )


def percent(interval: Interval) -> str:
    """An effect and its interval, as reasons and findings write them."""
    return f"{interval.estimate:+.0%} [{interval.low:+.0%}, {interval.high:+.0%}]"

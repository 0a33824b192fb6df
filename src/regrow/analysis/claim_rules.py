"""Rules that decide claims, from the conditions of the study that is about them.

A rule is written down here before its study runs. It has three answers: *holds here*, *does not
hold here*, *not decided*. It uses 95% t intervals of paired differences over seeds, as shares of
what they are compared with. To decide, a whole interval has to be on one side of S, the smallest
effect that matters (10%), and some arm of its condition has to learn. If all seeds show the same
difference there is no interval, and nothing is decided. Claims 3, 5, 6, 11 and 12 have no rule:
they are an argument (3), checked by the tests of injection (5), the premise of every verdict (6),
and open questions (11, 12).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from regrow.analysis.across_conditions import Proxy, gains_by_seed, proxies
from regrow.analysis.conditions import Case
from regrow.diagnosis.findings import percent
from regrow.diagnosis.outcomes import Outcome
from regrow.diagnosis.verdict import LOSS, NO_LOSS
from regrow.errors import RegrowError, require
from regrow.stats.arrays import Floats
from regrow.stats.effects import paired
from regrow.stats.intervals import Interval, paired_difference

HOLDS, FAILS, OPEN = "holds here", "does not hold here", "not decided"
COMPLETE = 0.9
"""A probe with a higher rank correlation with the gain measures lost plasticity in full."""
EITHER_WAY = ("hidden",)
"""Axes of which the talk says that they control the pace, but not in which direction."""


class Decision(NamedTuple):
    """The answer to a claim here, and the reason in a sentence."""

    answer: str
    reason: str


def decide(claim: int, cases: Sequence[Case]) -> Decision | None:
    """What the cases of a study decide about a claim; None if there is no rule for it."""
    if claim not in RULES:
        return None
    judged = [case for case in cases if case.verdict is not None]
    try:
        require(len(judged) == len(cases) > 0, "some conditions are not judged yet")
        return RULES[claim](judged)
    except RegrowError as error:
        return Decision(OPEN, f"{error}.")


# Rules, by claim.


def _early_updates_damage(cases: Sequence[Case]) -> Decision:
    """1: with the most early updates, the untreated agent does worse by more than S."""
    least, most = _ends(cases)
    _learned(least)
    change = _relative_to(most, "nothing", least, "nothing")
    reason = f"untreated, {most.label}, it collects {percent(change)} beside {least.label}."
    return Decision(_worse(change, _smallest(cases)), reason)


def _resets_help(cases: Sequence[Case]) -> Decision:
    """2: over all tasks, the reset arms do better by more than S."""
    gains = []
    for case in cases:
        reset = next((arm for arm in case.arms if re.match(r"reset\b", arm)), None)
        require(reset is not None, f"{case.label} has no reset arm")
        _learned(case)
        gains.append(gains_by_seed(case, str(reset)))
    seeds = min(map(len, gains))
    mean = np.mean([gain[:seeds] for gain in gains], axis=0)
    change = _change(mean, np.zeros(seeds))
    reason = f"over {len(cases)} conditions resets gain {percent(change)}."
    return Decision(_better(change, _smallest(cases)), reason)


def _proxies_are_incomplete(cases: Sequence[Case]) -> Decision:
    """4: no probe's rank correlation with the gain reaches `COMPLETE`, though one could.

    A gain is measured with the noise of its seed. If that noise is a large part of how gains
    differ, even the true gain of every condition would not reach it, and nothing is decided.
    """
    found = proxies([case for case in cases if _somebody_learns(case)])
    require(len(found) > 0, "there are too few runs in which somebody learns")
    best = max(found, key=lambda proxy: _sizes(proxy.correlation)[0])
    low, high = _sizes(best.correlation)
    reach = max(_sizes(proxy.correlation)[1] for proxy in found)
    attainable = _attainable(best)
    incomplete = reach < COMPLETE <= attainable
    answer = FAILS if low > COMPLETE else HOLDS if incomplete else OPEN
    reason = (
        f"of {len(found)} probes the surest predictor of the gain is {best.name}, with a rank "
        f"correlation of {best.correlation.estimate:.2f}, in size [{low:.2f}, {high:.2f}]; "
        f"one that knew the gain of every condition would reach {attainable:.2f}."
    )
    return Decision(answer, reason)


def _not_uniform(cases: Sequence[Case]) -> Decision:
    """7: injection gains by more than S in some condition and does not in another."""
    claims = [case.verdict.claim for case in cases if case.verdict]
    gaining, not_so = claims.count(LOSS), claims.count(NO_LOSS)
    one_sided = max(gaining, not_so) == len(claims) > 1
    answer = HOLDS if gaining and not_so else FAILS if one_sided else OPEN
    reason = f"of {len(claims)} conditions, {gaining} gain, {not_so} do not, the others are open."
    return Decision(answer, reason)


def _pace(cases: Sequence[Case]) -> Decision:
    """8: on every axis the gain is larger, by more than S, at the highest level than the lowest.

    For the size of the network it has to differ by more than S, in either direction.
    """
    axes = dict.fromkeys(case.row.axis for case in cases if case.row.level is not None)
    require(len(axes) > 0, "nothing was turned")
    answers, reasons = [], []
    for axis in axes:
        least, most = map(_learned, _ends([case for case in cases if case.row.axis == axis]))
        higher, lower = (gains_by_seed(case, case.injection) for case in (most, least))
        seeds = min(len(higher), len(lower))
        change = _change(higher[:seeds], lower[:seeds])
        decided = _different if axis in EITHER_WAY else _better
        answers.append(decided(change, _smallest(cases)))
        reasons.append(f"{axis.replace('_', ' ')}: {percent(change)} from least to most")
    alike = set(answers)
    return Decision(answers[0] if len(alike) == 1 else OPEN, f"{'; '.join(reasons)}.")


def _late_injection_keeps_up(cases: Sequence[Case]) -> Decision:
    """9: in the end injection is not behind the wider network by more than S, with fewer FLOPs."""
    small, wide = map(_learned, _ends(cases))
    change = _relative_to(small, small.injection, wide, "nothing", final=True)
    spent, more = _flops(small, small.injection), _flops(wide, "nothing")
    cost = spent / more if more > 0 else float("nan")
    reason = (
        f"injection ends {percent(change)} beside {wide.label}, for {cost:.0%} of its FLOPs."
        if np.isfinite(cost)
        else f"injection ends {percent(change)} beside {wide.label}; its cost was not measured."
    )
    behind = _worse(change, _smallest(cases))
    if behind == HOLDS:
        return Decision(FAILS, reason)
    return Decision(HOLDS if behind == FAILS and cost < 1 else OPEN, reason)


def _compares_well(cases: Sequence[Case]) -> Decision:
    """10: no other arm is ahead of injection by more than S.

    Of many equal rivals one is ahead by chance, so each is asked for more (Bonferroni).
    """
    answers, behind = [], []
    rivals = [
        (case, arm)
        for case in map(_learned, cases)
        for arm in case.arms
        if arm not in ("nothing", case.injection)
    ]
    for case, arm in rivals:
        change = _relative_to(case, case.injection, case, arm, confidence=1 - 0.05 / len(rivals))
        answers.append(_worse(change, _smallest(cases)))
        behind.append((change.estimate, arm, change))
    require(len(behind) > 0, "there is no other arm")
    _, arm, change = min(behind)
    reason = f"beside the best of {len(behind)} others, {arm}, injection gives {percent(change)}."
    worse = {HOLDS: FAILS, FAILS: HOLDS, OPEN: OPEN}
    answer = HOLDS if HOLDS in answers else OPEN if OPEN in answers else FAILS
    return Decision(worse[answer], reason)


RULES: Mapping[int, Callable[[Sequence[Case]], Decision]] = {
    1: _early_updates_damage,
    2: _resets_help,
    4: _proxies_are_incomplete,
    7: _not_uniform,
    8: _pace,
    9: _late_injection_keeps_up,
    10: _compares_well,
}


# Helpers.


def _worse(change: Interval, smallest: float) -> str:
    """Whether a change is worse by more than the smallest effect."""
    return HOLDS if change.high < -smallest else FAILS if change.low > -smallest else OPEN


def _better(change: Interval, smallest: float) -> str:
    return HOLDS if change.low > smallest else FAILS if change.high < smallest else OPEN


def _different(change: Interval, smallest: float) -> str:
    """Whether a change exceeds the smallest effect, in either direction."""
    if change.low > smallest or change.high < -smallest:
        return HOLDS
    return FAILS if -smallest < change.low and change.high < smallest else OPEN


def _attainable(proxy: Proxy) -> float:
    """The correlation that the true mean gain of every case has with the gains of single seeds.

    √(1 − within / total), with the variance of gains within cases and over all of them.
    """
    labels = np.array([f"{case.scale} {case.label}" for case in proxy.cases])
    groups = [proxy.gains[labels == label] for label in np.unique(labels)]
    spare = len(proxy.gains) - len(groups)
    total = float(np.var(proxy.gains, ddof=1))
    if spare < 1 or total == 0:
        return 0.0
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / spare
    return float(np.sqrt(max(0.0, 1 - within / total)))


def _smallest(cases: Sequence[Case]) -> float:
    return max(case.verdict.smallest_effect for case in cases if case.verdict)


def _somebody_learns(case: Case) -> bool:
    findings = case.verdict.findings if case.verdict else ()
    return all(finding.code != "nobody_learns" for finding in findings)


def _learned(case: Case) -> Case:
    require(_somebody_learns(case), f"nobody learns in {case.label}")
    return case


def _ends(cases: Sequence[Case]) -> tuple[Case, Case]:
    """The cases with the lowest and with the highest level of the axis."""
    turned = [case for case in cases if case.row.level is not None]
    require(len({case.row.level for case in turned}) > 1, "there are not two levels to compare")
    ordered = sorted(turned, key=lambda case: case.row.level or 0.0)
    return ordered[0], ordered[-1]


def _relative_to(
    case: Case,
    arm: str,
    other: Case,
    reference: str,
    *,
    final: bool = False,
    confidence: float = 0.95,
) -> Interval:
    """An arm minus a reference arm, maybe of another case, over shared seeds.

    As a share of what learning is worth: what the better of the two earns above the random policy.
    """

    def of(held: Case, name: str) -> dict[int, float]:
        return {run.seed: _return(run, final) for run in held.outcomes[name]}

    ours, theirs = of(case, arm), of(other, reference)
    seeds = sorted(ours.keys() & theirs.keys())
    require(len(seeds) >= 2, f"{case.label} and {other.label} share fewer than two seeds")
    treated, control = (np.array([held[seed] for seed in seeds]) for held in (ours, theirs))
    better = treated if treated.mean() > control.mean() else control
    row = other.row
    measured = paired(treated, control, better - row.random_return, row.random_error)
    require(not measured.alike, _alike(len(seeds)))
    require(
        measured.u > 0,
        f"{arm} of {case.label} and {reference} of {other.label} earn no more than a random policy",
    )
    critical = float(stdtrit(len(seeds) - 1, (1.0 + confidence) / 2.0))
    return measured.interval(critical, confidence)


def _change(treated: Floats, control: Floats) -> Interval:
    """The paired difference; raises `RegrowError` if it is the same for every seed."""
    change = paired_difference(treated, control)
    require(not change.missing, _alike(len(treated)))
    return change


def _alike(seeds: int) -> str:
    return f"all {seeds} seeds show the same difference, which says nothing of its spread"


def _return(run: Outcome, final: bool) -> float:
    return run.final if final else run.area


def _sizes(correlation: Interval) -> tuple[float, float]:
    """(smallest, largest) size of a correlation within its interval; (0, 1) without one."""
    if correlation.missing:
        return 0.0, 1.0
    low, high = abs(correlation.low), abs(correlation.high)
    across = correlation.low <= 0 <= correlation.high
    return 0.0 if across else min(low, high), max(low, high)


def _flops(case: Case, arm: str) -> float:
    return float(np.mean([row.flops_to_fork + row.flops for row in case.arms[arm]]))

"""From the curves of the arms to a claim, and what to know before believing it.

The effect is the paired difference, injection − nothing, of the mean return after the fork, in
units of the control arm's. Its Student-t interval (arms share the state they were forked from, seed
by seed) is held against the smallest effect that matters:

    wholly above it   plasticity loss, if it is wholly above the noise floor's interval too
    wholly below it   no plasticity loss
    else              inconclusive, and how many seeds would settle it

The noise floor is what another random seed changes (the arm `again`). Nothing is claimed where no
arm learns or all seeds show the same difference; "no plasticity loss" is not claimed where neither
`nothing` nor the injected arm is clearly above the random policy.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from regrow.diagnosis.findings import (
    Finding,
    findings_of,
    learned,
    lost_in,
    not_finite,
    percent,
    unfinished,
)
from regrow.diagnosis.outcomes import Outcome, areas, by_arm, scale_of
from regrow.diagnosis.plan import Roles
from regrow.errors import require
from regrow.stats.intervals import Interval, paired_difference, seeds_to_settle

LOSS, NO_LOSS, INCONCLUSIVE = "plasticity loss", "no plasticity loss", "inconclusive"


@dataclass(frozen=True)
class Comparison:
    """One arm beside `nothing`; `difference` is paired over seeds, in returns."""

    arm: str
    area: float
    final: float
    difference: Interval | None  # None for `nothing` itself


@dataclass(frozen=True)
class Verdict:
    """The answer: a claim with its effect, and what to know before believing it."""

    claim: str
    reason: str
    effect: Interval
    unit: str
    smallest_effect: float
    noise_floor: Interval | None
    findings: tuple[Finding, ...]
    comparisons: tuple[Comparison, ...]
    random_return: float
    seeds_needed: int | None

    def __str__(self) -> str:
        return f"{self.claim}: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain data, for JSON."""
        return {
            "claim": self.claim,
            "reason": self.reason,
            "effect": {**self.effect._asdict(), "unit": self.unit},
            "smallest_effect": self.smallest_effect,
            "noise_floor": self.noise_floor._asdict() if self.noise_floor else None,
            "findings": [finding._asdict() for finding in self.findings],
            "comparisons": [
                {**asdict(c), "difference": c.difference._asdict() if c.difference else None}
                for c in self.comparisons
            ],
            "random_return": self.random_return,
            **({"seeds_needed": self.seeds_needed} if self.claim == INCONCLUSIVE else {}),
        }


def conclude(
    outcomes: Sequence[Outcome],
    roles: Roles | None = None,
    *,
    random_return: float = math.nan,
    smallest_effect: float = 0.05,
    confidence: float = 0.95,
    restarted: bool = False,
) -> Verdict:
    """The verdict on a set of outcomes: every arm with the same seeds, among them `nothing`.

    `roles`: which arms stand for what; by default those of `Roles`.
    `smallest_effect`: as a share of the control arm's mean return. `restarted`: the arms began new
    episodes at the fork. Raises `RegrowError` where the arms do not pair up or fewer than two seeds
    were run.
    """
    roles = roles or Roles()
    control, inject = roles.control, roles.injection
    arms = by_arm(outcomes)
    broken = {
        arm: held for arm, runs in arms.items() if (held := [run for run in runs if run.stopped])
    }
    if broken.keys() & {control, inject}:
        return _undecided(not_finite(broken), smallest_effect, confidence, random_return)
    arms = {arm: runs for arm, runs in arms.items() if arm not in broken}
    _require_pairs(arms, control, inject)
    scale, unit = scale_of(arms, control)
    differences = {
        arm: paired_difference(areas(arms[arm]), areas(arms[control]), confidence=confidence)
        for arm in arms
        if arm != control
    }
    relative = {arm: interval.over(scale) for arm, interval in differences.items()}
    effect, floor = relative[inject], relative.get(roles.replicate or "")
    measured = (arms, relative, roles, random_return, smallest_effect, confidence, restarted)
    findings = (*findings_of(*measured), *_later_findings(arms, relative, roles, smallest_effect))
    findings = (*findings, not_finite(broken)) if broken else findings
    injected_learned = learned(arms[inject], random_return, confidence)
    forbids = _forbids(findings, effect, smallest_effect, injected_learned)
    claim, needed = _claim(effect, floor, smallest_effect, forbids), None
    if claim == INCONCLUSIVE and effect.low <= smallest_effect <= effect.high:
        per_seed = (areas(arms[inject]) - areas(arms[control])) / scale
        needed = seeds_to_settle(per_seed, float(smallest_effect), confidence=confidence)
    return Verdict(
        claim=claim,
        reason=_reason(claim, effect, floor, smallest_effect, needed, findings, forbids),
        effect=effect,
        unit=unit,
        smallest_effect=smallest_effect,
        noise_floor=floor,
        findings=findings,
        comparisons=tuple(_compared(a, runs, differences.get(a)) for a, runs in arms.items()),
        random_return=random_return,
        seeds_needed=needed,
    )


def _require_pairs(arms: Mapping[str, Sequence[Outcome]], control: str, inject: str) -> None:
    require(
        control in arms,
        f"a verdict needs the arm '{control}': it is what the others are paired with",
    )
    require(inject in arms, f"a verdict needs the arm '{inject}'; there are: {', '.join(arms)}")
    seeds = len(arms[control])
    require(seeds >= 2, f"a verdict needs at least 2 seeds, got {seeds}")


def _later_findings(
    arms: Mapping[str, Sequence[Outcome]],
    relative: Mapping[str, Interval],
    roles: Roles,
    smallest_effect: float,
) -> list[Finding]:
    """Where plasticity was lost, and which episodes did not end."""
    splits = {arm: split for arm, split in roles.splits.items() if arm in arms}
    where = lost_in(arms, relative, splits, smallest_effect) if len(splits) > 1 else None
    return [finding for finding in (where, unfinished(arms)) if finding is not None]


def _compared(arm: str, runs: Sequence[Outcome], difference: Interval | None) -> Comparison:
    final = float(np.mean([run.final for run in runs]))
    return Comparison(arm, float(areas(runs).mean()), final, difference)


def _undecided(
    why: Finding, smallest_effect: float, confidence: float, random_return: float
) -> Verdict:
    """The verdict where there is nothing to compare."""
    nothing = Interval(math.nan, math.nan, math.nan, confidence)
    return Verdict(
        claim=INCONCLUSIVE,
        reason=f"{why.text}.",
        effect=nothing,
        unit="return",
        smallest_effect=smallest_effect,
        noise_floor=None,
        findings=(why,),
        comparisons=(),
        random_return=random_return,
        seeds_needed=None,
    )


def _forbids(
    findings: Sequence[Finding], effect: Interval, smallest: float, injected_learned: bool
) -> Finding | None:
    """The finding because of which nothing is claimed, or not that there is no loss; else None."""
    found = {finding.code: finding for finding in findings}
    for code in _ANY_CLAIM:
        if code in found:
            return found[code]
    no_loss = effect.high < smallest and not injected_learned
    return found.get("control_did_not_learn") if no_loss else None


_ANY_CLAIM = ("nobody_learns", "no_spread")


def _claim(
    effect: Interval, floor: Interval | None, smallest: float, forbids: Finding | None
) -> str:
    if forbids is not None:
        return INCONCLUSIVE
    if effect.high < smallest:
        return NO_LOSS
    # Both differences are to the same arm: one that did badly by chance lifts the two of them.
    drowned = floor is not None and effect.low <= floor.high
    return LOSS if effect.low > smallest and not drowned else INCONCLUSIVE


def _reason(
    claim: str,
    effect: Interval,
    floor: Interval | None,
    smallest: float,
    needed: int | None,
    findings: Sequence[Finding],
    forbids: Finding | None,
) -> str:
    """One sentence: the effect, what it was held against, and the gravest finding."""
    if forbids is not None and forbids.code in _ANY_CLAIM:
        return f"{forbids.text}."
    level = f"{effect.confidence:.0%} interval"
    changes = f"changes the return after the fork by {percent(effect)} ({level})"
    against = f"the smallest effect that matters, {smallest:.0%}"
    if claim == LOSS:
        noise = f"; a replicate of the control differs by {percent(floor)}" if floor else ""
        text = f"injection {changes}, above {against}{noise}"
    elif claim == NO_LOSS and effect.high < 0:
        text = (
            f"injection costs: it {changes}; the claim says only that it does not improve learning "
            f"here by {against}, not that it is free"
        )
    elif claim == NO_LOSS:
        text = f"injection does not improve learning here: it {changes}, below {against}"
    elif forbids is not None:
        text = f"injection {changes}, but {forbids.text}"
    elif needed is None and effect.low > smallest:
        text = (
            f"injection {changes}, but a replicate of the control differs by "
            f"{percent(floor or effect)}"
        )
    else:
        more = (
            f"about {needed} seeds would settle it"
            if needed
            else "more than 1000 seeds would be needed"
        )
        text = f"injection {changes}, which does not settle it against {against}; {more}"
    grave = [f for f in findings if f.code in _GRAVE]
    if not grave:
        return f"{text}."
    link = "Not all is well: " if claim != LOSS else "Mind that "
    return f"{text}. {link}{'; '.join(f.text for f in grave)}."


_GRAVE = {"nobody_learns", "no_spread", "reset_helps_injection_does_not", "values_diverged"}

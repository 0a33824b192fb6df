"""From the curves of the arms to a claim, and what to know before believing it.

The effect is the difference injection − nothing of the mean return after the fork, as a share of
what learning is worth: what the best arm earns above the random policy. Its interval is held
against the smallest effect that matters:

    wholly above it   plasticity loss
    wholly below it   no plasticity loss
    else              inconclusive, and how many more seeds to expect

With several agents the claim is about the training: seeds are paired (each the mean of its
replicates) and a paired t test is made. With one agent the claim is about this agent: replicates of
each arm are independent samples and a Welch test is made. Seeds or replicates are added in looks;
all intervals of all looks hold together (`regrow.stats.sequential`).

Nothing is claimed where no arm learns or the difference is the same in every run. "No plasticity
loss" is not claimed where neither the control nor the injected arm is clearly above the random
policy, nor where a reset helps. Where runs fall into two groups, a sign test has to agree.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from regrow.diagnosis.comparisons import Look
from regrow.diagnosis.findings import Finding, findings_of, not_finite, shares_by_unit
from regrow.diagnosis.outcomes import Outcome, Sample, areas, components_of, sampled, scale_of
from regrow.diagnosis.plan import SMALLEST_EFFECT, Roles
from regrow.diagnosis.verdict import (
    INCONCLUSIVE,
    LOSS,
    NO_LOSS,
    Comparison,
    Looked,
    Noise,
    Verdict,
    reason_of,
)
from regrow.errors import require
from regrow.stats.effects import Measured, paired
from regrow.stats.intervals import Interval, no_interval
from regrow.stats.sequential import (
    LARGEST,
    Levels,
    Outlook,
    e_value,
    levels_of,
    outlook,
    power,
    sign_test,
    usual_looks,
)


def conclude(
    outcomes: Sequence[Outcome],
    roles: Roles | None = None,
    *,
    random_return: float = math.nan,
    random_error: float = 0.0,
    smallest_effect: float = SMALLEST_EFFECT,
    confidence: float = 0.95,
    looks: Sequence[int] = (),
    returns_range: tuple[float, float] | None = None,
    restarted: bool = False,
    remarks: Sequence[tuple[str, str]] = (),
) -> Verdict:
    """The verdict on a set of outcomes: every arm with the same seeds, among them the control.

    `roles`: which arms stand for what; by default those of `Roles`. `random_error`: the standard
    error of `random_return`. `smallest_effect`: as a share of the unit. `looks`: the numbers of
    seeds (or replicates of one agent) at which one looks; by default there is one look, at all of
    them. `returns_range`: (lowest, highest) return, as the unit. `restarted`: the arms began new
    episodes at the fork. `remarks`: (code, text) of further findings. Raises `RegrowError` where the
    arms do not pair up or there are fewer than two seeds or replicates.
    """
    roles = roles or Roles()
    control, inject = roles.control, roles.injection
    broken: dict[str, list[Outcome]] = {}
    for run in outcomes:
        if run.stopped:
            broken.setdefault(control if run.arm == roles.replicate else run.arm, []).append(run)
    if broken.keys() & {control, inject}:
        return _undecided(not_finite(broken), smallest_effect, confidence, random_return)
    gone = broken.keys() | ({roles.replicate} if control in broken else set())
    sample = sampled([run for run in outcomes if run.arm not in gone], control, roles.replicate)
    _require_pairs(sample, control, inject)
    levels = _levels(sample, looks, confidence)

    def look_at(part: Sample) -> Look:
        scale = scale_of(part.arms, random_return, random_error, returns_range)
        return Look(part, scale, control, levels, confidence, smallest_effect)

    seen = [look_at(sample.first(n)) for n in levels.looks if n <= sample.size]
    now = seen[-1] if seen else look_at(sample)
    looked = tuple(_looked(look, inject) for look in seen)
    findings = findings_of(now, roles, restarted)
    findings += [not_finite(broken)] if broken else []
    findings += [Finding(*remark) for remark in remarks]
    return _verdict(now, roles, looked, findings)


def _require_pairs(sample: Sample, control: str, inject: str) -> None:
    arms = sample.arms
    require(
        control in arms,
        f"a verdict needs the arm '{control}': it is what the others are compared with",
    )
    require(inject in arms, f"a verdict needs the arm '{inject}'; there are: {', '.join(arms)}")
    require(
        sample.size >= 2,
        f"a verdict needs at least 2 seeds, or 2 replicates of one agent, got {sample.size}",
    )


def _levels(sample: Sample, looks: Sequence[int], confidence: float) -> Levels:
    """The levels of the looks so far; without any of one look, at what there is."""
    if not looks:
        return Levels((sample.size,), (1.0 - confidence,))
    now = [n for n in looks if n <= sample.size] or [looks[0]]
    return levels_of(now, confidence=confidence)


def _looked(look: Look, inject: str) -> Looked:
    measured = look.measured(inject)
    interval = look.shares[inject]
    return Looked(
        look.n,
        measured.statistic(look.smallest),
        look.critical(measured.degrees),
        interval.low,
        interval.high,
        look.side(inject),
    )


def _verdict(
    look: Look, roles: Roles, looked: tuple[Looked, ...], findings: Sequence[Finding]
) -> Verdict:
    sample, inject = look.sample, roles.injection
    measured = look.measured(inject)
    shares = shares_by_unit(look, inject)
    signs = sign_test(shares - look.smallest)
    side = next((one.settled for one in looked if one.settled), 0)
    forbids = _forbids(findings, look, roles, side, signs)
    claim = INCONCLUSIVE if forbids or not side else LOSS if side > 0 else NO_LOSS
    effect = _over_all(look.shares[inject], looked)
    further = None if side or forbids else _outlook(measured, look)
    verdict = Verdict(
        claim=claim,
        reason="",
        effect=effect,
        difference=measured.difference(look.critical(measured.degrees), look.confidence),
        ratio=_ratio(look, inject),
        population="training" if sample.design == "paired" else "agent",
        n=look.n,
        replicates=sample.replicates,
        unit=look.scale.text,
        unit_value=look.scale.value,
        smallest_effect=look.smallest,
        power=_power(measured, look),
        noise=_noise(look, inject),
        looks=looked,
        evidence=_evidence(look, inject),
        positive=int((shares > look.smallest).sum()),
        sign_test=signs,
        further=further,
        findings=tuple(findings),
        comparisons=tuple(_compared(look, arm) for arm in sample.arms),
        random_return=look.scale.random,
        random_error=look.scale.error,
    )
    return replace(verdict, reason=reason_of(verdict, forbids))


def _over_all(now: Interval, looked: Sequence[Looked]) -> Interval:
    """What the intervals of all looks have in common: they hold together."""
    lows = [look.low for look in looked if not math.isnan(look.low)]
    highs = [look.high for look in looked if not math.isnan(look.high)]
    if not lows or now.missing or not max(lows) <= now.estimate <= min(highs):
        return now
    return now._replace(low=max(lows), high=min(highs))


def _ratio(look: Look, inject: str) -> Interval | None:
    """Injection / nothing − 1 with Fieller's interval, where no return is below 0."""
    arms = look.sample.arms
    treated, control = areas(arms[inject]), areas(arms[look.control])
    above_zero = look.scale.random >= 0 and (treated > 0).all() and (control > 0).all()
    if look.sample.design != "paired" or not above_zero:
        return None
    measured = paired(treated, control, control)
    interval = measured.interval(look.critical(measured.degrees), look.confidence)
    bounded = math.isfinite(interval.low) and math.isfinite(interval.high)
    return interval if bounded else None


def _spread(measured: Measured, share: float) -> float:
    """The standard deviation of d − share · u in one unit of the sample."""
    return measured.error(share) * math.sqrt(measured.n)


def _power(measured: Measured, look: Look) -> float:
    spread = _spread(measured, look.smallest)
    if not (measured.u > 0 and spread > 0) or measured.alike:
        return math.nan
    return power(look.smallest * measured.u / spread, look.levels)


def _outlook(measured: Measured, look: Look) -> Outlook | None:
    if measured.alike or not measured.u > 0 or look.n < 2:
        return None
    mean, sd = measured.d - look.smallest * measured.u, _spread(measured, look.smallest)
    return outlook(mean, sd, look.n, _continued(look))


def _continued(look: Look) -> Levels:
    """The looks so far and the usual ones after them, for what is to be expected."""
    done = look.levels.looks
    later = tuple(n for n in usual_looks(LARGEST) if n > done[-1])
    usual = levels_of(usual_looks(LARGEST), confidence=look.confidence)
    return Levels((*done, *later), (*look.levels.levels, *usual.levels[-len(later) :]))


def _noise(look: Look, inject: str) -> Noise | None:
    found = components_of(look.sample, inject, look.control)
    if found is None or not look.scale.value > 0:
        return None
    unit = look.scale.value
    return Noise(found.within / unit, found.degrees, found.between / unit)


def _evidence(look: Look, inject: str) -> float:
    """The e-value of the paired differences; of one agent, replicates are paired in their order."""
    shares = shares_by_unit(look, inject) - look.smallest
    sd = float(shares.std(ddof=1))
    if not sd > 0 or not math.isfinite(sd):
        return math.nan
    n = len(shares)
    return e_value(float(shares.mean()) / (sd / math.sqrt(n)), n)


def _compared(look: Look, arm: str) -> Comparison:
    runs = look.sample.arms[arm]
    final = float(np.mean([run.final for run in runs]))
    if arm == look.control:
        return Comparison(arm, float(areas(runs).mean()), final, None, None)
    difference = look.difference(arm, look.control)
    return Comparison(arm, float(areas(runs).mean()), final, difference, look.shares[arm])


def _undecided(
    why: Finding, smallest_effect: float, confidence: float, random_return: float
) -> Verdict:
    """The verdict where there is nothing to compare."""
    nothing = no_interval(math.nan, confidence)
    return Verdict(
        claim=INCONCLUSIVE,
        reason=f"{why.text}.",
        effect=nothing,
        difference=nothing,
        ratio=None,
        population="training",
        n=0,
        replicates=0,
        unit="",
        unit_value=math.nan,
        smallest_effect=smallest_effect,
        power=math.nan,
        noise=None,
        looks=(),
        evidence=math.nan,
        positive=0,
        sign_test=1.0,
        further=None,
        findings=(why,),
        comparisons=(),
        random_return=random_return,
        random_error=0.0,
    )


def _forbids(
    findings: Sequence[Finding], look: Look, roles: Roles, side: int, signs: float
) -> Finding | None:
    """The finding because of which nothing is claimed; None where something may be."""
    found = {finding.code: finding for finding in findings}
    for code in ("nobody_learns", "no_spread"):
        if code in found:
            return found[code]
    if "two_modes" in found and signs > SIGNS:
        return found["two_modes"]
    if side < 0 and "reset_helps_injection_does_not" in found:
        return found["reset_helps_injection_does_not"]
    learned = look.above_random(roles.control) or look.above_random(roles.injection)
    return found.get("control_did_not_learn") if side < 0 and not learned else None


SIGNS = 0.05
"""The p value that the sign test must not exceed where runs fall into two groups."""

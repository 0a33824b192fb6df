"""What a verdict is: a claim with its effect, what it rests on, and the sentence that says it."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from regrow.diagnosis.findings import Finding, percent
from regrow.stats.intervals import Interval
from regrow.stats.sequential import Outlook

LOSS, NO_LOSS, INCONCLUSIVE = "plasticity loss", "no plasticity loss", "inconclusive"
Population = Literal["training", "agent"]


class Comparison(NamedTuple):
    """One arm: its means; its difference to the control, in returns and as a share of the unit."""

    arm: str
    area: float
    final: float
    difference: Interval | None  # None for the control itself
    share: Interval | None


class Looked(NamedTuple):
    """What one look showed: the t statistic against the smallest effect, and what it had to pass.

    `low`, `high`: the interval of the effect. `settled`: 1 above, −1 below, 0 neither.
    """

    n: int
    statistic: float
    critical: float
    low: float
    high: float
    settled: int


class Noise(NamedTuple):
    """Where the spread comes from, as shares of the unit.

    `within`: the standard deviation of runs of one arm from one fork; it has `degrees` degrees of
    freedom. `between`: that of the effect between forks; NaN where there is one.
    """

    within: float
    degrees: int
    between: float


@dataclass(frozen=True)
class Verdict:
    """The answer: a claim with its effect, and what to know before believing it.

    `effect`: as a share of `unit_value` returns, which `unit` names. `ratio`: injection / nothing
    − 1, where both are clearly above 0. `n`: seeds, or replicates of the one agent; `replicates`:
    runs of an arm per seed. `power`: the probability with which an effect of 0, or of twice the
    smallest that matters, would have been settled by the last look. `evidence`: the e-value against
    an effect that equals the smallest one. `positive`: how many units lie above that; `sign_test`:
    the p value. `further`: what to expect of more.
    """

    claim: str
    reason: str
    effect: Interval
    difference: Interval
    ratio: Interval | None
    population: Population
    n: int
    replicates: int
    unit: str
    unit_value: float
    smallest_effect: float
    power: float
    noise: Noise | None
    looks: tuple[Looked, ...]
    evidence: float
    positive: int
    sign_test: float
    further: Outlook | None
    findings: tuple[Finding, ...]
    comparisons: tuple[Comparison, ...]
    random_return: float
    random_error: float

    def __str__(self) -> str:
        return f"{self.claim}: {self.reason}"

    @property
    def settled(self) -> bool:
        """Whether more seeds or replicates could not change what is said."""
        codes = {finding.code for finding in self.findings}
        hopeless = self.n >= 6 and bool(codes & {"nobody_learns", "no_spread"})
        # Of two groups of runs more may be said once a sign test can tell.
        crossed = any(look.settled for look in self.looks) and "two_modes" not in codes
        nothing_to_compare = self.n == 0
        return self.claim != INCONCLUSIVE or crossed or hopeless or nothing_to_compare

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain data, for JSON."""
        held = asdict(self)
        for name in ("effect", "difference", "ratio", "noise", "further"):
            part = getattr(self, name)
            held[name] = None if part is None else part._asdict()
        held["looks"] = [look._asdict() for look in self.looks]
        held["findings"] = [finding._asdict() for finding in self.findings]
        held["comparisons"] = [
            {
                **c._asdict(),
                "difference": c.difference._asdict() if c.difference else None,
                "share": c.share._asdict() if c.share else None,
            }
            for c in self.comparisons
        ]
        return held


def reason_of(verdict: Verdict, forbids: Finding | None) -> str:
    """One sentence: the effect, what it is compared with, and the most serious finding.

    `forbids`: the finding because of which nothing is claimed.
    """
    if forbids is not None and forbids.code in ("nobody_learns", "no_spread"):
        return f"{forbids.text}."
    text = f"{_effect(verdict)}{_against(verdict, forbids)}"
    grave = [
        finding.text
        for finding in verdict.findings
        if finding.code in _GRAVE and finding is not forbids
    ]
    if not grave:
        return f"{text}."
    link = "Mind that " if verdict.claim == LOSS else "Not all is well: "
    return f"{text}. {link}{'; '.join(grave)}."


def _effect(verdict: Verdict) -> str:
    sample = (
        f"{verdict.n} seeds"
        if verdict.population == "training"
        else f"{verdict.n} replicates of each arm"
    )
    if verdict.population == "training" and verdict.replicates > 1:
        sample += f" × {verdict.replicates} replicates"
    who = "injection" if verdict.population == "training" else "in this agent injection"
    level = f"{verdict.effect.confidence:.0%} interval, {sample}"
    return f"{who} changes the return after the fork by {percent(verdict.effect)} ({level})"


def _against(verdict: Verdict, forbids: Finding | None) -> str:
    """How the effect stands to the smallest one that matters."""
    against = f"the smallest effect that matters, {verdict.smallest_effect:.0%}"
    if forbids is not None:
        return f", but {forbids.text}"
    if verdict.claim == LOSS:
        return f" of what learning is worth, above {against}"
    if verdict.claim == NO_LOSS and verdict.effect.high < 0:
        return (
            f" of what learning is worth: it costs; the claim says that no plasticity was lost in "
            f"the layers from the split on by {against}, not that injection is free"
        )
    if verdict.claim == NO_LOSS:
        return (
            f" of what learning is worth, below {against}: no plasticity was lost in the layers "
            "from the split on"
        )
    if verdict.further is None:
        return f", which does not settle it against {against}"
    further, chance = verdict.further
    kind = "seeds" if verdict.population == "training" else "replicates"
    more = "about" if chance > 0.9 else "more than"
    return (
        f", which does not settle it against {against}; expect {more} {math.ceil(further)} further "
        f"{kind}"
    )


_GRAVE = {"reset_helps_injection_does_not", "values_diverged", "two_modes"}

"""The page of a folder of studies: verdicts first, then what they rest on."""

import math
from collections.abc import Iterable, Sequence

from regrow.analysis.claim_rules import FAILS, HOLDS, OPEN
from regrow.analysis.claims import CLAIMS
from regrow.analysis.conditions import Case, sample_of
from regrow.analysis.summary import Summary, Told
from regrow.diagnosis.findings import percent
from regrow.diagnosis.verdict import INCONCLUSIVE, LOSS, NO_LOSS, Verdict
from regrow.files.atomic import write_atomically
from regrow.files.places import Place
from regrow.report import charts
from regrow.report.charts import Arms, Chart
from regrow.report.html import Element, document, table, tag
from regrow.report.looks import looks_picture
from regrow.report.spark import sparks
from regrow.report.terminal import context_of
from regrow.stats.intervals import Interval

_ANSWERS = {HOLDS: "holds", FAILS: "fails", OPEN: "open"}
_BADGES = {LOSS: "loss", NO_LOSS: "no-loss", INCONCLUSIVE: "open"}


def write_page(path: Place, summary: Summary) -> None:
    """Writes the page, in place of what was there."""
    text = page(summary)
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def page(summary: Summary) -> str:
    """The page as text."""
    arms = Arms(summary.studies)
    drawn: dict[str, Chart] = {}
    sections = [_section(told, arms, drawn) for told in summary.studies]
    body = [
        tag("a", "to the verdicts", class_="skip", href="#verdicts"),
        _head(summary),
        _problems(summary.problems),
        tag("main", *_opening(summary, arms), *sections, _reproduce(summary)),
    ]
    return document(
        f"regrow report: {summary.name}",
        [element for element in body if element is not None],
        {"arms": arms.to_json(), "charts": drawn},
        generator="regrow",
    )


def _head(summary: Summary) -> Element:
    cases = [case for told in summary.studies for case in told.cases]
    counts = ", ".join(
        (
            _counted(len(summary.studies), "study", "studies"),
            _counted(len(cases), "condition"),
            _counted(summary.rows, "run"),
        )
    )
    when = f", the last of {summary.written.day} {summary.written:%B %Y}" if summary.written else ""
    return tag(
        "header",
        tag("div", tag("h1", summary.name), tag("p", counts + when)),
        tag("div", id="theme"),
    )


def _problems(problems: Sequence[str]) -> Element | None:
    if not problems:
        return None
    return tag(
        "div",
        tag("p", "Not everything in this folder could be used:"),
        tag("ul", *(tag("li", text) for text in problems)),
        class_="problems",
        role="note",
    )


# What the page opens with.


def _opening(summary: Summary, arms: Arms) -> list[Element]:
    """Of a diagnosis its answer; of studies their verdicts; of a training run nothing."""
    kinds = {told.name for told in summary.studies}
    if kinds == {"training"}:
        return []
    if kinds == {"diagnosis"} and len(summary.studies[0].cases) == 1:
        return [_answer(summary.studies[0].cases[0])]
    return [_verdicts(summary, arms)]


def _answer(case: Case) -> Element:
    """A verdict in one sentence, and what to do next."""
    heading = tag("h2", "Verdict", id="verdicts", tabindex="-1")
    verdict = case.verdict
    if verdict is None:
        return tag("section", heading, tag("p", case.unjudged, class_="question"))
    badge = tag("span", verdict.claim, class_=f"says {_BADGES[verdict.claim]}")
    return tag(
        "section",
        heading,
        tag("p", badge, " ", verdict.reason, class_="question"),
        tag("p", tag("b", "What to do next: "), _next(case, verdict)),
        tag("ul", *(tag("li", text) for text in context_of(verdict))),
        looks_picture(verdict),
    )


def _next(case: Case, verdict: Verdict) -> str:
    found = {finding.code for finding in verdict.findings}
    if "reset_helps_injection_does_not" in found:
        return (
            "the network can still learn, so look at its value estimates and at exploration; a "
            "reset, or a shorter memory of early data, is the nearest cure."
        )
    if verdict.claim == LOSS:
        return (
            f"train with an injection at {case.row.fork_at:,} env steps, as `regrow train --do "
            f"'{case.injection} at {case.row.fork_at}'` does, and find the layer with `regrow "
            "diagnose --where`."
        )
    if verdict.claim == NO_LOSS:
        return (
            "look for the limit elsewhere (exploration, credit, capacity); fork later if you "
            "expect the loss to come with longer training."
        )
    if {"nobody_learns", "control_did_not_learn"} & found:
        return "take an agent or a budget that learns this task, then diagnose again."
    if verdict.further is not None:
        kind = "--seeds" if verdict.population == "training" else "--replicates"
        more = verdict.n + math.ceil(verdict.further.further)
        return (
            f"run the same command with {kind} {more}: it continues where it stopped, and its "
            "error rate holds."
        )
    return "run more seeds, or a longer horizon."


# Verdicts.


def _verdicts(summary: Summary, arms: Arms) -> Element:
    blocks = [block for told in summary.studies for block in _verdict_block(told, arms)]
    if not blocks:
        blocks = [tag("p", "There is nothing to judge yet.")]
    heading = tag("h2", "Verdicts", id="verdicts", tabindex="-1")
    return tag("section", heading, *blocks)


def _verdict_block(told: Told, arms: Arms) -> list[Element]:
    link = tag("a", told.name, href=f"#{told.anchor}")
    return [
        tag("h3", link, " ", tag("small", told.scale, class_="note")),
        tag("p", told.question, class_="question"),
        *([_claims(told)] if told.claims else []),
        _verdict_table(told.cases, arms),
    ]


def _claims(told: Told) -> Element:
    lines = []
    for number in told.claims:
        claim = tag("span", tag("b", f"Claim {number}: "), CLAIMS.get(number, ""))
        decision = told.decisions.get(number)
        if decision is None:
            answer = tag("span", "no rule decides it", class_="why")
        else:
            answer = tag("span", decision.answer, class_=f"says {_ANSWERS[decision.answer]}")
            claim.append(tag("span", f" — {decision.reason}", class_="why"))
        lines.append(tag("li", answer, claim))
    return tag("ul", *lines, class_="claims")


def _verdict_table(cases: Sequence[Case], arms: Arms) -> Element:
    head = ("condition", "verdict", "", "injection", "noise", sample_of(cases), "also seen")
    headings = [
        tag("th", text, scope="col", class_=None if text in head[3:6] else "text") for text in head
    ]
    verdicts = [case.verdict for case in cases if case.verdict is not None]
    smallest = min((verdict.smallest_effect for verdict in verdicts), default=0.0)
    spark = sparks([verdict.effect for verdict in verdicts], smallest)

    def drawn(case: Case) -> Element | None:
        if case.verdict is None:
            return None
        return spark(case.verdict.effect, arms.inks[case.injection].classes)

    return tag(
        "table",
        tag("thead", tag("tr", *headings)),
        tag("tbody", *(_verdict_row(case, drawn(case)) for case in cases)),
        class_="verdicts",
    )


def _verdict_row(case: Case, spark: Element | None) -> Element:
    label = tag("th", case.label, scope="row")
    seeds = tag("td", _seeds(case), data_label=f"{case.sample}s")
    if case.verdict is None:
        badge = tag("td", tag("span", "not judged", class_="says open"), class_="text")
        why = tag("td", case.unjudged, class_="text")
        return tag("tr", label, badge, tag("td"), tag("td"), tag("td"), seeds, why)
    verdict = case.verdict
    badge = tag("span", verdict.claim, class_=f"says {_BADGES[verdict.claim]}")
    noise = f"{verdict.noise.within:.0%}" if verdict.noise else ""
    seen = ", ".join(finding.code.replace("_", " ") for finding in verdict.findings)
    return tag(
        "tr",
        label,
        tag("td", badge, class_="text"),
        tag("td", spark, class_="text"),
        tag("td", _percent(verdict.effect), data_label="injection"),
        tag("td", noise, data_label="noise") if noise else tag("td"),
        seeds,
        tag("td", seen, class_="text", data_label="also seen") if seen else tag("td"),
    )


def _seeds(case: Case) -> str:
    left = f" of {len(case.seeds) + len(case.seeds_left_out)}" if case.seeds_left_out else ""
    return f"{len(case.seeds)}{left}"


# What they rest on.


def _section(told: Told, arms: Arms, drawn: dict[str, Chart]) -> Element:
    """Everything that is drawn of a study; `drawn` collects what its charts need."""

    def chart(kind: str, what: Chart, title: str, explanation: str) -> Element:
        name = f"{told.anchor}-{kind}"
        drawn[name] = what
        return _figure(name, title, explanation)

    figures = [chart(*what) for what in _figures(told, arms)]
    return tag(
        "section",
        tag("h2", _heading(told), " ", tag("small", told.scale), id=told.anchor, tabindex="-1"),
        tag("p", told.question, class_="question"),
        *figures,
        *_tables(told.cases),
    )


def _heading(told: Told) -> str:
    return {"diagnosis": "Evidence", "training": "Training"}.get(told.name, told.name)


def _figures(told: Told, arms: Arms) -> Iterable[tuple[str, Chart, str, str]]:
    """The charts of a study, that which answers its question first."""
    cases, sample = told.cases, sample_of(told.cases)
    judged = [case for case in cases if case.verdict is not None]
    curves = (
        "curves",
        charts.learning_curves(cases, arms),
        "Learning curves",
        f"Mean return in bins of time; bands are 95% t intervals of the mean over {sample}, "
        "clipped where they leave the range of the runs; bins in which there is one, or all are "
        "alike, have none. Dashed: the fork; dotted: a random policy; ticks "
        "at the bottom: what an arm did later.",
    )
    if told.figure == "compute":
        yield (
            "compute",
            charts.over_compute(cases, arms),
            "What learning costs",
            "Every condition in one picture, from the first env step on, over env steps or over "
            "what they cost. FLOPs are those that the compiler counts for acting and updating; "
            "cost is taken as even over time. Dashed: the fork of the first condition.",
        )
    if told.figure == "curves":
        yield curves
    if told.proxies:
        yield from _proxy_figures(told, arms)
    if len(judged) > 1:
        yield (
            "gains",
            charts.gains_by_arm(judged, arms, sort=told.figure != "sweep"),
            "Gains" if told.figure == "sweep" else "Gains, sorted",
            "Difference to nothing in the mean return after the fork, as a share of what learning "
            f"is worth; 95% intervals over {sample}. Dashed: the smallest effect that matters.",
        )
    if told.aggregates:
        yield from _aggregate_figures(told, arms)
    if judged:
        yield (
            "arms",
            charts.arms_beside_nothing(judged, arms),
            "Arms beside nothing",
            "Every arm's difference to nothing in the mean return after the fork, as a share of "
            f"what learning is worth; 95% intervals over {sample}.",
        )
    if told.figure != "curves":
        yield curves
    probed = charts.probes_before_and_after(cases, arms)
    if probed["panels"]:
        yield (
            "probes",
            probed,
            "Probes before and after",
            "Hollow: fresh networks on the same observations; filled: at the fork; dots: at the "
            f"end of each arm. Every probe on a scale of its own, means over {sample}.",
        )


def _proxy_figures(told: Told, arms: Arms) -> Iterable[tuple[str, Chart, str, str]]:
    yield (
        "correlations",
        charts.correlations(told.proxies),
        "Which probe at the fork predicts the gain",
        "Spearman's rank correlation of a probe at the fork with what injection gained in that "
        "seed; 95% bootstrap intervals over conditions. Of so many probes some will correlate "
        "by chance.",
    )
    yield (
        "scatter",
        charts.scatter(told.proxies, arms),
        "Probe and gain",
        "A point for every seed of every condition.",
    )


def _aggregate_figures(told: Told, arms: Arms) -> Iterable[tuple[str, Chart, str, str]]:
    yield (
        "aggregates",
        charts.aggregate_metrics(told.aggregates, arms),
        "Over all conditions",
        "Of scores in which nothing is 1 on average, after arXiv 2108.13264; 95% bootstrap "
        "intervals within conditions, none where all resamples agree. A lower gap is better.",
    )
    yield (
        "profiles",
        charts.profiles(told.aggregates, arms),
        "Performance profile",
        "The share of runs above a score; 95% bootstrap intervals within conditions, none "
        "where all resamples agree.",
    )


def _figure(name: str, title: str, explanation: str) -> Element:
    return tag(
        "figure",
        tag("figcaption", tag("b", title), tag("span", explanation)),
        tag("div", class_="controls"),
        tag("div", class_="panels"),
        tag(
            "details",
            tag("summary", "The same as a table"),
            tag("div", class_="tables", tabindex="0", role="region", aria_label=f"{title}: table"),
            class_="data",
        ),
        data_chart=name,
        aria_label=title,
    )


def _tables(cases: Sequence[Case]) -> list[Element]:
    if not cases:
        return []
    return [tag("h3", "Arms"), *map(_arms, cases)]


def _named(arm: str, intervention: str) -> str:
    """An arm, with what it did where its name does not say so: an earlier default, say."""
    says = arm == intervention or arm.startswith(f"{intervention} ")
    return arm if says else f"{arm}: {intervention}"


def _arms(case: Case) -> Element:
    """What the arms of a condition did, and what else was seen."""
    head = (
        "arm",
        "final return",
        "mean return after the fork",
        "difference to nothing, of what learning is worth",
        "predicted value, first → last",
        "realised value",
        "minutes (a replicate)",
    )
    rows = []
    for arm, rows_of in case.arms.items():
        means = case.means[arm]
        difference = case.relative.get(arm)
        rows.append(
            (
                _named(arm, rows_of[0].intervention),
                _short(means.final),
                _short(means.area),
                _percent(difference) if difference else "",
                f"{_short(means.predicted_first)} → {_short(means.predicted_last)}",
                _short(means.realised),
                _short(sum(row.seconds for row in rows_of) / 60),
            )
        )
    verdict = case.verdict
    seen = [f"{f.code.replace('_', ' ')}: {f.text}" for f in verdict.findings] if verdict else []
    said = verdict.reason if verdict else case.unjudged
    title = f"{case.label}: {verdict.claim if verdict else 'not judged'}"
    return tag(
        "details",
        tag("summary", title),
        tag("p", said, class_="question"),
        tag("ul", *(tag("li", text) for text in seen)) if seen else None,
        tag("p", _setting(case), class_="note"),
        table(head, rows, caption=case.label),
    )


def _setting(case: Case) -> str:
    row = case.row
    before = f", after {', '.join(row.before)}" if row.before else ""
    units, runs = "seeds", ""
    if case.verdict and case.verdict.population == "agent":
        units = f"seed {row.seed}, replicates"
    elif case.verdict and case.verdict.replicates > 1:
        runs = f", {case.verdict.replicates} replicates each"
    return (
        f"{row.agent} on {row.environment}, forked at {row.fork_at:,} env steps{before}, trained "
        f"on for {row.horizon:,}; {units} {', '.join(map(str, case.seeds))}{runs}; random policy "
        f"{_short(row.random_return)}"
    )


def _reproduce(summary: Summary) -> Element:
    made = [tag("li", f"{text} ({_counted(count, 'run')})") for text, count in summary.versions]
    return tag(
        "section",
        tag("h2", "To reproduce this", id="reproduce"),
        tag("pre", tag("code", "\n".join(summary.commands))),
        tag("p", "The rows were made with:"),
        tag("ul", *made),
    )


# Words.


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _percent(interval: Interval) -> str:
    return percent(interval).replace("-", "−")


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−") if math.isfinite(value) else "–"

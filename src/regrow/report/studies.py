"""Studies in a terminal: verdicts, how far they are, tables of published curves. Draws only."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from regrow.analysis.claims import CLAIMS
from regrow.analysis.conditions import Case, sample_of
from regrow.analysis.published import Line
from regrow.analysis.summary import Told
from regrow.diagnosis.findings import percent
from regrow.diagnosis.verdict import INCONCLUSIVE, LOSS
from regrow.experiments.watch import Seen, Watched
from regrow.stats.intervals import Interval

_COLOUR = {LOSS: "red", INCONCLUSIVE: "yellow"}
QUIET = 120.0  # seconds without news that are worth a word


def verdicts_table(name: str, cases: Sequence[Case]) -> Table:
    """Per condition and arm the paired difference to `nothing`; beside the injection the claim."""
    table = Table(title=escape(name), title_justify="left")
    table.add_column("condition", overflow="fold")
    table.add_column("arm", overflow="fold")
    table.add_column("difference to\nnothing, 95%", justify="right", no_wrap=True)
    table.add_column(sample_of(cases), justify="right")
    table.add_column("verdict")
    for case in cases:
        label = case.label
        for arm in case.arms:
            if arm == "nothing" and len(case.arms) > 1:
                continue
            claim = _claim(case) if arm == case.injection or case.verdict is None else ""
            difference = case.relative.get(arm)
            table.add_row(
                escape(label),
                escape(arm),
                escape(percent(difference)) if difference else "",
                str(len(case.arms[arm])),
                claim,
            )
            label = ""
        table.add_section()
    return table


def _claim(case: Case) -> str:
    if case.verdict is None:
        return escape(f"none: {case.unjudged}")
    colour = _COLOUR.get(case.verdict.claim, "green")
    codes = ", ".join(finding.code for finding in case.verdict.findings)
    return f"[{colour}]{case.verdict.claim}[/]" + (f" ({codes})" if codes else "")


def claims_lines(told: Told) -> list[str]:
    """What became of every claim that a study is about."""
    lines: list[str] = []
    for claim in told.claims:
        decision = told.decisions.get(claim)
        answer = f"[bold]{decision.answer}[/]: {escape(decision.reason)}" if decision else "no rule"
        lines.append(f"claim {claim} ({CLAIMS.get(claim, '')}): {answer}")
    return lines


def watch_table(watched: Watched) -> RenderableType:
    """The jobs that are running, and per condition how many jobs are done."""
    running = Table(title="At work", title_justify="left")
    for heading in ("job", "for", "doing"):
        running.add_column(heading)
    for heading in ("env steps", "", "env steps/s", "left", ""):
        running.add_column(heading, justify="right")
    for job in watched.jobs:
        if job.state == "running":
            running.add_row(*_running(job))
    rate = watched.rate
    left = f", about {_time((watched.of - watched.done) / rate)} left" if rate > 0 else ""
    total = (
        f"{watched.done:,} of {watched.of:,} env steps"
        f"{f', {rate:,.0f}/s' if rate > 0 else ''}{left}"
    )
    return Group(
        _conditions(watched), running if running.row_count else "Nobody is at work.", total
    )


def _running(job: Seen) -> tuple[str, ...]:
    first, *others = job.studies
    more = f" and {len(others)} more" if others else ""
    return (
        escape(job.job),
        escape(first + more),
        escape(job.phase),
        f"{job.done:,} of {job.of:,}",
        f"{job.done / job.of:.0%}",
        f"{job.rate:,.0f}" if job.rate > 0 else "",
        _time(job.left) if job.left is not None else "",
        f"silent for {_time(job.silent)}" if job.silent > QUIET else "",
    )


def _conditions(watched: Watched) -> Table:
    table = Table(title="Jobs", title_justify="left")
    table.add_column("study")
    for heading in ("done", "running", "stopped", "waiting", "env steps"):
        table.add_column(heading, justify="right")
    for name in dict.fromkeys(study for job in watched.jobs for study in job.studies):
        own = [job for job in watched.jobs if name in job.studies]
        counts = (
            sum(job.state == s for job in own) for s in ("done", "running", "stopped", "waiting")
        )
        share = sum(job.done for job in own) / sum(job.of for job in own)
        table.add_row(escape(name), *(str(count or "") for count in counts), f"{share:.0%}")
    return table


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def curves_table(lines: Sequence[Line], title: str) -> Table:
    """Interquartile means of published curves."""
    table = Table(title=escape(title), title_justify="left", caption_justify="left")
    if any(line.pooled.missing or line.within.missing for line in lines):
        table.caption = "No interval: one run of a task, or equal runs, have no spread."
    headings = ("replay\nratio", "resets", "tasks", "runs", "IQM", "95%, all\nruns pooled")
    for heading in (*headings, "95%, seeds\nwithin tasks"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(
            line.replay_ratio,
            "with" if line.resets else "without",
            str(line.tasks),
            str(line.runs),
            f"{line.pooled.estimate:.1f}",
            _interval(line.pooled),
            _interval(line.within),
        )
    return table


def _interval(interval: Interval) -> str:
    if interval.missing:
        return "no interval"
    return f"{interval.low:.1f}–{interval.high:.1f}"

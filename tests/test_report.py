"""The page and the figures as files: whole, on their own, and deaf to what is written in rows."""

import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from rich.console import Console
from rows_made_up import alike, rows_of, write, write_study

from regrow.analysis.across_conditions import aggregates, proxies
from regrow.analysis.conditions import cases
from regrow.analysis.summary import summarise
from regrow.cli import entry as cli
from regrow.records.rows import table_of, write_table
from regrow.report import charts, html, paper, sections, spark
from regrow.report.charts import Arms
from regrow.report.palette import COLOURS, inks
from regrow.report.studies import verdicts_table
from regrow.stats.intervals import Interval, no_interval

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028'\"&${body}$\u202e\x00"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    games = [
        rows_of(condition=name, gain=gain, seeds=3) for name, gain in (("a", 2.0), ("b", -1.0))
    ]
    sweep = [rows_of("pace", f"{at}", axis="lr", at=at, gain=at, seeds=3) for at in (0.1, 0.5, 3.0)]
    out = write(tmp_path_factory.mktemp("out"), *games, *sweep)
    hostile = rows_of(HOSTILE, HOSTILE, seeds=2)
    write_table(out / "rows" / "hostile.parquet", table_of(hostile))
    return out


class Tags(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_a_page_is_one_file_that_asks_for_nothing(folder):
    text = sections.page(summarise(folder))
    tags = Tags(text).tags
    named = {"script", "link", "img", "iframe", "object", "form", "base"}
    assert {tag for tag, _ in tags if tag in named} == {"script"}
    assert not [attributes for _, attributes in tags if "src" in attributes]
    links = [attributes["href"] for _, attributes in tags if "href" in attributes]
    assert links
    assert all(link.startswith("#") for link in links)
    anchors = {attributes["id"] for _, attributes in tags if "id" in attributes}
    assert {link[1:] for link in links} <= anchors


def test_text_of_rows_stays_text(folder):
    text = sections.page(summarise(folder))
    tags = Tags(text).tags
    assert not [tag for tag, attributes in tags if any(a.startswith("on") for a in attributes)]
    assert text.count("</script>") == 1 + len(html.SCRIPTS)
    assert not set(text) & set("\u2028\u2029\u202e\x00")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    names = [panel["name"] for chart in data["charts"].values() for panel in chart["panels"]]
    assert any(name.startswith("</script><img") for name in names)


@pytest.mark.parametrize("text", ["a<b>&\"'", "\ud800", "\x1b[0m", "\u202e", "$title", "&lt;"])
def test_any_text_makes_a_page(text):
    element = html.tag("p", text, html.tag("b", text), text, title=text)
    page = html.document(text, [element], {"name": text}, generator=text)
    found = Tags(page)
    assert ("b", {}) in found.tags
    assert page.encode()


def test_nothing_in_embedded_data_ends_it():
    held = html.embedded({"a": "</script><!--&\u2028", "b": [1.5, None]})
    assert not set(held) & set("<>&\u2028")
    assert json.loads(held) == {"a": "</script><!--&\ufffd", "b": [1.5, None]}


def test_the_policy_of_a_page_names_its_scripts_and_nothing_else():
    page = html.document("t", [], {}, generator="regrow")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("sha256-") == len(html.SCRIPTS) + 1


def test_every_arm_has_one_ink_and_known_arms_their_own():
    arms = ["reset", "redo", "nothing", *(f"arm {i}" for i in range(20)), "inject"]
    found = inks(arms)
    assert len(set(found.values())) == len(arms)
    assert (found["nothing"].colour, found["inject"].colour, found["reset"].colour) == (0, 2, 3)
    assert max(ink.colour for ink in found.values()) < len(COLOURS)


def test_numbers_that_are_none_are_null(tmp_path):
    folder = write(tmp_path, rows_of(random_return=float("nan"), flops=float("inf")))
    studies = summarise(folder).studies
    chart = charts.learning_curves(studies[0].cases, Arms(studies))
    json.dumps(chart, allow_nan=False)
    assert chart["panels"][0]["random"] is None
    assert [axis["key"] for axis in chart["axes"]] == ["env_steps", "seconds"]


def test_a_spark_stays_within_its_frame():
    far = Interval(0.1, -90.0, 90.0, 0.95)
    near = Interval(0.2, 0.1, 0.3, 0.95)
    unknown = no_interval(0.15)
    draw = spark.sparks([far, near, unknown], 0.05)
    for held in (far, near):
        lines = list(draw(held, "c2 d0").iter("line"))
        assert len(lines) == 3  # the interval, and the two marks
        for line in lines:
            assert 0 <= float(line.get("x1")) <= float(line.get("x2")) <= spark.WIDTH
    alone = draw(unknown, "c2 d0")
    assert len(list(alone.iter("line"))) == 2
    assert alone.get("class") == "spark c2 d0 alone"
    (point,) = alone.iter("circle")
    assert 0 <= float(point.get("cx")) <= spark.WIDTH


def test_a_study_that_nobody_judged_is_drawn_all_the_same(tmp_path):
    summary = summarise(write(tmp_path, rows_of(seeds=1)))
    text = sections.page(summary)
    assert "not judged" in text
    assert "at least 2 seeds, or 2 replicates of one agent, got 1" in text
    (panel,) = charts.learning_curves(summary.studies[0].cases, Arms(summary.studies))["panels"]
    assert panel["note"] == "one seed: no interval"
    assert all(set(line["low"]) == set(line["high"]) == {None} for line in panel["lines"])
    drawn = paper.learning_curves(summary.studies[0].cases)
    assert drawn.axes[0].get_title().endswith("(one seed: no interval)")


def test_replicates_of_one_agent_are_called_replicates(tmp_path):
    rows = rows_of(arms=("nothing", "inject", "reset"), gain=3.0)
    alone = [dataclasses.replace(row, seed=0, replicate=row.seed) for row in rows]
    for held, own, other in ((alone, "replicates", "seeds"), (rows, "seeds", "replicates")):
        summary = summarise(write(tmp_path / own, held))
        text = sections.page(summary)
        assert f"over {own}" in text
        assert f"over {other}" not in text
        assert f">{own}</th>" in text
        cases_ = summary.studies[0].cases
        (panel,) = charts.learning_curves(cases_, Arms(summary.studies))["panels"]
        assert f"{panel['sample']}s" == own
        assert verdicts_table("a", cases_).columns[3].header == own


@pytest.mark.parametrize("arm", ["inject", "reset"])
def test_an_arm_that_does_the_same_to_every_seed_has_no_interval_anywhere(tmp_path, arm):
    rows = alike(rows_of(axis="lr", at=1.0, level=10.0), arm, 2.0)
    other = rows_of(condition="other", axis="lr", at=2.0)
    summary = summarise(write_study(tmp_path, rows, other, figure="sweep"))
    case = next(case for case in summary.studies[0].cases if case.label != "other")
    assert case.relative[arm].missing
    assert ("no_spread" in {f.code for f in case.verdict.findings}) == (arm == "inject")
    panels = charts.arms_beside_nothing([case], Arms(summary.studies))["panels"]
    (row,) = [row for row in panels[0]["rows"] if row["label"] == arm]
    assert (row["low"], row["high"]) == (None, None)
    best = max(one.area for one in case.means.values())
    assert row["estimate"] == pytest.approx(2.0 / (best - 0.4))
    text = sections.page(summary)
    assert f"{case.relative[arm].estimate:+.0%} (no interval)" in text
    assert "nan" not in text.replace("nanny", "")
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(verdicts_table("study", [case]))
    assert "(no interval)" in console.export_text()
    for draw in paper.figures_of(summary.studies[0]).values():
        draw().savefig(io.BytesIO(), format="svg")
    axes = paper.arms_beside_nothing([case]).axes[0]
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert [line.get_ydata()[0] for line in hollow] == [list(case.relative).index(arm)]


# Figures and the command.


def test_figures_are_pictures_of_all_kinds():
    rows = [
        row
        for i, name in enumerate(("small $x$", "wide"))
        for row in rows_of("growing", name, axis="lr", at=10.0**i, gain=i + 0.5, seeds=3)
    ]
    held, _ = cases(rows)
    figures = (
        paper.learning_curves(held),
        paper.over_compute(held),
        paper.gains_per_condition(held),
        paper.arms_beside_nothing(held),
        paper.sweep(held),
        paper.proxies_and_gain(proxies(held)),
        paper.aggregate(aggregates(held)),
    )
    for figure in figures:
        picture = io.BytesIO()
        figure.savefig(picture, format="svg")
        drawn = ElementTree.fromstring(picture.getvalue())
        assert len(list(drawn.iter("{http://www.w3.org/2000/svg}path"))) > 20


def test_a_study_is_drawn_in_the_figures_that_it_asks_for(tmp_path):
    games = [rows_of(condition=f"game {i}", seeds=2) for i in range(3)]
    (told,) = summarise(write_study(tmp_path, *games, figure="gains")).studies
    assert set(paper.figures_of(told)) == {"curves", "gains", "aggregate", "arms"}
    (told,) = summarise(write_study(tmp_path / "one", games[0], figure="compute")).studies
    assert set(paper.figures_of(told)) == {"curves", "compute", "arms"}


def test_a_figure_is_the_same_each_time(tmp_path):
    summary = summarise(write(tmp_path / "out", rows_of(seeds=2)))
    one, two = (paper.write_figures(summary, tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_the_command_writes_a_page_and_figures_and_says_where(tmp_path, capsys, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    folder = write(tmp_path, rows_of(seeds=2))
    assert cli.run(["report", str(folder), "--open", "--figures"]) is None
    out = capsys.readouterr().out
    assert f"written to {folder / 'report.html'}" in out
    assert "there is no display to show it on; open" in out
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert list((folder / "figures").glob("*.svg"))


def test_a_browser_is_asked_for_where_there_is_a_display(folder, monkeypatch):
    asked = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.open", lambda url: asked.append(url) or True)
    assert cli.run(["report", str(folder), "--open"]) is None
    assert asked == [(folder / "report.html").as_uri()]


def test_damage_is_told_and_the_page_is_there(tmp_path, capsys):
    folder = write(tmp_path / "out", rows_of(seeds=2))
    (folder / "rows" / "cut.parquet").write_bytes(b"PAR1")
    assert cli.run(["report", str(folder)]) is None
    assert "cut.parquet" in capsys.readouterr().err
    assert "cut.parquet" in (folder / "report.html").read_text()


def test_nothing_to_report_is_one_line(tmp_path):
    assert "there is no folder" in cli.run(["report", str(tmp_path / "no")])
    (tmp_path / "rows").mkdir()
    for i in range(9):
        (tmp_path / "rows" / f"{i}.parquet").write_bytes(b"x")
    said = cli.run(["report", str(tmp_path)])
    assert said.startswith("nothing to report: ")
    assert "more like these" in said
    assert not (tmp_path / "report.html").exists()

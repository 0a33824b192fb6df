"""One colour per arm: every kind of picture is drawn of the same arms and asked for its colours."""

import itertools
import json
import re

import numpy as np
import pytest
from matplotlib.colors import to_hex
from rows_made_up import rows_of, write_study

from regrow.analysis.across_conditions import aggregates, proxies
from regrow.analysis.summary import curves, summarise
from regrow.report import figure, paper, sections
from regrow.report.figure import UP_TO_FORK
from regrow.report.palette import COLOURS, FIXED, GREYS, HUES, INK, KNOWN, ON_DARK, SOFT, inks
from regrow.training.saved import Episodes, Trained
from regrow.types import Event

ARMS = ("nothing", "inject", "reset", "regrama", "redo", "reset every 10_000")
EXPECTED = {
    "nothing": ("#6a7077", "-"),
    "inject": ("#0072b2", "-"),
    "reset": ("#d55e00", "-"),
    "redo": ("#cc79a7", "-"),
    "regrama": ("#cc79a7", "--"),
    "reset every 10_000": ("#009e73", "-"),
}
NOBODY = {INK, SOFT}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A study of four conditions, each with all arms, and with replicates of `nothing`."""
    arms = ("nothing", "again", *ARMS[1:])
    groups = [
        rows_of("growing", f"size {at}", axis="hidden", at=at, gain=at, level=9.0, arms=arms)
        for at in (1.0, 2.0, 3.0, 4.0)
    ]
    folder = write_study(tmp_path_factory.mktemp("out"), *groups, figure="compute")
    return summarise(folder)


def lines_of(drawn) -> list[tuple[str, str, str]]:
    """(label, colour, dash) of every line of a Matplotlib figure that has one of an arm."""
    lines = [line for axes in drawn.axes for line in axes.lines]
    found = [(line.get_label(), to_hex(line.get_color()), line.get_linestyle()) for line in lines]
    return [one for one in found if one[1] not in NOBODY]


def legend_of(drawn) -> dict[str, tuple[str, str]]:
    """{label: (colour, dash)} of what the legends of a figure say."""
    legends = [*drawn.legends, *(axes.get_legend() for axes in drawn.axes)]
    handles = [handle for legend in filter(None, legends) for handle in legend.legend_handles]
    return {h.get_label(): (to_hex(h.get_color()), h.get_linestyle()) for h in handles}


def rows_drawn(axes) -> dict[str, tuple[str, str]]:
    """{label: (colour, dash)} of intervals that stand one below the other."""
    labels = [label.get_text() for label in axes.get_yticklabels()]
    lines = [
        line
        for line in axes.lines
        if line.get_marker() == "None" and len(set(line.get_ydata())) == 1
    ]
    placed = {
        line.get_ydata()[0]: line for line in lines if line.get_ydata()[0] in range(len(labels))
    }
    return {
        labels[int(at)]: (to_hex(line.get_color()), line.get_linestyle())
        for at, line in placed.items()
        if to_hex(line.get_color()) not in NOBODY
    }


@pytest.fixture
def drawn(monkeypatch):
    """The figures that `regrow.report.figure` would write, in place of files."""
    held = []
    monkeypatch.setattr(figure, "write_figure", lambda made, path: held.append(made))
    return held


def arms_curves(told, arms=ARMS):
    held = {curve.arm: curve for curve in curves(told.studies[0].cases[0])}
    before = held["before the fork"]
    found = {UP_TO_FORK: (before.over["env_steps"], before.returns)}
    return found | {arm: (held[arm].over["env_steps"], held[arm].returns) for arm in arms}


CURVES = {"fork_at": 60_000, "title": "t", "subtitle": "s", "random_return": 0.4}


@pytest.mark.parametrize("arms", [ARMS, ARMS[::-1]])
def test_the_picture_of_a_diagnosis(tmp_path, told, drawn, arms):
    events = {"reset every 10_000": [70_000]}
    figure.draw_curves(tmp_path / "c.png", arms_curves(told, arms), events=events, **CURVES)
    said = {label: (colour, dash) for label, colour, dash in lines_of(drawn[0]) if label in ARMS}
    assert said == EXPECTED
    ticks = [
        line
        for line in drawn[0].axes[0].lines
        if line.get_marker() == "|" and len(line.get_xdata())
    ]
    assert [to_hex(line.get_color()) for line in ticks] == ["#009e73"]


def test_the_picture_of_a_diagnosis_with_a_panel_for_each_arm(tmp_path, told, drawn, monkeypatch):
    monkeypatch.setattr(figure, "TOGETHER", 2)
    figure.draw_curves(tmp_path / "c.png", arms_curves(told), **CURVES)
    for axes in drawn[0].axes:
        arm = axes.get_title(loc="left").replace("\n", " ")
        if axes.get_visible():
            control, own = ((to_hex(line.get_color()), line.get_linestyle()) for line in axes.lines)
            assert (control, own) == (EXPECTED["nothing"], EXPECTED[arm])


def test_the_picture_of_a_run_has_its_interventions_in_their_colours(tmp_path, drawn):
    episodes = Episodes(np.arange(1, 90), np.arange(89.0), np.ones(89, int))
    events = [Event(30, "reset"), Event(50, "inject"), Event(60, "inject")]
    figure.draw_training(tmp_path / "c.png", episodes, events, title="t", subtitle="s")
    assert {(colour, dash) for _, colour, dash in lines_of(drawn[0])} == {
        EXPECTED["reset"],
        EXPECTED["inject"],
    }


def test_agents_have_colours_that_are_no_arm_s_and_the_same_in_every_panel(tmp_path, drawn):
    episodes = Episodes(np.arange(1, 90), np.arange(89.0), np.ones(89, int))
    runs = [
        Trained(environment, what, seed, episodes)
        for environment, agents in (("a", "xyz"), ("b", "zy"))
        for what in agents
        for seed in (0, 1)
    ]
    figure.draw_learning(tmp_path / "c.png", runs)
    first, second = (
        {line.get_label(): line.get_color() for line in axes.lines if line.get_label() in "xyz"}
        for axes in drawn[0].axes
    )
    assert len({*first.values()}) == 3
    assert {what: first[what] for what in "zy"} == second
    assert not {*first.values()} & {ink.hex for ink in FIXED.values()}


def test_figures_for_papers(told):
    (study,) = told.studies
    held = study.cases
    learning = paper.learning_curves(held)
    assert legend_of(learning) == EXPECTED
    assert {(colour, dash) for _, colour, dash in lines_of(learning)} == {*EXPECTED.values()}
    summed = paper.aggregate(aggregates(held))
    assert legend_of(summed) == EXPECTED
    beside = {arm: EXPECTED[arm] for arm in ARMS[1:]}
    for axes in paper.arms_beside_nothing(held).axes:
        if axes.get_visible():
            assert rows_drawn(axes) == beside
    assert rows_drawn(summed.axes[0]) == EXPECTED


def test_what_injection_gains_is_in_the_colour_of_injection(told):
    (study,) = told.studies
    blue = EXPECTED["inject"]
    assert {*rows_drawn(paper.gains_per_condition(study.cases).axes[0]).values()} == {blue}
    assert {colour for _, colour, _ in lines_of(paper.sweep(study.cases))} == {blue[0]}
    points = paper.proxies_and_gain(proxies(study.cases)).axes[0].collections[0]
    assert {to_hex(colour) for colour in points.get_facecolors()} == {blue[0]}


def test_conditions_in_one_picture_differ_in_the_dash(told):
    (study,) = told.studies
    said = legend_of(paper.over_compute(study.cases))
    for place, dash in enumerate(("-", "--", ":", "-.")):
        assert said[f"size {place + 1}.0: inject"] == ("#0072b2", dash)
        assert said[f"size {place + 1}.0: nothing"] == ("#6a7077", dash)


def test_pictures_of_one_folder_share_their_colours_whatever_a_study_has(tmp_path, monkeypatch):
    few, many = ("nothing", "inject", "inject(split=1)"), ("nothing", "inject", "inject(split=0)")
    write_study(tmp_path, rows_of("one", "a", arms=few))
    write_study(tmp_path, rows_of("two", "b", arms=many))
    summary, made = summarise(tmp_path), {}

    def kept(drawn, path, *_):
        made[path.stem] = drawn
        return path

    monkeypatch.setattr(paper, "_write", kept)
    paper.write_figures(summary, tmp_path)
    one, two = (legend_of(made[f"{study}-smoke-curves"]) for study in ("one", "two"))
    assert one["inject(split=1)"] != two["inject(split=0)"]
    assert one["nothing"] == two["nothing"] == EXPECTED["nothing"]


def page_colours(text: str) -> dict[str, tuple[str, str]]:
    """{arm: (colour on white, dash)} as the page's data and its style say."""
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    variables = dict(re.findall(r"(--c\d+): light-dark\((#\w+),", style))
    by_class = {
        name: variables[it] for name, it in re.findall(r"\.(c\d+) \{ --it: var\((--c\d+)\)", style)
    }
    patterns = {"d0": "-"} | {
        name: {"6 3": "--", "2 3": ":", "7 3 2 3": "-."}[pattern]
        for name, pattern in re.findall(
            r"\.arm\.(d\d) path[^{]*\{ stroke-dasharray: ([\d ]+);", style
        )
    }
    classes = {
        arm["name"]: arm["colour"].split() for arm in data["arms"] if arm["colour"] != "before"
    }
    return {arm: (by_class[colour], patterns[dash]) for arm, (colour, dash) in classes.items()}


def test_the_page(told):
    text = sections.page(told)
    said = page_colours(text)
    assert {arm: said[arm] for arm in ARMS} == EXPECTED
    assert "again" not in said
    for place, dash in enumerate(("-", "--", ":", "-.")):
        assert said[f"size {place + 1}.0: reset"] == ("#d55e00", dash)
    assert {*re.findall(r'class="spark (c\d d\d)', text)} == {KNOWN["inject"].classes}


# The palette itself.


@pytest.mark.parametrize("others", [(), ("a",), tuple("abcdefghij"), tuple(KNOWN)])
def test_arms_that_are_known_have_their_ink_whatever_else_is_drawn(others):
    for order in (("nothing", "inject", "redo", *others), (*others, "redo", "inject", "nothing")):
        found = inks(order)
        assert all(found[arm] == KNOWN[arm] for arm in ("nothing", "inject", "redo"))
        assert list(found) == list(dict.fromkeys(order))
    assert inks(others) == inks(others[::-1])


def test_twenty_arms_look_different():
    arms = [*FIXED, *(f"arm {i}" for i in range(16))]
    assert len({*inks(arms).values()}) == 20


SIMULATED = {  # linear RGB as dichromats see it; Machado, Oliveira & Fernandes 2009, severity 1
    "all": np.eye(3),
    "protanopes": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopes": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopes": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of linear RGB, white point D65."""
    xyz = XYZ @ np.clip(rgb, 0, 1) / (0.95047, 1, 1.08883)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("who", SIMULATED)
@pytest.mark.parametrize("palette", [COLOURS, ON_DARK])
def test_undashed_colours_are_told_apart_by_colour_blind_people(palette, who):
    """A difference of 15 in CIELAB is plain to see; `again`, which is grey, is dashed."""
    seen = [lab(np.array(SIMULATED[who]) @ linear(c)) for i, c in enumerate(palette) if i != 1]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15
    assert KNOWN["again"].dash == 1
    assert len(palette) == len(GREYS) + len(HUES)


@pytest.mark.parametrize(("palette", "ground"), [(COLOURS, "#ffffff"), (ON_DARK, "#15171a")])
def test_lines_stand_out_from_their_ground(palette, ground):
    def light(colour):
        return linear(colour) @ XYZ[1]

    for colour in palette:
        bright, dark = sorted((light(colour), light(ground)), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) > 2.2

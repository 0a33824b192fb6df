"""The page in a browser: it draws, it answers to keys, it runs nothing that rows have brought."""

import dataclasses
import re
from pathlib import Path

import pytest
from rows_made_up import alike, rows_of, write, write_study

from regrow.analysis.summary import summarise
from regrow.records.rows import table_of, write_table
from regrow.report.sections import write_page

CHROMIUM = Path("/usr/bin/chromium")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright: pip install -e '.[test]'"
)
pytestmark = pytest.mark.skipif(
    not CHROMIUM.is_file(), reason=f"needs a browser at {CHROMIUM}: apt-get install chromium"
)

EVIL = (
    "</script><img src=x onerror=\"document.title='evil'\"><script>document.title='evil'</script>"
)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("studies")
    games = [rows_of(condition=f"game {i}", gain=i - 1.0, seeds=3) for i in range(3)]
    label = "a past of which there is much to say, too much for a telephone: {}"
    pasts = [rows_of("proxies", label.format(i), gain=i, seeds=3) for i in (0.1, 1.0, 2.0)]
    write_study(out, *games, figure="gains", claims=[7], question="Is it general?")
    write_study(out, *pasts, figure="proxies")
    write_study(out, *(rows_of("growing", size, seeds=2) for size in ("small", "wide")),
                figure="compute")  # fmt: skip
    write_table(out / "rows" / "evil.parquet", table_of(rows_of(EVIL, EVIL, seeds=2)))
    write_page(out / "report.html", summarise(out))
    return (out / "report.html").as_uri()


@pytest.fixture
def page(browser, address, request):
    """The page, opened; whatever it complains of fails the test."""
    context = browser.new_context(**getattr(request, "param", {"viewport": WIDE}))
    page = context.new_page()
    page.set_default_timeout(30_000)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda sent: complaints.append(sent.url))
    page.goto(address)
    page.wait_for_selector("figure .drawing")
    yield page
    context.close()
    assert complaints == []


WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
CURVES = "[data-chart='generality-smoke-curves']"


def drawn_arms(page, chart: str = CURVES) -> set[str]:
    arms = page.locator(f"{chart} g.arm")
    return {arms.nth(i).get_attribute("data-arm") for i in range(arms.count())}


def test_everything_is_drawn(page):
    figures = page.locator("figure[data-chart]")
    assert figures.count() > 10
    for i in range(figures.count()):
        assert figures.nth(i).locator("svg.drawing").count() > 0
    assert drawn_arms(page) == {"before the fork", "nothing", "inject", "reset"}
    paths = page.locator(f"{CURVES} path.mean")
    assert paths.count() == 3 * 4
    assert all(len(paths.nth(i).get_attribute("d")) > 50 for i in range(12))
    widths = {
        paths.nth(i).evaluate("e => e.ownerSVGElement.viewBox.baseVal.width") for i in (0, 11)
    }
    assert len(widths) == 1
    assert "NaN" not in page.content()
    assert "undefined" not in page.locator("main").inner_text()


INK_OF = {
    "nothing": ("rgb(106, 112, 119)", "none"),
    "inject": ("rgb(0, 114, 178)", "none"),
    "reset": ("rgb(213, 94, 0)", "none"),
}


def stroke(page, selector: str) -> set[tuple[str, str]]:
    """The strokes that a browser paints what it finds with: (colour, dashes)."""
    found = page.locator(selector).evaluate_all(
        "all => all.map(e => [getComputedStyle(e).stroke, getComputedStyle(e).strokeDasharray])"
    )
    return {(colour, dashes) for colour, dashes in found}


@pytest.mark.parametrize("page", [{"viewport": WIDE, "color_scheme": "light"}], indirect=True)
def test_every_arm_has_its_colour_in_curves_intervals_and_verdicts(page):
    for arm, ink in INK_OF.items():
        assert stroke(page, f"{CURVES} g.arm[data-arm='{arm}'] path.mean") == {ink}
    assert stroke(page, ".spark .held") == {INK_OF["inject"]}
    chart = "[data-chart='generality-smoke-arms'] g.interval line"
    rows = page.locator(chart).evaluate_all("all => all.map(e => getComputedStyle(e).stroke)")
    assert rows == [INK_OF[arm][0] for arm in ("inject", "reset")]
    for arm in ("nothing", "inject"):
        for place, dashes in enumerate(("none", "6px, 3px")):
            size = ("small", "wide")[place]
            both = f"[data-chart='growing-smoke-compute'] g.arm[data-arm='{size}: {arm}'] path.mean"
            assert stroke(page, both) == {(INK_OF[arm][0], dashes)}


def test_one_seed_has_no_band_and_says_so(browser, tmp_path):
    rows = rows_of(seeds=1)
    write_page(tmp_path / "report.html", summarise(write(tmp_path / "out", rows)))
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector("figure .drawing")
    assert page.locator(f"{CURVES} p.note").inner_text() == "one seed: no interval"
    assert page.locator(f"{CURVES} path.mean").count() == 4
    bands = page.locator(f"{CURVES} path.band")
    assert {bands.nth(i).get_attribute("d") for i in range(bands.count())} == {""}
    panel = page.locator(f"{CURVES} .panel").first
    panel.focus()
    page.keyboard.press("End")
    assert "[" not in panel.get_attribute("aria-valuetext")
    page.close()


def test_a_band_is_interrupted_where_seeds_do_not_differ_and_an_interval_is_said_to_be_missing(
    browser, tmp_path
):
    rows = [
        dataclasses.replace(row, returns=(*row.returns[:9], 4.0, *row.returns[10:]))
        for row in rows_of()
    ]
    rows = alike(rows, "reset", 2.0)
    write_page(tmp_path / "report.html", summarise(write(tmp_path / "out", rows)))
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector("figure .drawing")
    band = page.locator(f"{CURVES} g.arm[data-arm='inject'] path.band").get_attribute("d")
    assert band.count("M") == 2
    row = page.locator("[data-chart='generality-smoke-arms'] text.value").last
    assert re.fullmatch(r"\+\d+% \(no interval\)", row.text_content())
    hollow = page.locator("[data-chart='generality-smoke-arms'] g.interval.alone circle")
    assert hollow.count() == 1
    assert hollow.evaluate("e => getComputedStyle(e).fill") == "rgb(255, 255, 255)"
    page.close()


def test_verdicts_come_first(page):
    assert page.locator("main h2").first.inner_text() == "Verdicts"
    block = page.locator("main section").first.inner_text()
    assert "Is it general?" in block
    assert "not decided" in block
    assert "Claim 7: the effect is not uniform" in block
    assert "plasticity loss" in block
    assert page.locator("svg.spark").count() >= 8


def test_an_arm_is_hidden_and_comes_back_by_mouse_and_by_keyboard(page):
    button = page.locator(f"{CURVES} .legend button", has_text="inject")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert "inject" not in drawn_arms(page)
    button.focus()
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "true"
    assert "inject" in drawn_arms(page)


def test_conditions_seeds_and_axes_are_chosen(page):
    chart = page.locator(CURVES)
    chart.locator("select").select_option(label="game 1")
    assert chart.locator("svg.drawing").count() == 1
    chart.get_by_label("seeds").check()
    assert chart.locator("path.seed").count() == 4 * 3
    assert chart.locator("path.band").count() == 0
    chart.get_by_label("FLOPs").check()
    assert "5T" in chart.locator("svg.drawing").text_content()


def test_values_are_read_by_pointer_and_by_arrow_keys(page):
    panel = page.locator(f"{CURVES} .panel").first
    panel.scroll_into_view_if_needed()
    box = panel.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 50)
    tip = panel.locator(".tip")
    assert "env steps" in tip.inner_text()
    assert re.search(r"inject\s*[−\d.]+ \[[−\d.]+, [−\d.]+\]", tip.inner_text())
    panel.focus()
    page.keyboard.press("End")
    assert panel.get_attribute("aria-valuetext").startswith("100k env steps; nothing ")
    page.keyboard.press("ArrowLeft")
    assert panel.get_attribute("aria-valuetext").startswith("98k env steps; ")
    page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_behind_every_chart_there_is_a_table_of_what_it_shows(page):
    page.locator(f"{CURVES} .legend button", has_text="reset").click()
    details = page.locator("figure details.data")
    for i in range(details.count()):
        details.nth(i).locator("summary").click()
        details.nth(i).locator("tbody tr").first.wait_for()
    head = page.locator(f"{CURVES} thead").first.inner_text()
    assert "inject" in head
    assert "reset" not in head
    page.locator(CURVES).get_by_label("seeds").check()
    assert "inject, seed 2" in page.locator(f"{CURVES} thead").first.inner_text()


def test_what_rows_have_brought_does_not_run(page):
    assert page.title().startswith("regrow report")
    assert page.locator("img").count() == 0
    assert EVIL in page.locator("main").inner_text()
    page.locator("figure[data-chart]").last.locator("details summary").click()
    assert page.title().startswith("regrow report")


def test_the_policy_stops_a_script_that_came_in_all_the_same(page, browser, address, tmp_path):
    path = tmp_path / "changed.html"
    text = Path(address.removeprefix("file://")).read_text()
    path.write_text(text.replace("<main>", "<script>document.title='evil'</script><main>"))
    changed = browser.new_page()
    changed.goto(path.as_uri())
    assert changed.title().startswith("regrow report")
    changed.close()


def ground(page) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


@pytest.mark.parametrize("page", [{"color_scheme": "dark"}], indirect=True)
def test_dark_and_light_follow_the_system_the_reader_and_the_paper(page):
    dark, light = "rgb(21, 23, 26)", "rgb(255, 255, 255)"
    assert ground(page) == dark
    page.get_by_label("light").check()
    assert ground(page) == light
    page.reload()
    assert ground(page) == light  # it is remembered
    page.get_by_label("dark").check()
    assert ground(page) == dark
    page.emulate_media(media="print")
    assert ground(page) == light


@pytest.mark.parametrize("page", [{"viewport": PHONE, "has_touch": True}], indirect=True)
def test_a_phone_shows_all_without_scrolling_sideways(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for chart in (CURVES, "[data-chart='proxies-smoke-correlations']"):
        box = page.locator(f"{chart} svg.drawing").first.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
    panel = page.locator(f"{CURVES} .panel").first
    panel.scroll_into_view_if_needed()
    panel.tap()
    tip = panel.locator(".tip").bounding_box()
    assert tip["x"] >= 0
    assert tip["x"] + tip["width"] <= PHONE["width"]


def test_all_controls_have_names_and_can_be_reached(page):
    nameless = page.evaluate("""() => [...document.querySelectorAll(
        "button, select, input, summary, [tabindex='0']")].filter((e) =>
        !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length)).length""")
    assert nameless == 0
    first = page.locator("a.skip")
    page.keyboard.press("Tab")
    assert first.evaluate("e => e === document.activeElement")
    page.keyboard.press("Enter")
    assert page.url.endswith("#verdicts")


def test_on_paper_everything_is_unfolded(page):
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not(.data):not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not(.data)[open]").count() == 0


def test_without_scripts_verdicts_and_tables_are_there(browser, tmp_path):
    write_page(tmp_path / "report.html", summarise(write(tmp_path / "out", rows_of(gain=2.0))))
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    assert "plasticity loss" in page.locator(".verdicts").inner_text()
    assert page.locator("details table").count() == 1
    context.close()

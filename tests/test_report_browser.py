"""The report in a real browser: what a person sees, and what it must not do."""

import re
import shutil
from pathlib import Path

import pytest

from loso.report.write import write_comparison, write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on the PATH: the report was not looked at in a browser"
)

FLAGS = """
--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync
""".split()
PHONE = {"width": 390, "height": 844}
SCREEN = {"width": 1280, "height": 900}

LEAST_CONTRAST = 4.5
"""Of text, by the WCAG 2.2, success criterion 1.4.3."""


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def report_path(whole_run, tmp_path_factory):
    return write_report(whole_run, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def look(browser):
    """Open a file; the page has `complaints`: what it logged, asked for or popped up."""
    contexts = []

    def open_page(path, **options):
        context = browser.new_context(**{"viewport": SCREEN, **options})
        contexts.append(context)
        page = context.new_page()
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (page.complaints.append("dialog"), dialog.dismiss()))
        own = Path(path).as_uri()
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("data:", "blob:"))
                or request.url.partition("#")[0] == own
                else page.complaints.append(f"asked for {request.url}")
            ),
        )
        page.goto(own)
        return page

    yield open_page
    for context in contexts:
        context.close()


def drawn(page, index=None):
    """Scroll to the charts, or to one of them, until each is drawn; return them."""
    plots = page.locator(".plot").all()
    for plot in plots if index is None else [plots[index]]:
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for()
    return plots


def first_scatter(page):
    """The first chart that has a line of agreement and points: a held-out source."""
    plot = page.locator("#sources .grid .plot").first
    plot.scroll_into_view_if_needed()
    plot.locator(".scatterlayer .point").first.wait_for(state="attached")
    return plot


def luminance(colour):
    """Relative luminance as WCAG defines it, of a colour such as rgb(1, 2, 3)."""
    values = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_all_charts_are_drawn_without_an_error_or_a_request(look, report_path):
    page = look(report_path)
    plots = drawn(page)
    assert len(plots) > 15
    assert page.complaints == []


def test_the_verdict_is_what_is_seen_first(look, report_path, whole_run):
    page = look(report_path)
    word = next(name for name in ("PROMOTE", "HOLD") if (whole_run / f"{name}.json").exists())
    sentence = page.locator("#verdict .note").first
    assert sentence.inner_text().startswith(f"{word}:")
    assert sentence.bounding_box()["y"] < SCREEN["height"] / 2
    tiles = page.locator("#verdict .tile").all()
    assert [tile.locator(".margin").inner_text()[:6] for tile in tiles[:3]] == ["margin"] * 3


def test_the_sections_stand_in_their_order(look, report_path):
    ids = look(report_path).locator("section").evaluate_all("all => all.map(one => one.id)")
    assert ids == "verdict sources intervals errors corpus training baselines provenance".split()


def test_hovering_names_the_row(look, report_path):
    page = look(report_path)
    plot = first_scatter(page)
    point = plot.locator(".scatterlayer .point").first.bounding_box()
    page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    text = plot.locator(".hovertext").first
    text.wait_for()
    assert re.search(
        r"lib(x264|svtav1)\s.*cq \d+.*frame \d.*measured .*predicted",
        text.text_content(),
        re.DOTALL,
    )


def test_the_legend_filters(look, report_path):
    page = look(report_path)
    plot = first_scatter(page)
    before = plot.locator(".scatterlayer .point").count()
    plot.locator(".legendtoggle").first.click()
    page.wait_for_function(
        "([plot, before]) => plot.querySelectorAll('.scatterlayer .point').length < before",
        arg=[plot.element_handle(), before],
    )
    assert 0 < plot.locator(".scatterlayer .point").count() < before


def test_a_source_that_is_markup_shows_as_text(look, report_path, hostile_name):
    page = look(report_path)
    drawn(page)
    assert page.locator("td", has_text=hostile_name).count() >= 3
    assert page.locator("h3", has_text=hostile_name).count() >= 2
    shown = page.locator("#sources .plot").first.locator(".ytick").all_text_contents()
    assert hostile_name in shown
    scripts = page.locator("script").all_text_contents()
    assert not any(script.strip() == "alert(1)" for script in scripts)
    assert page.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(look, report_path, scheme):
    page = look(report_path, color_scheme=scheme)
    drawn(page, 0)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(paper) > 0.5) == (scheme == "light")
    places = [
        "body",
        "td",
        "th",
        "a",
        ".note.warn",
        "figcaption",
        ".tile .limit",
        ".plot .xtick text",
    ]
    for place in places:
        element = page.locator(place).first
        style = element.evaluate(
            "one => { const s = getComputedStyle(one);"
            " return one instanceof SVGElement ? s.fill : s.color }"
        )
        assert contrast(style, paper) >= LEAST_CONTRAST, f"{place}: {style} on {paper}"


def test_charts_follow_when_the_screen_turns_dark(look, report_path):
    page = look(report_path, color_scheme="light")
    drawn(page, 0)
    tick = page.locator(".plot .xtick text").first
    before = tick.evaluate("one => getComputedStyle(one).fill")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "before => getComputedStyle(document.querySelector('.plot .xtick text')).fill !== before",
        arg=before,
    )


@pytest.mark.parametrize("viewport", [PHONE, SCREEN], ids=["phone", "screen"])
def test_nothing_sticks_out_sideways(look, report_path, viewport):
    page = look(report_path, viewport=viewport)
    drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    for plot in page.locator(".plot").all():
        box = plot.locator(".main-svg").first.bounding_box()
        assert box["x"] + box["width"] <= viewport["width"] + 1


def test_it_prints_with_every_chart_and_without_its_buttons(look, report_path):
    page = look(report_path)
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert not page.locator("button.copy").first.is_visible()
    document = page.pdf(format="A4")
    assert document.startswith(b"%PDF")
    plots = page.locator(".plot")
    assert plots.locator(".main-svg").count() >= plots.count()
    assert page.complaints == []


def test_without_scripts_the_sentences_and_tables_stay(look, report_path):
    page = look(report_path, java_script_enabled=False)
    assert page.locator("#verdict .note").first.is_visible()
    assert page.locator("noscript").inner_text().startswith("Charts need JavaScript")
    assert page.locator("table").count() > 5


def test_provenance_can_be_copied(look, report_path):
    page = look(report_path)
    page.locator("button.copy").first.click()
    page.wait_for_function(
        "['copied', 'selected'].includes(document.querySelector('button.copy').textContent)"
    )
    if page.locator("button.copy").first.inner_text() == "selected":
        assert page.evaluate("getSelection().toString()").startswith("loso ")


def test_two_runs_are_drawn_without_a_complaint(look, whole_run, make_run, tmp_path):
    page = look(write_comparison(whole_run, make_run(), tmp_path / "both.html"))
    drawn(page)
    assert page.locator("section").count() == 4
    assert page.complaints == []

"""The page in a browser: it is complaint-free, fits a phone, and its tables sort and filter."""

import os
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

from medjax.lab.commands.report import main

pytestmark = pytest.mark.slow

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
FLAGS += ("--disable-background-networking", "--disable-component-update", "--disable-sync")
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium, with a profile of its own."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        what = f"no browser found ({', '.join(NAMES)})"
        if os.environ.get("MEDJAX_REQUIRE_BROWSER") == "1":
            pytest.fail(what)
        pytest.skip(what)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory, make_run, make_sweep):
    base = tmp_path_factory.mktemp("page")
    make_run(base / "<script>alert(1)", rule="sign")
    make_run(base / ("a-long-name" * 15), rule="noisy_sign", b=0.03)
    rules = ["mean", "median", "sign", "noisy_sign"]
    make_sweep(base / "sweep", rule=rules, lr=[2.0, 10.0, 0.003], b=[0.01, 0.1])
    out = base / "page.html"
    assert main([*(str(path) for path in sorted(base.iterdir())), "--out", str(out)]) == 0
    return out


@pytest.fixture
def opened(browser, page):
    """Open the page; what it complains of, or asks of others, fails the test."""
    contexts, complaints, requests = [], [], []

    def opened(width=1280, scheme="light"):
        contexts.append(
            browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        )
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(page.as_uri())
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    own = [url for url in requests if not url.startswith("data:image/png;")]
    assert own == [page.as_uri()] * len(contexts)


def table_of(tab, caption):
    return tab.locator(".table").filter(has=tab.locator("caption", has_text=caption))


def column(table, number):
    cells = table.locator("tbody tr:not([hidden])").locator(f"> :nth-child({number})")
    return cells.all_inner_texts()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_it_fits_and_shows_every_picture(opened, width, scheme, tmp_path):
    tab = opened(width, scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    pictures = tab.locator(".picture svg")
    # The comparison, two runs, and of the sweep: curves, against b, δ, and both as a heatmap.
    assert pictures.count() == 3 + 4
    for picture in pictures.all():
        box = picture.bounding_box()
        assert box["width"] > 200
        assert box["height"] > 100
        # What is drawn, not only the place for it.
        drawn = picture.evaluate("x => x.getBBox().width / x.viewBox.baseVal.width")
        assert 0.9 < drawn < 1.1
    tab.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 50_000
    paper = tab.locator("section").first.evaluate("x => getComputedStyle(x).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    # Text in pictures is in the colour of the page.
    label = tab.locator(".picture text", has_text="training loss").first
    colour = label.evaluate("x => getComputedStyle(x).fill")
    assert colour == tab.locator("body").evaluate("x => getComputedStyle(x).color")


def test_sorting(opened):
    table = table_of(opened(), "Every setting")
    before = column(table, 1)
    size = table.get_by_role("button", name="step size")
    size.click()
    number = 1 + table.locator("thead th").all_inner_texts().index("step size δ")
    values = [float(x) for x in column(table, number)]
    assert values == sorted(values)  # as words, 10 would come before 2
    assert {*values} == {2, 10, 0.003}
    expect(table.locator("th[aria-sort]")).to_have_attribute("aria-sort", "ascending")
    size.click()
    assert [float(x) for x in column(table, number)] == sorted(values, reverse=True)
    expect(table.locator("th[aria-sort]")).to_have_attribute("aria-sort", "descending")

    table.get_by_role("button", name="rule").click()
    expect(table.locator("th[aria-sort]")).to_have_count(1)
    assert column(table, 1) == sorted(before)

    scale = table.get_by_role("button", name="noise scale")
    number = 1 + table.locator("thead th").all_inner_texts().index("noise scale b")
    for backwards in (False, True):
        scale.press("Enter")
        values = column(table, number)
        numbers = sorted([0.01, 0.1] * 3, reverse=backwards)
        assert values == [*map(str, numbers), *["-"] * 9]  # without noise: last, both ways


def test_filtering(opened):
    table = table_of(opened(), "Every setting")
    only = table.get_by_label("Only rows with")
    only.fill("NOISY 0.003")
    assert column(table, 1) == ["noisy_sign"] * 2
    assert table.locator("output").inner_text() == "2 of 15"
    table.get_by_role("button", name="rule").click()
    assert column(table, 1) == ["noisy_sign"] * 2
    only.fill("no such thing")
    assert column(table, 1) == []
    only.fill("")
    assert len(column(table, 1)) == 15
    assert table.locator("output").inner_text() == ""


def test_the_contents_lead_there(opened):
    tab = opened()
    tab.get_by_role("navigation").get_by_role("link").last.click()
    assert tab.url.endswith("#sweep-0")
    assert tab.locator("#sweep-0").evaluate("x => x.getBoundingClientRect().top") < 900


def test_printed_it_is_black_on_white_and_whole(opened):
    tab = opened(700, "dark")
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.locator("section").first.evaluate("x => getComputedStyle(x).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert not tab.locator(".filter").first.is_visible()
    for picture in tab.locator(".picture svg").all():
        assert picture.bounding_box()["width"] <= 700

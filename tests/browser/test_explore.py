"""Searches a figure whose points have names, with the book's own script, in a headless browser."""

import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys
from test_pages import BROWSERS, FLAGS, unavailable

from txtlib import figures

STATIC = Path(__file__).parents[2] / "book" / "_static"
FOUND = "return [...document.querySelectorAll('.book-point.found')].map(point => point.dataset.name)"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chrome():
    binary, driver = next(filter(None, map(shutil.which, BROWSERS)), None), shutil.which("chromedriver")
    if not binary or not driver:
        unavailable("no Chromium with chromedriver here: on Debian, apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(flag)
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


@pytest.fixture
def page(tmp_path, monkeypatch, chrome):
    """Open a page with two figures of the same names, with the script or without."""
    shown = []
    monkeypatch.setattr(figures, "display", lambda item: shown.append(item.data))
    for rise in (1, 2):
        fig, ax = plt.subplots()
        points = ax.scatter([1, 2, 3], [rise, 2 * rise, 3])
        figures.show(fig, alt="a", caption="c", points={points: ["TP53: one", "TP63: <two>", "A: three"]})

    def opened(script=True):
        tail = f"<script>{(STATIC / 'explore.js').read_text()}</script>" if script else ""
        head = f'<!doctype html><meta charset="utf-8"><style>{(STATIC / "book.css").read_text()}</style>'
        file = tmp_path / "page.html"
        file.write_text(f"{head}{''.join(shown)}{tail}", encoding="utf-8")
        chrome.get(file.as_uri())
        return chrome

    return opened


def typed(browser, text):
    box = browser.find_element("css selector", "input")
    box.clear()
    box.send_keys(text)
    return browser.execute_script(FOUND), browser.find_element("css selector", "output").text


def test_a_name_is_found_in_its_own_figure(page):
    browser = page()
    assert typed(browser, "tp53") == (["TP53"], "TP53: one")
    assert typed(browser, "TP") == (["TP53", "TP63"], "TP53: one; TP63: <two>")
    assert typed(browser, "B") == ([], "No point of that name is in this picture.")


def test_arrows_lead_from_point_to_point(page):
    browser = page()
    browser.find_element("css selector", "input").send_keys(Keys.TAB, Keys.ARROW_RIGHT)
    assert browser.switch_to.active_element.get_attribute("data-name") == "TP63"
    browser.switch_to.active_element.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert browser.find_element("css selector", "output").text == "A: three"


def test_without_the_script_there_is_no_search_and_the_text_is_still_there(page):
    browser = page(script=False)
    assert not browser.find_element("css selector", "input").is_displayed()
    assert browser.find_element("css selector", "svg[role=img]").size["width"] > 300
    spot = browser.find_element("css selector", ".book-point")
    here = "const {x, y, width, height} = arguments[0].getBoundingClientRect();"
    on_top = f"{here} return document.elementFromPoint(x + width / 2, y + height / 2) === arguments[0]"
    assert browser.execute_script(on_top, spot)  # so a mouse meets it, and the browser shows its title


def test_only_the_picture_is_printed(page):
    browser = page()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not browser.find_element("css selector", "input").is_displayed()
    assert browser.find_element("css selector", "svg[role=img]").is_displayed()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})

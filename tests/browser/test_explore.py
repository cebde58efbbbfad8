"""Searches a figure whose points have names, with the book's own script, in a headless browser."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from txtlib import figures

STATIC = Path(__file__).parents[2] / "book" / "_static"
FOUND = "return [...document.querySelectorAll('.book-point.found')].map(point => point.dataset.name)"

pytestmark = pytest.mark.browser


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
        width = '<meta name="viewport" content="width=device-width">'
        head = f'<!doctype html><meta charset="utf-8">{width}<style>{(STATIC / "book.css").read_text()}</style>'
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


def test_a_picture_too_wide_for_a_phone_scrolls_and_is_reached_by_keyboard(page):
    browser = page()
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_script((STATIC / "reach.js").read_text())
    stop = "const [box] = document.querySelectorAll('.book-scroll'); return [box.tabIndex, box.scrollWidth]"
    wide = "return document.documentElement.scrollWidth"
    WebDriverWait(browser, 5).until(lambda b: b.execute_script(stop)[0] == 0)
    assert browser.execute_script(stop)[1] > 390 == browser.execute_script(wide)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    WebDriverWait(browser, 5).until(lambda b: b.execute_script(stop)[0] == -1)


def test_only_the_picture_is_printed(page):
    browser = page()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not browser.find_element("css selector", "input").is_displayed()
    assert browser.find_element("css selector", "svg[role=img]").is_displayed()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})

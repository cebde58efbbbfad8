"""Opens every page of the built book in a headless browser with the network cut."""

import json
import os
import shutil
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

SITE = Path(__file__).parents[2] / "_build" / "html"
MARKER = SITE / ".complete.json"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1300,1600",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
DRAWN = """
const all = (selector) => [...document.querySelectorAll(selector)];
return {
  images: all('article img').map(i => ({ok: i.complete && i.naturalWidth > 0, alt: i.alt})),
  figures: all('figure.book-figure').length,
  captions: all('figure.book-figure figcaption').filter(c => c.textContent.trim()).length,
  math: all('article .math').length,
  raw_math: all('article .math').filter(m => !m.querySelector('mjx-container')).map(m => m.textContent),
  broken_math: all('mjx-merror').length,
  errors: all('article .traceback, article .stderr, article .system-message').length,
  headless_tables: all('article table').filter(t => !t.querySelector('th')).length,
};
"""
ICONS = """
const icon = document.querySelector('.fa-solid, .fas');
return !icon || [...document.fonts].some(f => /Awesome/.test(f.family) && f.status === 'loaded');
"""
# What the pinned theme says on every page, and why it does no harm
OF_THE_THEME = (
    "/webfonts/",  # a page opened as a file may not preload a font; that it is loaded all the same is asked above
    "THEBE_JS_URL",  # sphinx-thebe, which no page uses, names its address twice
    "invalid theme mode",  # a first visit has no mode yet
)

pytestmark = pytest.mark.browser


def unavailable(reason):
    """Skip, or fail where `make pages` asked for these tests."""
    pytest.fail(reason) if os.environ.get("TXT_PAGES") else pytest.skip(reason)


def pages():
    return json.loads(MARKER.read_text())["pages"] if MARKER.is_file() else ["no page"]


@pytest.fixture(scope="module")
def browser():
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        unavailable("no Chromium with chromedriver here: on Debian, apt-get install chromium chromium-driver")
    if not MARKER.is_file():
        unavailable("no built book: run make book, then make pages")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


def visit(browser, page):
    browser.get(f"{(SITE / page).as_uri()}.html")
    settled = "return !window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)"
    WebDriverWait(browser, 30).until(lambda b: b.execute_script(settled))
    return browser.execute_script(DRAWN)


def requested(browser):
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


@pytest.mark.parametrize("page", pages())
def test_page_is_whole_without_a_network(browser, page):
    drawn = visit(browser, page)
    assert all(image["ok"] and image["alt"].strip() for image in drawn["images"])
    assert drawn["captions"] == drawn["figures"]
    assert drawn["raw_math"] == [] and drawn["broken_math"] == 0
    assert drawn["errors"] == 0 and drawn["headless_tables"] == 0
    assert browser.execute_script(ICONS), "the icon font was not loaded"
    outside = [url for url in requested(browser) if not url.startswith(("file:", "data:", "chrome:", "blob:"))]
    assert outside == []
    severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert [message for message in severe if not any(known in message for known in OF_THE_THEME)] == []


@pytest.mark.parametrize("page", [page for page in pages() if page.startswith("notebooks/")] or ["no page"])
def test_notebook_page_has_figures(browser, page):
    assert visit(browser, page)["figures"] > 0


def test_math_is_found_where_there_is_math(browser):
    assert visit(browser, "notebooks/01_survival")["math"] > 10


def test_search_works_from_a_folder_without_a_server(browser):
    browser.get(f"{(SITE / 'search').as_uri()}.html?q=censored")
    found = "return document.querySelectorAll('#search-results li').length"
    assert WebDriverWait(browser, 30).until(lambda b: b.execute_script(found)) > 0

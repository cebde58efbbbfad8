"""Opens every page of the built book in a headless browser with the network cut."""

import pytest
from built import SITE, need_site, opened, pages, requested
from selenium.webdriver.support.ui import WebDriverWait

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


@pytest.fixture(scope="module")
def browser(request):
    need_site()
    return request.getfixturevalue("chrome")


def visit(browser, page):
    opened(browser, page)
    return browser.execute_script(DRAWN)


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

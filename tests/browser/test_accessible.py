"""Asks of every page what a reader with a screen reader, a keyboard, a phone or a slow machine asks of it.

Each page is visited once: axe-core reads it in both themes and on two screens, and what it loads is weighed. A page
that holds something marked `data-interactive` (named points, the explorer) may weigh more than the others.
"""

import html
import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from built import MARKER, SITE, need_site, opened, pages, requested, unavailable
from selenium.webdriver.common.keys import Keys

MOST_SECONDS = 3.0
MOST_BYTES, MOST_BYTES_INTERACTIVE = 3_000_000, 6_000_000
SCREENS = {"phone": (390, 844), "desktop": (1300, 1600)}
RULES = {"runOnly": ["wcag2a", "wcag2aa"]}
COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}  # the rules that another theme can break
BUT_COLOURS = RULES | {"rules": {rule: {"enabled": False} for rule in COLOURS["runOnly"]}}
# What axe reads: screen, theme, rules, what is left out. A wider screen adds bars to a page, and no colour inside.
READINGS = (
    ("phone", "light", RULES, []),
    ("phone", "dark", COLOURS, []),
    ("desktop", "dark", COLOURS, ["article"]),
    ("desktop", "light", COLOURS, ["article"]),
    ("desktop", "light", BUT_COLOURS, []),
)
OF_THE_SITE = ["search"] if MARKER.is_file() else []  # a page that no table of contents names

# What is wrong with a page whatever the screen: {rule: the tags that break it}
FACTS = """
const all = (selector) => [...document.querySelectorAll(selector)];
const wrong = {
  'image without alt text': all('img').filter(i => !i.alt.trim()),
  'figure whose picture has no alt text': all('figure').filter(f => f.checkVisibility() &&
    !f.querySelector('img[alt], svg[role=img][aria-label]')),
  'link without words': all('a[href]').filter(a => !(a.textContent + (a.ariaLabel ?? '') + a.title).trim() &&
    !a.querySelector('img[alt]')),
  'table without headers': all('table').filter(t => !t.querySelector('th')),
  'before its turn for the tab key': all('[tabindex]').filter(e => e.tabIndex > 0),
  'out of reach of the tab key': all('a[href], button, input, select, textarea, summary').filter(
    e => e.tabIndex < 0 && e.checkVisibility({visibilityProperty: true})),
  'points without one stop of the tab key': all('figure').filter(f => f.querySelector('.book-point') &&
    f.querySelectorAll('.book-point[tabindex="0"]').length !== 1),
};
return {
  seconds: performance.getEntriesByType('navigation')[0].loadEventEnd / 1000,
  interactive: all('[data-interactive]').length > 0,
  links: [...new Set(all('a[href]').map(a => a.href))],
  wrong: Object.entries(wrong).flatMap(([rule, found]) => found.map(e => `${rule}: ${e.outerHTML.slice(0, 150)}`)),
};
"""
# Whatever is folded counts too, and colours must not be caught halfway
UNFOLD = """
document.querySelectorAll('details').forEach(folded => folded.open = true);
document.querySelectorAll('.toggle-hidden').forEach(folded => folded.classList.remove('toggle-hidden'));
const still = document.head.appendChild(document.createElement('style'));
still.textContent = '* { transition: none !important; animation: none !important } ' +
  '.sd-tab-content { display: block !important }';
"""
# What reaches beyond the screen, and lies in no box that scrolls
BEYOND = """
const scrolls = (element) => {
  for (let box = element; box && box !== document.body; box = box.parentElement)
    if (['auto', 'scroll'].includes(getComputedStyle(box).overflowX)) return true;
  return false;
};
const page = document.documentElement;
const found = [...document.querySelectorAll('article *')].filter(e => {
  const place = e.getBoundingClientRect();
  return place.width && place.right > page.clientWidth + 1 && !scrolls(e);
});
const sideways = page.scrollWidth > page.clientWidth ? [`${page.scrollWidth} pixels of ${page.clientWidth}`] : [];
return [...sideways, ...found.slice(0, 3).map(e => e.outerHTML.slice(0, 150))];
"""
# axe takes a second for a thousand elements, and most of them are copies to it: words of code in the colour of other
# words, rows of a table that are built like rows above, more points, the strokes of a picture that has its alt text.
THIN = """
document.querySelectorAll('mjx-container > *, svg[role=img] > *').forEach(stroke => stroke.remove());
document.querySelectorAll('.book-point ~ .book-point').forEach(point => point.remove());
const known = new Set();
const first = (key) => !known.has(key) && known.add(key);
const above = (element, end) => element.matches(end) ? '' : element.className + '<' + above(element.parentElement, end);
for (const word of [...document.querySelectorAll('.highlight pre span')].reverse())
  if (!word.id && !first(above(word, '.highlight') + word.closest('.highlight').parentElement.className))
    word.replaceWith(...word.childNodes);
for (const code of document.querySelectorAll('.highlight pre')) {
  code.normalize();
  for (const part of [code, ...code.querySelectorAll('*')])
    for (const text of part.childNodes) if (text.nodeType === Node.TEXT_NODE) text.data = text.data.trim().slice(0, 20);
}
const built = (row) => [row, ...row.querySelectorAll('*')].map(part => part.tagName + part.className).join();
for (const row of document.querySelectorAll('tbody tr'))
  if (!['odd', 'even'].some(once => first(row.closest('table').className + once + built(row)))) row.remove();
"""
READ = """
const [theme, rules, exclude, done] = arguments;
document.documentElement.dataset.theme = document.documentElement.dataset.mode = theme;
const options = {...rules, resultTypes: ['violations'], preload: false};
const told = (rule) => {
  const places = rule.nodes.map(node => node.target.join(' ')), first = rule.nodes[0];
  const why = [...first.any, ...first.all, ...first.none].map(check => check.message).join(' ');
  return `${rule.id} (${rule.impact}), ${places.length} places: ${places.slice(0, 3).join(', ')}: ${why}`;
};
const grave = (rule) => ['serious', 'critical'].includes(rule.impact);
const read = () => axe.run({include: ['html'], exclude}, options);
const run = () => read().then(found => done(found.violations.filter(grave).map(told)));
requestAnimationFrame(() => requestAnimationFrame(run));
"""
# Arrow keys lead from point to point: how many of the points of the active element's figure do they reach?
ARROWS = """
const active = document.activeElement, points = active.closest('svg.book-picture')?.querySelectorAll('.book-point');
const seen = new Set();
for (const point of points ?? []) {
  seen.add(document.activeElement);
  document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
}
return points ? points.length - seen.size : 'all';
"""
FIND = """
const [asked, done] = arguments;
const wait = (milliseconds) => new Promise(resolve => setTimeout(resolve, milliseconds));
(async () => {
  const missed = [];
  for (const [page, words] of asked) {
    const word = words.find(word => new Stemmer().stemWord(word) === word);
    const results = document.getElementById('search-results');
    results.replaceChildren();
    Search.performSearch(word);
    const leads = (a) => a.href.split(/[?#]/)[0].endsWith(`/${page}.html`);
    const found = () => [...results.querySelectorAll('li a')].some(leads);
    for (let patience = 100; patience && !found(); patience -= 1) await wait(20);
    if (!found()) missed.push(`${page} is not found by ${word}`);
  }
  done(missed);
})();
"""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(request):
    need_site()
    if find_spec("selenium_axe_python") is None:
        unavailable('no axe here: pip install -c constraints.txt -e ".[test]"')
    chrome = request.getfixturevalue("chrome")
    chrome.set_script_timeout(120)
    return chrome


@cache
def axe():
    """Return the script of axe-core that lies in the package; nothing else of the package is used."""
    return (Path(find_spec("selenium_axe_python").origin).parent / "axe-core" / "axe.min.js").read_text("utf-8")


def screen(browser, name):
    width, height = SCREENS[name]
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": name == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def loaded(browser, page):
    """Open a page; return its facts, and the files that it asked for."""
    screen(browser, "desktop")
    requested(browser)
    opened(browser, page)
    urls = (urlparse(url) for url in requested(browser))
    return browser.execute_script(FACTS), {Path(unquote(url.path)) for url in urls if url.scheme == "file"}


def slow(browser, page, seconds):
    """Return what is wrong with the time that a page took; a second visit forgives what the machine did meanwhile."""
    if seconds > MOST_SECONDS:
        seconds = min(seconds, loaded(browser, page)[0]["seconds"])
    return [f"load: {seconds:.1f} s, more than {MOST_SECONDS:.0f} s"] if seconds > MOST_SECONDS else []


def heavy(files, interactive):
    """Return what is wrong with the weight of a page: HTML and all that it loads, uncompressed."""
    absent = [f"load: {file.name} is not there" for file in files if not file.is_file()]
    sizes = sorted(((file.stat().st_size, file.name) for file in files if file.is_file()), reverse=True)
    weight, most = sum(size for size, _ in sizes), MOST_BYTES_INTERACTIVE if interactive else MOST_BYTES
    parts = ", ".join(f"{name} {size / 1e6:.2f}" for size, name in sizes[:4])
    return absent + [f"weight: {weight / 1e6:.2f} MB of {most / 1e6:.0f} MB ({parts})"] * (weight > most)


@cache
def anchors(file):
    return {html.unescape(name) for name in re.findall(r'\s(?:id|name)="([^"]*)"', file.read_text("utf-8"))}


def dead(links):
    """Return the links inside of the site that lead to no file, or to no anchor of a page."""
    found = []
    for link in links:
        url = urlparse(link)
        file = Path(unquote(url.path))
        if url.scheme != "file":
            continue
        if not file.is_file():
            found.append(f"link: {link} leads to no file")
        elif url.fragment and file.suffix == ".html" and unquote(url.fragment) not in anchors(file):
            found.append(f"link: {file.name} has no #{url.fragment}")
    return found


def unreached(browser):
    """Return the figures whose named points cannot all be reached with the tab key and the arrows."""
    found = []
    for number, box in enumerate(browser.find_elements("css selector", ".book-search input"), start=1):
        box.send_keys(Keys.TAB)
        if (left := browser.execute_script(ARROWS)) != 0:
            found.append(f"keyboard: {left} points of interactive figure {number} are not reached")
    return found


def read_by_axe(browser):
    """Return what axe-core finds on the open page, on each screen in each theme; the page is thinned out."""
    browser.execute_script(THIN)
    browser.execute_script(axe())
    found = []
    for name, theme, *rest in READINGS:
        screen(browser, name)
        found += [f"{name}, {theme}: {one}" for one in browser.execute_async_script(READ, theme, *rest)]
    return found


@pytest.mark.parametrize("page", [*pages(), *OF_THE_SITE])
def test_page_can_be_read_by_everybody(browser, page):
    facts, files = loaded(browser, page)
    problems = heavy(files, facts["interactive"]) + slow(browser, page, facts["seconds"])
    problems += facts["wrong"] + dead(facts["links"]) + unreached(browser)
    browser.execute_script(UNFOLD)
    screen(browser, "phone")
    problems += [f"wider than a phone: {one}" for one in browser.execute_script(BEYOND)]
    problems += read_by_axe(browser)
    if problems:
        pytest.fail(f"{page}: {len(problems)} problems\n" + "\n".join(problems), pytrace=False)


def test_search_finds_a_word_of_each_page(browser):
    index = json.loads(re.search(r"Search\.setIndex\((.*)\)", (SITE / "searchindex.js").read_text("utf-8"), re.S)[1])
    held = {word: [at] if isinstance(at, int) else at for word, at in index["terms"].items()}
    rare = sorted((word for word in held if re.fullmatch("[a-z]{5,}", word)), key=lambda word: len(held[word]))
    asked = [(page, [w for w in rare if index["docnames"].index(page) in held[w]][:50]) for page in pages()]
    opened(browser, "search")
    assert browser.execute_async_script(FIND, asked) == []


def test_the_tab_key_reaches_all_that_can_be_used(browser):
    screen(browser, "desktop")
    opened(browser, pages()[0])
    usable = browser.execute_script(
        "return [...document.querySelectorAll('a[href], button, input, select, summary')].filter("
        "e => e.tabIndex >= 0 && e.checkVisibility({visibilityProperty: true}))"
    )
    left = set(usable)
    for _ in range(2 * len(usable)):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        left.discard(browser.switch_to.active_element)
        if not left:
            break
    assert usable and [one.get_attribute("outerHTML") for one in left] == []

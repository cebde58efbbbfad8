"""The built book that the browser tests open, and the browser that opens it: headless, with the network cut.

The site is `_build/html`, or the folder that TXT_SITE names.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

SITE = Path(os.environ.get("TXT_SITE") or Path(__file__).parents[2] / "_build" / "html").resolve()
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
SETTLED = "return !window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)"


def unavailable(reason):
    """Skip, or fail where `make pages` asked for these tests."""
    pytest.fail(reason) if os.environ.get("TXT_PAGES") else pytest.skip(reason)


def pages():
    """Return the pages of the site, one that says so where there is none."""
    return json.loads(MARKER.read_text())["pages"] if MARKER.is_file() else ["no page"]


def need_site():
    if not MARKER.is_file():
        unavailable("no built book: run make book, then make pages")


def started():
    """Return a browser that logs what it requests and what its pages complain of."""
    binary, driver = next(filter(None, map(shutil.which, BROWSERS)), None), shutil.which("chromedriver")
    if not binary or not driver:
        unavailable("no Chromium with chromedriver here: on Debian, apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(driver))


def opened(browser, page):
    """Open a page and wait until its formulas are drawn."""
    browser.get(f"{(SITE / page).as_uri()}.html")
    WebDriverWait(browser, 30).until(lambda b: b.execute_script(SETTLED))


def requested(browser):
    """Return the addresses that the browser asked for since this was called last."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

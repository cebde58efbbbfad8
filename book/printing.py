"""`make print`: the book on one page, `_build/print/book.html`, and as `book.pdf` where a Chromium can print it."""

import shutil
import subprocess
import sys
from pathlib import Path

from build import ROOT
from reading import BuildError, told
from rendering import jupyter_book, standing
from running import say

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 300  # seconds for a browser to lay a few hundred pages out


def print_book(root: Path) -> list[Path]:
    """Render what the last good build has staged; return the files. Raises BuildError where there is none."""
    source, folder = root / "_build" / "src", root / "_build" / "print"
    if not standing(root) or not source.is_dir():
        raise BuildError("no book was built yet, so there is nothing to print: make book")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    jupyter_book(source, folder, root / "_build" / "print.log", "singlehtml")
    site = folder / "_build" / "singlehtml"
    for path in site.iterdir():
        shutil.move(path, folder / path.name)
    shutil.rmtree(folder / "_build")
    page = max(folder.rglob("*.html"), key=lambda path: path.stat().st_size)  # beside it lies a page that leads there
    return [page, *_pdf(page, folder / "book.pdf")]


def _pdf(page: Path, target: Path) -> list[Path]:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        say("no Chromium here, so no PDF: print the page from any browser")
        return []
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", "--virtual-time-budget=60000"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--print-to-pdf={target}"]
    done = subprocess.run(
        [browser, *flags, page.as_uri()], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    if not target.is_file():
        raise BuildError(
            f"the browser printed nothing: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}"
        )
    return [target]


def main() -> None:
    """Print the book and say where it is."""
    for path in print_book(ROOT):
        say(f"{path.relative_to(ROOT)}  {path.stat().st_size / 2**20:.1f} MB")


if __name__ == "__main__":
    sys.exit(told("make print", main))

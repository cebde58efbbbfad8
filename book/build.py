"""`make book`: execute the notebooks that changed, render the book, say what each page cost.

Usage: python book/build.py --profile quick [--only 06]

Exit codes: 0 the book is good, 1 something in the book is wrong, 2 the call is, 130 interrupted.
Whatever happens, `_build/html` holds the last good site or nothing.
"""

import argparse
import re
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import glue
from budget import check_budget
from exercises import check_plan
from fingerprint import FindInput, fingerprints, named_inputs
from joblib import cpu_count
from ledger import read_known
from nbformat import NotebookNode
from reading import (
    BuildError,
    check_committed,
    check_contents,
    check_needs,
    needs,
    page_file,
    prose,
    read_notebook,
    read_notebooks,
    read_profile,
    toc_pages,
)
from rendering import render, site_fingerprint, stage, standing
from running import Job, Outcome, run_all, say
from teaching import COURSES

ROOT = Path(__file__).resolve().parents[1]
NAMED_FILES = {"network": "networks", "gene_sets": "genesets"}  # parameter -> the kind that txtlib.network finds


@dataclass(frozen=True)
class Book:
    """A book that has passed the checks that need no execution; the dictionaries go by notebook stem."""

    root: Path
    profile: str
    pages: list[str]
    notebooks: dict[str, NotebookNode]
    parameters: dict[str, dict]
    prints: dict[str, str]
    inputs: dict[str, dict[str, str]]

    def copy(self, stem: str) -> Path:
        """Return where the executed copy of a notebook is kept."""
        return self.root / "_build" / "executed" / self.profile / f"{stem}.ipynb"


def main(argv: list[str], root: Path, find_input: FindInput) -> int:
    """Build the book of a folder and return the exit code; every fault is one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="make book", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", help="a file of notebooks/profiles, without .yaml")
    parser.add_argument("--only", default="", help="the number of one notebook, say 06")
    options = parser.parse_args(argv)
    try:
        build(root.resolve(), options.profile, options.only, find_input)
        return 0
    except BuildError as error:
        fault, code = str(error), error.code
    except KeyboardInterrupt:
        fault, code = "interrupted", 130
    print(f"make book: {fault}", file=sys.stderr)
    print(_standing_line(root), file=sys.stderr)
    return code


def _standing_line(root: Path) -> str:
    marker = standing(root)
    if not marker:
        return "No site was built."
    return f"The site in _build/html is from the last good build ({marker['profile']}, {marker['built_at']})."


def build(root: Path, profile: str, only: str, find_input: FindInput) -> None:
    """Execute, check, render, report; raise BuildError at the first fault."""
    start = time.perf_counter()
    book = read_book(root, profile, find_input)
    fresh = execute(book, wanted_notebooks(book.notebooks, only))
    executed = {stem: read_notebook(book.copy(stem)) for stem in book.notebooks if book.copy(stem).is_file()}
    asked = _asked(book, executed)
    glue.check(asked, {stem: glue.glued(node) for stem, node in executed.items()}, book.notebooks)
    _render(book, stage(root, book.notebooks, executed, asked), executed)
    _report(book, executed, fresh)
    for sentence in check_budget(root, executed):
        say(f"slow: {sentence}")
    say(f"{time.perf_counter() - start:.0f} s in all")
    say(f"The book: {root / '_build' / 'html' / 'index.html'}")


def read_book(root: Path, profile: str, find_input: FindInput) -> Book:
    """Read a book and check everything that can be checked without running a cell; raise BuildError."""
    notebooks = read_notebooks(root / "notebooks")
    parameters = read_profile(root / "notebooks" / "profiles", profile, notebooks)
    pages = toc_pages(root / "book" / "_toc.yml")
    check_contents(root, pages, notebooks)
    check_needs(notebooks)
    read_known(root / "data")
    if (root / COURSES).is_file():  # a book that teaches keeps the plan of a chapter
        check_plan(notebooks)
    for stem, node in notebooks.items():
        check_committed(stem, node)
    prints = fingerprints(notebooks, parameters, root, find_input)
    inputs = {stem: named_inputs(stem, node, parameters[stem], root, find_input) for stem, node in notebooks.items()}
    return Book(root, profile, pages, notebooks, parameters, prints, inputs)


def wanted_notebooks(notebooks: dict[str, NotebookNode], only: str) -> set[str]:
    """Return the stems to bring up to date: all, or the one with a number and what that needs.

    Raises BuildError (exit code 2) for an unknown number.
    """
    if not only:
        return set(notebooks)
    found = {stem for stem in notebooks if only == stem or stem.split("_")[0] == only.zfill(2)}
    if not found:
        numbers = ", ".join(stem.split("_")[0] for stem in notebooks)
        raise BuildError(f"no notebook has the number {only!r}; choose one of: {numbers} (ONLY=...)", code=2)
    while more := {name for stem in found for name in needs(notebooks[stem])} - found:
        found |= more
    return found


def execute(book: Book, wanted: set[str]) -> set[str]:
    """Execute the wanted notebooks that are not current, and return them; raise BuildError if one fails."""
    stale = [stem for stem in book.notebooks if not _is_current(book, stem)]
    todo = [stem for stem in stale if stem in wanted]
    for stem in stale:
        if stem not in wanted:
            seen = "shown as last executed" if book.copy(stem).is_file() else "shown without results"
            say(f"{stem}  not up to date, {seen} (ONLY is set)")
    shutil.rmtree(book.root / "_build" / "running", ignore_errors=True)  # what a kill has left
    workers, threads = shares(book)
    jobs = {stem: job_of(book, stem, threads) for stem in todo}
    raise_failures(run_all(jobs, {stem: needs(book.notebooks[stem]) for stem in todo}, workers))
    return set(todo)


def _is_current(book: Book, stem: str) -> bool:
    copy = book.copy(stem)
    return copy.is_file() and read_notebook(copy).metadata.run.fingerprint == book.prints[stem]


def shares(book: Book) -> tuple[int, int]:
    """Return how many notebooks run side by side, and each one's threads: the last bits of a sum depend on them."""
    workers = max(1, min(cpu_count(), len(book.notebooks)))
    return workers, max(1, cpu_count() // workers)


def versions() -> dict[str, str]:
    """Return the versions that a figure depends on most."""
    found = {name: version(name) for name in ("txtlib", "torch", "numpy", "pandas", "scikit-learn", "matplotlib")}
    return {"Python": ".".join(map(str, sys.version_info[:3])), **found}


def job_of(book: Book, stem: str, threads: int) -> Job:
    """Return what is to be executed, and what its copy will say of itself."""
    record = {"fingerprint": book.prints[stem], "profile": book.profile, "inputs": book.inputs[stem]}
    record["versions"] = versions()
    return Job(book.root, stem, book.parameters[stem], book.copy(stem), record, threads)


def raise_failures(outcomes: dict[str, Outcome]) -> None:
    """Raise BuildError, with the tracebacks on stderr, where a notebook failed."""
    failures = {stem: outcome.failure for stem, outcome in outcomes.items() if outcome.failure}
    for stem, failure in failures.items():
        print(f"\n{stem}, {failure}\n{outcomes[stem].traceback}\n", file=sys.stderr)
    if failures:
        said = "; ".join(f"notebook {stem} failed in {failure}" for stem, failure in failures.items())
        raise BuildError(f"{said} (as far as it came: _build/failed/{next(iter(failures))}.ipynb)")


def _asked(book: Book, executed: dict[str, NotebookNode]) -> list[glue.Use]:
    """Return everything that the pages, as they will be shown, ask of notebooks."""
    shown = book.notebooks | executed
    texts = {f"notebooks/{stem}": prose(node) for stem, node in shown.items()}
    for page in book.pages:
        if page not in texts:
            texts[page] = page_file(book.root, page).read_text(encoding="utf-8")
    return [use for page, text in texts.items() for use in glue.uses(page, text)]


def _render(book: Book, source: Path, executed: dict[str, NotebookNode]) -> None:
    fingerprint = site_fingerprint(source, book.root, book.profile)
    if standing(book.root).get("fingerprint") == fingerprint:
        say("rendering  unchanged")
        return
    say(f"rendering  {len(book.pages)} pages")
    marker = {"profile": book.profile, "fingerprint": fingerprint, "executed": list(executed)}
    render(book.root, source, book.pages, marker)


def _report(book: Book, executed: dict[str, NotebookNode], fresh: set[str]) -> None:
    width = max(map(len, book.notebooks), default=0)
    for stem in book.notebooks:
        if stem not in executed:
            say(f"{stem:{width}}  not executed")
            continue
        run = executed[stem].metadata.run
        state = "executed" if stem in fresh else "unchanged"
        say(f"{stem:{width}}  {run.seconds:7.1f} s  {run.peak_mb:6} MB  {state}")


def library_input(name: str, text: str) -> Path | None:
    """Ask the library, and only for a parameter that names an input: a broken library must not end the build here."""
    if re.search(r"(^|_)cohorts?$", name):
        from txtlib.cohort import cohort_folder

        return cohort_folder(text)
    if name in NAMED_FILES:
        from txtlib.network import find_file

        return find_file(text, NAMED_FILES[name])
    return None


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cancelled job leaves no kernel either
    sys.exit(main(sys.argv[1:], ROOT, library_input))

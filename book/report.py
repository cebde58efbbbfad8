"""`make report COHORT=path`: the chapters that can be asked of any cohort, on a reader's own, as a small book.

Usage: python book/report.py --cohort path [--other path] [--size quick|full] [--only 04,06]

Chapters run on a copy of the cohort in which patients have numbers for names, so no cell ever sees an id. All that a
report makes lies in `_build/report/NAME`; its `html` holds the last good report or nothing, and is what can be handed
on. Exit codes: 0 all is there, 1 something is wrong or a chapter failed (the others are there), 2 the call is wrong,
130 interrupted; the same call then goes on.
"""

import argparse
import re
import shutil
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from build import ROOT, job_of, library_input, shares
from fingerprint import digest, fingerprints, named_inputs
from nbformat import NotebookNode
from reading import (
    BuildError,
    check_committed,
    check_needs,
    check_values,
    declared,
    read_notebook,
    read_notebooks,
    title,
)
from rendering import render, site_fingerprint, standing
from report_case import SIZES, Case, Report
from report_pages import pages_of, stage
from report_parameters import CHAPTERS, why_not
from running import Outcome, run_all, say
from unnamed import check_ids, ids_of, write_copies

from txtlib.cohort import Cohort, CohortError, load_cohort, split

TITLES = {"09": "09 The other cohort, frozen", "11": "11 Attention networks of two clusters"}


def main(argv: list[str], root: Path) -> int:
    """Make a report and return the exit code; every fault is one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="make report", description=__doc__.splitlines()[0])
    parser.add_argument("--cohort", default="", help="the folder of a cohort, or a name that chapters take")
    parser.add_argument("--other", default="", help="a second one, for chapters that move models or look twice")
    parser.add_argument("--size", default="quick", help=f"one of {', '.join(SIZES)}")
    parser.add_argument("--only", default="", help="numbers of chapters, say 04,06 (none: all that can be asked)")
    options = parser.parse_args(argv)
    try:
        made = report(root.resolve(), options.cohort, options.other, options.size, options.only)
        fault, code = _complaint(made), int(bool(made.failed))
    except BuildError as error:
        fault, code = str(error), error.code
    except KeyboardInterrupt:
        fault, code = "interrupted; the same command goes on where it was", 130
    if fault:
        print(f"make report: {fault}", file=sys.stderr)
    return code


def _complaint(made: Report) -> str:
    said = "; ".join(f"chapter {stem} failed in {failure}" for stem, failure in made.failed.items())
    return f"{said} (the report has the other chapters)" if said else ""


def report(root: Path, cohort: str, other: str = "", size: str = "quick", only: str = "") -> Report:
    """Check, execute what is not current, render, and look for ids; raise BuildError at the first fault."""
    _check_call(cohort, size, only)
    mine, theirs = _loaded(cohort), _loaded(other) if other else None
    found = read_report(root, _name(cohort), _name(other), mine, theirs, size)
    todo = _todo(found, only)
    found.failed.update({stem: one.failure for stem, one in execute(found, todo).items() if one.failure})
    executed = {stem: read_notebook(found.copy(stem)) for stem in found.notebooks if found.is_current(stem)}
    for stem in found.notebooks.keys() - executed.keys() - found.failed.keys():
        found.left_out[stem] = "it was not asked for (ONLY is set)"
    publish(found, executed)
    for stem, node in executed.items():
        state = "executed" if stem in todo else "unchanged"
        say(f"{stem}  {node.metadata.run.seconds:.1f} s  {node.metadata.run.peak_mb} MB  {state}")
    say(f"The report: {found.place / 'html' / 'index.html'}")
    return found


def _check_call(cohort: str, size: str, only: str) -> None:
    if not cohort:
        raise BuildError("no cohort is named; give its folder: make report COHORT=path/to/mine", code=2)
    if size not in SIZES:
        raise BuildError(f"there is no size {size!r}; choose one of: {', '.join(SIZES)} (SIZE=...)", code=2)
    for number in filter(None, only.split(",")):
        if number.strip().zfill(2) not in CHAPTERS:
            raise BuildError(f"chapter {number!r} is no part of a report; choose of: {', '.join(CHAPTERS)}", code=2)


def _loaded(cohort: str) -> Cohort:
    """Read a cohort and split it, as every chapter will; raise BuildError with the library's sentence."""
    try:
        found = load_cohort(cohort)
        split(found, 0)
    except (CohortError, OSError) as error:
        raise BuildError(str(error)) from error
    return found


def _name(cohort: str) -> str:
    """Return a cohort's name as a folder: that of its own folder or file, without what a path may not hold."""
    return re.sub(r"[^\w.-]+", "_", Path(cohort).resolve().name.removesuffix(".h5ad")).strip(".") if cohort else ""


def read_report(root: Path, name: str, other_name: str, mine: Cohort, theirs: Cohort | None, size: str) -> Report:
    """Write the copies without names, choose chapters and their values, and check what needs no execution."""
    place = root / "_build" / "report" / name
    near = place.relative_to(root).as_posix()
    case = Case(mine, theirs, name, f"{near}/cohorts/{name}", "", SIZES[size], f"{near}/kept")
    cohorts = {name: mine}
    if case.shared:
        other_name = other_name if other_name != name else f"{name}_2"
        cohorts[other_name] = theirs
        case = replace(case, other_place=f"{near}/cohorts/{other_name}")
    write_copies(place / "cohorts", cohorts)
    every = {stem: node for stem, node in read_notebooks(root / "notebooks").items() if stem[:2] in CHAPTERS}
    reasons = why_not(case)
    chapters = {stem: node for stem, node in every.items() if stem[:2] not in reasons}
    given = {stem: _values(case, stem) for stem in chapters}
    prints, inputs = _prints(root, chapters, given)
    return Report(
        **dict(root=root, profile=size, pages=[], notebooks=chapters, parameters=given, prints=prints, inputs=inputs),
        **dict(place=place, case=case, ids=ids_of(*cohorts.values()), failed={}),
        headings={stem: TITLES.get(stem[:2], title(node, stem)) for stem, node in every.items()},
        left_out={stem: reasons[stem[:2]] for stem in every if stem not in chapters},
    )


def _values(case: Case, stem: str) -> dict[str, Any]:
    try:
        return CHAPTERS[stem[:2]](case)
    except CohortError as error:  # no horizon, say, since too few are followed for long
        raise BuildError(str(error)) from error


def _prints(root: Path, chapters: dict[str, NotebookNode], values: dict[str, dict]) -> tuple[dict, dict]:
    """Check notebooks and values, and return fingerprints and inputs; what is kept in `folder` is no input."""
    check_needs(chapters)
    for stem, node in chapters.items():
        check_committed(stem, node)
        check_values("the report", stem, values[stem], declared(stem, node))
    given = {stem: {**one, **({"folder": ""} if "folder" in one else {})} for stem, one in values.items()}
    inputs = {stem: named_inputs(stem, node, given[stem], root, library_input) for stem, node in chapters.items()}
    return fingerprints(chapters, given, root, library_input), inputs


def _todo(found: Report, only: str) -> list[str]:
    numbers = {number.strip().zfill(2) for number in only.split(",") if number.strip()}
    wanted = [stem for stem in found.notebooks if not numbers or stem[:2] in numbers]
    return [stem for stem in wanted if not found.is_current(stem)]


def execute(found: Report, todo: list[str]) -> dict[str, Outcome]:
    """Execute chapters side by side; one that fails does not take the others with it, and a warning is no fault."""
    near = found.place.relative_to(found.root).as_posix()
    shutil.rmtree(found.place / "running", ignore_errors=True)  # what a kill has left
    workers, threads = shares(found)
    jobs = {stem: replace(job_of(found, stem, threads), scratch=near, strict=False) for stem in todo}
    outcomes: dict[str, Outcome] = {}
    while rest := {stem: job for stem, job in jobs.items() if stem not in outcomes}:
        outcomes |= run_all(rest, {stem: [] for stem in rest}, workers)  # stops at a failure; the next round goes on
    return outcomes


def publish(found: Report, executed: dict[str, NotebookNode]) -> None:
    """Render the report, look for ids, and only then take the site for good; raise BuildError."""
    source, site = stage(found, executed), found.place / "html"
    fingerprint = digest(site_fingerprint(source, found.root, found.profile), *sorted(found.ids))
    if standing(found.root, site).get("fingerprint") == fingerprint:
        say("rendering  unchanged")
        return
    pages, marker = pages_of(found, executed), {"profile": found.profile, "fingerprint": fingerprint}
    say(f"rendering  {len(pages)} pages")
    render(found.root, source, pages, marker, site, check=partial(check_ids, ids=found.ids))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cancelled job leaves no kernel either
    sys.exit(main(sys.argv[1:], ROOT))

"""Patients without names: copies of cohorts in which they have numbers, and a search of pages for their names."""

import html
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from reading import BuildError
from report_case import ASKED

from txtlib.cohort import Cohort, write_cohort

PICTURE = re.compile(r"[A-Za-z0-9+/=]{70,}")  # a picture as text, in which any short word may stand
TEXTS = {".html", ".js", ".ipynb", ".md", ".json", ".txt", ".csv", ".svg", ".xml"}
SHORT, FEW_DIGITS = 3, 5  # an id of so many characters, or digits, cannot be told from other words and numbers


def pseudonyms(*cohorts: Cohort) -> dict[str, str]:
    """Return {sample: a number for a name}, the same for a sample that two cohorts share.

    They follow the order of the patients' names, on which splits depend: each split is that of the cohort itself.
    """
    order = [sample for one in cohorts for _, sample in _by_patient(one)]
    names = list(dict.fromkeys(order))
    prefix = next(word for word in ("case", "person", "number") if not any(name.startswith(word) for name in names))
    return {name: f"{prefix}-{place:0{len(str(len(names)))}d}" for place, name in enumerate(names, start=1)}


def _by_patient(cohort: Cohort) -> list[tuple[str, str]]:
    return sorted(zip(cohort.patients().astype(str), cohort.samples.astype(str), strict=True))


def nameless(cohort: Cohort, names: Mapping[str, str]) -> Cohort:
    """Return a cohort under other names, with the clinical columns that chapters ask for and no other."""
    first = {patient: names[sample] for patient, sample in reversed(_by_patient(cohort))}
    samples = cohort.samples.astype(str).map(names).rename("Sample")
    asked = {*ASKED, *(column for task in cohort.tasks for column in task.columns)}
    columns = [name for name in cohort.clinical if name in asked]
    clinical = cohort.clinical[columns].set_axis(samples)
    if len(first) < len(cohort):
        clinical = clinical.assign(Patient=cohort.patients().astype(str).map(first).to_numpy())
    about = {key: value for key, value in cohort.about.items() if key not in ("patient", "unmatched")}
    return replace(cohort, expression=cohort.expression.set_axis(samples), clinical=clinical, about=about)


def write_copies(folder: Path, cohorts: Mapping[str, Cohort]) -> None:
    """Write the cohorts without names, anew each time: the same content leaves what was executed current."""
    names = pseudonyms(*cohorts.values())
    shutil.rmtree(folder, ignore_errors=True)
    for name, cohort in cohorts.items():
        write_cohort(nameless(cohort, names), folder / name)


def ids_of(*cohorts: Cohort) -> set[str]:
    """Return the names of samples and patients."""
    return {str(name) for one in cohorts for name in (*one.samples, *one.patients())}


def sought(ids: Iterable[str]) -> set[str]:
    """Return the ids that can be told from other words: above three characters, a plain number above five digits."""
    return {
        name
        for name in ids
        if len(name) > SHORT and (re.search(r"[^\W\d_]", name) or sum(map(str.isdigit, name)) > FEW_DIGITS)
    }


def check_ids(site: Path, ids: Iterable[str]) -> None:
    """Raise BuildError, with the name of the page, where a page shows an id of a patient or sample."""
    for page, count in pages_with_ids(site, ids).items():
        raise BuildError(
            f"the page {page} would show {count} of the patients' ids, so there is no report; chapters know no ids: "
            "look at cohort.yml, at the names of genes and columns, and at labels, which are shown as they are"
        )


def pages_with_ids(site: Path, ids: Iterable[str]) -> dict[str, int]:
    """Return {file of a site: how many of the ids stand there as whole words}; pictures and the theme are no text."""
    starts: dict[str, set[str]] = {}
    for name in sought(ids):
        starts.setdefault(re.search(r"[^\W_]+", name)[0], set()).add(name)
    found = {}
    for file in sorted(file for file in site.rglob("*") if file.suffix in TEXTS):
        where = file.relative_to(site)
        if where.parts[0] != "_static" and (count := len(_standing_in(_words(file), starts))):
            found[where.as_posix()] = count
    return found


def _words(file: Path) -> str:
    text = PICTURE.sub(" ", file.read_text(encoding="utf-8", errors="replace"))
    return html.unescape(text) if file.suffix == ".html" else text


def _standing_in(text: str, starts: Mapping[str, set[str]]) -> set[str]:
    found = set()
    for run in re.finditer(r"[^\W_]+", text):
        for name in starts.get(run[0], ()):
            begin = run.start() - name.index(run[0])
            if text.startswith(name, begin) and _alone(text, begin, begin + len(name), name):
                found.add(name)
    return found


def _alone(text: str, begin: int, end: int, name: str) -> bool:
    """Say whether no letter or digit goes on on either side; of a plain number, no decimals or thousands either."""
    before, after = text[max(0, begin - 2) : begin], text[end : end + 2]
    if before[-1:].isalnum() or after[:1].isalnum():
        return False
    return not (name.isdigit() and (before[-1:] in (".", ",") or re.match(r"[.,]\d", after)))

"""`make report COHORT=path`: the chapters that can be asked of any cohort, on a reader's own, as a small book.

Usage: python book/report.py --cohort path [--other path] [--size quick|full] [--only 04,06]

Chapters run on a copy of the cohort in which patients have numbers for names, so no cell ever sees an id. All that a
report makes lies in `_build/report/NAME`; its `html` holds the last good report or nothing, and is what can be handed
on. Exit codes: 0 all is there, 1 something is wrong or a chapter failed (the others are there), 2 the call is wrong,
130 interrupted; the same call then goes on.
"""

import argparse
import html
import json
import os
import posixpath
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import glue
import nbformat
import yaml
from build import ROOT, Book, job_of, library_input, shares, versions
from dressing import anchored
from fingerprint import digest, fingerprints, named_inputs
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook
from reading import (
    BuildError,
    check_committed,
    check_needs,
    check_values,
    declared,
    prose,
    read_notebook,
    read_notebooks,
    tags,
    title,
)
from rendering import cost_table, render, site_fingerprint
from running import Outcome, leaked, run_all, say

from txtlib.cohort import Cohort, CohortError, load_cohort, split, write_cohort  # what is slow to import comes later

NO_CLINICAL_USE = """```{admonition} Not for clinical use
:class: warning
WHAT Small models were made in minutes, to learn and to judge methods. Nothing here may guide the care of a patient.
```"""
LIMITS = """Networks here are far smaller than the article's, and were trained for minutes. That a method is no better
than age on these patients says little of the method, and that it is better says little of other patients: one cohort is
one anecdote. Genes that a page names are no targets and no markers. Where a page says *(not executed)*, it asks for a
number of a chapter that is no part of a report."""
# clinical columns that chapters ask for by name; beside the tasks' own, no other column is copied
ASKED = ("Age", "Size", "Grade", "NHG", "TStage", "ER", "PAM50")
PLAIN_METHODS = (
    *("constant", "age alone", "clinical Cox", "clinical and genes", "ridge age, then Cox", "random forest", "SVM"),
    *("ridge", "elastic net Cox", "MLP", "TxT, one task", "TxT, all tasks", "TxT, ranked expression"),
    *("TxT on permuted labels", "elastic net on permuted labels"),
)
MORE_METHODS = (
    *("PCA", "gradient boosting", "nearest centroid", "DeepSurv", "OmiEmbed, one task", "OmiEmbed, all tasks", "T-GEM"),
    *("TxT, value token", "TxT, chosen form", "TxT beside the clinic"),
)
ON_AGE = ("age alone", "ridge age, then Cox")
ON_CLINIC = ("clinical Cox", "clinical and genes", "TxT beside the clinic")
TITLES = {"09": "09 The other cohort, frozen", "11": "11 Attention networks of two clusters"}
FINDINGS = {  # what the cover takes from a chapter, where the chapter glues all of it
    "04": "Harrell's C of age alone {cohort_age_floor}, of the clinical columns {cohort_clinical_floor}.",
    "06": "In Uno's C, TxT on many tasks is {training_many_age_words} age alone: {training_many_age}; it is "
    "{training_many_cox_words} clinical Cox: {training_many_cox}.",
    "07": "Of {bench_comparisons} comparisons with TxT on one task, {bench_told} leave out 0, and {bench_holm} remain "
    "after Holm's correction.",
    "09": "In ranking, TxT on one task was: {frozen_word_age}.",
    "10": "Labels that neighbours in TxT's vectors share beyond chance: {maps_ordered}. Better than expression itself: "
    "{maps_better}.",
    "11": "Cross-fitted hazard ratio of two clusters {luma_hr}, permutation p {luma_p}.",
    "12": "Clinical tasks learned with survival, better than a constant over seeds: {clinical_learned}.",
    "13": "Tasks learned, by the rule: plain TxT {perturb_knows_plain}; {perturb_other} {perturb_knows_other}.",
}
STAGED = ("book/references.bib", "book/_static/**/*", "txtlib/**/*.py")
BACK = ("book/glossary", "book/references")  # pages of the book that chapters lean on
LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)\s]*)?\)")
PICTURE = re.compile(r"[A-Za-z0-9+/=]{70,}")  # a picture as text, in which any short word may stand
TEXTS = {".html", ".js", ".ipynb", ".md", ".json", ".txt", ".csv", ".svg", ".xml"}
SHORT, FEW_DIGITS = 3, 5  # an id of so many characters, or digits, cannot be told from other words and numbers


@dataclass(frozen=True)
class Size:
    """How much is done: genes, and genes where many networks are trained; training steps; seeds, splits, draws."""

    genes: int
    few_genes: int
    steps: int
    seeds: int
    splits: int
    trials: int
    draws: int
    methods: tuple[str, ...]
    all_tasks: bool


SIZES = {
    "quick": Size(60, 30, 250, 2, 3, 2, 200, PLAIN_METHODS, all_tasks=False),
    "full": Size(200, 60, 800, 4, 5, 4, 500, (*PLAIN_METHODS, *MORE_METHODS), all_tasks=True),
}


# --- what to ask of a cohort ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A cohort, another one or None, the places of their copies, the name, how much is done, where trainings go."""

    cohort: Cohort
    other: Cohort | None
    name: str
    place: str
    other_place: str
    size: Size
    folder: str

    @property
    def training(self) -> dict[str, int]:
        """Epochs and patience: about as many steps whatever the number of patients."""
        epochs = min(max(round(self.size.steps * 32 / (0.7 * len(self.cohort))), 8), 150)
        return {"epochs": epochs, "patience": max(8, epochs // 2)}

    @property
    def shared(self) -> Cohort | None:
        """The other cohort with the tasks that both have; None where there is no other, or nothing is shared."""
        from txtlib.joining import in_common

        try:
            return in_common(self.cohort, self.other) if self.other else None
        except CohortError:
            return None

    def genes(self, most: int) -> int:
        """Return how many genes to keep, of those there are."""
        return min(most, self.cohort.expression.shape[1])

    def tasks(self, cohort: Cohort) -> list[str]:
        """Return the tasks to compare methods on: all, or the first of each kind, in their order."""
        first = {task.kind: task.name for task in reversed(cohort.tasks)}
        return [task.name for task in cohort.tasks if self.size.all_tasks or first[task.kind] == task.name]


def clinical_columns(cohort: Cohort) -> list[str]:
    """Return the columns for clinical Cox regression: numbers, or up to four classes, known for half of the patients.

    They are looked for among tasks and the names that chapters know; a subtype of five classes is read from
    expression, and stays out.
    """
    tasks = [task.name for task in cohort.tasks if task.kind != "survival"]
    found = [name for name in dict.fromkeys([*ASKED, *tasks]) if name in cohort.clinical]
    return [name for name in found if _of_use(cohort.clinical[name])]


def _of_use(values) -> bool:
    few = values.dtype.kind in "fiu" or values.nunique() <= 4
    return bool(few and values.nunique() > 1 and values.notna().mean() >= 0.5)


def has_age(cohort: Cohort) -> bool:
    """Say whether a cohort has ages as numbers, the floor of every survival model."""
    return "Age" in clinical_columns(cohort) and cohort.clinical["Age"].dtype.kind in "fiu"


def _cohorts(case: Case) -> dict[str, Any]:
    return {
        "cohort": case.place,
        "other_cohorts": [*filter(None, [case.other_place]), "planted"],
        "n_genes": case.genes(1000),
        "clinical": clinical_columns(case.cohort),
    }


def _training(case: Case) -> dict[str, Any]:
    from txtlib.benchmark import training_horizon

    horizon = training_horizon(split(case.cohort, 0).train)
    return {
        "cohort": case.place,
        "n_genes": case.genes(case.size.genes),
        "epochs": 2 * case.training["epochs"],
        "patience": case.training["patience"],
        "clinical": clinical_columns(case.cohort),
        "horizon": min(1825.0, float(horizon)),
        "resamples": case.size.draws,
    }


def _benchmark(case: Case) -> dict[str, Any]:
    from txtlib.catalogue import ABOUT, NEED_PATHWAYS

    clinical = clinical_columns(case.cohort)
    absent = (() if has_age(case.cohort) else ON_AGE) + (() if clinical else ON_CLINIC)
    there = {*case.size.methods}.difference(absent)
    unknown = {*NEED_PATHWAYS, "TxT, random vectors"}  # without gene sets and a network they cannot be named
    return {
        "cohort": case.place,
        "tasks": case.tasks(case.cohort),
        "second_cohort": case.other_place,
        "second_tasks": case.tasks(case.shared) if case.other_place else [],
        "second_methods": ["age alone", "elastic net Cox", "ridge", "TxT, one task"],
        "without": [name for name in ABOUT if name not in there | unknown],
        "clinical": clinical,
        "n_genes": case.genes(case.size.few_genes),
        "training": {**case.training, "batch_size": 32},
        "changes": {"DeepSurv": {"epochs": 60}, "TxT": case.training},
        "trials": case.size.trials,
        "splits": case.size.splits,
        "frozen_runs": [f"data/results/{case.name}.yml"],
        "folder": case.folder,
    }


def _frozen(case: Case) -> dict[str, Any]:
    return {
        "cohort": case.place,
        "other_cohorts": [case.other_place],
        "tasks": case.tasks(case.shared),
        "clinical": clinical_columns(case.cohort),
        "n_genes": case.genes(case.size.few_genes),
        "training": {**case.training, "batch_size": 32},
        "changes": {"TxT": case.training},
        "resamples": case.size.draws,
        "frozen_run": f"data/results/{case.name}.yml",
        "frozen_move": f"data/results/{case.name}_{Path(case.other_place).name}.yml",
        "folder": case.folder,
    }


def _looking(case: Case) -> dict[str, Any]:
    """Return what chapters 10 to 13 share, so that each finds the others' trainings."""
    genes = {"gene_sets": "", "n_genes": case.genes(case.size.genes)}
    return {"cohort": case.place, **genes, "training": case.training, "folder": case.folder}


def _maps(case: Case) -> dict[str, Any]:
    draws = {"resamples": case.size.draws, "permutations": case.size.draws}
    return _looking(case) | draws | {"model_seeds": case.size.seeds}


def _clusters(case: Case) -> dict[str, Any]:
    second = case.other_place if case.other_place and case.other.survival_task else ""
    return _looking(case) | {
        "second_cohort": second,
        "group": _calm(case.cohort),
        "fold_genes": case.genes(case.size.genes),
        "fold_training": {"epochs": case.training["epochs"], "combine": "sum"},
        "model_seeds": case.size.seeds,
        "permutations": case.size.draws,
    }


def _calm(cohort: Cohort) -> dict[str, str]:
    """Return the group that the chapter is about where it has events enough, else none: then all are looked at."""
    if "PAM50" not in cohort.clinical:
        return {}
    inside = (cohort.clinical["PAM50"] == "LumA").to_numpy()
    return {"PAM50": "LumA"} if (cohort.outcome()[1][inside] == 1).sum() >= 20 else {}


def _clinical_tasks(case: Case) -> dict[str, Any]:
    second = {"variant": "value token", "epochs": max(4, case.training["epochs"] // 3)} if case.size.all_tasks else {}
    return _looking(case) | {"second": second, "model_seeds": max(4, case.size.seeds)}


def _perturbation(case: Case) -> dict[str, Any]:
    return _looking(case) | {
        "second": {"variant": "value token", "epochs": max(4, case.training["epochs"] // 3)},
        "model_seeds": case.size.seeds,
        "arm_network": "",
        "moved_patients": 20,
        "null_models": 1 if case.size.seeds < 3 else 2,
        "resamples": case.size.draws,
    }


CHAPTERS: dict[str, Callable[[Case], dict[str, Any]]] = {
    "04": _cohorts,
    "06": _training,
    "07": _benchmark,
    "09": _frozen,
    "10": _maps,
    "11": _clusters,
    "12": _clinical_tasks,
    "13": _perturbation,
}


def why_not(case: Case) -> dict[str, str]:
    """Return {number of a chapter: why it cannot be asked of this cohort}."""
    survival, several = case.cohort.survival_task is not None, len(case.cohort.tasks) > 1
    no_survival = "it needs a survival task, and tasks.csv names none"
    no_age = "its floor is the patients' age, and clinical.csv has no column Age with numbers for half of them"
    rules = [
        ("04", survival, no_survival),
        ("06", survival, no_survival),
        ("11", survival, no_survival),
        ("04", has_age(case.cohort), no_age),
        ("06", has_age(case.cohort), no_age),
        ("06", several, "it trains on several tasks, and tasks.csv names one"),
        ("12", several, "it compares one task with several, and tasks.csv names one"),
        ("09", bool(case.other_place), _no_other(case)),
    ]
    return {number: reason for number, good, reason in reversed(rules) if not good}


def _no_other(case: Case) -> str:
    if case.other is None:
        return "it takes models to a second cohort, and none was named (OTHER=path)"
    return f"it takes models to a second cohort, and {case.other.name} has no task in common with this one"


def cautions(cohort: Cohort) -> list[str]:
    """Return what to look at before any score is believed, a sentence each."""
    values, found = cohort.expression.to_numpy(), []
    known = values[values == values]
    if known.max() > 50:
        found.append(
            f"The largest expression value is {known.max():,.0f}. Values on a log scale seldom pass 20: if these are "
            "counts, FPKM or TPM, take log2(x + 1) first."
        )
    if cohort.survival_task:
        found += _cautions_of_time(cohort)
    repeated = len(cohort) - cohort.patients().nunique()
    if repeated:
        found.append(f"{repeated:,} samples are further ones of a patient; all of a patient's are in one part.")
    unmatched = sum(cohort.about.get("unmatched", {}).values())
    if unmatched:
        found.append(f"{unmatched:,} samples stand in one table only, and were left out: compare the names.")
    return found


def _cautions_of_time(cohort: Cohort) -> list[str]:
    time, event = cohort.outcome()
    longest, tested = time[time == time].max(), int((event == 1).sum() * 0.2)
    unit = str((cohort.about.get("units") or {}).get(cohort.survival_task.columns[0], "days"))
    found = []
    if longest < 400 or not unit.lower().startswith("day"):
        found.append(f"The longest follow-up is {longest:,.0f} ({unit}). Chapters read durations as days.")
    if tested < 20:
        found.append(f"A test part holds about {tested} events, so intervals will be wide.")
    return found


# --- patients without names -------------------------------------------------------------------------------------


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


# --- from the call to the site ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report(Book):
    """A book of the chapters that can be asked, in a place of its own; dictionaries go by the stems of chapters.

    ``ids`` are the names that no page may show. ``headings`` are of all chapters; ``left_out`` says why some are not
    there, and ``failed`` in which cell.
    """

    place: Path
    case: Case
    ids: set[str]
    headings: dict[str, str]
    left_out: dict[str, str]
    failed: dict[str, str]

    def copy(self, stem: str) -> Path:
        """Return where the executed copy of a chapter is kept."""
        return self.place / "executed" / f"{stem}.ipynb"

    def is_current(self, stem: str) -> bool:
        """Say whether a chapter was executed on just these inputs."""
        copy = self.copy(stem)
        return copy.is_file() and read_notebook(copy).metadata.run.fingerprint == self.prints[stem]


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
    _write_copies(place / "cohorts", cohorts)
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


def _write_copies(folder: Path, cohorts: Mapping[str, Cohort]) -> None:
    """Write the cohorts without names, anew each time: the same content leaves what was executed current."""
    names = pseudonyms(*cohorts.values())
    shutil.rmtree(folder, ignore_errors=True)
    for name, cohort in cohorts.items():
        write_cohort(nameless(cohort, names), folder / name)


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
    source = stage(found, executed)
    fingerprint = digest(site_fingerprint(source, found.root, found.profile), *sorted(found.ids))
    site = found.place / "html"
    marker = site / ".complete.json"
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")).get("fingerprint") == fingerprint:
        say("rendering  unchanged")
        return
    pages = _pages(found, executed)
    say(f"rendering  {len(pages)} pages")
    render(found.place, source, pages, {"profile": found.profile, "fingerprint": fingerprint})
    fresh = found.place / "_build" / "html"
    check_ids(fresh, found.ids)
    shutil.rmtree(site, ignore_errors=True)
    os.replace(fresh, site)


def check_ids(site: Path, ids: Iterable[str]) -> None:
    """Raise BuildError, with the name of the page, where a page shows an id of a patient or sample."""
    for page, count in pages_with_ids(site, ids).items():
        raise BuildError(
            f"the page {page} would show {count} of the patients' ids, so there is no report; chapters know no ids: "
            "look at cohort.yml, at the names of genes and columns, and at labels, which are shown as they are"
        )


# --- the pages --------------------------------------------------------------------------------------------------


def stage(found: Report, executed: dict[str, NotebookNode]) -> Path:
    """Write what jupyter-book reads into a fresh folder, and return it."""
    folder = found.place / "_build" / "src"
    shutil.rmtree(folder, ignore_errors=True)
    for file in (file for pattern in STAGED for file in found.root.glob(pattern) if file.is_file()):
        target = folder / file.relative_to(found.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    missing = {path.stem for path in (found.root / "notebooks").glob("*.ipynb")} - executed.keys()
    pages = _pages(found, executed)
    nodes = {stem: as_page(found, stem, node, pages, missing) for stem, node in executed.items()}
    asked = [use for stem, node in nodes.items() for use in glue.uses(f"notebooks/{stem}", prose(node))]
    glue.check(asked, {stem: glue.glued(node) for stem, node in executed.items()}, executed)
    for stem, node in nodes.items():
        _write(folder / "notebooks" / f"{stem}.ipynb", nbformat.writes(node) + "\n")
    for page in set(BACK).intersection(pages):
        text = (found.root / f"{page}.md").read_text(encoding="utf-8")
        _write(folder / f"{page}.md", without_links(glue.without_roles(page, text, missing), pages))
    config = yaml.safe_load((found.root / "_config.yml").read_text(encoding="utf-8"))
    toc = {"format": "jb-book", "root": pages[0], "chapters": [{"file": page} for page in pages[1:]]}
    _write(folder / "_config.yml", yaml.safe_dump(config | {"title": f"{found.case.cohort.name}: a report"}))
    _write(folder / "book" / "_toc.yml", yaml.safe_dump(toc))
    _write(folder / "book" / "index.md", cover(found, executed))
    return folder


def _pages(found: Report, executed: Iterable[str]) -> list[str]:
    back = [page for page in BACK if (found.root / f"{page}.md").is_file()]
    return ["book/index", *(f"notebooks/{stem}" for stem in executed), *back]


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def as_page(found: Report, stem: str, node: NotebookNode, pages: list[str], missing: set[str]) -> NotebookNode:
    """Return an executed chapter as a page: a note under its title, links and glue that stay within the report.

    Exercises are left out, and so is what a cell wrote to stderr; the cover names it.
    """
    node = anchored(without_exercises(node))
    for cell in node.cells:
        if cell.cell_type == "markdown":
            cell.source = without_links(glue.without_roles(f"notebooks/{stem}", cell.source, missing), pages)
        else:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell.metadata["tags"] = _folded(tags(cell))
    said = f"This is a chapter of the book, made on {plain_text(found.case.cohort.name)}."
    top = f"# {found.headings[stem]}\n\n{NO_CLINICAL_USE.replace('WHAT', said)}"
    node.cells[0].source = re.sub(r"^# .+$", lambda _: top, node.cells[0].source, count=1, flags=re.M)
    return node


def _folded(found: list[str]) -> list[str]:
    """Show the values that a chapter ran with, and fold its own defaults, which would be taken for them."""
    if "injected-parameters" in found:
        return [tag for tag in found if tag != "hide-input"]
    return [*found, "hide-input"] if "parameters" in found else found


def without_exercises(node: NotebookNode) -> NotebookNode:
    """Return a notebook as far as its exercises, which are the end of a chapter."""
    node = deepcopy(node)
    for place, cell in enumerate(node.cells):
        text, found, _ = cell.source.partition("## Exercises")
        if cell.cell_type == "markdown" and found:
            cell.source = text.rstrip()
            return NotebookNode(node, cells=node.cells[: place + 1])
    return node


def without_links(text: str, pages: list[str]) -> str:
    """Replace links to what a report does not hold by their words; pages lie in book/ and notebooks/, side by side."""

    def words(match: re.Match) -> str:
        page = posixpath.normpath(posixpath.join("notebooks", match[2]))
        return match[0] if re.sub(r"\.(md|ipynb)$", "", page) in pages else match[1]

    return LINK.sub(words, text)


def plain_text(text: object) -> str:
    """Return a text on one line, with whatever Markdown would read as a mark escaped."""
    return re.sub(r"([\\`*_{}\[\]<>|$#~])", r"\\\1", " ".join(str(text).split()))


def cover(found: Report, executed: dict[str, NotebookNode]) -> str:
    """Return the first page: whose patients, what ran and what it says, what did not, what it cost, made with what."""
    name, cohort = plain_text(found.case.cohort.name), found.case.cohort
    call = f"make report COHORT=... {'OTHER=... ' if found.case.other else ''}SIZE={found.profile}"
    made = [f"{key} {value}" for key, value in versions().items()]
    parts = [
        f"# {name}: a report",
        NO_CLINICAL_USE.replace("WHAT", f"This is a report on the cohort {name}."),
        f"Made on {_day(executed)} by `{call}`, from the book *Transcriptome Transformer, executed*.",
        f"## The cohort\n\n{_facts(cohort)}",
        *_section("Look at this first", map(plain_text, cautions(cohort))),
        f"## What it says\n\n{_findings(found, executed)}\n\nEach page says what a number is to be held against.",
        *_section("What was left out", [*_left_out(found), *_warnings(found, executed)]),
        f"## What it cost\n\n{cost_table({stem: _headed(found.headings[stem]) for stem in executed}, executed)}",
        f"Made with {', '.join(made)}.",
        f"## What it does not say\n\n{LIMITS}",
        f"## Whose names\n\n{_privacy(found.ids)}",
    ]
    return "\n\n".join(parts) + "\n"


def _headed(heading: str) -> NotebookNode:
    return new_notebook(cells=[new_markdown_cell(f"# {heading}")])


def _section(heading: str, points: Iterable[str]) -> list[str]:
    listed = "\n".join(f"- {point}" for point in points)
    return [f"## {heading}\n\n{listed}"] if listed else []


def _day(executed: dict[str, NotebookNode]) -> str:
    """Return the day of the last execution, so that a second call with nothing to do makes the same page."""
    ends = [str(node.metadata.get("papermill", {}).get("end_time") or "")[:10] for node in executed.values()]
    return max(filter(None, ends), default=datetime.now(UTC).date().isoformat())


def _facts(cohort: Cohort) -> str:
    from txtlib.overview import overview

    facts = {
        key: f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"
        for key, value in overview(cohort).items()
    }
    for task in cohort.tasks:
        known = cohort.clinical[list(task.columns)].notna().all(axis=1).sum()
        facts[f"task {task.name} ({task.kind})"] = f"{known:,} samples with a label"
    facts["columns of clinical Cox regression"] = ", ".join(clinical_columns(cohort)) or "none"
    facts |= {key: cohort.about[key] for key in ("expression", "notes", "licence") if cohort.about.get(key)}
    return _table("what", "value", [(plain_text(key), plain_text(value)) for key, value in facts.items()])


def _table(first: str, second: str, rows: list[tuple[str, str]]) -> str:
    return "\n".join([f"| {first} | {second} |", "|:--|:--|", *(f"| {key} | {value} |" for key, value in rows)])


def _findings(found: Report, executed: dict[str, NotebookNode]) -> str:
    """Return a row for each chapter, with a sentence where the chapter glues all that it needs."""
    rows = []
    for stem, node in executed.items():
        glued, sentence = glued_text(node), FINDINGS.get(stem[:2], "")
        there = set(re.findall(r"\{(\w+)\}", sentence)) <= glued.keys()
        link = f"[{plain_text(found.headings[stem])}](../notebooks/{stem}.ipynb)"
        rows.append((link, plain_text(sentence.format(**glued)) if there else ""))
    return _table("chapter", "in a sentence", rows)


def glued_text(node: NotebookNode) -> dict[str, str]:
    """Return {key: text} of all that an executed notebook glues as text or number."""
    found = {}
    for output in (output for cell in node.cells for output in cell.get("outputs", [])):
        entry = output.get("metadata", {}).get("scrapbook")
        texts = [text for kind, text in output.get("data", {}).items() if kind.endswith("text/plain")]
        if entry and texts:
            found[entry["name"]] = texts[0].strip("'\"")
    return found


def _left_out(found: Report) -> list[str]:
    failed = {stem: f"it failed in {why.replace(str(found.root), '.')}" for stem, why in found.failed.items()}
    reasons = sorted((found.left_out | failed).items())
    return [f"**{plain_text(found.headings[stem])}**: {plain_text(why)}." for stem, why in reasons]


def _warnings(found: Report, executed: dict[str, NotebookNode]) -> list[str]:
    """Return a sentence for each chapter in which a cell warned; which file it was that warned is of no interest."""
    sentences = []
    for stem, node in executed.items():
        where, text = leaked(node)
        if text:
            match = re.search(r"\w*Warning: [^\n]*", text)
            said = plain_text(match[0] if match else "words on stderr")
            sentences.append(
                f"{plain_text(found.headings[stem])} is there, with a warning in {where.split(',')[0]}: {said}"
            )
    return sentences


def _privacy(ids: set[str]) -> str:
    unsought = len(ids) - len(sought(ids))
    short = f" ({unsought:,} were not searched for, since they are short or plain numbers)" if unsought else ""
    return (
        "Patients were given numbers for names before the first cell ran, and the pages were searched for the names of "
        f"samples and patients{short}. None stands in them. Pages hold counts, scores and curves, and some curves are "
        "of single patients. In a small cohort these may be known again, so ask those who answer for the data before "
        "you hand the report on."
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cancelled job leaves no kernel either
    sys.exit(main(sys.argv[1:], ROOT))

"""`make report`: the call, a chapter that fails, pages that show no id, the page that says how, the whole way."""

import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

RUNNER = Path(__file__).resolve().parents[1] / "book"
sys.path.insert(0, str(RUNNER))

import rendering  # noqa: E402
import report  # noqa: E402
from reading import BuildError  # noqa: E402
from report_case import PLAIN_METHODS, Size  # noqa: E402
from running import Outcome  # noqa: E402
from test_report_pages import CONFIG, executed, made_of, notebook, write  # noqa: E402
from test_report_parameters import clinic_of  # noqa: E402

from txtlib.cohort import Task, load_cohort, make_cohort, write_cohort  # noqa: E402
from txtlib.planted import planted  # noqa: E402

REPOSITORY = RUNNER.parent
TINY = Size(8, 6, 10, 1, 2, 1, 10, PLAIN_METHODS, all_tasks=False)


@pytest.fixture(scope="module")
def clinic():
    return clinic_of()


@pytest.fixture
def made(clinic, tmp_path):
    return made_of(clinic, tmp_path / "a book")


# --- execution and rendering ---


def rendered(monkeypatch, text):
    """Stand in for jupyter-book, whose page of chapter 04 is `text`."""

    def jupyter_book(source, output, log, root):
        for page in ("book/index", "book/references", "notebooks/04_cohorts"):
            write(output / f"_build/html/{page}.html", "a page" if page.startswith("book") else text)

    monkeypatch.setattr(rendering, "jupyter_book", jupyter_book)


def test_a_page_with_an_id_never_gets_into_the_report(made, monkeypatch):
    rendered(monkeypatch, f"<p>the curve of {made.case.cohort.samples[7]}</p>")
    write(made.place / "html/index.html", "the last good one")
    with pytest.raises(BuildError, match=r"the page notebooks/04_cohorts.html would show 1 of the patients' ids"):
        report.publish(made, {"04_cohorts": executed(notebook("1", text="# 04 Cohorts"))})
    assert [file.name for file in (made.place / "html").iterdir()] == ["index.html"]


def test_a_good_report_takes_the_place_of_the_last_and_stays(made, monkeypatch, capsys):
    rendered(monkeypatch, "<p>the curve of case-008</p>")
    write(made.place / "html/old.html", "the last good one")
    chapters = {"04_cohorts": executed(notebook("1", text="# 04 Cohorts"))}
    for _ in range(2):
        report.publish(made, chapters)
    assert (made.place / "html/notebooks/04_cohorts.html").is_file() and not (made.place / "html/old.html").exists()
    assert capsys.readouterr().out.splitlines() == ["rendering  3 pages", "rendering  unchanged"]
    assert not (made.root / "_build/html").exists()


def test_a_chapter_that_fails_does_not_take_the_others_with_it(made, monkeypatch):
    rounds = []

    def run_all(jobs, needs, workers):
        rounds.append(list(jobs))
        first, *_ = jobs
        return {first: Outcome(failure="cell 1") if first == "04_cohorts" else Outcome()}

    monkeypatch.setattr(report, "run_all", run_all)
    full = replace(made, prints=dict.fromkeys(made.notebooks, "f"), inputs={stem: {} for stem in made.notebooks})
    full = replace(full, parameters={stem: {} for stem in made.notebooks})
    outcomes = report.execute(full, list(made.notebooks))
    assert rounds == [["04_cohorts", "06_training"], ["06_training"]]
    assert outcomes["04_cohorts"].failure and not outcomes["06_training"].failure


# --- the call ---


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 2, "no cohort is named; give its folder: make report COHORT=path/to/mine"),
        (["--cohort", "gse7390", "--size", "huge"], 2, "there is no size 'huge'; choose one of: quick, full"),
        (["--cohort", "gse7390", "--only", "4,5"], 2, "chapter '5' is no part of a report; choose of: 04, 06"),
        (["--cohort", "nowhere"], 1, "No cohort 'nowhere'"),
    ],
)
def test_a_wrong_call_is_one_sentence(tmp_path, capsys, options, code, said):
    assert report.main(options, tmp_path) == code
    err = capsys.readouterr().err
    assert err.startswith(f"make report: {said}") and err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_wrong_cohort_is_one_sentence_before_any_cell_runs(clinic, tmp_path, capsys):
    folder = write_cohort(clinic, tmp_path / "mine")
    table = pd.read_csv(folder / "clinical.csv", dtype=str)
    table.loc[5, "Age"] = "about 60"
    table.to_csv(folder / "clinical.csv", index=False)
    assert report.main(["--cohort", str(folder)], tmp_path / "book") == 1
    err = capsys.readouterr().err
    assert (
        "clinical column 'Age' holds values that are no finite numbers, S005: about 60" in err and err.count("\n") == 1
    )
    assert not (tmp_path / "book").exists()


def test_too_few_events_end_it_before_any_cell_runs(clinic, tmp_path, capsys):
    few = replace(clinic, clinical=clinic.clinical.assign(OS_event=(np.arange(200) < 2).astype(float)))
    assert report.main(["--cohort", str(write_cohort(few, tmp_path / "mine"))], tmp_path / "book") == 1
    assert "holds no event" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "name"), [("a/b/My cohort, 2", "My_cohort_2"), ("mine.h5ad", "mine"), ("gse7390", "gse7390")]
)
def test_the_name_of_a_report(given, name):
    assert report._name(given) == name


# --- the page ---


def test_the_program_of_the_page_makes_a_folder_that_is_read(tmp_path, monkeypatch):
    text = (RUNNER / "your_cohort.md").read_text(encoding="utf-8")
    program = re.search(r"```python\n(.*?)```", text, re.S)[1]
    assert len([line for line in program.splitlines() if line.strip()]) <= 20
    generator, names = np.random.default_rng(0), [f"{row:03d}-A" for row in range(60)]
    with pd.ExcelWriter(tmp_path / "study.xlsx") as book:
        tpm = pd.DataFrame(generator.gamma(2, 50, (12, 60)), [f"GENE{gene}" for gene in range(12)], names)
        tpm.to_excel(book, sheet_name="TPM", index_label="gene")
        pd.DataFrame(
            {
                "age": generator.normal(60, 9, 60),
                "grade": generator.permutation(np.resize(["G1", "G2", "G3", "unknown"], 60)),
                "months": generator.exponential(40, 60),
                "status": generator.permutation(np.resize(["alive", "dead", "lost"], 60)),
            },
            names,
        ).to_excel(book, sheet_name="patients", index_label="id")
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    cohort = load_cohort("mine")
    assert len(cohort) == 60 and cohort.expression.shape[1] == 12 and cohort.expression.to_numpy().max() < 12
    assert [task.name for task in cohort.tasks] == ["Age", "Grade", "OS"]
    assert cohort.clinical["Grade"].isna().sum() == 15 and np.nansum(cohort.outcome()[1]) == 20


# --- the whole way ---

FINE = """import warnings
from myst_nb import glue
from pathlib import Path
warnings.warn("few patients", RuntimeWarning)
glue("seen", Path(cohort).name, display=False)"""
TEXT = """# 04 Fine

On {glue:text}`seen`, and elsewhere {glue:text}`../notebooks/05_other.ipynb::away:s`; see [05](05_other.ipynb)."""


def chapter(*code, text):
    return notebook(*code, text=text, parameters='cohort: str = "x"  # a cohort')


@pytest.fixture
def tiny_book(tmp_path, monkeypatch, clinic):
    """Three chapters in the place of the real ones: a good one, one that fails, and one that nobody asks."""
    root = tmp_path / "a book"
    nodes = {
        "04_fine": chapter(FINE, text=TEXT),
        "05_other": chapter("1", text="# 05 Other"),
        "06_bad": chapter("raise ValueError(f'not {cohort}')", text="# 06 Bad"),
    }
    for stem, node in nodes.items():
        write(root / "notebooks" / f"{stem}.ipynb", nbformat.writes(node))
    write(root / "_config.yml", CONFIG)
    write(root / "book/references.md", "# References\n\n```{bibliography}\n```\n")
    write(root / "book/references.bib", "")
    both = dict.fromkeys(("04", "06"), lambda case: {"cohort": case.place})
    monkeypatch.setattr(report, "CHAPTERS", both)
    return root, write_cohort(clinic, tmp_path / "my clinic")


@pytest.mark.slow
def test_a_report_of_what_could_run(tiny_book, capfd):
    root, folder = tiny_book
    assert report.main(["--cohort", str(folder)], root) == 1
    said = capfd.readouterr()
    assert "chapter 06_bad failed in cell 3 of 3: ValueError: not _build/report/my_clinic/cohorts/my_clinic" in said.err
    site = root / "_build/report/my_clinic/html"
    cover = (site / "book/index.html").read_text()
    assert "06 Bad" in cover and "ValueError: not" in cover and "RuntimeWarning: few patients" in cover
    page = (site / "notebooks/04_fine.html").read_text()
    assert "Not for clinical use" in page and ">my_clinic</span>" in page and "(not executed)" in page
    assert page.count("toggle-hidden") + page.count("tag_hide-input") == 1 and "my_clinic/cohorts/my_clinic" in page
    assert "05_other.html" not in page and "RuntimeWarning: few" not in page
    assert not (root / "_build/failed").exists() and (root / "_build/report/my_clinic/failed/06_bad.ipynb").is_file()
    assert report.main(["--cohort", str(folder), "--only", "4"], root) == 0
    said = capfd.readouterr().out
    assert "04_fine  starts" not in said and "06_bad  starts" not in said
    assert "it was not asked for" in (site / "book/index.html").read_text()


@pytest.mark.slow
def test_a_report_on_a_folder_of_csv_files(tmp_path, monkeypatch, capfd):
    """Chapters 04 and 06 on planted patients, from files to pages."""
    root, names = tmp_path / "book", ("04_cohorts", "06_training")
    shutil.copytree(REPOSITORY / "txtlib", root / "txtlib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "book", root / "book", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for name in (*(f"notebooks/{stem}.ipynb" for stem in names), "_config.yml"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(REPOSITORY / name, root / name)
    shutil.copytree(REPOSITORY / "data", root / "data", ignore=shutil.ignore_patterns("raw", "results"))
    world = planted(n=120, n_genes=40, event_rate=0.4).cohort
    cohort = make_cohort(
        world.expression, world.clinical, (Task("Age", "regression", ("Age",)), world.survival_task), {"name": "Mine"}
    )
    folder = write_cohort(cohort, tmp_path / "mine")
    table = pd.read_parquet(folder / "expression.parquet")
    (folder / "expression.parquet").unlink()
    table.to_csv(folder / "expression.csv.gz", index=False)
    monkeypatch.setitem(report.SIZES, "tiny", TINY)
    monkeypatch.chdir(tmp_path)
    assert report.main(["--cohort", "mine", "--size", "tiny"], root) == 0, capfd.readouterr().err
    site = root / "_build/report/mine/html"
    marker = (site / ".complete.json").read_text()
    assert all(f"notebooks/{stem}" in marker for stem in names)
    pages = {stem: (site / f"notebooks/{stem}.html").read_text() for stem in names}
    assert all("book-figure" in page and "Not for clinical use" in page for page in pages.values())
    assert not any(str(tmp_path) in page for page in pages.values())
    cover = (site / "book/index.html").read_text()
    assert "In Uno’s C, TxT on many tasks is" in cover or "In Uno's C, TxT on many tasks is" in cover
    assert not any(str(name) in file.read_text() for name in cohort.samples[:5] for file in site.rglob("*.html"))
    assert os.listdir(root / "_build") == ["report"]

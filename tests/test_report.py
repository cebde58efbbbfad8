"""`make report`: what is asked of a cohort, patients without names, pages that show no id, a chapter that fails."""

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
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

RUNNER = Path(__file__).resolve().parents[1] / "book"
sys.path.insert(0, str(RUNNER))

import report  # noqa: E402
from reading import BuildError, check_values, declared, read_notebook  # noqa: E402
from running import Outcome  # noqa: E402

from txtlib.cohort import Task, load_cohort, make_cohort, split, write_cohort  # noqa: E402
from txtlib.plans import Plan, contest  # noqa: E402
from txtlib.planted import planted  # noqa: E402

REPOSITORY = RUNNER.parent
TINY = report.Size(8, 6, 10, 1, 2, 1, 10, report.PLAIN_METHODS, all_tasks=False)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def case_of(cohort, other=None, size="quick"):
    place = "_build/report/mine"
    other_place = f"{place}/cohorts/theirs" if other else ""
    return report.Case(cohort, other, "mine", f"{place}/cohorts/mine", other_place, report.SIZES[size], f"{place}/kept")


@pytest.fixture(scope="module")
def clinic(build):
    """A cohort of 200 patients, in years and days that a clinic would have."""
    cohort = build(200, 20)
    events = np.resize([1.0, 0.0, 0.0], 200)
    times = np.linspace(30, 3000, 200)
    clinical = cohort.clinical.assign(OS_event=events, OS_duration=times)
    return replace(cohort, expression=cohort.expression / 5, clinical=clinical)


# --- what is asked of a cohort ---


def test_columns_for_cox_are_numbers_or_few_classes_known_for_half(clinic):
    assert report.clinical_columns(clinic) == ["Age", "Grade"]
    odd = clinic.clinical.assign(
        Size=np.nan,
        ER=np.where(np.arange(200) < 60, "positive", None),
        PAM50=np.resize(list("ABCDE"), 200),
        TStage="T1",
    )
    assert report.clinical_columns(replace(clinic, clinical=odd)) == ["Age", "Grade"]


def reasons(cohort, other=None):
    return {number: why.split(",")[0] for number, why in report.why_not(case_of(cohort, other)).items()}


def test_what_cannot_be_asked_is_left_out_with_the_reason(clinic):
    assert reasons(clinic, clinic) == {}
    assert set(reasons(clinic)) == {"09"} and "OTHER=path" in report.why_not(case_of(clinic))["09"]
    numbers = clinic.with_tasks("Age", "Grade")
    assert set(reasons(numbers, numbers)) == {"04", "06", "11"}
    assert reasons(numbers)["04"] == "it needs a survival task"
    alone = clinic.with_tasks("OS")
    assert set(reasons(alone, alone)) == {"06", "12"}
    ageless = replace(clinic, clinical=clinic.clinical.drop(columns="Age"), tasks=clinic.tasks[1:])
    assert reasons(ageless, ageless) == dict.fromkeys(("04", "06"), "its floor is the patients' age")


@pytest.mark.parametrize("size", list(report.SIZES))
def test_the_values_fit_the_real_chapters(clinic, size):
    """A chapter whose parameters change must change the report too."""
    stems = {path.stem[:2]: path for path in (REPOSITORY / "notebooks").glob("*.ipynb")}
    for number, values in report.CHAPTERS.items():
        node = read_notebook(stems[number])
        for case in (case_of(clinic, size=size), case_of(clinic, clinic, size)):
            if number != "09" or case.other:
                check_values("the report", stems[number].stem, values(case), declared(number, node))


@pytest.mark.parametrize("size", list(report.SIZES))
@pytest.mark.parametrize("columns", [["Age", "Grade"], ["Grade"], []])
def test_the_benchmark_names_methods_that_there_are(clinic, size, columns, tmp_path):
    kept = replace(clinic, clinical=clinic.clinical.drop(columns={"Age", "Grade"}.difference(columns)))
    kept = kept.with_tasks("OS", *columns)
    values = report.CHAPTERS["07"](case_of(kept, size=size))
    given = {name: values[name] for name in ("tasks", "without", "clinical", "n_genes", "training", "changes")}
    _, groups = contest(Plan("a test", str(write_cohort(kept, tmp_path / "mine")), **given))
    names = [method.name for group in groups.values() for method in group]
    assert {"TxT, one task", "TxT, all tasks", "TxT, ranked expression", "constant"} <= set(names)
    assert ("age alone" in names) is ("Age" in columns) and ("clinical Cox" in names) is bool(columns)
    assert set(names) <= set(report.SIZES[size].methods)


def test_sizes_follow_the_cohort(clinic):
    few = report.CHAPTERS["06"](case_of(clinic))
    assert few["n_genes"] == 20 and few["horizon"] == 1825.0
    soon = clinic.clinical.assign(OS_duration=clinic.clinical["OS_duration"] / 10)
    assert report.CHAPTERS["06"](case_of(replace(clinic, clinical=soon)))["horizon"] < 300
    large = replace(clinic, expression=pd.concat([clinic.expression] * 20))
    assert case_of(large).training["epochs"] == 8 < case_of(clinic).training["epochs"]
    assert case_of(clinic).tasks(clinic) == ["Age", "Grade", "OS"]


def test_a_group_is_looked_at_only_where_it_has_events(clinic):
    kinds = clinic.clinical.assign(PAM50=np.where(np.arange(200) < 100, "LumA", "Basal"))
    assert report.CHAPTERS["11"](case_of(replace(clinic, clinical=kinds)))["group"] == {"PAM50": "LumA"}
    rare = clinic.clinical.assign(PAM50=np.where(np.arange(200) < 30, "LumA", "Basal"))
    assert report.CHAPTERS["11"](case_of(replace(clinic, clinical=rare)))["group"] == {}


def test_cautions(clinic):
    assert report.cautions(clinic) == ["A test part holds about 13 events, so intervals will be wide."]
    counts = replace(clinic, expression=np.exp2(clinic.expression), about={"unmatched": {"clinical": 3}})
    months = counts.clinical.assign(OS_duration=counts.clinical["OS_duration"] / 30)
    said = " ".join(report.cautions(replace(counts, clinical=months)))
    assert "take log2(x + 1) first" in said and "durations as days" in said and "3 samples stand in one table" in said


# --- patients without names ---


def barcoded(clinic):
    """The clinic's patients under TCGA's names, the first two with two samples each, and a column of free text."""
    names = [f"TCGA-AB-{9999 - row // 2 if row < 4 else 5000 - row}-0{row % 2}A" for row in range(200)]
    index = pd.Index(names, name="Sample")
    clinical = clinic.clinical.set_axis(index).assign(Remarks=[f"saw {name}" for name in names])
    return replace(clinic, expression=clinic.expression.set_axis(index), clinical=clinical)


def test_a_copy_knows_no_name_and_is_split_alike(clinic, tmp_path):
    cohort = barcoded(clinic)
    report._write_copies(tmp_path / "cohorts", {"mine": cohort})
    folder = tmp_path / "cohorts" / "mine"
    assert not any(b"TCGA" in file.read_bytes() for file in folder.iterdir())
    copy = load_cohort(folder)
    assert list(copy.clinical) == ["Age", "Grade", "OS_duration", "OS_event", "Patient"]
    assert copy.patients().nunique() == cohort.patients().nunique() == 198
    for ours, theirs in zip(split(copy, 3), split(cohort, 3), strict=True):
        np.testing.assert_array_equal(ours.expression, theirs.expression)
        np.testing.assert_array_equal(ours.clinical["OS_duration"], theirs.clinical["OS_duration"])


def test_a_sample_in_two_cohorts_has_one_number(clinic):
    first, second = clinic.take(clinic.samples[:150]), clinic.take(clinic.samples[100:])
    names = report.pseudonyms(first, second)
    assert len(set(names.values())) == 200
    copies = [report.nameless(one, names) for one in (first, second)]
    assert len(copies[0].samples.intersection(copies[1].samples)) == 50


def test_no_pseudonym_is_another_patients_name(clinic):
    index = pd.Index([f"case-{row:03d}" for row in range(200)], name="Sample")
    cohort = replace(clinic, expression=clinic.expression.set_axis(index), clinical=clinic.clinical.set_axis(index))
    assert not set(report.pseudonyms(cohort).values()) & set(index)


IDS = {"TCGA-AB-1234", "P_017x", "MRN 5 & 6", "anna", "42", "2024", "1234567", "12.34567-9", "(B) 12 c"}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("<p>patient TCGA-AB-1234, aged</p>", 1),
        ("<p>TCGA-AB-1234-01A and P_017x</p>", 2),
        ("<td title='see_P_017x_here'>", 1),
        ("<p>XTCGA-AB-1234 TCGA-AB-12345 annabel P_017xy</p>", 0),
        ("<p>MRN 5 &amp; 6</p>", 1),
        ("<p>(B) 12 c</p>", 1),
        ("<p>42 of 2024</p>", 0),
        ("<p>number 1234567.</p>", 1),
        ("<path d='M 3.1234567 1,234567 1234567.5'>", 0),
        ("<p>12.34567-9</p>", 1),
        (f'<img src="data:image/png;base64,{"A" * 40}/anna/{"b" * 40}">', 0),
    ],
)
def test_an_id_is_found_as_a_whole_word(tmp_path, text, count):
    write(tmp_path / "notebooks/06_training.html", f"<html>{text}</html>")
    write(tmp_path / "_static/theme.js", "anna")
    assert report.pages_with_ids(tmp_path, IDS) == ({"notebooks/06_training.html": count} if count else {})


def test_every_file_of_text_is_searched(tmp_path):
    for name in ("_sources/a.ipynb", "searchindex.js", "a.csv"):
        write(tmp_path / name, '"anna"')
    assert set(report.pages_with_ids(tmp_path, IDS)) == {"_sources/a.ipynb", "searchindex.js", "a.csv"}


# --- pages ---


def notebook(*code, text="# A page", parameters="size: int = 3  # how many"):
    cells = [new_markdown_cell(text), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    return new_notebook(cells=cells + [new_code_cell(one) for one in code])


def test_links_stay_within_the_report():
    text = "See [chapter 02](02_x.ipynb), [06](06_y.ipynb#part), [the ledger](../book/ledger.md)'s rule, [up](#top), "
    text += "[out](https://doi.org/1) and ![a picture](02_x.png)."
    assert report.without_links(text, ["notebooks/06_y"]) == (
        "See chapter 02, [06](06_y.ipynb#part), the ledger's rule, [up](#top), "
        "[out](https://doi.org/1) and ![a picture](02_x.png)."
    )


def test_exercises_stay_in_the_book():
    node = notebook("1", "2", text="# A page")
    node.cells.insert(3, new_markdown_cell("## What to take away\n\n- one\n\n## Exercises\n\nThree."))
    found = report.without_exercises(node)
    assert [cell.source for cell in found.cells[2:]] == ["1", "## What to take away\n\n- one"] and len(node.cells) == 5


def test_what_a_cohort_says_of_itself_is_no_markup():
    assert report.plain_text("a|b <b>\n`{glue}` $x$") == r"a\|b \<b\> \`\{glue\}\` \$x\$"


def executed(node, **glued):
    outputs = [
        new_output(
            "display_data", {"application/papermill.record/text/plain": value}, metadata={"scrapbook": {"name": key}}
        )
        for key, value in glued.items()
    ]
    node.cells[2].outputs = outputs
    node.metadata["run"] = {"fingerprint": "f", "profile": "quick", "seconds": 2.0, "peak_mb": 300}
    node.metadata["papermill"] = {"end_time": "2026-11-21T10:00:00"}
    return node


@pytest.fixture
def made(clinic, tmp_path):
    """A report of two chapters, of which one has failed, beside the others that were left out."""
    root = tmp_path / "a book"
    nodes = {"04_cohorts": notebook("1", text="# 04 Cohorts"), "06_training": notebook("1", text="# 06 Training")}
    for stem, node in nodes.items():
        write(root / "notebooks" / f"{stem}.ipynb", nbformat.writes(node))
    write(root / "_config.yml", CONFIG)
    write(root / "book/references.md", "# References\n")
    place = root / "_build" / "report" / "mine"
    about = {"name": "The <clinic>", "licence": "ours"}
    return report.Report(
        **dict(root=root, profile="quick", pages=[], notebooks=nodes, parameters={}, prints={}, inputs={}),
        **dict(place=place, case=case_of(replace(clinic, about=about)), ids=set(clinic.samples)),
        headings={"04_cohorts": "04 Cohorts", "06_training": "06 Training", "09_metabric": "09 Elsewhere"},
        left_out={"09_metabric": "it takes models to a second cohort"},
        failed={"06_training": f"cell 3 of 9: ValueError: no file {root}/data/x"},
    )


def test_the_cover_says_what_ran_and_what_did_not(made):
    glued = {"cohort_age_floor": "'0.60 (SD 0.05)'", "cohort_clinical_floor": "'0.61'"}
    node = executed(notebook("1", text="# 04 Cohorts"), **glued)
    node.cells[2].outputs.append(
        new_output("stream", name="stderr", text="/home/x/lib.py:3: RuntimeWarning: mean of empty slice\n")
    )
    text = report.cover(made, {"04_cohorts": node})
    assert text.startswith("# The \\<clinic\\>: a report") and "Not for clinical use" in text
    assert "| samples | 200 |" in text and "Made on 2026-11-21" in text and "SIZE=quick" in text
    assert "| [04 Cohorts](../notebooks/04_cohorts.ipynb) | Harrell's C of age alone 0.60 (SD 0.05)" in text
    assert "**09 Elsewhere**: it takes models to a second cohort." in text
    assert "**06 Training**: it failed in cell 3 of 9: ValueError: no file ./data/x." in text
    assert "with a warning in cell 3 of 3: RuntimeWarning: mean of empty slice" in text and "/home/x" not in text
    assert "2.0 | 300 | quick" in text and "torch" in text and str(made.root) not in text


def test_a_finding_that_a_chapter_no_longer_glues_is_left_out(made):
    text = report.cover(made, {"04_cohorts": executed(notebook("1", text="# 04 Cohorts"))})
    assert "| [04 Cohorts](../notebooks/04_cohorts.ipynb) |  |" in text


def test_a_page_with_an_id_never_gets_into_the_report(made, monkeypatch):
    def render(root, source, pages, marker):
        write(root / "_build/html/notebooks/04_cohorts.html", f"<p>the curve of {made.case.cohort.samples[7]}</p>")

    monkeypatch.setattr(report, "render", render)
    write(made.place / "html/index.html", "the last good one")
    with pytest.raises(BuildError, match=r"the page notebooks/04_cohorts.html would show 1 of the patients' ids"):
        report.publish(made, {"04_cohorts": executed(notebook("1", text="# 04 Cohorts"))})
    assert [file.name for file in (made.place / "html").iterdir()] == ["index.html"]


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

CONFIG = """
title: Tiny
only_build_toc_files: true
execute: {execute_notebooks: "off"}
bibtex_bibfiles: [book/references.bib]
sphinx: {config: {html_theme: sphinx_book_theme, nb_ipywidgets_js: {}}}
"""
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

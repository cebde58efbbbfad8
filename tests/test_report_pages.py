"""The pages of a report: chapters that stay within it, and a cover that says what ran and what did not."""

import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

RUNNER = Path(__file__).resolve().parents[1] / "book"
sys.path.insert(0, str(RUNNER))

import report_cover  # noqa: E402
import report_pages  # noqa: E402
from report_case import Report  # noqa: E402
from test_report_parameters import case_of, clinic_of  # noqa: E402

CONFIG = """
title: Tiny
only_build_toc_files: true
execute: {execute_notebooks: "off"}
bibtex_bibfiles: [book/references.bib]
sphinx: {config: {html_theme: sphinx_book_theme, nb_ipywidgets_js: {}}}
"""


@pytest.fixture(scope="module")
def clinic():
    return clinic_of()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def notebook(*code, text="# A page", parameters="size: int = 3  # how many"):
    cells = [new_markdown_cell(text), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    return new_notebook(cells=cells + [new_code_cell(one) for one in code])


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


def made_of(clinic, root):
    """A report of two chapters, of which one has failed, beside the others that were left out."""
    nodes = {"04_cohorts": notebook("1", text="# 04 Cohorts"), "06_training": notebook("1", text="# 06 Training")}
    for stem, node in nodes.items():
        write(root / "notebooks" / f"{stem}.ipynb", nbformat.writes(node))
    write(root / "_config.yml", CONFIG)
    write(root / "book/references.md", "# References\n")
    place = root / "_build" / "report" / "mine"
    about = {"name": "The <clinic>", "licence": "ours"}
    return Report(
        **dict(root=root, profile="quick", pages=[], notebooks=nodes, parameters={}, prints={}, inputs={}),
        **dict(place=place, case=case_of(replace(clinic, about=about)), ids=set(clinic.samples)),
        headings={"04_cohorts": "04 Cohorts", "06_training": "06 Training", "09_metabric": "09 Elsewhere"},
        left_out={"09_metabric": "it takes models to a second cohort"},
        failed={"06_training": f"cell 3 of 9: ValueError: no file {root}/data/x"},
    )


@pytest.fixture
def made(clinic, tmp_path):
    return made_of(clinic, tmp_path / "a book")


def test_links_stay_within_the_report():
    text = "See [chapter 02](02_x.ipynb), [06](06_y.ipynb#part), [the ledger](../book/ledger.md)'s rule, [up](#top), "
    text += "[out](https://doi.org/1) and ![a picture](02_x.png)."
    assert report_pages.without_links(text, ["notebooks/06_y"]) == (
        "See chapter 02, [06](06_y.ipynb#part), the ledger's rule, [up](#top), "
        "[out](https://doi.org/1) and ![a picture](02_x.png)."
    )


def test_exercises_stay_in_the_book():
    node = notebook("1", "2", text="# A page")
    node.cells.insert(3, new_markdown_cell("## What to take away\n\n- one\n\n## Exercises\n\nThree."))
    found = report_pages.without_exercises(node)
    assert [cell.source for cell in found.cells[2:]] == ["1", "## What to take away\n\n- one"] and len(node.cells) == 5


def test_what_a_cohort_says_of_itself_is_no_markup():
    assert report_cover.plain_text("a|b <b>\n`{glue}` $x$") == r"a\|b \<b\> \`\{glue\}\` \$x\$"


def test_cautions(clinic):
    assert report_cover.cautions(clinic) == ["A test part holds about 13 events, so intervals will be wide."]
    counts = replace(clinic, expression=np.exp2(clinic.expression), about={"unmatched": {"clinical": 3}})
    months = counts.clinical.assign(OS_duration=counts.clinical["OS_duration"] / 30)
    said = " ".join(report_cover.cautions(replace(counts, clinical=months)))
    assert "take log2(x + 1) first" in said and "durations as days" in said and "3 samples stand in one table" in said


def test_the_cover_says_what_ran_and_what_did_not(made):
    glued = {"cohort_age_floor": "'0.60 (SD 0.05)'", "cohort_clinical_floor": "'0.61'"}
    node = executed(notebook("1", text="# 04 Cohorts"), **glued)
    node.cells[2].outputs.append(
        new_output("stream", name="stderr", text="/home/x/lib.py:3: RuntimeWarning: mean of empty slice\n")
    )
    text = report_cover.cover(made, {"04_cohorts": node})
    assert text.startswith("# The \\<clinic\\>: a report") and "Not for clinical use" in text
    assert "| samples | 200 |" in text and "Made on 2026-11-21" in text and "SIZE=quick" in text
    assert "| [04 Cohorts](../notebooks/04_cohorts.ipynb) | Harrell's C of age alone 0.60 (SD 0.05)" in text
    assert "**09 Elsewhere**: it takes models to a second cohort." in text
    assert "**06 Training**: it failed in cell 3 of 9: ValueError: no file ./data/x." in text
    assert "with a warning in cell 3 of 3: RuntimeWarning: mean of empty slice" in text and "/home/x" not in text
    assert "2.0 | 300 | quick" in text and "torch" in text and str(made.root) not in text


def test_a_finding_that_a_chapter_no_longer_glues_is_left_out(made):
    text = report_cover.cover(made, {"04_cohorts": executed(notebook("1", text="# 04 Cohorts"))})
    assert "| [04 Cohorts](../notebooks/04_cohorts.ipynb) |  |" in text

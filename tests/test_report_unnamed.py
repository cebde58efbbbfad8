"""Patients without names: copies that know none, and the search of pages for them."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

RUNNER = Path(__file__).resolve().parents[1] / "book"
sys.path.insert(0, str(RUNNER))

import unnamed  # noqa: E402
from test_report_parameters import clinic_of  # noqa: E402

from txtlib.cohort import load_cohort, split  # noqa: E402


@pytest.fixture(scope="module")
def clinic():
    return clinic_of()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def barcoded(clinic):
    """The clinic's patients under TCGA's names, the first two with two samples each, and a column of free text."""
    names = [f"TCGA-AB-{9999 - row // 2 if row < 4 else 5000 - row}-0{row % 2}A" for row in range(200)]
    index = pd.Index(names, name="Sample")
    clinical = clinic.clinical.set_axis(index).assign(Remarks=[f"saw {name}" for name in names])
    return replace(clinic, expression=clinic.expression.set_axis(index), clinical=clinical)


def test_a_copy_knows_no_name_and_is_split_alike(clinic, tmp_path):
    cohort = barcoded(clinic)
    unnamed.write_copies(tmp_path / "cohorts", {"mine": cohort})
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
    names = unnamed.pseudonyms(first, second)
    assert len(set(names.values())) == 200
    copies = [unnamed.nameless(one, names) for one in (first, second)]
    assert len(copies[0].samples.intersection(copies[1].samples)) == 50


def test_no_pseudonym_is_another_patients_name(clinic):
    index = pd.Index([f"case-{row:03d}" for row in range(200)], name="Sample")
    cohort = replace(clinic, expression=clinic.expression.set_axis(index), clinical=clinic.clinical.set_axis(index))
    assert not set(unnamed.pseudonyms(cohort).values()) & set(index)


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
    assert unnamed.pages_with_ids(tmp_path, IDS) == ({"notebooks/06_training.html": count} if count else {})


def test_every_file_of_text_is_searched(tmp_path):
    for name in ("_sources/a.ipynb", "searchindex.js", "a.csv"):
        write(tmp_path / name, '"anna"')
    assert set(unnamed.pages_with_ids(tmp_path, IDS)) == {"_sources/a.ipynb", "searchindex.js", "a.csv"}

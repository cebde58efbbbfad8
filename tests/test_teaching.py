"""Course plans, objectives and errors, as the book's own notebooks say them."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book"))

import teaching  # noqa: E402
from dressing import EXERCISE, minutes  # noqa: E402
from exercises import exercises, objectives  # noqa: E402
from reading import BuildError, read_notebooks  # noqa: E402


@pytest.fixture(scope="module")
def notebooks():
    return read_notebooks(ROOT / "notebooks")


def test_every_course_fits_what_it_promises_and_links_its_pages(notebooks):
    found = teaching.teaching_files(ROOT, notebooks, dict.fromkeys(notebooks, 2.0))
    assert found["courses.md"].count("### ") == 3 and "notebooks/01_survival.ipynb" in found["courses.md"]


def test_a_courses_minutes_are_those_of_its_pages_and_exercises(notebooks):
    course = {
        "name": "Mine",
        "for": "me",
        "minutes": 999,
        "sessions": [{"title": "One", "pages": {"02": [1], "03": []}}],
    }
    asked = sum(minutes(stem, notebooks[stem])["reading"] for stem in ("02_sentence", "03_many_tasks")) + EXERCISE
    text = teaching.course_plan(course, notebooks, {"02_sentence": 4.0, "03_many_tasks": 3.0})
    assert f"{asked} minutes of reading and exercises in 999" in text and f"| {asked} | 7 |" in text


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"minutes": 5}, "'Mine' promises 5 minutes and asks for"),
        ({"sessions": [{"title": "One", "pages": {"77": []}}]}, "asks for page 77"),
        ({"sessions": [{"title": "One", "pages": {"02": [9]}}]}, r"exercises \[9\]: not there"),
    ],
)
def test_a_course_that_cannot_be_is_named(notebooks, changes, sentence):
    course = {"name": "Mine", "for": "me", "minutes": 99, "sessions": [{"title": "One", "pages": {"02": [1]}}]}
    with pytest.raises(BuildError, match=sentence):
        teaching.course_plan(course | changes, notebooks, {})


def test_every_objective_and_every_wrong_answer_is_listed(notebooks):
    table, errors = teaching.objectives_table(notebooks), teaching.errors_list(notebooks)
    for stem, node in notebooks.items():
        assert all(f"| {id} |" in table for id in objectives(node))
        for one in exercises(stem, node):
            assert all(" ".join(wrong["error"].split()).replace("|", r"\|") in errors for wrong in one.wrong)

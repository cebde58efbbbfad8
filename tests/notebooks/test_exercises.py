"""Each chapter has the parts that the house plans; solutions pass their checks, stubs and wrong answers do not."""

import contextlib
import io
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book"))

from exercises import (  # noqa: E402  (the runner is no package)
    Exercise,
    exercises,
    faults,
    replaced,
    without_marks,
)

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


ALL = [
    pytest.param(exercise, id=f"{path.stem}-{exercise.number}")
    for path in NOTEBOOKS
    for exercise in exercises(path.stem, read(path))
]


def run(exercise: Exercise, solution: str):
    """Run an answer and its check on their own."""
    with contextlib.redirect_stdout(io.StringIO()):
        names = {"__name__": "__main__"}
        exec(compile(solution, "solution", "exec"), names)
        exec(compile(exercise.check, "check", "exec"), names)


@each_notebook
def test_a_chapter_has_its_parts(path):
    assert faults(path.stem, read(path)) == []


@pytest.mark.parametrize("exercise", ALL)
def test_the_solution_passes_its_check(exercise):
    run(exercise, without_marks(exercise.solution))


@pytest.mark.parametrize("exercise", ALL)
def test_the_stub_is_code_and_does_not_pass(exercise):
    with pytest.raises((NotImplementedError, AssertionError)):
        run(exercise, exercise.stub)


@pytest.mark.parametrize("exercise", ALL)
def test_wrong_answers_do_not_pass(exercise):
    for wrong in exercise.wrong:
        with pytest.raises(AssertionError):
            run(exercise, replaced(exercise.solution, wrong["source"]))
        assert wrong["error"].strip()

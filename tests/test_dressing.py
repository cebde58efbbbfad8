"""What the book adds to a notebook: stubs, anchors, passports, the cost of a page; and the editions made of it."""

import base64
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

RUNNER = Path(__file__).resolve().parents[1] / "book"
sys.path.insert(0, str(RUNNER))

import borrowed  # noqa: E402
import budget  # noqa: E402
import dressing  # noqa: E402
import exercises  # noqa: E402
import figure  # noqa: E402
import launch  # noqa: E402
import longer  # noqa: E402
import student  # noqa: E402
from reading import BuildError  # noqa: E402

SOLUTION = '''import numpy as np


def mean(values):
    """Return the mean."""
    ### BEGIN SOLUTION
    return np.mean(values)
    ### END SOLUTION'''
CHECK = 'assert mean([1, 3]) == 2, "the mean of 1 and 3 is 2"\nprint("Exercise 1: all checks passed")'
WRONG = [{"error": "sums", "source": "return np.sum(values)"}, {"error": "takes one", "source": "return values[0]"}]
FIRST = """# 01 A page

**The question:** is it so?

| | You will be able to | Section |
|---|---|---|
| 01.1 | count | [Counting](#counting) |

**Before you start:** nothing."""
PIXEL = base64.b64encode(b"a picture").decode()
FIGURE = (
    f'<figure class="book-figure"><img src="data:image/png;base64,{PIXEL}" alt="A dot.">'
    "<figcaption>One dot.</figcaption></figure>"
)


def chapter(**changes):
    """Return a chapter that has all parts; ``changes`` {name of a part: other text} or None to leave it out."""
    parts = {
        "first": FIRST,
        "takeaways": '## What to take away\n\n- It is so. <a href="#cell-figure01">shown here</a>',
        "mind": "```{admonition} What would change our mind\nA number.\n```",
        "exercises": "## Exercises",
        "one": "### Exercise 1: mean\n\n*Practises 01.1.*\n\nWrite it.",
        "two": "### Exercise 2: again\n\n*Practises 01.1.*\n\nWrite it again.",
        "next": "**Read next:** nothing.",
    } | changes
    text = {name: new_markdown_cell(part) for name, part in parts.items() if part is not None}
    drawn = new_code_cell("draw()", id="figure01", outputs=[new_output("display_data", {"text/html": FIGURE})])
    parameters = new_code_cell('cohort: str = "planted"  # whose\nmodel_seed: int = 3  # of the fit', id="params01")
    parameters.metadata["tags"] = ["parameters"]
    cells = [text.pop("first"), parameters, drawn]
    for name, cell in text.items():
        cells.append(cell)
        if name in ("one", "two"):
            about = {"tags": ["solution"], "txt": {"wrong": WRONG}}
            cells += [
                new_code_cell(SOLUTION, metadata=about, id=f"solve{name}"),
                new_code_cell(CHECK, metadata={"tags": ["check"]}),
            ]
    node = new_notebook(cells=cells)
    node.metadata["run"] = nbformat.from_dict(
        {"profile": "real", "seconds": 12.3, "cpu_seconds": 20.0, "peak_mb": 512}
        | {"inputs": {"scanb": "0123456789ab"}, "versions": {"Python": "3.11.7", "torch": "2.9.0"}}
    )
    node.metadata["papermill"] = {"parameters": {"cohort": "scanb"}}
    return node


# --- the plan of a chapter ----------------------------------------------------------------------------------------


def test_a_chapter_with_all_parts_has_no_fault():
    assert exercises.faults("01_page", chapter()) == []


@pytest.mark.parametrize(
    "changes, fault",
    [
        ({"mind": None}, "What would change our mind"),
        ({"next": "Bye."}, "Read next"),
        ({"takeaways": "## What to take away\n\n- It is so."}, "links to no code cell"),
        ({"takeaways": '## What to take away\n\n- So. <a href="#cell-nowhere">here</a>'}, "links to no code cell"),
        ({"first": FIRST.replace("01.1", "02.1")}, "02.1 has another chapter's number"),
        ({"first": FIRST.replace("**The question:**", "So:")}, "in its first cell"),
        ({"first": FIRST.replace("| 01.1 |", "| 01.2 | add | [A](#a) |\n| 01.1 |")}, "objective 01.2 has no exercise"),
        ({"two": "### Exercise 2: again\n\n*Practises 01.9.*"}, "practises 01.9, which is no objective"),
        ({"two": "### Exercise 3: again\n\n*Practises 01.1.*"}, "numbered from 1"),
    ],
)
def test_what_a_chapter_lacks_is_named(changes, fault):
    assert any(fault in sentence for sentence in exercises.faults("01_page", chapter(**changes)))


def test_a_solution_without_its_text_is_refused():
    with pytest.raises(BuildError, match="cell solveone does not"):
        exercises.faults("01_page", chapter(one="Write it."))


def test_the_stub_keeps_all_but_the_answer():
    (one, _) = exercises.exercises("01_page", chapter())
    assert one.stub == SOLUTION.split("    ### BEGIN")[0] + '    raise NotImplementedError("your answer")'
    assert exercises.without_marks(one.solution).endswith("    return np.mean(values)")
    assert exercises.replaced("a\n### BEGIN SOLUTION\nb\n### END SOLUTION\nc", "x\ny") == "a\nx\ny\nc"
    with pytest.raises(BuildError, match="BEGIN SOLUTION"):
        exercises.replaced("return 1", "return 2")


# --- what a page shows --------------------------------------------------------------------------------------------


@pytest.fixture
def page():
    return dressing.dressed("01_page", chapter(), {"quick": {"seconds": 3.2, "peak_mb": 1200}})


def test_a_page_shows_the_stub_and_folds_the_solution(page):
    at = next(place for place, cell in enumerate(page.cells) if cell.id == "solveone")
    assert page.cells[at - 1].source.startswith("```python") and "your answer" in page.cells[at - 1].source
    assert "hide-input" in page.cells[at].metadata["tags"] and "BEGIN" not in page.cells[at].source
    assert page.cells[at].metadata["mystnb"]["code_prompt_show"] == "Show a solution"


def test_evidence_has_an_anchor_right_before_it(page):
    at = next(place for place, cell in enumerate(page.cells) if cell.id == "figure01")
    assert page.cells[at - 1].source == '<span id="cell-figure01"></span>'
    assert sum("<span id=" in cell.source for cell in page.cells) == 1


def test_a_figure_carries_its_passport(page):
    cell = next(cell for cell in page.cells if cell.id == "figure01")
    html = cell.outputs[0]["data"]["text/html"]
    assert html.index("figcaption") < html.index("book-passport") < html.index("</figure>")
    for said in ("notebooks/01_page.ipynb", "scanb", "0123456789ab", "model_seed", "torch 2.9.0", "12.3 s"):
        assert said in html
    assert "make figure N=01 CELL=figure01 PROFILE=real" in html


def test_the_cost_stands_right_under_the_title(page):
    box = page.cells[1].source
    assert "`quick` 3 s and 1,200 MB" in box and "30 for the exercises" in box


def test_dressing_leaves_the_notebook_as_it_was():
    node = chapter()
    before = nbformat.writes(node)
    dressing.dressed("01_page", node, {})
    assert nbformat.writes(node) == before


def test_minutes_follow_the_stated_formula():
    node = chapter(mind="word " * 1800)
    asked = dressing.minutes("01_page", node)
    words = 1800 + len(" ".join(c.source for c in chapter(mind="").cells if c.cell_type == "markdown").split())
    visible = sum(
        len(c.source.splitlines()) for c in node.cells if c.cell_type == "code" and not c.id.startswith("solve")
    )
    assert asked == {"reading": round(words / 180 + visible / 8), "exercises": 30}


# --- editions -----------------------------------------------------------------------------------------------------


def test_the_student_edition_holds_stubs_and_checks_and_no_answer(tmp_path):
    (tmp_path / "notebooks").mkdir()
    node = chapter(two=chapter().cells[-4].source + "\n\n```{dropdown} Solution\nbecause\n```")
    for cell in node.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbformat.write(node, tmp_path / "notebooks" / "01_page.ipynb")
    (path,) = student.write_students(tmp_path)
    text = path.read_text()
    assert "your answer" in text and "the mean of 1 and 3 is 2" in text
    assert not any(word in text for word in ("BEGIN SOLUTION", "np.mean", "because", "takes one"))


def test_figures_are_taken_out_with_their_captions(tmp_path):
    (path,) = figure.write_pictures("01_page", chapter(), tmp_path)
    assert path.read_bytes() == b"a picture" and path.name == "01-1.png"
    assert (tmp_path / "01-captions.txt").read_text() == "01-1.png: One dot.\n"
    assert figure.write_pictures("01_page", chapter(), tmp_path / "none", "params01") == []


def test_a_notebook_ends_with_the_cell_that_is_asked_for():
    assert [cell.id for cell in figure.up_to(chapter(), "figure01").cells][-1] == "figure01"
    with pytest.raises(BuildError, match="no code cell has the id 'nothing'"):
        figure.up_to(chapter(), "nothing")


# --- budgets ------------------------------------------------------------------------------------------------------


def test_a_page_above_its_budget_is_named(tmp_path, monkeypatch):
    (tmp_path / "data" / "results").mkdir(parents=True)
    monkeypatch.delenv("TXT_BUDGET", raising=False)
    planned = chapter()
    assert budget.check_budget(tmp_path, {"01_page": planned}) == []
    budget.freeze(tmp_path, {"01_page": planned})
    assert budget.kept(tmp_path)["real"]["01_page"] == {"seconds": 12.3, "cpu_seconds": 20.0, "peak_mb": 512}
    slow = chapter()
    slow.metadata.run["cpu_seconds"] = 25.9
    assert budget.check_budget(tmp_path, {"01_page": slow}) == []
    slow.metadata.run["cpu_seconds"] = 26.1
    (sentence,) = budget.check_budget(tmp_path, {"01_page": slow})
    assert sentence == "01_page took 26 processor seconds in real, and 20 are planned"
    monkeypatch.setenv("TXT_BUDGET", "strict")
    with pytest.raises(BuildError, match="01_page took 26"):
        budget.check_budget(tmp_path, {"01_page": slow})


def test_what_was_measured_in_other_profiles_stays(tmp_path):
    (tmp_path / "data" / "results").mkdir(parents=True)
    node = chapter()
    budget.freeze(tmp_path, {"01_page": node})
    node.metadata.run["profile"] = "quick"
    budget.freeze(tmp_path, {"01_page": node})
    assert set(budget.kept(tmp_path)) == {"quick", "real"}
    assert set(budget.costs(tmp_path, "01_page", {})) == {"quick", "real"}
    node.metadata.run["seconds"] = 99.0
    assert budget.costs(tmp_path, "01_page", {"01_page": node})["quick"]["seconds"] == 99.0


# --- borrowed figures ---------------------------------------------------------------------------------------------


def test_a_page_borrows_a_figure_with_its_passport(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "index.md").write_text("```{include} _generated/figure_01_figure01.md\n```")
    notebooks = {"01_page": chapter()}
    (text,) = borrowed.borrowed_figures(tmp_path, notebooks, notebooks).values()
    assert "One dot." in text and "book-passport" in text and "make figure N=01 CELL=figure01" in text
    assert "book-passport" not in nbformat.writes(notebooks["01_page"])
    (bare,) = borrowed.borrowed_figures(tmp_path, notebooks, {}).values()
    assert "not executed" in bare


@pytest.mark.parametrize("cell, fault", [("nowhere", "not there"), ("params01", "draws none")])
def test_a_figure_that_cannot_be_borrowed_is_named(tmp_path, cell, fault):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "index.md").write_text(f"_generated/figure_01_{cell}.md")
    with pytest.raises(BuildError, match=fault):
        borrowed.borrowed_figures(tmp_path, {"01_page": chapter()}, {"01_page": chapter()})


# --- elsewhere ----------------------------------------------------------------------------------------------------


def test_buttons_appear_with_an_address_only():
    bare = yaml.safe_load(launch.with_buttons('repository: {url: "", branch: main}\nhtml: {a: 1}'))
    assert bare == {"html": {"a": 1}}
    there = yaml.safe_load(launch.with_buttons("repository: {url: https://example.org/book, branch: main}"))
    assert there["launch_buttons"]["colab_url"].startswith("https://colab") and there["html"]["use_repository_button"]


def test_the_first_cell_is_written_once_and_follows_the_address():
    node = chapter()
    n = len(node.cells)
    for where in ("", "https://example.org/book"):
        launch.with_setup(node, where)
        assert len(node.cells) == n + 1 and f'REPOSITORY = "{where}"' in node.cells[1].source
    assert node.cells[1].metadata["tags"] == ["remove-cell", "setup"]


def test_the_first_cell_does_nothing_where_the_library_is_and_says_what_to_do_where_it_is_not(monkeypatch):
    import importlib.util

    code = launch.SETUP.format(address="")
    exec(code, {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install -e"):
        exec(code, {})


# --- longer runs --------------------------------------------------------------------------------------------------


@pytest.fixture
def kept_run(tmp_path):
    """Return a root with a longer run of a chapter in it, and the chapter."""
    text = '## What to take away\n\n- It has {glue:text}`page_c`. <a href="#cell-figure01">shown here</a>'
    node = chapter(takeaways=text)
    made = chapter(takeaways=text)
    entry = {"id": "C8", "cohort": "SCAN-B", "lines": [{"mean": 0.1}], "anchor": "c8"}
    shown = {"scrapbook": {"name": "page_c", "mime_prefix": "application/papermill.record/"}}
    made.cells[2].outputs += [
        new_output("display_data", {"application/papermill.record/text/plain": "'0.71'"}, metadata=shown),
        new_output("display_data", {"text/plain": ""}, metadata={"ledger": [entry, entry | {"lines": []}]}),
    ]
    made.metadata["run"]["profile"] = "paper"
    made.metadata["papermill"]["parameters"] = {"cohort": "scanb", "model_seed": 9}
    folder = tmp_path / "_build" / "executed" / "paper"
    folder.mkdir(parents=True)
    (tmp_path / "data" / "results").mkdir(parents=True)
    nbformat.write(made, folder / "01_page.ipynb")
    return tmp_path, node


def test_a_longer_run_is_kept_and_tells_the_takeaways_in_its_numbers(kept_run):
    root, node = kept_run
    assert longer.kept(root) == {} and longer.keep(root, "paper") == ["01_page"]
    page = dressing.dressed("01_page", node, {}, longer.kept(root)["01_page"])
    (box,) = [cell.source for cell in page.cells if cell.id == "longer-run"]
    assert "- It has 0.71." in box and "`model_seed` 9" in box and "shown here" not in box
    assert "make book PROFILE=paper ONLY=01" in box
    (entry,) = longer.kept_entries(root)
    assert entry["cohort"] == "SCAN-B, longer run" and entry["page"] == "notebooks/01_page.html#longer-run"


def test_a_longer_run_is_silent_where_a_number_is_missing_or_the_page_is_that_run(kept_run):
    root, node = kept_run
    longer.keep(root, "paper")
    run = longer.kept(root)["01_page"]
    assert longer.longer_box("01_page", node, run | {"values": {}}) == ""
    node.metadata["run"]["profile"] = "paper"
    assert not any(cell.id == "longer-run" for cell in dressing.dressed("01_page", node, {}, run).cells)


def test_nothing_to_keep_is_said(tmp_path):
    with pytest.raises(BuildError, match="make book PROFILE=paper"):
        longer.keep(tmp_path, "paper")

"""The explorer's page: every choice leads to a row, and the grid is there without a script."""

import json
import re
import sys
from itertools import product
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book"))

import explorer  # noqa: E402
import explorer_page  # noqa: E402


@pytest.fixture
def kept(tmp_path):
    """Return a root whose grid is whole, with made-up scores."""
    (tmp_path / "data" / "results").mkdir(parents=True)
    score = {
        "c": 0.6,
        "c_sd": 0.05,
        "age": 0.8,
        "events": 7.0,
        "predicted": [0.1, 0.2, 0.3],
        "observed": [0.1, 0.1, 0.4],
    }
    done = {
        explorer.name_of(cell): cell
        | {"parameters": 1000, "epochs": 60, "patients": 80, "scores": {str(y): score for y in explorer.YEARS}}
        for cell in explorer.cells()
    }
    (tmp_path / explorer.KEPT).write_text(json.dumps(done))
    return tmp_path


def page(root):
    text = explorer_page.explorer_files(root)["explorer.md"]
    return BeautifulSoup(re.sub(r"^```.*$", "", text, flags=re.M), "html.parser")


def test_every_choice_leads_to_one_row(kept):
    found = page(kept)
    rows = json.loads(found.select_one(".book-explorer-data").string)
    values = [[button["value"] for button in group.select("input")] for group in found.select("fieldset")]
    names = [group.select_one("input")["name"] for group in found.select("fieldset")]
    for choice in product(*values):
        chosen = dict(zip(names, choice, strict=True))
        assert sum(all(str(row[name]) == value for name, value in chosen.items()) for row in rows) == 1
    assert all(group.select_one("input[checked]") for group in found.select("fieldset"))


def test_without_a_script_the_whole_grid_is_a_table_with_headers(kept):
    found = page(kept)
    assert found.select_one("form.book-explorer").has_attr("hidden")
    n = len(list(explorer.cells())) * len(explorer.YEARS)
    assert len(found.select("tbody tr")) == n
    assert all(head["scope"] == "col" for head in found.select("th")) and found.select_one("caption").get_text(
        strip=True
    )


def test_before_anything_is_trained_the_page_says_how(tmp_path):
    assert "make explorer" in explorer_page.explorer_files(tmp_path)["explorer.md"]


def test_names_of_cells_are_all_different():
    names = [explorer.name_of(cell) for cell in explorer.cells()]
    assert len(set(names)) == len(names) == 18


@pytest.mark.slow
def test_a_cell_of_the_grid_is_trained_to_finite_scores(monkeypatch):
    monkeypatch.setattr(explorer, "COHORT", "planted")
    monkeypatch.setattr(explorer, "SPLITS", 1)
    monkeypatch.setattr(explorer, "TRAINING", explorer.TRAINING | {"epochs": 2})
    found = explorer.trained({"tasks": "survival alone", "genes": 20, "layers": 1})
    assert found["parameters"] > 1000 and set(found["scores"]) == {"2", "4"}
    assert 0 <= found["scores"]["4"]["c"] <= 1

"""What counts as the same book twice, and as the same book on another machine."""

import json
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

RUNNER = Path(__file__).resolve().parents[1] / "book"
sys.path.insert(0, str(RUNNER))

import again  # noqa: E402

MIME = "application/papermill.record/"  # of what myst-nb glues without showing it


def executed(values, html="<p>0.5</p>"):
    glued = [
        new_output(
            "display_data",
            {f"{MIME}text/plain": repr(value)},
            metadata={"scrapbook": {"name": key, "mime_prefix": MIME}},
        )
        for key, value in values.items()
    ]
    shown = [new_output("display_data", {"text/html": html}), new_output("stream", text="said")]
    return new_notebook(cells=[new_code_cell("a", id="cell0001", outputs=glued + shown)])


def test_the_same_outputs_do_not_drift():
    assert again.drift(executed({"c": "0.61"}), executed({"c": "0.61"})) == []


def test_what_differs_is_named_by_key_or_by_cell():
    first = executed({"c": "0.61", "d": "1"})
    assert again.drift(first, executed({"c": "0.62", "d": "1"})) == ["glue c"]
    assert again.drift(first, executed({"c": "0.61"})) == ["glue d", *again.drift(first, executed({"c": "0.61"}))[1:]]
    changed = executed({"c": "0.61", "d": "1"}, html="<p>0.500001</p>")
    assert again.drift(first, changed) == ["cell cell0001, output 3"]


def test_what_a_clock_measured_may_differ():
    names = {"training_one_seconds": "3", "cost_peak_mb": "512"}
    assert again.drift(executed(names), executed({"training_one_seconds": "9", "cost_peak_mb": "600"})) == []
    assert again.glued(executed(names | {"c": "0.61"})) == {"c": "0.61"}


@pytest.mark.parametrize(
    "kept, now, far",
    [
        ("0.61 (0.55 to 0.70)", "0.63 (0.53 to 0.69)", False),
        ("0.61 (0.55 to 0.70)", "0.71 (0.55 to 0.70)", True),
        ("1,000", "1,040", False),
        ("1,000", "1,060", True),
        ("5 genes", "5 genes, 3 of them new", True),
        ("better", "worse", False),
    ],
)
def test_numbers_of_another_machine_are_compared_within_the_stated_tolerance(kept, now, far):
    assert bool(again.beyond({"key": kept}, {"key": now})) is far


def test_a_key_that_is_gone_is_named():
    assert again.beyond({"a": "1", "b": "2"}, {"b": "2"}) == ["a is gone"]


def test_faults_are_named_by_chapter_and_against_what(tmp_path):
    (tmp_path / "data" / "results").mkdir(parents=True)
    (tmp_path / again.KEPT).write_text(json.dumps({"01_page": {"c": "0.61"}}))
    pair = executed({"c": "0.90"}), executed({"c": "0.91"})
    twice, kept = again.compare(tmp_path, {"01_page": pair})
    assert twice == "not the same twice on this machine: 01_page: glue c"
    assert kept.endswith("01_page: c was '0.61' and is '0.90'")
    assert again.compare(tmp_path, {"02_page": (pair[0], pair[0])}) == []

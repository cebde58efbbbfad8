import json
import math
from collections import Counter
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from txtlib import ledger
from txtlib.ledger import (
    NOT_ATTEMPTED,
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    REPRODUCED,
    TOO_SMALL,
    as_well,
    better,
    claim,
    direction,
    enter,
    equal,
    not_attempted,
    together,
    value,
    value_verdict,
)

HERE = {"cohort": "TRANSBIG (GSE7390)", "patients": 198, "splits": 10}
SCANB = {"cohort": "SCAN-B, follow-up cohort of the 2022 release", "splits": 10}
TXT = "T1-STL-TxT-OS-c_index"  # published: 0.701
ENDS = st.floats(-0.1, 0.1)


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(ledger, "display", lambda data, raw, metadata: calls.append((data, metadata)))
    return calls


# --- the rule ---


@pytest.mark.parametrize(
    ("low", "high", "as_better", "as_equal"),
    [
        (1e-9, 0.5, REPRODUCED, NOT_REPRODUCED),
        (0.001, 0.02, REPRODUCED, REPRODUCED),
        (0.0, 0.02, NOT_REPRODUCED, REPRODUCED),  # an end at 0 does not exclude it
        (0.0, 0.021, TOO_SMALL, TOO_SMALL),
        (-0.02, 0.02, NOT_REPRODUCED, REPRODUCED),
        (-0.0201, 0.02, TOO_SMALL, TOO_SMALL),
        (-0.02, 0.0201, TOO_SMALL, TOO_SMALL),
        (-0.5, 0.0, TOO_SMALL, TOO_SMALL),
        (-0.5, -1e-9, NOT_REPRODUCED, NOT_REPRODUCED),
        (-0.02, -0.01, NOT_REPRODUCED, REPRODUCED),
        (0.3, 0.3, REPRODUCED, NOT_REPRODUCED),
    ],
)
def test_the_rule_at_its_edges(low, high, as_better, as_equal):
    assert (better(low, high), equal(low, high)) == (as_better, as_equal)


@given(ENDS, ENDS, st.floats(0, 0.1))
@example(0.0, 0.0, 0.0)
def test_what_the_rule_says_follows_from_where_the_interval_lies(one, other, margin):
    low, high = sorted((one, other))
    leaves_out_zero, small = not low <= 0 <= high, max(abs(low), abs(high)) <= margin
    assert (better(low, high, margin) == REPRODUCED) == (leaves_out_zero and low > 0)
    assert (better(low, high, margin) == TOO_SMALL) == (not leaves_out_zero and not small)
    assert (equal(low, high, margin) == REPRODUCED) == small
    assert (equal(low, high, margin) == TOO_SMALL) == (not leaves_out_zero and not small)
    assert equal(low, high, margin) == equal(-high, -low, margin)
    assert (as_well(low, high, margin) == REPRODUCED) == (low >= -margin)
    assert (as_well(low, high, margin) == NOT_REPRODUCED) == (low < -margin and high < 0)


def test_a_claim_holds_if_all_of_it_does_and_fails_if_a_part_does():
    for found in product((REPRODUCED, NOT_REPRODUCED, TOO_SMALL), repeat=3):
        if all(one == REPRODUCED for one in found):
            assert together(found) == REPRODUCED
        elif any(one == NOT_REPRODUCED for one in found):
            assert together(found) == NOT_REPRODUCED
        else:
            assert together(found) == TOO_SMALL


@given(st.floats(0, 1), ENDS, ENDS)
def test_a_published_value_is_compared_on_its_own_cohort_only(published, one, other):
    low, high = sorted((published + one, published + other))
    assert value_verdict(published, low, high, 0.02, own=False) == NOT_COMPARABLE
    assume(abs(abs(low - published) - 0.02) > 1e-6 and abs(abs(high - published) - 0.02) > 1e-6)
    assume(min(abs(low - published), abs(high - published)) > 1e-6)
    assert value_verdict(published, low, high, 0.02, own=True) == equal(low - published, high - published, 0.02)


def test_the_end_of_a_margin_is_within_it_in_decimal_numbers():
    assert 0.72 - 0.70 > 0.02  # floats
    assert value_verdict(0.70, 0.68, 0.72, 0.02, own=True) == REPRODUCED
    assert value_verdict(0.70, 0.6799, 0.72, 0.02, own=True) == TOO_SMALL
    assert value_verdict(8.42, 7.92, 8.92, 0.5, own=True) == REPRODUCED


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.71, 0.8, "higher"), (0.6, 0.69, "lower"), (0.7, 0.8, "holds"), (0.6, 0.7, "holds")],
)
def test_direction(low, high, said):
    assert said in direction(0.7, low, high)


# --- entries ---


def test_a_claim_of_one_comparison():
    entry = claim("C1", {"TxT against SVM": (0.03, -0.01, 0.07)}, events=51, **HERE)
    assert entry.verdict == TOO_SMALL and entry.words == "too small to tell (51 events)"
    assert claim("C1", {"TxT against SVM": (0.03, 0.01, 0.05)}, events=51, **HERE).words == "reproduced"


def test_without_events_the_patients_are_counted():
    assert claim("C5", {"accuracy": (0, -1, 1)}, **HERE).words == "too small to tell (198 patients)"


def test_a_claim_of_several_comparisons_counts_them():
    given = {"SVM": (0.03, 0.01, 0.05), "RF": (0.0, -0.01, 0.01), "MLP": (0.03, -0.01, 0.05)}
    entry = claim("C1", given, events=51, **HERE)
    assert [line.verdict for line in entry.lines] == [REPRODUCED, NOT_REPRODUCED, TOO_SMALL]
    assert entry.verdict == NOT_REPRODUCED
    assert entry.note == "of 3 comparisons: 1 reproduced, 1 not reproduced, 1 too small to tell"


def test_the_rule_of_a_claim_is_the_declared_one():
    declared = {"C1": "better", "C7": "as well", "C18": "equal"}
    for id, rule in declared.items():
        verdict = claim(id, {"x": (0.0, -0.01, 0.01)}, **HERE).verdict
        assert verdict == (NOT_REPRODUCED if rule == "better" else REPRODUCED)
    ahead = {id: claim(id, {"x": (0.3, 0.1, 0.5)}, **HERE).verdict for id in declared}
    assert ahead == {"C1": REPRODUCED, "C7": REPRODUCED, "C18": NOT_REPRODUCED}


def test_a_comparison_may_have_a_margin_of_its_own():
    years = {"age, mean absolute error": (0.1, -0.4, 0.5)}
    assert claim("C1", years, **HERE).verdict == TOO_SMALL
    wide = {name: (*interval, 0.5) for name, interval in years.items()}
    assert claim("C1", wide, **HERE).verdict == NOT_REPRODUCED
    assert claim("C1", wide, **HERE).lines[0].margin == 0.5


def test_a_comparison_fails_only_if_its_widened_interval_does_too():
    below, wide = {"SVM": (-0.03, -0.05, -0.01)}, {"SVM": (-0.07, 0.01)}
    assert claim("C1", below, **HERE).verdict == NOT_REPRODUCED
    assert claim("C1", below, widened=wide, **HERE).verdict == TOO_SMALL
    assert claim("C1", below, widened={"SVM": (-0.06, -0.001)}, **HERE).verdict == NOT_REPRODUCED
    above = {"SVM": (0.03, 0.01, 0.05)}  # all must hold, so each may be shown by itself
    assert claim("C1", above, widened={"SVM": (-0.01, 0.07)}, **HERE).verdict == REPRODUCED
    as_good = {"SVM": (0.0, -0.01, 0.01)}
    assert claim("C1", as_good, widened={"SVM": (-0.03, 0.03)}, **HERE).verdict == TOO_SMALL
    assert claim("C1", as_good, widened={"SVM": (-0.02, 0.02)}, **HERE).verdict == NOT_REPRODUCED


def test_an_undecided_comparison_is_shown_and_decides_nothing():
    given = {"SVM": (0.03, 0.01, 0.05), "MLP": (-0.03, -0.05, -0.01)}
    entry = claim("C1", given, undecided=["MLP"], **HERE)
    assert [line.verdict for line in entry.lines] == [REPRODUCED, TOO_SMALL] and entry.verdict == TOO_SMALL
    assert [line.mean for line in entry.lines] == [0.03, -0.03]


def test_a_part_of_a_claim_may_refute_it_and_never_reproduces_it():
    assert claim("C1", {"SVM": (0.03, 0.01, 0.05)}, partial=True, **HERE).verdict == TOO_SMALL
    assert claim("C1", {"SVM": (-0.03, -0.05, -0.01)}, partial=True, **HERE).verdict == NOT_REPRODUCED


def test_intervals_may_come_as_pandas_and_numpy_make_them():
    row = pd.Series({"mean": 0.03, "low": 0.01, "high": 0.05})
    found = claim("C1", {"SVM": row}, cohort="X", patients=np.int64(9), splits=np.int32(2), events=np.int64(3))
    assert found == claim("C1", {"SVM": (0.03, 0.01, 0.05)}, cohort="X", patients=9, splits=2, events=3)
    assert {type(n) for n in (found.patients, found.events, found.splits)} == {int}


def test_a_value_on_another_cohort_shows_its_direction():
    entry = value(TXT, (0.6, 0.55, 0.65), events=51, **HERE)
    assert entry.words == "not comparable (lower than published)" and entry.lines[0].compared == "published 0.701"


@pytest.mark.parametrize(
    ("score", "patients", "said"),
    [
        ((0.702, 0.69, 0.72), 6660, "reproduced (interval holds the published value)"),
        ((0.702, 0.69, 0.72), 5994, "reproduced (interval holds the published value)"),
        ((0.702, 0.69, 0.72), 5993, "not comparable (interval holds the published value)"),
        ((0.75, 0.73, 0.77), 6660, "not reproduced (higher than published)"),
        ((0.7, 0.65, 0.75), 6660, "too small to tell (700 events; interval holds the published value)"),
    ],
)
def test_a_value_on_the_articles_own_cohort(score, patients, said):
    assert value(TXT, score, patients=patients, events=700, **SCANB).words == said


def test_every_published_number_and_every_claim_can_be_entered():
    numbers, claims = ledger.published_rows(), ledger._claims()["claims"]
    assert len(numbers) == 115 and len(claims) == 19
    for id, number in numbers.items():
        mean = float(number["value"])
        assert value(id, (mean, mean, mean), **HERE).verdict == NOT_COMPARABLE
        assert id.endswith(number["metric"]) and number["method"] in id
    for id in claims:
        assert claim(id, {"x": (0.1, -0.1, 0.3)}, **HERE).verdict == TOO_SMALL
    assert Counter(number["claim"] for number in numbers.values()) == {"C1": 89, "C2": 20, "C4": 1, "C18": 5}


def test_only_a_cohort_of_an_article_is_declared_its_own():
    published = {number["cohort"] for number in ledger.published_rows().values()}
    assert set(ledger._claims()["cohorts"]) <= published


def test_a_row_that_is_not_attempted_says_why():
    assert not_attempted("C5", cohort="X", why="no PAM50 labels").words == "not attempted (no PAM50 labels)"
    assert not_attempted(TXT, cohort="X", why="y").verdict == NOT_ATTEMPTED


# --- what is refused ---


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: claim("C99", {"x": (0, 0, 0)}, **HERE), "no claim 'C99'; the nearest in data/: C"),
        (lambda: value("T1-STL-SVN-OS-c_index", (0, 0, 0), **HERE), "T1-STL-SVM-OS-c_index"),
        (lambda: value("C1", (0, 0, 0), **HERE), "no published value 'C1'"),
        (lambda: claim(TXT, {"x": (0, 0, 0)}, **HERE), "no claim"),
        (lambda: not_attempted("C99", cohort="X", why="y"), "no claim or published value 'C99'"),
        (lambda: not_attempted("C1", cohort="X", why=" "), "says why"),
        (lambda: not_attempted("C1", cohort="", why="y"), "on which cohort"),
        (lambda: claim("C1", {}, **HERE), "was given no comparison"),
        (lambda: claim("C1", {"x": (0.1, math.nan, 0.2)}, **HERE), "C1, x: 0.1 (nan to 0.2) is no interval"),
        (lambda: claim("C1", {"x": (math.inf, 0, 1)}, **HERE), "is no interval"),
        (lambda: claim("C1", {"x": (0.1, 0.3, 0.2)}, **HERE), "0.1 (0.3 to 0.2) is no interval"),
        (lambda: claim("C1", {"x": (0.1, 0.2)}, **HERE), "give mean, low and high"),
        (lambda: claim("C1", {"x": (0.1, 0.2, 0.3, 0.02, 5)}, **HERE), "give mean, low and high"),
        (lambda: claim("C1", {"x": ("a", 0.2, 0.3)}, **HERE), "give mean, low and high"),
        (lambda: claim("C1", {"x": 0.2}, **HERE), "give mean, low and high"),
        (lambda: claim("C1", {"x": (0.1, 0.1, 0.1, -1)}, **HERE), "margin is a number from 0 on"),
        (lambda: claim("C1", {"x": (0.1, 0.1, 0.1, math.nan)}, **HERE), "margin is a number from 0 on"),
        (lambda: claim("C1", {"x": (0.1, 0.1, 0.1, "b")}, **HERE), "give mean, low and high"),
        (lambda: value(TXT, (0.1, 0.1, 0.1, 0.5), **HERE), "give mean, low and high"),
        (lambda: value(TXT, pd.Series([1.0, 2.0]), **HERE), "not 0 1.0 1 2.0 dtype"),
        (lambda: value(TXT, 0.7, **HERE), "give mean, low and high"),
        (lambda: value(TXT, (0.7, 0.7, 0.7), **{**HERE, "patients": 0}), "whole numbers of patients"),
        (lambda: value(TXT, (0.7, 0.7, 0.7), **{**HERE, "patients": 9.5}), "whole numbers of patients"),
        (lambda: value(TXT, (0.7, 0.7, 0.7), **{**HERE, "splits": 0}), "whole numbers of patients"),
        (lambda: value(TXT, (0.7, 0.7, 0.7), **{**HERE, "cohort": " "}), "give the cohort's name"),
        (lambda: value(TXT, (0.7, 0.7, 0.7), events=199, **HERE), "no more than patients"),
        (lambda: value(TXT, (0.7, 0.7, 0.7), events=-1, **HERE), "no more than patients"),
        (lambda: enter(), "nothing to enter"),
    ],
)
def test_faults_are_one_sentence(make, said):
    with pytest.raises(ValueError) as caught:
        make()
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_library_without_its_repository_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(ledger, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="install txtlib from a clone"):
        claim("C1", {"x": (0, 0, 0)}, **HERE)


# --- kept and shown ---


def test_entries_are_kept_as_json_and_shown_as_a_table(shown):
    entries = [
        claim("C1", {"a < b": (0.01, -0.03, 0.05), "c": (0.1, 0.05, 0.15)}, events=51, **HERE),
        value(TXT, (0.6, 0.55, 0.65), events=51, **HERE),
        not_attempted("C5", cohort="A & B", why="no <labels>"),
    ]
    enter(*entries)
    data, metadata = shown[0]
    kept = json.loads(json.dumps(metadata["ledger"], allow_nan=False))
    assert [(entry["id"], entry["verdict"]) for entry in kept] == [(e.id, e.verdict) for e in entries]
    assert kept[0]["lines"][1] == {
        "compared": "c", "mean": 0.1, "low": 0.05, "high": 0.15, "margin": 0.02, "verdict": REPRODUCED,
    }  # fmt: skip
    for entry, made in zip(kept, entries, strict=True):
        assert data["text/html"].count(f'id="{entry["anchor"]}"') == 1
        assert f"{made.id} on {made.cohort}: {made.words}" in data["text/plain"]
    assert "a &lt; b" in data["text/html"] and "no &lt;labels&gt;" in data["text/html"]
    assert "0.600 (0.550 to 0.650)" in data["text/html"]


def test_anchors_keep_entries_apart():
    made = [value(id, (0, 0, 0), **HERE).anchor for id in ledger.published_rows()]
    made += [claim("C1", {"x": (0, 0, 0)}, **{**HERE, "cohort": cohort}).anchor for cohort in ("A", "B (2)")]
    assert len(set(made)) == len(made) and all(anchor.replace("-", "").isalnum() for anchor in made)

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from txtlib import ledger
from txtlib.cohort import Task, make_cohort
from txtlib.entries_maps import (
    bonferroni,
    gains,
    group_shapes,
    learned,
    maps_entry,
    other_labels,
    patient_errors,
    shared_neighbours,
)
from txtlib.interpret.maps import neighbour_differences
from txtlib.predictions import Predictions

TASKS = (
    Task("Age", "regression", ("Age",)),
    Task("NHG", "classification", ("NHG",)),
    Task("OS", "survival", ("OS_duration", "OS_event")),
)
ABOUT = dict(cohort="known", patients=80, splits=1, events=50)


def cohort_of(place, seed=0):
    """Return patients whose labels follow ``place`` (n,), the first without age and the second without grade."""
    rng, n = np.random.default_rng(seed), len(place)
    samples = pd.Index([f"S{row:03d}" for row in range(n)], name="Sample")
    clinical = pd.DataFrame(
        {
            "Age": 60 + 10 * place + rng.normal(0, 3, n),
            "NHG": np.array(["G1", "G2"])[(place > 0).astype(int)],
            "OS_duration": rng.exponential(1000 * np.exp(-1.5 * place)),
            "OS_event": (rng.random(n) < 0.7).astype(float),
        },
        samples,
    )
    clinical.loc[samples[0], "Age"] = np.nan
    clinical.loc[samples[1], "NHG"] = None
    return make_cohort(pd.DataFrame(rng.random((n, 2)), samples, ["a", "b"]), clinical, TASKS, {"name": "known"})


@pytest.fixture(scope="module")
def known():
    """Patients on a line, two spaces that hold it, better and worse, and one of noise."""
    rng = np.random.default_rng(1)
    place = rng.normal(size=80)
    good, blurred = (np.column_stack([place, width * rng.normal(size=80)]) for width in (0.1, 1.0))
    return cohort_of(place), {"good": good, "blurred": blurred, "noise": rng.normal(size=(80, 4))}


# --- rows ---------------------------------------------------------------------------------------------------------


def test_gains_of_one_network_are_the_differences_over_patients(known):
    cohort, spaces = known
    found = gains([spaces], cohort, "good", "noise", resamples=60)
    theirs = neighbour_differences(spaces, cohort, "noise", resamples=60).query("space == 'good'").set_index("task")
    assert list(found.index) == ["Age", "NHG", "OS"] and (found["seeds"] == 1).all()
    np.testing.assert_allclose(found[["mean", "low", "high"]], theirs[["difference", "low", "high"]])


def test_gains_over_networks_are_their_mean_and_wider_where_they_differ(known):
    cohort, spaces = known
    networks = [{"TxT": spaces[name], "expression": spaces["noise"]} for name in ("good", "noise")]
    both = gains(networks, cohort, "TxT", "expression", resamples=200)
    one = gains(networks[:1], cohort, "TxT", "expression", resamples=200)
    np.testing.assert_allclose(both["mean"], one["mean"] / 2)
    np.testing.assert_allclose(both[["least", "most"]], np.column_stack([np.zeros(3), one["mean"]]), atol=1e-12)
    assert ((both["high"] - both["low"]) > (one["high"] - one["low"])).loc[["Age", "NHG"]].all()
    same = gains([networks[0]] * 3, cohort, "TxT", "expression", resamples=200)
    np.testing.assert_allclose(same[["mean", "low", "high"]], one[["mean", "low", "high"]])


def test_gains_hold_their_mean_and_widen_with_the_level(known):
    cohort, spaces = known
    names, resamples = ("good", "blurred", "noise"), 40
    networks = [{"TxT": spaces[name], "expression": spaces["blurred"]} for name in names]
    single = [gains([one], cohort, "TxT", "expression", resamples=1) for one in networks]
    found = gains(networks, cohort, "TxT", "expression", resamples=resamples)
    np.testing.assert_allclose(found["mean"], np.mean([one["mean"] for one in single], axis=0))
    assert (found["low"] < found["mean"]).all() and (found["mean"] < found["high"]).all()
    wider = gains(networks, cohort, "TxT", "expression", resamples=resamples, level=0.99)
    assert (wider["low"] <= found["low"]).all() and (wider["high"] >= found["high"]).all()


def test_gains_are_undefined_without_an_event(known):
    cohort, spaces = known
    still = replace(cohort, clinical=cohort.clinical.assign(OS_event=0.0))
    found = gains([spaces], still, "good", "noise", resamples=10)
    assert found.loc["OS", ["mean", "low", "high"]].isna().all() and found.loc["Age"].notna().all()


@pytest.mark.parametrize("shift, expected", [(0.2, ["Age"]), (0.0, []), (-0.2, [])])
def test_learned_is_better_than_a_constant_on_average(shift, expected):
    rng = np.random.default_rng(0)
    draws = pd.DataFrame({(f"TxT {seed}", "Age", "Spearman"): shift + rng.normal(0, 0.05, 101) for seed in range(2)})
    draws["constant", "Age", "Spearman"] = 0.0
    draws["TxT 0", "OS", "Uno's C"] = 0.9  # of one network only: nothing is said
    main = {"Age": "Spearman", "OS": "Uno's C"}
    assert learned(draws, ["TxT 0", "TxT 1"], "constant", main) == expected


# --- entry --------------------------------------------------------------------------------------------------------


def rows_of(**intervals):
    return pd.DataFrame(intervals, ["mean", "low", "high"]).T


GOOD = rows_of(Age=[0.3, 0.2, 0.4], NHG=[0.1, 0.05, 0.2], PAM50=[0.2, 0.1, 0.3], OS=[0.1, 0.03, 0.2])
BAD = rows_of(Age=[0.3, 0.2, 0.4], NHG=[-0.1, -0.2, -0.05], PAM50=[0.2, 0.1, 0.3], OS=[0.1, 0.03, 0.2])
WIDE = BAD.assign(low=BAD["low"] - 0.1, high=BAD["high"] + 0.1)
EVERY = (*TASKS, Task("PAM50", "classification", ("PAM50",)))
NAMES = list(GOOD.index)


@pytest.mark.parametrize(
    "found, widened, told, verdict",
    [
        (GOOD, GOOD, NAMES, ledger.REPRODUCED),
        (BAD, BAD, NAMES, ledger.NOT_REPRODUCED),
        (BAD, WIDE, NAMES, ledger.TOO_SMALL),
        (BAD, BAD, ["Age", "PAM50", "OS"], ledger.TOO_SMALL),
        (GOOD, GOOD, ["Age"], ledger.TOO_SMALL),
    ],
)
def test_the_entry_follows_the_rule(found, widened, told, verdict):
    entry = maps_entry(found, widened, EVERY, told, **ABOUT, note="small")
    assert entry.verdict == verdict and "98.75 %" in entry.note and entry.note.endswith("small")
    assert all((name in entry.note.split("constant: ")[-1]) for name in NAMES if name not in told)


def test_the_entry_is_partial_without_what_the_claim_speaks_of():
    found = GOOD.loc[["Age", "NHG", "PAM50"]]
    entry = maps_entry(found, found, EVERY, NAMES, **ABOUT)
    assert entry.verdict == ledger.TOO_SMALL and "without survival" in entry.note
    found = GOOD.loc[["Age", "NHG", "OS"]]
    assert "without PAM50" in maps_entry(found, found, EVERY, NAMES, **ABOUT).note


def test_the_entry_without_a_defined_row_is_not_attempted():
    found = GOOD * np.nan
    assert maps_entry(found, found, EVERY, NAMES, **ABOUT).verdict == ledger.NOT_ATTEMPTED


def test_the_level_is_divided_by_the_comparisons():
    assert [bonferroni(n) for n in (0, 1, 5)] == pytest.approx([0.95, 0.95, 0.99])


# --- beside the picture -------------------------------------------------------------------------------------------


def answer_of(cohort, hazard, end=1e6):
    """Return an answer of one age, an even chance of each grade, and curves whose hazard by the follow-up is given."""
    n = len(cohort)
    shares = pd.DataFrame(np.tile([0.25, 0.75], (n, 1)), cohort.samples, ["G1", "G2"])
    curves = np.repeat(np.exp(-np.asarray(hazard, float))[:, None], 2, 1)
    return Predictions(cohort.samples, np.array([1e-9, end]), curves, {"Age": np.full(n, 60.0)}, {"NHG": shares})


def test_errors_are_distances_from_the_label(known):
    cohort, _ = known
    found = patient_errors(answer_of(cohort, np.full(80, 0.5)), cohort)
    np.testing.assert_allclose(found["Age"], np.abs(60 - cohort.clinical["Age"]))
    assert np.isnan(found["Age"].iloc[0]) and np.isnan(found["NHG"].iloc[1])
    second = (cohort.clinical["NHG"] == "G2").to_numpy()
    np.testing.assert_allclose(found["NHG"][second], 0.25)
    np.testing.assert_allclose(found["NHG"].drop(found.index[1])[~np.delete(second, 1)], 0.75)


def test_a_class_that_nobody_knows_is_all_wrong(known):
    cohort, _ = known
    other = replace(cohort, clinical=cohort.clinical.assign(NHG="G3"))
    assert (patient_errors(answer_of(other, np.zeros(80)), other)["NHG"] == 1).all()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0.01, 8), min_size=80, max_size=80))
def test_survival_errors_are_deviance_residuals(hazards):
    cohort = cohort_of(np.zeros(80))
    found = patient_errors(answer_of(cohort, hazards), cohort)["OS"]
    for hazard, event, error in zip(hazards, cohort.clinical["OS_event"], found, strict=True):
        slow = 2 * (hazard - 1 - math.log(hazard)) if event else 2 * hazard
        assert error**2 == pytest.approx(max(slow, 0), abs=1e-6)


def test_survival_errors_stay_finite_and_read_the_curve_to_its_end(known):
    cohort, _ = known
    sure = patient_errors(answer_of(cohort, np.full(80, 1e3), end=1.0), cohort)["OS"]
    blank = patient_errors(answer_of(cohort, np.zeros(80)), cohort)["OS"]
    assert np.isfinite(sure).all() and np.isfinite(blank).all()
    lost = replace(cohort, clinical=cohort.clinical.assign(OS_duration=np.nan))
    assert patient_errors(answer_of(lost, np.zeros(80)), lost)["OS"].isna().all()


def test_other_labels_leave_out_the_task_and_survival(known):
    cohort, _ = known
    for_age, for_grade, for_survival = (other_labels(cohort, name) for name in ("Age", "NHG", "OS"))
    assert for_age.shape == (80, 2) and set(for_age.ravel()) == {0.0, 1.0} and not for_age[1].any()
    age = cohort.clinical["Age"]
    np.testing.assert_allclose(for_grade[1:, 0], ((age - age.mean()) / age.std())[1:])
    assert for_grade[0, 0] == 0 and for_survival.shape == (80, 3)
    assert other_labels(cohort.with_tasks("OS"), "OS").shape == (80, 0)


def test_shared_neighbours_by_a_slow_count():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(30, 3)), rng.normal(size=(30, 2))
    shares = []
    for row in range(30):
        near = [set(np.argsort(np.linalg.norm(space - space[row], axis=1))[1:6]) for space in (one, other)]
        shares.append(len(near[0] & near[1]) / 5)
    assert shared_neighbours(one, other, 5) == pytest.approx(np.mean(shares))
    assert shared_neighbours(one, 7 * one + 1, 5) == 1
    with pytest.raises(ValueError, match="not of 30 and 29"):
        shared_neighbours(one, other[:29], 5)


def test_group_shapes_of_groups_on_a_line():
    space = np.array([[0.0], [2.0], [10.0], [12.0], [50.0], [90.0]])
    labels = pd.Series(["a", "a", "b", "b", "c", None])
    found = group_shapes(space, labels)
    unit = np.std([0, 2, 10, 12, 50])
    np.testing.assert_allclose(found.loc["a"], [2, 1 / unit, 10 / unit])
    np.testing.assert_allclose(found.loc["b"], [2, 1 / unit, 10 / unit])
    assert "c" not in found.index  # a single patient has no width
    np.testing.assert_allclose(group_shapes(3 * space, labels), found)
    assert np.isnan(group_shapes(space[:2], labels[:2])["gap"].iloc[0])

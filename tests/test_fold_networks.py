import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from txtlib.cohort import CohortError, Task, make_cohort
from txtlib.interpret.fold_networks import dealt_folds, narrowed
from txtlib.splits import fold_split


def cohort_of(n=80, genes=12, samples_each=1, seed=0):
    """Return a cohort whose gene k has the SD k + 1, half of it in the group, a quarter with an event."""
    rng = np.random.default_rng(seed)
    samples = pd.Index([f"S{row:03d}" for row in range(n)], name="Sample")
    spread = np.arange(1, genes + 1)
    expression = pd.DataFrame(spread * rng.normal(size=(n, genes)), samples, [f"G{k}" for k in spread])
    rows = np.arange(n) // samples_each
    clinical = pd.DataFrame(
        {"Patient": [f"P{row}" for row in rows], "T": 1.0 + rows, "E": (rows % 4 == 0).astype(float)}, samples
    )
    return make_cohort(expression, clinical, (Task("OS", "survival", ("T", "E")),), {"name": "TRY"}, "TRY")


@given(st.integers(2, 5), st.integers(0, 10**6))
@settings(deadline=None, max_examples=25)
def test_each_fold_holds_its_share_of_members_and_events(count, seed):
    cohort = cohort_of()
    member = np.random.default_rng(seed).random(80) < 0.5
    event = cohort.outcome()[1] == 1
    if (member & event).sum() < count:
        return
    labels = dealt_folds(cohort, member, count, seed).labels.loc[cohort.samples].to_numpy()
    for kind in (member & event, member & ~event, ~member & event, ~member & ~event):
        sizes = np.bincount(labels[kind], minlength=count)
        assert np.ptp(sizes) <= 1 and sizes.sum() == kind.sum()


def test_samples_of_a_patient_stay_together_and_the_seed_decides():
    cohort, member = cohort_of(samples_each=2), np.ones(80, bool)
    first, again, other = (dealt_folds(cohort, member, 3, seed).labels for seed in (1, 1, 2))
    assert (first.groupby(cohort.patients()).nunique() == 1).all()
    pd.testing.assert_series_equal(first, again)
    assert not first.equals(other)


def test_too_few_events_or_folds_are_a_sentence():
    cohort, member = cohort_of(), np.zeros(80, bool)
    with pytest.raises(ValueError, match="two or more"):
        dealt_folds(cohort, ~member, 1)
    with pytest.raises(CohortError, match="0 patients with an event, too few for 3"):
        dealt_folds(cohort, member, 3)


def test_narrowed_keeps_the_forced_genes_and_the_most_variable_of_the_training_part():
    cohort = cohort_of()
    parts = fold_split(cohort, dealt_folds(cohort, np.ones(80, bool), 3), 0)
    few = narrowed(parts, 4, forced=["G1", "G2"])
    others = parts.train.expression.drop(columns=["G1", "G2"]).std().sort_values(ascending=False).index[:2]
    for own, whole in zip(few, parts, strict=True):
        assert list(own.expression) == ["G1", "G2", *others]
        pd.testing.assert_frame_equal(own.expression, whole.expression[["G1", "G2", *others]])
    listed = narrowed(parts, 3, ["G3", "G4", "G5"], ["G1"])
    assert listed.train.expression.columns[0] == "G1" and set(listed.train.expression) <= {"G1", "G3", "G4", "G5"}
    with pytest.raises(CohortError, match="does not measure 'G99'"):
        narrowed(parts, 4, forced=["G99"])

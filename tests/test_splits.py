import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import build_cohort
from hypothesis import given, settings
from hypothesis import strategies as st

from txtlib.cohort import CohortError, load_cohort, split
from txtlib.splits import Folds, cluster_folds, cut, fold_split, folds_from, make_folds, stratified_order

N_GENES = 12


def clumped(n=90, seed=0):
    """Return a cohort of three clumps of patients, of 45, 27 and 18, and the clump of each."""
    cohort = build_cohort(n, N_GENES, seed)
    clump = np.repeat([0, 1, 2], [n // 2, 3 * n // 10, n // 5])
    clump = np.random.default_rng(seed).permutation(clump)
    centres = 6 * np.random.default_rng(seed + 1).normal(size=(3, N_GENES))
    noise = np.random.default_rng(seed + 2).normal(size=(n, N_GENES))
    values = pd.DataFrame(centres[clump] + noise, cohort.samples, cohort.expression.columns, dtype=np.float32)
    return replace(cohort, expression=values), clump


# --- folds --------------------------------------------------------------------------------------------------------


def test_clusters_that_are_there_are_found_and_numbered_by_size():
    cohort, clump = clumped()
    folds = cluster_folds(cohort, k=3, components=3)
    np.testing.assert_array_equal(folds.labels, clump)  # the clumps are numbered by size too
    assert list(folds.labels.index) == list(cohort.samples) and len(folds) == 3
    assert json.loads(json.dumps(folds.about)) == folds.about


def test_clusters_look_at_no_label_and_only_at_the_given_seed():
    cohort, _ = clumped()
    folds = cluster_folds(cohort, k=4, seed=1)
    before = np.random.get_state()[1].copy()
    other = replace(cohort, clinical=cohort.clinical.assign(Age=0.0, OS_event=1.0, Grade="G1"))
    pd.testing.assert_series_equal(cluster_folds(other, k=4, seed=1).labels, folds.labels)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_one_outlier_in_a_heavy_tail_is_no_cluster_of_its_own():
    cohort, clump = clumped()
    values = cohort.expression.copy()
    values.iloc[0] = 1e6
    folds = cluster_folds(replace(cohort, expression=values), k=3, components=3)
    np.testing.assert_array_equal(folds.labels.iloc[1:], clump[1:])


def test_clusters_of_a_cohort_with_missing_values(build):
    assert build(60).expression.isna().any(axis=None)
    assert sorted(set(cluster_folds(build(60), k=2).labels)) == [0, 1]


def test_folds_of_your_own_are_numbered_in_the_order_of_their_labels(build):
    cohort = build(60)
    sites = pd.Series(np.resize(["Lund", "Malmo", "Aarhus"], 60), cohort.samples)
    folds = make_folds(cohort, folds_from(sites, "site"))
    assert [sites[folds.labels == fold].unique().tolist() for fold in range(3)] == [["Aarhus"], ["Lund"], ["Malmo"]]
    assert folds.about["name"] == "site"
    shuffled = folds_from(sites.sample(frac=1, random_state=0), "site")
    pd.testing.assert_series_equal(make_folds(cohort, shuffled).labels, folds.labels)


def test_samples_of_one_patient_come_into_one_fold(build):
    cohort = build(60)
    patients = [f"P{row // 3}" for row in range(60)]
    cohort = replace(cohort, clinical=cohort.clinical.assign(Patient=patients))
    labels = pd.Series(np.tile([1, 0, 0, 1, 1, 0], 10), cohort.samples)  # two of three samples say which
    folds = make_folds(cohort, folds_from(labels))
    assert folds.labels.tolist() == [0, 0, 0, 1, 1, 1] * 10
    for part in fold_split(cohort, folds, 0):
        assert (part.patients().value_counts() == 3).all()


def test_a_split_by_folds_tests_on_one_and_divides_the_others():
    cohort, clump = clumped(200)
    folds = cluster_folds(cohort, k=3, components=3)
    for fold in range(3):
        train, validation, test = fold_split(cohort, folds, fold)
        assert set(test.samples) == set(cohort.samples[clump == fold])
        assert sorted([*train.samples, *validation.samples, *test.samples]) == sorted(cohort.samples)
        rest = cohort.take(cohort.samples[clump != fold])
        assert len(validation) == round(len(rest) / 8)
        share = np.nanmean(rest.outcome()[1])
        assert abs(np.nansum(validation.outcome()[1]) - share * len(validation)) <= 2


def test_a_split_by_folds_is_the_same_each_time_and_another_for_another_seed():
    cohort, clump = clumped(200)
    splits = [fold_split(cohort, folds_from(pd.Series(clump, cohort.samples), seed=seed), 0) for seed in (0, 0, 1)]
    first, again, other = (list(parts.validation.samples) for parts in splits)
    assert first == again != other


# --- cut training parts -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def train():
    return split(load_cohort("planted"), 0).train


def test_cut_parts_are_nested_stratified_and_in_order(train):
    sizes = [50, 51, 120, 300, len(train)]
    parts = [cut(train, size, 3) for size in sizes]
    share = train.outcome()[1].mean()
    for size, part, larger in zip(sizes, parts, [*parts[1:], train], strict=True):
        assert len(part) == size and set(part.samples) <= set(larger.samples)
        assert abs(part.outcome()[1].sum() - share * size) <= 1
        assert list(part.samples) == [sample for sample in train.samples if sample in set(part.samples)]
    assert list(parts[-1].samples) == list(train.samples)
    assert set(cut(train, 50, 4).samples) != set(parts[0].samples)


def test_a_part_is_cut_by_patients(build):
    cohort = build(60)
    cohort = replace(cohort, clinical=cohort.clinical.assign(Patient=[f"P{row // 2}" for row in range(60)]))
    part = cut(cohort, 10, 0)
    assert len(part) == 20 and part.patients().nunique() == 10


@settings(max_examples=40)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(0, 5))
def test_each_beginning_of_the_order_holds_each_stratums_share(strata, seed):
    cohort = build_cohort(60)
    cohort = cohort.take(cohort.samples[: len(strata) + 2])
    grade = [f"G{k + 1}" for k in strata] + [None, None]
    cohort = replace(cohort, clinical=cohort.clinical.assign(Grade=grade)).with_tasks("Grade")
    order = stratified_order(cohort, [seed])
    assert sorted(order) == sorted(cohort.samples)
    seen = pd.get_dummies(cohort.clinical["Grade"].fillna("").loc[order]).cumsum().to_numpy()
    expected = np.outer(np.arange(1, len(order) + 1) / len(order), seen[-1])
    assert np.abs(seen - expected).max() <= seen.shape[1] / 2 + 1e-9


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scheme", [{"name": "kmeans"}, {"k": 3}, {"name": "clusters", "n": 3}, {"name": "random", "seed": 1}]
)
def test_a_scheme_that_is_not_known_is_refused(scheme, build):
    with pytest.raises(ValueError, match=r"A scheme is .*'random'.*'clusters'.*folds of your own"):
        make_folds(build(), scheme)


def test_random_splits_need_no_folds(build):
    assert make_folds(build(), None) is None and make_folds(build(), {"name": "random"}) is None


def test_folds_that_cannot_be_tested_are_refused(build):
    cohort = build(60)
    with pytest.raises(CohortError, match=r"fold 1 of 2 \(given\) has 5 patients and \d events of 'OS'.*needs 10 and"):
        make_folds(cohort, folds_from(pd.Series([0] * 55 + [1] * 5, cohort.samples)))
    by_event = pd.Series(cohort.outcome()[1], cohort.samples).fillna(0)
    with pytest.raises(CohortError, match=r"fold 0 of 2 \(given\) has \d+ patients and 0 events of 'OS'"):
        make_folds(cohort, folds_from(by_event))
    with pytest.raises(CohortError, match=r"fold \d of 5 \(clusters\) has \d patients.*take fewer folds"):
        cluster_folds(build(40))


def test_labels_that_are_no_folds_are_refused(build):
    cohort = build(60)
    with pytest.raises(ValueError, match="a label for each sample, and two or more of them; 'site' has not"):
        folds_from(pd.Series(["a"] * 60, cohort.samples), "site")
    with pytest.raises(ValueError, match="a label for each sample"):
        folds_from(pd.Series(["a", None, "b"]))
    with pytest.raises(CohortError, match=r"1 of 60 samples have no fold in 'given' .the first is 'S000'"):
        make_folds(cohort, folds_from(pd.Series(np.resize([0, 1], 59), cohort.samples[1:])))
    with pytest.raises(ValueError, match="k is from 2 to the number of patients, not 1"):
        cluster_folds(cohort, k=1)
    with pytest.raises(ValueError, match="There are 2 folds, 0 to 1: no data seed 2"):
        fold_split(cohort, folds_from(pd.Series(np.resize([0, 1], 60), cohort.samples)), 2)


def test_a_part_cannot_be_cut_to_more_than_it_has_or_to_no_event(train, build):
    with pytest.raises(CohortError, match="has 420 patients, so it cannot be cut to 421"):
        cut(train, 421, 0)
    with pytest.raises(CohortError, match="cannot be cut to 0"):
        cut(train, 0, 0)
    with pytest.raises(CohortError, match=r"the cut train part .1 samples. holds no event of 'OS'"):
        cut(train, 1, 0)


def test_a_part_without_an_event_is_refused(build):
    cohort = build(60)
    event = np.zeros(60)
    event[[5, 59]] = 1  # one for the test part, one for the others
    cohort = replace(cohort, clinical=cohort.clinical.assign(OS_event=event))
    folds = Folds(pd.Series([0] * 30 + [1] * 30, cohort.samples), {"name": "halves"})
    with pytest.raises(CohortError, match=r"the (train|validation) part .* holds no event of 'OS'"):
        fold_split(cohort, folds, 0)

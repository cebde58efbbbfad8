"""Permuted labels: what is taken away is the link between expression and labels, and nothing else."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from txtlib.cohort import load_cohort, split
from txtlib.metrics import harrell_c, spearman
from txtlib.peers.coxnet import coxnet
from txtlib.peers.floors import ClinicalCox, ridge_age_cox
from txtlib.peers.pca import pca
from txtlib.peers.permuted import PermutedLabels, coxnet_permuted, permuted, permuted_task, txt_permuted
from txtlib.peers.txt import txt
from txtlib.planted import planted
from txtlib.predictions import Predictions

TXT = dict(n_genes=12, n_times=5, grid="quantile", width=8, layers=1, heads=2, readout="mean", epochs=2)


class Watching:
    """Keeps what it is given."""

    def fit(self, train, validation):
        self.parts = train, validation

    def predict(self, cohort):
        return Predictions(cohort.samples, score=np.arange(float(len(cohort))))


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("gse7390"), seed=0)


@pytest.fixture(scope="module")
def seen(parts):
    method = Watching()
    PermutedLabels(method, seed=0).fit(parts.train, parts.validation)
    return method.parts


def rows(clinical):
    return sorted(map(repr, clinical.itertuples(index=False)))


# --- what the method sees -----------------------------------------------------------------------------------------


def test_all_labels_of_a_patient_move_together_and_within_their_part(parts, seen):
    for given_part, part in zip(seen, parts, strict=False):
        assert rows(given_part.clinical) == rows(part.clinical)  # the same patients' labels, whole
        moved = ~(given_part.clinical.eq(part.clinical) | given_part.clinical.isna()).all(axis=1)
        assert moved.mean() > 0.8


def test_expression_names_and_tasks_stay_as_they_are(parts, seen):
    for given_part, part in zip(seen, parts, strict=False):
        pd.testing.assert_frame_equal(given_part.expression, part.expression)
        assert list(given_part.clinical.index) == list(part.samples) and given_part.tasks == part.tasks
        assert given_part.about == part.about


@pytest.mark.parametrize("task", ["Age", "DM"])
def test_with_a_task_its_labels_alone_move_and_a_time_keeps_its_event(parts, task):
    method, columns = Watching(), list(parts.train.task(task).columns)
    PermutedLabels(method, 0, task).fit(parts.train, parts.validation)
    for given_part, part in zip(method.parts, parts, strict=False):
        pd.testing.assert_frame_equal(
            given_part.clinical.drop(columns=columns), part.clinical.drop(columns=columns), check_dtype=True
        )
        assert rows(given_part.clinical[columns]) == rows(part.clinical[columns])
        assert (given_part.clinical[columns] != part.clinical[columns]).any(axis=1).mean() > 0.7
    with pytest.raises(KeyError, match="has no task 'Agee'"):
        PermutedLabels(Watching(), 0, "Agee").fit(parts.train, parts.validation)


def test_the_callers_cohort_is_left_alone(parts):
    before = parts.train.clinical.copy()
    permuted(parts.train, np.random.default_rng(0))
    pd.testing.assert_frame_equal(parts.train.clinical, before)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_every_row_is_there_once(parts, seed, n):
    few = parts.train.take(parts.train.samples[:n])
    numbered = replace(few, clinical=pd.DataFrame({"row": np.arange(n), "double": 2 * np.arange(n)}, few.samples))
    found = permuted(numbered, np.random.default_rng(seed)).clinical
    assert sorted(found["row"]) == list(range(n)) and (found["double"] == 2 * found["row"]).all()


def test_the_seed_decides(parts):
    def order(seed):
        method = Watching()
        PermutedLabels(method, seed).fit(parts.train, parts.validation)
        return method.parts[0].clinical

    pd.testing.assert_frame_equal(order(1), order(1))
    assert not order(1).equals(order(2))


# --- what it answers ----------------------------------------------------------------------------------------------


def test_a_method_that_reads_clinical_columns_is_no_control(parts):
    """They move with the outcome, so age tells as much as before."""
    behind = PermutedLabels(ClinicalCox("Age"), seed=0).fit(parts.train, parts.validation).predict(parts.test)
    plain = ClinicalCox("Age").fit(parts.train).predict(parts.test)
    np.testing.assert_allclose(behind.survival, plain.survival, atol=1e-6)


def test_it_answers_with_the_method_or_with_what_its_fit_returns(parts):
    class Other(Watching):
        def fit(self, train, validation):
            super().fit(train, validation)
            return coxnet(seed=0).fit(train, validation)

    assert PermutedLabels(Watching(), 0).fit(parts.train, parts.validation).predict(parts.test).score is not None
    assert PermutedLabels(Other(), 0).fit(parts.train, parts.validation).predict(parts.test).survival is not None


@pytest.mark.parametrize(
    "wrapped, plain, settings", [(coxnet_permuted, coxnet, {"l1_ratio": 0.3}), (txt_permuted, txt, TXT)]
)
def test_the_benchmarks_controls_are_the_method_on_permuted_labels(parts, wrapped, plain, settings):
    method = wrapped(seed=4, **settings).fit(parts.train, parts.validation)
    generator = np.random.default_rng(4)
    train, validation = (permuted(part, generator) for part in (parts.train, parts.validation))
    by_hand = plain(4, **settings).fit(train, validation).predict(parts.test)
    np.testing.assert_array_equal(method.predict(parts.test).survival, by_hand.survival)


def test_the_control_of_one_task_leaves_a_single_other_task_as_it_is(parts):
    """Learned alone, the tasks in a cohort that is left are not touched by another one's labels."""
    both = permuted_task(seed=1, task="Age", **TXT).fit(parts.train, parts.validation).predict(parts.test)
    all_of_them = txt(1, **TXT).fit(parts.train, parts.validation).predict(parts.test)
    assert not np.array_equal(both.values["Age"], all_of_them.values["Age"])
    moved = permuted_task(seed=1, task="Age", tasks=["DM"], **TXT).fit(parts.train, parts.validation)
    alone = txt(1, tasks=["DM"], **TXT).fit(parts.train, parts.validation)
    np.testing.assert_array_equal(moved.predict(parts.test).survival, alone.predict(parts.test).survival)


@pytest.fixture(scope="module")
def strong():
    """Outcome and age can be told from the genes."""
    return split(planted(n=500, n_genes=60, seed=0, event_rate=0.5, main_effect=1.0, age_effect=0.1).cohort, seed=0)


def scores(make, parts, seeds):
    """Return C and Spearman of age, (seeds, 2), on labels that belong to other patients."""
    age, found = parts.test.clinical["Age"].to_numpy(float), []
    known = ~np.isnan(age)
    for seed in seeds:
        answer = make(seed).fit(parts.train, parts.validation).predict(parts.test)
        c = harrell_c(parts.test.outcome(), answer.risk(float(np.median(answer.edges))))
        found.append([c, spearman(age[known], answer.values["Age"][known])])
    return np.array(found)


def test_what_is_left_is_luck(strong):
    two = type(strong)(*(part.with_tasks("Age", "OS") for part in strong))
    (right,) = scores(lambda seed: pca(seed), two, [0])
    luck = scores(lambda seed: PermutedLabels(pca(seed), seed), two, range(24))
    error = luck.std(0, ddof=1) / np.sqrt(len(luck))
    low, high = luck.mean(0) - 3 * error, luck.mean(0) + 3 * error
    assert (low <= [0.5, 0.0]).all() and (high >= [0.5, 0.0]).all() and (error < 0.05).all()
    assert (right > luck.mean(0) + 3 * luck.std(0, ddof=1)).all()


def test_no_detour_over_age_is_left_either(strong):
    """Genes to age and age to survival: both steps are learned from the same permuted rows."""
    found = []
    for seed in range(12):
        answer = PermutedLabels(ridge_age_cox(seed), seed).fit(strong.train, strong.validation).predict(strong.test)
        found.append(harrell_c(strong.test.outcome(), answer.risk(float(np.median(answer.edges)))))
    assert abs(np.mean(found) - 0.5) < 3 * np.std(found, ddof=1) / np.sqrt(len(found))

from dataclasses import replace
from inspect import signature

import numpy as np
import pandas as pd
import pytest
from helpers import c_interval, relabelled, with_permuted_outcomes
from lifelines import CoxPHFitter
from sklearn.linear_model import RidgeCV
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

from txtlib.cohort import CohortError, load_cohort, split
from txtlib.metrics import harrell_c
from txtlib.peers import coxnet, floors, tabular
from txtlib.peers.floors import (
    RIDGE,
    SPACE_CLINICAL_AND_GENES,
    ClinicalCox,
    Trivial,
    clinical_and_genes,
    clinical_cox,
    random_draw,
    ridge_age_cox,
)
from txtlib.peers.ridge import ALPHAS
from txtlib.peers.tabular import folds
from txtlib.planted import planted


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("gse7390"), seed=0)


def test_trivial_answers_come_from_the_training_part(parts):
    answer = Trivial().fit(parts.train, parts.validation).predict(parts.test)
    time, event = parts.train.outcome()
    times, curve = kaplan_meier_estimator(event == 1, time)
    np.testing.assert_allclose(answer.survival[0], np.interp(answer.edges, times, curve))
    assert (answer.survival == answer.survival[0]).all() and len(answer.survival) == len(parts.test)
    assert (answer.values["Age"] == parts.train.clinical["Age"].median()).all()
    assert answer.probabilities["Grade"].iloc[0].idxmax() == parts.train.clinical["Grade"].mode()[0]


def test_age_alone_equals_scikit_survivals_cox(parts):
    answer = ClinicalCox("Age").fit(parts.train).predict(parts.test)
    time, event = parts.train.outcome()
    cox = CoxPHSurvivalAnalysis(ties="efron").fit(parts.train.clinical[["Age"]], Surv.from_arrays(event == 1, time))
    expected = cox.predict(parts.test.clinical[["Age"]])
    assert np.corrcoef(np.log(-np.log(answer.survival[:, 60])), expected)[0, 1] == pytest.approx(1, abs=1e-6)


def test_clinical_cox_codes_classes_and_fills_missing_labels_from_the_training_part(parts):
    model = ClinicalCox("Size", "Grade").fit(parts.train)
    assert list(model.model.params_.index) == ["Size", "Grade=G2", "Grade=G3"]
    unknown = parts.test.take(parts.test.samples[parts.test.clinical["Grade"].isna()])
    as_mode = unknown.clinical.assign(Grade=parts.train.clinical["Grade"].mode()[0])
    known = type(unknown)(unknown.expression, as_mode, unknown.tasks, unknown.about)
    np.testing.assert_array_equal(model.predict(unknown).survival, model.predict(known).survival)


def test_curves_equal_lifelines_own(parts):
    table = pd.DataFrame({"Size": parts.train.clinical["Size"]})
    table["T"], table["E"] = parts.train.outcome()
    expected = (
        CoxPHFitter(penalizer=RIDGE)
        .fit(table, "T", "E")
        .predict_survival_function(parts.test.clinical[["Size"]], [1000.0])
    )
    answer = ClinicalCox("Size").fit(parts.train).predict(parts.test)
    ours = np.array([np.interp(1000.0, answer.edges, row) for row in answer.survival])
    np.testing.assert_allclose(ours, expected.to_numpy()[0], atol=0.01)


def test_a_missing_column_is_named(parts):
    with pytest.raises(CohortError, match="no column 'Stage'"):
        ClinicalCox("Age", "Stage").fit(parts.train)


def with_a_stage_without_events(cohort):
    event = cohort.clinical["DM_event"]
    return relabelled(cohort, Stage=np.where((event == 0) & (np.arange(len(event)) % 9 == 0), "T0", "T2"))


def test_a_class_without_events_has_a_finite_coefficient(parts):
    model = ClinicalCox("Age", "Stage").fit(
        with_a_stage_without_events(parts.train)
    )  # a ConvergenceWarning would fail this test
    assert np.isfinite(model.model.params_).all() and abs(model.model.params_["Age"]) < 1
    plain = CoxPHFitter().fit(parts.train.clinical[["Age", "DM_duration", "DM_event"]], "DM_duration", "DM_event")
    ours = ClinicalCox("Age").fit(parts.train).model.params_["Age"]
    assert ours == pytest.approx(plain.params_["Age"], abs=0.02 * plain.standard_errors_["Age"])


# --- luck -----------------------------------------------------------------------------------------------------


def test_luck_draws_from_the_training_parts_labels(parts):
    train, many = parts.train, parts.train.take(parts.train.samples.repeat(20))
    answer = random_draw(seed=3).fit(train).predict(many)
    assert set(answer.values["Age"]) <= set(train.clinical["Age"].dropna()) and answer.samples.equals(many.samples)
    assert answer.values["Age"].mean() == pytest.approx(train.clinical["Age"].mean(), abs=0.5)
    grades = answer.probabilities["Grade"]
    assert set(np.unique(grades)) == {0.0, 1.0} and (grades.sum(axis=1) == 1).all()
    shares = train.clinical["Grade"].value_counts(normalize=True)
    np.testing.assert_allclose(grades.mean()[shares.index], shares, atol=0.03)
    constant = Trivial().fit(train).predict(many)
    np.testing.assert_array_equal(answer.survival, constant.survival)
    np.testing.assert_array_equal(answer.edges, constant.edges)
    assert len(np.unique(answer.score)) == len(many) and (answer.risk(1000.0) == answer.score).all()


def test_luck_knows_nothing(planted_parts):
    test = planted_parts.test
    answers = [random_draw(seed=seed).fit(planted_parts.train).predict(test) for seed in range(100)]
    c = [harrell_c(test.outcome(), answer.risk(1500.0)) for answer in answers]
    age = [np.corrcoef(answer.values["Age"], test.clinical["Age"])[0, 1] for answer in answers]
    hits = [(answer.probabilities["PAM50"].idxmax(axis=1) == test.clinical["PAM50"]).mean() for answer in answers]
    for scores, chance in ((c, 0.5), (age, 0.0)):
        assert np.mean(scores) == pytest.approx(chance, abs=3 * np.std(scores) / 10) and np.std(scores) > 0.01
    shares = [part.clinical["PAM50"].value_counts(normalize=True) for part in (planted_parts.train, test)]
    assert np.mean(hits) == pytest.approx((shares[0] * shares[1]).sum(), abs=3 * np.std(hits) / 10)


def test_the_seed_draws_and_neither_labels_nor_other_tasks_count(parts):
    bare = replace(parts.test, clinical=parts.test.clinical[[]], tasks=())
    fitted = random_draw(seed=1).fit(parts.train)
    first, again, other = (
        fitted.predict(parts.test),
        fitted.predict(bare),
        random_draw(2).fit(parts.train).predict(bare),
    )
    for one in (again, random_draw(seed=1).fit(parts.train.with_tasks("Age", "DM")).predict(bare)):
        np.testing.assert_array_equal(first.score, one.score)
        np.testing.assert_array_equal(first.values["Age"], one.values["Age"])
    assert first.probabilities["Grade"].equals(again.probabilities["Grade"])
    assert not np.array_equal(first.score, other.score)
    assert not np.array_equal(first.values["Age"], other.values["Age"])
    assert not np.array_equal(first.values["Age"], first.values["Size"])
    assert np.corrcoef(pd.Series(first.values["Age"]).rank(), first.score)[0, 1] < 0.5  # not one draw for all
    alone = random_draw().fit(parts.train.with_tasks("Grade")).predict(parts.test)
    assert alone.survival is None and alone.score is None and not alone.values


def test_luck_without_labels_is_refused(parts):
    with pytest.raises(CohortError, match="no training patient has a label of 'Grade'"):
        random_draw().fit(relabelled(parts.train, Grade=None).with_tasks("Grade"))


# --- floors that see genes ------------------------------------------------------------------------------------

GENES = {"n_genes": 50}


@pytest.fixture(scope="module")
def planted_parts():
    """Age counts, and so do genes; some genes tell age."""
    world = planted(n=500, n_genes=120, event_rate=0.6, main_effect=0.7, interaction=0.0, age_effect=0.08, seed=3)
    return split(world.cohort, seed=0)


def concordance(method, parts):
    answer = method.fit(parts.train, parts.validation).predict(parts.test)
    return harrell_c(parts.test.outcome(), answer.risk(1500.0))


def test_clinical_and_genes_know_more_than_either(planted_parts):
    age = concordance(clinical_cox(), planted_parts)
    both = concordance(clinical_and_genes(n_genes=100), planted_parts)
    told = concordance(ridge_age_cox(n_genes=100), planted_parts)
    assert both > age + 0.03 and 0.55 < told < age


def test_the_space_of_clinical_and_genes_is_the_elastic_nets():
    defaults = {name: value.default for name, value in signature(clinical_and_genes).parameters.items()}
    for name, values in SPACE_CLINICAL_AND_GENES.items():
        assert values == coxnet.SPACE[name] and values[0] == defaults[name]
        assert [clinical_and_genes(**{name: value}).estimator.l1_ratio for value in values] == values


@pytest.mark.parametrize("make", [clinical_and_genes, ridge_age_cox])
def test_floors_with_genes_do_not_part_the_samples_of_a_patient(make, parts, monkeypatch):
    """Those that choose by left-out samples are told whose they are."""
    told, whole = [], tabular.folds

    def watched(strata, n_folds, seed, patients=None):
        told.append(patients)
        return whole(strata, n_folds, seed, patients)

    for module in (tabular, floors):
        monkeypatch.setattr(module, "folds", watched)
    who = [f"P{row // 2}" for row in range(len(parts.train))]
    make(**GENES).fit(relabelled(parts.train, Patient=who))
    assert told and all(patients is not None and set(patients) <= set(who) for patients in told)


def test_clinical_columns_are_not_penalised(parts):
    method = clinical_and_genes(columns=["Age", "Size", "Grade"], **GENES).fit(parts.train)
    model = method.survival.model
    held = model._fitted(method._table(parts.train), _outcome(parts.train), alphas=[1e6])
    assert (held.coef_[:-1] == 0).all() and held.coef_[-1, 0] == pytest.approx(1, abs=0.05)
    assert model.model.coef_.shape == (51, 1)
    clinical = ClinicalCox("Age", "Size", "Grade").fit(parts.train)
    expected = clinical.model.predict_log_partial_hazard(clinical._design(parts.test))
    np.testing.assert_allclose(method._table(parts.test)[:, -1], expected)


def _outcome(cohort):
    time, event = cohort.outcome()
    return Surv.from_arrays(event == 1, time)


def test_a_class_without_events_keeps_clinical_and_genes_finite(parts):
    method = clinical_and_genes(columns=["Age", "Stage"], **GENES).fit(with_a_stage_without_events(parts.train))
    assert 0 < method.survival.model.model.coef_[-1, 0] < 3


def test_the_second_step_sees_what_ridge_says_of_patients_it_has_not_seen(parts):
    method = ridge_age_cox(seed=5, predictors=["Age"], **GENES).fit(parts.train)
    x, age = method.preprocessor.expression(parts.train).astype(float), parts.train.clinical["Age"].to_numpy(float)
    known, fold, said = ~np.isnan(age), folds(np.zeros(len(age)), 5, 5), np.empty(len(age))
    for k in range(5):
        rest = known & (fold != k)
        said[fold == k] = RidgeCV(ALPHAS).fit(x[rest], age[rest]).predict(x[fold == k])
    expected = ClinicalCox("Age").fit(relabelled(parts.train, Age=said))
    assert method.cox.model.params_["Age"] == pytest.approx(expected.model.params_["Age"], rel=1e-9)
    new = RidgeCV(ALPHAS).fit(x[known], age[known]).predict(method.preprocessor.expression(parts.test).astype(float))
    np.testing.assert_allclose(method.said(parts.test)["Age"], new)
    in_sample = RidgeCV(ALPHAS).fit(x[known], age[known]).predict(x[known])
    assert np.corrcoef(in_sample, age[known])[0, 1] > np.corrcoef(said[known], age[known])[0, 1] + 0.1


def test_ridge_tells_classes_as_columns_and_masks_missing_labels(parts):
    method = ridge_age_cox(predictors=["Size", "Grade"], **GENES).fit(parts.train)
    assert list(method.cox.model.params_.index) == ["Size", "Grade=G2", "Grade=G3"]
    grade = parts.train.clinical["Grade"]
    assert grade.isna().any()
    known, x = grade.notna().to_numpy(), method.preprocessor.expression(parts.train).astype(float)
    expected = RidgeCV(ALPHAS).fit(x[known], (grade[known] == "G3").astype(float))
    np.testing.assert_allclose(method.ridges["Grade=G3"].coef_, expected.coef_)


@pytest.mark.parametrize("make", [clinical_and_genes, ridge_age_cox])
def test_floors_with_genes_answer_survival_alone_and_repeat_themselves(make, parts):
    first, again = (make(seed=2, **GENES).fit(parts.train, parts.validation).predict(parts.test) for _ in range(2))
    np.testing.assert_array_equal(first.survival, again.survival)
    assert not first.values and not first.probabilities and not first.calibrated
    np.testing.assert_array_equal(first.edges, np.unique(parts.train.outcome()[0]))
    assert (np.diff(first.survival, axis=1) <= 1e-12).all() and first.samples.equals(parts.test.samples)
    columns = list(parts.train.expression.columns)
    listed = make(gene_sets={"A": columns[:9], "B": columns[5:15]}, scaler="rank").fit(parts.train)
    assert set(listed.preprocessor.genes) == set(columns[:15]) and listed.preprocessor.scaler == "rank"


@pytest.mark.parametrize("make", [clinical_and_genes, ridge_age_cox])
def test_floors_with_genes_learn_nothing_from_permuted_outcomes(make, planted_parts):
    train, test = (with_permuted_outcomes(part, seed=0) for part in (planted_parts.train, planted_parts.test))
    low, high = c_interval(test, make(**GENES).fit(train).predict(test).risk(1500.0))
    assert low <= 0.5 <= high


def test_ridge_age_cox_needs_no_clinical_table_to_answer_and_the_other_names_what_it_misses(parts):
    bare = replace(parts.test, clinical=parts.test.clinical[[]], tasks=())
    method = ridge_age_cox(**GENES).fit(parts.train)
    np.testing.assert_array_equal(method.predict(bare).survival, method.predict(parts.test).survival)
    with pytest.raises(CohortError, match="no column 'Age'"):
        clinical_and_genes(**GENES).fit(parts.train).predict(bare)
    with pytest.raises(CohortError, match="no column 'Stage'"):
        ridge_age_cox(predictors=["Stage"], **GENES).fit(parts.train)


@pytest.mark.parametrize("stage", [np.nan, "T2"])
def test_a_column_that_tells_nothing_is_refused(stage, parts):
    train = relabelled(parts.train, Stage=stage)
    with pytest.raises(CohortError, match="fewer than 10 values, or one class only, of 'Stage'"):
        ridge_age_cox(predictors=["Stage"], **GENES).fit(train)

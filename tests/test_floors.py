from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

from txtlib.cohort import CohortError, load_cohort, split
from txtlib.peers.floors import RIDGE, ClinicalCox, Trivial


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


def test_a_class_without_events_has_a_finite_coefficient(parts):
    clinical = parts.train.clinical.copy()
    clinical["Stage"] = np.where((clinical["DM_event"] == 0) & (np.arange(len(clinical)) % 9 == 0), "T0", "T2")
    train = replace(parts.train, clinical=clinical)
    model = ClinicalCox("Age", "Stage").fit(train)  # a ConvergenceWarning would fail this test
    assert np.isfinite(model.model.params_).all() and abs(model.model.params_["Age"]) < 1
    plain = CoxPHFitter().fit(parts.train.clinical[["Age", "DM_duration", "DM_event"]], "DM_duration", "DM_event")
    ours = ClinicalCox("Age").fit(parts.train).model.params_["Age"]
    assert ours == pytest.approx(plain.params_["Age"], abs=0.02 * plain.standard_errors_["Age"])

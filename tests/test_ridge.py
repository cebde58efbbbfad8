"""Ridge regression: the penalty of the logistic one; the other two are scikit-learn's and test_classic.py's."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from txtlib.cohort import split
from txtlib.peers.ridge import CS, CrossValidatedLogistic, log_likelihood, ridge
from txtlib.peers.tabular import folds
from txtlib.planted import planted


def classes(n=90, genes=30, effect=0.5, seed=0):
    """Three classes, the codes 0, 2 and 5, that differ in three genes each."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat([0, 2, 5], n // 3))
    x = rng.normal(size=(n, genes))
    x[:, :9] += effect * np.repeat(y[:, None] == [0, 2, 5], 3, axis=1)
    return x, y


def test_the_penalty_is_the_one_that_left_out_patients_prefer():
    x, y = classes()
    found, fold, likelihood = CrossValidatedLogistic(seed=4).fit(x, y), folds(y, 5, 4), np.zeros(len(CS))
    for place, C in enumerate(CS):
        for k in range(5):
            model = LogisticRegression(C=C, max_iter=1000).fit(x[fold != k], y[fold != k])
            for patient in np.flatnonzero(fold == k):
                shares = dict(zip(model.classes_, model.predict_proba(x[[patient]])[0], strict=True))
                likelihood[place] += np.log(shares[y[patient]])
    best = CS[likelihood.argmax()]
    assert 0 < likelihood.argmax() < len(CS) - 1 and found.model.best_params_ == {"C": best}
    expected = LogisticRegression(C=best, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(found.predict_proba(x), expected.predict_proba(x))
    assert list(found.classes_) == [0, 2, 5]


@pytest.mark.parametrize("genes, effect, weakest", [(9, 3.0, 0.1), (300, 0.0, 0.0)])
def test_the_more_genes_say_the_less_they_are_penalised(genes, effect, weakest):
    chosen = CrossValidatedLogistic(seed=0).fit(*classes(genes=genes, effect=effect)).model.best_params_["C"]
    assert chosen >= weakest and (effect > 0 or chosen <= 1e-3)


def test_a_probability_of_0_is_no_alarm():
    class Sure:
        classes_ = np.array([1, 3])

        def predict_proba(self, x):
            return np.array([[1.0, 0.0], [0.5, 0.5]])

    assert log_likelihood(Sure(), None, np.array([1, 3])) == pytest.approx(np.log(0.5))
    assert -1000 < log_likelihood(Sure(), None, np.array([3, 3])) < -700


def test_a_class_of_one_patient_has_no_column_and_one_class_alone_is_certain():
    x, y = classes()
    y[0] = 7
    assert list(CrossValidatedLogistic(0).fit(x, y).classes_) == [0, 2, 5]
    assert (CrossValidatedLogistic(0).fit(x, np.full(90, 2)).predict_proba(x) == 1).all()
    with pytest.raises(ValueError, match="Each class has one training patient"):
        CrossValidatedLogistic(0).fit(x[:3], np.arange(3))


def test_two_samples_of_a_patient_stay_together():
    x, y = classes(genes=200, effect=0.0)
    x, y, patients = np.repeat(x, 2, axis=0), np.repeat(y, 2), np.repeat(np.arange(90), 2)
    apart, parted = (CrossValidatedLogistic(0).fit(x, y, who).model.best_params_["C"] for who in (patients, None))
    assert apart <= 1e-3 and parted >= 1.0


def test_the_seed_draws_the_folds_of_each_kind():
    parts = split(planted(n=200, n_genes=40, event_rate=0.5, seed=0).cohort, seed=0)
    method = ridge(seed=7, n_genes=20).fit(parts.train)
    assert method.models["PAM50"].model.seed == method.models["OS"].model.seed == 7

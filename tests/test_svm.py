"""Support vector machines: what C means. The rest is tested in test_classic.py."""

import numpy as np
import pytest
from sklearn.svm import SVC, SVR
from sksurv.util import Surv

from txtlib.peers.svm import svm

each_kernel = pytest.mark.parametrize("kernel", ["rbf", "linear"])


def data(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, 8)) * 3 + 1
    signal = x[:, 0] + rng.normal(size=60)
    return x, signal, (signal > 1).astype(int), Surv.from_arrays(rng.random(60) < 0.7, np.exp(-signal / 3))


def test_the_linear_kernel_is_the_plain_one_divided_by_genes_times_variance():
    x, target, label, _ = data()
    estimators = svm(C=3.0, kernel="linear").estimators
    C = 3.0 / (8 * x.var())
    ours, plain = estimators["classification"].fit(x, label), SVC(C=C, kernel="linear").fit(x, label)
    np.testing.assert_allclose(ours.decision_function(x), plain.decision_function(x), atol=2e-3)
    ours, plain = estimators["regression"].fit(x, target), SVR(C=C, kernel="linear").fit(x, target)
    np.testing.assert_allclose(ours.predict(x), plain.predict(x), atol=2e-3)


@each_kernel
def test_a_c_means_as_much_for_few_genes_as_for_many(kernel):
    x, target, label, outcome = data()
    for kind, y in {"regression": target, "classification": label, "survival": outcome}.items():
        few, many = svm(kernel=kernel).estimators[kind], svm(kernel=kernel).estimators[kind]
        few, many = few.fit(x, y), many.fit(np.tile(x, (1, 50)), y)  # each gene fifty times
        say = "decision_function" if kind == "classification" else "predict"
        one, other = getattr(few, say)(x), getattr(many, say)(np.tile(x, (1, 50)))
        np.testing.assert_allclose(one - one.mean(), other - other.mean(), atol=5e-3 * np.ptp(one))

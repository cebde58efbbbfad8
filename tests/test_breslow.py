"""Breslow's curves against lifelines' Cox regression."""

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from txtlib.peers.breslow import breslow_curves


@pytest.fixture
def patients():
    rng = np.random.default_rng(0)
    x = rng.normal(size=120)
    time = rng.exponential(np.exp(-x))
    return pd.DataFrame({"x": x, "time": time, "event": rng.random(120) < 0.6})


def test_curves_are_those_of_cox_regression(patients):
    cox = CoxPHFitter().fit(patients, "time", "event")
    score = patients["x"].to_numpy() * cox.params_["x"]
    time, event = patients["time"].to_numpy(), patients["event"].to_numpy()
    edges, curves = breslow_curves(score, time, event, score[:5])
    expected = cox.predict_survival_function(patients[:5], times=edges).T.to_numpy()
    assert np.abs(curves - expected).max() < 1e-6


def test_a_constant_in_the_score_changes_nothing(patients):
    time, event, score = (patients[name].to_numpy() for name in ("time", "event", "x"))
    _, plain = breslow_curves(score, time, event, score)
    _, moved = breslow_curves(score + 1e4, time, event, score + 1e4)
    assert np.allclose(plain, moved, atol=1e-9)
    assert (np.diff(plain, axis=1) <= 1e-12).all() and plain.min() >= 0 and plain.max() <= 1

"""The measure itself on the rows as drawn is the slow twin of each function."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from txtlib import metrics, resampled
from txtlib.metrics import cut_times

HORIZON = 25.0
EDGES = np.array([3.0, 8.0, 14.0, 19.0, 25.0, 33.0])
CLASS = ["accuracy", "balanced_accuracy", "macro_precision", "macro_f1", "macro_auroc"]
VALUE = ["mean_absolute_error", "root_mean_squared_error", "pearson", "spearman"]
RANK = ["uno_c", "auc_at", "time_dependent_auc"]
CURVE = ["integrated_brier", "brier_skill", "log_score"]
small = pytest.mark.parametrize("n", [4, 30])


def draws(generator, n, samples=8):
    rows = generator.integers(0, n, (samples, n))
    return rows, np.array([np.bincount(one, minlength=n) for one in rows], float)


def outcome(generator, n, censored):
    return generator.integers(1, 40, n).astype(float), (generator.random(n) > censored).astype(float)


def training(generator):
    time, event = outcome(generator, 60, 0.5)
    time[0], event[0] = 45.0, 0.0  # somebody is followed beyond the horizon, under observation
    return time, event


def agree(name, expected, arguments, counts):
    found = getattr(resampled, name)(*arguments, counts)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12, err_msg=name)
    return found


many = given(st.integers(0, 10**6))
quick = settings(deadline=None, max_examples=10)


@small
@many
@quick
def test_classes(n, seed):
    generator = np.random.default_rng(seed)
    truth = generator.choice(list("abcd"), n, p=[0.5, 0.3, 0.15, 0.05]).astype(object)
    levels = generator.integers(1, 6, (n, 3))  # ties; class d is never answered
    shares = pd.DataFrame(levels / levels.sum(1, keepdims=True), columns=list("abc"))
    rows, counts = draws(generator, n)
    for name in CLASS:
        slow = [getattr(metrics, name)(truth[one], shares.iloc[one]) for one in rows]
        agree(name, slow, (truth, shares), counts)


@small
@many
@quick
def test_numbers(n, seed):
    generator = np.random.default_rng(seed)
    truth, value = generator.integers(0, 6, n) / 3, generator.normal(60, 9, n).round(generator.integers(0, 3))
    rows, counts = draws(generator, n)
    for name in VALUE:
        slow = [getattr(metrics, name)(truth[one], value[one]) for one in rows]
        agree(name, slow, (truth, value), counts)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_a_constant_answer_is_correlated_with_nothing_and_equal_labels_with_no_answer(name):
    truth, value = np.array([50.0, 50.0, 60.1, 70.0]), np.array([3.0, 1.0, 1.0, 0.1])
    everybody, equal_answers, equal_labels, one_patient = [0, 1, 2, 3], [1, 2, 2, 2], [0, 1, 1, 1], [2, 2, 2, 2]
    rows = [everybody, equal_answers, equal_labels, one_patient]
    counts = np.array([np.bincount(row, minlength=4) for row in rows], float)
    correlation = getattr(resampled, name)
    found, of_constant = correlation(truth, value, counts), correlation(truth, np.full(4, 0.1), counts)
    assert found[0] < 0 and found[1] == 0 and np.isnan(found[2:]).all()
    np.testing.assert_array_equal(of_constant, [0, 0, np.nan, np.nan])
    for unknown in (np.full(4, np.nan), np.array([1.0, 2.0, np.nan, 3.0])):
        assert np.isnan(correlation(truth, unknown, counts)).all()


@small
@pytest.mark.parametrize("censored", [0.3, 0.9])
@many
@quick
def test_ranking(n, censored, seed):
    generator = np.random.default_rng(seed)
    train, (time, event) = training(generator), outcome(generator, n, censored)
    risk = generator.integers(0, 5, n) / 5
    over_time = generator.integers(0, 5, (n, len(cut_times(train, HORIZON)))) / 5
    rows, counts = draws(generator, n)
    slow = [metrics.harrell_c((time[one], event[one]), risk[one]) for one in rows]
    agree("harrell_c", slow, ((time, event), risk), counts)
    for name, ranks in [*[(name, risk) for name in RANK], ("time_dependent_auc", over_time)]:
        measure = getattr(metrics, name)
        slow = [measure(train, (time[one], event[one]), ranks[one], HORIZON) for one in rows]
        agree(name, slow, (train, (time, event), ranks, HORIZON), counts)


@small
@pytest.mark.parametrize("censored", [0.3, 0.9])
@many
@quick
def test_curves(n, censored, seed):
    generator = np.random.default_rng(seed)
    train, (time, event) = training(generator), outcome(generator, n, censored)
    curves = np.sort(generator.random((n, len(EDGES))))[:, ::-1]
    rows, counts = draws(generator, n)
    for name in CURVE:
        measure = getattr(metrics, name)
        slow = [measure(train, (time[one], event[one]), curves[one], EDGES, HORIZON) for one in rows]
        agree(name, slow, (train, (time, event), curves, EDGES, HORIZON), counts)


def test_a_sample_with_nobody_in_it_has_no_score():
    truth, value, nobody = np.arange(3.0), np.ones(3), np.zeros((1, 3))
    assert all(np.isnan(getattr(resampled, name)(truth, value, nobody)) for name in VALUE)
    shares = pd.DataFrame({"a": [0.2, 0.7, 0.6], "b": [0.8, 0.3, 0.4]})
    assert all(np.isnan(getattr(resampled, name)(np.array(list("aba")), shares, nobody)) for name in CLASS)
    train, followed = training(np.random.default_rng(0)), (np.array([5.0, 9.0, 30.0]), np.array([1.0, 1.0, 0.0]))
    assert np.isnan(resampled.harrell_c(followed, value, nobody))
    assert all(np.isnan(getattr(resampled, name)(train, followed, value, HORIZON, nobody)) for name in RANK)
    curves = np.full((3, len(EDGES)), 0.5)
    assert all(np.isnan(getattr(resampled, name)(train, followed, curves, EDGES, HORIZON, nobody)) for name in CURVE)

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from lifelines.utils import concordance_index
from sklearn import metrics as sk
from sksurv import metrics as sks
from sksurv.util import Surv

from txtlib import metrics as m
from txtlib.cohort import load_cohort, split
from txtlib.peers.floors import ClinicalCox, Trivial
from txtlib.predictions import Predictions

HORIZON = 1825.0


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("gse7390"), seed=0)


@pytest.fixture(scope="module")
def answers(parts):
    cox = ClinicalCox("Age", "Size", "Grade").fit(parts.train).predict(parts.test)
    return {"trivial": Trivial().fit(parts.train).predict(parts.test), "cox": cox}


@pytest.fixture(scope="module")
def draws(parts, answers):
    return m.score_draws(answers, parts.train, parts.test, HORIZON, resamples=60, seed=1)


def c_by_pairs(time, event, risk):
    """Harrell's C, pair by pair."""
    good = total = 0.0
    for i in range(len(time)):
        for j in range(len(time)):
            earlier = time[i] < time[j] or (time[i] == time[j] and event[i] and not event[j])
            if event[i] and earlier:
                total += 1
                good += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    return good / total if total else np.nan


def weights_of_censoring(train, times):
    """1 / G(t), the Kaplan-Meier curve of censoring in the training part, just before t."""
    curve = KaplanMeierFitter().fit(train[0], 1 - train[1])
    return 1 / curve.survival_function_at_times(np.nextafter(times, 0)).to_numpy()


outcomes = st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.integers(0, 4)), min_size=2, max_size=25)


@given(outcomes)
@settings(deadline=None, max_examples=100)
def test_harrells_c_counts_pairs(rows):
    time, event, risk = (np.array(column, float) for column in zip(*rows, strict=True))
    np.testing.assert_allclose(m.harrell_c((time, event), risk), c_by_pairs(time, event, risk))


def test_harrells_c_has_the_other_sign_of_lifelines(parts):
    time, event = parts.test.outcome()
    risk = parts.test.clinical["Size"].to_numpy()
    assert m.harrell_c((time, event), risk) == pytest.approx(concordance_index(time, -risk, event))
    assert m.harrell_c((time, event), risk) == pytest.approx(1 - m.harrell_c((time, event), -risk))


def test_unos_c_is_the_weighted_share_of_pairs(parts):
    train, (time, event) = parts.train.outcome(), parts.test.outcome()
    risk = parts.test.clinical["Size"].to_numpy()
    weight = weights_of_censoring(train, time) ** 2
    good = total = 0.0
    for i in np.flatnonzero((event == 1) & (time < HORIZON)):
        later = time > time[i]
        total += weight[i] * later.sum()
        good += weight[i] * ((risk[i] > risk[later]).sum() + 0.5 * (risk[i] == risk[later]).sum())
    assert m.uno_c(train, (time, event), risk, HORIZON) == pytest.approx(good / total, rel=1e-6)


def test_cutting_follow_up_at_the_horizon_changes_nothing_of_scikit_survivals_own_answer(parts, answers):
    train, test = parts.train.outcome(), parts.test.outcome()
    keep = test[0] < train[0].max()  # scikit-survival refuses the others
    test, risk = (test[0][keep], test[1][keep]), answers["cox"].risk(HORIZON)[keep]
    known, packed = (Surv.from_arrays(event == 1, time) for time, event in (train, test))
    uno = sks.concordance_index_ipcw(known, packed, risk, tau=HORIZON)[0]
    auc = sks.cumulative_dynamic_auc(known, packed, risk, [HORIZON])[0][0]
    assert m.uno_c(train, test, risk, HORIZON) == pytest.approx(uno)
    assert m.auc_at(train, test, risk, HORIZON) == pytest.approx(auc)


def test_brier_score_is_the_weighted_squared_error(parts, answers):
    train, (time, event) = parts.train.outcome(), parts.test.outcome()
    answer = answers["cox"]
    grid = np.linspace(0, HORIZON, m.GRID + 1)[1:]
    grid = grid[grid >= time.min()]
    curves = np.stack([np.interp(grid, np.r_[0, answer.edges], np.r_[1, row]) for row in answer.survival])
    errors = []
    for t, at_t in zip(grid, curves.T, strict=True):
        died, alive = (time <= t) & (event == 1), time > t
        lost = np.where(died, at_t**2 * weights_of_censoring(train, time), 0.0)
        lost += np.where(alive, (1 - at_t) ** 2 * weights_of_censoring(train, np.full(len(time), t)), 0.0)
        errors.append(lost.mean())
    expected = np.trapezoid(errors, grid) / (grid[-1] - grid[0])
    ours = m.integrated_brier(train, (time, event), answer.survival, answer.edges, HORIZON)
    assert ours == pytest.approx(expected, rel=0.01)


def test_a_horizon_without_training_follow_up_is_refused(parts):
    with pytest.raises(ValueError, match="No training patient is followed beyond the horizon 9999"):
        m.uno_c(parts.train.outcome(), parts.test.outcome(), np.ones(len(parts.test)), 9999)


def test_measures_are_undefined_not_wrong_without_events(parts):
    train, (time, event) = parts.train.outcome(), parts.test.outcome()
    none = (time, np.zeros_like(event))
    risk = np.ones(len(time))
    assert np.isnan(
        [m.harrell_c(none, risk), m.uno_c(train, none, risk, HORIZON), m.auc_at(train, none, risk, HORIZON)]
    ).all()


classes = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=20)


@given(classes)
@settings(deadline=None, max_examples=50)
def test_class_measures_by_hand(rows):
    truth, guess = (np.array(column) for column in zip(*rows, strict=True))
    shares = pd.DataFrame({k: (guess == k) * 0.9 + 0.05 for k in "abc"})
    recalls, f1s = [], []
    for k in sorted(set(truth)):
        hit = ((truth == k) & (guess == k)).sum()
        recalls.append(hit / (truth == k).sum())
        f1s.append(2 * hit / ((truth == k).sum() + (guess == k).sum()))
    assert m.accuracy(truth, shares) == pytest.approx((truth == guess).mean())
    assert m.balanced_accuracy(truth, shares) == pytest.approx(np.mean(recalls))
    assert m.macro_f1(truth, shares) == pytest.approx(np.mean(f1s))


def test_macro_auroc_is_one_against_the_rest_and_copes_with_an_absent_class():
    truth = np.array(list("aabbccab"))
    shares = pd.DataFrame(np.random.default_rng(0).dirichlet([1, 1, 1], 8), columns=list("abc"))
    assert m.macro_auroc(truth, shares) == pytest.approx(sk.roc_auc_score(truth, shares, multi_class="ovr"))
    two = truth != "c"
    a_against_b = [sk.roc_auc_score(truth[two] == k, shares.loc[two, k]) for k in "ab"]
    assert m.macro_auroc(truth[two], shares[two]) == pytest.approx(np.mean(a_against_b))
    assert np.isnan(m.macro_auroc(truth[:2], shares[:2]))


def test_value_measures_by_hand():
    truth, value = np.array([1.0, 2.0, 4.0]), np.array([1.0, 4.0, 3.0])
    assert m.mean_absolute_error(truth, value) == pytest.approx(1.0)
    assert m.root_mean_squared_error(truth, value) == pytest.approx(np.sqrt(5 / 3))
    assert m.spearman(truth, value) == pytest.approx(0.5)
    assert np.isnan(m.spearman(truth, np.ones(3)))


def test_row_zero_holds_the_scores_of_the_test_part(parts, answers, draws):
    expected = m.harrell_c(parts.test.outcome(), answers["cox"].risk(HORIZON))
    assert draws.iloc[0]["cox", "DM", "Harrell's C"] == pytest.approx(expected)
    assert len(draws) == 61


def test_floors_score_what_floors_must(draws):
    first = draws.iloc[0]["trivial"]
    assert first["DM", "Harrell's C"] == 0.5 and first["ER", "macro AUROC"] == 0.5
    assert np.isnan(first["Age", "Spearman"])


def test_resamples_are_the_same_patients_for_all_methods(parts, answers):
    twice = m.score_draws({"a": answers["cox"], "b": answers["cox"]}, parts.train, parts.test, HORIZON, 30)
    assert (m.paired_difference(twice, "a", "b").fillna(0) == 0).all().all()


def test_intervals_are_percentiles_of_the_resamples(draws):
    column = draws["cox", "DM", "Uno's C"]
    row = m.summary(draws).loc[("cox", "DM", "Uno's C")]
    assert row["score"] == column[0]
    np.testing.assert_allclose([row["low"], row["high"]], np.nanpercentile(column[1:], [2.5, 97.5]))


def test_a_positive_difference_is_better_also_where_lower_is_better(parts):
    truth = parts.test.clinical["Age"].to_numpy()
    good, bad = (Predictions(parts.test.samples, values={"Age": truth + error}) for error in (1, 5))
    cohort = parts.test.with_tasks("Age")
    draws = m.score_draws({"good": good, "bad": bad}, parts.train, cohort, HORIZON, 20)
    gain = m.paired_difference(draws, "good", "bad")
    assert gain.loc[("Age", "mean absolute error"), "score"] == pytest.approx(4)


def test_patients_without_a_label_are_left_out_of_that_task(parts, answers):
    # one test grade is unknown in the data
    known = parts.test.clinical["Grade"].notna()
    assert not known.all()
    draws = m.score_draws(answers, parts.train, parts.test, HORIZON, 2)
    expected = m.accuracy(
        parts.test.clinical["Grade"][known].to_numpy(), answers["trivial"].probabilities["Grade"][known]
    )
    assert draws.iloc[0]["trivial", "Grade", "accuracy"] == pytest.approx(expected)


def test_a_method_that_only_ranks_gets_ranking_measures_only(parts):
    ranks = Predictions(parts.test.samples, score=parts.test.clinical["Size"].to_numpy())
    draws = m.score_draws({"size": ranks}, parts.train, parts.test.with_tasks("DM"), HORIZON, 2)
    assert [measure for _, _, measure in draws.columns] == ["Harrell's C", "Uno's C", "AUC at horizon"]


@pytest.mark.parametrize(
    "low, high, words",
    [
        (0.01, 0.2, "better than"),
        (-0.2, -0.01, "worse than"),
        (-0.02, 0.02, "as good as"),
        (-0.03, 0.01, "not to be told apart from"),
        (-0.3, 0.3, "not to be told apart from"),
    ],
)
def test_words_come_from_the_interval(low, high, words):
    assert m.verdict(low, high) == words


@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.9]))
@settings(deadline=None, max_examples=30)
def test_equal_to_scikit_survival_on_random_data_with_ties_and_heavy_censoring(seed, censored):
    generator = np.random.default_rng(seed)
    time = generator.integers(1, 40, 300).astype(float)
    time[0] = 41.0  # scikit-survival refuses test times beyond the last training time
    event = (generator.random(300) > censored).astype(float)
    train, test = (time[:200], event[:200]), (time[200:], event[200:])
    risk, tau = generator.integers(0, 20, 100).astype(float), 25.0
    edges = np.arange(1.0, 41.0)
    curves = np.sort(generator.random((100, 40)))[:, ::-1]
    known, packed = (Surv.from_arrays(e == 1, t) for t, e in (train, test))
    grid = np.linspace(0, tau, m.GRID + 1)[1:]
    grid = grid[grid >= test[0].min()]
    at_grid = np.stack([np.interp(grid, np.r_[0, edges], np.r_[1, row]) for row in curves])
    close = dict(rel=1e-10, nan_ok=True)
    assert m.harrell_c(test, risk) == pytest.approx(
        sks.concordance_index_censored(test[1] == 1, test[0], risk)[0], **close
    )
    assert m.uno_c(train, test, risk, tau) == pytest.approx(
        sks.concordance_index_ipcw(known, packed, risk, tau)[0], **close
    )
    auc = sks.cumulative_dynamic_auc(known, packed, risk, [tau])[0][0]
    assert m.auc_at(train, test, risk, tau) == pytest.approx(auc, **close)
    brier = sks.integrated_brier_score(known, packed, at_grid, grid)
    assert m.integrated_brier(train, test, curves, edges, tau) == pytest.approx(brier, **close)


def test_brier_score_depends_on_the_training_parts_censoring(parts, answers):
    time, event = parts.train.outcome()
    early = np.where(event == 1, time, np.minimum(time, np.where(np.arange(len(time)) % 2, 600.0, time)))
    scores = [
        m.integrated_brier(train, parts.test.outcome(), answers["cox"].survival, answers["cox"].edges, HORIZON)
        for train in ((time, event), (early, event))
    ]
    assert scores[0] != pytest.approx(scores[1], rel=1e-3)


def test_a_class_that_a_method_has_never_seen_has_probability_zero():
    truth = np.array(list("abca"))
    shares = pd.DataFrame({"a": [0.9, 0.2, 0.5, 0.6], "b": [0.1, 0.8, 0.5, 0.4]})
    of_two = [sk.roc_auc_score(truth == k, shares[k]) for k in "ab"]
    assert m.macro_auroc(truth, shares) == pytest.approx(np.mean([*of_two, 0.5]))


def test_all_samples_of_a_patient_are_drawn_together(parts):
    clinical = parts.test.clinical.assign(Patient=[f"P{row // 3}" for row in range(len(parts.test))])
    cohort = replace(parts.test, clinical=clinical)
    for rows in m._patient_draws(cohort, 20, seed=0):
        drawn, times = np.unique(rows, return_counts=True)
        per_patient = pd.Series(times, index=clinical["Patient"].to_numpy()[drawn])
        assert (per_patient.groupby(level=0).nunique() == 1).all()
        assert per_patient.groupby(level=0).size().isin([3, len(parts.test) % 3 or 3]).all()


def test_an_interval_over_splits_is_wider_than_the_usual_one():
    from scipy import stats

    from txtlib.metrics import over_splits

    differences = np.array([0.02, 0.05, -0.01, 0.04, 0.03])
    found = over_splits(differences, n_train=80, n_test=20)
    low, high = stats.ttest_1samp(differences, 0).confidence_interval()
    assert found["mean"] == pytest.approx(differences.mean())
    # by hand: 1/5 + 20/80 = 0.45 in place of 1/5
    assert found["high"] - found["low"] == pytest.approx((high - low) * np.sqrt(0.45 / 0.2))
    unrelated = over_splits(differences, n_train=10**12, n_test=1)
    assert (unrelated["low"], unrelated["high"]) == pytest.approx((low, high))
    with pytest.raises(ValueError, match="two or more"):
        over_splits(differences[:1], 80, 20)

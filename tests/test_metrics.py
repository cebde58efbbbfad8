import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from lifelines.utils import concordance_index
from scipy import stats
from sklearn import metrics as sk
from sksurv import metrics as sks
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

from txtlib import metrics as m
from txtlib.bootstrap import MEASURES
from txtlib.cohort import load_cohort, split
from txtlib.external import CALIBRATION
from txtlib.losses import mtlr_nll
from txtlib.peers.floors import ClinicalCox, Trivial
from txtlib.preprocess import time_cell
from txtlib.survival import survival_curves

HORIZON = 1825.0


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("gse7390"), seed=0)


@pytest.fixture(scope="module")
def answers(parts):
    cox = ClinicalCox("Age", "Size", "Grade").fit(parts.train).predict(parts.test)
    return {"trivial": Trivial().fit(parts.train).predict(parts.test), "cox": cox}


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
    risk, curves, edges = np.ones(len(time)), np.full((len(time), 1), 0.5), np.array([HORIZON])
    nobody, only_late = (time, np.zeros_like(event)), (np.maximum(time, HORIZON + 1), event)
    left = np.minimum(time, HORIZON), event  # nobody is followed beyond the horizon
    for outcome in (nobody, only_late, left):
        ranks = [m.auc_at(train, outcome, risk, HORIZON), m.time_dependent_auc(train, outcome, risk, HORIZON)]
        assert np.isnan([*ranks, m.integrated_brier(train, outcome, curves, edges, HORIZON)]).all()
    assert np.isnan([m.uno_c(train, outcome, risk, HORIZON) for outcome in (nobody, only_late)]).all()
    assert np.isnan(m.harrell_c((time, np.zeros_like(event)), risk))


def test_an_event_at_the_horizon_itself_is_no_earlier_event(parts):
    train, (time, event) = parts.train.outcome(), parts.test.outcome()
    at_horizon = (np.maximum(time, HORIZON), np.ones_like(event))
    assert np.isnan(m.uno_c(train, at_horizon, np.arange(len(time)), HORIZON))  # scikit-survival raises


classes = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=20)


@given(classes)
@settings(deadline=None, max_examples=50)
def test_class_measures_by_hand(rows):
    truth, guess = (np.array(column) for column in zip(*rows, strict=True))
    shares = pd.DataFrame({k: (guess == k) * 0.9 + 0.05 for k in "abc"})
    recalls, precisions, f1s = [], [], []
    for k in sorted(set(truth)):
        hit = ((truth == k) & (guess == k)).sum()
        recalls.append(hit / (truth == k).sum())
        precisions.append(hit / (guess == k).sum() if (guess == k).any() else 0)
        f1s.append(2 * hit / ((truth == k).sum() + (guess == k).sum()))
    assert m.accuracy(truth, shares) == pytest.approx((truth == guess).mean())
    assert m.balanced_accuracy(truth, shares) == pytest.approx(np.mean(recalls))
    assert m.macro_precision(truth, shares) == pytest.approx(np.mean(precisions))
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
    assert m.pearson(truth, value) == pytest.approx(stats.pearsonr(truth, value).statistic)


@pytest.mark.parametrize("measure", [m.spearman, m.pearson])
def test_a_constant_answer_is_correlated_with_nothing_and_equal_labels_with_no_answer(measure):
    truth, value, unknown = np.array([1.0, 2.0, 4.0]), np.array([1.0, 4.0, 3.0]), np.full(3, np.nan)
    assert measure(truth, np.full(3, 60.1)) == 0 and measure(truth[:2], np.ones(2)) == 0
    assert np.isnan([measure(np.ones(3), value), measure(np.ones(3), np.ones(3)), measure(truth, unknown)]).all()
    assert np.isnan([measure(truth[:k], answer[:k]) for k in (0, 1) for answer in (value, np.ones(3))]).all()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=20))
@settings(deadline=None, max_examples=50)
def test_correlations_are_those_of_scipy(rows):
    truth, value = (np.array(column, float) for column in zip(*rows, strict=True))
    if np.ptp(truth) and np.ptp(value):
        assert m.spearman(truth, value) == pytest.approx(stats.spearmanr(truth, value).statistic, abs=1e-12)
        assert m.pearson(truth, value) == pytest.approx(stats.pearsonr(truth, value).statistic, abs=1e-12)


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
    over_time = generator.integers(0, 20, (100, len(m.cut_times(train, tau)))).astype(float)
    begun = m.cut_times(train, tau) >= test[0][test[1] == 1].min()
    mean = sks.cumulative_dynamic_auc(known, packed, over_time[:, begun], m.cut_times(train, tau)[begun])[1]
    assert m.time_dependent_auc(train, test, over_time, tau) == pytest.approx(mean, **close)
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


# --- the time-dependent AUC ---------------------------------------------------------------------------------------


def followed(generator, n, censored=0.4):
    """Return time and event of n patients, of whom the first is followed beyond every horizon below 60."""
    time, event = generator.integers(1, 50, n).astype(float), (generator.random(n) > censored).astype(float)
    time[0], event[0] = 60.0, 0.0
    return time, event


def test_time_dependent_auc_is_the_weighted_share_of_pairs_at_each_time():
    generator = np.random.default_rng(0)
    train, (time, event) = followed(generator, 80), followed(generator, 40)
    # no two at one time: which of an event and a censoring comes first is a convention
    train, time = (train[0] + generator.random(80), train[1]), time + generator.random(40)
    times = m.cut_times(train, 30.0)
    risk = generator.integers(0, 6, (40, len(times))) / 6
    weight = weights_of_censoring(train, time)
    areas, falls, before = [], [], 1.0
    event_free = KaplanMeierFitter().fit(time, event)
    for t, at_t in zip(times, risk.T, strict=True):
        good = total = 0.0
        for i in np.flatnonzero((event == 1) & (time <= t)):
            for j in np.flatnonzero(time > t):
                total += weight[i]
                good += weight[i] * (1.0 if at_t[i] > at_t[j] else 0.5 if at_t[i] == at_t[j] else 0.0)
        areas.append(good / total if total else 0.0)  # no case yet, and so no fall
        falls.append(before - event_free.predict(t))
        before = event_free.predict(t)
    expected = np.dot(areas, falls) / np.sum(falls)
    assert m.time_dependent_auc(train, (time, event), risk, 30.0) == pytest.approx(expected)


def test_a_score_ranks_the_same_at_all_times(parts):
    train, test = parts.train.outcome(), parts.test.outcome()
    score = parts.test.clinical["Size"].to_numpy()
    each_time = np.tile(score[:, None], len(m.cut_times(train, HORIZON)))
    expected = m.time_dependent_auc(train, test, each_time, HORIZON)
    assert m.time_dependent_auc(train, test, score, HORIZON) == pytest.approx(expected)
    assert m.time_dependent_auc(train, test, -score, HORIZON) == pytest.approx(1 - expected)


def test_time_dependent_auc_knows_a_risk_that_crosses():
    generator = np.random.default_rng(1)
    train, (time, event) = followed(generator, 80), followed(generator, 60)
    times = m.cut_times(train, 30.0)
    knowing = (time[:, None] <= times).astype(float)
    assert m.time_dependent_auc(train, (time, event), knowing, 30.0) == 1
    assert m.time_dependent_auc(train, (time, event), knowing[:, 0], 30.0) < 1


# --- the skill of the Brier score ---------------------------------------------------------------------------------


def random_parts(seed):
    """Return (train, test, grid, curves, edges) for a horizon of 25: censored by half, with times in common."""
    generator = np.random.default_rng(seed)
    train, test = followed(generator, 80, 0.5), followed(generator, 40, 0.5)
    train[0][:2] = 61.0  # scikit-survival refuses test times beyond the last training time
    grid = np.linspace(0, 25, m.GRID + 1)[1:]
    edges = np.arange(2.0, 63.0, 4.0)
    return train, test, grid[grid >= test[0].min()], random_curves(generator, 40, edges), edges


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_brier_skill_is_one_less_the_ratio_of_scikit_survivals_scores(seed):
    train, test, grid, curves, edges = random_parts(seed)
    known, packed = (Surv.from_arrays(event == 1, time) for time, event in (train, test))
    moments, left = kaplan_meier_estimator(train[1] == 1, train[0])
    floor = np.interp(grid, np.r_[0, moments], np.r_[1, left])
    own = np.stack([np.interp(grid, np.r_[0, edges], np.r_[1, row]) for row in curves])
    scores = [sks.integrated_brier_score(known, packed, given, grid) for given in (own, np.tile(floor, (40, 1)))]
    assert scores[1] > 0
    assert m.brier_skill(train, test, curves, edges, 25.0) == pytest.approx(1 - scores[0] / scores[1])


def test_the_floor_has_no_skill_and_who_knows_the_future_has_all(parts, answers):
    train, test = parts.train.outcome(), parts.test.outcome()
    floor = answers["trivial"]
    assert m.brier_skill(train, test, floor.survival, floor.edges, HORIZON) == 0
    edges = np.arange(10.0, 2 * HORIZON, 10.0)
    knowing = 1 - (test[1] == 1)[:, None] * (test[0][:, None] <= edges)
    assert 0.95 < m.brier_skill(train, test, knowing, edges, HORIZON) < 1  # curves fall within ten days, not at once
    assert m.brier_skill(train, test, 1 - knowing, edges, HORIZON) < 0


def test_there_is_no_skill_where_there_is_no_brier_score(parts, answers):
    train, (time, event) = parts.train.outcome(), parts.test.outcome()
    curves, edges = answers["cox"].survival, answers["cox"].edges
    for outcome in ((time, np.zeros_like(event)), (np.minimum(time, HORIZON), event)):
        assert np.isnan(m.brier_skill(train, outcome, curves, edges, HORIZON))
    with pytest.raises(ValueError, match="No training patient is followed beyond the horizon 9999"):
        m.brier_skill(train, (time, event), curves, edges, 9999)


# --- the log score ------------------------------------------------------------------------------------------------


def random_curves(generator, n, edges):
    return np.sort(generator.random((n, len(edges))))[:, ::-1]


def log_score_by_loops(ends, time, event, curves, edges):
    """Sum the probability of each cell that the event may have fallen into, patient by patient."""
    losses = []
    for t, seen, curve in zip(time, event, curves, strict=True):
        reached = [1.0, *np.interp(ends, [0.0, *edges], [1.0, *curve]), 0.0]
        cells = list(zip([0.0, *ends], [*ends, np.inf], strict=True))
        possible = 0.0
        for k, (start, stop) in enumerate(cells):
            share = 0.99 * (reached[k] - reached[k + 1]) + 0.01 / len(cells)
            own = start <= t < stop
            possible += share * (own or (not seen and t < start))
        losses.append(-np.log(possible))
    return np.mean(losses)


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_log_score_by_loops(seed):
    generator = np.random.default_rng(seed)
    train, (time, event) = followed(generator, 50), followed(generator, 20)
    edges = np.arange(6.0, 61.0, 6.0)
    curves = random_curves(generator, 20, edges)
    expected = log_score_by_loops(m.cut_times(train, 40.0), time, event, curves, edges)
    assert m.log_score(train, (time, event), curves, edges, 40.0) == pytest.approx(expected)


def test_log_score_is_the_loss_of_n_mtlr_on_the_same_cells(monkeypatch):
    monkeypatch.setattr(m, "UNIFORM", 0.0)
    generator = np.random.default_rng(2)
    train, (time, event) = followed(generator, 80), followed(generator, 50)
    ends = m.cut_times(train, 30.0)
    logits = generator.normal(0, 2, (50, len(ends)))
    loss = mtlr_nll(torch.from_numpy(logits), torch.from_numpy(time_cell(time, ends)), torch.from_numpy(event))
    assert (time > 30).any() and m.log_score(
        train, (time, event), survival_curves(logits), ends, 30.0
    ) == pytest.approx(loss.item())


def test_no_curve_does_better_on_average_than_the_truth():
    generator = np.random.default_rng(3)
    rate, n = 0.05, 4000
    time, censoring = generator.exponential(1 / rate, n), generator.uniform(10, 60, n)
    outcome = np.minimum(time, censoring), (time <= censoring).astype(float)
    edges = np.linspace(0.5, 30, 60)
    scores = {
        factor: m.log_score(outcome, outcome, np.tile(np.exp(-rate * factor * edges), (n, 1)), edges, 30.0)
        for factor in (0.6, 0.8, 1.0, 1.25, 1.6)
    }
    assert min(scores, key=scores.get) == 1.0
    assert scores[0.8] < scores[0.6] and scores[1.25] < scores[1.6]


def test_a_prediction_of_zero_costs_much_and_not_infinity():
    train = (np.arange(1.0, 41.0), np.ones(40))
    edges = m.cut_times(train, 20.0)
    sure_to_live = np.ones((1, len(edges)))
    loss = m.log_score(train, (np.array([5.0]), np.array([1.0])), sure_to_live, edges, 20.0)
    assert loss == pytest.approx(-np.log(0.01 / (len(edges) + 1)))
    spared = m.log_score(train, (np.array([25.0]), np.array([1.0])), sure_to_live, edges, 20.0)
    assert spared == pytest.approx(-np.log(0.99 + 0.01 / (len(edges) + 1)))


def test_after_the_horizon_an_event_and_its_absence_are_one():
    generator = np.random.default_rng(4)
    train, edges = followed(generator, 60), np.array([10.0, 25.0, 40.0])
    curves = random_curves(generator, 1, edges)
    late = [m.log_score(train, (np.array([t]), np.array([e])), curves, edges, 25.0) for t in (25, 31) for e in (0, 1)]
    assert np.ptp(late) == 0


def test_a_curve_that_ends_before_the_horizon_has_no_log_score():
    train = followed(np.random.default_rng(5), 30)
    with pytest.raises(ValueError, match="known from time 0 to 10"):
        m.log_score(train, train, np.full((30, 1), 0.5), np.array([10.0]), 25.0)


@given(st.integers(0, 10_000), st.sampled_from([5.0, 20.0, 49.0]))
@settings(deadline=None, max_examples=50)
def test_cut_times_are_those_of_the_training_events(seed, horizon):
    generator = np.random.default_rng(seed)
    time, event = followed(generator, int(generator.integers(2, 80)), 0.7)
    times = m.cut_times((time, event), horizon)
    assert times[-1] == horizon and (np.diff(times) > 0).all() and times[0] > 0 and len(times) <= m.CUTS
    censored_moved = np.where(event == 1, time, time / 2)
    np.testing.assert_array_equal(m.cut_times((censored_moved, event), horizon), times)


def test_cut_times_hold_equal_numbers_of_events():
    time = np.arange(1.0, 101.0)
    times = m.cut_times((time, np.ones(100)), 100.0)
    held = np.histogram(time, [0, *times])[0]
    assert len(times) == 10 and held.tolist() == [10] * 10
    assert m.cut_times((time, np.zeros(100)), 50.0).tolist() == [50.0]


@pytest.mark.parametrize("measure", m.LOWER_IS_BETTER + m.UNDIRECTED)
def test_measures_with_a_direction_of_their_own_exist(measure):
    assert measure in {*MEASURES, *CALIBRATION}
    assert (measure in m.LOWER_IS_BETTER) != (measure in m.UNDIRECTED)

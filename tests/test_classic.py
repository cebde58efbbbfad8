"""Methods from scikit-learn and scikit-survival: the frame that they share, and each one of them."""

import inspect
import json
import warnings
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from scipy.optimize import minimize_scalar
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.svm import SVC
from sksurv.ensemble import RandomSurvivalForest
from sksurv.functions import StepFunction
from sksurv.linear_model import CoxnetSurvivalAnalysis, CoxPHSurvivalAnalysis
from sksurv.svm import FastSurvivalSVM
from sksurv.util import Surv

from txtlib import metrics
from txtlib.benchmark import training_horizon
from txtlib.bootstrap import score_draws
from txtlib.cohort import CohortError, split
from txtlib.peers import boosting, centroid, coxnet, forest, pca, ridge, svm
from txtlib.peers.breslow import breslow_curves
from txtlib.peers.coxnet import CrossValidatedCoxnet, partial_log_likelihood
from txtlib.peers.floors import trivial
from txtlib.peers.forest import SurvivalForest, earliest_censoring
from txtlib.peers.svm import RankingSVM
from txtlib.peers.tabular import (
    FOLDS,
    PerTask,
    Survival,
    Tempered,
    calibration_slope,
    class_folds,
    event_folds,
    fit_apart,
    fold_rows,
    folds,
    left_out_scores,
    step_values,
)
from txtlib.planted import planted

ALL = ("regression", "classification", "survival")
FAST = {"n_genes": 60}
METHODS = {
    "svm": (svm, svm.svm, ALL, {}),
    "linear svm": (svm, svm.svm, ALL, {"kernel": "linear"}),
    "forest": (forest, forest.forest, ALL, {"n_estimators": 60}),
    "boosting": (boosting, boosting.boosting, ALL, {"n_estimators": 60}),
    "ridge": (ridge, ridge.ridge, ALL, {}),
    "pca": (pca, pca.pca, ALL, {}),
    "coxnet": (coxnet, coxnet.coxnet, ("survival",), {}),
    "centroid": (centroid, centroid.centroid, ("classification",), {}),
}
DRAWN = ("forest", "boosting")  # the seed draws more than the folds within the training part
each_method = pytest.mark.parametrize("name", METHODS)


def make(name, seed=0, **settings):
    _, factory, _, own = METHODS[name]
    return factory(seed=seed, **{**FAST, **own, **settings})


@pytest.fixture(scope="module")
def parts():
    world = planted(n=400, n_genes=120, event_rate=0.6, main_effect=0.9, interaction=0.0, age_effect=0.0, seed=3)
    return split(world.cohort, seed=0)


@pytest.fixture(scope="module")
def answers(parts):
    """What each method says of the test part, each method fitted once."""
    return {name: make(name).fit(parts.train, parts.validation).predict(parts.test) for name in METHODS}


def same(one, other):
    for field in ("edges", "survival", "score"):
        ours, theirs = getattr(one, field), getattr(other, field)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_array_equal(ours, theirs)
    assert one.values.keys() == other.values.keys() and one.probabilities.keys() == other.probabilities.keys()
    for task, values in one.values.items():
        np.testing.assert_array_equal(values, other.values[task])
    for task, shares in one.probabilities.items():
        pd.testing.assert_frame_equal(shares, other.probabilities[task])


def permuted(cohort, seed=1):
    columns, order = ["OS_duration", "OS_event"], np.random.default_rng(seed).permutation(len(cohort))
    return replace(
        cohort, clinical=cohort.clinical.assign(**{k: cohort.clinical[k].to_numpy()[order] for k in columns})
    )


def outcome(n=150, seed=0, slope=1.0, share=0.5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    time, event = rng.exponential(np.exp(-slope * x)), rng.random(n) < share
    return x, time, event


# --- every method ---------------------------------------------------------------------------------------------


@each_method
def test_it_answers_its_kinds_for_the_patients_in_their_order(name, parts, answers):
    answer, kinds = answers[name], METHODS[name][2]
    assert set(answer.values) == ({"Age", "Size"} if "regression" in kinds else set())
    assert set(answer.probabilities) == ({"NHG", "PAM50"} if "classification" in kinds else set())
    assert (answer.survival is not None) == ("survival" in kinds)
    assert answer.samples.equals(parts.test.samples)
    shuffled = parts.test.take(parts.test.samples[::-1])
    again = make(name).fit(parts.train, parts.validation).predict(shuffled)
    for task, shares in answer.probabilities.items():
        assert list(shares.columns) == parts.train.about["classes"][task] and shares.index.equals(answer.samples)
        np.testing.assert_allclose(shares.sum(axis=1), 1)
        np.testing.assert_allclose(again.probabilities[task][::-1], shares, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in METHODS if "survival" in METHODS[name][2]])
def test_curves_fall_from_1_on_the_training_parts_follow_up(name, parts, answers):
    answer, time = answers[name], parts.train.outcome()[0]
    np.testing.assert_array_equal(answer.edges, np.unique(time[time > 0]))
    assert answer.survival.shape == (len(parts.test), len(answer.edges))
    assert (np.diff(answer.survival, axis=1) <= 1e-12).all() and (answer.survival[:, 0] <= 1).all()
    assert answer.survival.min() >= 0 and answer.calibrated == (name in ("svm", "linear svm"))
    assert (answer.score is not None) == answer.calibrated


@each_method
def test_it_beats_the_constant(name, parts, answers):
    floor, horizon = trivial().fit(parts.train).predict(parts.test), training_horizon(parts.train)
    draws = score_draws({"method": answers[name], "floor": floor}, parts.train, parts.test, horizon, resamples=0)
    ours, constant = draws["method"].iloc[0], draws["floor"].iloc[0]
    better = {"regression": (("Age", "mean absolute error"), -1), "survival": (("OS", "Harrell's C"), 1)}
    better["classification"] = (("PAM50", "balanced accuracy"), 1)
    for kind in METHODS[name][2]:
        key, sign = better[kind]
        assert sign * ours[key] > sign * constant[key], key
    if "survival" in METHODS[name][2]:
        assert ours["OS", "Harrell's C"] > 0.6
        assert ours["OS", "integrated Brier score"] < constant["OS", "integrated Brier score"]


@pytest.mark.parametrize("name", [name for name in METHODS if "survival" in METHODS[name][2]])
def test_permuted_outcomes_are_not_learned(name, parts):
    train, test = (permuted(part).with_tasks("OS") for part in (parts.train, parts.test))
    answer = make(name).fit(train).predict(test)
    draws = score_draws({"m": answer}, train, test, training_horizon(train), resamples=200)
    low, high = draws["m", "OS", "Harrell's C"].iloc[1:].quantile([0.025, 0.975])
    assert low <= 0.5 <= high


@each_method
def test_a_seed_says_it_all(name, parts, answers):
    state = np.random.get_state()[1].copy()
    same(make(name).fit(parts.train, parts.validation).predict(parts.test), answers[name])
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    if name in DRAWN:
        other = make(name, seed=1).fit(parts.train, parts.validation).predict(parts.test)
        assert not np.array_equal(other.values["Age"], answers[name].values["Age"])
        assert not np.array_equal(other.survival, answers[name].survival)


@each_method
def test_neither_validation_nor_labels_of_new_patients_enter(name, parts, answers):
    other = replace(parts.validation, clinical=parts.validation.clinical.iloc[::-1].set_axis(parts.validation.samples))
    bare = replace(parts.test, clinical=parts.test.clinical[[]], tasks=())
    same(make(name).fit(parts.train, other).predict(bare), answers[name])


@each_method
def test_a_patient_without_a_label_teaches_the_other_tasks_only(name, parts):
    cut, gone = parts.train.take(parts.train.samples[:150]), parts.train.samples[100:150]
    clinical = cut.clinical.copy()
    clinical.loc[gone, ["Age", "PAM50", "OS_duration"]] = np.nan
    missing = make(name).fit(replace(cut, clinical=clinical)).predict(parts.test)
    garbled = clinical.copy()
    garbled.loc[gone, "OS_event"] = 1 - garbled.loc[gone, "OS_event"]  # an event without a time is no outcome
    same(make(name).fit(replace(cut, clinical=garbled)).predict(parts.test), missing)
    whole = make(name).fit(cut).predict(parts.test)
    kinds = METHODS[name][2]
    if "regression" in kinds:
        np.testing.assert_array_equal(whole.values["Size"], missing.values["Size"])
        assert not np.array_equal(whole.values["Age"], missing.values["Age"])
    if "classification" in kinds:
        assert whole.probabilities["NHG"].equals(missing.probabilities["NHG"])
        assert not whole.probabilities["PAM50"].equals(missing.probabilities["PAM50"])
    if "survival" in kinds:
        assert whole.survival.shape != missing.survival.shape


@each_method
def test_genes_come_from_the_gene_sets(name, parts):
    listed, few = list(parts.train.expression.columns), parts.train.take(parts.train.samples[:80])
    method = make(name, gene_sets={"A": listed[:20], "B": listed[10:30]}, scaler="rank").fit(few)
    assert set(method.preprocessor.genes) == set(listed[:30]) and method.preprocessor.scaler == "rank"
    method = make(name, gene_sets={}, n_genes=7).fit(few)
    assert len(method.preprocessor.genes) == 7


@each_method
def test_its_space_is_plain_and_starts_at_the_defaults(name):
    module, factory, _, _ = METHODS[name]
    defaults = {key: value.default for key, value in inspect.signature(factory).parameters.items()}
    assert json.loads(json.dumps(module.SPACE)) == module.SPACE
    for setting, values in module.SPACE.items():
        assert values[0] == defaults[setting] and len(set(values)) == len(values) > 1


@each_method
def test_every_value_of_its_space_works(name, parts):
    module, factory, _, own = METHODS[name]
    quick = parts.train.take(parts.train.samples[:80])
    for setting, values in module.SPACE.items():
        for value in values[1:]:
            capped = min(value, 50) if setting == "n_estimators" else value
            answer = factory(seed=0, **{"n_genes": 30, **own, setting: capped}).fit(quick).predict(parts.test)
            for shares in answer.probabilities.values():
                assert np.isfinite(shares.to_numpy()).all()


def test_a_method_without_a_task_of_its_kind_answers_nothing(parts):
    answer = make("coxnet").fit(parts.train.with_tasks("Age")).predict(parts.test)
    assert answer.survival is None and not answer.values and not answer.probabilities


# --- one task: units, classes, refusals -----------------------------------------------------------------------


def test_regression_is_in_the_labels_unit_and_does_not_know_it(parts):
    in_days = parts.train.clinical.assign(Age=parts.train.clinical["Age"] * 365)
    for name in ("svm", "ridge", "pca"):  # trees split ties in rounding differently
        years = make(name).fit(parts.train.with_tasks("Age")).predict(parts.test).values["Age"]
        other = make(name).fit(replace(parts.train, clinical=in_days).with_tasks("Age")).predict(parts.test)
        np.testing.assert_allclose(other.values["Age"], years * 365, rtol=1e-4)
        assert years.mean() == pytest.approx(parts.train.clinical["Age"].mean(), abs=4)


@pytest.mark.parametrize("name", [name for name in METHODS if "classification" in METHODS[name][2]])
def test_rare_and_absent_classes_do_no_harm(name, parts):
    subtype = parts.train.clinical["PAM50"].copy()
    subtype[subtype == "Normal"] = np.nan
    her2 = subtype.index[subtype == "Her2"]
    subtype[her2[1:]] = np.nan  # one patient is left of it
    basal = subtype.index[subtype == "Basal"]
    subtype[basal[2:]] = np.nan  # and two of this one, fewer than folds
    train = replace(parts.train, clinical=parts.train.clinical.assign(PAM50=subtype)).with_tasks("PAM50")
    shares = make(name).fit(train).predict(parts.test).probabilities["PAM50"]
    assert (shares["Normal"] == 0).all() and (shares[["LumA", "LumB", "Basal"]] > 0).any().all()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    subtype[subtype != "LumA"] = np.nan
    train = replace(train, clinical=train.clinical.assign(PAM50=subtype))
    assert (make(name).fit(train).predict(parts.test).probabilities["PAM50"]["LumA"] == 1).all()


def test_what_cannot_be_learned_is_refused_in_a_sentence(parts):
    clinical = parts.train.clinical.assign(PAM50=np.nan, OS_event=0.0)
    with pytest.raises(CohortError, match="No training patient has a label of 'PAM50'; leave the task out"):
        make("centroid").fit(replace(parts.train, clinical=clinical).with_tasks("PAM50"))
    clinical.loc[clinical.index[5], "OS_event"] = 1.0
    with pytest.raises(CohortError, match=r"1 event\(s\) of 'OS', too few to learn from"):
        make("coxnet").fit(replace(parts.train, clinical=clinical).with_tasks("OS"))
    with pytest.raises(ValueError, match="kernel is linear or rbf, not 'poly'"):
        svm.svm(kernel="poly")


@pytest.mark.parametrize("name", [name for name in METHODS if "survival" in METHODS[name][2]])
@pytest.mark.parametrize("events", [2, 4, None])
def test_few_events_or_no_censoring_do_not_stop_it(name, events, parts):
    event = np.ones(len(parts.train)) if events is None else np.zeros(len(parts.train))
    event[: events or 0] = 1.0
    clinical = parts.train.clinical.assign(OS_event=event)
    clinical.loc[clinical.index[[0, 10]], "OS_duration"] = 0.0  # an event, or none, on the first day
    answer = make(name).fit(replace(parts.train, clinical=clinical).with_tasks("OS")).predict(parts.test)
    assert answer.edges.min() > 0 and answer.survival[:, 0].max() <= 1
    assert np.isfinite(answer.survival).all() and np.isfinite(answer.risk(answer.edges[10])).all()


# --- the pieces of the frame ----------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(2, 6), st.integers(0, 5))
def test_folds_share_out_everybody_and_each_stratum(strata, n_folds, seed):
    strata = np.array(strata)
    fold = folds(strata, n_folds, seed)
    for members in (fold, *(fold[strata == k] for k in np.unique(strata))):
        sizes = np.bincount(members, minlength=n_folds)
        assert sizes.sum() == len(members) and np.ptp(sizes) <= 1
    assert fold.max() < n_folds


def test_folds_depend_on_the_seed():
    strata = np.repeat([0, 1], 40)
    assert not np.array_equal(folds(strata, 5, 0), folds(strata, 5, 1))
    assert not np.array_equal(folds(strata, 5, 0), np.arange(80) % 5)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8, unique=True), st.integers(0, 9))
def test_steps_are_read_as_they_are_drawn(knots, seed):
    knots, rng = np.sort(np.array(knots, float)), np.random.default_rng(seed)
    levels = np.sort(rng.random((3, len(knots))), axis=1)[:, ::-1]
    edges = np.arange(0.5, 42, 0.5)
    slow = np.ones((3, len(edges)))
    for row in range(3):
        for column, edge in enumerate(edges):
            for knot, level in zip(knots, levels[row], strict=True):
                if knot <= edge:
                    slow[row, column] = level
    functions = [StepFunction(knots, 1 - row, a=-1.0, b=1.0) for row in levels]
    np.testing.assert_allclose(step_values(functions, edges), slow)


def test_left_out_scores_are_of_models_that_have_not_seen_the_patient():
    signal, time, event = outcome(60)
    x = np.column_stack([signal, np.random.default_rng(1).normal(size=(60, 3)) + 5])
    scores, fold = left_out_scores(RankingSVM(1.0, "linear", 0), x, time, event, seed=4), folds(event, 5, 4)
    for k in range(5):
        model = RankingSVM(1.0, "linear", 0).fit(x[fold != k], Surv.from_arrays(event[fold != k], time[fold != k]))
        expected = (x[fold == k] - x[fold != k].mean(0)) @ -model.model.coef_
        np.testing.assert_allclose(scores[fold == k], expected)


def test_the_slope_is_coxs_and_does_not_turn_a_score_round():
    score, time, event = outcome(300)
    table = pd.DataFrame({"score": 50 + 3 * score, "time": time, "event": event})
    expected = CoxPHFitter().fit(table, "time", "event").params_["score"]
    found = calibration_slope(table["score"].to_numpy(), time, event)
    assert found == pytest.approx(expected, rel=0.01) and found > 0.2
    assert 0 < calibration_slope(-score, time, event) < 0.01
    assert np.isfinite(calibration_slope(np.zeros(300), time, event))
    assert 0 < calibration_slope(-time, time, event) < np.inf  # a score that separates perfectly


def test_calibrated_curves_keep_the_methods_own_ranking_even_a_bad_one(parts):
    class Backwards(RankingSVM):
        def predict(self, x):
            return -super().predict(x)

    for estimator in (RankingSVM(0.01, "linear", 0), Backwards(0.01, "linear", 0)):
        method = PerTask({"survival": estimator}, n_genes=60).fit(parts.train)
        answer, model = method.predict(parts.test), method.models["OS"].model
        x = method.preprocessor.expression(parts.test).astype(float)
        np.testing.assert_array_equal(answer.score, model.predict(x))
        order = np.argsort(answer.score)
        assert answer.calibrated and (np.diff(answer.survival[order], axis=0) <= 0).all()
        np.testing.assert_array_equal(np.argsort(answer.risk(1000.0)), order)
    assert metrics.harrell_c(parts.test.outcome(), answer.score) < 0.4 and np.ptp(answer.survival, axis=0).max() < 0.01


def test_calibrated_curves_equal_a_cox_regression_where_the_score_is_one(parts):
    """The slope of a Cox score on left-out patients is near 1, and the curves near its own."""

    class Score:
        def __init__(self):
            self.cox = CoxPHSurvivalAnalysis(alpha=1.0)

        def fit(self, x, y):
            self.cox.fit(x[:, :5], y)
            return self

        def predict(self, x):
            return self.cox.predict(x[:, :5])

    hazards = planted(n=400, n_genes=120, event_rate=0.6, main_effect=0.9, interaction=0.0, age_effect=0.0, seed=3)
    chosen = {"all": hazards.biology.hazard_genes()[:5]}
    method = PerTask({"survival": Score()}, gene_sets=chosen).fit(parts.train.with_tasks("OS"))
    fitted = method.models["OS"]
    assert fitted.slope == pytest.approx(1, abs=0.2)
    x = method.preprocessor.expression(parts.test).astype(float)
    own = step_values(fitted.model.cox.predict_survival_function(x[:, :5]), method.predict(parts.test).edges)
    assert np.abs(own - method.predict(parts.test).survival).max() < 0.1
    edges, curves = breslow_curves(fitted.slope * fitted.left_out, fitted.time, fitted.event, np.zeros(1))
    at_the_mean = method.models["OS"].model.cox.predict_survival_function(np.zeros((1, 5)))
    assert np.abs(curves - step_values(at_the_mean, edges)).max() < 0.1


def test_tempered_probabilities_minimise_the_log_loss_of_left_out_patients():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 2, 5], 30)
    x = rng.normal(size=(90, 4)) + 0.8 * np.eye(4)[np.repeat([0, 1, 2], 30)]
    model = Tempered(SVC(kernel="linear"), seed=3).fit(x, y)
    code, values = np.searchsorted([0, 2, 5], y), np.empty((90, 3))
    fold = folds(code, 5, 3)
    for k in range(5):
        values[fold == k] = SVC(kernel="linear").fit(x[fold != k], y[fold != k]).decision_function(x[fold == k])

    def softmax(logits):
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return shares / shares.sum(1, keepdims=True)

    best = minimize_scalar(lambda b: -np.log(softmax(np.exp(b) * values)[np.arange(90), code]).mean(), bounds=(-9, 9))
    decisions = SVC(kernel="linear").fit(x, y).decision_function(x)
    np.testing.assert_allclose(model.predict_proba(x), softmax(np.exp(best.x) * decisions), atol=1e-4)
    assert list(model.classes_) == [0, 2, 5]
    np.testing.assert_array_equal(model.predict_proba(x).argmax(1), decisions.argmax(1))


def test_classes_of_one_patient_each_are_refused():
    with pytest.raises(ValueError, match="Each class has one training patient"):
        Tempered(SVC()).fit(np.eye(3), np.arange(3))


# --- SVM ------------------------------------------------------------------------------------------------------


def test_the_ranking_machine_weighs_the_pairs_of_an_event_as_one_patient():
    signal, time, event = outcome(80)
    x = np.column_stack([signal, np.random.default_rng(2).normal(size=(80, 5))])
    y = Surv.from_arrays(event, time)
    pairs = sum(time[j] > time[i] for i in range(80) for j in range(80) if event[i])
    alpha = 2.0 * event.sum() / pairs * (1 / (6 * x.var()))
    plain = FastSurvivalSVM(alpha=alpha, max_iter=500, random_state=0).fit(x, y)
    ours = RankingSVM(2.0, "linear", 0).fit(x, y)
    np.testing.assert_array_equal(ours.predict(x), plain.predict(x))
    assert metrics.harrell_c((time, event.astype(float)), ours.predict(x)) > 0.6  # higher is worse
    twice = RankingSVM(2.0, "linear", 0).fit(np.tile(x, (2, 1)), np.tile(y, 2))  # a cohort seen twice: C counts double
    double = RankingSVM(4.0, "linear", 0).fit(x, y)
    np.testing.assert_allclose(twice.predict(x), double.predict(x), atol=1e-4)


def test_the_rbf_width_does_not_depend_on_the_scale_of_x():
    signal, time, event = outcome(60)
    x = np.column_stack([signal, np.random.default_rng(2).normal(size=(60, 5))])
    y = Surv.from_arrays(event, time)
    one, other = (RankingSVM(1.0, "rbf", 0).fit(scale * x, y).predict(scale * x) for scale in (1.0, 0.01))
    np.testing.assert_allclose(one, other, rtol=1e-6)


# --- forest ---------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(1, 15), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: any(event for _, event in rows)
    )
)
def test_moving_censoring_back_leaves_who_is_at_risk(rows):
    time, event = np.array([t for t, _ in rows], float), np.array([e for _, e in rows])
    moved = earliest_censoring(time, event)
    assert (moved <= time).all() and (moved[event] == time[event]).all()
    assert set(moved) <= {0.0, *time[event]}
    for moment in time[event]:
        np.testing.assert_array_equal(moved >= moment, time >= moment)


def test_the_forest_is_the_one_of_all_times():
    rng = np.random.default_rng(0)
    signal, time, event = outcome(120, share=0.3)
    x = np.column_stack([signal, rng.normal(size=(120, 6))])
    plain = RandomSurvivalForest(20, min_samples_leaf=5, random_state=0).fit(x, Surv.from_arrays(event, time))
    ours = SurvivalForest(RandomSurvivalForest(20, min_samples_leaf=5, random_state=0))
    ours.fit(x, Surv.from_arrays(event, time))
    np.testing.assert_allclose(ours.predict(x), plain.predict(x), rtol=1e-12)
    curves = step_values(ours.predict_survival_function(x), np.unique(time))
    np.testing.assert_allclose(curves, step_values(plain.predict_survival_function(x), np.unique(time)), atol=1e-12)
    assert len(ours.forest.unique_times_) < len(plain.unique_times_) / 2


# --- Coxnet and ridge -----------------------------------------------------------------------------------------


@given(st.integers(0, 20), st.booleans())
def test_the_partial_likelihood_is_the_sum_over_events(seed, tied):
    rng = np.random.default_rng(seed)
    time, event = rng.exponential(size=12), rng.random(12) < 0.6
    time = np.ceil(3 * time) if tied else time
    score = 30 * rng.normal(size=(12, 2))
    slow = np.zeros(2)
    for column in range(2):
        for i in np.flatnonzero(event):
            slow[column] += score[i, column] - np.logaddexp.reduce(score[time >= time[i], column])
    np.testing.assert_allclose(partial_log_likelihood(score, time, event), slow, atol=1e-8)


def test_the_penalty_is_the_one_that_left_out_patients_prefer():
    signal, time, event = outcome(100)
    x = np.column_stack([signal, np.random.default_rng(2).normal(size=(100, 30))])
    y = Surv.from_arrays(event, time)
    found = CrossValidatedCoxnet(0.5, seed=7).fit(x, y)
    fold, gain = folds(event, 5, 7), np.zeros(len(found.alphas))
    for k in range(5):
        for column, alpha in enumerate(found.alphas):
            rest = fold != k
            model = CoxnetSurvivalAnalysis(l1_ratio=0.5, alphas=found.alphas[: column + 1], tol=1e-5)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "all coefficients are zero")
                model.fit(x[rest], y[rest])
            whole, seen = model.predict(x, alpha)[:, None], model.predict(x[rest], alpha)[:, None]
            gain[column] += partial_log_likelihood(whole, time, event)[0]
            gain[column] -= partial_log_likelihood(seen, time[rest], event[rest])[0]
    np.testing.assert_allclose(found.gain, gain, atol=1e-8)
    assert found.alpha == found.alphas[gain.argmax()] and 0 < gain.argmax() < len(gain) - 1
    assert found.model.coef_[0, 0] > 0.4 and (found.model.coef_ != 0).sum() < 20


def test_noise_is_left_to_the_model_without_genes():
    _, time, event = outcome(100)
    x = np.random.default_rng(5).normal(size=(100, 40))
    nothing = CrossValidatedCoxnet(0.9, seed=0).fit(x, Surv.from_arrays(event, time))
    assert (nothing.model.coef_ == 0).all() and np.ptp(nothing.predict(x)) == 0


def test_free_columns_are_not_penalised():
    signal, time, event = outcome(200)
    x = np.column_stack([np.random.default_rng(5).normal(size=(200, 20)), signal])
    table = pd.DataFrame({"x": signal, "time": time, "event": event})
    found = CrossValidatedCoxnet(0.9, seed=0, free=1).fit(x, Surv.from_arrays(event, time))
    expected = CoxPHFitter().fit(table, "time", "event").params_["x"]
    assert found.model.coef_[-1, 0] == pytest.approx(expected, rel=0.15)


def test_cox_ridge_is_exact_ridge_but_for_a_trace():
    signal, time, event = outcome(100)
    x = np.column_stack([signal, np.random.default_rng(2).normal(size=(100, 150))])
    y = Surv.from_arrays(event, time)
    net = CrossValidatedCoxnet(seed=0, **ridge.COX).fit(x, y)
    exact = CoxPHSurvivalAnalysis(alpha=net.alpha * 100).fit(x, y)
    assert np.corrcoef(net.predict(x), exact.predict(x))[0, 1] > 0.99
    for alpha in net.alphas[[0, -1]]:
        exact = CoxPHSurvivalAnalysis(alpha=alpha * 100).fit(x, y).coef_
        assert np.corrcoef(net._fitted(x, y, alphas=[alpha]).coef_[:, 0], exact)[0, 1] > 0.99


def test_a_path_that_ends_early_in_a_fold_is_judged_by_its_end():
    """Two events and many genes: scikit-survival stops where nothing is left to explain."""
    _, time, event = outcome(40)
    event = np.isin(np.arange(40), np.argsort(time)[[3, 20, 30]])
    x = np.random.default_rng(3).normal(size=(40, 100))
    found = CrossValidatedCoxnet(0.5, seed=0, span=(1, 1e-5)).fit(x, Surv.from_arrays(event, time))
    fold = folds(event, 3, 0)
    lengths = [
        len(
            found._fitted(
                x[fold != k], Surv.from_arrays(event[fold != k], time[fold != k]), alphas=found.alphas
            ).alphas_
        )
        for k in range(3)
    ]
    assert min(lengths) < len(found.alphas) == len(found.gain) and np.isfinite(found.gain).all()


def test_a_fold_whose_coefficients_run_off_says_nothing():
    _, time, event = outcome(60)
    x = np.column_stack([np.random.default_rng(3).normal(size=(60, 20)), -100 * time])
    found = CrossValidatedCoxnet(0.5, seed=0, free=1)
    found.alphas = np.array([0.2, 0.1])
    with pytest.raises(ArithmeticError, match="weights are too large"):
        found._fitted(x, Surv.from_arrays(event, time), alphas=found.alphas)
    np.testing.assert_array_equal(found._gain(x, time, event, np.arange(60) < 12), [0, 0])


# --- PCA and centroids ----------------------------------------------------------------------------------------


def test_components_are_those_of_the_singular_value_decomposition(parts):
    method = pca.pca(n_components=3, alpha=2.0, **FAST).fit(parts.train.with_tasks("Size"))
    encoded = method.preprocessor.encode(parts.train)
    target = encoded.labels["Size"][0].astype(float)
    x = encoded.x.astype(float)[~np.isnan(target)]
    left, singular, right = np.linalg.svd(x - x.mean(0), full_matrices=False)
    head = Ridge(2.0).fit(left[:, :3] * np.sqrt(len(x) - 1), target[~np.isnan(target)])
    new = (method.preprocessor.expression(parts.test).astype(float) - x.mean(0)) @ right.T[:, :3]
    expected = head.predict(new / singular[:3] * np.sqrt(len(x) - 1))
    mean, spread = method.preprocessor.scales["Size"]
    np.testing.assert_allclose(method.predict(parts.test).values["Size"], expected * spread + mean, rtol=1e-6)


def test_more_components_than_patients_are_as_many_as_there_are(parts):
    few = parts.train.take(parts.train.samples[:30])
    everything, all_there_are = (pca.pca(n_components=k, **FAST).fit(few).predict(parts.test) for k in (500, 60))
    same(everything, all_there_are)


def test_alpha_weighs_alike_in_the_three_regressions():
    """One standardised column, half the patients in each class: the penalty is alpha / 2 w^2 on a log likelihood."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 1)), np.repeat([0, 1], 40)
    x += y[:, None]

    def cost(w, loss):
        return loss(w) + 10 / 2 * w**2

    bias = LogisticRegression(C=1 / 10, max_iter=1000).fit(x, y)
    logits = lambda w: (2 * y - 1) * (w * x[:, 0] + bias.intercept_[0])  # noqa: E731
    best = minimize_scalar(lambda w: cost(w, lambda w: np.logaddexp(0, -logits(w)).sum())).x
    assert bias.coef_[0, 0] == pytest.approx(best, rel=1e-3)
    signal, time, event = outcome(80)
    likelihood = lambda w: -partial_log_likelihood(w * signal[:, None], time, event)[0]  # noqa: E731
    best = minimize_scalar(lambda w: cost(w, likelihood)).x
    found = CoxPHSurvivalAnalysis(alpha=10.0).fit(signal[:, None], Surv.from_arrays(event, time)).coef_[0]
    assert found == pytest.approx(best, rel=1e-4)


def test_centroids_are_shrunk_and_sure_of_no_more_than_they_know(parts):
    train = parts.train.with_tasks("PAM50")
    found = {
        threshold: centroid.centroid(shrink_threshold=threshold, **FAST).fit(train).predict(parts.test)
        for threshold in (None, 1.0, 100.0)
    }
    shares = train.clinical["PAM50"].value_counts(normalize=True)
    nothing_left = found[100.0].probabilities["PAM50"]
    assert (nothing_left.idxmax(axis=1) == shares.idxmax()).all() and np.ptp(
        nothing_left.to_numpy(), axis=0
    ).max() < 0.01
    truth = parts.test.clinical["PAM50"]
    known, probabilities = truth.notna().to_numpy(), found[1.0].probabilities["PAM50"]
    sure = probabilities.max(axis=1)[known].mean()
    hit = (probabilities.idxmax(axis=1) == truth)[known].mean()
    assert hit > 0.7 and sure == pytest.approx(hit, abs=0.12)


def test_a_gene_that_does_not_vary_within_classes_is_no_alarm():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), np.repeat([0, 1], 20)
    x[:, 0] = 0.0
    x[0, 0] = 5.0  # in the fold that is left out, the gene is constant
    shares = centroid.ShrunkenCentroids(1.0, seed=0).fit(x, y).predict_proba(x)
    assert np.isfinite(shares).all()


def test_the_frame_takes_any_estimator_and_leaves_it_unfitted(parts):
    estimator = RandomForestRegressor(5, random_state=0)
    method = PerTask({"regression": estimator}, n_genes=20).fit(parts.train)
    assert set(method.predict(parts.test).values) == {"Age", "Size"} and not hasattr(estimator, "estimators_")


# --- several samples of one patient ---------------------------------------------------------------------------


several = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 2)), min_size=1, max_size=40)


@given(several, st.integers(1, 6), st.integers(0, 3))
def test_folds_part_no_patient_and_share_out_patients_and_strata(rows, n_folds, seed):
    """A patient is in the highest stratum of the samples."""
    patients, strata = np.array(rows).T
    fold = folds(strata, n_folds, seed, np.array([f"P{k}" for k in patients]))
    own = pd.DataFrame({"patient": patients, "stratum": strata, "fold": fold}).groupby("patient")
    assert (own["fold"].nunique() == 1).all()
    first = own.agg({"stratum": "max", "fold": "first"})
    counts = [first] + [part for _, part in first.groupby("stratum")]
    assert all(np.ptp(np.bincount(part["fold"], minlength=n_folds)) <= 1 for part in counts)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.integers(0, 3))
def test_names_alone_change_no_fold(strata, seed):
    names = np.array([f"P{k}" for k in np.random.default_rng(0).permutation(len(strata))])
    strata = np.array(strata)
    np.testing.assert_array_equal(folds(strata, 5, seed, names), folds(strata, 5, seed))
    events = strata > 0
    if events.any():
        np.testing.assert_array_equal(event_folds(events, seed, names), event_folds(events, seed))


@given(several, st.integers(0, 3))
def test_each_fold_and_whoever_fits_without_it_has_an_event(rows, seed):
    patients, events = np.array(rows).T[0], np.array(rows).T[1] > 0
    if len(set(patients[events])) >= 2:
        fold = event_folds(events, seed, patients)
        assert all(events[rest].any() and events[out].any() for rest, out in fold_rows(fold)) and fold.max() < FOLDS


@given(several, st.integers(0, 3))
def test_a_class_is_learned_from_others_in_each_fold_or_not_at_all(rows, seed):
    """Also where a patient has samples of two classes."""
    patients, y = np.array(rows).T
    owners = {k: set(patients[y == k]) for k in set(y)}
    if max(map(len, owners.values())) < 2:
        with pytest.raises(ValueError, match="Each class has one training patient"):
            class_folds(y, seed, patients)
        return
    kept, fold = class_folds(y, seed, patients)
    for rest, out in fold_rows(fold):
        assert set(y[kept][out]) <= set(y[kept][rest])
        assert not set(patients[kept][out]) & set(patients[kept][rest])
    lost = set(y[~kept])
    assert not lost & set(y[kept]) and all(len(owners[k]) == 1 or len(rows) > len(set(patients)) for k in lost)


def test_a_class_whose_patients_meet_in_one_fold_by_another_class_is_left_out():
    """Six patients in five folds: one pair of them shares a fold, and with it all samples of class 0."""
    lost = []
    for pair in combinations(range(6), 2):
        patients, y = np.array([*range(6), *pair]), np.array([1] * 6 + [0] * 2)
        kept, fold = class_folds(y, 0, patients)
        assert kept[:6].all() and len(fold) == kept.sum() and len(set(fold)) == 5
        lost += [] if kept.all() else [pair]
    assert len(lost) == 1


def twice(*tables):
    """Each row twice, and whose it is: what is learned of one sample is known of the other."""
    return *(np.repeat(table, 2, axis=0) for table in tables), np.repeat(np.arange(len(tables[0])), 2)


@pytest.fixture(scope="module")
def noise():
    """More genes than patients, and none of them means anything."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 100)), rng.normal(size=60)


def test_a_penalty_is_not_chosen_by_a_patients_other_sample(noise):
    x, target, patients = twice(*noise)
    found = fit_apart(RidgeCV(ridge.ALPHAS), x, target, patients, seed=1)
    errors = np.zeros(len(ridge.ALPHAS))
    fold = folds(np.zeros(60), 5, 1)
    for k, (column, alpha) in [(k, pair) for k in range(5) for pair in enumerate(ridge.ALPHAS)]:
        rest, out = fold[patients] != k, fold[patients] == k
        said = Ridge(alpha).fit(x[rest], target[rest]).predict(x[out])
        errors[column] += np.square(said - target[out]).sum() / np.square(target[out] - target[out].mean()).sum()
    assert found.alpha_ == ridge.ALPHAS[np.argmin(errors)]
    assert fit_apart(RidgeCV(ridge.ALPHAS), x, target, np.arange(120), 1).alpha_ < found.alpha_ / 100
    once = fit_apart(RidgeCV(ridge.ALPHAS), *noise, np.arange(60), 1)
    np.testing.assert_array_equal(once.coef_, RidgeCV(ridge.ALPHAS).fit(*noise).coef_)  # as it was


def test_genes_are_not_chosen_by_a_patients_other_sample(noise):
    _, time, event = outcome(60, slope=0)
    x, time, event, patients = twice(noise[0], time, event)
    y = Surv.from_arrays(event, time)
    apart, parted = (fit_apart(CrossValidatedCoxnet(0.5, 0), x, y, who, 0) for who in (patients, np.arange(120)))
    n_genes, n_parted = ((net.model.coef_ != 0).sum() for net in (apart, parted))
    assert n_genes <= 5 and n_parted > 20
    np.testing.assert_array_equal(parted.gain, CrossValidatedCoxnet(0.5, 0).fit(x, y).gain)


def test_probabilities_are_not_tempered_by_a_patients_other_sample(noise):
    x, y, patients = twice(noise[0], (noise[1] > 0).astype(int))
    machine = Tempered(SVC(kernel="linear", C=100.0), seed=0)
    apart, parted = (
        fit_apart(machine, x, y, who, 0).predict_proba(x).max(1).mean() for who in (patients, np.arange(120))
    )
    assert apart < 0.6 and parted > 0.8


class Memory:
    """Ranks by the time of the most similar training sample."""

    def fit(self, x, y):
        self.x, self.time = x, y["time"]
        return self

    def predict(self, x):
        return -self.time[np.square(x[:, None] - self.x).sum(2).argmin(1)]


def test_a_score_is_not_calibrated_by_a_patients_other_sample(noise):
    _, time, event = outcome(60, slope=0)
    x, time, event, patients = twice(noise[0], time, event)
    of_patients, of_samples = (
        metrics.harrell_c((time, event), left_out_scores(Memory(), x, time, event, 0, who)) for who in (patients, None)
    )
    assert abs(of_patients - 0.5) < 0.15 and of_samples > 0.8


def test_an_estimator_that_divides_patients_is_told_who_they_are(parts):
    told = []

    class Asking:
        def fit(self, x, y, patients):
            told.append(patients)
            self.classes_ = np.arange(2)
            return self

        def predict(self, x):
            return np.zeros(len(x))

        predict_proba = predict

    names = [f"P{row // 2}" for row in range(60)]
    few = parts.train.take(parts.train.samples[:60]).with_tasks("Age", "PAM50", "OS")
    few = replace(few, clinical=few.clinical.assign(Patient=names))
    PerTask({"regression": Asking(), "classification": Asking(), "survival": Asking()}, n_genes=5).fit(few)
    seen = {task.name: few.clinical[list(task.columns)].notna().all(axis=1).to_numpy() for task in few.tasks}
    expected = [np.array(names)[seen[name]].tolist() for name in ("Age", "PAM50", "OS")]
    assert [list(one) for one in told[:3]] == expected
    assert len(told) == 3 + 5 and all(set(one) < set(expected[2]) for one in told[3:])  # left out by patient


@pytest.mark.parametrize("name", ["svm", "ridge", "coxnet", "pca"])
def test_each_method_takes_patients_with_several_samples(name, parts):
    names = np.random.default_rng(0).integers(0, 40, 120).astype(str)
    some = parts.train.take(parts.train.samples[:120])
    answer = make(name).fit(replace(some, clinical=some.clinical.assign(Patient=names))).predict(parts.test)
    assert answer.survival is None or np.isfinite(answer.survival).all()
    assert all(np.isfinite(shares.to_numpy()).all() for shares in answer.probabilities.values())


def test_two_samples_of_one_patient_are_one_event(parts):
    survival = Survival(CrossValidatedCoxnet(0.5, 0), parts.train.survival_task, None, 0)
    x, time, event = np.zeros((4, 2)), np.arange(1.0, 5.0), np.array([1.0, 1.0, 0.0, 0.0])
    with pytest.raises(CohortError, match=r"1 event\(s\) of 'OS', too few"):
        survival.fit(x, time, event, np.array(["a", "a", "b", "c"]))

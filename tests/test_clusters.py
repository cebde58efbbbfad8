from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from lifelines.statistics import logrank_test
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sksurv.nonparametric import kaplan_meier_estimator
from statsmodels.duration.hazard_regression import PHReg

from txtlib.interpret.clusters import (
    Clusters,
    Part,
    adjusted_hazard_ratio,
    cross_fit,
    fold_parts,
    hazard_ratio,
    log_rank,
    median_split,
    naive_fit,
    permuted_z,
    pooled_tests,
    split_tests,
    stability,
    survival_table,
    two_means,
)

SEEDS = st.integers(0, 10**6)


def outcome_of(group, log_ratio=0.0, seed=0, censored=0.5):
    """Return times with ties and events: hazard exp(log_ratio) times as high where group is 1."""
    rng = np.random.default_rng(seed)
    time = np.ceil(10 * rng.exponential(np.exp(-log_ratio * np.asarray(group))))
    return time, (rng.random(len(time)) >= censored).astype(float)


def two_groups(n=120, p=6, seed=0, gap=4.0):
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.arange(n) % 2)
    return group, rng.normal(size=(n, p)) + gap * group[:, None]


@pytest.fixture(scope="module")
def planted():
    """Two clusters that differ in survival, and five folds."""
    group, vectors = two_groups(200)
    outcome = outcome_of(group, log_ratio=1.0)
    return group, vectors, outcome, fold_parts(np.arange(200) % 5)


@pytest.fixture(scope="module")
def found(planted):
    _, vectors, outcome, parts = planted
    return cross_fit([vectors] * 5, outcome, parts)


# --- log-rank and hazard ratio -------------------------------------------------------------------------------------


@given(SEEDS, st.integers(2, 40))
@settings(deadline=None, max_examples=60)
def test_log_rank_is_that_of_lifelines(seed, n):
    rng = np.random.default_rng(seed)
    time, event = rng.integers(1, 12, n).astype(float), (rng.random(n) < 0.7).astype(float)
    group, member = rng.random((3, n)) < 0.5, rng.random((3, n)) < 0.8
    event[0] = 1.0
    surplus, variance = log_rank(time, event, group, member)
    for row in range(3):
        first, second = group[row] & member[row], ~group[row] & member[row]
        if not (event[first | second].any() and variance[row] > 0):
            continue
        expected = logrank_test(time[first], time[second], event[first], event[second]).test_statistic
        assert surplus[row] ** 2 / variance[row] == pytest.approx(expected)
        np.testing.assert_allclose(
            log_rank(time[member[row]], event[member[row]], group[row][member[row]]), (surplus[row], variance[row])
        )
    back, same = log_rank(time, event, ~group, member)
    np.testing.assert_allclose(back, -surplus, atol=1e-9)
    np.testing.assert_allclose(same, variance, atol=1e-9)


def test_the_hazard_ratio_is_that_of_statsmodels_and_on_the_side_of_the_surplus():
    for seed in range(5):
        group = two_groups(60, seed=seed)[0]
        time, event = outcome_of(group, seed=seed)
        ratio, low, high = hazard_ratio((time, event), group == 1, level=0.9)
        model = PHReg(time, group[:, None].astype(float), status=event, ties="efron").fit()
        expected = np.exp(np.r_[model.params, model.conf_int(0.1)[0]])
        np.testing.assert_allclose([ratio, low, high], expected, rtol=1e-4)
        assert (ratio > 1) == (log_rank(time, event, group == 1)[0] > 0)


@pytest.mark.parametrize(
    "time, event, worse",
    [
        ([1, 2, 3, 4], [1, 1, 0, 0], [1, 1, 0, 0]),  # no event among the better
        ([1, 2, 3, 4], [0, 0, 1, 1], [1, 1, 0, 0]),  # none among the worse
        ([1, 2, 3, 4], [1, 1, 1, 1], [1, 1, 0, 0]),  # the worse are gone before the first of the better
        ([1, 2, 3, 4], [1, 1, 1, 1], [1, 1, 1, 1]),  # nobody is better
    ],
)
def test_a_hazard_ratio_without_a_maximum_is_missing(time, event, worse):
    assert np.isnan(hazard_ratio((np.array(time, float), np.array(event, float)), np.array(worse) == 1)).all()


def test_few_events_in_a_cluster_are_no_warning():
    rng = np.random.default_rng(0)
    time, worse = rng.permutation(np.arange(1.0, 201)), np.arange(200) < 100
    event = np.where(worse, 1.0, 0.0)
    event[np.flatnonzero(~worse)[np.argsort(time[~worse])[:1]]] = 1.0
    ratio, low, high = hazard_ratio((time, event), worse)
    assert 10 < low < ratio < high < 1e4


def aged_outcome(seed, n=200):
    """Return an outcome that depends on age alone, clusters that follow age, and age."""
    rng = np.random.default_rng(seed)
    age = rng.normal(60, 10, n)
    time = rng.exponential(np.exp(-0.08 * (age - 60)))
    return (time, (rng.random(n) < 0.7).astype(float)), age + rng.normal(0, 5, n) > 60, pd.DataFrame({"Age": age})


def test_at_equal_age_the_hazard_ratio_is_that_of_statsmodels():
    for seed in range(3):
        outcome, worse, age = aged_outcome(seed)
        found = adjusted_hazard_ratio(outcome, worse, age.assign(flat=1.0), level=0.9)
        columns = np.column_stack([worse.astype(float), age["Age"]])
        model = PHReg(outcome[0], columns, status=outcome[1], ties="efron").fit()
        expected = np.exp(np.r_[model.params[0], model.conf_int(0.1)[0]])
        np.testing.assert_allclose([found["ratio"], found["low"], found["high"]], expected, rtol=1e-3)
        assert (found["n"], found["events"]) == (200, outcome[1].sum())
        assert abs(np.log(found["ratio"])) < abs(np.log(hazard_ratio(outcome, worse)[0]))


def test_patients_without_the_covariate_are_left_out():
    outcome, worse, age = aged_outcome(0)
    known = np.arange(200) >= 20
    some = adjusted_hazard_ratio(outcome, worse, age.where(known[:, None]))
    rest = adjusted_hazard_ratio(tuple(one[known] for one in outcome), worse[known], age[known])
    assert some == pytest.approx(rest) and some["n"] == 180
    with pytest.raises(ValueError, match="199 rows of covariates for 200"):
        adjusted_hazard_ratio(outcome, worse, age[1:])


def test_an_adjusted_ratio_without_events_on_both_sides_is_missing():
    outcome, worse, age = aged_outcome(0)
    nobody = adjusted_hazard_ratio((outcome[0], np.where(worse, 0.0, outcome[1])), worse, age)
    assert np.isnan([nobody["ratio"], nobody["low"], nobody["high"]]).all()


# --- clusters --------------------------------------------------------------------------------------------------------


def test_two_means_are_those_of_a_slow_twin():
    _, vectors = two_groups(60, gap=1.5, seed=4)
    vectors = vectors * np.array([1, 100, 1, 1, 0.01, 0])  # the last one does not vary
    train, test = vectors[:40], vectors[40:]
    own, new = two_means(train, test, seed=1, count=3)
    spread = np.where(train.std(0) > 0, train.std(0), 1)
    scaled, unseen = ((side - train.mean(0)) / spread for side in (train, test))
    axes = np.linalg.svd(scaled, full_matrices=False)[2][:3].T
    expected = KMeans(2, n_init=20, random_state=1).fit(scaled @ axes)
    assert adjusted_rand_score(own, expected.labels_) == 1
    means = np.stack([(scaled @ axes)[own == label].mean(0) for label in (0, 1)])
    nearer = np.linalg.norm((unseen @ axes)[:, None] - means, axis=2).argmin(1)
    np.testing.assert_array_equal(new, nearer)


def test_a_median_is_that_of_the_training_part():
    train, test = np.array([[1.0], [2.0], [3.0], [9.0]]), np.array([[2.5], [2.6], [100.0], [-1.0]])
    own, new = median_split(train, test)
    assert own.tolist() == [0, 0, 1, 1] and new.tolist() == [0, 1, 1, 0]
    with pytest.raises(ValueError, match="one variable, not 2"):
        median_split(np.zeros((4, 2)), np.zeros((4, 2)))


def test_planted_clusters_are_found_and_named_by_their_hazard(planted, found):
    group = planted[0]
    np.testing.assert_array_equal(found.tested(), group)
    assert (found.labels == group).all()
    row = pooled_tests({"known": found}, permutations=200).iloc[0]
    assert row["permutation_p"] == 1 / 201 and row["log_rank_p"] < 1e-4
    assert row["low"] < np.exp(1) < row["high"] and row["low"] > 1


def test_labels_of_a_rule_mean_nothing(planted, found):
    _, vectors, outcome, parts = planted

    def turned(train, test):
        return tuple(1 - labels for labels in two_means(train, test))

    np.testing.assert_array_equal(cross_fit([vectors] * 5, outcome, parts, turned).labels, found.labels)


def test_worse_is_worse_in_training(planted):
    _, _, outcome, parts = planted
    rng = np.random.default_rng(3)
    noise = cross_fit([rng.normal(size=(200, 3)) for _ in parts], outcome, parts)
    for labels, part in zip(noise.labels, parts, strict=True):
        own = pd.DataFrame({"t": outcome[0], "e": outcome[1], "worse": labels}).iloc[part.train]
        assert CoxPHFitter().fit(own, "t", "e").hazard_ratios_["worse"] >= 1


def test_no_label_depends_on_a_test_outcome(planted):
    _, _, outcome, parts = planted
    rng = np.random.default_rng(5)
    vectors = [rng.normal(size=(200, 3)) for _ in parts]
    before = cross_fit(vectors, outcome, parts)
    for number, part in enumerate(parts):
        time, event = (side.copy() for side in outcome)
        time[part.test], event[part.test] = rng.exponential(50, len(part.test)), 1.0
        after = cross_fit(vectors, (time, event), parts)
        np.testing.assert_array_equal(after.labels[number], before.labels[number])


def test_training_labels_do_not_depend_on_test_vectors(planted):
    _, vectors, outcome, parts = planted
    other = vectors.copy()
    other[parts[0].test] = 50 * np.random.default_rng(0).normal(size=other[parts[0].test].shape)
    first, second = (cross_fit([table], outcome, parts[:1]).labels[0] for table in (vectors, other))
    np.testing.assert_array_equal(first[parts[0].train], second[parts[0].train])


def test_vectors_come_from_a_function_too(planted, found):
    _, vectors, outcome, parts = planted
    asked = []

    def of_fold(number):
        asked.append(number)
        return vectors[parts[number].train], vectors[parts[number].test]

    np.testing.assert_array_equal(cross_fit(of_fold, outcome, parts).labels, found.labels)
    assert asked == [0, 1, 2, 3, 4]


def test_patients_outside_a_part_have_no_label_there(planted):
    _, vectors, outcome, _ = planted
    one = cross_fit([vectors], outcome, [Part(np.arange(100), np.arange(150, 180))])
    assert (one.labels[0, 100:150] == -1).all() and (one.labels[0, 180:] == -1).all()
    assert (one.labels[0, :100] >= 0).all() and (one.labels[0, 150:180] >= 0).all()
    with pytest.raises(ValueError, match="Patient 0 is in 0 test parts"):
        one.tested()
    with pytest.raises(ValueError, match="Patient 0 is in 0 test parts"):
        pooled_tests({"one": one})


# --- tests -----------------------------------------------------------------------------------------------------------


def slow_z(found, outcome, holder, order):
    """Give everybody the outcome that the permutation says, and do all of it again, k-means included."""
    vectors, parts = found
    time, event = np.empty(len(order)), np.empty(len(order))
    time[holder], event[holder] = outcome[0][order], outcome[1][order]
    again = cross_fit([vectors] * len(parts), (time, event), parts)
    worse = again.tested() == 1
    test = logrank_test(time[worse], time[~worse], event[worse], event[~worse])
    return np.sqrt(test.test_statistic) * np.sign(log_rank(time, event, worse)[0])


def test_the_permutation_is_that_of_the_whole_procedure():
    _, vectors = two_groups(40, gap=1.0, seed=2)
    outcome, parts = outcome_of(np.zeros(40), seed=2), fold_parts(np.arange(40) % 4)
    found = cross_fit([vectors] * 4, outcome, parts)
    null = permuted_z(found, 12, seed=7)
    holders = np.random.default_rng(7).permuted(np.tile(np.arange(40), (12, 1)), axis=1)
    order = np.argsort(outcome[0], kind="stable")
    expected = [slow_z((vectors, parts), outcome, holder, order) for holder in holders]
    np.testing.assert_allclose(null, expected, atol=1e-9)
    itself = slow_z((vectors, parts), outcome, order, order)
    row = pooled_tests({"a": found}, permutations=12, seed=7).iloc[0]
    assert row["z"] == pytest.approx(itself)
    assert row["permutation_p"] == pytest.approx((1 + np.sum(np.array(expected) >= itself - 1e-9)) / 13)
    assert row["null_mean"] == pytest.approx(np.mean(expected)) and row["null_sd"] == pytest.approx(np.std(expected))


def test_the_pooled_row_is_that_of_the_libraries(planted, found):
    _, _, (time, event), _ = planted
    worse = found.tested() == 1
    row = pooled_tests({"known": found}, permutations=1, level=0.9).iloc[0]
    test = logrank_test(time[worse], time[~worse], event[worse], event[~worse])
    assert row["z"] ** 2 == pytest.approx(test.test_statistic) and row["log_rank_p"] == pytest.approx(test.p_value)
    table = pd.DataFrame({"t": time, "e": event, "worse": worse.astype(float)})
    cox = CoxPHFitter(alpha=0.1).fit(table, "t", "e").summary.loc["worse"]
    expected = cox[["exp(coef)", "exp(coef) lower 90%", "exp(coef) upper 90%"]].to_list()
    assert row[["hazard_ratio", "low", "high"]].to_list() == pytest.approx(expected)
    counts = [200, event.sum(), worse.sum(), event[worse].sum()]
    assert row[["n", "events", "n_worse", "events_worse"]].to_list() == counts


def test_p_is_uniform_where_there_is_no_difference():
    rng, p, spread = np.random.default_rng(0), [], []
    parts = fold_parts(np.arange(60) % 5)
    for seed in range(150):
        outcome = outcome_of(np.zeros(60), seed=seed)
        found = cross_fit([rng.normal(size=(60, 1))] * 5, outcome, parts, median_split)
        row = pooled_tests({"noise": found}, permutations=59, seed=seed).iloc[0]
        p.append(row["permutation_p"])
        spread.append(row["null_sd"])
    assert stats.kstest(p, "uniform").pvalue > 0.05
    assert np.mean(np.array(p) <= 0.1) < 0.18
    assert np.mean(spread) > 1.2  # so the chi-squared p of the pooled test would be too small


def knowing(outcome, part, rng):
    """Return vectors as of a network that was fitted to its training outcomes and learned nothing else."""
    vectors = rng.normal(size=(len(outcome[0]), 2))
    vectors[:, 0] += 4 * (rng.random(len(vectors)) < 0.5)
    vectors[part.train, 0] = 4 * (outcome[0][part.train] < np.median(outcome[0])) + rng.normal(size=len(part.train))
    return vectors


def test_the_naive_test_is_fooled_by_vectors_that_know_outcomes_and_the_cross_fitted_is_not():
    rng, naive, fair = np.random.default_rng(0), [], []
    for seed in range(12):
        outcome, parts = outcome_of(np.zeros(100), seed=seed), fold_parts(np.arange(100) % 5)
        everybody = Part(np.arange(100), np.arange(100))
        own = naive_fit(knowing(outcome, everybody, rng), outcome)
        crossed = cross_fit([knowing(outcome, part, rng) for part in parts], outcome, parts)
        rows = pooled_tests({"naive": own, "cross-fitted": crossed}, permutations=99)
        naive.append(rows.loc[0, "permutation_p"])
        fair.append(rows.loc[1, "permutation_p"])
    assert max(naive) == 0.01 and np.mean(fair) > 0.25 and min(fair) > 0.01


def test_naive_clusters_are_tested_on_those_that_made_them(planted):
    group, vectors, outcome, _ = planted
    found = naive_fit(vectors, outcome)
    np.testing.assert_array_equal(found.tested(), group)
    noise = naive_fit(np.random.default_rng(0).normal(size=(200, 2)), outcome)
    assert split_tests(noise)["z"][0] >= 0 and (permuted_z(noise, 50, 0) >= 0).all()


def test_split_tests_have_a_row_per_part(planted, found):
    _, _, (time, event), parts = planted
    table = split_tests(found)
    assert table["part"].to_list() == [0, 1, 2, 3, 4] and (table["n"] == 40).all()
    for row, part in zip(table.itertuples(), parts, strict=True):
        worse, t, e = found.labels[row.part][part.test] == 1, time[part.test], event[part.test]
        assert row.log_rank_p == pytest.approx(logrank_test(t[worse], t[~worse], e[worse], e[~worse]).p_value)
        assert (row.events, row.n_worse, row.events_worse) == (e.sum(), worse.sum(), e[worse].sum())
    assert table["events"].sum() == event.sum() and (table["z"] > 0).all()


def test_splits_may_overlap_when_looked_at_one_by_one(planted):
    _, vectors, outcome, _ = planted
    rng = np.random.default_rng(0)
    orders = [rng.permutation(200) for _ in range(3)]
    several = cross_fit([vectors] * 3, outcome, [Part(order[:150], order[150:]) for order in orders])
    assert len(split_tests(several)) == 3
    with pytest.raises(ValueError, match="needs each in one"):
        several.tested()


@pytest.mark.parametrize("events", [0.0, 1.0])
def test_what_cannot_be_tested_is_missing(events):
    time, event = np.arange(1.0, 21), np.ones(20)
    event[10:] = events
    labels = np.ones((1, 20), int)
    alone = Clusters((time, event), (Part(np.arange(10), np.arange(10, 20)),), labels)
    assert split_tests(alone)[["hazard_ratio", "low", "high", "z", "log_rank_p"]].isna().all(axis=None)
    whole = Clusters((time, event), (Part(np.arange(10), np.arange(20)),), labels)
    row = pooled_tests({"whole": whole}, permutations=5).iloc[0]
    assert row[["z", "permutation_p", "null_mean", "null_sd"]].isna().all() and row["permutations"] == 5


def test_the_seed_decides(planted):
    _, _, outcome, parts = planted
    vectors = np.random.default_rng(0).normal(size=(200, 30))
    first, again = (pooled_tests({"a": cross_fit([vectors] * 5, outcome, parts)}, 50, seed=2) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    other = pooled_tests({"a": cross_fit([vectors] * 5, outcome, parts)}, 50, seed=3)
    assert other["null_mean"][0] != first["null_mean"][0]
    state = np.random.get_state()[1].copy()
    cross_fit([vectors] * 5, outcome, parts, partial(two_means, seed=4, count=2))
    np.testing.assert_array_equal(np.random.get_state()[1], state)


# --- curves and agreement ------------------------------------------------------------------------------------------


def test_curves_are_those_of_scikit_survival(planted):
    group, _, (time, event), _ = planted
    times = np.array([0.0, 3, 3.5, 8, 12, 1000])
    table = survival_table((time, event), group, times).set_index("cluster")
    assert list(table.index.unique()) == ["better", "worse"]
    for label, name in enumerate(["better", "worse"]):
        own, rows = group == label, table.loc[name]
        moments, curve, bounds = kaplan_meier_estimator(event[own] == 1, time[own], conf_type="log-log")
        for row in rows.itertuples():
            assert row.at_risk == (time[own] >= row.time).sum()
            if row.time > time[own].max():
                assert np.isnan([row.survival, row.low, row.high]).all()
                continue
            place = np.searchsorted(moments, row.time, side="right") - 1
            expected = (curve[place], *bounds[:, place]) if place >= 0 else (1, 1, 1)
            np.testing.assert_allclose((row.survival, row.low, row.high), expected, atol=1e-6)


def test_a_cluster_without_patients_has_no_curve():
    table = survival_table((np.array([1.0, 2, 3]), np.array([1.0, 0, 1])), [1, 1, 1], [0, 2])
    assert table["cluster"].to_list() == ["worse", "worse"]
    np.testing.assert_allclose(table["survival"], [1, 2 / 3])


def test_agreement_is_that_of_scikit_learn_whatever_the_names():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 2, 50)
    second = np.where(rng.random(50) < 0.2, 1 - first, first)
    known = np.where(np.arange(50) < 10, -1, 1 - second)
    rows = stability({"a": first, "b": second, "c": known, "d": np.full(50, -1)}).set_index(["first", "second"])
    assert len(rows) == 6 and rows.loc[("a", "b"), "n"] == 50 and rows.loc[("b", "c"), "n"] == 40
    assert rows.loc[("a", "b"), "adjusted_rand"] == pytest.approx(adjusted_rand_score(first, second))
    assert rows.loc[("b", "c"), "adjusted_rand"] == 1
    assert rows.loc[("a", "c"), "adjusted_rand"] == pytest.approx(adjusted_rand_score(first[10:], second[10:]))
    assert rows.loc[("a", "d"), "n"] == 0 and np.isnan(rows.loc[("a", "d"), "adjusted_rand"])


def test_folds_and_seeds_agree_on_planted_clusters(planted, found):
    _, vectors, outcome, parts = planted
    other = cross_fit([vectors] * 5, outcome, parts, partial(two_means, seed=9))
    assert (stability({number: labels for number, labels in enumerate(found.labels)})["adjusted_rand"] == 1).all()
    assert stability({"seed 0": found.tested(), "seed 9": other.tested()})["adjusted_rand"].to_list() == [1]


# --- doors ----------------------------------------------------------------------------------------------------------


def test_folds_become_parts():
    parts = fold_parts(["b", "a", "b", "c"])
    assert [part.test.tolist() for part in parts] == [[1], [0, 2], [3]]
    assert [part.train.tolist() for part in parts] == [[0, 2, 3], [1, 3], [0, 1, 2]]


@pytest.mark.parametrize("folds", [[0, 0, 0], [0, 1, np.nan], [[0, 1]], []])
def test_folds_that_are_none_are_refused(folds):
    with pytest.raises(ValueError, match="one label per patient"):
        fold_parts(folds)


TIME, EVENT = np.arange(1.0, 9), np.array([1.0, 0, 1, 0, 1, 0, 1, 0])
HALVES = [Part(np.arange(4), np.arange(4, 8)), Part(np.arange(4, 8), np.arange(4))]
VECTORS = [np.random.default_rng(0).normal(size=(8, 2))] * 2


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"outcome": (TIME, EVENT[:-1])}, "a time and an event per patient"),
        ({"outcome": (TIME[None], EVENT[None])}, "a time and an event per patient"),
        ({"outcome": (-TIME, EVENT)}, "Patient 0 has time -1.0"),
        ({"outcome": (TIME, EVENT * 2)}, "Patient 0 has time 1.0 and event 2.0"),
        ({"outcome": (np.r_[TIME[:-1], np.nan], EVENT)}, "Patient 7 has time nan"),
        ({"outcome": (np.r_[TIME[:-1], np.inf], EVENT)}, "Patient 7 has time inf"),
        ({"outcome": (TIME, np.r_[EVENT[:-1], np.nan])}, "Patient 7 has time 8.0 and event nan"),
        ({"parts": []}, "there is no part"),
        ({"parts": [HALVES[0], Part(np.arange(5), np.arange(4, 8))]}, "part 1 has a patient in both"),
        ({"parts": [HALVES[0], Part(np.arange(4), np.arange(5, 9))]}, "Part 1: rows are different whole numbers"),
        ({"parts": [HALVES[0], Part(np.arange(4), np.array([-1]))]}, "Part 1: rows are different whole numbers"),
        ({"parts": [HALVES[0], Part(np.array([1, 1, 2]), np.array([4]))]}, "Part 1: rows are different whole numbers"),
        ({"parts": [HALVES[0], Part(np.arange(8) < 4, np.arange(8) > 3)]}, "Part 1: rows are different whole numbers"),
        ({"parts": [HALVES[0], Part(np.array([0]), np.array([4]))]}, "Part 1 has 1 training patients with 1 events"),
        ({"parts": [HALVES[0], Part(np.array([1, 3]), np.array([4]))]}, "2 training patients with 0 events"),
        ({"parts": [HALVES[0], Part(np.arange(4), np.array([], int))]}, "0 test patients"),
        ({"vectors": VECTORS[:1]}, "1 tables of vectors for 2 parts"),
        ({"vectors": [VECTORS[0], VECTORS[0][:7]]}, "Part 1 has 7 rows of vectors for 8 outcomes"),
        ({"vectors": lambda number: (VECTORS[0][:3], VECTORS[0][:4])}, r"shapes \(3, 2\) and \(4, 2\)"),
        ({"vectors": lambda number: (VECTORS[0][:4], VECTORS[0][:4, :1])}, r"shapes \(4, 2\) and \(4, 1\)"),
        ({"vectors": lambda number: (VECTORS[0][:4], VECTORS[0][0])}, "test vectors of part 0 are a table"),
        ({"vectors": [np.ones((8, 2))] * 2}, "All 4 rows of the training vectors of part 0 are the same"),
        ({"vectors": [np.full((8, 2), np.nan)] * 2}, "Row 0 of the training vectors of part 0"),
        ({"rule": lambda train, test: (np.zeros(3), np.zeros(4))}, "Part 0: a rule returns a label 0 or 1"),
        ({"rule": lambda train, test: (np.full(4, 2), np.zeros(4))}, "Part 0: a rule returns a label 0 or 1"),
    ],
)
def test_what_cannot_be_clustered_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        cross_fit(**{"vectors": VECTORS, "outcome": (TIME, EVENT), "parts": HALVES, **settings})


def test_naive_clusters_have_the_same_doors():
    with pytest.raises(ValueError, match="8 training patients with 0 events"):
        naive_fit(VECTORS[0], (TIME, 0 * EVENT))
    with pytest.raises(ValueError, match="7 rows of vectors for 8 outcomes"):
        naive_fit(VECTORS[0][:7], (TIME, EVENT))


def test_a_test_needs_a_permutation(found):
    with pytest.raises(ValueError, match="permutations is 0"):
        pooled_tests({"a": found}, permutations=0)


@pytest.mark.parametrize(
    "worse, times, message",
    [([0, 1], [1], "for each of 3 outcomes"), ([0, 1, 2], [1], "0 or 1"), ([0, 1, 1], [-1, 1], "not at -1")],
)
def test_curves_that_cannot_be_drawn_are_refused(worse, times, message):
    with pytest.raises(ValueError, match=message):
        survival_table((np.array([1.0, 2, 3]), np.array([1.0, 0, 1])), worse, times)
    with pytest.raises(ValueError, match="Patient 0 has time -1"):
        survival_table((np.array([-1.0, 2, 3]), np.array([1.0, 0, 1])), [0, 1, 1], [1])


@pytest.mark.parametrize("labels", [{"a": [0, 1]}, {"a": [0, 1], "b": [0, 1, 1]}])
def test_agreement_needs_two_of_the_same_patients(labels):
    with pytest.raises(ValueError, match="two clusterings or more"):
        stability(labels)

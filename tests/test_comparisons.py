import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from txtlib.bootstrap import score_draws
from txtlib.cohort import load_cohort, split
from txtlib.comparisons import (
    VERDICTS,
    against,
    holm,
    over_splits,
    p_over_splits,
    paired_difference,
    paired_over_splits,
    spread,
    standing,
    summary,
    verdict,
    verdicts,
)
from txtlib.peers.floors import ClinicalCox, Trivial
from txtlib.predictions import Predictions

HORIZON = 1825.0


# --- over the patients of one test part ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("gse7390"), seed=0)


@pytest.fixture(scope="module")
def answers(parts):
    cox = ClinicalCox("Age", "Size", "Grade").fit(parts.train).predict(parts.test)
    return {"trivial": Trivial().fit(parts.train).predict(parts.test), "cox": cox}


@pytest.fixture(scope="module")
def draws(parts, answers):
    return score_draws(answers, parts.train, parts.test, HORIZON, resamples=60, seed=1)


def test_resamples_are_the_same_patients_for_all_methods(parts, answers):
    twice = score_draws({"a": answers["cox"], "b": answers["cox"]}, parts.train, parts.test, HORIZON, 30)
    assert (paired_difference(twice, "a", "b").fillna(0) == 0).all().all()


def test_intervals_are_percentiles_of_the_resamples(draws):
    column = draws["cox", "DM", "Uno's C"]
    row = summary(draws).loc[("cox", "DM", "Uno's C")]
    assert row["score"] == column[0]
    np.testing.assert_allclose([row["low"], row["high"]], np.nanpercentile(column[1:], [2.5, 97.5]))


def test_a_positive_difference_is_better_also_where_lower_is_better(parts):
    truth = parts.test.clinical["Age"].to_numpy()
    good, bad = (Predictions(parts.test.samples, values={"Age": truth + error}) for error in (1, 5))
    draws = score_draws({"good": good, "bad": bad}, parts.train, parts.test.with_tasks("Age"), HORIZON, 20)
    gain = paired_difference(draws, "good", "bad")
    assert gain.loc[("Age", "mean absolute error"), "score"] == pytest.approx(4)


def test_a_lower_log_score_is_better(draws):
    gain = paired_difference(draws, "cox", "trivial").loc[("DM", "log score"), "score"]
    assert gain == pytest.approx(draws.iloc[0]["trivial", "DM", "log score"] - draws.iloc[0]["cox", "DM", "log score"])


def test_a_higher_brier_skill_is_better(draws):
    gain = paired_difference(draws, "cox", "trivial").loc[("DM", "Brier skill")]
    np.testing.assert_allclose(gain, summary(draws).loc[("cox", "DM", "Brier skill")])  # the floor has none


def test_a_calibration_test_is_scored_and_not_compared(draws):
    assert ("cox", "DM", "D-calibration p") in summary(draws).index
    assert ("DM", "D-calibration p") not in paired_difference(draws, "cox", "trivial").index


# --- over splits --------------------------------------------------------------------------------------------------


def test_an_interval_over_splits_is_wider_than_the_usual_one():
    differences = np.array([0.02, 0.05, -0.01, 0.04, 0.03])
    found = over_splits(differences, n_train=80, n_test=20)
    low, high = stats.ttest_1samp(differences, 0).confidence_interval()
    assert found["mean"] == pytest.approx(differences.mean())
    # by hand: 1/5 + 20/80 = 0.45 in place of 1/5
    assert found["high"] - found["low"] == pytest.approx((high - low) * np.sqrt(0.45 / 0.2))
    unrelated = over_splits(differences, n_train=10**12, n_test=1)
    assert (unrelated["low"], unrelated["high"]) == pytest.approx((low, high))


def test_p_is_that_of_the_corrected_t():
    differences = np.array([0.02, 0.05, -0.01, 0.04, 0.03])
    usual = stats.ttest_1samp(differences, 0)
    assert p_over_splits(differences, 10**12, 1) == pytest.approx(usual.pvalue)
    by_hand = 2 * stats.t.sf(usual.statistic / np.sqrt(0.45 / 0.2), 4)
    assert p_over_splits(differences, 80, 20) == p_over_splits(-differences, 80, 20) == pytest.approx(by_hand)


@given(st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), min_size=2, max_size=12), st.floats(0.01, 1))
@settings(deadline=None, max_examples=200)
def test_p_is_below_5_percent_where_the_interval_leaves_out_0(differences, ratio):
    found = over_splits(np.array(differences), 1, ratio)
    p = p_over_splits(np.array(differences), 1, ratio)
    assert 0 <= p <= 1 or len(set(differences)) == 1
    if abs(p - 0.05) > 1e-6:
        assert (p < 0.05) == (found["low"] > 0 or found["high"] < 0)


EQUAL = {
    "0.1": [0.1, 0.1, 0.1],  # the standard deviation of which comes out as 1e-17
    "-0.1": [-0.1, -0.1],
    "0.1, by rounding": [0.7 - 0.6, 0.8 - 0.7, 1.1 - 1.0],
}


@pytest.mark.parametrize("differences", EQUAL.values(), ids=EQUAL)
def test_equal_differences_have_no_interval_and_no_test(differences):
    found, p = over_splits(np.array(differences), 70, 20), p_over_splits(np.array(differences), 70, 20)
    assert found["mean"] == pytest.approx(differences[0]) and np.isnan([found["low"], found["high"], p]).all()
    assert verdict(found["low"], found["high"]) == "not to be told apart from"
    np.testing.assert_array_equal(holm(pd.Series([p, 0.04])), [np.nan, 0.04])


@pytest.mark.parametrize("differences", [[0.0, 0.0], [0.0, 1e-17, -1e-17], [0.3 - (0.1 + 0.2), 0.0]])
def test_where_all_differences_are_0_so_is_the_interval(differences):
    found, p = over_splits(np.array(differences), 70, 20), p_over_splits(np.array(differences), 70, 20)
    assert found.tolist() == [0, 0, 0] and p == 1 and verdict(found["low"], found["high"]) == "as good as"


def test_small_differences_that_vary_are_not_taken_for_equal():
    found = over_splits(np.array([1e-6, 2e-6, 3e-6]), 70, 20)
    assert found["high"] > found["low"] and 0 < p_over_splits(np.array([1e-6, 2e-6, 3e-6]), 70, 20) < 1


@pytest.mark.parametrize("function", [over_splits, p_over_splits])
def test_one_split_has_no_spread(function):
    with pytest.raises(ValueError, match=r"1 split\(s\) have no spread"):
        function(np.array([0.1]), 80, 20)


def tidy(scores, n_train=70, n_test=20):
    """Return rows as the benchmark writes them, from (method, data seed, model seed, task, measure, score)."""
    columns = ["method", "data_seed", "model_seed", "task", "measure", "score"]
    sizes = {"n_train": n_train, "n_test": n_test}
    return pd.DataFrame(scores, columns=columns).assign(**sizes).astype(dict.fromkeys(sizes, "Int64"))


def random_table(seed, measures=("Uno's C", "log score"), data_seeds=6, model_seeds=3):
    generator = np.random.default_rng(seed)
    return tidy(
        [
            (method, data_seed, model_seed, "OS", measure, generator.random())
            for method in ("new", "old", "other")
            for data_seed in range(data_seeds)
            for model_seed in range(model_seeds)
            for measure in measures
        ]
    )


def test_splits_are_paired_after_the_mean_over_model_seeds():
    table = random_table(0)
    found = paired_over_splits(table.sample(frac=1, random_state=1), "new", "old")
    assert list(found.columns) == ["mean", "low", "high", "p", "splits", "missing"]
    assert found.index.names == ["task", "measure"] and set(found.index) == {("OS", "Uno's C"), ("OS", "log score")}
    for measure, sign in (("Uno's C", 1), ("log score", -1)):
        scores = table[table["measure"] == measure].set_index(["method", "data_seed"])["score"]
        differences = [sign * (scores.loc["new", k].mean() - scores.loc["old", k].mean()) for k in range(6)]
        row = found.loc[("OS", measure)]
        expected = [*over_splits(np.array(differences), 70, 20), p_over_splits(np.array(differences), 70, 20), 6, 0]
        np.testing.assert_allclose(row, expected)


def test_the_other_way_round_is_worse_by_as_much():
    table = random_table(1)
    one, other = paired_over_splits(table, "new", "old"), paired_over_splits(table, "old", "new")
    np.testing.assert_allclose(one[["mean", "low", "high"]], -other[["mean", "high", "low"]])
    np.testing.assert_allclose(one["p"], other["p"])


def test_a_correlation_without_a_value_is_no_score():
    scores = {"flat": [0.0, 0.0, np.nan], "good": [0.5, 0.7, np.nan]}  # nothing to rank in the third split
    rows = [
        (name, seed, 0, "Age", "Spearman", score) for name, some in scores.items() for seed, score in enumerate(some)
    ]
    found = paired_over_splits(tidy(rows), "flat", "good").loc[("Age", "Spearman")]
    assert found["mean"] == pytest.approx(-0.6) and (found["splits"], found["missing"]) == (2, 1)
    assert spread(tidy(rows), "Age", "Spearman", 1)["good"] == "0.6 (0.5 to 0.7)"


def test_one_difference_in_all_splits_shows_nothing():
    rows = [(name, k, 0, "ER", "accuracy", score) for name, score in (("new", 0.8), ("old", 0.7)) for k in range(3)]
    found = paired_over_splits(tidy(rows), "new", "old").loc[("ER", "accuracy")]
    assert found["mean"] == pytest.approx(0.1) and found[["low", "high", "p"]].isna().all() and found["splits"] == 3


def test_what_has_no_score_is_dropped_and_counted():
    table = random_table(2)
    lost = table.query("method == 'new' and data_seed == 1").index
    table.loc[lost, "score"] = np.nan  # undefined in that split
    failed = table.query("method == 'old' and data_seed == 4").index
    table.loc[failed, ["task", "measure", "score"]] = None  # as a failed cell is written
    table = table.drop(failed[1::2])
    once = table.query("method == 'new' and data_seed == 5 and model_seed == 0").index
    table.loc[once, "score"] = np.nan
    found = paired_over_splits(table, "new", "old")
    assert found["splits"].tolist() == [4, 4] and found["missing"].tolist() == [2, 2]
    kept = table.query("data_seed not in (1, 4) and method != 'other'")
    assert kept["score"].isna().sum() == 2
    means = paired_over_splits(kept.dropna(subset=["score"]), "new", "old")
    pd.testing.assert_frame_equal(found.drop(columns="missing"), means.drop(columns="missing"))


@pytest.mark.parametrize("splits", [0, 1])
def test_too_few_pairs_have_no_interval(splits):
    table = random_table(3, data_seeds=2)
    table.loc[(table["method"] == "new") & (table["data_seed"] >= splits), "score"] = np.nan
    found = paired_over_splits(table, "new", "old")
    assert found[["low", "high", "p"]].isna().all(axis=None) and found["mean"].notna().all() == bool(splits)
    assert (found["splits"] == splits).all() and (found["missing"] == 2 - splits).all()


def test_only_what_both_have_and_what_has_a_direction_is_compared():
    table = random_table(4, ("Uno's C", "log score", "D-calibration p"))
    ranks = table[(table["method"] != "old") | (table["measure"] != "log score")]
    assert paired_over_splits(ranks, "new", "old").index.tolist() == [("OS", "Uno's C")]
    cells = table["method"].eq("old")
    failed = table.assign(measure=table["measure"].mask(cells)).drop_duplicates(
        ["method", "data_seed", "model_seed", "measure"]
    )
    nothing = paired_over_splits(failed, "new", "old")
    assert len(nothing) == 0 and list(nothing.columns) == list(paired_over_splits(table, "new", "old").columns)


def test_methods_with_equal_answers_are_as_good():
    table = random_table(5)
    copy = table.query("method == 'new'").assign(method="copy")
    found = paired_over_splits(pd.concat([table, copy]), "copy", "new")
    assert (found[["mean", "low", "high"]] == 0).all(axis=None) and (found["p"] == 1).all()


def test_a_comparison_that_makes_no_sense_is_refused():
    table = random_table(6)
    with pytest.raises(ValueError, match="not 'newer' and 'old'; it holds new, old, other"):
        paired_over_splits(table, "newer", "old")
    with pytest.raises(ValueError, match="Two methods of the table"):
        paired_over_splits(table, "new", "new")
    with pytest.raises(ValueError, match="'new' has two rows for OS, Uno's C, data seed 0 and model seed 0: keep one"):
        paired_over_splits(pd.concat([table, table.query("method == 'new'")]), "new", "old")


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_against_one_is_a_pair_for_each_other(level):
    table = random_table(7, ("Uno's C", "log score", "D-calibration p"))
    found = against(table, "old", level)
    assert found.index.names == ["method", "task", "measure"]
    assert list(dict.fromkeys(found.index.get_level_values("method"))) == ["new", "other"]
    pairs = [paired_over_splits(table, name, "old", level) for name in ("new", "other")]
    assert len(found) == sum(map(len, pairs)) == 4
    for name, pair in zip(("new", "other"), pairs, strict=True):
        pd.testing.assert_frame_equal(found.loc[name], pair)


def test_a_method_without_a_shared_task_is_left_out_of_the_comparisons_against_one():
    table = random_table(8)
    elsewhere = table["method"].eq("other")
    table["task"] = table["task"].mask(elsewhere, "Age")
    assert set(against(table, "old").index.get_level_values("method")) == {"new"}
    failed = table.assign(task=table["task"].mask(elsewhere))  # as a failed cell is written
    assert set(against(failed, "old").index.get_level_values("method")) == {"new"}


@pytest.mark.parametrize("method", ["old", "other"])
def test_where_nobody_shares_a_task_the_comparisons_against_one_are_an_empty_table(method):
    table = random_table(9).query("method in ('old', 'other')")
    table["task"] = table["method"]
    table = table if method == "other" else table.query("method == 'old'")
    found, usual = against(table, method), against(random_table(9), "old")
    assert len(found) == 0 and list(found.columns) == list(usual.columns)
    assert found.index.names == usual.index.names and not any(verdicts(found).values())


def test_nothing_is_compared_against_a_method_that_is_not_there():
    with pytest.raises(ValueError, match="'nobody'; it holds new, old, other"):
        against(random_table(10), "nobody")


def test_a_spread_is_the_mean_over_splits_with_the_lowest_and_the_highest():
    scores = {"a": [(0, 0, 0.5), (0, 1, 0.7), (1, 0, 0.9), (1, 1, 0.8), (2, 0, np.nan)], "b": [(1, 0, 1 / 3)]}
    rows = [(method, *seeds, "OS", "Uno's C", score) for method, some in scores.items() for *seeds, score in some]
    rows += [("a", 0, 0, "OS", "log score", 9.0), ("c", 0, 0, "DM", "Uno's C", 9.0), ("d", 0, 0, None, None, None)]
    # a: 0.6 and 0.85 by split, and nothing in the third; each split counts once
    found = spread(tidy(rows), "OS", "Uno's C")
    assert found.to_dict() == {"a": "0.725 (0.600 to 0.850)", "b": "0.333 (0.333 to 0.333)"}
    assert spread(tidy(rows), "OS", "Uno's C", 1)["b"] == "0.3 (0.3 to 0.3)"
    assert len(spread(tidy(rows), "OS", "accuracy")) == 0


def test_a_spread_of_many_by_hand():
    table = random_table(11)
    found = spread(table, "OS", "log score", 4)
    assert list(found.index) == ["new", "old", "other"]
    for name, text in found.items():
        rows = table[(table["method"] == name) & (table["measure"] == "log score")]
        means = [np.mean(rows.loc[rows["data_seed"] == k, "score"]) for k in range(6)]
        assert text == f"{np.mean(means):.4f} ({min(means):.4f} to {max(means):.4f})"


# --- many comparisons ---------------------------------------------------------------------------------------------


def holm_by_hand(p):
    """Multiply the smallest by their number, the next by one less, and so on; never smaller than the one before."""
    adjusted, highest = np.empty(len(p)), 0.0
    for rank, k in enumerate(np.argsort(p)):
        highest = max(highest, min(1.0, p[k] * (len(p) - rank)))
        adjusted[k] = highest
    return adjusted


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(deadline=None, max_examples=10)  # statsmodels collects garbage at each call
def test_holm_by_hand(p):
    np.testing.assert_allclose(holm(pd.Series(p)), holm_by_hand(np.array(p)))


def test_holm_keeps_what_is_undefined():
    p = pd.Series([0.01, np.nan, 0.04], ["a", "b", "c"])
    pd.testing.assert_series_equal(holm(p), pd.Series([0.02, np.nan, 0.04], ["a", "b", "c"]))
    assert holm(p[["b"]]).isna().all() and p["a"] == 0.01


# --- what may be said ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "low, high, words",
    [
        (0.01, 0.2, "better than"),
        (1e-9, 0.01, "better than"),  # also where it is near: the first rule goes first
        (-0.2, -0.01, "worse than"),
        (-0.01, -1e-9, "worse than"),
        (-0.02, 0.02, "as good as"),
        (0.0, 0.0, "as good as"),
        (0.0, 0.02, "as good as"),  # an interval that ends at 0 holds it
        (-0.02, 0.0, "as good as"),
        (0.0, 0.021, "not to be told apart from"),
        (-0.021, 0.0, "not to be told apart from"),
        (-0.03, 0.01, "not to be told apart from"),
        (-0.3, 0.3, "not to be told apart from"),
        (np.nan, np.nan, "not to be told apart from"),
    ],
)
def test_words_come_from_the_interval(low, high, words):
    assert verdict(low, high) == words


def test_the_margin_is_the_callers():
    assert verdict(-0.4, 0.5, margin=0.5) == "as good as" and verdict(-0.01, 0.01, margin=0) != "as good as"


def test_verdicts_name_who_is_what_and_keep_empty_ones():
    intervals = {"a": (0.1, 0.2), "b": (-0.2, -0.1), "c": (0.01, 0.3), "d": (-0.3, 0.3), "e": (np.nan, np.nan)}
    found = pd.DataFrame(intervals, ["low", "high"]).T
    said = verdicts(found)
    assert list(said) == list(VERDICTS)
    assert said == {
        "better than": ["a", "c"],
        "worse than": ["b"],
        "as good as": [],
        "not to be told apart from": ["d", "e"],
    }
    assert verdicts(found, margin=0.5)["as good as"] == ["d"]
    assert verdicts(found.iloc[:0]) == {word: [] for word in VERDICTS}


def test_every_verdict_is_one_of_the_words():
    ends = [-0.3, -0.01, 0.0, 0.01, 0.3, np.nan]
    assert {verdict(low, high) for low in ends for high in ends if not low > high} == set(VERDICTS)


# --- is a form ahead of all others? ---------------------------------------------------------------------------------


def scores_of(means, splits=8, seed=0, task="OS", measure="Uno's C"):
    """Return a benchmark's table of these methods, whose scores scatter little and together."""
    shared = np.random.default_rng(seed).normal(0, 0.05, splits)
    own = np.random.default_rng(seed + 1).normal(0, 0.003, (len(means), splits))
    rows = [
        (name, k, 0, task, measure, mean + shared[k] + own[i, k])
        for i, (name, mean) in enumerate(means.items())
        for k in range(splits)
    ]
    columns = ["method", "data_seed", "model_seed", "task", "measure", "score"]
    return pd.DataFrame(rows, columns=columns).assign(n_train=70, n_test=20)


def test_standing_counts_who_is_beaten_and_names_the_hardest_rival():
    table = scores_of({"mine": 0.70, "mine too": 0.60, "low": 0.60, "lower": 0.55, "near": 0.699, "high": 0.75})
    found = standing(table, ["mine", "mine too", "absent"], "OS", "Uno's C")
    assert list(found.index) == ["mine", "mine too"]
    assert found.loc["mine", ["better", "worse", "open", "hardest"]].tolist() == [2, 1, 1, "high"]
    twin = paired_over_splits(table, "mine", "high").loc[("OS", "Uno's C")]
    np.testing.assert_allclose(found.loc["mine", ["by", "low", "high"]].astype(float), twin[["mean", "low", "high"]])


def test_standing_widens_its_intervals_for_the_number_of_rows():
    pair = {"mine": 0.608, "low": 0.6}
    few = standing(scores_of(pair), ["mine"], "OS", "Uno's C")
    many = standing(scores_of(pair | {f"other {i}": 0.6 for i in range(60)}), ["mine"], "OS", "Uno's C")
    assert few.loc["mine", "better"] == 1 and many.loc["mine", "open"] > 0


def test_standing_is_quiet_where_there_is_nothing_to_compare():
    assert standing(scores_of({"low": 0.6}), ["mine"], "OS", "Uno's C").empty
    alone = standing(scores_of({"mine": 0.6}), ["mine"], "OS", "Uno's C")
    assert alone.loc["mine", ["better", "worse", "open", "hardest"]].tolist() == [0, 0, 0, ""]
    other = standing(scores_of({"mine": 0.6, "low": 0.5}), ["mine"], "Age", "Spearman")
    assert other.empty

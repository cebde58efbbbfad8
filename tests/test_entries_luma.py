import numpy as np
import pandas as pd
import pytest
from scipy import stats

from txtlib.entries_luma import (
    LEAST_VARYING,
    SIGNS,
    beyond_null,
    clusters_entry,
    expression_differences,
    genes_entry,
    log_ratio,
    pair_entry,
    sets_entry,
    varying,
)
from txtlib.ledger import NOT_ATTEMPTED, NOT_REPRODUCED, REPRODUCED, TOO_SMALL, not_attempted

ABOUT = dict(cohort="TRY", patients=100, events=30, splits=3)


def row(ratio=2.0, low=1.2, high=3.4, null_sd=0.9):
    return pd.Series({"hazard_ratio": ratio, "low": low, "high": high, "null_sd": null_sd})


# --- rows ------------------------------------------------------------------------------------------------------------


def test_the_interval_is_widened_by_the_permutations_and_never_narrowed():
    plain, wide = log_ratio(row()), log_ratio(row(null_sd=2.0))
    assert list(plain.values()) == pytest.approx(np.log([2.0, 1.2, 3.4]))
    assert wide["mean"] == plain["mean"]
    assert wide["mean"] - wide["low"] == pytest.approx(2 * (plain["mean"] - plain["low"]))
    assert wide["high"] - wide["mean"] == pytest.approx(2 * (plain["high"] - plain["mean"]))


def test_the_interval_leaves_out_0_where_the_observed_mean_is_beyond_the_null():
    rng = np.random.default_rng(0)
    null = rng.normal(5, 1, (3, 400))
    means = null.mean(0)
    for observed in (2.0, 5.0, 9.0):
        found = beyond_null([observed] * 3, null)
        assert found["mean"] == pytest.approx(observed - means.mean())
        beyond = observed > np.quantile(means, 0.975)
        assert (found["low"] > 0) == beyond and (found["high"] < 0) == (observed < np.quantile(means, 0.025))


def test_genes_vary_if_some_patients_have_them_and_some_have_not():
    marks = pd.DataFrame(np.zeros((40, 4), bool))
    marks.iloc[:, 1] = True
    marks.iloc[:20, 2] = True
    marks.iloc[:1, 3] = True  # 1 of 40 is less than 5 %
    assert varying(marks) == 0.25


def test_expression_differences_are_welchs():
    rng = np.random.default_rng(0)
    values = pd.DataFrame({"a": rng.normal(size=60), "b": rng.normal(5, 3, 60), "flat": 1.0})
    worse = np.arange(60) < 20
    found = expression_differences(values, worse)
    for name in ("a", "b"):
        column = values[name] / values[name].std()
        test = stats.ttest_ind(column[worse], column[~worse], equal_var=False)
        expected = [column[worse].mean() - column[~worse].mean(), *test.confidence_interval(), test.pvalue]
        assert found.loc[name].to_list() == pytest.approx(expected)
    assert found.loc["flat"].isna().all()


# --- entries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, verdict",
    [
        (row(), REPRODUCED),
        (row(null_sd=3.0), TOO_SMALL),
        (row(0.5, 0.3, 0.8), NOT_REPRODUCED),
        (row(np.nan, np.nan, np.nan), NOT_ATTEMPTED),
    ],
)
def test_clusters(given, verdict):
    assert clusters_entry(given, **ABOUT).verdict == verdict


def test_genes_differ_only_beyond_every_null_and_where_graphs_vary():
    rng = np.random.default_rng(1)
    easy, hard = rng.poisson(0.1, (3, 200)), rng.poisson(8, (3, 200))
    counts = {"labels": ([9, 8, 9], easy), "cuts": ([9, 8, 9], hard)}
    assert genes_entry({"labels": counts["labels"]}, 60, 0.5, **ABOUT).verdict == REPRODUCED
    assert genes_entry(counts, 60, 0.5, **ABOUT).verdict == TOO_SMALL
    still = genes_entry({"labels": counts["labels"]}, 60, LEAST_VARYING / 2, **ABOUT)
    assert still.verdict == TOO_SMALL and "decides nothing" in still.note
    assert genes_entry({"labels": ([0, 0], np.zeros((2, 50)))}, 60, 0.5, **ABOUT).verdict == NOT_REPRODUCED


def sets_of(strength):
    null = np.random.default_rng(2).normal(0, 0.1, (3, 300))
    return {name: ([sign * strength] * 3, null) for name, sign in SIGNS.items()}


def test_sets_need_all_three_the_right_side_and_clusters_that_differ():
    holds, fails = clusters_entry(row(), **ABOUT), clusters_entry(row(1.1, 0.5, 2.0), **ABOUT)
    assert sets_entry(sets_of(1.0), holds, 0.5, **ABOUT).verdict == REPRODUCED
    assert sets_entry(sets_of(-1.0), holds, 0.5, **ABOUT).verdict == NOT_REPRODUCED
    for survival, share in ((fails, 0.5), (holds, 0.0), (not_attempted("C9", cohort="TRY", why="none"), 0.5)):
        open_ = sets_entry(sets_of(-1.0), survival, share, **ABOUT)
        assert open_.verdict == TOO_SMALL and "decides nothing" in open_.note
    some = dict(list(sets_of(1.0).items())[:2])
    partial = sets_entry(some, holds, 0.5, **ABOUT)
    assert partial.verdict == TOO_SMALL and "without HALLMARK_EPITHELIAL" in partial.note
    assert sets_entry({"other": sets_of(1.0)["HALLMARK_COAGULATION"]}, holds, 0.5, **ABOUT).verdict == NOT_ATTEMPTED


def pair_of(*auc, gap=0.1):
    table = pd.DataFrame([auc, auc], ["SERPINE1 -> PLAU", "PLAU -> SERPINE1"])
    expression = pd.DataFrame({"difference": gap, "low": gap - 0.3, "high": gap + 0.3}, ["SERPINE1", "PLAU"])
    return table, expression, ["SERPINE1", "PLAU"], (80, 40)


def test_a_pair_counts_by_network_and_only_where_expression_is_equal():
    assert pair_entry(*pair_of(0.80, 0.81, 0.82), **ABOUT).verdict == REPRODUCED
    assert pair_entry(*pair_of(0.20, 0.21, 0.22), **ABOUT).verdict == NOT_REPRODUCED
    assert pair_entry(*pair_of(0.80, 0.30, 0.60), **ABOUT).verdict == TOO_SMALL
    unequal = pair_entry(*pair_of(0.80, 0.81, 0.82, gap=0.4), **ABOUT)
    assert unequal.verdict == TOO_SMALL and "expression is not shown to be equal" in unequal.note


def test_a_pair_that_is_not_the_claims_or_of_one_network_is_not_attempted():
    auc, expression, _, sizes = pair_of(0.8, 0.81)
    assert pair_entry(auc, expression, ["A", "B"], sizes, **ABOUT).verdict == NOT_ATTEMPTED
    assert pair_entry(*pair_of(0.8), **ABOUT).verdict == NOT_ATTEMPTED
    assert pair_entry(*pair_of(0.8, 0.8), **ABOUT).verdict == NOT_ATTEMPTED  # no spread, no interval

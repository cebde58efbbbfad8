import itertools

import numpy as np
import pandas as pd
import pytest

from txtlib.comparisons import over_splits, paired_over_splits
from txtlib.curves import crossings, gains_by_size, pays_from, scores_by_size, size_for

SIZES = [100, 400, 1600]


def synthetic(methods, sizes=SIZES, splits=4, seeds=2, noise=0.01, measure="Uno's C"):
    """Return a tidy table whose true scores are ``methods`` {name: score of n}."""
    generator = np.random.default_rng(0)
    effects = {split: generator.normal(0, 0.05) for split in range(splits)}
    rows = [
        {"method": name, "task": "OS", "measure": measure, "train_size": size, "data_seed": split, "model_seed": seed}
        | {"score": score(size) + effects[split] + generator.normal(0, noise)}
        | {"n_train": size, "n_test": 500, "n_whole": 1750}
        for name, score in methods.items()
        for size, split, seed in itertools.product(sizes, range(splits), range(seeds))
    ]
    return pd.DataFrame(rows).astype({"train_size": "Int64"})


def rising(n):
    return 0.5 + 0.05 * np.log10(n)


def flat(n):
    return 0.62


@pytest.fixture(scope="module")
def table():
    return synthetic({"net": rising, "Cox": flat})


def test_scores_by_size_are_those_of_a_slow_twin(table):
    found = scores_by_size(table).set_index(["method", "train_size"])
    assert len(found) == 2 * len(SIZES)
    for name, size in found.index:
        own = table[(table["method"] == name) & (table["train_size"] == size)]
        values = [own.loc[own["data_seed"] == split, "score"].mean() for split in range(4)]
        row = found.loc[(name, size)]
        expected = over_splits(np.array(values), 1750, 500)  # and not by the size that it was cut to
        np.testing.assert_allclose(row[["mean", "low", "high"]].astype(float), expected)
        np.testing.assert_allclose(
            row[["sd", "lowest", "highest"]].astype(float), [np.std(values, ddof=1), min(values), max(values)]
        )
        assert (row["n_train"], row["splits"], row["seeds"]) == (size, 4, 2)


def test_gains_by_size_are_paired_within_each_size(table):
    found = gains_by_size(table, "Cox").set_index("train_size")
    for size in SIZES:
        own = table[table["train_size"] == size].assign(n_train=1750)
        expected = paired_over_splits(own, "net", "Cox").iloc[0]
        pd.testing.assert_series_equal(
            found.loc[size, expected.index].astype(float), expected.astype(float), check_names=False
        )
    assert (found["n_train"] == SIZES).all() and set(found["method"]) == {"net"}
    assert (found["high"] - found["low"]).max() < 0.06  # the splits' own effect is gone


def test_whole_training_parts_are_one_size_and_failed_cells_do_not_count(table):
    whole = table[table["train_size"] == 1600].assign(train_size=pd.NA, n_train=1750).astype({"train_size": "Int64"})
    failed = whole.iloc[:1].assign(score=np.nan, data_seed=9, task=None, measure=None)
    both = pd.concat([table, whole, failed])
    found = scores_by_size(both)
    assert found["train_size"].isna().sum() == 2 and (found.loc[found["train_size"].isna(), "n_train"] == 1750).all()
    assert gains_by_size(both, "Cox")["n_train"].tolist() == [*SIZES, 1750]


def test_an_error_is_better_when_it_is_smaller():
    table = synthetic({"net": lambda n: 2 - rising(n), "Cox": lambda n: 2 - flat(n)}, measure="mean absolute error")
    assert gains_by_size(table, "Cox")["mean"].is_monotonic_increasing


def test_one_split_has_a_mean_and_no_interval():
    found = scores_by_size(synthetic({"net": rising}, splits=1))
    assert found["mean"].notna().all() and found[["low", "high", "sd"]].isna().all(axis=None)
    gains = gains_by_size(synthetic({"net": lambda n: 0.9, "Cox": flat}, splits=1), "Cox")
    assert gains["mean"].notna().all() and gains["low"].isna().all()
    assert crossings(gains).loc["net", "said"] == "at every size from 100, not surely up to 1,600"


def test_a_reference_that_did_not_run_is_refused(table):
    with pytest.raises(ValueError, match="no 'SVM' to compare with; it holds net, Cox"):
        gains_by_size(table, "SVM")


# --- where curves cross -------------------------------------------------------------------------------------------


def crossing(mean, low, n=(100, 200, 400, 800)):
    curve = pd.DataFrame({"method": "net", "n_train": n, "mean": mean, "low": low})
    return crossings(curve.sample(frac=1, random_state=0)).loc["net"]  # in any order


def test_curves_cross_where_they_were_made_to():
    # 0.5 + 0.05 log10(n) = 0.62 at n = 10 ** 2.4
    gains = gains_by_size(synthetic({"net": rising, "Cox": flat}, noise=1e-5, splits=3), "Cox")
    found = crossings(gains).loc["net"]
    assert found["crosses"] == pytest.approx(10**2.4, rel=1e-3) and found["up_to"] == 1600
    assert found["sure_from"] == 400 and found["said"] == "from about 251, surely from 400"


def test_a_lead_that_is_the_same_in_all_splits_is_not_sure():
    gains = gains_by_size(synthetic({"net": rising, "Cox": flat}, noise=0, splits=3), "Cox")
    found = crossings(gains).loc["net"]
    assert found["crosses"] == pytest.approx(10**2.4) and pd.isna(found["sure_from"])
    assert found["said"] == "from about 251, not surely up to 1,600"


def test_a_constant_has_a_score_and_no_interval():
    table = synthetic({"constant": flat}, splits=3).assign(score=0.5)
    found = scores_by_size(table)
    assert (found["mean"] == 0.5).all() and (found["sd"] == 0).all()
    assert found[["low", "high"]].isna().all(axis=None)


def test_what_is_below_at_the_largest_size_does_not_cross():
    found = crossing([-0.2, 0.1, 0.1, -0.01], [-0.3, 0.0, 0.0, -0.1])
    assert np.isnan(found["crosses"]) and pd.isna(found["sure_from"]) and found["said"] == "none up to 800"
    assert crossing([0, 0, 0, 0], [0, 0, 0, 0])["said"] == "none up to 800"


def test_only_a_lead_that_lasts_counts():
    found = crossing([0.1, -0.1, 0.1, 0.1], [0.05, -0.2, 0.01, 0.02])
    assert found["crosses"] == pytest.approx(np.sqrt(200 * 400)) and found["sure_from"] == 400
    found = crossing([0.1, 0.1, 0.1, 0.1], [0.05, 0.05, -0.01, 0.02])
    assert found["crosses"] == 100 and found["sure_from"] == 800
    assert found["said"] == "at every size from 100, surely from 800"
    found = crossing([-0.1, 0.1, 0.2, 0.3], [-0.2, -0.1, -0.1, -0.1])
    assert found["said"] == "from about 141, not surely up to 800"


def test_a_size_without_a_difference_breaks_a_lead():
    found = crossing([0.1, np.nan, 0.1, 0.1], [0.05, np.nan, np.nan, 0.02])
    assert found["crosses"] == 400 and found["sure_from"] == 800


def test_two_measures_at_once_are_refused():
    with pytest.raises(ValueError, match="keep one task and one measure"):
        crossing([1, 2], [1, 2], n=(100, 100))


# --- what a size is good for --------------------------------------------------------------------------------------

BETTER, EQUAL, OPEN, WORSE, NONE = (0.01, 0.2), (-0.01, 0.02), (-0.2, 0.1), (-0.3, -0.1), (np.nan, np.nan)


def pays(*intervals, margin=0.02):
    low, high = zip(*intervals, strict=True)
    n = [100, 200, 400, 800][: len(intervals)]
    curve = pd.DataFrame({"method": "net", "n_train": n, "low": low, "high": high}).astype({"n_train": "Int64"})
    return pays_from(curve.sample(frac=1, random_state=0), margin).loc["net"]


@pytest.mark.parametrize(
    ("intervals", "better", "as_good", "there"),
    [
        ((WORSE, OPEN, EQUAL, BETTER), 800, 400, "better than"),
        ((BETTER, BETTER, BETTER, BETTER), 100, 100, "better than"),
        ((BETTER, WORSE, BETTER, EQUAL), None, 400, "as good as"),  # a lead that ends was none
        ((BETTER, BETTER, BETTER, OPEN), None, None, "not to be told apart from"),
        ((EQUAL, NONE, EQUAL, EQUAL), None, 400, "as good as"),  # an undefined interval is no good verdict
        ((WORSE, WORSE, WORSE, WORSE), None, None, "worse than"),
    ],
)
def test_it_pays_from_where_the_verdict_stays_good(intervals, better, as_good, there):
    found = pays(*intervals)
    for name, expected in (("better", better), ("as_good", as_good)):
        assert pd.isna(found[name]) if expected is None else found[name] == expected
    assert (found["there"], found["up_to"]) == (there, 800)


def test_the_margin_decides_what_is_as_good():
    assert pays(EQUAL, EQUAL)["as_good"] == 100 and pd.isna(pays(EQUAL, EQUAL, margin=0.01)["as_good"])


def test_it_pays_from_where_the_curves_are_surely_apart():
    gains = gains_by_size(synthetic({"net": rising, "Cox": flat}, noise=1e-5, splits=3), "Cox")
    assert pays_from(gains).loc["net", "better"] == crossings(gains).loc["net", "sure_from"] == 400


def test_two_measures_at_once_have_no_size_from_which_it_pays():
    with pytest.raises(ValueError, match="keep one task and one measure"):
        pays_from(pd.DataFrame({"method": "net", "n_train": [1, 1], "low": 0, "high": 0}))


def test_a_cohort_stands_at_the_largest_size_that_needs_no_more():
    events = pd.Series({100: 30.0, 400: 120.0, 1600: 480.0})
    assert [size_for(events, count) for count in (29, 30, 119, 120, 9999)] == [None, 100, 100, 400, 1600]
    assert size_for(pd.Series(dtype=float), 9999) is None
    assert size_for(pd.Series({100: np.nan}), 9999) is None  # no events are known there

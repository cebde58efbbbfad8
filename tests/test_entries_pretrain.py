import numpy as np
import pandas as pd
import pytest

from txtlib.entries_pretrain import gains, restoring_entry, unlearned
from txtlib.ledger import NOT_REPRODUCED, REPRODUCED, TOO_SMALL

ABOUT = dict(cohort="a cohort", patients=100, events=20, note="small")


def draws(mean, spread=0.01, seed=0):
    return pd.Series(np.r_[mean, mean + spread * np.random.default_rng(seed).normal(size=400)])


def entry(*means, partial=False, **options):
    compared = {f"use {number}": draws(mean, seed=number, **options) for number, mean in enumerate(means)}
    return restoring_entry(compared, **ABOUT, partial=partial)


def test_gains_are_positive_where_the_method_is_better():
    scores = pd.DataFrame({"a": [0.9, 0.8], "b": [0.7, 0.9]})
    np.testing.assert_allclose(gains(scores, "a", "b"), [0.2, -0.1])
    np.testing.assert_allclose(gains(scores, "a", "b", lower_is_better=True), [-0.2, 0.1])


@pytest.mark.parametrize(
    "means, said",
    [
        ((0.1, 0.1, 0.1), REPRODUCED),
        ((0.1, 0.1, -0.1), NOT_REPRODUCED),
        ((0.1, 0.1, 0.0), TOO_SMALL),
    ],
)
def test_all_uses_must_hold_and_one_may_fail(means, said):
    spread = 0.03 if 0.0 in means else 0.01
    assert entry(*means, spread=spread).verdict == said


def test_a_part_of_the_claim_reproduces_nothing():
    assert entry(0.1, partial=True).verdict == TOO_SMALL


def test_a_failure_has_to_outlive_the_number_of_comparisons():
    assert entry(-0.021).verdict == NOT_REPRODUCED
    assert entry(*[-0.021] * 9).verdict == TOO_SMALL


def test_the_interval_is_that_of_the_resamples():
    (line,) = entry(0.1).lines
    given = draws(0.1)
    assert line.mean == given[0] and (line.low, line.high) == pytest.approx(tuple(given[1:].quantile([0.025, 0.975])))


def test_where_nothing_was_learned_nothing_is_decided():
    noise = np.random.default_rng(0).normal(0, 0.02, 400)
    errors = {
        "learned": pd.DataFrame({"m": np.r_[0.7, 0.7 + noise], "mean": np.full(401, 1.0)}),
        "not": pd.DataFrame({"m": np.r_[0.99, 0.99 + noise], "mean": np.full(401, 1.0)}),
    }
    assert unlearned(errors, "m") == ["not"]
    compared = {"learned": draws(0.1), "not": draws(-0.3)}
    entry = restoring_entry(compared, **ABOUT, partial=False, undecided=["not"])
    assert [line.verdict for line in entry.lines] == [REPRODUCED, TOO_SMALL] and entry.verdict == TOO_SMALL

import numpy as np
import pandas as pd
import pytest

from txtlib.entries_ranked import HOME, NAMED, mean_draws, moved, versions_entry
from txtlib.ledger import NOT_REPRODUCED, REPRODUCED, TOO_SMALL

ABOUT = dict(cohort="a cohort", patients=100)


def draws(home=0.8, constant=0.5, spread=0.005, seed=0, **gains):
    """Return draws of an accuracy around ``home``, and around it plus a gain for each version."""
    noise = np.random.default_rng(seed)
    names = {HOME: home, "constant": constant} | {f"{name}, told": home + gains.get(name, 0.0) for name in NAMED}
    table = {
        (name, "PAM50", "accuracy"): np.append(score, score + spread * noise.normal(size=400))
        for name, score in names.items()
    }
    return pd.DataFrame(table).rename_axis(columns=["method", "task", "measure"])


def test_versions_that_change_nothing_reproduce_the_claim():
    assert versions_entry(draws(), "PAM50", **ABOUT).verdict == REPRODUCED


def test_one_version_that_does_worse_is_enough_to_fail():
    entry = versions_entry(draws(rank=-0.1), "PAM50", **ABOUT)
    assert entry.verdict == NOT_REPRODUCED
    assert {line.compared: line.verdict for line in entry.lines} == {
        "PAM50, accuracy, linear against log": REPRODUCED,
        "PAM50, accuracy, rank against log": NOT_REPRODUCED,
        "PAM50, accuracy, quantile against log": REPRODUCED,
    }


def test_one_version_that_does_better_fails_too_since_the_claim_is_sameness():
    assert versions_entry(draws(linear=0.1), "PAM50", **ABOUT).verdict == NOT_REPRODUCED


def test_wide_intervals_say_nothing():
    assert versions_entry(draws(spread=0.05), "PAM50", **ABOUT).verdict == TOO_SMALL


def test_a_version_fails_only_by_widened_intervals():
    near = draws(rank=-0.0165, spread=0.005)
    mean, low, high = moved(near, "PAM50", ["rank, told"]).iloc[0]
    wide = moved(near, "PAM50", ["rank, told"], 1 - 0.05 / 3).iloc[0]
    assert mean == pytest.approx(-0.0165) and low < -0.02 and high < 0 <= wide["high"]
    assert versions_entry(near, "PAM50", **ABOUT).verdict == TOO_SMALL


def test_sameness_of_a_probe_that_has_learned_nothing_decides_nothing():
    entry = versions_entry(draws(home=0.5), "PAM50", **ABOUT)
    assert entry.verdict == TOO_SMALL and "not shown to be better than a constant" in entry.note


def test_a_difference_decides_whatever_was_learned():
    assert versions_entry(draws(home=0.5, linear=-0.3), "PAM50", **ABOUT).verdict == NOT_REPRODUCED


@pytest.mark.parametrize("gains", [{}, {"linear": -0.3}])
def test_a_network_that_has_not_learned_to_name_genes_decides_nothing(gains):
    entry = versions_entry(draws(**gains), "PAM50", informed=False, **ABOUT)
    assert entry.verdict == TOO_SMALL and "no better than a guess" in entry.note


def test_a_missing_version_is_never_reproduced():
    assert versions_entry(draws(), "PAM50", partial=True, note="no TPM", **ABOUT).verdict == TOO_SMALL


def test_draws_of_model_seeds_are_averaged():
    many = [draws(seed=seed) for seed in range(3)]
    assert np.allclose(mean_draws(many), np.mean([one.to_numpy() for one in many], axis=0))
    assert mean_draws(many[:1]).equals(many[0])

"""C13: what is raised is a set's genes over the others, once per seed; what the entry says of it, by rule."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from txtlib.entries_attention import CLAIMED, attention_entry, paired_rise, set_shifts, shares
from txtlib.ledger import NOT_ATTEMPTED, NOT_REPRODUCED, REPRODUCED, TOO_SMALL

GENES = [f"G{number}" for number in range(20)]
EMT, TNF = CLAIMED
SETS = {EMT: GENES[:6], TNF: GENES[4:10], "OTHER": GENES[10:15]}


def rises(gain, genes=GENES[:10], seeds=4, noise=0.01, seed=0):
    """Return noise for each seed and gene, and a gain on some genes."""
    values = pd.DataFrame(np.random.default_rng(seed).normal(0, noise, (seeds, len(GENES))), columns=GENES)
    values[genes] += gain
    return values


def entry(rise, sets=SETS, **options):
    return attention_entry(rise, sets, **({"cohort": "SMALL", "patients": 40, "events": 9} | options))


def test_shares_are_counted_in_equal_ones():
    arm = pd.DataFrame([[0.25] * 4, [0.1, 0.2, 0.3, 0.4]])
    assert shares(arm).iloc[0].tolist() == [1, 1, 1, 1]
    assert np.allclose(shares(arm).sum(axis=1), 4)


def test_arms_are_paired_by_seed_and_gene_whatever_their_order():
    multi = pd.DataFrame([[0.2, 0.8], [0.6, 0.4]], index=[0, 1], columns=["A", "B"])
    single = pd.DataFrame([[0.5, 0.5], [0.9, 0.1]], index=[1, 0], columns=["B", "A"])
    assert np.allclose(paired_rise(multi, single), 2 * np.array([[0.2 - 0.1, 0.8 - 0.9], [0.6 - 0.5, 0.4 - 0.5]]))


@pytest.mark.parametrize("change", [{"index": [0, 2]}, {"columns": ["A", "C"]}])
def test_arms_of_other_seeds_or_genes_are_refused(change):
    arm = pd.DataFrame([[0.2, 0.8], [0.6, 0.4]], index=[0, 1], columns=["A", "B"])
    with pytest.raises(ValueError, match="paired by seed and gene"):
        paired_rise(arm, arm.set_axis(next(iter(change.values())), axis=next(iter(change))))


def test_a_set_is_held_against_all_other_genes_by_a_t_test_over_seeds():
    rise = rises(0.1, seeds=5)
    found = set_shifts(rise, SETS)
    others = [gene for gene in GENES if gene not in SETS[EMT]]
    each = [np.mean([row[gene] for gene in SETS[EMT]]) - np.mean(row[others]) for _, row in rise.iterrows()]
    test = stats.ttest_1samp(each, 0)
    row = found.loc[EMT]
    assert row["mean"] == pytest.approx(np.mean(each)) and row["p"] == pytest.approx(test.pvalue)
    assert (row["low"], row["high"]) == pytest.approx(tuple(test.confidence_interval()))
    assert row["n"] == 5 and row["size"] == 6
    assert found["mean"].is_monotonic_decreasing


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(-3, 3))
def test_what_rises_on_all_genes_is_no_shift(seed, everywhere):
    rise = rises(0.05, seed=seed)
    assert np.allclose(set_shifts(rise + everywhere, SETS)["mean"], set_shifts(rise, SETS)["mean"])
    mirrored = set_shifts(-rise, SETS).loc[EMT]
    assert (mirrored["low"], mirrored["high"]) == pytest.approx(
        tuple(-set_shifts(rise, SETS).loc[EMT, ["high", "low"]])
    )


def test_without_a_shift_an_interval_leaves_out_zero_as_rarely_as_it_says():
    outside = [set_shifts(rises(0, seed=seed, seeds=3), {"A": GENES[:6]})["p"].item() < 0.05 for seed in range(300)]
    assert 0.02 < np.mean(outside) < 0.09


def test_sets_with_too_few_genes_or_with_all_are_left_out():
    found = set_shifts(rises(0), {"FEW": [*GENES[:2], "X", "Y", "Z"], "ALL": GENES, "A": GENES[:5]})
    assert found.index.tolist() == ["A"]
    assert set_shifts(rises(0), {}).empty


def test_one_seed_and_equal_seeds_have_no_interval():
    assert set_shifts(rises(0.1, seeds=1), SETS)[["low", "high", "p"]].isna().all(axis=None)
    assert set_shifts(rises(0.1, noise=0), SETS)[["low", "high", "p"]].isna().all(axis=None)


def test_missing_values_are_refused():
    with pytest.raises(ValueError, match="no finite value"):
        set_shifts(rises(0).replace(rises(0).iloc[0, 0], np.nan), SETS)


def test_the_claim_holds_if_both_sets_rise():
    found = entry(rises(0.2), note="small")
    assert found.verdict == REPRODUCED and found.id == "C13" and len(found.lines) == 2
    assert "4 pairs of trainings" in found.note and found.note.endswith("small")
    assert (found.patients, found.events, found.splits) == (40, 9, 1)


def test_it_fails_if_one_set_falls_and_is_open_if_seeds_disagree():
    assert entry(rises(0.2, GENES[:4]) - rises(0.3, GENES[6:10], noise=0.01, seed=1)).verdict == NOT_REPRODUCED
    assert entry(rises(0, noise=1.0)).verdict == TOO_SMALL


def test_a_shift_of_less_than_the_margin_is_none():
    assert entry(rises(0, noise=0.001)).verdict == NOT_REPRODUCED


def test_half_of_the_claim_is_never_all_of_it():
    found = entry(rises(0.2), {EMT: SETS[EMT]})
    assert found.verdict == TOO_SMALL and "without TNF-alpha signalling via NF-kB" in found.note


def test_networks_that_learned_no_clinical_task_decide_nothing():
    found = entry(rises(0.2), learned=[])
    assert found.verdict == TOO_SMALL and "no clinical task was learned" in found.note


@pytest.mark.parametrize(
    "rise, sets, why",
    [
        (rises(0.2), {"MODULE": GENES[:6]}, "neither EMT"),
        (rises(0.2), {}, "neither EMT"),
        (rises(0.2), {EMT: GENES[:2]}, "too few"),
        (rises(0.2, seeds=1), SETS, "one training"),
    ],
)
def test_without_the_sets_or_without_seeds_it_is_not_attempted(rise, sets, why):
    found = entry(rise, sets)
    assert found.verdict == NOT_ATTEMPTED and why in found.note

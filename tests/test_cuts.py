import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from txtlib.interpret.cuts import (
    differing_by_cut,
    gene_differences,
    gene_ratios,
    random_cuts,
    set_contrasts,
    side,
)
from txtlib.interpret.groups import compare_groups, differing


def marks_of(n=40, genes=15, seed=0, gap=0.0):
    rng = np.random.default_rng(seed)
    chance = np.full((n, genes), 0.3)
    chance[: n // 2, :3] += gap
    samples = [f"S{row}" for row in range(n)]
    return pd.DataFrame(rng.random((n, genes)) < chance, samples, [f"G{k}" for k in range(genes)])


@given(st.integers(0, 10**6), st.integers(1, 19))
@settings(deadline=None, max_examples=20)
def test_random_cuts_have_their_size_and_lie_along_a_direction(seed, size):
    vectors = np.random.default_rng(seed).normal(size=(20, 3))
    cuts = random_cuts(vectors, size, 5, seed)
    assert cuts.shape == (5, 20) and (cuts.sum(1) == size).all()
    np.testing.assert_array_equal(cuts, random_cuts(vectors, size, 5, seed))


def test_in_one_dimension_a_cut_is_the_top_or_the_bottom():
    vectors = np.random.default_rng(0).normal(size=(30, 1))
    order = np.argsort(vectors[:, 0])
    for cut in random_cuts(vectors, 10, 20):
        assert set(np.flatnonzero(cut)) in (set(order[:10]), set(order[-10:]))


def test_cuts_cannot_be_told_by_patients_that_are_separated_in_no_direction():
    cuts = random_cuts(np.random.default_rng(1).normal(size=(60, 8)), 30, 4000)
    assert np.abs(cuts.mean(0) - 0.5).max() < 0.06


@pytest.mark.parametrize("gap", [0.0, 0.65])
def test_counts_are_those_of_compare_groups(gap):
    marks = marks_of(gap=gap)
    cuts = random_cuts(np.random.default_rng(2).normal(size=(40, 4)), 20, 6)
    cuts[0] = np.arange(40) < 20
    expected = [differing(compare_groups(marks, marks.index[cut], marks.index[~cut])).sum() for cut in cuts]
    np.testing.assert_array_equal(differing_by_cut(marks, cuts), expected)
    assert (expected[0] > 0) == (gap > 0)


def test_ratios_and_differences_are_those_of_slow_twins():
    marks = marks_of()
    values = pd.DataFrame(np.random.default_rng(3).normal(3, 2, (40, 15)), marks.index, marks.columns).assign(G3=1.0)
    cuts = random_cuts(values.to_numpy(), 12, 4)
    for cut, ratios, gaps in zip(
        cuts, gene_ratios(marks, cuts).to_numpy(), gene_differences(values, cuts).to_numpy(), strict=True
    ):
        table = compare_groups(marks, marks.index[cut], marks.index[~cut])
        np.testing.assert_allclose(ratios, table["log2_ratio"])
        spread = values.std(ddof=0).replace(0, 1)
        np.testing.assert_allclose(gaps, (values[cut].mean() - values[~cut].mean()) / spread, atol=1e-12)


def test_a_contrast_is_a_set_less_the_rest():
    ratios = pd.DataFrame([[1.0, 2.0, 3.0, 6.0]], columns=list("abcd"))
    found = set_contrasts(ratios, {"one": ["a", "b", "z"], "all": list("abcd"), "none": ["z"]})
    assert found["one"][0] == -3 and found[["all", "none"]].isna().all(axis=None)


def test_a_side_is_one_cut():
    samples = pd.Index(["a", "b", "c"])
    assert side(samples, ["c", "a"]).tolist() == [[True, False, True]]
    with pytest.raises(ValueError, match="none of these 3"):
        side(samples, ["d"])


def test_bad_cuts_are_sentences():
    marks = marks_of()
    uneven = np.zeros((2, 40), bool)
    uneven[0, :3] = uneven[1, :4] = True
    for cuts in (uneven, np.zeros((2, 40), bool), np.ones((1, 40), bool), np.ones((1, 39), bool), np.arange(40) < 3):
        with pytest.raises(ValueError, match="A cut puts"):
            differing_by_cut(marks, cuts)
    for size, draws in ((0, 3), (20, 3), (5, 0)):
        with pytest.raises(ValueError, match="both sides"):
            random_cuts(np.random.default_rng(0).normal(size=(20, 3)), size, draws)

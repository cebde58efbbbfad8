"""Agreement of rankings over seeds, and what chance alone gives."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from txtlib.interpret.stability import agreement, chance_jaccard, stability, top_frequency, top_sets


def rankings(seeds=4, genes=30, shared=1.0, seed=0):
    rng = np.random.default_rng(seed)
    values = shared * rng.normal(size=genes) + rng.normal(size=(seeds, genes))
    return pd.DataFrame(values, [f"seed {s}" for s in range(seeds)], [f"G{g}" for g in range(genes)])


def test_agreement_is_counted_as_by_hand():
    scores = rankings()
    table = agreement(scores, 8)
    assert [*zip(table["first"], table["second"], strict=True)] == [*combinations(scores.index, 2)]
    for _, row in table.iterrows():
        a, b = scores.loc[row["first"]], scores.loc[row["second"]]
        tops = set(a.nlargest(8).index), set(b.nlargest(8).index)
        assert row["jaccard"] == pytest.approx(len(tops[0] & tops[1]) / len(tops[0] | tops[1]))
        assert row["spearman"] == pytest.approx(stats.spearmanr(a, b).statistic)
    means = stability(scores, ks=(3, 8)).set_index("k")
    assert means.loc[8, ["spearman", "jaccard"]].tolist() == pytest.approx(table[["spearman", "jaccard"]].mean())
    assert means.loc[3, "spearman"] == means.loc[8, "spearman"] and (means["n"] == 4).all()
    assert means.loc[3, "chance"] == chance_jaccard(30, 3)


def test_equal_rankings_agree_and_opposite_ones_do_not():
    row = rankings(1)
    table = agreement(pd.concat([row, row.rename(index=str.upper), (-row).rename(index=str.title)]), 15)
    np.testing.assert_allclose(table["spearman"], [1, -1, -1])
    np.testing.assert_allclose(table["jaccard"], [1, 0, 0])


def test_rankings_that_share_nothing_agree_as_chance_does():
    found = stability(rankings(seeds=40, genes=50, shared=0), ks=(5, 20))
    np.testing.assert_allclose(found["jaccard"], found["chance"], atol=0.01)
    assert abs(found["spearman"]).max() < 0.02
    signal = stability(rankings(seeds=40, genes=50, shared=2), ks=(5, 20))
    assert (signal["jaccard"] > found["chance"] + 0.2).all() and signal["spearman"].min() > 0.6


def test_ties_agree_by_chance_only():
    """All genes equal: the same arbitrary order in each seed would make a Jaccard index of 1."""
    flat = pd.DataFrame(np.ones((40, 50)))
    found = stability(flat, ks=(10,)).iloc[0]
    assert found["jaccard"] == pytest.approx(found["chance"], abs=0.02) and np.isnan(found["spearman"])
    assert not top_sets(flat, 10, seed=0).equals(top_sets(flat, 10, seed=1))
    pd.testing.assert_frame_equal(top_sets(flat, 10, seed=1), top_sets(flat, 10, seed=1))


@given(st.integers(1, 8), st.integers(1, 8))
def test_chance_is_the_mean_over_all_pairs_of_sets(n_genes, k):
    k = min(k, n_genes)
    first = set(range(k))  # by symmetry one set may stay
    others = [set(other) for other in combinations(range(n_genes), k)]
    expected = np.mean([len(first & other) / len(first | other) for other in others])
    assert chance_jaccard(n_genes, k) == pytest.approx(expected)


def test_chance_is_near_the_usual_approximation():
    assert chance_jaccard(1000, 50) == pytest.approx(50 / 1950, rel=0.05)
    assert chance_jaccard(7, 7) == pytest.approx(1)


@given(st.integers(0, 1000), st.integers(1, 12))
def test_top_sets_hold_k_genes_and_none_below_one_left_out(seed, k):
    scores = rankings(3, 12, seed=seed).round(0)  # with ties
    top = top_sets(scores, k, seed)
    assert (top.sum(axis=1) == k).all()
    for row in scores.index:
        chosen, left = scores.loc[row][top.loc[row]], scores.loc[row][~top.loc[row]]
        assert left.empty or chosen.min() >= left.max()


def test_how_often_a_gene_is_in_the_top():
    scores = pd.DataFrame([[3, 2, 1, 0], [3, 1, 2, 0], [3, 2, 1, 0]], columns=list("abcd"))
    found = top_frequency(scores, 2)
    assert found.to_dict() == pytest.approx({"a": 1, "b": 2 / 3, "c": 1 / 3, "d": 0}) and list(found.index) == [*"abcd"]
    assert top_frequency(scores[:1], 2).sum() == 2


def test_what_cannot_be_compared():
    scores = rankings()
    with pytest.raises(ValueError, match=r"1 ranking\(s\) have nothing to agree with"):
        stability(scores[:1])
    with pytest.raises(ValueError, match="k is 31; the top k of 30 genes"):
        agreement(scores, 31)
    with pytest.raises(ValueError, match="k is 0"):
        chance_jaccard(5, 0)
    with pytest.raises(ValueError, match="'G3' has no finite value in row 'seed 1'"):
        top_frequency(scores.mask(scores == scores.loc["seed 1", "G3"]), 5)
    with pytest.raises(ValueError, match="The column 'G0' is there more than once"):
        agreement(scores.rename(columns={"G1": "G0"}), 5)

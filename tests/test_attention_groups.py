"""Groups of patients compared by their graphs, and the nulls beside them."""

from itertools import combinations, product

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_attention_graphs import as_networkx, graphs_of, looked_at, names, some_graphs

from txtlib.interpret.graphs import degrees, edges_within, hubs, reciprocity
from txtlib.interpret.groups import compare_groups, differing, fisher_p
from txtlib.interpret.nulls import _swap, _swapper, against_rewired, permuted_labels, rewired


def marks_of(values):
    values = np.asarray(values, bool)
    return pd.DataFrame(values, names("S", len(values)), names("g", values.shape[1]))


def drawn_marks(rates_a, rates_b, n_a=60, n_b=80, seed=0):
    rng, sizes = np.random.default_rng(seed), (n_a, n_b)
    parts = [rng.random((n, len(rates))) < rates for n, rates in zip(sizes, (rates_a, rates_b), strict=True)]
    marks = marks_of(np.concatenate(parts))
    return marks, list(marks.index[:n_a]), list(marks.index[n_a:])


# --- shares -------------------------------------------------------------------------------------------------------


def test_each_column_is_what_it_says():
    marks = marks_of([[1, 0, 1], [1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1], [1, 0, 1], [1, 1, 1]])
    table = compare_groups(marks, ["S0", "S1", "S2"], ["S5", "S4", "S3"])  # S6 is in no group
    assert list(table["gene"]) == ["g0", "g1", "g2"]
    assert list(table["n_a"]) == [3, 0, 1] and list(table["n_b"]) == [1, 0, 3]
    np.testing.assert_allclose(table["share_a"], [1, 0, 1 / 3])
    np.testing.assert_allclose(table["share_b"], [1 / 3, 0, 1])
    np.testing.assert_allclose(table["log2_ratio"], [np.log2(3.5 / 1.5), 0, np.log2(1.5 / 3.5)])
    np.testing.assert_allclose(table["p"], [0.4, 1, 0.4])
    np.testing.assert_allclose(table["fdr"], [0.6, 1, 0.6])


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**20))
@settings(max_examples=20, deadline=None)
def test_p_is_fishers_and_fdr_is_benjamini_and_hochbergs(n_a, n_b, seed):
    rng = np.random.default_rng(seed)
    marks, a, b = drawn_marks(rng.random(7), rng.random(7), n_a, n_b, seed)
    table = compare_groups(marks, a, b)
    tables = [[[i, n_a - i], [j, n_b - j]] for i, j in zip(table["n_a"], table["n_b"], strict=True)]
    p = np.array([stats.fisher_exact(each)[1] for each in tables])
    np.testing.assert_array_equal(table["p"], p)
    np.testing.assert_allclose(table["fdr"], stats.false_discovery_control(p, method="bh"))
    assert np.isfinite(table["log2_ratio"]).all()


@given(st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_fishers_p_equals_a_count_of_all_ways_to_choose_the_marked(n_a, n_b):
    for i, j in product(range(n_a + 1), range(n_b + 1)):
        chosen = combinations(range(n_a + n_b), i + j)
        ways = pd.Series([sum(each < n_a for each in some) for some in chosen]).value_counts()
        expected = ways[ways <= ways[i]].sum() / ways.sum()
        assert fisher_p(np.array([i]), np.array([j]), n_a, n_b)[0] == pytest.approx(expected)


@pytest.mark.parametrize("n_a, n_b", [(0, 0), (2, 6), (10, 30)])
def test_equal_shares_have_no_ratio_whatever_the_sizes(n_a, n_b):
    marks = marks_of(np.r_[np.arange(10) < n_a, np.arange(30) < n_b][:, None])
    table = compare_groups(marks, marks.index[:10], marks.index[10:])
    assert table.loc[0, "log2_ratio"] == pytest.approx(0, abs=1e-12) and table.loc[0, "p"] == 1


def test_groups_change_places_and_only_the_sign_does():
    marks, a, b = drawn_marks(np.linspace(0.1, 0.9, 6), np.full(6, 0.4))
    one, other = compare_groups(marks, a, b), compare_groups(marks, b[::-1], a)
    np.testing.assert_allclose(one["log2_ratio"], -other["log2_ratio"])
    np.testing.assert_allclose(one[["p", "fdr"]], other[["p", "fdr"]])


def test_a_gene_differs_when_both_fdr_and_ratio_say_so():
    table = pd.DataFrame({"fdr": [0.01, 0.01, 0.06, 0.01, 0.05], "log2_ratio": [1.1, 0.9, 3.0, -1.1, 3.0]})
    assert list(differing(table)) == [True, False, False, True, False]
    assert list(differing(table, fdr=0.1, ratio=1.5)) == [True] * 5
    for rule in (dict(fdr=0), dict(ratio=0.5)):
        with pytest.raises(ValueError, match="fdr lies above 0"):
            differing(table, **rule)


@pytest.mark.parametrize(
    "a, b, words",
    [
        (["S0", "S1"], ["S1", "S2"], "Sample 'S1' is in both groups"),
        ([], ["S1"], "There is no sample"),
        (["S0"], ["nobody"], "Sample 'nobody' is none of these 3"),
        (["S0", "S0"], ["S1"], "Sample 'S0' stands there more than once"),
    ],
)
def test_groups_that_are_none_are_refused(a, b, words):
    marks = marks_of(np.ones((3, 2)))
    for compare in (compare_groups, permuted_labels):
        with pytest.raises(ValueError, match=words):
            compare(marks, a, b)


def test_degrees_are_no_marks():
    found = degrees(graphs_of(*random_matrices(4))).out
    for compare in (compare_groups, permuted_labels):
        with pytest.raises(ValueError, match="marks hold True and False"):
            compare(found, ["S0"], ["S1"])


# --- permuted labels ----------------------------------------------------------------------------------------------


def planted_weights(seed=0):
    """60 patients, 30 genes; gene 3 tells all others in 25 of the first 30 patients and in 3 of the others."""
    rng = np.random.default_rng(seed)
    weights = rng.random((60, 1, 2, 30, 30)) * 0.02  # noise, of which some weights pass the cut
    for patient in (*range(25), 40, 41, 42):
        weights[patient, 0, 1, :, 3] = 0.5
    return weights


def test_a_planted_hub_is_found_and_permuted_groups_have_none():
    marks = hubs(degrees(looked_at(planted_weights(), 0.0195)), k=3)
    a, b = marks.index[:30], marks.index[30:]
    table = compare_groups(marks, a, b)
    assert list(table.loc[differing(table), "gene"]) == ["g3"]
    assert table.loc[3, ["n_a", "n_b"]].tolist() == [25, 3]
    found = permuted_labels(marks, a, b, draws=200)
    assert found.observed == 1 and found.null.shape == (200,) and found.null.mean() < 0.05
    assert found.p == (1 + (found.null >= 1).sum()) / 201 < 0.05
    even, odd = marks.index[::2], marks.index[1::2]  # groups that have nothing to do with it
    assert permuted_labels(marks, even, odd, draws=200).p == 1


def test_the_null_is_the_same_comparison_of_permuted_groups():
    marks, a, b = drawn_marks(np.r_[0.8, 0.7, np.full(8, 0.3)], np.r_[0.2, 0.2, np.full(8, 0.3)], 12, 17)
    found = permuted_labels(marks, a, b, draws=40, seed=5, fdr=0.5, ratio=1.2)
    labels = np.random.default_rng(5).permuted(np.tile(np.arange(29) < 12, (40, 1)), axis=1)
    expected = []
    for row in labels:
        table = compare_groups(marks, marks.index[row], marks.index[~row])
        expected.append(differing(table, fdr=0.5, ratio=1.2).sum())
    np.testing.assert_array_equal(found.null, expected)
    assert max(expected) > 0 and found.observed == differing(compare_groups(marks, a, b), 0.5, 1.2).sum()


def test_the_label_null_keeps_its_level_where_genes_go_together():
    rng = np.random.default_rng(3)
    p = []
    for _ in range(60):  # all genes are marked in the same patients: one fact, 20 tests
        marks = marks_of(np.repeat(rng.random((40, 1)) < 0.5, 20, axis=1))
        p.append(permuted_labels(marks, marks.index[:20], marks.index[20:], draws=19, seed=int(rng.integers(99))).p)
    assert np.mean(np.array(p) <= 0.05) <= 0.15 and max(p) == 1


def test_a_seed_decides_the_null():
    marks, a, b = drawn_marks(np.full(20, 0.5), np.full(20, 0.5), 10, 10)
    first, again, other = (permuted_labels(marks, a, b, 30, seed, 0.9, 1.1).null for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    with pytest.raises(ValueError, match="draws is 0"):
        permuted_labels(marks, a, b, draws=0)


# --- rewired graphs -----------------------------------------------------------------------------------------------


@given(some_graphs(), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_rewiring_keeps_both_degrees_and_makes_no_loop(drawn, seed):
    matrices, graphs = drawn
    random = rewired(graphs, seed)
    for before, after in zip(matrices, random, strict=True):
        np.testing.assert_array_equal(after.sum(0), before.sum(0))
        np.testing.assert_array_equal(after.sum(1), before.sum(1))
        assert not after.diagonal().any()
        assert sorted(as_networkx(after).out_degree) == sorted(as_networkx(before).out_degree)
    assert random.samples.equals(graphs.samples) and random.genes.equals(graphs.genes)


@pytest.mark.parametrize("dense", [False, True])
def test_rewired_graphs_come_up_alike(dense):
    graph = nx.DiGraph([(0, 1), (0, 2), (1, 3), (2, 0), (3, 2), (4, 1)])
    start = nx.to_numpy_array(graph).astype(bool)
    if dense:
        start = ~start & ~np.eye(5, dtype=bool)
    reached = {matrix.tobytes() for matrix in all_with_degrees(start)}
    drawn = rewired(graphs_of(*[start] * 4000), 0, swaps_per_edge=20)
    counts = pd.Series([matrix.tobytes() for matrix in drawn]).value_counts()
    assert set(counts.index) == reached and len(reached) > 20
    assert stats.chisquare(counts).pvalue > 0.001


def all_with_degrees(start):
    """Yield every graph with the degrees of one, by trying each choice of targets for each gene."""
    rows = [
        [np.isin(np.arange(len(start)), chosen) for chosen in combinations(set(range(len(start))) - {gene}, degree)]
        for gene, degree in enumerate(start.sum(1))
    ]
    for choice in product(*rows):
        if (np.sum(choice, axis=0) == start.sum(0)).all():
            yield np.stack(choice)


def test_compiled_and_plain_swaps_are_the_same():
    rng = np.random.default_rng(0)
    matrix = (rng.random((15, 15)) < 0.3) & ~np.eye(15, dtype=bool)
    proposals = rng.integers(0, matrix.sum(), (500, 2))
    plain, compiled = ((matrix.copy(), *matrix.nonzero(), proposals) for _ in range(2))
    _swap(*plain)
    _swapper()(*compiled)
    for one, other in zip(plain, compiled, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (plain[0] != matrix).any() and plain[0][plain[1], plain[2]].all()


def test_a_graph_that_its_degrees_fix_comes_back():
    star = np.zeros((6, 6), bool)
    star[0, 1:] = True
    fixed = np.stack([star, star.T, np.zeros((6, 6), bool), ~np.eye(6, dtype=bool)])
    np.testing.assert_array_equal(np.stack(list(rewired(graphs_of(*fixed), 0))), fixed)


def random_matrices(n=8, size=24, density=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((n, size, size)) < density) & ~np.eye(size, dtype=bool)


def test_planted_reciprocity_and_sets_are_found_and_random_graphs_have_none():
    plain = random_matrices()
    mutual = plain | plain.transpose(0, 2, 1)
    clique = plain.copy()
    clique[:, :6, :6] = ~np.eye(6, dtype=bool)
    sets = {"planted": names("g", 6), "other": [f"g{gene}" for gene in range(12, 18)]}
    table = against_rewired(graphs_of(*mutual), reciprocity, draws=60)
    assert table["statistic"].tolist() == ["reciprocity"] and table.loc[0, "observed"] == 1
    assert table.loc[0, "p"] == pytest.approx(2 / 61) and table.loc[0, "patients_above"] == 1
    assert table.loc[0, "null_low"] < table.loc[0, "null_mean"] < table.loc[0, "null_high"] < 0.5
    within = against_rewired(graphs_of(*clique), lambda graphs: edges_within(graphs, sets), draws=60)
    assert within["statistic"].tolist() == ["planted", "other"] and within.loc[0, "observed"] == 30
    assert within["p"].iloc[0] == pytest.approx(2 / 61)
    plain_within = against_rewired(graphs_of(*plain), lambda graphs: edges_within(graphs, sets), draws=60)
    assert (plain_within["p"] > 0.05).all()
    assert against_rewired(graphs_of(*plain), reciprocity, draws=60)["p"].iloc[0] > 0.05


def test_fewer_than_chance_is_found_too():
    acyclic = np.triu(random_matrices(density=0.3))  # no edge has its reverse
    assert against_rewired(graphs_of(*acyclic), reciprocity, draws=60)["p"].iloc[0] == pytest.approx(2 / 61)


def test_a_function_of_the_degrees_equals_its_null():
    table = against_rewired(graphs_of(*random_matrices()), lambda graphs: degrees(graphs).out.max(axis=1), draws=20)
    assert table.loc[0, "observed"] == table.loc[0, "null_low"] == table.loc[0, "null_high"]
    assert table.loc[0, "p"] == 1 and table.loc[0, "patients_above"] == 0


def test_patients_without_edges_are_left_out():
    matrices = random_matrices(4)
    matrices[1] = False
    some, all_of_them = (graphs_of(*kept) for kept in (matrices, matrices[[0, 2, 3]]))
    found = against_rewired(some, reciprocity, draws=10)
    assert found.loc[0, "n"] == 3
    pd.testing.assert_frame_equal(found, against_rewired(all_of_them, reciprocity, draws=10))
    with pytest.raises(ValueError, match="None of the 2 graphs has an edge"):
        against_rewired(graphs_of(*np.zeros((2, 4, 4))), reciprocity)
    with pytest.raises(ValueError, match="draws is 0"):
        against_rewired(some, reciprocity, draws=0)


def test_seeds_decide_and_no_global_generator_is_touched():
    graphs = graphs_of(*random_matrices())
    before = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    first, again, other = (rewired(graphs, seed).edges for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    assert (np.random.get_state()[1] == before[0]).all() and torch.equal(torch.random.get_rng_state(), before[1])

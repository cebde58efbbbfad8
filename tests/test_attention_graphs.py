"""Attention as graphs: edges, degrees, what no degree tells, and the tables for other programs."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from txtlib.interpret.export import (
    difference_table,
    edge_shares,
    edge_table,
    to_networkx,
    write_edges_csv,
    write_graphml,
)
from txtlib.interpret.graphs import (
    Degrees,
    attention_graphs,
    attractors,
    centrality,
    cut,
    degrees,
    edges_shared,
    edges_within,
    hubs,
    make_graphs,
    reciprocity,
)
from txtlib.model import TxT
from txtlib.variants import variant

SMALL = dict(outputs={"OS": 4}, width=8, layers=3, heads=2, readout="mean", dropout=0.5)


class Given(torch.nn.Module):
    """A network whose attention is given, (patients, layers, H, G, G); x says which patient it is."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.as_tensor(weights)
        self.settings = {"layers": self.weights.shape[1]}
        self.asked = []

    def attention(self, x, layer):
        self.asked.append((len(x), layer))
        return self.weights[x[:, 0].long(), layer]


def names(prefix, n):
    return [f"{prefix}{number}" for number in range(n)]


def looked_at(weights, threshold, **settings):
    n, _, _, n_genes, _ = weights.shape
    x = np.repeat(np.arange(n, dtype=np.float32)[:, None], n_genes, axis=1)
    return attention_graphs(Given(weights), x, names("S", n), names("g", n_genes), threshold, **settings)


def graphs_of(*matrices):
    matrices = [np.array(matrix, bool) for matrix in matrices]
    return make_graphs(matrices, names("S", len(matrices)), names("g", len(matrices[0])))


def as_networkx(matrix):
    return nx.from_numpy_array(matrix.astype(int), create_using=nx.DiGraph)


@st.composite
def some_graphs(draw, n_genes=(2, 19)):
    n, size = draw(st.integers(1, 4)), draw(st.integers(*n_genes))
    density, seed = draw(st.floats(0, 1)), draw(st.integers(0, 2**20))
    drawn = np.random.default_rng(seed).random((n, size, size)) < density
    drawn &= ~np.eye(size, dtype=bool)
    return drawn, graphs_of(*drawn)


# --- the cut ------------------------------------------------------------------------------------------------------


def test_a_cut_is_a_weight_or_a_multiple_of_uniform():
    assert cut(1000, weight=0.01) == 0.01
    assert cut(1000, times_uniform=10) == pytest.approx(0.01)
    assert cut(35, times_uniform=2) == pytest.approx(2 / 35)


@pytest.mark.parametrize("given", [{}, dict(weight=0.01, times_uniform=2)])
def test_a_cut_is_given_in_one_way(given):
    with pytest.raises(ValueError, match="Give either weight"):
        cut(100, **given)


@pytest.mark.parametrize("given", [dict(weight=0), dict(weight=1), dict(times_uniform=100), dict(weight=float("nan"))])
def test_a_cut_that_no_weight_can_pass_or_fail_is_refused(given):
    with pytest.raises(ValueError, match="The cut is a weight of"):
        cut(100, **given)


def test_a_graph_needs_two_genes():
    with pytest.raises(ValueError, match="n_genes is 1"):
        cut(1, weight=0.01)


# --- edges --------------------------------------------------------------------------------------------------------


def known_weights():
    """One patient, two layers, two heads, four genes: three weights stand out, one of them a gene's own."""
    weights = np.full((1, 2, 2, 4, 4), 0.01)
    weights[0, 0, 0, 1, 3] = 0.9  # layer 0, head 0: query 1 takes from key 3
    weights[0, 1, 1, 0, 2] = 0.9  # layer 1, head 1: query 0 takes from key 2
    weights[0, 1, 0, 2, 2] = 0.9  # itself
    return weights


def test_an_edge_runs_from_key_to_query_and_any_head_and_layer_makes_one():
    graph = looked_at(known_weights(), 0.5)
    assert np.argwhere(graph.matrix(0)).tolist() == [[2, 0], [3, 1]]
    assert list(graph.samples) == ["S0"] and list(graph.genes) == names("g", 4) and len(graph) == 1


def test_layers_can_be_chosen():
    assert np.argwhere(looked_at(known_weights(), 0.5, layers=[0]).matrix(0)).tolist() == [[3, 1]]
    assert np.argwhere(looked_at(known_weights(), 0.5, layers=[1]).matrix(0)).tolist() == [[2, 0]]


def test_a_weight_at_the_cut_makes_no_edge():
    weights = np.full((1, 1, 1, 4, 4), 0.25)
    assert not looked_at(weights, 0.25).edges.any()
    assert looked_at(weights, 0.2499).matrix(0).sum() == 12


def test_uniform_attention_of_35_genes_passes_the_published_cut_everywhere_and_the_relative_one_nowhere():
    weights = torch.zeros(3, 1, 2, 35, 35).softmax(-1)
    published, relative = (looked_at(weights, cut(35, **how)) for how in (dict(weight=0.01), dict(times_uniform=1)))
    assert (degrees(published).out == 34).all(axis=None) and (degrees(published).into == 34).all(axis=None)
    assert (degrees(relative).out == 0).all(axis=None)
    for graph in (published, relative):  # where all are equal nobody stands out
        assert not hubs(degrees(graph)).any(axis=None) and not attractors(degrees(graph)).any(axis=None)


@pytest.mark.parametrize("which", ["product", "value token", "per layer"])
def test_edges_equal_those_of_all_attention_at_once(which):
    network = variant(which, n_genes=11, seed=1, **SMALL).eval()
    x = torch.rand(6, 11, generator=torch.Generator().manual_seed(0)) * 3
    graph = attention_graphs(network, x.numpy(), names("S", 6), names("g", 11), 0.12)
    with torch.no_grad():
        weights = torch.stack([network.attention(x, layer) for layer in range(3)])  # (L, n, H, G, G)
    expected = (weights > 0.12).any(0).any(1).transpose(1, 2).numpy() & ~np.eye(11, dtype=bool)
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(np.stack(list(graph)), expected)


def test_looking_leaves_the_network_and_the_generator_as_they_were():
    network, x = TxT(5, **SMALL).train(), np.random.default_rng(0).random((3, 5), np.float32)
    state = torch.random.get_rng_state()
    first, again = (attention_graphs(network, x, "abc", names("g", 5), 0.2) for _ in range(2))
    assert network.training and torch.is_grad_enabled() and torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(first.edges, again.edges)  # dropout 0.5 would tell
    broken = Given(torch.zeros(1, 1, 1, 5, 5)).train()
    with pytest.raises(IndexError):
        attention_graphs(broken, x + 7, "abc", names("g", 5), 0.2)
    assert broken.training and torch.is_grad_enabled()
    attention_graphs(network.eval(), x, "abc", names("g", 5), 0.2)
    assert not network.training


def test_one_patient_is_looked_at_at_a_time():
    network = Given(torch.full((4, 2, 1, 3, 3), 1 / 3))
    attention_graphs(network, np.repeat(np.arange(4.0)[:, None], 3, 1), names("S", 4), "abc", 0.2)
    assert network.asked == [(1, 0), (1, 1)] * 4


def test_progress_is_shown_on_request(capsys):
    looked_at(known_weights(), 0.5)
    assert capsys.readouterr().err == ""
    looked_at(known_weights(), 0.5, progress=True)
    assert "attention graphs" in capsys.readouterr().err


@pytest.mark.parametrize("n_genes", [3, 8, 9, 1000])
def test_a_pair_of_genes_takes_one_bit(n_genes):
    graph = graphs_of(*np.ones((2, n_genes, n_genes)))
    assert graph.edges.nbytes == 2 * n_genes * -(-n_genes // 8)
    assert all(matrix.sum() == n_genes * (n_genes - 1) for matrix in graph)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(threshold=1.5), "The cut is a weight of 1.5"),
        (dict(layers=[2]), r"layers 0 to 1, so layers cannot be \[2\]"),
        (dict(layers=[-1]), r"layers cannot be \[-1\]"),
        (dict(layers=[]), r"layers cannot be \[\]"),
        (dict(genes=["a", "b"]), r"x is \(1, 4\), for 1 samples and 2 genes"),
        (dict(samples=["a", "b"]), "for 2 samples"),
        (dict(genes=["a", "b", "b", "c"]), "Gene 'b' stands there more than once"),
        (dict(x=np.full((1, 4), np.nan)), "not finite"),
    ],
)
def test_bad_input_is_named(change, words):
    given = dict(x=np.zeros((1, 4), np.float32), samples=["S"], genes=list("abcd"), threshold=0.5) | change
    with pytest.raises(ValueError, match=words):
        attention_graphs(Given(known_weights()), **given)


def test_a_network_with_sets_says_that_it_has_no_graph():
    network = variant("product", n_genes=4, sets=[[0, 1], [2, 3]], **SMALL)
    with pytest.raises(ValueError, match="no attention between all genes"):
        attention_graphs(network, np.zeros((1, 4), np.float32), ["S"], list("abcd"), 0.5)


@pytest.mark.parametrize(
    "matrices, samples, words",
    [
        ([np.ones((3, 3), bool)], ["S", "T"], "1 matrices for 2 samples"),
        ([np.ones((3, 3), bool)] * 2, ["S"], "2 matrices for 1 samples"),
        ([np.ones((2, 3), bool)], ["S"], "for 3 genes"),
        ([np.ones((3, 3))], ["S"], "of float64"),
        ([np.ones((3, 3), bool)] * 2, ["S", "S"], "Sample 'S' stands there more than once"),
        ([], [], "There is no sample"),
    ],
)
def test_matrices_that_are_no_graphs_are_refused(matrices, samples, words):
    with pytest.raises(ValueError, match=words):
        make_graphs(matrices, samples, "abc")


def test_samples_are_taken_in_their_order():
    first, second, third = np.triu(np.ones((3, 3)), 1), np.zeros((3, 3)), np.tril(np.ones((3, 3)), -1)
    taken = graphs_of(first, second, third).take(["S2", "S0"])
    assert list(taken.samples) == ["S2", "S0"]
    np.testing.assert_array_equal(np.stack(list(taken)), np.stack([third, first]).astype(bool))
    with pytest.raises(ValueError, match="Sample 'S9' is none of these 3"):
        graphs_of(first, second, third).take(["S0", "S9"])


# --- degrees ------------------------------------------------------------------------------------------------------


@given(some_graphs())
@settings(max_examples=40, deadline=None)
def test_degrees_reciprocity_and_edges_equal_networkx(drawn):
    matrices, graphs = drawn
    found, mutual = degrees(graphs), reciprocity(graphs)
    for row, matrix in enumerate(matrices):
        twin = as_networkx(matrix)
        np.testing.assert_array_equal(graphs.matrix(row), matrix)
        assert found.out.iloc[row].tolist() == [degree for _, degree in twin.out_degree]
        assert found.into.iloc[row].tolist() == [degree for _, degree in twin.in_degree]
        np.testing.assert_allclose(
            centrality(found.out).iloc[row], list(nx.out_degree_centrality(twin).values()), rtol=1e-12
        )
        expected = nx.overall_reciprocity(twin) if matrix.any() else np.nan
        np.testing.assert_allclose(mutual.iloc[row], expected)


def test_a_genes_attention_to_itself_counts_nowhere():
    graphs = graphs_of(np.eye(4))
    assert not degrees(graphs).out.any(axis=None) and not graphs.edges.any() and np.isnan(reciprocity(graphs).iloc[0])


def test_a_hub_has_more_than_mean_and_two_sd_of_its_own_patient():
    star = np.zeros((10, 10))
    star[0, 1:] = 1  # gene 0 tells all others
    found = degrees(graphs_of(star, star.T, np.zeros((10, 10))))
    assert hubs(found).to_numpy().nonzero() == (0, 0) and attractors(found).to_numpy().nonzero() == (1, 0)
    out = found.out.loc["S0"].to_numpy(float)  # 9, 0, ..., 0: mean 0.9, SD 2.7
    assert hubs(found, k=2.99).loc["S0", "g0"] and not hubs(found, k=3.01).any(axis=None)
    assert (out[0] - out.mean()) / out.std() == pytest.approx(3)


def test_hubs_are_decided_by_out_and_attractors_by_in_degree():
    out, into = (pd.DataFrame(np.eye(8, dtype=int)[[gene]], ["S"], names("g", 8)) for gene in (2, 5))
    assert hubs(Degrees(out, into)).loc["S"].idxmax() == "g2" and attractors(Degrees(out, into)).loc["S", "g5"]
    with pytest.raises(ValueError, match="k is 0"):
        hubs(Degrees(out, into), k=0)


# --- sets and networks --------------------------------------------------------------------------------------------


@given(some_graphs(n_genes=(6, 12)))
@settings(max_examples=20, deadline=None)
def test_edges_within_sets_and_shared_with_a_network_equal_a_loop(drawn):
    matrices, graphs = drawn
    sets = {"A": ["g0", "g2", "g3", "elsewhere"], "B": ["g1", "g4", "g5", "g2"], "none": ["g1"]}
    joined = [("g0", "g1"), ("g4", "g2"), ("g2", "g2"), ("g5", "elsewhere")]
    within, shared = edges_within(graphs, sets), edges_shared(graphs, pd.DataFrame(joined, columns=["gene1", "gene2"]))
    for row, matrix in enumerate(matrices):
        pairs = [(f"g{key}", f"g{query}") for key, query in np.argwhere(matrix)]
        assert within.iloc[row].tolist() == [sum({*pair} <= set(genes) for pair in pairs) for genes in sets.values()]
        assert shared.iloc[row] == sum(pair in joined or pair[::-1] in joined for pair in pairs)


def test_sets_and_networks_of_other_genes_are_refused():
    graphs = graphs_of(np.ones((3, 3)))
    for sets in ({}, {"A": ["TP53", "g0"]}):
        with pytest.raises(ValueError, match="gene sets holds two of the 3 genes"):
            edges_within(graphs, sets)
    for pairs in ([("TP53", "g0")], [("g1", "g1")]):
        with pytest.raises(ValueError, match="joins two of the 3 genes"):
            edges_shared(graphs, pd.DataFrame(pairs, columns=["gene1", "gene2"]))


# --- export -------------------------------------------------------------------------------------------------------


@pytest.fixture
def four():
    """Four patients of three genes: 0 -> 1 in all, 1 -> 2 in three, 2 -> 0 in one."""
    matrices = np.zeros((4, 3, 3))
    matrices[:, 0, 1], matrices[:3, 1, 2], matrices[3, 2, 0] = 1, 1, 1
    return graphs_of(*matrices)


def test_a_table_holds_the_edges_above_a_share(four):
    table = edge_table(four, above=0.5)
    assert table.to_dict("list") == {"source": ["g0", "g1"], "target": ["g1", "g2"], "share": [1.0, 0.75]}
    assert len(edge_table(four, above=0.75)) == 1 and len(edge_table(four, above=0.0)) == 3
    one = edge_table(four, ["S3"], above=0)
    assert set(zip(one["source"], one["target"], strict=True)) == {("g0", "g1"), ("g2", "g0")}
    assert (one["share"] == 1).all()


@given(some_graphs())
@settings(max_examples=20, deadline=None)
def test_shares_equal_the_mean_of_dense_graphs(drawn):
    matrices, graphs = drawn
    np.testing.assert_array_equal(edge_shares(graphs), matrices.mean(0))
    np.testing.assert_array_equal(edge_shares(graphs, ["S0"]), matrices[0])


def test_a_difference_has_a_sign_and_a_weight_has_none(four):
    table = difference_table(four, ["S0", "S1"], ["S2", "S3"], above=0.25)
    rows = table.sort_values("source").to_numpy().tolist()
    assert rows == [["g1", "g2", 1.0, 0.5, 0.5], ["g2", "g0", 0.0, 0.5, -0.5]]
    assert to_networkx(table).edges["g2", "g0"] == dict(share_a=0, share_b=0.5, difference=-0.5, weight=0.5)
    assert difference_table(four, ["S0"], ["S3"], above=0)["difference"].abs().is_monotonic_decreasing


def test_networkx_and_graphml_hold_the_same_graph(four, tmp_path):
    table = edge_table(four, above=0)
    graph = to_networkx(table)
    assert graph.is_directed() and graph["g1"]["g2"]["weight"] == 0.75 and set(graph) == {"g0", "g1", "g2"}
    for name, each in {
        "share": table,
        "difference": difference_table(four, ["S0"], ["S3"], 0),
        "none": table[:0],
    }.items():
        write_graphml(each, tmp_path / f"{name}.graphml")
        back = nx.read_graphml(tmp_path / f"{name}.graphml")
        assert dict(back.nodes) == dict(to_networkx(each).nodes)
        assert list(back.edges(data=True)) == list(to_networkx(each).edges(data=True))
        assert back.is_directed() or name == "none"


def test_csv_has_source_target_and_share(four, tmp_path):
    table = edge_table(four, above=0).replace("g2", "NA")  # a gene may be called so
    write_edges_csv(table, tmp_path / "edges.csv")
    assert (tmp_path / "edges.csv").read_text().splitlines()[0] == "source,target,share"
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "edges.csv", keep_default_na=False), table)


@pytest.mark.parametrize("above", [-0.1, 1, float("nan")])
def test_a_share_that_is_none_is_refused(four, above):
    with pytest.raises(ValueError, match="above is"):
        edge_table(four, above=above)
    with pytest.raises(ValueError, match="above is"):
        difference_table(four, ["S0"], ["S1"], above)


def test_groups_and_tables_of_another_kind_are_refused(four, tmp_path):
    with pytest.raises(ValueError, match="'S1' is in both groups"):
        difference_table(four, ["S0", "S1"], ["S1"])
    with pytest.raises(ValueError, match="There is no sample"):
        edge_table(four, [])
    for table in (pd.DataFrame({"source": ["a"], "target": ["b"]}), pd.DataFrame({"share": [1.0]})):
        with pytest.raises(ValueError, match="it needs source, target"):
            to_networkx(table)
    with pytest.raises(OSError, match="nowhere"):
        write_edges_csv(edge_table(four), tmp_path / "nowhere" / "edges.csv")

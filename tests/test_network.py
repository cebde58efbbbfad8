import io
import os
import subprocess
import sys
from itertools import combinations

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import txtlib.network as network
from txtlib.cohort import CohortError
from txtlib.network import (
    Vectors,
    cached_node2vec,
    content_key,
    degrees,
    find_file,
    import_pecanpy,
    link_auroc,
    make_network,
    neighbours_found,
    node2vec,
    permuted,
    random_vectors,
    read_gene_sets,
    read_network,
    restrict,
    rewire,
    same_set,
    spectral,
    split_links,
)

HEADER = "protein1,protein2,combined_score\n"


def edge_table(pairs, scores=None):
    scores = scores if scores is not None else [500 + 37 * row % 400 for row in range(len(pairs))]
    return make_network(pd.DataFrame([(a, b, score) for (a, b), score in zip(pairs, scores, strict=True)]))


@pytest.fixture(scope="module")
def communities():
    """Two groups of 20 genes with many edges inside and three between, and two genes without any."""
    graph = nx.planted_partition_graph(2, 20, 0.35, 0, seed=1)
    graph.add_edges_from([(0, 20), (5, 30), (19, 39)])
    genes = [f"G{node:02d}" for node in range(42)]
    return edge_table([(genes[a], genes[b]) for a, b in sorted(graph.edges)]), genes


@pytest.fixture(scope="module")
def walked(communities):
    return node2vec(*communities, width=16)


@pytest.fixture
def places(tmp_path, monkeypatch):
    (tmp_path / "cohorts").mkdir()
    for kind in ("networks", "genesets", "raw"):
        (tmp_path / kind).mkdir()
    monkeypatch.setenv("TXT_DATA", str(tmp_path / "cohorts"))
    monkeypatch.setattr(network, "RAW", tmp_path / "raw")
    return tmp_path


def sides(genes):
    return np.array([int(gene[1:]) < 20 for gene in genes])


# --- PecanPy --------------------------------------------------------------------------------------------------


def test_pecanpy_imports_and_walks_on_this_numpy(tmp_path):
    pecanpy = import_pecanpy()
    edges = tmp_path / "triangle.edg"
    edges.write_text("a\tb\t1\nb\tc\t1\nc\ta\t1\n")
    graph = pecanpy.SparseOTF(p=1, q=1, workers=1, random_state=0)
    graph.read_edg(str(edges), weighted=True, directed=False)
    walks = graph.simulate_walks(num_walks=2, walk_length=4)
    assert len(walks) == 6 and {gene for walk in walks for gene in walk} == {"a", "b", "c"}
    assert "nptyping" not in sys.modules  # the stand-in is gone


def test_node2vec_plus_with_p_and_q_at_one_is_the_weighted_walk():
    pecanpy = import_pecanpy()
    graph = pecanpy.SparseOTF(p=1, q=1, workers=1, extend=True)
    edges = edge_table([("a", "b"), ("b", "c"), ("a", "c"), ("c", "d")], [900, 150, 400, 700])
    matrix = network._adjacency(edges, list("abcd"), weighted=True)
    graph.indptr, graph.indices, graph.data = matrix.indptr, matrix.indices, matrix.data
    graph.set_node_ids(list("abcd"))
    noise = graph.get_noise_thresholds()
    for here, before in [(a, b) for a, b in np.argwhere(matrix.toarray())]:
        looked_back = graph.get_extended_normalized_probs(
            graph.data, graph.indices, graph.indptr, 1, 1, here, before, noise
        )
        weights = matrix[[here]].data
        np.testing.assert_allclose(looked_back, weights / weights.sum(), rtol=1e-6)


# --- reading --------------------------------------------------------------------------------------------------


def test_a_network_is_read_simple_and_what_went_is_counted(places):
    path = places / "networks" / "mine.csv.gz"
    rows = "B,A,700\nA,B,900\nA,B,800\nC,C,999\nNA, A ,500\nC,D,100\nD,A,0\n"
    pd.read_csv(io.StringIO(HEADER + rows), keep_default_na=False).to_csv(path, index=False)
    edges = read_network("mine", cut=200)
    assert edges.to_numpy().tolist() == [["A", "B", 900.0], ["A", "NA", 500.0]]
    assert edges.attrs == {"self_loops": 1, "below_cut": 2, "repeated": 2}
    assert len(read_network("mine")) == 3  # a score of 0 is no edge


@pytest.mark.parametrize("folder", ["networks", "raw/networks", "elsewhere"])
def test_a_network_is_found_beside_the_data_in_raw_and_by_path(places, folder):
    (places / folder).mkdir(exist_ok=True)
    (places / folder / "mine.v1.csv").write_text(HEADER + "A,B,700\n")
    name = places / "elsewhere" / "mine.v1.csv" if folder == "elsewhere" else "mine.v1"
    assert find_file(name, "networks") == places / folder / "mine.v1.csv"
    assert len(read_network(name)) == 1


def test_a_file_that_is_nowhere_names_the_places(places, monkeypatch):
    with pytest.raises(CohortError, match=r"No file 'mine' for networks.*networks/mine.*raw/networks/mine"):
        read_network("mine")
    monkeypatch.delenv("TXT_DATA")
    with pytest.raises(CohortError, match=r"TXT_DATA is not set.*\.gmt"):
        read_gene_sets("mine")


@pytest.mark.parametrize(
    "text, said",
    [
        ("protein1,protein2\nA,B\n", "has no column combined_score"),
        (HEADER, "none of the 0 edges"),
        (HEADER + "A,B,700\n", r"none of the 1 edges.*800 or more \(best score: 700\)"),
        (HEADER + "A,A,900\n", "none of the 1 edges"),
        (HEADER + "A,B,high\n", "must hold numbers.*row 0: high"),
        (HEADER + "A,B,900\nA,C,-1\n", "must hold numbers.*row 1: -1"),
        (HEADER + "A,B,inf\n", "must hold numbers"),
        (HEADER + "A,,900\n", "1 edges lack a gene name"),
        ("", "cannot be read as a table"),
        (HEADER + 'A,"B,900\n', "cannot be read as a table"),
    ],
)
def test_bad_networks_stop_at_the_door_with_a_sentence(places, text, said):
    path = places / "bad.csv"
    path.write_text(text)
    with pytest.raises(CohortError, match=said) as caught:
        read_network(path, cut=800)
    assert "\n" not in str(caught.value) and "bad.csv" in str(caught.value)


def test_a_truncated_network_stops_at_the_door(places):
    whole = places / "whole.csv.gz"
    pd.DataFrame({"protein1": [f"G{i}" for i in range(999)], "protein2": "A", "combined_score": 9}).to_csv(whole)
    (places / "cut.csv.gz").write_bytes(whole.read_bytes()[:-900])
    with pytest.raises(CohortError, match="cannot be read as a table"):
        read_network(places / "cut.csv.gz")


def test_gene_sets_are_read_like_gseapy_reads_them(places):
    from gseapy.parser import read_gmt

    path = places / "genesets" / "mine.gmt"
    path.write_text("ONE\tnote\tA\tB\n\nTWO\t\tB\tC\tD\n")
    assert read_gene_sets("mine") == read_gmt(str(path)) == {"ONE": ["A", "B"], "TWO": ["B", "C", "D"]}


@pytest.mark.parametrize("text, said", [("", "it is empty"), ("ONE\tnote\n", "line 'ONE' holds no gene")])
def test_bad_gene_sets_stop_at_the_door(places, text, said):
    (places / "bad.gmt").write_text(text)
    with pytest.raises(CohortError, match=said):
        read_gene_sets(places / "bad.gmt")


# --- networks -------------------------------------------------------------------------------------------------


def test_restriction_keeps_edges_between_the_genes_only():
    edges = edge_table([("A", "B"), ("B", "C"), ("C", "D")])
    assert restrict(edges, ["C", "B", "X"])[["gene1", "gene2"]].to_numpy().tolist() == [["B", "C"]]
    assert degrees(edges, ["B", "X"]).to_dict() == {"B": 2, "X": 0}
    with pytest.raises(CohortError, match="joins two of the 2 genes, and 0 of them"):
        restrict(edges, ["X", "Y"])
    with pytest.raises(CohortError, match="and 2 of them are in it"):
        restrict(edges, ["A", "D"])
    with pytest.raises(CohortError, match="0 genes"):
        restrict(edges, [])
    with pytest.raises(CohortError, match="'A' stands there more than once"):
        restrict(edges, ["A", "B", "A"])


@given(st.sets(st.sampled_from(list(combinations("ABCDEFGHIJ", 2))), min_size=1), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_rewiring_keeps_a_simple_network_with_the_same_degrees(pairs, seed):
    edges = edge_table(sorted(pairs))
    try:
        rewired = rewire(edges, seed)
    except CohortError as error:
        assert "can be swapped" in str(error) and not swappable(pairs)
        return
    assert (rewired["gene1"] < rewired["gene2"]).all()
    assert not rewired.duplicated(["gene1", "gene2"]).any()
    assert sorted(rewired["score"]) == sorted(edges["score"])
    pd.testing.assert_series_equal(degrees(rewired, "ABCDEFGHIJ"), degrees(edges, "ABCDEFGHIJ"))
    pd.testing.assert_frame_equal(rewired, rewire(edges, seed))


def swappable(pairs):
    """Slow twin: is there any double-edge swap?"""
    taken = {frozenset(pair) for pair in pairs}
    new = [((a, d), (c, b)) for a, b in pairs for x in pairs for c, d in (x, x[::-1])]
    return any(a != d and c != b and not {frozenset((a, d)), frozenset((c, b))} & taken for (a, d), (c, b) in new)


def test_rewiring_leaves_few_edges_and_samples_all_networks_evenly(communities):
    edges, _ = communities
    kept = len(edges.merge(rewire(edges, 0), on=["gene1", "gene2"])) / len(edges)
    assert kept < 0.4
    square = edge_table([("A", "B"), ("B", "C"), ("C", "D"), ("A", "D")])  # three squares have these degrees
    found = [str(rewire(square, seed)[["gene1", "gene2"]].to_numpy().tolist()) for seed in range(300)]
    assert len(set(found)) == 3 and pd.Series(found).value_counts().min() > 70


@pytest.mark.parametrize("pairs", [[("A", "B"), ("A", "C"), ("A", "D")], list(combinations("ABCD", 2))])
def test_a_network_without_a_swap_says_so(pairs):
    with pytest.raises(CohortError, match="there is no rewired control"):
        rewire(edge_table(pairs), 0)


# --- vectors --------------------------------------------------------------------------------------------------


def test_node2vec_separates_two_communities_and_random_vectors_do_not(communities, walked):
    genes = communities[1][:40]
    upper = np.triu_indices(40, 1)
    same = (sides(genes)[:, None] == sides(genes))[upper]
    scores = {
        name: roc_auc_score(same, (made.unit()[:40] @ made.unit()[:40].T)[upper])
        for name, made in {"node2vec": walked, "random": random_vectors(walked, 0)}.items()
    }
    assert scores["node2vec"] > 0.95 and abs(scores["random"] - 0.5) < 0.1


def test_every_gene_has_a_row_and_isolated_ones_the_mean(communities, walked):
    genes = communities[1]
    assert list(walked.table.index) == genes and walked.table.shape == (42, 16)
    assert walked.isolated == ("G40", "G41") and walked.linked.sum() == 40
    mean = walked.table.iloc[:40].mean()
    np.testing.assert_allclose(walked.table.loc["G40"], mean, rtol=1e-5)
    assert walked.table.loc["G40"].equals(walked.table.loc["G41"].rename("G40"))
    assert np.isfinite(walked.table.to_numpy()).all() and walked.table.to_numpy().dtype == np.float32


def test_the_order_of_genes_and_edges_does_not_matter(communities, walked):
    edges, genes = communities
    turned = node2vec(edges.sample(frac=1, random_state=0), genes[::-1], width=16)
    assert turned.table.loc[genes].equals(walked.table)


def test_global_generator_and_threads_are_left_alone(communities):
    import numba

    before, threads = np.random.get_state()[1].copy(), numba.get_num_threads()
    node2vec(*communities, width=4, walks=1, epochs=1)
    assert np.array_equal(before, np.random.get_state()[1]) and threads == numba.get_num_threads()


def test_the_seed_and_the_scores_change_the_vectors(communities, walked):
    seeded, weighted, far = (
        node2vec(*communities, width=16, **change) for change in ({"seed": 1}, {"weighted": True}, {"q": 0.25})
    )
    assert not any(other.table.equals(walked.table) for other in (seeded, weighted, far))


def test_scores_lead_node2vec_plus():
    pairs = [(f"{side}{a}", f"{side}{b}") for side in "XY" for a, b in combinations(range(8), 2)]
    across = [(f"X{a}", f"Y{b}") for a in range(8) for b in range(8)]
    edges = edge_table(pairs + across, [900] * len(pairs) + [9] * len(across))
    genes = sorted({gene for pair in pairs for gene in pair})
    cosines = {flag: node2vec(edges, genes, width=8, weighted=flag).unit() for flag in (False, True)}
    gaps = {flag: (unit[:8] @ unit[:8].T).mean() - (unit[:8] @ unit[8:].T).mean() for flag, unit in cosines.items()}
    assert gaps[True] > 0.5 > abs(gaps[False])


PROCESS = """
import sys
import pandas as pd
from txtlib.network import make_network, node2vec
edges, genes = make_network(pd.read_csv(sys.argv[1], header=None)), [f"G{node:02d}" for node in range(42)]
for path, weighted in ((sys.argv[2], False), (sys.argv[3], True)):
    node2vec(edges, genes, width=16, weighted=weighted).table.to_parquet(path)
"""


def test_another_process_gives_the_same_bits(communities, walked, tmp_path):
    paths = [tmp_path / name for name in ("edges.csv", "plain", "weighted")]
    communities[0].to_csv(paths[0], index=False, header=False)
    # Another hash seed, and the threading layer under which PecanPy's own walker draws from an unseeded thread.
    other = {"PYTHONHASHSEED": "1", "NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", PROCESS, *paths], env={**os.environ, **other}, check=True)
    assert pd.read_parquet(paths[1]).equals(walked.table)
    assert pd.read_parquet(paths[2]).equals(node2vec(*communities, width=16, weighted=True).table)


def test_the_first_walk_of_a_process_leaves_torch_its_threads(communities, tmp_path):
    paths = [tmp_path / name for name in ("edges.csv", "plain", "weighted")]
    communities[0].to_csv(paths[0], index=False, header=False)
    program = f"import torch\ntorch.set_num_threads(1)\n{PROCESS}\nassert torch.get_num_threads() == 1"
    env = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
    subprocess.run([sys.executable, "-c", program, *paths], env=env | {"NUMBA_NUM_THREADS": "2"}, check=True)


def test_random_vectors_have_the_same_lengths_and_nothing_else(walked):
    made = random_vectors(walked, 3)
    norms = [np.linalg.norm(vectors.table, axis=1) for vectors in (walked, made)]
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-5)
    assert made.table.loc["G40"].equals(made.table.loc["G41"].rename("G40")) and made.isolated == walked.isolated
    assert made.table.equals(random_vectors(walked, 3).table) and not made.table.equals(random_vectors(walked, 4).table)
    assert abs(np.mean(made.unit()[:40] * walked.unit()[:40])) < 0.02


def test_permuted_vectors_are_the_same_rows_of_other_genes(walked):
    made = permuted(walked, 0)
    rows = [sorted(map(tuple, vectors.table.to_numpy())) for vectors in (walked, made)]
    assert rows[0] == rows[1] and (made.table.iloc[:40] != walked.table.iloc[:40]).all(axis=1).mean() > 0.9
    assert made.table.iloc[40:].equals(walked.table.iloc[40:]) and made.isolated == walked.isolated


def test_spectral_vectors_are_those_of_numpys_eigh(communities):
    edges, genes = communities
    made = spectral(edges, genes, width=6)
    graph = nx.Graph(list(zip(edges["gene1"], edges["gene2"], strict=True)))
    laplacian = nx.normalized_laplacian_matrix(graph, nodelist=genes[:40]).toarray()
    values, columns = np.linalg.eigh(laplacian)
    ours = made.table.iloc[:40].to_numpy(float)
    assert values[6] - values[5] > 1e-3  # so that the six span one space
    np.testing.assert_allclose(ours @ ours.T, columns[:, :6] @ columns[:, :6].T, atol=1e-5)
    np.testing.assert_allclose(laplacian @ ours, ours * values[:6], atol=1e-5)
    assert made.isolated == ("G40", "G41") and (ours[np.abs(ours).argmax(0), range(6)] > 0).all()


def test_spectral_vectors_wider_than_the_network_end_in_zeros():
    made = spectral(edge_table([("A", "B"), ("B", "C")]), list("ABCD"), width=5).table.to_numpy()
    assert made.shape == (4, 5) and (made[:, 3:] == 0).all() and (made[:3, :3] != 0).any(axis=0).all()


# --- how good are they? ---------------------------------------------------------------------------------------


def test_links_are_split_without_overlap(communities):
    edges, genes = communities
    links = split_links(edges, 0)
    keys = [set(zip(part["gene1"], part["gene2"], strict=True)) for part in links]
    assert len(keys[1]) == len(keys[3]) == round(0.15 * len(edges)) and len(keys[0]) == len(keys[2])
    assert keys[0] | keys[1] == set(zip(edges["gene1"], edges["gene2"], strict=True))
    assert sum(map(len, keys)) == len(set().union(*keys)) == 2 * len(edges)
    assert {gene for pair in keys[2] | keys[3] for gene in pair} <= set(genes[:40])
    assert all(a < b for pair in keys for a, b in pair)


@pytest.mark.parametrize("pairs", [[("A", "B")], list(combinations("ABCDE", 2))])
def test_networks_that_cannot_be_split_say_so(pairs):
    with pytest.raises(CohortError, match="cannot be split"):
        split_links(edge_table(pairs), 0)


def test_link_auroc_is_sklearns(communities, walked):
    links = split_links(communities[0], 0)
    rows = walked.table / np.linalg.norm(walked.table, axis=1, keepdims=True)

    def inputs(edges, apart):
        pairs = [*zip(edges["gene1"], edges["gene2"], strict=True), *zip(apart["gene1"], apart["gene2"], strict=True)]
        return np.array([rows.loc[a] * rows.loc[b] * 16 for a, b in pairs]), [1] * len(edges) + [0] * len(apart)

    model = LogisticRegression(max_iter=5000).fit(*inputs(links.kept, links.apart))
    x, y = inputs(links.held, links.apart_held)
    assert link_auroc(walked, links) == pytest.approx(roc_auc_score(y, model.predict_proba(x)[:, 1]), abs=0.01)


def test_hidden_edges_are_found_by_node2vec_and_not_by_its_controls(communities):
    edges, genes = communities
    scores = {"node2vec": [], "rewired": [], "random": [], "permuted": []}
    for seed in range(3):
        links = split_links(edges, seed)
        made = node2vec(links.kept, genes, width=16, seed=seed)
        rewired = node2vec(rewire(links.kept, seed), genes, width=16, seed=seed)
        scores["node2vec"].append(link_auroc(made, links))
        scores["rewired"].append(link_auroc(rewired, links))
        scores["random"] += [link_auroc(random_vectors(made, more), links) for more in range(5)]
        scores["permuted"] += [link_auroc(permuted(made, more), links) for more in range(5)]
    means = {name: np.mean(values) for name, values in scores.items()}
    assert means["node2vec"] > 0.65
    assert all(abs(means[name] - 0.5) < 0.12 for name in ("rewired", "random", "permuted"))


@given(st.integers(0, 999), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_neighbours_found_is_its_slow_twin(seed, k):
    generator = np.random.default_rng(seed)
    genes = [f"G{row}" for row in range(9)]
    table = pd.DataFrame(generator.normal(size=(9, 3)), index=genes)
    table.iloc[5] = table.iloc[2]  # a tie
    sets = {name: list(generator.choice([*genes, "X"], 3, replace=False)) for name in "ABC"}
    expected = {}
    for gene in genes:
        others = [other for other in genes if other != gene]
        mates = [other for other in others if any({gene, other} <= set(names) for names in sets.values())]
        if mates:
            near = sorted(others, key=lambda other: -round(cosine(table.loc[gene], table.loc[other]), 9))[:k]
            expected[gene] = len(set(near) & set(mates)) / k
    found = neighbours_found(Vectors(table), sets, k)
    assert found.to_dict() == pytest.approx(expected)
    assert np.array_equal(same_set(genes, sets).any(1), [gene in expected for gene in genes])


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def test_neighbours_found_needs_a_sensible_k(walked):
    with pytest.raises(ValueError, match="not 42"):
        neighbours_found(walked, {"A": ["G00", "G01"]}, k=42)


# --- cache ----------------------------------------------------------------------------------------------------


def test_the_cache_is_hit_by_content_only(communities, walked, tmp_path, monkeypatch):
    edges, genes = communities
    monkeypatch.setenv("TXT_CACHE", str(tmp_path / "cache"))
    first = cached_node2vec(edges, genes, width=16)
    assert first.table.equals(walked.table) and first.isolated == walked.isolated
    (kept,) = (tmp_path / "cache").iterdir()
    with monkeypatch.context() as without:
        without.setattr(network, "node2vec", None)
        without.setattr(network, "content_key", lambda *a, **b: kept.stem.removeprefix("node2vec-"))
        assert cached_node2vec(edges, genes, width=16).table.equals(walked.table)
    kept.write_bytes(kept.read_bytes()[:-50])  # a file that is not whole is made again
    assert cached_node2vec(edges, genes, width=16).table.equals(walked.table)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [kept.name]


def test_every_change_of_content_is_another_key(communities):
    edges, genes = communities
    key = content_key(edges, genes)
    assert key == content_key(edges.copy(), list(genes), width=64, seed=0)
    fewer, other = edges.iloc[1:], edges.assign(score=edges["score"] + 1)
    changed = [content_key(fewer, genes), content_key(other, genes), content_key(edges, genes[:-1])]
    changed += [content_key(edges, genes, **{name: 7}) for name in ("width", "walks", "length", "window", "p", "q")]
    changed += [content_key(edges, genes, seed=1), content_key(edges, genes, weighted=True)]
    assert len({key, *changed}) == len(changed) + 1


def test_a_cache_that_cannot_be_written_costs_a_warning_only(communities, walked, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("TXT_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="could not be kept"):
        assert cached_node2vec(*communities, width=16).table.equals(walked.table)


# --- the real thing -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def string(data_folder):
    shared = data_folder.parent
    if not (shared / "networks" / "string_v12.csv.gz").is_file():
        pytest.skip("no networks/string_v12.csv.gz beside the data folder")
    edges = read_network(shared / "networks" / "string_v12.csv.gz")
    return edges, read_gene_sets(shared / "genesets" / "h.all.v7.0.symbols.gmt")


def test_string_and_hallmark_are_as_described(string):
    edges, sets = string
    assert len(edges) == 174_962 and len(set(edges["gene1"]) | set(edges["gene2"])) == 17_288
    assert len(sets) == 50 and len({gene for genes in sets.values() for gene in genes}) == 4_384
    assert edges["score"].between(400, 1000).all() and edges.attrs["repeated"] == 0


def test_string_vectors_know_more_than_a_rewired_string(string):
    edges, sets = string
    genes = sorted({gene for members in sets.values() for gene in members})[::10]
    links = split_links(restrict(edges, genes), 0)
    made = node2vec(links.kept, genes)
    degree = node2vec(rewire(links.kept, 0), genes)
    assert link_auroc(made, links) > link_auroc(degree, links) + 0.1
    assert neighbours_found(made, sets).mean() > neighbours_found(degree, sets).mean()


def test_genes_of_a_gmt_file_are_those_of_all_its_sets(tmp_path):
    (tmp_path / "two.gmt").write_text("A\tnote\tg1\tg2\nB\tnote\tg2\tg3\n")
    assert network.genes_of(tmp_path / "two.gmt") == {"g1", "g2", "g3"}
    assert network.genes_of("") is None

"""Attention between two genes, beside their expression."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from txtlib.cohort import load_cohort
from txtlib.interpret import attention
from txtlib.interpret.pairs import compare_pair, over_layers, pair_attention, pair_over_seeds, pair_weights
from txtlib.interpret.plain import group_tests
from txtlib.preprocess import fit_preprocessor
from txtlib.training import Trained
from txtlib.variants import VARIANTS, variant

SETTINGS = dict(n_genes=6, outputs={"OS": 4}, width=8, layers=3, heads=2, readout="mean")


def network(name="product", seed=0):
    return variant(name, seed=seed, **SETTINGS).double().eval()


def patients(n=5):
    return np.random.default_rng(0).random((n, 6))


@pytest.mark.parametrize("name", VARIANTS)
def test_pair_weights_are_entries_of_the_whole_attention(name, monkeypatch):
    monkeypatch.setattr(attention, "GENES_AT_ONCE", 12)
    net, x = network(name), patients()
    found = pair_weights(net, x, 4, 1, [2, 0])
    assert found.shape == (5, 2, 2, 2)
    for place, layer in enumerate((0, 2)):
        whole = net.attention(torch.from_numpy(x), layer).detach().numpy()  # rows are queries
        np.testing.assert_allclose(found[:, place, 0], whole[:, :, 1, 4], atol=1e-14)  # key 4 -> query 1
        np.testing.assert_allclose(found[:, place, 1], whole[:, :, 4, 1], atol=1e-14)


def test_a_pair_is_two_columns():
    with pytest.raises(ValueError, match="two different columns of 0 to 5, not 2 and 2"):
        pair_weights(network(), patients(), 2, 2)
    with pytest.raises(ValueError, match="two different columns of 0 to 5, not 0 and -1"):
        pair_weights(network(), patients(), 0, -1)
    with pytest.raises(ValueError, match="layers 0 to 2"):
        pair_weights(network(), patients(), 0, 1, [3])


@pytest.fixture(scope="module")
def cohort():
    return load_cohort("gse7390")


def training(cohort, seed=0):
    preprocessor = fit_preprocessor(cohort, gene_list=list(cohort.expression.columns[:6]))
    return Trained(network(seed=seed), preprocessor, pd.DataFrame(), pd.DataFrame(), 1)


def test_the_table_names_sample_layer_and_direction(cohort):
    trained, some = training(cohort), cohort.take(cohort.samples[[7, 2, 5]])
    a, b = trained.preprocessor.genes[3], trained.preprocessor.genes[0]
    table = pair_attention(trained, some, a, b, layers=[2, 1])
    assert list(table.columns) == ["sample", "layer", "direction", "mean", "max"] and len(table) == 3 * 2 * 2
    x = torch.from_numpy(trained.preprocessor.expression(some).astype(float))
    for _, row in table.iterrows():
        patient = some.samples.get_loc(row["sample"])
        query, key = {f"{a} -> {b}": (0, 3), f"{b} -> {a}": (3, 0)}[row["direction"]]
        heads = trained.network.attention(x, row["layer"])[patient, :, query, key].detach().numpy()
        assert row["mean"] == pytest.approx(heads.mean()) and row["max"] == pytest.approx(heads.max())
    with pytest.raises(ValueError, match="Gene 'SERPINE1' is not among the 6 genes"):
        pair_attention(trained, some, a, "SERPINE1")


def test_over_layers_keeps_mean_and_max(cohort):
    trained = training(cohort)
    a, b = trained.preprocessor.genes[:2]
    pairs = pair_attention(trained, cohort.take(cohort.samples[:4]), a, b)
    table = over_layers(pairs)
    assert list(table.columns) == ["sample", "direction", "mean", "max"] and len(table) == 8
    row, rows = table.iloc[3], pairs[(pairs["sample"] == cohort.samples[1]) & (pairs["direction"] == f"{b} -> {a}")]
    assert list(row[:2]) == [cohort.samples[1], f"{b} -> {a}"] and len(rows) == 3
    assert row["mean"] == pytest.approx(rows["mean"].mean()) and row["max"] == rows["max"].max()


def planted_pairs(seed=0, gap=0.02):
    """One direction differs between groups of 20 and 25; the other and both genes do not. Five more are in neither."""
    rng, samples = np.random.default_rng(seed), [f"S{number:02d}" for number in range(50)]
    group = pd.Series(np.arange(45) < 20, samples[:45])
    rows = [
        (sample, layer, way, 0.1 + 0.01 * rng.random() + gap * (way == "A -> B" and group.get(sample, False)), 0.2)
        for sample in samples
        for layer in (0, 1)
        for way in ("A -> B", "B -> A")
    ]
    pairs = pd.DataFrame(rows, columns=["sample", "layer", "direction", "mean", "max"])
    pairs["max"] += pairs["mean"]
    expression = pd.DataFrame(np.random.default_rng(99).normal(size=(50, 2)), samples, ["A", "B"])
    return pairs, expression, group


def test_a_pair_can_differ_where_its_genes_do_not():
    pairs, expression, group = planted_pairs()
    table = compare_pair(over_layers(pairs), expression, group.sample(frac=1, random_state=0))
    assert list(table.index) == [
        *(f"{statistic} attention {way}" for statistic in ("mean", "max") for way in ("A -> B", "B -> A")),
        *("expression of A", "expression of B"),
    ]
    assert list(table["kind"]) == ["attention"] * 4 + ["expression"] * 2
    called = table.index[table["fdr_mannwhitney"] < 0.05]
    assert list(called) == ["mean attention A -> B", "max attention A -> B"]
    assert (table["n_inside"] == 20).all() and (table["n_outside"] == 25).all()
    alone = group_tests(expression, group)
    np.testing.assert_allclose(table.loc["expression of B", alone.columns[:5]].astype(float), alone.loc["B"][:5])


def test_layers_are_compared_one_by_one():
    pairs, expression, group = planted_pairs()
    table = compare_pair(pairs, expression[["A"]], group)
    assert len(table) == 2 * 2 * 2 + 1 and (table["kind"] == "attention").sum() == 8
    one = pairs[(pairs["layer"] == 1) & (pairs["direction"] == "A -> B")].set_index("sample")["mean"]
    expected = stats.mannwhitneyu(one[group.index[group]], one[group.index[~group]])
    assert table.loc["mean attention A -> B, layer 1", "p_mannwhitney"] == pytest.approx(expected.pvalue)
    assert table.loc["mean attention A -> B, layer 1", "auc"] == pytest.approx(expected.statistic / 500)


def test_patients_without_attention_or_expression_are_named():
    pairs, expression, group = planted_pairs()
    with pytest.raises(ValueError, match="Sample 'S00' has a label but no values"):
        compare_pair(pairs[pairs["sample"] != "S00"], expression, group)
    with pytest.raises(ValueError, match="'expression of A' has no finite value in sample 'S03'"):
        compare_pair(pairs, expression.drop(index="S03"), group)


def test_over_seeds_a_training_counts_once():
    tables = {
        seed: compare_pair(over_layers(pairs), expression, group)
        for seed in range(4)
        for pairs, expression, group in [planted_pairs(seed, gap=0.004)]
    }
    found = pair_over_seeds(tables)
    assert len(found) == 4 and (found["n"] == 4).all()
    auc = [table.loc["mean attention A -> B", "auc"] for table in tables.values()]
    row, expected = found.loc["mean attention A -> B"], stats.ttest_1samp(auc, 0.5)
    assert row[["auc", "sd"]].tolist() == pytest.approx([np.mean(auc), np.std(auc, ddof=1)])
    assert row[["t", "p"]].tolist() == pytest.approx([expected.statistic, expected.pvalue])
    assert row["above"] == 4 and row["p"] < 0.05 < found.loc["mean attention B -> A", "p"]
    assert (found["fdr"] >= found["p"]).all()


def test_trainings_that_agree_to_the_last_digit_have_no_p():
    table = compare_pair(*planted_pairs())
    found = pair_over_seeds({0: table, 1: table})
    assert found[["t", "p", "fdr"]].isna().all(axis=None) and (found["sd"] == 0).all()


def test_trainings_that_cannot_be_compared():
    pairs, expression, group = planted_pairs()
    table = compare_pair(pairs, expression, group)
    with pytest.raises(ValueError, match=r"1 training\(s\) have no spread"):
        pair_over_seeds({0: table})
    with pytest.raises(ValueError, match="do not hold the same rows"):
        pair_over_seeds({0: table, 1: compare_pair(over_layers(pairs), expression, group)})


def test_from_trainings_to_the_answer(cohort):
    group = (cohort.clinical["Grade"] == "G3")[cohort.clinical["Grade"].notna()]
    tables = {}
    for seed in (0, 1, 2):
        trained = training(cohort, seed)
        a, b = trained.preprocessor.genes[:2]
        pairs = over_layers(pair_attention(trained, cohort, a, b))
        tables[seed] = compare_pair(pairs, cohort.expression[[a, b]], group)
    found = pair_over_seeds(tables)
    assert found["p"].between(0, 1).all() and found["auc"].between(0, 1).all()

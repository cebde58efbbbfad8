"""What genes receive, what two arms of trainings differ by, and the plain twins."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from scipy import stats
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv
from statsmodels.duration.hazard_regression import PHReg
from torch.overrides import TorchFunctionMode

from txtlib.cohort import load_cohort
from txtlib.interpret import attention as module
from txtlib.interpret.attention import received, received_per_seed, received_table
from txtlib.interpret.differential import differential, naive_differential, null_differential
from txtlib.interpret.plain import correlations, fdr, group_tests, univariate_cox
from txtlib.planted import planted
from txtlib.preprocess import fit_preprocessor
from txtlib.training import Trained
from txtlib.variants import VARIANTS, variant

SETTINGS = dict(n_genes=6, outputs={"OS": 4}, width=8, layers=3, heads=2, readout="mean")


def network(name="product", seed=0, **settings):
    built = variant(name, seed=seed, **SETTINGS | settings).double().eval()
    with torch.no_grad():
        for block in built.blocks:
            block.query.weight *= 4  # attention is then far from even
    return built


def patients(n=5, genes=6):
    return np.random.default_rng(0).random((n, genes))


# --- attention received ---------------------------------------------------------------------------------------


def slowly(net, x, layers):
    found = np.zeros(x.shape)
    for layer in layers:
        for patient, heads in enumerate(net.attention(torch.from_numpy(x), layer).detach().numpy()):
            for weights in heads:
                for query in weights:
                    found[patient] += query
    return found / (len(layers) * 2 * x.shape[1])


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("layers", [None, [2], [2, 0]])
def test_received_is_the_mean_over_queries_heads_and_layers(name, layers, monkeypatch):
    net, x = network(name), patients()
    expected = slowly(net, x, layers or range(3))
    assert np.ptp(expected[0]) > 0.02
    np.testing.assert_allclose(received(net, x, layers), expected, atol=1e-12)
    monkeypatch.setattr(module, "ENTRIES", 50)  # a few queries of
    monkeypatch.setattr(module, "GENES_AT_ONCE", 12)  # two patients at a time
    np.testing.assert_allclose(received(net, x, layers), expected, atol=1e-12)
    np.testing.assert_allclose(expected.sum(1), 1)


class Largest(TorchFunctionMode):
    numbers = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numbers = max(self.numbers, out.numel())
        return out


def test_attention_of_a_cohort_is_never_in_memory(monkeypatch):
    monkeypatch.setattr(module, "ENTRIES", 3000)
    monkeypatch.setattr(module, "GENES_AT_ONCE", 80)
    net = network(n_genes=40)
    with Largest() as seen:
        received(net, patients(50, 40))
    assert 2000 < seen.numbers <= 3000 < 50 * 2 * 40 * 40


def test_even_attention_gives_each_gene_the_same():
    net = network("none")
    with torch.no_grad():
        for block in net.blocks:
            block.query.weight.zero_()
    np.testing.assert_allclose(received(net, patients()), 1 / 6)


def test_what_a_gene_gives_to_itself_counts():
    net = network("none", layers=1, heads=1)
    with torch.no_grad():
        net.vectors.copy_(torch.randn(6, 8).double())
        net.blocks[0].query.weight.copy_(50 * torch.eye(8))
        net.blocks[0].key.weight.copy_(torch.eye(8))  # the norm of a vector with itself is the largest product
    np.testing.assert_allclose(received(net, patients()), 1 / 6, atol=1e-3)
    assert net.attention(torch.from_numpy(patients()), 0).diagonal(dim1=2, dim2=3).min() > 0.99


def test_without_expression_all_patients_are_alike():
    found = received(network("none"), patients())
    np.testing.assert_allclose(found, found[[0] * 5], atol=1e-14)
    assert np.ptp(received(network(), patients()), 0).min() > 1e-4


def test_a_network_in_training_is_asked_without_dropout_and_left_in_training():
    net = network(dropout=0.5)
    expected = received(net, patients())
    np.testing.assert_array_equal(received(net.train(), patients()), expected)
    assert net.training and net.blocks[0].dropout.training and not net.blocks[0]._forward_pre_hooks


def test_a_failed_pass_leaves_the_network_as_it_was(monkeypatch):
    net = network().train()
    monkeypatch.setattr(net.blocks[2], "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        received(net, patients())
    assert net.training and not any(block._forward_pre_hooks for block in net.blocks)


def test_what_cannot_be_asked():
    with pytest.raises(ValueError, match=r"layers 0 to 2, so layers cannot be \[3\]"):
        received(network(), patients(), [0, 3])
    with pytest.raises(ValueError, match=r"layers 0 to 2, so layers cannot be \[\]"):
        received(network(), patients(), [])
    with pytest.raises(ValueError, match=r"x is \(patients, 6 genes\) for this network, not \(5, 7\)"):
        received(network(), patients(5, 7))
    with pytest.raises(ValueError, match="no attention between all genes"):
        received(variant("product", sets=[[0, 1, 2], [3, 4, 5]], **SETTINGS), patients())


@pytest.fixture(scope="module")
def cohort():
    return load_cohort("gse7390")


def training(cohort, seed, first=0):
    preprocessor = fit_preprocessor(cohort, gene_list=list(cohort.expression.columns[first : first + 6]))
    return Trained(network(seed=seed), preprocessor, pd.DataFrame(), pd.DataFrame(), 1)


def test_tables_carry_names(cohort):
    models = {seed: training(cohort, seed) for seed in (3, 1)}
    some = cohort.take(cohort.samples[:9])
    table = received_table(models[3], some, [1])
    genes = list(models[3].preprocessor.genes)
    assert list(table.columns) == genes and table.index.equals(some.samples)
    x = models[3].preprocessor.expression(some).astype(float)
    np.testing.assert_allclose(table, slowly(models[3].network, x, [1]), atol=1e-12)
    arm = received_per_seed(models, some, [1])
    assert list(arm.index) == [3, 1] and list(arm.columns) == genes
    np.testing.assert_allclose(arm.loc[3], table.mean())


def test_the_order_of_genes_may_differ_between_trainings_but_not_the_genes(cohort):
    models = {0: training(cohort, 0), 1: training(cohort, 1)}
    turned = replace(models[1].preprocessor, genes=models[1].preprocessor.genes[::-1])
    assert received_per_seed({**models, 1: replace(models[1], preprocessor=turned)}, cohort).notna().all(axis=None)
    with pytest.raises(ValueError, match="training of seed 2 has other genes than that of seed 0"):
        received_per_seed({**models, 2: training(cohort, 2, first=3)}, cohort)


# --- two arms of trainings ------------------------------------------------------------------------------------


def arm(rng, seeds=6, genes=40, shift=0.0):
    values = 1 / genes * (1 + 0.1 * rng.normal(size=(seeds, genes)))
    values[:, :3] += shift
    return pd.DataFrame(values, [f"seed {s}" for s in range(seeds)], [f"G{g:02d}" for g in range(genes)])


def test_differential_is_a_paired_t_test_per_gene_over_seeds():
    rng = np.random.default_rng(1)
    multi, single = arm(rng, shift=0.02), arm(rng)
    table = differential(multi, single)
    assert table["p"].is_monotonic_increasing and set(table.index[:3]) == {"G00", "G01", "G02"}
    assert (table["n"] == 6).all() and (table["fdr"] < 0.05).sum() == 3
    for gene, row in table.iterrows():
        gap = multi[gene] - single[gene]
        t = gap.mean() / (gap.std(ddof=1) / np.sqrt(6))
        assert row["t"] == pytest.approx(t) and row["p"] == pytest.approx(2 * stats.t.sf(abs(t), 5))
        assert row["difference"] == pytest.approx(multi[gene].mean() - single[gene].mean())
        assert row["log2_ratio"] == pytest.approx(np.log2(row["multi"] / row["single"]))
    np.testing.assert_allclose(table["fdr"], benjamini_hochberg(table["p"].to_numpy()))


def test_order_of_seeds_and_genes_plays_no_role_and_sides_only_a_sign():
    rng = np.random.default_rng(2)
    multi, single = arm(rng, shift=0.02), arm(rng)
    table = differential(multi, single)
    pd.testing.assert_frame_equal(differential(multi, single.iloc[::-1, ::-1]), table)
    swapped = differential(single, multi).loc[table.index]
    np.testing.assert_allclose(swapped["t"], -table["t"])
    np.testing.assert_allclose(swapped["log2_ratio"], -table["log2_ratio"])


def test_a_gene_without_spread_has_no_p():
    multi = pd.DataFrame({"same": [0.2, 0.3, 0.4], "shifted": [0.5, 0.5, 0.5], "free": [0.1, 0.2, 0.4], "no": 0.0})
    single = pd.DataFrame({"same": [0.2, 0.3, 0.4], "shifted": [0.25, 0.25, 0.25], "free": [0.2, 0.1, 0.1], "no": 0.0})
    table = differential(multi, single)
    assert table.index[0] == "free" and table.loc["free", "fdr"] == table.loc["free", "p"]
    assert table.loc[["same", "shifted", "no"], ["t", "p", "fdr"]].isna().all(axis=None)
    assert table.loc["shifted", "difference"] == 0.25 and table.loc["shifted", "log2_ratio"] == 1
    assert np.isnan(table.loc["no", "log2_ratio"])


def test_patients_of_one_training_call_genes_that_seeds_do_not():
    rng = np.random.default_rng(3)
    seeds = 0.01 * (1 + 0.2 * rng.normal(size=(8, 100)))  # 8 trainings of one kind; they differ by their seed alone
    genes = [f"G{g}" for g in range(100)]
    one, other = (pd.DataFrame(seeds[row] + 0.002 * rng.normal(size=(80, 100)), columns=genes).abs() for row in (0, 1))
    naive = naive_differential(one, other)
    assert (naive["n"] == 80).all() and (naive["fdr"] < 0.05).sum() > 70
    pd.testing.assert_frame_equal(naive_differential(one, other[genes[::-1]]), naive)
    expected = stats.ttest_ind(one["G7"], other["G7"], equal_var=False)
    assert naive.loc["G7", ["t", "p"]].tolist() == pytest.approx([expected.statistic, expected.pvalue])
    frame = pd.DataFrame(seeds, columns=genes)
    assert (differential(frame[:4], frame[4:].set_axis(range(4)))["fdr"] < 0.05).sum() <= 1


def test_the_null_compares_two_disjoint_halves_and_calls_what_chance_calls():
    single = arm(np.random.default_rng(4), seeds=9, genes=400)
    table = null_differential(single, seed=1)
    assert list(table.columns[:2]) == ["first", "second"] and (table["n"] == 4).all()
    assert 0.02 < (table["p"] < 0.05).mean() < 0.09 and not (table["fdr"] < 0.05).any()
    pd.testing.assert_frame_equal(null_differential(single, seed=1), table)
    assert not np.array_equal(null_differential(single, seed=2)["p"], table["p"])
    rows = pd.DataFrame(np.eye(8), columns=list("abcdefgh"))  # gene g is 1 in seed g: halves that share no seed
    halves = null_differential(rows)
    assert (halves["first"] * halves["second"] == 0).all()
    assert (halves["first"] > 0).sum() == (halves["second"] > 0).sum() == 4


def test_arms_that_cannot_be_compared():
    rng = np.random.default_rng(5)
    multi, single = arm(rng), arm(rng)
    with pytest.raises(ValueError, match="Gene 'G00' is in one arm only"):
        differential(multi, single.drop(columns="G00"))
    with pytest.raises(ValueError, match="paired by seed"):
        differential(multi, single[:5])
    with pytest.raises(ValueError, match="has 1 seed"):
        differential(multi[:1], single[:1])
    with pytest.raises(ValueError, match="'G01' has no finite value in seed 'seed 2'"):
        differential(multi.mask(multi == multi.loc["seed 2", "G01"]), single)
    with pytest.raises(ValueError, match="The seed '0' is there more than once"):
        differential(multi.set_axis([0, 0, 1, 2, 3, 4]), single)
    with pytest.raises(ValueError, match="3 seeds cannot be halved"):
        null_differential(single[:3])
    with pytest.raises(ValueError, match="has 1 patient"):
        naive_differential(multi[:1], single)


def benjamini_hochberg(p):
    m, order = len(p), np.argsort(p)
    return np.array([min(1.0, min(p[j] * m / (rank + 1) for rank, j in enumerate(order) if p[j] >= q)) for q in p])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_fdr_is_benjamini_and_hochbergs(p):
    np.testing.assert_allclose(fdr(p), benjamini_hochberg(np.array(p)))


def test_fdr_leaves_what_is_undefined():
    np.testing.assert_allclose(fdr([0.01, np.nan, 0.5]), [0.02, np.nan, 0.5])
    assert np.isnan(fdr([np.nan])).all() and fdr([]).shape == (0,)


# --- the plain twins ------------------------------------------------------------------------------------------


def table_of(values):
    return pd.DataFrame(values, [f"S{row}" for row in range(len(values))], [f"G{g}" for g in range(values.shape[1])])


def test_groups_are_compared_as_by_hand():
    rng = np.random.default_rng(6)
    values = table_of(rng.normal(size=(30, 5)).round(1))  # with ties
    group = pd.Series(rng.random(25) < 0.4, values.index[:25]).sample(frac=1, random_state=1)
    values.loc[group.index[group], "G3"] += 2
    table = group_tests(values, group)
    inside, outside = values.loc[group.index[group]], values.loc[group.index[~group]]
    assert (table["n_inside"] == len(inside)).all() and (table["n_outside"] == len(outside)).all()
    for gene, row in table.iterrows():
        a, b = inside[gene].to_numpy(), outside[gene].to_numpy()
        welch, mann = stats.ttest_ind(a, b, equal_var=False), stats.mannwhitneyu(a, b)
        assert row[["t", "p_welch"]].tolist() == pytest.approx([welch.statistic, welch.pvalue])
        assert row["p_mannwhitney"] == pytest.approx(mann.pvalue)
        wins = [(high > low) + 0.5 * (high == low) for high in a for low in b]
        assert row["auc"] == pytest.approx(np.mean(wins)) and row["difference"] == pytest.approx(a.mean() - b.mean())
    assert list(table.index) == list(values.columns) and table["rank"].idxmin() == "G3" and table["rank"].max() == 5
    np.testing.assert_allclose(table["fdr_welch"], benjamini_hochberg(table["p_welch"].to_numpy()))
    np.testing.assert_allclose(table["fdr_mannwhitney"], benjamini_hochberg(table["p_mannwhitney"].to_numpy()))


def test_a_constant_gene_is_not_tested():
    values = table_of(np.random.default_rng(7).normal(size=(20, 2))).assign(flat=0.1)
    group = pd.Series(np.arange(20) < 9, values.index)
    flat = group_tests(values, group).loc["flat"]
    assert flat[["t", "p_welch", "fdr_welch", "p_mannwhitney", "fdr_mannwhitney", "rank"]].isna().all()
    assert flat["auc"] == 0.5 and flat["difference"] == pytest.approx(0, abs=1e-15)
    assert correlations(values, values["G0"]).loc["flat", ["rho", "p", "fdr", "rank"]].isna().all()


def test_groups_that_cannot_be_compared():
    values = table_of(np.random.default_rng(8).normal(size=(6, 2)))
    group = pd.Series([True, True, False, False, False, True], values.index)
    with pytest.raises(ValueError, match="True or False for each sample, not int"):
        group_tests(values, group.astype(int))
    with pytest.raises(ValueError, match=r"1 patient\(s\) in the group and 3 outside"):
        group_tests(values, group[1:-1])
    with pytest.raises(ValueError, match="Sample 'S5' has a label but no values"):
        group_tests(values[:5], group)
    with pytest.raises(ValueError, match="Sample 'S0' has more than one label"):
        group_tests(values, pd.concat([group, group[:1]]))
    with pytest.raises(ValueError, match="'G1' has no finite value in sample 'S2'"):
        group_tests(values.mask(values == values.loc["S2", "G1"]), group)


@pytest.fixture(scope="module")
def world():
    return planted(n=300, n_genes=100, event_rate=0.5, main_effect=1.0, interaction=0.0, age_effect=0.0, seed=2)


def test_univariate_cox_equals_scikit_survival_and_statsmodels_also_with_ties(world):
    values, (time, event) = world.cohort.expression.iloc[:, :6], world.cohort.outcome()
    time = np.ceil(time / 300) * 300
    table = univariate_cox(values, time, event)
    assert len(np.unique(time)) < 40 and (table["n"] == 300).all() and (table["events"] == event.sum()).all()
    scaled = stats.zscore(values.to_numpy(float))
    for column, (_, row) in zip(scaled.T, table.iterrows(), strict=True):
        cox = CoxPHSurvivalAnalysis(ties="breslow").fit(column[:, None], Surv.from_arrays(event == 1, time))
        other = PHReg(time, column, status=event, ties="breslow").fit()
        assert np.log(row["hazard_ratio"]) == pytest.approx(cox.coef_[0], abs=1e-5)
        assert row[["z", "p"]].tolist() == pytest.approx([other.tvalues[0], other.pvalues[0]], abs=1e-4)


def test_univariate_cox_equals_lifelines_where_no_times_tie(world):
    time, event = world.cohort.outcome()
    time = time + np.linspace(0, 1e-3, len(time))
    values = world.cohort.expression[["PLT0001"]]
    frame = pd.DataFrame({"x": stats.zscore(values.iloc[:, 0].to_numpy(float)), "time": time, "event": event})
    expected = CoxPHFitter().fit(frame, "time", "event").summary.loc["x"]
    found = univariate_cox(values, time, event).iloc[0]
    assert found[["hazard_ratio", "z", "p"]].tolist() == pytest.approx(expected[["exp(coef)", "z", "p"]], rel=1e-4)


def test_univariate_cox_finds_the_planted_genes(world):
    table = univariate_cox(world.cohort.expression, *world.cohort.outcome())
    assert (table.loc[world.truth.coefficients.index, "rank"] <= 12).all()
    assert (np.sign(table.loc[world.truth.coefficients.index, "z"]) == np.sign(world.truth.coefficients)).all()


def test_univariate_cox_leaves_out_missing_outcomes_and_undefined_columns(world):
    values, (time, event) = world.cohort.expression.iloc[:, :3].copy(), world.cohort.outcome()
    keep = np.arange(300) >= 40
    gaps = univariate_cox(values, np.where(keep, time, np.nan), event)
    pd.testing.assert_frame_equal(gaps, univariate_cox(values[keep], time[keep], event[keep]))
    odd = values.assign(flat=5.1, perfect=-time)
    table = univariate_cox(odd, time, event)
    assert table.loc[["flat", "perfect"], ["hazard_ratio", "z", "p", "fdr", "rank"]].isna().all(axis=None)
    np.testing.assert_allclose(table.loc[values.columns, "z"], univariate_cox(values, time, event)["z"])
    with pytest.raises(ValueError, match="None of the 300 patients with an outcome has an event"):
        univariate_cox(values, time, np.zeros(300))


def test_correlations_are_spearmans(world):
    values, label = world.cohort.expression.iloc[:, :8], world.cohort.clinical["Age"]
    assert label.isna().any()
    table = correlations(values, label.sample(frac=1, random_state=0))
    known = label.notna()
    for gene, row in table.iterrows():
        expected = stats.spearmanr(values.loc[known, gene], label[known])
        assert row[["rho", "p"]].tolist() == pytest.approx([expected.statistic, expected.pvalue])
    assert (table["n"] == known.sum()).all() and (table["rank"].to_numpy() == table["p"].rank().to_numpy()).all()
    np.testing.assert_allclose(table["fdr"], benjamini_hochberg(table["p"].to_numpy()))
    with pytest.raises(ValueError, match=r"2 label\(s\) of 2 value\(s\)"):
        correlations(values, label.dropna()[:2])

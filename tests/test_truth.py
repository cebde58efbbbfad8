"""Do scores find what was planted? By hand, by other libraries, and where the answer is known by construction."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from scipy import stats
from sklearn.metrics import roc_auc_score

from txtlib.cohort import CohortError
from txtlib.interpret.attention import received_table
from txtlib.interpret.pairs import pair_attention
from txtlib.interpret.truth import (
    against_half,
    answer_scores,
    attention_scores,
    by_horizon,
    effective_rank,
    flipped,
    interaction_cox,
    mutual_attention,
    nested_parts,
    over_worlds,
    pair_differences,
    plain_scores,
    recovery,
    room,
    score_changes,
    static_share,
)
from txtlib.planted import planted
from txtlib.preprocess import fit_preprocessor
from txtlib.training import Trained
from txtlib.variants import variant

GENES, HORIZON = 8, 400.0


@pytest.fixture(scope="module")
def cohort(build):
    return build(n=40, genes=GENES)


@pytest.fixture(scope="module")
def preprocessor(cohort):
    return fit_preprocessor(cohort, n_genes=GENES, n_times=6, grid="quantile", scaler="rank")


def trained_on(network, preprocessor):
    return Trained(network, preprocessor, pd.DataFrame(), pd.DataFrame(), 0)


def form(preprocessor, name="product", layers=2):
    options = dict(n_genes=GENES, outputs=preprocessor.outputs, width=8, layers=layers, heads=2)
    return trained_on(variant(name, **options).eval(), preprocessor)


class Linear(torch.nn.Module):
    """Answers x W for each task."""

    def __init__(self, outputs, weights):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.as_tensor(weights, dtype=torch.float32))
        self.outputs = outputs

    def forward(self, x):
        value = (x * self.weights).sum(1, keepdim=True)
        return {task: value * torch.linspace(1, 2, size) for task, size in self.outputs.items()}


# --- how well a ranking does --------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.lists(st.integers(0, 5), min_size=1, max_size=9))
def test_recovery_is_the_area_under_the_roc_curve(inside, outside):
    names = [f"G{number}" for number in range(len(inside) + len(outside))]
    scores = pd.Series([*inside, *outside, 99.0], [*names, "neither"], dtype=float)
    planted_names, decoys = names[: len(inside)], names[len(inside) :]
    labels = [1] * len(inside) + [0] * len(outside)
    assert recovery(scores, planted_names, decoys) == pytest.approx(roc_auc_score(labels, scores[names]))


def test_recovery_refuses_what_is_no_question():
    scores = pd.Series({"a": 1.0, "b": 0.0, "c": np.nan})
    for wrong, says in (([], "apart"), (["b"], "apart")):
        with pytest.raises(ValueError, match=says):
            recovery(scores, wrong, ["b"])
    for absent in ("c", "d"):
        with pytest.raises(ValueError, match=f"'{absent}' has no finite score"):
            recovery(scores, ["a"], ["b", absent])


def test_an_interval_is_over_worlds_and_seeds_count_once():
    rows = [("x", world, seed, 0.1 * world + 0.01 * seed) for world in range(4) for seed in range(2)]
    table = pd.DataFrame([*rows, ("y", 0, 0, 0.7)], columns=["method", "world", "seed", "auroc"])
    found = over_worlds(table, ["method"])
    means = np.array([0.005, 0.105, 0.205, 0.305])
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    np.testing.assert_allclose(found.loc["x"], [means.mean(), *expected, 4])
    cut = over_worlds(table, ["method"], bounds=(0.0, 0.2)).loc["x"]
    assert cut["low"] == max(0, found.loc["x", "low"]) and cut["high"] == 0.2 < found.loc["x", "high"]
    assert found.loc["y", ["mean", "worlds"]].tolist() == [0.7, 1] and np.isnan(found.loc["y", ["low", "high"]]).all()
    again = pd.concat([table[table["method"] == "x"]] * 3)
    pd.testing.assert_series_equal(over_worlds(again, ["method"]).loc["x"], found.loc["x"])


def test_worlds_that_agree_have_no_interval():
    table = pd.DataFrame({"method": "x", "world": [0, 1, 2], "auroc": 0.5})
    assert np.isnan(over_worlds(table, ["method"])[["low", "high"]].to_numpy()).all()


def test_words_come_from_the_interval():
    said = [against_half(0.51, 0.9), against_half(0.1, 0.49), against_half(0.4, 0.6), against_half(np.nan, np.nan)]
    assert said == ["above chance", "below chance", "not to be told from chance", "without an interval"]


def test_parts_are_nested_and_apart():
    cohort = planted(n=120, n_genes=40, event_rate=0.5).cohort
    small, large = (nested_parts(cohort, n, 20, 30) for n in (30, 70))
    assert small.test.samples.equals(large.test.samples) and small.validation.samples.equals(large.validation.samples)
    assert set(small.train.samples) < set(large.train.samples) and len(large.train) == 70
    assert not set(large.train.samples) & (set(large.test.samples) | set(large.validation.samples))
    for sizes in ((71, 20, 30), (0, 20, 30)):
        with pytest.raises(CohortError, match="120 patients do not make parts"):
            nested_parts(cohort, *sizes)


# --- genes --------------------------------------------------------------------------------------------------------


def test_attention_scores_are_the_means_that_they_say(cohort, preprocessor):
    trained = form(preprocessor)
    group = pd.Series(np.arange(40) < 15, cohort.samples)
    found = attention_scores(trained, cohort, group, times_uniform=1.05, drawn=10)
    table = received_table(trained, cohort)
    np.testing.assert_allclose(found.loc["attention received"], table.mean())
    np.testing.assert_allclose(found.loc["attention varies"], np.std(table.to_numpy(), 0) / table.mean())
    t = stats.ttest_ind(table[group.to_numpy()], table[~group.to_numpy()], equal_var=False).statistic
    np.testing.assert_allclose(found.loc["attention, by outcome"].astype(float), np.abs(t))
    x = torch.from_numpy(preprocessor.expression(cohort))[:10]
    edges = np.zeros((10, GENES, GENES), bool)
    for layer in range(2):
        edges |= (trained.network.attention(x, layer) > 1.05 / GENES).any(1).numpy()
    edges[:, range(GENES), range(GENES)] = False
    np.testing.assert_allclose(found.loc["out-degree"].astype(float), edges.sum(1).mean(0))  # columns are keys
    assert edges.any() and list(found.columns) == list(preprocessor.genes)


def test_a_comparison_needs_two_sides(cohort, preprocessor):
    for group in (None, pd.Series([True] * 40, cohort.samples), pd.Series([True] * 39 + [False], cohort.samples)):
        assert "attention, by outcome" not in attention_scores(form(preprocessor), cohort, group).index


@pytest.mark.parametrize("task, horizon", [("Age", HORIZON), ("Grade", HORIZON), ("OS", HORIZON)])
def test_answer_scores_rank_a_linear_network_by_its_weights(cohort, preprocessor, task, horizon):
    weights = np.array([0, 0.1, 0.3, 0.6, -1.0, 1.6, -2.4, 3.5])
    trained = trained_on(Linear(preprocessor.outputs, 0.2 * weights), preprocessor)
    found = answer_scores(trained, cohort, np.full(GENES, 0.5), task, horizon)
    assert len(found) == 4
    for _, row in found.iterrows():
        assert stats.spearmanr(row.astype(float), np.abs(weights)).statistic > 0.9
        assert row.iloc[0] == pytest.approx(0, abs=1e-6) and (row.iloc[1:] > 0).all()


def test_plain_scores_are_those_of_scipy(cohort):
    cohort = replace(cohort, expression=cohort.expression.fillna(5.0))
    genes = list(cohort.expression.columns[:3])
    age = cohort.clinical["Age"]
    found = plain_scores(cohort, genes, "Age").iloc[0]
    for gene in genes:
        known = age.notna()
        rho = stats.spearmanr(cohort.expression.loc[known, gene], age[known]).statistic
        assert found[gene] == pytest.approx(abs(rho))
    grade = cohort.clinical["Grade"]
    groups = [cohort.expression.loc[grade == label, genes[0]] for label in grade.dropna().unique()]
    assert plain_scores(cohort, genes, "Grade").loc["Kruskal-Wallis", genes[0]] == pytest.approx(
        stats.kruskal(*groups).statistic
    )
    survival = plain_scores(cohort, genes, "OS", HORIZON)
    assert set(survival.index) == {"univariate Cox", "correlation with the label"} and (survival >= 0).all(axis=None)


def test_who_died_by_the_horizon(cohort):
    cohort = cohort.take(cohort.samples[:6])
    clinical = cohort.clinical.assign(OS_duration=[1.0, 1, 5, 9, 9, np.nan], OS_event=[1.0, 0, 1, 1, 0, np.nan])
    found = by_horizon(replace(cohort, clinical=clinical), 5.0)
    assert found.tolist() == [True, True, False, False] and found.index.tolist() == list(cohort.samples[[0, 2, 3, 4]])


# --- pairs --------------------------------------------------------------------------------------------------------


def test_mutual_attention_is_the_mean_of_both_directions(cohort, preprocessor):
    trained = form(preprocessor)
    found = mutual_attention(trained.network, preprocessor.expression(cohort))
    assert np.array_equal(found, found.T) and found.sum() == pytest.approx(GENES)
    a, b = 1, 5
    slow = pair_attention(trained, cohort, preprocessor.genes[a], preprocessor.genes[b])["mean"].mean()
    assert found[a, b] == pytest.approx(slow, rel=1e-5)
    one = mutual_attention(trained.network, preprocessor.expression(cohort), [1])
    assert not np.allclose(one, found)
    with pytest.raises(ValueError, match="layers 0 to 1"):
        mutual_attention(trained.network, preprocessor.expression(cohort), [2])


class Hazard(torch.nn.Module):
    """Log hazard x_0 + 2 x_1 + c x_0 x_1 + x_2 on one time point: the risk by it is 1 - exp(-exp(hazard))."""

    def __init__(self, product):
        super().__init__()
        self.product = product

    def forward(self, x):
        x = x.double()
        eta = x[:, 0] + 2 * x[:, 1] + self.product * x[:, 0] * x[:, 1] + x[:, 2] - 2
        return {"OS": torch.logit(1 - torch.exp(-torch.exp(eta)))[:, None]}


def test_two_genes_that_multiply_hazards_only_make_no_pair(cohort):
    once = fit_preprocessor(cohort, n_genes=GENES, n_times=1, grid="quantile", scaler="rank").with_tasks("OS")
    genes, end = once.genes, float(once.edges[0])
    pairs = [(genes[0], genes[1]), (genes[1], genes[2])]
    found = pair_differences(trained_on(Hazard(1.5), once), cohort, pairs, end)
    wide = np.subtract(*np.quantile(once.expression(cohort), [0.75, 0.25], axis=0))
    np.testing.assert_allclose(found, [1.5 * wide[0] * wide[1], 0], atol=1e-5)
    assert list(found.index) == [f"{a} x {b}" for a, b in pairs]


def test_pairs_need_a_survival_task_and_known_genes(cohort, preprocessor):
    trained = form(preprocessor)
    with pytest.raises(ValueError, match="does not see 'nobody'"):
        pair_differences(trained, cohort, [(preprocessor.genes[0], "nobody")], HORIZON)
    alone = trained_on(trained.network, preprocessor.with_tasks("Age"))
    with pytest.raises(ValueError, match="survival task"):
        pair_differences(alone, cohort, [preprocessor.genes[:2]], HORIZON)


def test_cox_with_a_product_agrees_with_lifelines():
    rng = np.random.default_rng(0)
    n = 150
    values = pd.DataFrame(rng.normal(3, 2, (n, 3)), columns=["a", "b", "c"])
    z = (values - values.mean()) / values.std(ddof=0)
    time = rng.exponential(np.exp(-0.8 * z["a"] * z["b"]))
    event = (rng.random(n) < 0.7).astype(float)
    event[:3], time[3] = np.nan, np.nan
    pairs = [("a", "b"), ("b", "c")]
    found = interaction_cox(values, pairs, time, event)
    known = ~np.isnan(time + event)
    z = (values[known] - values[known].mean()) / values[known].std(ddof=0)
    for a, b in pairs:
        table = pd.DataFrame({"a": z[a], "b": z[b], "ab": z[a] * z[b], "time": time[known], "event": event[known]})
        fitted = CoxPHFitter().fit(table, "time", "event").summary.loc["ab"]
        row = found.loc[f"{a} x {b}"]
        np.testing.assert_allclose(row, fitted[["coef", "z", "p"]].to_numpy(float), rtol=1e-3, atol=1e-5)
    assert found["p"].iloc[0] < 1e-4 < found["p"].iloc[1]


def test_cox_with_a_product_says_nan_where_there_is_no_answer():
    values = pd.DataFrame({"a": np.arange(10.0), "b": np.ones(10)})
    assert interaction_cox(values, [("a", "b")], np.arange(1.0, 11), np.ones(10)).isna().all(axis=None)
    with pytest.raises(ValueError, match="needs events"):
        interaction_cox(values, [("a", "b")], np.arange(1.0, 11), np.zeros(10))


def test_the_planted_pairs_stand_out_with_enough_patients():
    world = planted(n=2500, n_genes=40, seed=3, event_rate=0.6, interaction=0.8)
    truth = world.truth
    right = [*zip(truth.pairs["gene1"], truth.pairs["gene2"], strict=True)]
    wrong = [*zip(truth.decoys[:6], truth.decoys[6:12], strict=True)]
    scores = interaction_cox(world.cohort.expression, right + wrong, *world.cohort.outcome())["z"].abs()
    names = [f"{a} x {b}" for a, b in right + wrong]
    assert recovery(scores, names[: len(right)], names[len(right) :]) == 1.0


# --- what attention has room to say -------------------------------------------------------------------------------


def test_effective_rank_by_hand():
    assert effective_rank(np.eye(5)) == pytest.approx(5)
    assert effective_rank(np.outer(np.arange(4.0), np.ones(3))) == pytest.approx(1)
    assert effective_rank(np.zeros((3, 3))) == 0
    assert effective_rank(np.diag([1.0, 1.0, 1e-9])) == pytest.approx(2)


@given(st.integers(1, 5), st.floats(0.01, 100))
@settings(max_examples=30)
def test_effective_rank_knows_no_unit_and_is_no_more_than_the_rank(size, unit):
    matrix = np.random.default_rng(size).normal(size=(size, 7))
    assert effective_rank(matrix) == pytest.approx(effective_rank(unit * matrix))
    assert 1 - 1e-9 <= effective_rank(matrix) <= size + 1e-9


def test_a_head_of_the_plain_form_adds_one_dimension_and_all_heads_the_same(cohort, preprocessor):
    x = preprocessor.expression(cohort)[:5]
    plain = form(preprocessor).network
    found = room(plain, x)
    assert found["genes"] == pytest.approx(1, abs=1e-3) and found["heads"] == pytest.approx(1, abs=1e-3)
    c = plain.position.strength().detach().numpy()
    expected = c[:, None, None] * np.einsum("ni,nj->nij", x, x - x.mean(1, keepdims=True))[:, None]
    np.testing.assert_allclose(score_changes(plain, x), expected, atol=1e-5)
    richer = room(form(preprocessor, "value token").network, x)
    assert richer["genes"] > 1.05 and richer["heads"] > 1.05


def test_signs_are_lost_in_the_plain_form_alone(cohort, preprocessor):
    x = preprocessor.expression(cohort)[:5] - 0.5
    assert max(flipped(form(preprocessor).network, x, layer) for layer in (0, 1)) < 1e-6
    assert flipped(form(preprocessor, "value token").network, x) > 1e-4
    with pytest.raises(ValueError, match="layers 0 to 1"):
        score_changes(form(preprocessor).network, x, 2)


def test_the_static_share_splits_the_variance():
    rng = np.random.default_rng(0)
    genes, patients = rng.normal(size=(1, 9)), rng.normal(size=(50, 9))
    assert static_share(pd.DataFrame(np.repeat(genes, 5, 0))) == pytest.approx(1)
    assert static_share(pd.DataFrame(patients - patients.mean(0))) == pytest.approx(0)
    mixed = pd.DataFrame(genes + patients - patients.mean(0))
    between, within = genes.var(), (patients - patients.mean(0)).var()
    assert static_share(mixed) == pytest.approx(between / (between + within))
    assert np.isnan(static_share(pd.DataFrame(np.full((3, 4), 0.25))))

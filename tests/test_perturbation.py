"""One gene moved at a time: closed forms, the slow obvious twin, and what stands out among genes and null networks."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from txtlib import survival
from txtlib.cohort import split
from txtlib.interpret import perturbation
from txtlib.interpret.perturbation import (
    against_null_models,
    against_nulls,
    answers,
    decoded,
    perturb,
    ranked_genes,
    scaled,
)
from txtlib.planted import planted
from txtlib.preprocess import fit_preprocessor
from txtlib.training import Trained, fit
from txtlib.variants import variant

GENES = 8
KEYS = [("Age", "value"), ("Grade", "G1"), ("Grade", "G2"), ("Grade", "G3"), ("OS", "risk")]


class LinearNetwork(torch.nn.Module):
    """Answers x W + b for each task, in double precision, and notes how many patients it saw at a time."""

    def __init__(self, outputs, n_genes, seed=0):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.weights = torch.nn.ParameterDict(
            {task: torch.randn(n_genes, size, generator=draw, dtype=torch.float64) for task, size in outputs.items()}
        )
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        return {task: x.double() @ weight for task, weight in self.weights.items()}


@pytest.fixture(scope="module")
def cohort(build):
    return build(n=30, genes=GENES)


def preprocessor_of(cohort, scaler):
    return fit_preprocessor(cohort, n_genes=GENES, n_times=6, grid="quantile", scaler=scaler)


def trained_on(network, preprocessor):
    return Trained(network, preprocessor, pd.DataFrame(), pd.DataFrame(), 0)


def linear(cohort, scaler="standard", seed=0):
    preprocessor = preprocessor_of(cohort, scaler)
    return trained_on(LinearNetwork(preprocessor.outputs, GENES, seed), preprocessor)


def transformer(cohort, scaler="minmax", form="value token", **options):
    preprocessor = preprocessor_of(cohort, scaler)
    options = dict(width=8, layers=2, heads=2, readout="flatten") | options
    return trained_on(variant(form, n_genes=GENES, outputs=preprocessor.outputs, **options), preprocessor)


# --- answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form, options", [("product", {}), ("value token", {"sets": [[0, 1, 2, 3], [3, 4, 5, 6, 7]]})])
def test_answers_are_those_of_predict_but_for_its_rounding(cohort, form, options):
    trained = transformer(cohort, form=form, **options)
    found, said = answers(trained, scaled(trained, cohort), 400.0), trained.predict(cohort)
    assert list(found) == [key for task in cohort.tasks for key in KEYS if key[0] == task.name]
    np.testing.assert_allclose(found["OS", "risk"], said.risk(400.0), atol=2e-5)
    np.testing.assert_allclose(found["Age", "value"], said.values["Age"], atol=1e-4)
    for name, share in said.probabilities["Grade"].items():
        np.testing.assert_allclose(found["Grade", name], share, atol=2e-5)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(0.01, 1.0), st.floats(0.1, 30))
def test_the_risk_is_that_of_the_curves(seed, k, where, size):
    rng = np.random.default_rng(seed)
    edges = np.cumsum(rng.uniform(1, 100, k))
    logits, horizon = rng.normal(0, size, (4, k)), where * edges[-1]
    preprocessor = replace(EMPTY, edges=edges)
    found = decoded({"OS": torch.from_numpy(logits)}, preprocessor, horizon)["OS", "risk"]
    np.testing.assert_allclose(found, survival.risk(survival.survival_curves(logits), edges, horizon), atol=1e-10)


def _only_survival():
    world = planted(n=60, n_genes=40, event_rate=0.6)
    return fit_preprocessor(world.cohort.with_tasks("OS"), n_genes=2, n_times=2, grid="quantile")


EMPTY = _only_survival()


@pytest.mark.parametrize("horizon", [None, 0.0, -1.0, np.nan, 1e9])
def test_a_risk_needs_a_horizon_within_the_grid(cohort, horizon):
    with pytest.raises(ValueError, match="needs a horizon above 0 and up to"):
        perturb(linear(cohort), cohort, horizon=horizon)


def test_without_a_survival_task_no_horizon_is_needed(cohort):
    few = cohort.with_tasks("Age")
    assert set(perturb(linear(few), few).change) == {("Age", "value")}


# --- one gene at a time -------------------------------------------------------------------------------------------


def test_a_linear_network_has_a_closed_form(cohort):
    trained = linear(cohort)
    found = perturb(trained, cohort, amounts=[-1.5, 0.5], horizon=400.0)
    slope = trained.network.weights["Age"].detach().numpy()[:, 0] * trained.preprocessor.scales["Age"][1]
    expected = np.array([-1.5, 0.5])[:, None] * slope
    np.testing.assert_allclose(found.change["Age", "value"], np.repeat(expected[:, :, None], 30, 2), rtol=1e-4)
    np.testing.assert_allclose(found.moved, np.broadcast_to([[[-1.5]], [[0.5]]], found.moved.shape), atol=1e-5)
    np.testing.assert_allclose(found.table().query("task == 'Age'")["mean"], expected.ravel(), rtol=1e-4)


@pytest.mark.parametrize("scaler", ["minmax", "standard", "rank"])
def test_it_equals_the_slow_obvious_twin(cohort, scaler):
    trained = transformer(cohort, scaler)
    few, amounts, horizon = cohort.take(cohort.samples[:5]), (-0.4, 0.3), 400.0
    found = perturb(trained, few, amounts, horizon)
    x = trained.preprocessor.expression(few)
    trained.network.eval()  # for the twin
    for a, amount in enumerate(amounts):
        for gene in range(GENES):
            for patient in range(5):
                expected = _one(trained, x[patient], gene, amount, horizon)
                for key in KEYS:
                    assert found.change[key][a, gene, patient] == pytest.approx(
                        expected[key], abs=0.3 * found.rounding[key]
                    )


def _one(trained, profile, gene, amount, horizon):
    """The change of every answer, one gene of one patient moved, from the curves and classes of numpy."""
    other = profile.copy()
    other[gene] += np.float32(amount)
    if trained.preprocessor.scaler != "standard":
        other[gene] = min(max(other[gene], 0), 1)
    before, after = (_by_numpy(trained, each, horizon) for each in (profile, other))
    return {key: after[key] - before[key] for key in before}


def _by_numpy(trained, profile, horizon):
    with torch.no_grad():
        output = {
            task: value.numpy().astype(float)
            for task, value in trained.network(torch.from_numpy(profile)[None]).items()
        }
    mean, spread = trained.preprocessor.scales["Age"]
    shares = np.exp(output["Grade"][0]) / np.exp(output["Grade"][0]).sum()
    risk = survival.risk(survival.survival_curves(output["OS"]), trained.preprocessor.edges, horizon)[0]
    values = [output["Age"][0, 0] * spread + mean, *shares, risk]
    return dict(zip(KEYS, values, strict=True))


@pytest.fixture(scope="module")
def perturbed(cohort):
    return perturb(transformer(cohort), cohort, amounts=(-0.5, 0.25), horizon=400.0)


def test_the_table_holds_what_the_array_says(perturbed):
    table = perturbed.table().set_index(["task", "output", "gene", "amount"])
    assert len(table) == len(KEYS) * GENES * 2 and table.index.is_unique and (table["n"] == 30).all()
    for key in KEYS:
        for a, amount in enumerate(perturbed.amounts):
            for g, gene in enumerate(perturbed.genes):
                change, row = perturbed.change[key][a, g], table.loc[(*key, gene, amount)]
                assert row["mean"] == pytest.approx(np.mean(change)) and row["sd"] == pytest.approx(
                    pd.Series(change).std()
                )
                assert row["moved"] == pytest.approx(perturbed.moved[a, g].mean())
                rounding = perturbed.rounding[key]
                assert row["rises"] == np.mean(change > rounding) and row["falls"] == np.mean(change < -rounding)
    assert table["rises"].between(0.01, 0.99).any() and (table["rises"] + table["falls"] <= 1 + 1e-12).all()


def test_rounding_of_a_number_is_in_its_own_unit(cohort, perturbed):
    assert perturbed.rounding["Age", "value"] == pytest.approx(1e-5 * np.nanstd(cohort.clinical["Age"]))
    assert perturbed.rounding["OS", "risk"] == 1e-5


def test_class_probabilities_change_by_0_together(perturbed):
    total = sum(perturbed.change["Grade", name] for name in ("G1", "G2", "G3"))
    np.testing.assert_allclose(total, 0, atol=1e-12)


@pytest.mark.parametrize("scaler", ["minmax", "rank"])
def test_values_stay_within_the_scalers_range_and_where_nothing_moves_nothing_changes(cohort, scaler):
    trained = transformer(cohort, scaler)
    found, x = perturb(trained, cohort, (-0.3, 2.0), 400.0), trained.preprocessor.expression(cohort)
    reached = x.T + found.moved
    assert reached.min() >= 0 and reached.max() <= 1 and (found.moved[0] <= 0).all() and (found.moved[1] >= 0).all()
    stuck = found.moved == 0
    assert stuck[0].any() and stuck[1].any()  # at 0 already, or at 1
    for key in KEYS:
        assert (found.change[key][stuck] == 0).all() and (found.change[key][~stuck] != 0).any()
    np.testing.assert_allclose(found.moved[1], 1 - x.T, atol=1e-6)


def test_a_network_without_expression_rises_and_falls_nowhere(cohort):
    table = perturb(transformer(cohort, form="none"), cohort, horizon=400.0).table()
    assert (table[["rises", "falls"]] == 0).all(axis=None) and (table["moved"] != 0).any()


def test_named_genes_alone_are_as_among_all(cohort, perturbed):
    trained = transformer(cohort)
    named = [perturbed.genes[5], perturbed.genes[2]]
    found = perturb(trained, cohort, perturbed.amounts, 400.0, named)
    assert found.genes == tuple(named)
    np.testing.assert_allclose(found.change["OS", "risk"], perturbed.change["OS", "risk"][:, [5, 2]], atol=2e-6)


def test_small_pieces_give_the_same_and_stay_small(cohort, monkeypatch):
    trained = linear(cohort)
    whole = perturb(trained, cohort, horizon=400.0)
    monkeypatch.setattr(perturbation, "TOKENS", 3 * GENES + 1)
    trained.network.seen.clear()
    pieces = perturb(trained, cohort, horizon=400.0)
    assert max(trained.network.seen) == 3 and sum(trained.network.seen) == 30 + 2 * GENES * 30
    for key in KEYS:
        np.testing.assert_allclose(pieces.change[key], whole.change[key], atol=1e-12)
    monkeypatch.setattr(perturbation, "TOKENS", 1)  # more genes than that in one patient
    np.testing.assert_allclose(perturb(trained, cohort, horizon=400.0).change["OS", "risk"], whole.change["OS", "risk"])


def test_what_does_not_move_is_not_computed(cohort):
    trained = linear(cohort, "minmax")
    x = trained.preprocessor.expression(cohort)
    perturb(trained, cohort, [5.0], 400.0)
    assert sum(trained.network.seen) == 30 + (x < 1).sum()


def test_one_patient_has_no_spread_and_needs_no_labels(cohort):
    one = replace(cohort.take(cohort.samples[:1]), clinical=cohort.clinical.iloc[:1, :0], tasks=())
    table = perturb(transformer(cohort), one, horizon=400.0).table()
    assert table["sd"].isna().all() and table["mean"].notna().all() and (table["n"] == 1).all()


def test_it_leaves_network_and_random_state_alone_and_works_on_one_in_training(cohort):
    trained = transformer(cohort, dropout=0.5)
    trained.network.train()
    before, state = {k: v.clone() for k, v in trained.network.state_dict().items()}, torch.get_rng_state()
    first, again = (perturb(trained, cohort, horizon=400.0).table() for _ in range(2))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert all(torch.equal(before[k], v) for k, v in trained.network.state_dict().items())
    assert torch.equal(state, torch.get_rng_state()) and trained.network.training


@pytest.mark.parametrize(
    "options, words",
    [
        ({"amounts": []}, "a list of finite numbers other than 0"),
        ({"amounts": 0.5}, "a list of finite numbers other than 0"),
        ({"amounts": [0.0, 1.0]}, "a list of finite numbers other than 0"),
        ({"amounts": [np.inf]}, "a list of finite numbers other than 0"),
        ({"amounts": [np.nan]}, "a list of finite numbers other than 0"),
        ({"amounts": [0.5, 0.5]}, "holds a number twice"),
        ({"genes": ["CCL19"]}, "does not see 'CCL19'"),
        ({"genes": []}, "for no gene"),
        ({"genes": ["GENE1", "GENE1"]}, "one gene twice"),
    ],
)
def test_bad_input_is_refused(cohort, options, words):
    with pytest.raises(ValueError, match=words):
        perturb(linear(cohort), cohort, **{"horizon": 400.0, **options})


def test_nobody_and_foreign_genes_are_refused(cohort):
    trained = linear(cohort)
    with pytest.raises(ValueError, match="a small cohort has no patient"):
        perturb(trained, cohort.take([]), horizon=400.0)
    with pytest.raises(ValueError, match="has none of the 8 genes"):
        perturb(trained, replace(cohort, expression=cohort.expression.add_prefix("other ")), horizon=400.0)


# --- which genes stand out ----------------------------------------------------------------------------------------


def test_genes_are_ranked_with_their_place_among_all(perturbed):
    found = ranked_genes(perturbed.table(), "OS", -0.5)
    means = dict(zip(perturbed.genes, perturbed.change["OS", "risk"][0].mean(1), strict=True))
    assert list(found["gene"]) == sorted(means, key=means.get, reverse=True) and list(found["rank"]) == [*range(1, 9)]
    for row in found.itertuples():
        values = np.array(list(means.values()))
        assert row.mean == pytest.approx(means[row.gene])
        assert row.p_higher == np.mean(values >= means[row.gene]) and row.p_lower == np.mean(values <= means[row.gene])
    assert found["p_higher"].min() == found["p_lower"].min() == 1 / GENES


def test_equal_genes_have_the_worse_place_of_both():
    table = pd.DataFrame({"gene": list("abcd"), "mean": [1.0, 0.0, 1.0, -1.0], "task": "OS", "output": "risk"})
    table = table.assign(amount=0.5, moved=0.5, sd=1.0, rises=0.5, falls=0.5)
    found = ranked_genes(table, "OS", 0.5).set_index("gene")
    assert found["p_higher"].to_dict() == {"a": 0.5, "c": 0.5, "b": 0.75, "d": 1.0}
    assert found["p_lower"].to_dict() == {"a": 1.0, "c": 1.0, "b": 0.5, "d": 0.25}
    assert found["rank"].to_dict() == {"a": 1, "c": 1, "b": 3, "d": 4}


@pytest.mark.parametrize("which", [("DM", 0.25), ("OS", 0.3), ("Grade", 0.25)])
def test_an_answer_that_the_table_lacks_is_named(perturbed, which):
    with pytest.raises(ValueError, match=r"The table has no .*it has .*Grade G3, .*OS risk, by -0.5, 0.25"):
        ranked_genes(perturbed.table(), *which)
    assert len(ranked_genes(perturbed.table(), "Grade", 0.25, "G3")) == GENES


def table_of(means):
    return pd.DataFrame({"gene": [f"g{i}" for i in range(len(means))], "mean": means}).assign(
        task="OS", output="risk", amount=0.5
    )


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=8))
def test_the_p_of_one_among_equals_is_too_small_no_more_often_than_it_says(values):
    """Each of exchangeable networks takes its turn as the real one: P(p <= a) <= a, also with ties."""
    tables = [table_of([float(value)]) for value in values]
    found = [against_nulls(table, tables[:i] + tables[i + 1 :]) for i, table in enumerate(tables)]
    for column in ("p_higher", "p_lower", "p"):
        p = np.array([each[column].iloc[0] for each in found])
        assert p.min() > 0 and p.max() <= 1
        assert all(np.mean(p <= level + 1e-12) <= level + 1e-12 for level in p)


def test_nulls_are_counted_gene_by_gene_and_the_false_discovery_rate_is_within_an_answer():
    rng = np.random.default_rng(0)
    real, drawn = np.array([3.0, 0.1, -2.0]), rng.normal(0, 1, (19, 3)).clip(-1.5, 1.5)
    two = [pd.concat([table_of(means), table_of(-means).assign(amount=-0.5)]) for means in (real, *drawn)]
    found = against_nulls(two[0], [null.sample(frac=1, random_state=0) for null in two[1:]])
    up = found.query("amount == 0.5").set_index("gene")
    assert up["p_higher"].tolist() == [1 / 20, (1 + (drawn[:, 1] >= 0.1).sum()) / 20, 1.0]
    assert up["p_lower"].tolist() == [1.0, (1 + (drawn[:, 1] <= 0.1).sum()) / 20, 1 / 20]
    assert up.loc["g0", "p"] == up.loc["g2", "p"] == 0.1 and (found["n_nulls"] == 19).all()
    assert up.loc[["g0", "g2"], "q"].tolist() == pytest.approx([0.15, 0.15])  # 0.1 x 3 / 2, not over both amounts
    np.testing.assert_allclose(up["null_mean"], drawn.mean(0))
    np.testing.assert_allclose(up["null_sd"], pd.DataFrame(drawn).std())


def test_one_null_has_no_spread_and_two_at_least_tie():
    found = against_nulls(table_of([1.0]), [table_of([1.0])])
    assert (
        found["null_sd"].isna().all() and found["p_higher"].item() == found["p_lower"].item() == found["p"].item() == 1
    )


def test_null_networks_are_asked_on_the_same_patients(cohort):
    trained, nulls = linear(cohort, "minmax"), [linear(cohort, "minmax", seed) for seed in (1, 2, 3)]
    genes = ["GENE7", "GENE3"]
    found = against_null_models(trained, nulls, cohort, (0.5,), 400.0, genes).set_index(["task", "output", "gene"])
    assert len(found) == len(KEYS) * 2
    means = [
        perturb(each, cohort, (0.5,), 400.0).table().set_index(["task", "output", "gene"])["mean"] for each in nulls
    ]
    real, expected = found.loc[("OS", "risk", "GENE3"), "mean"], [each["OS", "risk", "GENE3"] for each in means]
    assert found.loc[("OS", "risk", "GENE3"), "null_mean"] == pytest.approx(np.mean(expected))
    assert found.loc[("OS", "risk", "GENE3"), "p_higher"] == (1 + sum(value >= real for value in expected)) / 4


def test_no_null_or_one_that_lacks_a_gene_is_refused():
    with pytest.raises(ValueError, match="no null network"):
        against_nulls(table_of([1.0]), [])
    with pytest.raises(ValueError, match=r"no answer OS risk for gene 'g1' by 0.5"):
        against_nulls(table_of([1.0, 2.0]), [table_of([1.0])])


# --- a trained network --------------------------------------------------------------------------------------------


def test_planted_risk_genes_move_the_risk_their_way_and_decoys_hardly():
    world = planted(n=600, n_genes=40, event_rate=0.7, main_effect=0.8, interaction=0.0, age_effect=0.0, seed=3)
    parts = split(world.cohort.with_tasks("OS"), seed=0)
    preprocessor = fit_preprocessor(parts.train, n_genes=40, n_times=8, grid="quantile")
    network = variant("value token", n_genes=40, outputs=preprocessor.outputs, width=8, layers=1, heads=2)
    trained = fit(network, parts.train, parts.validation, preprocessor, epochs=12, learning_rate=5e-3, progress=False)
    table = perturb(trained, parts.test, horizon=1500.0).table()
    up, down = (ranked_genes(table, "OS", amount).set_index("gene") for amount in (0.5, -0.5))
    effects = world.truth.coefficients
    assert (np.sign(up.loc[effects.index, "mean"]) == np.sign(effects)).all()
    assert (np.sign(down.loc[effects.index, "mean"]) == -np.sign(effects)).all()
    decoys = [gene for gene in world.truth.decoys if gene in up.index]
    assert up.loc[effects.index, "mean"].abs().mean() > 2 * up.loc[decoys, "mean"].abs().mean() and len(decoys) > 5

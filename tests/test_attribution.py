"""Shares of the genes in an answer: closed forms, completeness, finite differences, and the planted truth."""

import numpy as np
import pandas as pd
import pytest
import torch

from txtlib.cohort import split
from txtlib.interpret import attribution
from txtlib.interpret.attribution import gradient_times_input, integrated_gradients, permutation_importance
from txtlib.interpret.perturbation import answers, perturb, ranked_genes
from txtlib.planted import planted
from txtlib.preprocess import fit_preprocessor
from txtlib.training import Trained, fit
from txtlib.variants import variant

GENES, HORIZON = 8, 400.0
AGE = ("Age", None, None)
ALL = [AGE, ("Grade", "G2", None), ("OS", None, HORIZON)]


class Quadratic(torch.nn.Module):
    """Answers every task with sum of a_i x_i + b_i x_i^2, plus c x_0 x_1."""

    def __init__(self, outputs, linear, square=0.0, product=0.0):
        super().__init__()
        self.linear = torch.nn.Parameter(torch.as_tensor(linear, dtype=torch.float64))
        self.square, self.product, self.outputs = torch.as_tensor(square), product, outputs

    def forward(self, x):
        x = x.double()
        value = (self.linear * x + self.square * x**2).sum(1) + self.product * x[:, 0] * x[:, 1]
        return {task: value[:, None].expand(-1, size) for task, size in self.outputs.items()}


@pytest.fixture(scope="module")
def cohort(build):
    return build(n=30, genes=GENES)


@pytest.fixture(scope="module")
def preprocessor(cohort):
    return fit_preprocessor(cohort, n_genes=GENES, n_times=6, grid="quantile", scaler="standard")


def trained_on(network, preprocessor):
    return Trained(network, preprocessor, pd.DataFrame(), pd.DataFrame(), 0)


def quadratic(preprocessor, **options):
    linear = np.linspace(-1, 1, GENES)
    return trained_on(Quadratic(preprocessor.outputs, **{"linear": linear, **options}), preprocessor)


@pytest.fixture(scope="module")
def transformer(preprocessor):
    options = dict(width=8, layers=2, heads=2, dropout=0.3, readout="flatten")
    return trained_on(variant("value token", n_genes=GENES, outputs=preprocessor.outputs, **options), preprocessor)


def baseline(seed=1):
    return np.random.default_rng(seed).normal(size=GENES)


# --- shares -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("look", [integrated_gradients, gradient_times_input])
def test_of_a_linear_answer_a_gene_has_its_slope_times_its_way(cohort, preprocessor, look):
    start, x = baseline(), preprocessor.expression(cohort)
    found = look(quadratic(preprocessor), cohort, start, "Age")
    expected = np.linspace(-1, 1, GENES) * (x - start) * preprocessor.scales["Age"][1]
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    np.testing.assert_allclose(found.gap, 0, atol=1e-4)
    np.testing.assert_allclose(found.change, expected.sum(1), atol=1e-4)
    assert found.genes == preprocessor.genes and found.samples.equals(cohort.samples)


def test_squares_and_products_have_closed_forms_too(cohort, preprocessor):
    start, x, spread = baseline(), preprocessor.expression(cohort), preprocessor.scales["Age"][1]
    square = np.arange(GENES) / 10
    found = integrated_gradients(
        quadratic(preprocessor, linear=0 * square, square=square), cohort, start, "Age", n_steps=2
    )
    np.testing.assert_allclose(found.values, spread * square * (x**2 - start**2), atol=1e-4)
    pair = quadratic(preprocessor, linear=0 * square, product=2.0)
    found = integrated_gradients(pair, cohort, 0 * start, "Age", n_steps=2)
    half = spread * x[:, 0] * x[:, 1]  # from zeros, a product is shared out evenly
    np.testing.assert_allclose(found.values[:, :2], np.stack([half, half], 1), atol=1e-4)
    assert (found.values[:, 2:] == 0).all()


@pytest.mark.parametrize("task, output, horizon", ALL)
def test_shares_add_up_to_the_difference_from_the_baseline(cohort, transformer, task, output, horizon):
    start = baseline()
    few, many = (
        integrated_gradients(transformer, cohort, start, task, output, horizon, n_steps=steps) for steps in (4, 400)
    )
    key = task, output or {"Age": "value", "OS": "risk"}[task]
    x = transformer.preprocessor.expression(cohort)
    ends = (answers(transformer, each.astype(np.float32), HORIZON)[key] for each in (x, start[None]))
    np.testing.assert_allclose(many.change, np.subtract(*ends), atol=2e-6 * (10 if task == "Age" else 1))
    np.testing.assert_allclose(many.values.sum(1), many.change + many.gap, atol=1e-12)
    assert np.abs(many.gap).max() < 0.02 * np.abs(many.change).mean()
    assert np.abs(many.gap).mean() < 0.5 * np.abs(few.gap).mean()


def test_it_equals_a_sum_of_finite_differences(cohort, transformer):
    one, start, steps, h = cohort.take(cohort.samples[4:5]), baseline().astype(np.float32), 400, 1e-2
    found = integrated_gradients(transformer, one, start, "OS", horizon=HORIZON, n_steps=steps).values[0]
    way = transformer.preprocessor.expression(one)[0] - start
    path = (start + (np.arange(steps)[:, None] + 0.5) / steps * way).astype(np.float32)  # (steps, G)
    for gene in range(GENES):
        nudge = np.eye(GENES, dtype=np.float32)[gene] * h
        after, before = (answers(transformer, path + by, HORIZON)["OS", "risk"] for by in (nudge, -nudge))
        expected = np.mean((after - before) / (2 * h)) * way[gene]
        assert found[gene] == pytest.approx(expected, abs=3e-3 * np.abs(found).max())


def test_the_shares_of_all_classes_add_up_to_0(cohort, transformer):
    for look in (integrated_gradients, gradient_times_input):
        values = sum(look(transformer, cohort, baseline(), "Grade", name).values for name in ("G1", "G2", "G3"))
        np.testing.assert_allclose(values, 0, atol=1e-6)


def test_the_plain_form_knows_no_sign_from_zeros_and_no_slope_there(cohort, preprocessor):
    network = variant("product", n_genes=GENES, outputs=preprocessor.outputs, width=8, layers=1, heads=2).eval()
    x = torch.zeros(1, GENES, requires_grad=True)
    (slope,) = torch.autograd.grad(network(x)["OS"].sum(), x)
    assert slope.abs().max() < 1e-6
    trained = trained_on(network, preprocessor)
    mirrored = cohort.expression.fillna(cohort.expression.median())
    mirrored = 2 * preprocessor.table[0] - mirrored[list(preprocessor.genes)]  # z becomes -z
    other = type(cohort)(mirrored, cohort.clinical, cohort.tasks, cohort.about)
    both = [integrated_gradients(trained, each, np.zeros(GENES), "OS", horizon=HORIZON) for each in (cohort, other)]
    np.testing.assert_allclose(both[0].values, both[1].values, atol=1e-6)
    assert np.abs(both[0].values).max() > 1e-4


@pytest.mark.parametrize("tokens", [1, 3 * GENES, 50 * GENES])
def test_small_pieces_give_the_same(cohort, transformer, monkeypatch, tokens):
    few = cohort.take(cohort.samples[:6])
    looks = [
        lambda: integrated_gradients(transformer, few, baseline(), "OS", horizon=HORIZON, n_steps=20).values,
        lambda: gradient_times_input(transformer, few, baseline(), "OS", horizon=HORIZON).values,
    ]
    whole = [look() for look in looks]
    monkeypatch.setattr(attribution, "TOKENS", tokens)
    for look, expected in zip(looks, whole, strict=True):
        np.testing.assert_allclose(look(), expected, atol=1e-6)


def test_genes_are_ranked_by_the_mean_size_of_their_shares(cohort, transformer):
    found = integrated_gradients(transformer, cohort, baseline(), "OS", horizon=HORIZON)
    table = pd.DataFrame(found.values, found.samples, found.genes)
    ranking = found.ranking().set_index("gene")
    assert ranking["importance"].is_monotonic_decreasing
    expected = pd.DataFrame({"importance": table.abs().mean(), "mean": table.mean(), "sd": table.std()})
    pd.testing.assert_frame_equal(ranking, expected.loc[ranking.index], check_names=False)
    one = gradient_times_input(transformer, cohort.take(cohort.samples[:1]), baseline(), "Age").ranking()
    assert one["sd"].isna().all() and one["importance"].notna().all()


def test_network_and_random_state_stay_as_they_were(cohort, transformer):
    transformer.network.train()
    before, state = {k: v.clone() for k, v in transformer.network.state_dict().items()}, torch.get_rng_state()
    for look in (integrated_gradients, gradient_times_input):
        first, again = (look(transformer, cohort, baseline(), "OS", horizon=HORIZON).values for _ in range(2))
        np.testing.assert_array_equal(first, again)
    assert all(torch.equal(before[k], v) for k, v in transformer.network.state_dict().items())
    assert transformer.network.training
    assert torch.equal(state, torch.get_rng_state()) and all(p.grad is None for p in transformer.network.parameters())


@pytest.mark.parametrize(
    "options, words",
    [
        ({"task": "DM"}, "no task 'DM'; it has Age, Grade, OS"),
        ({"task": "Grade"}, "'Grade' has no answer None; output is one of G1, G2, G3"),
        ({"task": "Grade", "output": "G4"}, "'Grade' has no answer 'G4'"),
        ({"task": "Age", "output": "G1"}, "'Age' has no answer 'G1'; output is one of value"),
        ({"task": "OS"}, "needs a horizon above 0"),
        ({"task": "OS", "horizon": 1e9}, "needs a horizon above 0"),
        ({"baseline": np.zeros(3)}, r"each of the network's 8 genes.*shape \(3,\)"),
        ({"baseline": np.zeros((1, GENES))}, r"shape \(1, 8\)"),
        ({"baseline": np.full(GENES, np.nan)}, "that are not finite"),
    ],
)
@pytest.mark.parametrize("look", [integrated_gradients, gradient_times_input])
def test_bad_input_is_refused(cohort, preprocessor, look, options, words):
    few = preprocessor if options.get("task", "Age") != "Age" else preprocessor.with_tasks("Age")
    arguments = {"baseline": np.zeros(GENES), "task": "Age", "horizon": None, **options}
    with pytest.raises(ValueError, match=words):
        look(quadratic(few), cohort, **arguments)


def test_fewer_than_one_step_and_nobody_are_refused(cohort, transformer):
    with pytest.raises(ValueError, match="n_steps is 0"):
        integrated_gradients(transformer, cohort, baseline(), "OS", horizon=HORIZON, n_steps=0)
    with pytest.raises(ValueError, match="has no patient"):
        gradient_times_input(transformer, cohort.take([]), baseline(), "OS", horizon=HORIZON)


# --- shuffling ----------------------------------------------------------------------------------------------------


def test_shuffling_costs_a_linear_answer_its_slope_times_the_mean_gap_between_patients(cohort, preprocessor):
    few = preprocessor.with_tasks("Age")
    linear = np.linspace(0, 1, GENES)
    found = permutation_importance(quadratic(few, linear=linear), cohort, "Age", repeats=200).set_index("gene")
    x = few.expression(cohort)
    gaps = np.abs(x[:, None] - x).mean((0, 1))  # a random order puts any two patients together equally often
    expected = pd.Series(linear * gaps * few.scales["Age"][1], few.genes)
    np.testing.assert_allclose(found["importance"], expected[found.index], rtol=0.05, atol=1e-6)
    np.testing.assert_allclose(found["mean"], 0, atol=1e-6)  # of a linear answer: the same values, other patients
    assert found.loc[few.genes[0], "importance"] < 1e-6 and found.index[0] == expected.idxmax()


def test_it_is_a_loop_over_genes_and_repeats(cohort, transformer):
    found = permutation_importance(transformer, cohort, "OS", horizon=HORIZON, repeats=3, seed=7).set_index("gene")
    x = transformer.preprocessor.expression(cohort)
    old = np.broadcast_to(x.T, (3, *x.T.shape))
    drawn = np.random.default_rng(7).permuted(old, axis=2)
    before = answers(transformer, x, HORIZON)["OS", "risk"]
    for g, gene in enumerate(transformer.preprocessor.genes):
        changes = []
        for values in drawn[:, g]:
            other = x.copy()
            other[:, g] = values
            changes.append(answers(transformer, other, HORIZON)["OS", "risk"] - before)
        assert found.loc[gene, "importance"] == pytest.approx(np.abs(changes).mean(), abs=1e-6)
        assert found.loc[gene, "mean"] == pytest.approx(np.mean(changes), abs=1e-6)
        assert found.loc[gene, "sd"] == pytest.approx(np.abs(changes).mean(1).std(ddof=1), abs=1e-6)


def test_the_seed_decides_named_genes_are_enough_and_the_random_state_stays(cohort, transformer):
    state = np.random.get_state()[1].copy()
    options = dict(output="G1", genes=["GENE6", "GENE2"], repeats=1)
    first, again, other = (
        permutation_importance(transformer, cohort, "Grade", **options, seed=s, horizon=HORIZON) for s in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert not first["importance"].equals(other["importance"])
    assert set(first["gene"]) == {"GENE6", "GENE2"} and first["sd"].isna().all()
    assert (np.random.get_state()[1] == state).all()


def test_shuffling_needs_patients_repeats_and_a_known_answer(cohort, transformer):
    with pytest.raises(ValueError, match="not 0 and 30"):
        permutation_importance(transformer, cohort, "OS", horizon=HORIZON, repeats=0)
    with pytest.raises(ValueError, match="not 5 and 1"):
        permutation_importance(transformer, cohort.take(cohort.samples[:1]), "OS", horizon=HORIZON)
    with pytest.raises(ValueError, match="does not see 'CCL19'"):
        permutation_importance(transformer, cohort, "OS", horizon=HORIZON, genes=["CCL19"])
    with pytest.raises(ValueError, match="no task 'DM'"):
        permutation_importance(transformer, cohort, "DM", horizon=HORIZON)
    with pytest.raises(ValueError, match="needs a horizon"):
        permutation_importance(transformer, cohort, "OS")


# --- a trained network --------------------------------------------------------------------------------------------


def test_all_looks_find_the_planted_risk_genes():
    world = planted(n=600, n_genes=40, event_rate=0.7, main_effect=0.8, interaction=0.0, age_effect=0.0, seed=3)
    parts = split(world.cohort.with_tasks("OS"), seed=0)
    preprocessor = fit_preprocessor(parts.train, n_genes=40, n_times=8, grid="quantile")
    network = variant("value token", n_genes=40, outputs=preprocessor.outputs, width=8, layers=1, heads=2)
    trained = fit(network, parts.train, parts.validation, preprocessor, epochs=12, learning_rate=5e-3, progress=False)
    few, start = parts.test.take(parts.test.samples[:40]), preprocessor.expression(parts.train).mean(0)
    shares = integrated_gradients(trained, few, start, "OS", horizon=1500.0, n_steps=30)
    slopes = gradient_times_input(trained, few, start, "OS", horizon=1500.0)
    shuffled = permutation_importance(trained, few, "OS", horizon=1500.0, repeats=2)
    moved = ranked_genes(perturb(trained, few, [0.5], 1500.0).table(), "OS", 0.5)
    moved = moved.assign(importance=moved["mean"].abs())
    risky = list(world.truth.coefficients.index)
    decoys = [gene for gene in world.truth.decoys if gene in preprocessor.genes]
    for table in (shares.ranking(), slopes.ranking(), shuffled, moved):
        importance = table.set_index("gene")["importance"]
        assert importance[risky].mean() > 2 * importance[decoys].mean() and len(decoys) > 5
    assert np.abs(shares.gap).mean() < np.abs(slopes.gap).mean() / 5

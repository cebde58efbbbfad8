"""The AutoSurv-like network: each formula against a slow twin, both stages on planted patients."""

import inspect
import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import c_interval, relabelled, with_permuted_outcomes
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.duration.hazard_regression import PHReg
from torch import distributions, nn

from txtlib.cohort import CohortError, split
from txtlib.metrics import harrell_c, integrated_brier
from txtlib.peers import autosurv
from txtlib.peers.autosurv import (
    SPACE,
    AutoSurv,
    MaskedLinear,
    PathwayVAE,
    beta,
    cox_loss,
    fit_head,
    fit_vae,
    head,
    pathways,
    vae_loss,
)
from txtlib.peers.floors import trivial
from txtlib.planted import planted
from txtlib.preprocess import fit_preprocessor

SMALL = {"n_genes": 60, "smallest": 3, "latent": 4, "vae_epochs": 6, "cycles": 2, "epochs": 1}


@pytest.fixture(scope="module")
def world():
    return planted(n=400, n_genes=200, event_rate=0.5, main_effect=1.0, interaction=0.0, age_effect=0.0)


@pytest.fixture(scope="module")
def parts(world):
    return split(world.cohort, seed=0)


@pytest.fixture(scope="module")
def fitted(world, parts):
    return AutoSurv(gene_sets=world.modules).fit(parts.train, parts.validation)


@pytest.fixture(scope="module")
def answer(fitted, parts):
    return fitted.predict(parts.test)


@pytest.fixture
def mask():
    return torch.from_numpy((np.random.default_rng(0).random((5, 12)) < 0.4).astype(np.float32))


def short(world, parts, train=None, validation=None, **settings):
    """Fit for one epoch, which is the best one whatever the validation part says."""
    method = AutoSurv(gene_sets=world.modules, **{**SMALL, **settings})
    return method.fit(train or parts.train, validation or parts.validation)


def same(first, second, *tasks):
    """Say whether two answers are bit for bit the same, on the named tasks only if there are any."""
    values = [name for name in first.values if not tasks or name in tasks]
    shares = [name for name in first.probabilities if not tasks or name in tasks]
    curves = not tasks or "OS" in tasks
    return (
        all(np.array_equal(first.values[name], second.values[name]) for name in values)
        and all(first.probabilities[name].equals(second.probabilities[name]) for name in shares)
        and (not curves or np.array_equal(first.survival, second.survival))
    )


# --- stage 1 ----------------------------------------------------------------------------------------------------


def test_masked_weights_are_0_and_stay_0_under_momentum_and_weight_decay(mask):
    torch.manual_seed(0)
    vae, x = PathwayVAE(mask, 3), torch.rand(40, 12)
    layers = [module for module in vae.modules() if isinstance(module, MaskedLinear)]
    assert [tuple(layer.mask.shape) for layer in layers] == [(5, 12), (12, 5)]
    before = [layer.linear.weight.detach().clone() for layer in layers]
    fit_vae(vae, x, [1.0] * 30, lr=0.05, weight_decay=0.1)
    for layer, start, allowed in zip(layers, before, (mask, mask.T), strict=True):
        assert (layer.linear.weight[allowed == 0] == 0).all() and (start[allowed == 0] == 0).all()
        assert (layer.linear.weight[allowed == 1] != start[allowed == 1]).all()


def test_a_masked_layer_sees_its_own_inputs_only(mask):
    torch.manual_seed(0)
    layer, x = MaskedLinear(mask), torch.rand(3, 12)
    nn.init.normal_(layer.linear.weight)  # even if something else has filled them in
    weight, bias = layer.linear.weight.detach(), layer.linear.bias.detach()
    expected = bias.repeat(3, 1)
    for output, column in mask.nonzero().tolist():
        expected[:, output] += weight[output, column] * x[:, column]
    torch.testing.assert_close(layer(x).detach(), expected)


def test_the_code_is_drawn_around_its_mean_and_training_rebuilds_expression(mask):
    torch.manual_seed(0)
    vae, x = PathwayVAE(mask, 3), torch.rand(60, 2) @ torch.rand(2, 12) / 2
    logits, mean, log_variance = vae(x)
    assert logits.shape == (60, 12) and mean.shape == log_variance.shape == (60, 3)
    assert not torch.equal(vae(x)[0], logits)  # another draw
    torch.testing.assert_close(mean.mean(0), torch.zeros(3), atol=1e-5, rtol=0)  # its batch norm
    before = vae_loss(x, *vae(x), 1.0)
    fit_vae(vae, x, [1.0] * 100, lr=0.01)
    assert vae_loss(x, *vae(x), 1.0) < 0.95 * before
    torch.testing.assert_close(vae.eval().encode(x), vae(x)[1])


def test_codes_have_the_mean_and_the_variance_that_the_encoder_says(mask):
    torch.manual_seed(0)
    vae = PathwayVAE(mask, 3).eval()
    vae.decoder, vae.log_variance[1].bias = nn.Identity(), nn.Parameter(torch.tensor([-2.0, 0.0, 2.0]))
    with torch.no_grad():
        codes, mean, log_variance = vae(torch.rand(1, 12).repeat(20000, 1))
    assert log_variance[0].max() - log_variance[0].min() > 2
    torch.testing.assert_close(codes.std(0), log_variance[0].exp().sqrt(), rtol=0.03, atol=0)
    torch.testing.assert_close((codes - mean).mean(0), torch.zeros(3), rtol=0, atol=0.06)


def test_the_loss_is_cross_entropy_and_divergence_from_the_standard_normal():
    torch.manual_seed(0)
    x, logits, mean, log_variance = torch.rand(7, 5), torch.randn(7, 5), torch.randn(7, 3), torch.randn(7, 3)
    code = distributions.Normal(mean, (log_variance / 2).exp())
    divergence = distributions.kl_divergence(code, distributions.Normal(0.0, 1.0)).sum(1)
    p = torch.sigmoid(logits)
    reconstruction = -(x * p.log() + (1 - x) * (1 - p).log()).sum(1)
    for weight in (0.0, 0.3, 1.0):
        expected = (reconstruction + weight * divergence).mean()
        torch.testing.assert_close(vae_loss(x, logits, mean, log_variance, weight), expected)


def test_the_weight_of_the_divergence_by_hand():
    found = [beta(epoch, 20, 2, 0.5) for epoch in range(20)]
    cycle = [0.1, 0.28, 0.46, 0.64, 0.82, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert found == pytest.approx(2 * cycle)


@given(length=st.integers(1, 40), cycles=st.integers(1, 10), ratio=st.floats(0.05, 1.0))
def test_each_cycle_begins_at_a_tenth_and_rises_to_1(length, cycles, ratio):
    weights = np.array([beta(epoch, length * cycles, cycles, ratio) for epoch in range(length * cycles)])
    weights = weights.reshape(cycles, length)
    assert (weights[:, 0] == 0.1).all() and (np.diff(weights, axis=1) >= 0).all() and weights.max() <= 1
    late = np.arange(length) / length >= ratio
    assert (weights[:, late] >= 1 - 1e-12).all()


def test_pathways_are_the_sets_that_are_large_enough(parts):
    whole = fit_preprocessor(parts.train, n_genes=30)
    genes = list(whole.genes)
    sets = {"A": [*genes[3:9], "UNKNOWN"], "B": genes[:2], "C": [genes[20], *genes[6:10]], "D": ["UNKNOWN"]}
    cut, mask = pathways(whole, sets, smallest=5)
    kept = [gene for gene in genes if gene in sets["A"] or gene in sets["C"]]
    assert list(cut.genes) == kept
    assert mask.tolist() == [[float(gene in sets[name]) for gene in kept] for name in ("A", "C")]
    columns = [genes.index(gene) for gene in kept]
    np.testing.assert_array_equal(cut.expression(parts.test), whole.expression(parts.test)[:, columns])
    with pytest.raises(CohortError, match="None of the 4 gene sets has 7 or more of the 30 chosen genes"):
        pathways(whole, sets, smallest=7)


# --- stage 2 ----------------------------------------------------------------------------------------------------


def tied_patients(n=60):
    rng = np.random.default_rng(0)
    time, event = rng.integers(1, 15, n).astype(float), (rng.random(n) < 0.6).astype(float)
    return rng.normal(size=n), time, event


def test_the_cox_loss_is_efrons_partial_likelihood():
    x, time, event = tied_patients()
    for slope in (0.0, 0.5, -1.3):
        expected = -PHReg(time, x[:, None], event, ties="efron").loglike(np.array([slope])) / event.sum()
        outputs = torch.tensor(slope * x, dtype=torch.float32)[:, None]
        found = cox_loss(outputs, torch.from_numpy(time), torch.from_numpy(event))
        assert found.item() == pytest.approx(expected, rel=1e-5)
        shifted = cox_loss(outputs + 200, torch.from_numpy(time), torch.from_numpy(event))  # exp(200) overflows
        assert shifted.item() == pytest.approx(expected, rel=1e-3)


def test_the_cox_loss_without_ties_is_coxs():
    x, _, event = tied_patients(12)
    time = np.arange(12.0)[::-1].copy()
    at_risk = [np.exp(x[time >= moment]).sum() for moment in time]
    expected = -np.mean([x[i] - np.log(at_risk[i]) for i in np.flatnonzero(event)])
    found = cox_loss(torch.tensor(x)[:, None].float(), torch.from_numpy(time), torch.from_numpy(event))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_a_head_is_batch_norm_linear_tanh_dropout_batch_norm_linear():
    torch.manual_seed(0)
    network = head(3, 4, 2, 0.5, bias=False)
    nn.init.normal_(network[1].weight)
    code = torch.randn(20, 3)
    first, last = network[1], network[-1]
    assert last.weight.abs().max() <= 0.001 and last.bias is None and head(3, 4, 2, 0.5, bias=True)[-1].bias is not None
    normal = (code - code.mean(0)) / (code.var(0, unbiased=False) + 1e-5).sqrt()
    hidden = torch.tanh(normal @ first.weight.T + first.bias)
    expected = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt() @ last.weight.T
    network[3].p = 0.0
    torch.testing.assert_close(network(code), expected)


def test_the_best_epoch_is_kept_and_patience_ends_the_search():
    torch.manual_seed(0)
    network, seen = head(3, 4, 1, 0.2, bias=True), []

    def loss(outputs, target):
        value = autosurv.squared_error(outputs, target)
        if not torch.is_grad_enabled():
            seen.append(value.item())
        return value

    known, held_out = ((torch.randn(n, 3), torch.randn(n)) for n in (40, 10))  # nothing to learn
    fit_head(network, loss, known, held_out, 500, 7, lr=0.05, weight_decay=0.0)
    assert len(seen) == np.argmin(seen) + 1 + 7 < 500
    with torch.no_grad():
        assert loss(network.eval()(held_out[0]), held_out[1]).item() == pytest.approx(min(seen))


# --- both -------------------------------------------------------------------------------------------------------


def test_it_beats_the_same_answer_for_everybody_on_each_kind_of_task(parts, answer):
    floor = trivial().fit(parts.train).predict(parts.test)
    horizon = float(np.median(parts.train.outcome()[0]))
    assert c_interval(parts.test, answer.risk(horizon))[0] > 0.5
    ours, constant = (
        integrated_brier(parts.train.outcome(), parts.test.outcome(), one.survival, one.edges, horizon)
        for one in (answer, floor)
    )
    assert ours < constant
    errors = [np.nanmean(np.abs(parts.test.clinical["Age"] - one.values["Age"])) for one in (answer, floor)]
    assert errors[0] < 0.95 * errors[1]  # of tumour size hardly anything is to be seen in these genes
    for name, shares in answer.probabilities.items():
        hits = [one.idxmax(axis=1) == parts.test.clinical[name] for one in (shares, floor.probabilities[name])]
        assert hits[0].mean() > hits[1].mean() + 0.05


def test_answers_are_complete_and_in_order(fitted, parts, answer):
    assert list(answer.samples) == list(parts.test.samples) and not answer.calibrated
    assert set(answer.values) == {"Age", "Size"} and set(answer.probabilities) == {"NHG", "PAM50"}
    for name, shares in answer.probabilities.items():
        assert list(shares.columns) == parts.train.about["classes"][name] and shares.index.equals(parts.test.samples)
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-12)
    assert answer.survival.shape == (len(parts.test), len(answer.edges))
    assert (
        np.diff(answer.survival, axis=1) <= 1e-12
    ).all() and 0 <= answer.survival.min() <= answer.survival.max() <= 1
    own = fitted.predict(parts.train)
    time, event = parts.train.outcome()
    hazard = -np.log(own.survival[np.arange(len(time)), np.searchsorted(own.edges, time)])
    assert hazard.sum() == pytest.approx(event.sum())  # what Breslow's estimate solves


def test_patients_without_labels_are_answered_one_by_one(fitted, parts, answer):
    bare = replace(parts.test, clinical=pd.DataFrame(index=parts.test.samples), tasks=())
    assert same(fitted.predict(bare), answer)
    one = fitted.predict(bare.take(bare.samples[[7]]))
    np.testing.assert_allclose(one.survival[0], answer.survival[7], atol=1e-5)
    assert one.values["Age"][0] == pytest.approx(answer.values["Age"][7], rel=1e-5)


def test_with_outcomes_that_belong_to_others_it_finds_nothing(world):
    parts = split(with_permuted_outcomes(world.cohort).with_tasks("OS"), seed=0)
    answer = AutoSurv(gene_sets=world.modules, vae_epochs=100).fit(parts.train, parts.validation).predict(parts.test)
    low, high = c_interval(parts.test, answer.risk(np.median(parts.train.outcome()[0])))
    assert low < 0.5 < high


def test_tasks_share_the_first_stage_and_nothing_else(world, parts, monkeypatch):
    def count(*arguments, **optimizer):
        fits.append(1)
        return whole(*arguments, **optimizer)

    fits, whole = [], autosurv.fit_vae
    monkeypatch.setattr(autosurv, "fit_vae", count)
    everything = short(world, parts, epochs=3).predict(parts.test)
    assert len(fits) == 1
    for name in ("OS", "PAM50", "Size"):
        alone = short(world, parts, parts.train.with_tasks(name), parts.validation.with_tasks(name), epochs=3)
        alone = alone.predict(parts.test)
        assert len({*alone.values, *alone.probabilities}) == (name != "OS")
        assert (alone.survival is not None) == (name == "OS")
        assert same(alone, everything, name)


def test_the_seed_decides_and_leaves_no_trace(world, parts):
    before = torch.random.get_rng_state(), np.random.get_state()[1], random.getstate()
    first = short(world, parts, epochs=2).predict(parts.test)
    after = torch.random.get_rng_state(), np.random.get_state()[1], random.getstate()
    assert torch.equal(before[0], after[0]) and np.array_equal(before[1], after[1]) and before[2] == after[2]
    torch.rand(3)
    assert same(short(world, parts, epochs=2).predict(parts.test), first)
    one, two = (short(world, parts, seed=seed) for seed in (0, 1))
    assert not torch.equal(one.vae.mean[0].weight, two.vae.mean[0].weight)
    other = short(world, parts, epochs=2, seed=1).predict(parts.test)
    assert not same(other, first, "OS") and not same(other, first, "Age") and not same(other, first, "NHG")


def test_a_missing_label_leaves_the_patients_other_labels_in_use(world, parts):
    clinical = parts.train.clinical
    gone = np.arange(len(clinical)) % 3 == 0
    without = relabelled(parts.train, Age=clinical["Age"].mask(gone), NHG=clinical["NHG"].mask(gone))
    first, second = short(world, parts).predict(parts.test), short(world, parts, without).predict(parts.test)
    assert same(first, second, "OS", "PAM50", "Size")
    assert not same(first, second, "Age") and not same(first, second, "NHG")
    half = relabelled(parts.train, OS_event=clinical["OS_event"].mask(gone))
    moved = relabelled(half, OS_duration=clinical["OS_duration"].mask(gone, 1e6))
    first, second = short(world, parts, half).predict(parts.test), short(world, parts, moved).predict(parts.test)
    assert same(first, second)


def test_a_target_in_another_unit_is_answered_in_it(world, parts):
    train, validation = (relabelled(part, Age=12 * part.clinical["Age"]) for part in (parts.train, parts.validation))
    years = short(world, parts, epochs=30).predict(parts.test)
    months = short(world, parts, train, validation, epochs=30).predict(parts.test)
    np.testing.assert_allclose(months.values["Age"], 12 * years.values["Age"], rtol=1e-3)
    assert same(months, years, "OS", "PAM50", "NHG", "Size")


def test_validation_labels_choose_the_epoch_and_nothing_else(world, parts):
    shuffled = parts.validation.clinical.sample(frac=1, random_state=0).set_index(parts.validation.samples)
    other = replace(parts.validation, clinical=shuffled)
    first = short(world, parts)
    assert same(first.predict(parts.test), short(world, parts, validation=other).predict(parts.test))
    noise = replace(
        other,
        expression=other.expression.sample(frac=1, axis=1, random_state=0).set_axis(other.expression.columns, axis=1),
    )
    second = short(world, parts, validation=noise)
    assert first.preprocessor.genes == second.preprocessor.genes
    np.testing.assert_array_equal(first.preprocessor.table, second.preprocessor.table)
    assert all(torch.equal(a, b) for a, b in zip(first.vae.parameters(), second.vae.parameters(), strict=True))


# --- clinical columns beside the code -----------------------------------------------------------------------------


def with_columns(parts):
    """Give the parts two columns that are no labels: a stage that decides survival, and noise with gaps."""
    found = []
    for seed, part in enumerate(parts):
        rng, event = np.random.default_rng(seed), part.outcome()[1]
        stage = np.where(event == 1, "III", rng.choice(["I", "II"], len(part)))
        share = rng.random(len(part))
        found.append(relabelled(part, Stage=stage, Ki67=np.where(rng.random(len(part)) < 0.2, np.nan, share)))
    return parts._replace(**dict(zip(parts._fields, found, strict=True)))


@pytest.fixture(scope="module")
def staged(parts):
    return with_columns(parts)


def test_clinical_columns_tell_survival_and_no_other_task(world, staged):
    plain, both = (
        short(world, staged, epochs=100, clinical=clinical).predict(staged.test) for clinical in ((), ["Stage", "Ki67"])
    )
    assert same(plain, both, "Age", "Size", "NHG", "PAM50")
    c_plain, c_both = (harrell_c(staged.test.outcome(), one.risk(1500.0)) for one in (plain, both))
    assert c_both > c_plain + 0.1
    moved = relabelled(staged.test, Stage=staged.test.clinical["Stage"].map({"I": "III", "II": "III", "III": "I"}))
    fitted = short(world, staged, epochs=100, clinical=["Stage"])
    first, second = fitted.predict(staged.test), fitted.predict(moved)
    late = (staged.test.clinical["Stage"] == "III").to_numpy()
    assert (first.risk(1500.0) > second.risk(1500.0))[late].all()
    assert (first.risk(1500.0) < second.risk(1500.0))[~late].all()


def test_without_clinical_columns_the_clinical_table_is_not_read(world, staged):
    fitted = short(world, staged, epochs=2)
    assert fitted.design.width == 0
    bare = replace(staged.test, clinical=staged.test.clinical[[]], tasks=())
    assert same(fitted.predict(bare), fitted.predict(staged.test))


def test_an_unseen_class_and_a_missing_value_are_answered(world, staged):
    fitted = short(world, staged, epochs=5, clinical=["Stage", "Ki67"])
    unseen = relabelled(staged.test, Stage="IV")
    missing = relabelled(staged.test, Stage=None)
    first, second = fitted.predict(unseen).survival, fitted.predict(missing).survival
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)
    mean = staged.train.clinical["Ki67"].mean()
    gone, filled = (relabelled(staged.test, Ki67=value) for value in (np.nan, mean))
    np.testing.assert_allclose(fitted.predict(gone).survival, fitted.predict(filled).survival, atol=1e-6)


def test_a_clinical_column_that_is_not_there_is_named(world, staged):
    with pytest.raises(CohortError, match="no column 'Menopause'"):
        short(world, staged, clinical=["Menopause"])
    fitted = short(world, staged, clinical=["Stage"])
    with pytest.raises(CohortError, match="no column 'Stage'"):
        fitted.predict(replace(staged.test, clinical=staged.test.clinical.drop(columns="Stage")))


def test_clinical_columns_stand_beside_the_normalised_code():
    torch.manual_seed(0)
    network, x = head(3, 4, 1, 0.5, bias=False, clinical=2), torch.randn(20, 5) * 7 + 1
    assert network[1].weight.shape == (4, 5)
    code = (x[:, :3] - x[:, :3].mean(0)) / (x[:, :3].var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(network[0](x), torch.cat([code, x[:, 3:]], 1))


# --- settings and bad input -------------------------------------------------------------------------------------


def test_settings_reach_their_places(world, parts):
    method = short(
        world, parts, n_genes=100, scaler="rank", latent=6, hidden=9, dropout=0.2, cycles=3, ratio=0.9, vae_epochs=9
    )
    assert method.preprocessor.scaler == "rank"
    listed = set().union(*world.modules.values())
    assert set(method.preprocessor.genes) <= listed and len(method.preprocessor.genes) <= 100
    assert method.betas == [beta(epoch, 9, 3, 0.9) for epoch in range(9)]
    network = method.heads["PAM50"]
    assert network[1].weight.shape == (9, 6) and network[3].p == 0.2 and network[-1].weight.shape == (5, 9)
    assert method.heads["OS"][-1].bias is None and method.heads["Age"][-1].bias is not None
    method = AutoSurv(
        gene_sets={"A": ["a"]}, vae_learning_rate=0.1, vae_weight_decay=0.2, learning_rate=0.3, weight_decay=0.4
    )
    assert method.vae_optimizer == {"lr": 0.1, "weight_decay": 0.2}
    assert method.optimizer == {"lr": 0.3, "weight_decay": 0.4}


def test_what_tuning_may_try_is_allowed_and_starts_with_the_default(world):
    known = inspect.signature(AutoSurv).parameters
    for name, values in SPACE.items():
        assert values[0] == known[name].default and 3 <= len(set(values)) == len(values) <= 5
        assert all(AutoSurv(gene_sets=world.modules, **{name: value}) for value in values)


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"gene_sets": None}, "give gene_sets, a table"),
        ({"gene_sets": {}}, "give gene_sets, a table"),
        ({"scaler": "standard"}, "scaler is minmax or rank, not standard"),
        ({"ratio": 0.0}, "ratio is 0.0; give a share"),
        ({"ratio": 1.5}, "ratio is 1.5; give a share"),
        ({"latent": 0}, "latent is 0; give 1 or more"),
        ({"vae_epochs": 0}, "vae_epochs is 0; give 1 or more"),
        ({"patience": 0}, "patience is 0; give 1 or more"),
        ({"smallest": 0}, "smallest is 0; give 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        AutoSurv(**{"gene_sets": {"A": ["a"]}, **settings})


def test_gene_sets_of_other_names_are_refused_in_one_sentence(parts):
    with pytest.raises(CohortError, match="No gene varies in the training part among the 0"):
        AutoSurv(gene_sets={"A": ["TP53", "ESR1"]}).fit(parts.train, parts.validation)
    few = {"A": list(parts.train.expression.columns[:3])}
    with pytest.raises(CohortError, match="None of the 1 gene sets has 5 or more of the 3 chosen genes"):
        AutoSurv(gene_sets=few).fit(parts.train, parts.validation)


def test_a_part_without_labels_is_refused_in_one_sentence(world, parts):
    no_event = relabelled(parts.validation, OS_event=0.0)
    no_age = relabelled(parts.validation, Age=np.nan)
    one_grade = relabelled(parts.train, NHG=parts.train.clinical["NHG"].where(np.arange(len(parts.train)) == 3))
    for train, validation, task in ((None, no_event, "OS"), (None, no_age, "Age"), (one_grade, None, "NHG")):
        with pytest.raises(CohortError, match=f"too few labels or no event of '{task}'"):
            short(world, parts, train, validation)

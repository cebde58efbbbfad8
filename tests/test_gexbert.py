from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from txtlib.checkpoint import write
from txtlib.cohort import CohortError, load_cohort, split
from txtlib.pretrain.gexbert import Restoring, fit_gexbert, load_gexbert, principal_axes, restoration_loss
from txtlib.pretrain.imputers import Pattern, error_draws
from txtlib.pretrain.transfer import transferred

SMALL = dict(n_genes=24, inputs=(4, 20), targets=12, width=16, layers=1, heads=2)
TRAINING = dict(epochs=3, batch_size=64, learning_rate=5e-3, device="cpu", progress=False)


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("planted"), 0)


@pytest.fixture(scope="module")
def model(parts):
    return fit_gexbert(parts.train, parts.validation, **SMALL, **TRAINING)


@pytest.fixture(scope="module")
def correlated():
    """A cohort of two axes, three parts: what one gene tells of another is plain."""
    drawn = np.random.default_rng(0)
    weights = drawn.normal(size=(2, 12))
    x = drawn.normal(size=(400, 2)) @ weights + 0.2 * drawn.normal(size=(400, 12))
    base = load_cohort("planted")
    table = pd.DataFrame(x.astype(np.float32), base.samples[:400], [f"g{gene}" for gene in range(12)])
    return split(replace(base.take(table.index), expression=table), 0)


def network(genes=10, seed=0):
    return Restoring(genes, width=8, layers=2, heads=2, seed=seed).eval()


def weights(model):
    return model.network.state_dict()


def assert_same(a, b):
    assert all(torch.equal(value, weights(b)[name]) for name, value in weights(a).items())
    np.testing.assert_array_equal(a.mean, b.mean)
    np.testing.assert_array_equal(a.spread, b.spread)
    assert a.genes == b.genes


# --- the network ----------------------------------------------------------------------------------------------


def test_the_order_of_the_genes_shown_means_nothing():
    codes, x, asked = torch.tensor([[1, 4, 7, 2]]), torch.randn(1, 4), torch.tensor([[0, 9]])
    order = torch.tensor([2, 0, 3, 1])
    plain, shuffled = network()(codes, x, asked), network()(codes[:, order], x[:, order], asked)
    torch.testing.assert_close(plain, shuffled)
    memory, other = network().encode(codes, x), network().encode(codes[:, order], x[:, order])
    torch.testing.assert_close(memory[:, 0], other[:, 0])
    torch.testing.assert_close(memory[:, 1:][:, order], other[:, 1:])


def test_genes_asked_for_do_not_see_each_other():
    codes, x = torch.tensor([[1, 4, 7]]), torch.randn(1, 3)
    both, one = network()(codes, x, torch.tensor([[0, 9]])), network()(codes, x, torch.tensor([[9]]))
    torch.testing.assert_close(both[:, 1:], one)


def test_what_is_hidden_is_as_good_as_absent():
    codes, x, asked = torch.tensor([[1, 4, 7]]), torch.randn(1, 3), torch.tensor([[0, 9]])
    hidden = torch.tensor([[False, False, True]])
    torch.testing.assert_close(network()(codes, x, asked, hidden), network()(codes[:, :2], x[:, :2], asked))


def test_values_and_identities_both_matter():
    codes, x, asked = torch.tensor([[1, 4, 7]]), torch.randn(1, 3), torch.tensor([[0]])
    first = network()(codes, x, asked)
    assert not torch.allclose(first, network()(codes, x + 1, asked))
    assert not torch.allclose(first, network()(torch.tensor([[1, 4, 8]]), x, asked))
    assert not torch.allclose(first, network()(codes, x, torch.tensor([[2]])))


def test_asking_weights_are_those_of_the_decoder():
    made = network()
    codes, x, asked = torch.tensor([[1, 4, 7]]), torch.randn(1, 3), torch.tensor([[0, 9]])
    memory = made.encode(codes, x)
    found = made.asking(asked, memory)
    assert found.shape == (1, 2, 2, 4)
    torch.testing.assert_close(found.sum(-1), torch.ones(1, 2, 2))
    q, k, v = made.decoder._project(made._queries(asked, memory), memory)
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(found @ v, mixed)


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match="not a multiple of heads"):
        Restoring(5, width=10, heads=4)


def test_seeds_choose_the_first_weights_and_leave_the_global_state_alone():
    before = torch.get_rng_state()
    first, second, other = (Restoring(5, 8, 1, 2, seed).genes for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


# --- pretraining ----------------------------------------------------------------------------------------------


def test_the_loss_asks_only_for_values_that_are_there_and_were_not_shown():
    x = torch.randn(6, 10)
    x[:, 8:] = torch.nan
    seen, questions = [], []

    class Spy:
        def encode(self, genes, given, hidden):
            seen.append((genes, given, hidden))
            return torch.zeros(6, 1 + genes.shape[1], 4)

        def decode(self, asked, memory, hidden=None):
            questions.append((asked, memory.shape[1]))
            return torch.zeros(asked.shape)

    drawn = torch.Generator().manual_seed(0)
    loss = restoration_loss({"train": x}, (2, 6), 20)(Spy(), "train", torch.arange(6), drawn)
    ((genes, given, hidden),) = seen
    (asked, places), (again, alone) = questions
    assert places == 1 + genes.shape[1] and alone == 1 and torch.equal(asked, again)  # then of the summary alone
    assert hidden is None and not given.isnan().any()
    there = asked < 8
    assert loss.item() == pytest.approx(x.gather(1, asked)[there].square().mean().item())
    assert all(not set(a) & set(b) for a, b in zip(genes.tolist(), asked.tolist(), strict=True))


def test_training_restores_what_a_line_would(correlated):
    options = dict(n_genes=12, inputs=(3, 10), targets=9, width=16, layers=1, heads=2)
    training = TRAINING | dict(epochs=40, batch_size=32)
    trained = fit_gexbert(correlated.train, correlated.validation, **options, **training)
    x = trained.standardised(correlated.test).astype(float)
    hidden = Pattern(0.4).hide(x)
    told = {"model": trained.impute(np.where(hidden, np.nan, x)), "mean": np.zeros_like(x)}
    errors = error_draws(told, x, hidden, np.zeros((0, len(x)))).loc[0]
    assert errors["model"] < 0.6 * errors["mean"]


def test_two_runs_agree_bit_for_bit_and_another_seed_does_not(parts, model):
    again = fit_gexbert(parts.train, parts.validation, **SMALL, **TRAINING)
    assert_same(model, again)
    other = fit_gexbert(parts.train, parts.validation, **SMALL, **TRAINING, seed=1)
    assert not torch.equal(weights(model)["summary"], weights(other)["summary"])


def test_nothing_of_the_test_part_and_no_label_is_learned(parts, model):
    noise = np.random.default_rng(0).normal(size=parts.test.expression.shape)
    whole = load_cohort("planted")
    table = whole.expression.copy()
    table.loc[parts.test.samples] = noise.astype(np.float32)
    clinical = whole.clinical.copy()
    clinical.loc[parts.test.samples] = np.nan
    other = replace(whole, expression=table, clinical=clinical)
    again = (other.take(part.samples) for part in (parts.train, parts.validation))
    unlabelled = (replace(part, tasks=()) for part in again)
    assert_same(model, fit_gexbert(*unlabelled, **SMALL, **TRAINING))


def test_genes_and_scale_are_those_of_the_training_part(parts, model):
    table = parts.train.expression[list(model.genes)].to_numpy(float)
    np.testing.assert_allclose(model.mean, table.mean(0))
    np.testing.assert_allclose(model.spread, table.std(0))
    varied = parts.train.expression.var().sort_values(ascending=False)
    assert set(model.genes) == set(varied.index[:24])


def test_a_patient_in_two_parts_is_refused(parts):
    with pytest.raises(CohortError, match="held out"):
        fit_gexbert(parts.train, parts.train.take(parts.train.samples[:20]), **SMALL, **TRAINING)


def test_a_paired_normal_of_a_held_out_patient_is_refused(parts):
    barcodes = [f"TCGA-AA-{row:04d}-11A" for row in range(len(parts.train))]
    normals = replace(
        parts.train,
        expression=parts.train.expression.set_axis(barcodes),
        clinical=parts.train.clinical.set_axis(barcodes),
        about={},
    )
    tumours = [name.replace("-11A", "-01A") for name in barcodes[:30]]
    validation = replace(
        normals.take(barcodes[:30]),
        expression=normals.expression.iloc[:30].set_axis(tumours),
        clinical=normals.clinical.iloc[:30].set_axis(tumours),
    )
    with pytest.raises(CohortError, match="held out"):
        fit_gexbert(normals, validation, **SMALL, **TRAINING)


def test_no_epochs_leave_the_first_weights(parts):
    floor = fit_gexbert(parts.train, parts.validation, **SMALL, epochs=0)
    assert floor.history.empty and np.isfinite(floor.embed(parts.test)).all(axis=None)


def test_axes_are_the_principal_ones():
    drawn = np.random.default_rng(0)
    x = drawn.normal(size=(80, 3)) @ drawn.normal(size=(3, 9)) + 0.01 * drawn.normal(size=(80, 9))
    found = principal_axes(x, 6, seed=0)
    assert found.shape == (9, 6) and found.std() == pytest.approx(1, abs=0.01)
    x[3, 4] = np.nan
    assert np.isfinite(principal_axes(x, 20, seed=0)).all()  # more columns than axes
    spectrum = np.linalg.svd(found, compute_uv=False)
    assert spectrum[3] < 0.3 * spectrum[2]


# --- its answers ----------------------------------------------------------------------------------------------


def test_restoring_keeps_what_is_there_and_tells_what_is_not(parts, model):
    gone, kept = list(model.genes[:5]), list(model.genes[5:8])
    panel = replace(parts.test, expression=parts.test.expression.drop(columns=gone))
    found = model.restore(panel, gone + kept)
    assert list(found) == gone + kept and found.index.equals(parts.test.samples)
    np.testing.assert_allclose(found[kept], parts.test.expression[kept], rtol=1e-5)
    assert np.isfinite(found).all(axis=None) and (found[gone].std() > 0).all()
    assert found[gone].mean().sub(parts.train.expression[gone].mean()).abs().max() < 2  # in the cohort's unit


def test_a_missing_value_is_restored_from_the_patients_own_genes(parts, model):
    table = parts.test.expression.copy()
    table.iloc[3, table.columns.get_loc(model.genes[0])] = np.nan
    found = model.restore(replace(parts.test, expression=table))
    assert np.isfinite(found).all(axis=None)
    one = replace(parts.test, expression=table.iloc[[3]], clinical=parts.test.clinical.iloc[[3]])
    np.testing.assert_allclose(model.restore(one), found.iloc[[3]], rtol=1e-4)


def test_values_do_not_depend_on_other_patients_or_on_columns(parts, model):
    whole = model.embed(parts.test)
    few = parts.test.take(parts.test.samples[5:8])
    turned = replace(few, expression=few.expression.iloc[:, ::-1])
    np.testing.assert_allclose(model.embed(turned), whole.iloc[5:8], rtol=1e-4, atol=1e-5)


def test_unknown_genes_are_refused(parts, model):
    with pytest.raises(CohortError, match="does not know 1 of the 2"):
        model.restore(parts.test, [model.genes[0], "NOGENE"])
    foreign = replace(parts.test, expression=parts.test.expression.add_prefix("x"))
    with pytest.raises(CohortError, match="none of the 24 genes"):
        model.embed(foreign)


def test_a_saved_model_comes_back(parts, model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    again = load_gexbert(tmp_path / "model.safetensors")
    assert_same(model, again)
    pd.testing.assert_frame_equal(model.embed(parts.test), again.embed(parts.test))
    assert again.history.equals(model.history)
    write(tmp_path / "other", "something", {}, {})
    with pytest.raises(ValueError, match="not a GexBERT-like model"):
        load_gexbert(tmp_path / "other")


# --- under TxT's heads ----------------------------------------------------------------------------------------


def test_an_encoder_for_some_genes_is_the_model_on_these(parts, model):
    genes = [model.genes[5], model.genes[2], model.genes[9]]
    seen = replace(parts.test, expression=parts.test.expression[genes])
    x = model.standardised(seen)[:, [5, 2, 9]]
    found = model.encoder(genes).eval().encode(torch.from_numpy(x))
    np.testing.assert_allclose(found.detach(), model.embed(seen), rtol=1e-4, atol=1e-5)


def test_a_transferred_encoder_learns_all_tasks_and_the_model_stays_as_it_was(parts, model, tmp_path):
    before = {name: value.clone() for name, value in weights(model).items()}
    method = transferred(model, n_times=5, epochs=2, batch_size=64, learning_rate=1e-3).fit(*parts[:2])
    answer = method.predict(parts.test)
    assert answer.survival.shape[0] == len(parts.test) and set(answer.probabilities) | set(answer.values)
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())
    assert set(method.trained.preprocessor.genes) == set(model.genes)
    model.save(tmp_path / "model")
    again = transferred(str(tmp_path / "model"), n_times=5, epochs=2, batch_size=64, learning_rate=1e-3)
    np.testing.assert_array_equal(again.fit(*parts[:2]).predict(parts.test).survival, answer.survival)


def test_a_cohort_with_some_of_the_genes_will_do(parts, model):
    panel = [replace(part, expression=part.expression[list(model.genes[:10])]) for part in parts]
    method = transferred(model, tasks=["PAM50"], epochs=1, batch_size=64).fit(*panel[:2])
    assert len(method.trained.preprocessor.genes) == 10
    assert np.isfinite(method.predict(panel[2]).probabilities["PAM50"]).all(axis=None)


def test_a_killed_pretraining_goes_on_and_another_is_refused(parts, model, tmp_path):
    file = tmp_path / "run.safetensors"
    fit_gexbert(parts.train, parts.validation, **SMALL, **TRAINING, checkpoint=file)
    assert_same(model, fit_gexbert(parts.train, parts.validation, **SMALL, **TRAINING, checkpoint=file))
    other = replace(parts.train, expression=parts.train.expression + 1e-3 * np.arange(len(parts.train))[:, None])
    with pytest.raises(ValueError, match="belongs to another run"):
        fit_gexbert(other, parts.validation, **SMALL, **TRAINING, checkpoint=file)

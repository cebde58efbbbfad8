from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from txtlib.checkpoint import write
from txtlib.cohort import CohortError, load_cohort, split
from txtlib.pretrain.apart import check_apart
from txtlib.pretrain.ranking import complete_genes
from txtlib.pretrain.tifbert import (
    IGNORED,
    MaskedGenes,
    fit_tifbert,
    load_tifbert,
    masked,
    masked_gene_loss,
    place_floor,
    unseen_floor,
    window_starts,
)

SMALL = dict(n_genes=24, window=8, stride=4, width=8, layers=1, heads=2)
TRAINING = dict(epochs=2, batch_size=64, learning_rate=3e-3, device="cpu", progress=False)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("planted").with_tasks("PAM50"), 0)


@pytest.fixture(scope="module")
def model(parts):
    return fit_tifbert(parts.train, parts.validation, **SMALL, **TRAINING)


def sentences(n, length, versions=1, seed=0):
    drawn = np.random.default_rng(seed)
    return np.stack([[drawn.permutation(length) for _ in range(n)] for _ in range(versions)])


# --- windows ----------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_windows_hold_every_gene_and_end_with_the_sentence(length, window, stride):
    window, stride = min(window, length), min(stride, window, length)
    starts = window_starts(length, window, stride)
    read = [place for start in starts for place in range(start, start + window)]
    assert set(read) == set(range(length)) and len(starts) == 1 + -(-(length - window) // stride)


@pytest.mark.parametrize("window, stride", [(11, 1), (4, 5), (4, 0)])
def test_windows_that_do_not_fit_are_refused(window, stride):
    with pytest.raises(ValueError, match="does not fit a sentence of 10"):
        window_starts(10, window, stride)


# --- masks ------------------------------------------------------------------------------------------------


def test_masking_follows_the_shares_of_bert():
    tokens = torch.from_numpy(sentences(400, 100)[0])
    shown, asked = masked(tokens, 100, generator())
    chosen = asked != IGNORED
    assert torch.equal(asked[chosen], tokens[chosen]) and torch.equal(shown[~chosen], tokens[~chosen])
    assert (chosen.sum(1) == chosen[0].sum()).all() and chosen[0].sum() in (15, 16)
    mask, same = (shown == 100)[chosen].float().mean(), (shown == tokens)[chosen].float().mean()
    assert mask == pytest.approx(0.8, abs=0.02) and same == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_short_window_is_asked_for_at_least_one_gene(length):
    _, asked = masked(torch.from_numpy(sentences(6, length)[0]), length, generator())
    assert ((asked != IGNORED).sum(1) >= 1).all()


def test_masks_come_from_the_generator():
    tokens = torch.from_numpy(sentences(5, 20)[0])
    first, again, other = (masked(tokens, 20, generator(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


# --- network and loss -------------------------------------------------------------------------------------


def network(n_genes=12, window=6, seed=0):
    torch.manual_seed(seed)
    return MaskedGenes(n_genes, window, width=8, layers=2, heads=2).eval()


def test_the_decoder_is_tied_to_the_gene_vectors():
    net = network()
    tokens = torch.arange(6)[None]
    hidden = net.decoder(net.encode(tokens))
    assert torch.allclose(net(tokens), hidden @ net.genes.weight[:12].T + net.bias)
    assert sum(p.numel() for p in net.parameters() if p.shape == (12, 8)) == 0  # no second table


def test_the_network_is_a_plain_post_norm_bert():
    net, tokens = network(), torch.from_numpy(sentences(3, 6)[0])
    x = net.first(net.genes(tokens) + net.places.weight)
    for block in net.blocks:
        x = block.norm1(x + block.self_attn(x, x, x)[0])
        x = block.norm2(x + block.linear2(torch.nn.functional.gelu(block.linear1(x))))
    assert torch.allclose(net.encode(tokens), x, atol=1e-5)


def test_order_matters_to_the_network():
    net, tokens = network(), torch.arange(6)[None]
    assert not torch.allclose(net.encode(tokens).mean(1), net.encode(tokens.flip(1)).mean(1), atol=1e-4)


def test_the_loss_is_cross_entropy_where_asked():
    net, found = network(), {"train": sentences(5, 6), "validation": sentences(3, 6)}
    loss = masked_gene_loss(found, 12, window=6, stride=6)
    rows = torch.tensor([0, 2, 4])
    value = loss(net, "train", rows, generator(3))
    drawn = generator(3)
    torch.randint(1, (3,), generator=drawn), torch.randint(1, (3,), generator=drawn)
    shown, asked = masked(torch.from_numpy(found["train"][0])[rows], 12, drawn)
    expected = torch.nn.functional.cross_entropy(net(shown).flatten(0, 1), asked.flatten(), ignore_index=IGNORED)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_all_versions_and_windows_are_read():
    """Each version holds genes of its own, so what is read tells which it was."""
    found = {"train": np.stack([np.tile(np.arange(6) + 6 * v, (4, 1)) for v in range(3)])}
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network(18, 2)
            self.decoder, self.genes, self.bias = self.inner.decoder, self.inner.genes, self.inner.bias

        def encode(self, tokens):
            seen.append(tokens)
            return self.inner.encode(tokens)

    loss = masked_gene_loss(found | {"validation": found["train"]}, 18, window=2, stride=2)
    spy = Spy()
    for step in range(30):
        loss(spy, "train", torch.arange(4), generator(step))
    read = torch.cat(seen)[:, 1]
    assert set(range(1, 18, 2)) <= set(read.tolist())


def test_the_floor_of_places_is_low_where_all_sentences_are_alike_and_high_where_they_are_not():
    same = {"train": np.tile(np.arange(10), (1, 50, 1)), "validation": np.tile(np.arange(10), (1, 5, 1))}
    mixed = {"train": sentences(50, 10), "validation": sentences(5, 10, seed=1)}
    assert place_floor(same, 10) == pytest.approx(-np.log((50 + 0.1) / 51))
    assert place_floor(mixed, 10) > np.log(10) - 0.01


def test_who_knows_what_is_shown_guesses_among_the_rest():
    assert unseen_floor(100, 20) == pytest.approx(np.log(100 - 17))
    assert unseen_floor(12, 12) == pytest.approx(np.log(2))


# --- the model --------------------------------------------------------------------------------------------


def test_pretraining_learns_and_keeps_its_record(parts):
    trained = fit_tifbert(parts.train, parts.validation, **SMALL | {"width": 16}, **TRAINING | {"epochs": 12})
    losses = trained.history.set_index("part").loc["validation", "loss"]
    assert losses.min() < np.log(24) - 0.05


def test_embeddings_are_means_of_windows(model, parts):
    few = parts.test.take(parts.test.samples[:3])
    vectors = model.embed(few)
    starts = window_starts(24, 8, 4)
    assert vectors.shape == (3, len(starts) * 8) and vectors.index.equals(few.samples)
    tokens = torch.from_numpy(model.ranking.sentences(few))
    with torch.no_grad():
        parts_ = [model.network.encode(tokens[:, start : start + 8]).mean(1).numpy() for start in starts]
    assert np.allclose(vectors, np.concatenate(parts_, 1), atol=1e-5)
    assert np.allclose(model.embed(few, pool="mean"), np.mean(parts_, 0), atol=1e-5)


def test_a_sample_is_embedded_alike_alone_and_in_company(model, parts):
    first = parts.test.take(parts.test.samples[:1])
    assert np.allclose(model.embed(first), model.embed(parts.test).iloc[:1], atol=1e-5)


def test_embedding_needs_no_labels_and_copes_with_missing_genes(model, parts):
    bare = replace(parts.test, clinical=pd.DataFrame(index=parts.test.samples), tasks=())
    fewer = replace(bare, expression=bare.expression.drop(columns=[model.ranking.genes[0], model.ranking.genes[5]]))
    assert np.allclose(model.embed(bare), model.embed(parts.test))
    assert np.isfinite(model.embed(fewer)).all(axis=None)


def test_a_saved_model_comes_back_to_the_same_vectors(model, parts, tmp_path):
    model.save(tmp_path / "model.safetensors")
    again = load_tifbert(tmp_path / "model.safetensors")
    assert np.array_equal(again.embed(parts.test), model.embed(parts.test))
    assert again.history.equals(model.history) and (again.stride, again.floor) == (model.stride, model.floor)


def test_other_files_are_refused(tmp_path):
    write(tmp_path / "other", "mapping", {"x": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="holds a mapping"):
        load_tifbert(tmp_path / "other")


def test_the_same_seed_gives_the_same_model_and_leaves_the_global_one_alone(parts):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, again, other = (
        fit_tifbert(parts.train, parts.validation, **SMALL, **TRAINING, seed=seed).embed(parts.test)
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again) and not np.allclose(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_no_epochs_leave_the_first_weights(parts):
    first = fit_tifbert(parts.train, parts.validation, **SMALL, epochs=0)
    assert first.history.empty and np.isfinite(first.embed(parts.test)).all(axis=None)


def test_a_model_of_several_versions_keeps_the_weights_of_the_first(parts):
    one, many = (
        fit_tifbert(parts.train, parts.validation, **SMALL, versions=versions, epochs=0)
        for versions in (["log"], ["log", "linear", "rank", "quantile"])
    )
    assert np.allclose(one.ranking.weights, many.ranking.weights) and one.ranking.genes == many.ranking.genes


def test_plain_order_takes_z_scores_and_tf_idf_does_not(parts):
    below = [replace(part, expression=part.expression - 5) for part in (parts.train, parts.validation)]
    assert len(fit_tifbert(*below, **SMALL, order="plain", epochs=0).embed(below[1])) == len(below[1])
    with pytest.raises(CohortError, match="take order 'plain'"):
        fit_tifbert(*below, **SMALL, epochs=0)


def test_fewer_genes_than_a_window_shrink_it(parts):
    model = fit_tifbert(parts.train, parts.validation, **SMALL | {"n_genes": 5}, epochs=0)
    assert model.window == 5 and model.embed(parts.test).shape[1] == 8


# --- leaks ------------------------------------------------------------------------------------------------


def test_test_patients_leave_no_trace_in_a_model(parts):
    """Their rows replaced by noise, every fitted number stays the same."""
    cohort = load_cohort("planted").with_tasks("PAM50")
    expression = cohort.expression.copy()
    tested = expression.index.isin(parts.test.samples)
    noise = np.random.default_rng(0).exponential(9, (tested.sum(), expression.shape[1]))
    expression.loc[tested] = noise.astype(np.float32)
    noisy = split(replace(cohort, expression=expression), 0)
    models = [
        fit_tifbert(one.train, one.validation, **SMALL, **TRAINING, versions=["log", "rank", "quantile"])
        for one in (parts, noisy)
    ]
    states = [model.network.state_dict() for model in models]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert np.array_equal(models[0].ranking.weights, models[1].ranking.weights)
    assert models[0].ranking.genes == models[1].ranking.genes
    assert models[0].ranking.genes == tuple(complete_genes(parts.train, 24))


def with_normals(cohort):
    """Return tumours, and a healthy sample of each patient, named as TCGA does."""
    names = [f"TCGA-AA-{row:04d}" for row in range(len(cohort))]
    double = [
        replace(
            cohort,
            expression=cohort.expression.set_axis([f"{name}-{code}" for name in names]),
            clinical=cohort.clinical.set_axis([f"{name}-{code}" for name in names]).assign(Kind=kind),
        )
        for code, kind in (("01A", "Tumour"), ("11A", "Normal"))
    ]
    expression, clinical = (
        pd.concat([getattr(one, table) for one in double]).rename_axis("Sample") for table in ("expression", "clinical")
    )
    return replace(cohort, expression=expression, clinical=clinical, about={"name": "pairs"})


def test_no_paired_normal_of_a_test_patient_is_in_pretraining():
    parts = split(with_normals(load_cohort("planted").with_tasks("PAM50")), 0)
    tumours = parts.train.take(parts.train.samples[parts.train.clinical["Kind"] == "Tumour"])
    check_apart(parts.train, parts.validation, parts.test)
    check_apart(tumours, parts.test)
    normals = parts.train.take(parts.train.samples[parts.train.clinical["Kind"] == "Normal"])
    with pytest.raises(CohortError, match="patients of the pretraining part are also held out"):
        check_apart(tumours, normals)


def test_a_patient_in_training_and_validation_is_refused(parts):
    with pytest.raises(CohortError, match="are also held out"):
        fit_tifbert(parts.train, parts.train, **SMALL, epochs=0)

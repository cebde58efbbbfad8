import numpy as np
import pytest
import torch

from txtlib.cohort import load_cohort, split
from txtlib.model import TxT
from txtlib.preprocess import fit_preprocessor
from txtlib.training import fit, load_trained
from txtlib.variants import VARIANTS, variant

SETTINGS = dict(n_genes=6, outputs={"OS": 4, "Age": 1}, width=8, layers=2, heads=2, dropout=0.0, readout="mean")


def patients(n=3):
    return torch.rand(n, 6, generator=torch.Generator().manual_seed(0))


def scores(net, x, layer=0):
    q, k = net.position(x, layer)
    return q @ k.transpose(-1, -2)  # (B, H, G, G)


def test_product_is_txt():
    a, b = variant("product", seed=3, **SETTINGS), TxT(seed=3, **SETTINGS)
    assert all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


@pytest.mark.parametrize("name", VARIANTS)
def test_the_rest_of_the_network_starts_as_txt_of_the_same_seed(name):
    ours, txt = variant(name, seed=3, **SETTINGS).state_dict(), TxT(seed=3, **SETTINGS).state_dict()
    shared = [key for key in txt if not key.startswith("position.")]
    assert all(torch.equal(ours[key], txt[key]) for key in shared)


@pytest.mark.parametrize(
    "name, rank", [("product", 1), ("per layer", 1), ("full rank", 4), ("fourier", 4), ("none", 0)]
)
def test_rank_of_the_positional_scores(name, rank):
    found = torch.linalg.matrix_rank(scores(variant(name, **SETTINGS).double(), patients().double()), rtol=1e-10)
    assert (found == rank).all()


def test_layers_differ_only_in_the_form_that_says_so():
    x = patients()
    for name in ("product", "full rank", "fourier"):
        net = variant(name, **SETTINGS)
        torch.testing.assert_close(scores(net, x, 0), scores(net, x, 1))
    net = variant("per layer", **SETTINGS)
    assert not torch.allclose(scores(net, x, 0), scores(net, x, 1))


def test_without_expression_everybody_gets_the_same_answer():
    answers = variant("none", **SETTINGS).eval()(patients())
    for output in answers.values():
        torch.testing.assert_close(output, output[:1].expand_as(output))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "none"])
def test_with_expression_answers_differ(name):
    with torch.no_grad():
        encoded = variant(name, **SETTINGS).eval().encode(patients() * 4)
    assert (encoded[0] - encoded[1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["full rank", "fourier", "value token"])
def test_these_tell_a_profile_from_its_negative_and_txt_does_not(name):
    x = patients() * 4
    with torch.no_grad():
        net, txt = variant(name, **SETTINGS).eval(), TxT(**SETTINGS).eval()
        assert not torch.allclose(net.encode(x), net.encode(-x), atol=1e-4)
        torch.testing.assert_close(txt.encode(x), txt.encode(-x))


@pytest.mark.parametrize("name", VARIANTS)
def test_attention_agrees_with_the_fused_encoder(name):
    net, x = variant(name, **SETTINGS).eval(), patients()
    with torch.no_grad():
        hidden = net._hidden(x, 1)
        block = net.blocks[1]
        value = block.project(hidden, *net.position(x, 1))[2]
        mixed = (net.attention(x, 1) @ value).transpose(1, 2).flatten(2)
        hidden = hidden + block.out(mixed)
        hidden = hidden + block.narrow(torch.relu(block.wide(block.norm2(hidden))))
        torch.testing.assert_close(net.encode(x), net.norm(hidden), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_each_trains_saves_and_loads(name, tmp_path):
    parts = split(load_cohort("gse7390"), seed=0)
    fitted = fit_preprocessor(parts.train, n_genes=6, n_times=4, grid="quantile").with_tasks("DM", "Age")
    net = variant(name, **{**SETTINGS, "outputs": fitted.outputs})
    trained = fit(net, parts.train, parts.validation, fitted, epochs=1, progress=False)
    trained.save(tmp_path / "net.safetensors")
    again = load_trained(tmp_path / "net.safetensors").predict(parts.test)
    np.testing.assert_array_equal(again.survival, trained.predict(parts.test).survival)


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="variant is one of product, per layer"):
        variant("rotary", **SETTINGS)

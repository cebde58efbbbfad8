"""T-GEM: its attention against the plain form, its layers, its start; then how it and DeepGene-like do as methods."""

from dataclasses import replace
from inspect import signature

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from txtlib.cohort import split
from txtlib.gradients import task_gradients
from txtlib.metrics import accuracy, balanced_accuracy, harrell_c, mean_absolute_error, spearman
from txtlib.peers import deepgene as deepgene_module
from txtlib.peers import tgem as tgem_module
from txtlib.peers.deepgene import DeepGene, deepgene
from txtlib.peers.floors import trivial
from txtlib.peers.networks import Shared
from txtlib.peers.tgem import AT_ONCE, EPSILON, FEW, Exponentials, Norm, TGem, attend_to_others, tgem
from txtlib.planted import planted
from txtlib.training import fit

DOUBLE = torch.float64


def naive(q, k, v):
    """All weights written out, the diagonal set to zero, the rest left as it is."""
    weights = (q[..., :, None] * k[..., None, :]).softmax(-1)
    weights = weights * (1 - torch.eye(q.shape[-1], dtype=q.dtype))
    return (weights @ v[..., None])[..., 0]


def draw(*shape, seed=0, scale=1.0, dtype=DOUBLE):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(dtype)


def three(*shape, scale=1.0, dtype=DOUBLE):
    """Queries, keys and values; the first two scaled."""
    return tuple(
        draw(*shape, seed=seed, scale=by, dtype=dtype).requires_grad_() for seed, by in enumerate((scale, scale, 1.0))
    )


def gradients(attend, tensors):
    out = attend(*tensors)
    return torch.autograd.grad(out, tensors, draw(*out.shape, seed=9, dtype=out.dtype))


# --- attention ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 0.01, 0.5, 1.0, 4.0, 30.0])
def test_the_fused_form_equals_the_naive_one_in_values_and_gradients(scale):
    tensors = three(2, 3, 60, scale=scale)
    torch.testing.assert_close(attend_to_others(*tensors), naive(*tensors), rtol=1e-9, atol=1e-12)
    for ours, theirs in zip(gradients(attend_to_others, tensors), gradients(naive, tensors), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * float(1 + theirs.abs().max()))


@given(
    st.integers(1, 12),
    st.floats(0, 12),
    st.floats(-8, 8),
    st.integers(0, 2**32 - 1),
)
def test_it_does_for_any_genes_scales_and_shifts(genes, scale, shift, seed):
    q, k, v = (draw(1, 2, genes, seed=(seed + part) % 2**32) for part in range(3))
    tensors = tuple(each.requires_grad_() for each in (scale * q - shift, k + shift, v - shift))
    torch.testing.assert_close(attend_to_others(*tensors), naive(*tensors), rtol=1e-8, atol=1e-8)
    for ours, theirs in zip(gradients(attend_to_others, tensors), gradients(naive, tensors), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("scale", [0.05, 1.0, 4.0])
def test_single_precision_is_as_good_as_the_naive_forms(scale):
    exact = three(2, 3, 80, scale=scale)
    single = tuple(each.detach().float().requires_grad_() for each in exact)
    for found, expected in (
        (attend_to_others(*single), naive(*exact)),
        *zip(gradients(attend_to_others, single), gradients(naive, exact), strict=True),
    ):
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() < 1e-5 * (1 + expected.abs().max())


def test_both_ways_to_place_nodes_are_taken_and_moderate_logits_need_few():
    def nodes(scale):
        q, k, _ = (each.flatten(0, 1) for each in three(2, 3, 60, scale=scale))
        return Exponentials(q, k - (k.amax(1, keepdim=True) + k.amin(1, keepdim=True)) / 2).at_nodes.shape[1]

    assert nodes(0.01) == 1 and 1 < nodes(1.0) <= 2 * 60 // FEW + 1 and nodes(30.0) == 60


def test_the_products_are_those_of_one_matrix():
    q, k = draw(3, 40, seed=1), draw(3, 40, seed=2)
    k = k - (k.amax(1, keepdim=True) + k.amin(1, keepdim=True)) / 2
    matrix = Exponentials(q, k)
    whole = matrix.rows(torch.eye(40, dtype=DOUBLE).expand(3, -1, -1)).mT  # (N, G, G): one column per unit vector
    shares = (q[:, :, None] * k[:, None]).softmax(-1)
    torch.testing.assert_close(whole / whole.sum(-1, keepdim=True), shares)
    torch.testing.assert_close(matrix.own, whole.diagonal(dim1=1, dim2=2))
    torch.testing.assert_close(matrix.columns(torch.eye(40, dtype=DOUBLE).expand(3, -1, -1)), whole)


def test_the_own_weight_is_taken_out_and_the_others_stay():
    q, k, _ = three(1, 2, 30)
    own = (q[..., None] * k[..., None, :]).softmax(-1).diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(attend_to_others(q, k, torch.ones_like(q)), 1 - own)  # all weights that are left
    at_5 = torch.zeros_like(q)
    at_5[..., 5] = 1.0
    assert attend_to_others(q, k, at_5)[..., 5].abs().max() < 1e-15


def test_a_gene_alone_gathers_nothing():
    q, k, v = three(2, 3, 1)
    assert (attend_to_others(q, k, v) == 0).all()
    assert all((each == 0).all() for each in gradients(attend_to_others, (q, k, v)))


def test_extreme_logits_stay_finite_and_a_diverged_state_shows():
    q, k, v = three(1, 2, 50, scale=1000.0)
    torch.testing.assert_close(attend_to_others(q, k, v), naive(q, k, v), rtol=1e-7, atol=1e-7)
    for bad in (torch.nan, torch.inf):
        q = q.detach().clone()
        q[0, 0, 3] = bad
        assert not attend_to_others(q, k, v)[0, 0, 3].isfinite()


def test_blocks_of_rows_change_nothing(monkeypatch):
    tensors = three(4, 3, 50)
    assert tensors[0].numel() < AT_ONCE
    whole, gradient = attend_to_others(*tensors), gradients(attend_to_others, tensors)
    for size in (1, 350):
        monkeypatch.setattr(tgem_module, "AT_ONCE", size)
        torch.testing.assert_close(attend_to_others(*tensors), whole)
        for ours, theirs in zip(gradients(attend_to_others, tensors), gradient, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_autocast_leaves_it_in_single_precision():
    tensors = three(2, 3, 40, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = attend_to_others(*tensors)
    assert found.dtype == torch.float32 and torch.equal(found, attend_to_others(*tensors))


# --- the network ----------------------------------------------------------------------------------------------


def network(n_genes, outputs, **settings):
    return Shared(lambda: TGem(n_genes, **settings), n_genes, outputs, nn.Linear)


def test_parameters_are_those_of_the_paper():
    count = sum(each.numel() for each in network(1000, {"class": 5}).parameters())
    assert count == 52_020 == 3 * (3 * 5 * 1000 + 5) + 2 * 1000 + (1000 * 5 + 5)


def test_the_body_equals_a_slow_twin():
    body = TGem(7, layers=2, heads=3).double().eval()
    for each in body.parameters():
        each.data = draw(*each.shape, seed=each.numel())
    state = x = draw(4, 7)
    for layer in body.layers:
        gathered = torch.zeros_like(x)
        for head, weight in enumerate(layer.mix):
            q, k, v = (x * each[head] for each in (layer.query, layer.key, layer.value))
            gathered = gathered + weight * naive(q, k, v)
        spread = (gathered - gathered.mean(1, keepdim=True)).square().mean(1, keepdim=True).sqrt()
        normed = (gathered - gathered.mean(1, keepdim=True)) / (spread + 1e-6)
        x = x + normed * body.norm.gain + body.norm.shift  # one norm for both layers
    torch.testing.assert_close(body(state), torch.where(x > 0, x, 0.1 * x))


def test_the_norms_epsilon_stands_beside_the_sd():
    x = draw(3, 50)
    x = EPSILON * (x - x.mean(1, keepdim=True)) / x.std(1, correction=0, keepdim=True)
    torch.testing.assert_close(Norm(50).double()(x).std(1, correction=0), torch.full((3,), 0.5, dtype=DOUBLE))


@pytest.mark.parametrize("genes, largest", [(60, 2e-5), (1000, 3e-7)])
def test_the_extreme_start_is_as_told(genes, largest):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, x = network(genes, {"Age": 1, "ER": 2}), torch.randn(16, genes)
        spread = net.body.layers[0](x).std(1)
        assert (spread < largest).all() and 1e5 < (1 / (spread + EPSILON)).mean() < 1e6
        labels = {"Age": (torch.randn(16),), "ER": (torch.randint(0, 2, (16,)),)}
        kinds = {"Age": "regression", "ER": "classification"}
        _, jacobian = task_gradients(net.train(), x, labels, kinds)
    mixes = torch.cat([torch.full((p.numel(),), name.endswith("mix")) for name, p in net.body.named_parameters()])
    assert mixes.sum() == 15
    assert (jacobian[:, mixes].norm(dim=1) > 0.95 * jacobian.norm(dim=1)).all()


@pytest.mark.parametrize("wrong", [{"layers": 0}, {"heads": 0}])
def test_a_network_without_layers_or_heads_is_refused(wrong):
    with pytest.raises(ValueError, match="layers and heads are 1 or more"):
        TGem(5, **wrong)


# --- both as methods --------------------------------------------------------------------------------------------

SMALL = {"n_times": 8, "grid": "quantile", "batch_size": 32, "patience": 10}
METHODS = pytest.mark.parametrize("factory", [tgem, deepgene])
RATE = {tgem: 0.003, deepgene: 0.001}


def parts_of(**settings):
    return split(planted(n_genes=60, seed=0, **settings).cohort, seed=0)


@pytest.fixture(scope="module")
def learnable():
    return parts_of(n=600, event_rate=0.5, main_effect=1.5, interaction=0.0)


@pytest.fixture(scope="module")
def small():
    return parts_of(n=100, event_rate=0.5, missing=0.3)


def fitted(factory, parts, **settings):
    settings = {**SMALL, "epochs": 2, "learning_rate": RATE[factory], **settings}
    return factory(**settings).fit(parts.train, parts.validation)


def known(cohort, task):
    labels = cohort.clinical[task]
    return labels.to_numpy(), labels.notna().to_numpy()


@METHODS
def test_it_beats_the_floor_in_survival(factory, learnable):
    method = fitted(
        factory, learnable, tasks=("OS",), epochs=15, **({"order": "clustered"} if factory is deepgene else {})
    )
    answer = method.predict(learnable.test)
    assert answer.survival.shape == (len(learnable.test), len(answer.edges))
    assert harrell_c(learnable.test.outcome(), answer.risk(float(answer.edges[-1]))) > 0.6


@METHODS
def test_it_beats_the_floor_in_regression_in_years(factory, learnable):
    answer = fitted(factory, learnable, tasks=("Age",), epochs=15).predict(learnable.test)
    floor = trivial().fit(learnable.train).predict(learnable.test)
    age, seen = known(learnable.test, "Age")
    ours, constant = (mean_absolute_error(age[seen], each.values["Age"][seen]) for each in (answer, floor))
    assert ours < constant and spearman(age[seen], answer.values["Age"][seen]) > 0.2


@METHODS
def test_it_beats_the_floor_in_classification(factory, learnable):
    answer = fitted(factory, learnable, tasks=("PAM50",), epochs=15).predict(learnable.test)
    shares = answer.probabilities["PAM50"]
    assert list(shares.columns) == learnable.train.about["classes"]["PAM50"]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    label, seen = known(learnable.test, "PAM50")
    assert balanced_accuracy(label[seen], shares[seen]) > 0.3  # the majority class: 0.2
    assert accuracy(label[seen], shares[seen]) > (label[seen] == "LumA").mean()


@METHODS
def test_outcomes_at_random_are_not_predicted(factory, learnable):
    columns = ["OS_duration", "OS_event"]
    outcomes = pd.concat([part.clinical for part in learnable])[columns]
    mixed = outcomes.sample(frac=1, random_state=0).set_axis(outcomes.index)
    parts = type(learnable)(
        *(replace(part, clinical=part.clinical.assign(**mixed.loc[part.samples])) for part in learnable)
    )
    answer = fitted(factory, parts, tasks=("OS",), epochs=4).predict(parts.test)
    time, event = parts.test.outcome()
    risk, generator = answer.risk(float(answer.edges[-1])), np.random.default_rng(0)
    draws = generator.integers(0, len(risk), (100, len(risk)))
    low, high = np.quantile([harrell_c((time[rows], event[rows]), risk[rows]) for rows in draws], [0.025, 0.975])
    assert low < 0.5 < high


@METHODS
def test_the_seed_decides_and_torchs_own_generator_stays(factory, small):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first, again, other = (fitted(factory, small, seed=seed).predict(small.test).survival for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@METHODS
def test_a_missing_label_leaves_the_other_tasks_theirs(factory, small):
    train = small.train
    unlabelled = train.clinical["NHG"].isna()
    events = train.clinical["OS_event"].where(~unlabelled, 1.0)
    settings = {"tasks": ("NHG", "OS"), "epochs": 1, "grid": "even"}  # the grid is that of times alone
    counted = small._replace(train=replace(train, clinical=train.clinical.assign(OS_event=events)))
    methods = [fitted(factory, parts, **settings) for parts in (small, counted)]
    assert unlabelled.sum() > 10 and np.isfinite(methods[0].trained.history["loss"]).all()
    assert not np.array_equal(*(method.predict(small.test).survival for method in methods))
    filled = small._replace(
        train=replace(train, clinical=train.clinical.assign(NHG=train.clinical["NHG"].fillna("G1")))
    )
    methods = [fitted(factory, parts, tasks=("NHG",), epochs=1) for parts in (small, filled)]
    assert not np.array_equal(*(method.predict(small.test).probabilities["NHG"].to_numpy() for method in methods))


@METHODS
def test_all_tasks_at_once_on_a_cohort_without_labels(factory, small):
    method = fitted(factory, small)
    bare = replace(small.test, clinical=small.test.clinical[[]], tasks=())
    answer, labelled = method.predict(bare), method.predict(small.test)
    assert list(answer.samples) == list(small.test.samples) and set(answer.values) == {"Age", "Size"}
    assert set(answer.probabilities) == {"NHG", "PAM50"} and not answer.calibrated
    np.testing.assert_array_equal(answer.survival, labelled.survival)
    assert (np.diff(answer.survival, axis=1) <= 0).all()


@METHODS
def test_nothing_but_the_epoch_is_chosen_by_the_validation_part(factory, small):
    expression = small.validation.expression
    noise = replace(
        small.validation,
        expression=expression * 0 + np.random.default_rng(0).normal(size=expression.shape).astype(np.float32),
        clinical=small.validation.clinical.assign(Age=99.0, OS_duration=1e5),
    )
    settings = {"order": "clustered"} if factory is deepgene else {}
    ours, other = (
        fitted(factory, parts, epochs=1, **settings).trained for parts in (small, small._replace(validation=noise))
    )
    np.testing.assert_equal(ours.preprocessor.state(), other.preprocessor.state())
    found, again = ours.network.state_dict(), other.network.state_dict()
    assert all(torch.equal(found[name], again[name]) for name in found)  # the order of genes among them


@METHODS
def test_genes_are_chosen_from_the_gene_sets(factory, small):
    columns = list(small.train.expression.columns)
    method = fitted(factory, small, epochs=1, gene_sets={"A": columns[:25], "B": columns[20:35]}, n_genes=30)
    assert len(method.trained.preprocessor.genes) == 30
    assert set(method.trained.preprocessor.genes) <= set(columns[:35])


@METHODS
def test_settings_reach_the_network_and_unknown_ones_are_refused(factory, small):
    with pytest.raises(TypeError, match="depth"):
        fitted(factory, small, depth=3)
    with pytest.raises(ValueError, match="dropout"):
        fitted(factory, small, dropout=1.5)
    found = {
        p.p for p in fitted(factory, small, epochs=1, dropout=0.45).trained.network.modules() if type(p) is nn.Dropout
    }
    assert found == {0.45}


@pytest.mark.parametrize("module, body", [(tgem_module, TGem), (deepgene_module, DeepGene)])
def test_the_space_starts_with_the_defaults(module, body):
    own = {name: each.default for name, each in signature(body).parameters.items()}
    defaults = {"weight_decay": signature(fit).parameters["weight_decay"].default, **own, **module.DEFAULTS}
    for name, values in module.SPACE.items():
        assert 3 <= len(values) <= 5 and len(set(values)) == len(values) and values[0] == defaults[name]


@METHODS
def test_each_value_of_the_space_trains(factory, small):
    space = {tgem: tgem_module, deepgene: deepgene_module}[factory].SPACE
    for place in range(3):
        chosen = {name: values[place] for name, values in space.items()}
        assert np.isfinite(fitted(factory, small, epochs=1, **chosen).predict(small.test).survival).all()

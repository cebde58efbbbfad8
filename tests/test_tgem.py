"""T-GEM: its attention against the plain form, its layers, its start. As a method: test_network_methods.py."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from txtlib.gradients import task_gradients
from txtlib.peers import tgem as tgem_module
from txtlib.peers.networks import Shared
from txtlib.peers.tgem import AT_ONCE, EPSILON, FEW, Exponentials, Norm, TGem, attend_to_others

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

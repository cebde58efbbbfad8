import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from txtlib.model import TxT

OUTPUTS = {"Age": 1, "PAM50": 5, "OS": 8}


def small(n_genes=6, **options):
    options = {"width": 8, "layers": 2, "heads": 2, "dropout": 0.0, **options}
    return TxT(n_genes, OUTPUTS, **options).eval()


def patients(n=3, n_genes=6, seed=0):
    return torch.rand(n, n_genes, generator=torch.Generator().manual_seed(seed))


def attention_by_loops(net, hidden, x, layer):
    """The article's equation, pair by pair: softmax over j of (content + position) / sqrt(2 d_head)."""
    block, d = net.blocks[layer], 4
    wq, wk = block.query.weight.T, block.key.weight.T
    uq, uk = net.position.query[:, 0], net.position.key[:, 0]
    normed = block.norm1(hidden)
    scores = torch.zeros(len(x), 2, x.shape[1], x.shape[1])
    for n in range(len(x)):
        for h in range(2):
            own = slice(h * d, (h + 1) * d)
            for i in range(x.shape[1]):
                for j in range(x.shape[1]):
                    content = (normed[n, i] @ wq)[own] @ (normed[n, j] @ wk)[own]
                    position = (x[n, i] * uq[own]) @ (x[n, j] * uk[own])
                    scores[n, h, i, j] = (content + position) / math.sqrt(2 * d)
    return scores.softmax(-1)


def block_by_loops(net, hidden, x, layer):
    block = net.blocks[layer]
    value = block.value(block.norm1(hidden)).unflatten(2, (2, 4)).transpose(1, 2)
    mixed = attention_by_loops(net, hidden, x, layer) @ value
    hidden = hidden + block.out(mixed.transpose(1, 2).flatten(2))
    return hidden + block.narrow(torch.relu(block.wide(block.norm2(hidden))))


def test_fused_encoder_equals_the_articles_equation():
    net, x = small(), patients()
    with torch.no_grad():
        hidden = net.vectors.expand(3, -1, -1)
        for layer in range(2):
            torch.testing.assert_close(
                net.attention(x, layer), attention_by_loops(net, hidden, x, layer), atol=1e-6, rtol=1e-5
            )
            hidden = block_by_loops(net, hidden, x, layer)
        torch.testing.assert_close(net.encode(x), net.norm(hidden), atol=1e-6, rtol=1e-5)


def test_attention_of_a_cohort_comes_one_patient_at_a_time():
    net, x = small(), patients()
    one_by_one = net.attentions(x, 1)
    assert iter(one_by_one) is one_by_one
    torch.testing.assert_close(torch.stack(list(one_by_one)), net.attention(x, 1))


def test_fused_gradients_equal_those_of_the_loops():
    net, x = small(layers=1), patients()
    fused = torch.autograd.grad(net.encode(x).square().sum(), net.shared_parameters())
    looped = net.norm(block_by_loops(net, net.vectors.expand(3, -1, -1), x, 0)).square().sum()
    for ours, theirs in zip(fused, torch.autograd.grad(looped, net.shared_parameters()), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_position_is_one_number_per_head():
    net, x = small(), patients()
    with torch.no_grad():
        q, k = net.position(x, 0)
        expected = torch.einsum("h,ni,nj->nhij", net.position.strength(), x, x)
    torch.testing.assert_close(q @ k.transpose(-1, -2), expected)
    assert net.position.strength().shape == (2,)


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_permuting_genes_with_their_vectors_changes_nothing_under_mean_pooling(seed):
    net, x = small(readout="mean"), patients(seed=seed)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    other = small(readout="mean")
    other.load_state_dict({**net.state_dict(), "vectors": net.vectors[order]})
    with torch.no_grad():
        expected, permuted = net(x), other(x[:, order])
    for task in OUTPUTS:
        torch.testing.assert_close(permuted[task], expected[task], atol=1e-5, rtol=1e-4)


def test_the_model_is_even_in_expression():
    net, x = small(), patients() - 0.5
    torch.testing.assert_close(net.encode(x), net.encode(-x))


def test_without_position_everybody_gets_the_same_answer():
    net = small()
    torch.nn.init.zeros_(net.position.query)
    first, second = net.encode(patients(2))
    torch.testing.assert_close(first, second)


def test_a_gene_at_zero_gets_attention_by_content_only():
    net, x = small(), patients(2)
    x[:, 2] = 0
    with torch.no_grad():
        rows = net.attention(x, 0)[:, :, 2]  # the zero gene as query: equal for both patients
    torch.testing.assert_close(rows[0], rows[1])


def test_attention_rows_sum_to_one():
    rows = small().attention(patients(), 1)
    assert rows.shape == (3, 2, 6, 6)
    torch.testing.assert_close(rows.sum(-1), torch.ones(3, 2, 6))


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation, forward or backward, makes."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.numel())
        return out


def test_training_makes_no_tensor_of_gene_pairs():
    genes = 300
    net = small(genes, dropout=0.1, readout="mean").train()
    with LargestTensor() as largest:
        sum(out.sum() for out in net(patients(4, genes)).values()).backward()
    assert 0 < largest.size < 4 * 2 * genes * genes
    with LargestTensor() as largest:
        net.attention(patients(4, genes), 0)
    assert largest.size >= 4 * 2 * genes * genes  # the instrument does see it where it is made


def test_outputs_have_one_row_per_patient_also_for_one_patient():
    for n in (1, 3):
        shapes = {task: tuple(out.shape) for task, out in small()(patients(n)).items()}
        assert shapes == {"Age": (n, 1), "PAM50": (n, 5), "OS": (n, 8)}


def test_seed_decides_every_initial_number_and_leaves_the_global_state_alone():
    before = torch.get_rng_state()
    a, b, other = small(seed=1), small(seed=1), small(seed=2)
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name])
        assert value.dim() < 2 or not torch.equal(value, other.state_dict()[name])
    assert torch.equal(before, torch.get_rng_state())


def test_given_vectors_are_the_starting_point():
    vectors = torch.arange(48.0).view(6, 8)
    net = small(vectors=vectors)
    torch.testing.assert_close(net.vectors.detach(), vectors)
    assert net.vectors.requires_grad


def test_parameter_count_at_the_articles_size():
    net = TxT(1000, {"Age": 1, "Size": 1, "NHG": 3, "PAM50": 5, "OS": 63})
    total = sum(p.numel() for p in net.parameters())
    shared = sum(p.numel() for p in net.shared_parameters())
    assert total == pytest.approx(41.47e6, rel=1e-3) and shared == pytest.approx(0.46e6, rel=0.01)


@pytest.mark.parametrize("options, message", [({"width": 10, "heads": 4}, "multiple"), ({"readout": "max"}, "readout")])
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


@pytest.mark.parametrize("name", ["Tumor.Size", "type", "keys", "a b"])
def test_a_task_may_have_any_name(name):
    net = TxT(6, {name: 1, "OS": 3}, width=8, layers=1, heads=2).eval()
    assert set(net(patients())) == {name, "OS"} and isinstance(net.head(name), torch.nn.Module)

"""The fast products against plain PyTorch: same values, same gradients, for one task and for many."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from txtlib import products
from txtlib.products import Linear, attend, attend_gradients, linear_gradients, product


def draw(*shape, seed=0, dtype=torch.float64, grad=False):
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    return made.requires_grad_(grad)


def plain(q, k, v):
    return (q @ k.mT).softmax(-1) @ v


def qkv(patients=2, heads=2, genes=5, width=4, columns=1, dtype=torch.float64, scale=1.0):
    q, k = (scale * draw(patients, heads, genes, width + columns, seed=s, dtype=dtype) for s in (1, 2))
    return [each.detach().requires_grad_() for each in (q, k, draw(patients, heads, genes, width, seed=3, dtype=dtype))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shapes", [((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((1, 3, 4), (1, 4, 5))])
def test_product_is_the_matrix_product(shapes, dtype):
    a, b = (draw(*shape, seed=s, dtype=dtype) for s, shape in enumerate(shapes))
    torch.testing.assert_close(product(a, b), a @ b)
    torch.testing.assert_close(product(b.mT, a.mT), b.mT @ a.mT)  # no assumption on strides


def test_product_without_the_fast_library_is_the_same(monkeypatch):
    a, b = draw(3, 4, dtype=torch.float32), draw(4, 5, dtype=torch.float32)
    fast = product(a, b)
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    torch.testing.assert_close(product(a, b), fast)


def test_linear_is_torchs_linear():
    ours, x = Linear(4, 3).double(), draw(2, 5, 4, grad=True)
    theirs = torch.nn.functional.linear(x, ours.weight)
    torch.testing.assert_close(ours(x), theirs)
    for one, other in zip(
        torch.autograd.grad(ours(x).square().sum(), [x, ours.weight]),
        torch.autograd.grad(theirs.square().sum(), [x, ours.weight]),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_linear_gradients_for_many_tasks_are_those_for_each():
    x, weight, grad = draw(2, 5, 4, grad=True), draw(3, 4, seed=1, grad=True), draw(6, 2, 5, 3, seed=2)
    together = linear_gradients(x.detach(), weight.detach(), grad)
    for task, one in enumerate(grad):
        for ours, theirs in zip(together, torch.autograd.grad(x @ weight.T, [x, weight], one), strict=True):
            torch.testing.assert_close(ours[task], theirs)


@given(
    patients=st.integers(1, 3),
    heads=st.integers(1, 3),
    genes=st.integers(1, 9),
    columns=st.integers(0, 3),
    tasks=st.integers(1, 4),
    entries=st.sampled_from([1, 20, 200, 250_000]),
)
@settings(deadline=None, max_examples=60)
def test_attention_for_many_tasks_equals_plain_attention_for_each(patients, heads, genes, columns, tasks, entries):
    q, k, v = qkv(patients, heads, genes, columns=columns)
    grad = draw(tasks, patients, heads, genes, 4, seed=4)
    torch.testing.assert_close(attend(q, k, v), plain(q, k, v))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "ENTRIES", entries)  # from one head at a time to all patients at once
        together = attend_gradients(*(each.detach() for each in (q, k, v, plain(q, k, v))), grad)
    for task, one in enumerate(grad):
        for ours, theirs in zip(together, torch.autograd.grad(plain(q, k, v), [q, k, v], one), strict=True):
            torch.testing.assert_close(ours[task], theirs)


def test_blocks_of_queries_change_nothing(monkeypatch):
    given = [each.detach() for each in qkv(1, 1, genes=150)]
    out, grad = plain(*given), draw(2, 1, 1, 150, 4, seed=4)
    whole = attend_gradients(*given, out, grad)
    monkeypatch.setattr(products, "ENTRIES", 1)  # blocks of 64, 64 and 22 queries
    for one, other in zip(attend_gradients(*given, out, grad), whole, strict=True):
        torch.testing.assert_close(one, other)


def test_vmap_over_tasks_equals_one_task_at_a_time():
    inputs = qkv(genes=7)
    out, seeds = attend(*inputs), draw(3, 2, 2, 7, 4, seed=5)
    together = torch.func.vmap(lambda seed: torch.autograd.grad(out, inputs, seed, retain_graph=True))(seeds)
    for task, seed in enumerate(seeds):
        for ours, theirs in zip(together, torch.autograd.grad(out, inputs, seed, retain_graph=True), strict=True):
            torch.testing.assert_close(ours[task], theirs)


def test_gradients_agree_with_finite_differences():
    assert torch.autograd.gradcheck(attend, qkv(1, 2, 4))
    layer = Linear(4, 3).double()
    assert torch.autograd.gradcheck(layer, (draw(2, 4, grad=True),))


def test_float32_is_as_exact_as_plain_float32():
    single, double = qkv(genes=60, dtype=torch.float32, scale=3.0), qkv(genes=60, scale=3.0)
    for each, exact in zip(single, double, strict=True):
        exact.data.copy_(each.data)
    truth = torch.autograd.grad(plain(*double).square().sum(), double)
    ours = torch.autograd.grad(attend(*single).square().sum(), single)
    theirs = torch.autograd.grad(plain(*single).square().sum(), single)
    for one, other, exact in zip(ours, theirs, truth, strict=True):
        assert (one - exact).abs().max() < 3 * (other - exact).abs().max() + 1e-7


def test_bfloat16_keeps_small_differences_between_large_gradients():
    """A constant in all values moves no score, so it must not drown the rest: with plain rounding it does."""
    low = [each.detach().bfloat16() for each in qkv(1, 1, genes=50)]
    low[2] = (8 + low[2]).bfloat16()
    grad = draw(1, 1, 1, 50, 4, seed=4).bfloat16()
    q, k, v = (each.double() for each in low)
    exact = attend_gradients(q, k, v, plain(q, k, v), grad.double())
    found = attend_gradients(*low, plain(q, k, v).bfloat16(), grad)
    for ours, theirs in zip(found, exact, strict=True):
        assert (ours - theirs).abs().max() < 0.03 * theirs.abs().max()  # 0.05 with one column for the mean


def test_attention_holds_no_square_matrix_on_either_way():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        entries = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for each in result if isinstance(result, tuple) else (result,):
                if isinstance(each, torch.Tensor):
                    self.entries = max(self.entries, each.numel())
            return result

    q, k, v = (each.detach() for each in qkv(1, 1, genes=4000, dtype=torch.float32))
    with Largest() as seen:
        attend_gradients(q, k, v, attend(q, k, v), v[None])
    assert 0 < seen.entries < 4000 * 4000 / 10

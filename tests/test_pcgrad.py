import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd.aggregation import PCGrad

from txtlib.pcgrad import gradient_cosines, pcgrad


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(seed, tasks, size=6):
    return torch.randn(tasks, size, generator=generator(seed), dtype=torch.double)


def surgery(jacobian, orders):
    """PCGrad as its paper writes it, on the gradients themselves, with each task's order given."""
    kept = []
    for i, order in enumerate(orders):
        g = jacobian[i].clone()
        for j in order:
            if j != i and g @ jacobian[j] < 0:
                g = g - (g @ jacobian[j]) / (jacobian[j] @ jacobian[j]) * jacobian[j]
        kept.append(g)
    return torch.stack(kept).sum(0)


@pytest.mark.parametrize(
    "jacobian, expected",
    [
        ([[1.0, 0.0], [-1.0, 1.0]], [0.5, 1.5]),
        ([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], [0.5848, 3.8012, 3.8012]),
        ([[1.0, 0.0], [0.0, 2.0]], [1.0, 2.0]),  # orthogonal: unchanged
        ([[1.0, 2.0], [-1.0, -2.0]], [0.0, 0.0]),  # opposed: nothing left
        ([[1.0, 1.0], [2.0, 2.0]], [3.0, 3.0]),  # aligned: the sum
        ([[3.0, -1.0]], [3.0, -1.0]),  # one task: itself
    ],
)
def test_known_answers(jacobian, expected):
    combined = pcgrad(torch.tensor(jacobian), generator())
    torch.testing.assert_close(combined, torch.tensor(expected), atol=1e-4, rtol=1e-4)


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_two_tasks_equal_torchjd(seed):
    jacobian = rows(seed, 2)
    torch.testing.assert_close(pcgrad(jacobian, generator()), PCGrad()(jacobian))


@given(st.integers(0, 10_000), st.integers(3, 5))
@settings(deadline=None, max_examples=30)
def test_gram_form_equals_surgery_on_the_gradients(seed, tasks):
    jacobian, draw = rows(seed, tasks), generator(seed)
    orders = [torch.randperm(tasks, generator=draw).tolist() for _ in range(tasks)]
    torch.testing.assert_close(pcgrad(jacobian, generator(seed)), surgery(jacobian, orders))


def test_torchjd_with_three_tasks_is_one_of_the_orders():
    jacobian = rows(4, 3)
    reachable = [surgery(jacobian, orders) for orders in itertools.product(itertools.permutations(range(3)), repeat=3)]
    assert any(torch.allclose(PCGrad()(jacobian), one) for one in reachable)
    assert any(torch.allclose(pcgrad(jacobian, generator()), one) for one in reachable)


def test_each_task_draws_an_order_of_its_own():
    # with one order for all tasks only 6 results exist; with an order each, all of the 8 different ones are met
    jacobian = torch.tensor([[1.0, 0, 0], [-0.8, 0.6, 0], [-0.7, -0.5, 0.5]], dtype=torch.double)
    every = itertools.product(itertools.permutations(range(3)), repeat=3)
    apart = {tuple(surgery(jacobian, orders).mul(1e6).round().tolist()) for orders in every}
    shared = itertools.permutations(range(3))
    together = {tuple(surgery(jacobian, [o] * 3).mul(1e6).round().tolist()) for o in shared}
    draw = generator()
    seen = {tuple(pcgrad(jacobian, draw).mul(1e6).round().tolist()) for _ in range(200)}
    assert seen == apart and len(together) < len(apart)


def test_a_task_without_gradient_changes_nothing():
    jacobian = rows(1, 2)
    padded = torch.cat([jacobian, torch.zeros(1, 6, dtype=torch.double)])
    torch.testing.assert_close(pcgrad(padded, generator()), pcgrad(jacobian, generator()))


def test_projecting_heads_too_leaves_most_of_the_conflict():
    # D3 of the released code: rows that also hold the tasks' own (orthogonal) head gradients
    shared = torch.tensor([[1.0, 0.0], [-1.0, 0.2]])
    heads = torch.block_diag(torch.full((1, 50), 1.0), torch.full((1, 50), 1.0))
    both = pcgrad(torch.cat([shared, heads], 1), generator())[:2]
    assert (both - shared.sum(0)).norm() < 0.1 * (pcgrad(shared, generator()) - shared.sum(0)).norm()


def test_cosines_are_those_of_torch():
    jacobian = rows(2, 3)
    expected = torch.stack([torch.cosine_similarity(jacobian, row.expand(3, -1)) for row in jacobian])
    torch.testing.assert_close(gradient_cosines(jacobian), expected)

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from txtlib.balance import GradNorm, UncertaintyWeights, plain_sum, surgery, upgrad
from txtlib.pcgrad import pcgrad

NO_DRAW = torch.Generator()


def rows(seed, tasks=3, size=5):
    return torch.randn(tasks, size, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def test_orthogonal_gradients_are_simply_added_by_those_that_project():
    jacobian, losses = torch.eye(3), torch.ones(3)
    for combine in (plain_sum, surgery, upgrad):
        torch.testing.assert_close(combine(jacobian, losses, NO_DRAW), torch.ones(3), atol=1e-4, rtol=1e-4)


def test_surgery_is_pcgrad():
    draw = [torch.Generator().manual_seed(1) for _ in range(2)]
    torch.testing.assert_close(surgery(rows(0), torch.ones(3), draw[0]), pcgrad(rows(0), draw[1]))


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_upgrad_never_points_against_a_task(seed):
    jacobian = rows(seed)
    assert (jacobian @ upgrad(jacobian, torch.ones(3), NO_DRAW) >= -1e-3).all()


def test_uncertainty_weights_settle_where_their_objective_is_lowest():
    # for constant losses, exp(-s) L + s is lowest at exp(s) = L
    combine, losses = UncertaintyWeights(2, learning_rate=0.05), torch.tensor([0.5, 4.0])
    for _ in range(2000):
        combine(torch.eye(2), losses, NO_DRAW)
    torch.testing.assert_close(combine.log_variance.exp(), losses, rtol=1e-3, atol=1e-3)


def test_weighted_sums_use_the_weights_before_the_step():
    combine = UncertaintyWeights(2)
    combine.log_variance = torch.tensor([0.0, torch.log(torch.tensor(2.0))])
    torch.testing.assert_close(combine(torch.eye(2), torch.ones(2), NO_DRAW), torch.tensor([1.0, 0.5]))


@given(st.integers(0, 1000), st.floats(0.001, 1000))
@settings(deadline=None, max_examples=20)
def test_gradnorm_weights_stay_positive_and_sum_to_the_number_of_tasks(seed, scale):
    combine = GradNorm(3, learning_rate=0.1)
    for step in range(300):
        combine(rows(seed + step) * torch.tensor([[scale], [1.0], [1.0]]), torch.rand(3) + 0.1, NO_DRAW)
    weights = combine.log_weights.exp()
    assert (weights > 0).all() and weights.sum().item() == pytest.approx(3, rel=1e-4)


def test_gradnorm_evens_out_gradients_of_tasks_at_one_pace():
    combine, jacobian = GradNorm(2), torch.tensor([[10.0, 0.0], [0.0, 1.0]])
    for _ in range(3000):
        combine(jacobian, torch.ones(2), NO_DRAW)
    weighted = combine.log_weights.exp() * jacobian.norm(dim=1)
    assert weighted[0].item() == pytest.approx(weighted[1].item(), rel=0.1)


def test_gradnorm_gives_more_to_the_task_that_lags():
    combine = GradNorm(2)
    combine(torch.eye(2), torch.tensor([1.0, 1.0]), NO_DRAW)
    for _ in range(50):
        combine(torch.eye(2), torch.tensor([1.0, 0.2]), NO_DRAW)  # the second task has learned, the first has not
    assert combine.log_weights[0] > combine.log_weights[1]
    torch.testing.assert_close(combine.first_losses, torch.ones(2))

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycox.models.loss import nll_mtlr
from torch.nn import functional as F

from txtlib.losses import mtlr_nll, mtlr_scores, task_loss

EVENT, CENSORED = torch.tensor([True]), torch.tensor([False])


def random_batch(seed, n=7, k=5):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, k, generator=generator, dtype=torch.double) * 3
    cell = torch.randint(0, k + 1, (n,), generator=generator)
    event = torch.rand(n, generator=generator) < 0.5
    return logits, cell, event


def sequence_probabilities(psi):
    """Yu 2011 by enumeration: the status over K edges is a legal sequence 0..01..1 (1: the event has happened).

    Its score is the sum of psi over its ones. The k-th sequence has its event in cell k, the last one never.
    """
    k = len(psi)
    legal = [y for y in itertools.product([0, 1], repeat=k) if list(y) == sorted(y)]
    legal = sorted(legal, key=sum, reverse=True)
    weights = np.array([np.exp(sum(p for p, after in zip(psi, y, strict=True) if after)) for y in legal])
    return weights / weights.sum()


@pytest.mark.parametrize("k", [1, 2, 4, 6])
def test_likelihood_equals_enumeration_of_all_sequences(k):
    logits, cell, event = random_batch(k, n=9, k=k)
    expected = []
    for psi, own, seen in zip(logits.tolist(), cell.tolist(), event.tolist(), strict=True):
        mass = sequence_probabilities(psi)
        expected.append(-np.log(mass[own] if seen else mass[own:].sum()))
    assert mtlr_nll(logits, cell, event).item() == pytest.approx(np.mean(expected), rel=1e-10)


def test_likelihood_equals_pycox_when_censored_patients_move_to_the_next_cell():
    # pycox leaves out the own cell of a censored patient, we count it: the same thing one cell later
    logits, cell, event = random_batch(3, n=50, k=6)
    cell = cell.clamp(max=5)  # pycox knows no patient in the open cell
    ours = mtlr_nll(logits, torch.where(event, cell, cell + 1), event)
    theirs = nll_mtlr(logits, cell, event.double(), reduction="mean")
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_one_time_point_is_logistic_regression():
    logits = torch.tensor([[0.3], [-1.2]])
    loss = mtlr_nll(logits, torch.tensor([0, 1]), torch.tensor([True, True]))
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits[:, 0], torch.tensor([1.0, 0.0])))


def test_a_patient_censored_in_the_first_cell_says_nothing():
    assert mtlr_nll(torch.randn(1, 4), torch.tensor([0]), CENSORED).item() == pytest.approx(0, abs=1e-6)


@given(st.integers(0, 10_000), st.floats(-50, 50))
@settings(deadline=None, max_examples=40)
def test_adding_a_constant_to_every_score_changes_nothing(seed, shift):
    logits, cell, event = random_batch(seed)
    scores = mtlr_scores(logits)
    later = torch.where(event[:, None], torch.arange(6) == cell[:, None], torch.arange(6) >= cell[:, None])

    def loss(a):
        return (a.logsumexp(1) - a.masked_fill(~later, -torch.inf).logsumexp(1)).mean()

    torch.testing.assert_close(mtlr_nll(logits, cell, event), loss(scores + shift), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [200.0, -200.0])
@pytest.mark.parametrize("event", [EVENT, CENSORED])
@pytest.mark.parametrize("cell", [0, 3, 6])
def test_extreme_logits_give_finite_loss_and_gradient(size, event, cell):
    logits = torch.full((1, 6), size, requires_grad=True)
    loss = mtlr_nll(logits, torch.tensor([cell]), event)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_gradient_is_the_numerical_one():
    logits, cell, event = random_batch(5)
    assert torch.autograd.gradcheck(lambda x: mtlr_nll(x, cell, event), logits.requires_grad_())


def test_an_all_censored_batch_wants_everybody_to_live():
    logits = torch.zeros(4, 3, requires_grad=True)
    mtlr_nll(logits, torch.tensor([1, 2, 3, 3]), torch.zeros(4, dtype=torch.bool)).backward()
    assert (logits.grad >= 0).all() and logits.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "kind, size, label",
    [
        ("regression", 1, (torch.tensor([1.0, float("nan"), 3.0]),)),
        ("classification", 4, (torch.tensor([2, -1, 0]),)),
        ("survival", 4, (torch.tensor([1, -1, 4]), torch.tensor([True, True, False]))),
    ],
)
def test_a_missing_label_adds_nothing(kind, size, label):
    output = torch.randn(3, size, requires_grad=True)
    loss = task_loss(kind, output, label)
    torch.testing.assert_close(loss, task_loss(kind, output[[0, 2]], tuple(part[[0, 2]] for part in label)))
    loss.backward()
    assert (output.grad[1] == 0).all() and (output.grad[0] != 0).any()


@pytest.mark.parametrize(
    "kind, label",
    [
        ("regression", (torch.full((2,), torch.nan),)),
        ("classification", (torch.full((2,), -1),)),
        ("survival", (torch.full((2,), -1), torch.zeros(2, dtype=torch.bool))),
    ],
)
def test_a_batch_without_any_label_has_loss_and_gradient_zero(kind, label):
    output = torch.randn(2, 3, requires_grad=True)
    loss = task_loss(kind, output, label)
    loss.backward()
    assert loss.item() == 0 and (output.grad == 0).all()

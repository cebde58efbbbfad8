"""Networks other than TxT in the training loop, and the perceptron among them."""

import numpy as np
import pytest
import torch
from torch import nn

from txtlib.cohort import load_cohort, split
from txtlib.gradients import task_gradients
from txtlib.losses import task_loss
from txtlib.metrics import harrell_c, spearman
from txtlib.peers.mlp import mlp
from txtlib.peers.networks import NetworkMethod, Shared
from txtlib.planted import planted

KINDS = {"Age": "regression", "ER": "classification", "OS": "survival"}
OUTPUTS = {"Age": 1, "ER": 2, "OS": 4}
SMALL = {"n_genes": 30, "n_times": 8, "grid": "quantile", "epochs": 15, "batch_size": 32}


def normed():
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU())


def batch(n=9):
    draw = torch.Generator().manual_seed(0)
    cell, event = torch.randint(-1, 5, (n,), generator=draw), torch.rand(n, generator=draw) > 0.5
    labels = {"Age": (torch.randn(n, generator=draw),), "ER": (torch.randint(-1, 2, (n,), generator=draw),)}
    return torch.rand(n, 6, generator=draw), {**labels, "OS": (cell, event)}


def plain(network, x, labels):
    """One whole way back per task, the batch as it is."""
    rows = []
    for task, kind in KINDS.items():
        network.zero_grad()
        task_loss(kind, network(x)[task], labels[task]).backward()
        rows.append(torch.cat([torch.zeros(0), *[p.grad.flatten() for p in network.shared_parameters()]]))
    return torch.stack(rows)


def without_dropout(network):
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network.train()


def test_a_body_that_normalises_over_the_batch_sees_it_whole():
    ours, twin = (without_dropout(Shared(normed, 5, OUTPUTS)) for _ in range(2))
    x, labels = batch()
    _, jacobian = task_gradients(ours, x, labels, KINDS)
    torch.testing.assert_close(jacobian, plain(twin, x, labels), rtol=1e-4, atol=1e-7)
    for task in KINDS:  # what a head learned from its own loss
        assert all(p.grad is not None for p in ours.head(task).parameters())


def test_a_body_without_parameters_has_an_empty_gradient():
    network = Shared(nn.Identity, 6, OUTPUTS).train()
    losses, jacobian = task_gradients(network, *batch(), KINDS)
    assert jacobian.shape == (3, 0) and losses.isfinite().all()


def test_initial_numbers_come_from_the_seed_and_leave_torchs_generator_alone():
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first, again, other = (Shared(normed, 5, OUTPUTS, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.body[0].weight, again.body[0].weight)
    assert not torch.equal(first.body[0].weight, other.body[0].weight)


@pytest.mark.parametrize("decay", [0.0, 5.0])
def test_weight_decay_reaches_the_optimiser(decay):
    parts = split(load_cohort("gse7390"), seed=0)
    method = mlp(**{**SMALL, "weight_decay": decay, "learning_rate": 0.01, "epochs": 1})
    first = method.fit(parts.train, parts.validation).trained.network.head("DM")[0].weight
    kept = mlp(**{**SMALL, "learning_rate": 0.01, "epochs": 1}).fit(parts.train, parts.validation)
    same = torch.equal(first, kept.trained.network.head("DM")[0].weight)
    assert same == (decay == 0)


@pytest.fixture(scope="module")
def learnable():
    return split(planted(n=400, n_genes=60, seed=0).cohort, seed=0)


def test_the_perceptron_beats_constants_on_a_planted_cohort(learnable):
    settings = {**SMALL, "n_genes": 60, "epochs": 60, "learning_rate": 0.003}
    answer = mlp(**settings).fit(learnable.train, learnable.validation).predict(learnable.test)
    assert harrell_c(learnable.test.outcome(), answer.risk(float(answer.edges[-1]))) > 0.55
    age = learnable.test.clinical["Age"].to_numpy(float)
    seen = ~np.isnan(age)
    assert spearman(age[seen], answer.values["Age"][seen]) > 0.3


def test_the_same_seed_gives_the_same_answer_and_another_another(learnable):
    first, again, other = (
        mlp(seed=seed, **SMALL).fit(learnable.train, learnable.validation).predict(learnable.test).survival
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_unknown_way_to_combine_is_refused():
    with pytest.raises(KeyError, match="gradnorm2"):
        NetworkMethod(None, combine="gradnorm2")

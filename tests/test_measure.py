"""Measuring a step: it is the step that was asked for, in a process of its own."""

import pytest
import torch
from test_gradients import KINDS

from txtlib.cost import step_flops
from txtlib.gradients import task_gradients
from txtlib.measure import kinds_of, machine, matrix_rate, measured_step, peak_bytes, random_batch, take_steps
from txtlib.model import TxT

OUTPUTS = {"Age": 1, "PAM50": 3, "OS": 4}
SIZE = dict(n_genes=20, outputs=OUTPUTS, width=8, layers=1, heads=2, readout="mean")


def test_a_step_is_measured_in_another_process():
    found = measured_step(SIZE, batch=3)
    assert found["seconds"] > 0 and 0.05 < found["peak_gb"] < 4
    assert found["gflop"] == pytest.approx(sum(step_flops(SIZE, 3).values()) / 1e9)


def test_a_step_by_sets_can_be_measured():
    assert measured_step({**SIZE, "sets": [list(range(12)), list(range(10, 20))]}, batch=3)["seconds"] > 0


def test_a_step_that_does_not_end_says_so():
    with pytest.raises(RuntimeError, match="A step on 3 patients and 20 genes did not end: ValueError: width 9"):
        measured_step({**SIZE, "width": 9}, batch=3)


def test_steps_are_taken():
    network, calls = TxT(**SIZE).train(), []
    before = network.vectors.detach().clone()

    def gradients(*batch):
        calls.append(batch)
        return task_gradients(*batch, KINDS)

    take_steps(network, gradients, *random_batch(KINDS, OUTPUTS, 4, 20), repeats=3)
    assert len(calls) == 3 and not torch.equal(network.vectors, before)


def test_random_labels_are_of_their_kind():
    x, labels = random_batch(KINDS, OUTPUTS, 50, 20)
    assert x.shape == (50, 20) and set(labels) == set(KINDS)
    assert labels["PAM50"][0].max() == 2 and labels["OS"][0].max() == 4 and labels["OS"][1].dtype == torch.bool
    assert kinds_of(OUTPUTS) == {"Age": "regression", "PAM50": "survival", "OS": "survival"}


def test_the_machine_is_described_and_has_a_rate():
    assert set(machine()) == {"processor", "threads", "gpu", "torch"}
    assert matrix_rate(size=64) > 0
    held = peak_bytes()
    block = torch.ones(20_000_000)
    assert peak_bytes() >= max(held, 4 * len(block))

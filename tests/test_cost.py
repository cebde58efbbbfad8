"""The cost formulas against what a step really does: parameters counted, products watched as they are made."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gradients import KINDS, batch
from torch.utils._python_dispatch import TorchDispatchMode

from txtlib import cost
from txtlib.gradients import task_gradients
from txtlib.variants import variant

OUTPUTS = {"Age": 1, "PAM50": 3, "OS": 4}
SETS = [[0, 1, 2, 3, 4], [3, 5, 6], [7, 8, 9, 10, 11]]


class Products(TorchDispatchMode):
    """Adds up 2 M N K over all matrix products."""

    flops = 0.0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self.flops += 2 * args[0].numel() * args[1].shape[-1]
        elif name == "addmm":
            self.flops += 2 * args[1].numel() * args[2].shape[-1]
        elif name == "_linear_pointwise":
            self.flops += 2 * args[0].numel() * args[1].shape[0]
        elif name.startswith("_scaled_dot_product"):
            scores = 2 * args[0].numel() // args[0].shape[3] * args[1].shape[2]
            self.flops += scores * (2 * args[0].shape[3] - 1)  # v is padded by the position column, which is no work
        return result


def net(genes=12, **options):
    options = {"width": 16, "layers": 2, "heads": 2, "readout": "flatten", **options}
    return variant("product", n_genes=genes, outputs=OUTPUTS, **options)


@pytest.mark.parametrize("options", [{}, {"readout": "mean"}, {"sets": SETS}, {"layers": 3, "sets": SETS}])
def test_parameters_are_those_of_the_network(options):
    network = net(**options)
    found = cost.parameters(network.settings)
    assert sum(found.values()) == sum(parameter.numel() for parameter in network.parameters())
    assert found["heads"] == sum(parameter.numel() for parameter in network.heads.parameters())
    assert found["gene vectors"] == network.vectors.numel()


def test_heads_hold_nearly_all_parameters_at_the_articles_size():
    outputs = {"Age": 1, "Size": 1, "NHG": 3, "PAM50": 5, "OS": 8}
    size = dict(n_genes=1000, outputs=outputs, width=64, layers=8, heads=4, readout="flatten")
    found = cost.parameters(size)
    assert found["heads"] / sum(found.values()) == pytest.approx(0.989, abs=0.001)


@given(genes=st.sampled_from([12, 90, 300]), patients=st.integers(2, 4), layers=st.integers(1, 3))
@settings(deadline=None, max_examples=10)
def test_operations_of_a_step_are_those_that_it_makes(genes, patients, layers):
    network = net(genes, layers=layers, readout="mean")
    x, labels = batch(patients, genes, dtype=torch.float32)
    with Products() as seen:
        task_gradients(network, x, labels, KINDS)
    assert seen.flops == pytest.approx(
        sum(cost.step_flops(network.settings, patients).values()), rel=0.045
    )  # the column of the mean is not counted


def test_operations_with_sets_come_close():
    network = net(sets=SETS)
    x, labels = batch(4, dtype=torch.float32)
    with Products() as seen:
        task_gradients(network, x, labels, KINDS)
    assert seen.flops == pytest.approx(sum(cost.step_flops(network.settings, 4).values()), rel=0.35)  # padding


def test_attention_takes_over_as_genes_grow_and_memory_stays_linear():
    def of(genes):
        settings = dict(n_genes=genes, outputs=OUTPUTS, width=64, layers=8, heads=4, readout="flatten")
        return cost.step_flops(settings, 4), cost.step_bytes(settings, 4)

    (few, few_bytes), (many, many_bytes) = of(1000), of(10_000)
    assert many["attention backward"] == 100 * few["attention backward"]
    assert many["projections"] == 10 * few["projections"]
    assert sum(many_bytes.values()) < 12 * sum(few_bytes.values())


def test_the_article_sized_step_needs_what_the_issue_counted():
    outputs = {"Age": 1, "Size": 1, "NHG": 3, "PAM50": 5, "OS": 8}
    size = dict(n_genes=1000, outputs=outputs, width=64, layers=8, heads=4, readout="flatten")
    assert sum(cost.step_flops(size, 8).values()) == pytest.approx(265e9, rel=0.02)


def test_training_time_is_steps_times_operations():
    size = dict(n_genes=10, outputs=OUTPUTS, width=16, layers=1, heads=2, readout="mean")
    one = sum(cost.step_flops(size, 8).values())
    assert cost.training_seconds(size, 8, patients=17, epochs=2, rate=one) == 6  # three batches an epoch

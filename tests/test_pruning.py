"""Heads switched off one at a time: against weights set to zero, against attention by hand, and put back as it was."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch

from txtlib import metrics
from txtlib.bootstrap import MEASURES, patient_counts
from txtlib.cohort import split
from txtlib.interpret.pruning import heads_off, prune_heads
from txtlib.metrics import LOWER_IS_BETTER, UNDIRECTED
from txtlib.peers.networks import Shared
from txtlib.preprocess import fit_preprocessor
from txtlib.training import Trained
from txtlib.variants import VARIANTS, variant

GENES, HORIZON = 8, 400.0
SETTINGS = dict(width=8, layers=2, heads=2, dropout=0.1, readout="mean")


@pytest.fixture(scope="module")
def parts(build):
    return split(build(n=150, genes=GENES), seed=0)


@pytest.fixture(scope="module")
def preprocessor(parts):
    return fit_preprocessor(parts.train, n_genes=GENES, n_times=6, grid="quantile", scaler="standard")


def network(preprocessor, form="product", **options):
    """A network whose attention is far from even, and whose batch norm has seen something."""
    options = SETTINGS | options
    found = variant(form, n_genes=GENES, outputs=preprocessor.outputs, **options)
    with torch.no_grad():
        for parameter in found.position.parameters():
            parameter *= 3
    return found.eval()


def trained_on(network, preprocessor):
    return Trained(network, preprocessor, pd.DataFrame(), pd.DataFrame(), 0)


def patients(n=5):
    return torch.randn(n, GENES, generator=torch.Generator().manual_seed(0))


def assert_same_answers(a, b, x, **tolerance):
    for task, output in a(x).items():
        torch.testing.assert_close(output, b(x)[task], **tolerance)


# --- off and on ---------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("form", VARIANTS)
def test_a_head_that_is_off_is_one_whose_output_weights_are_zero(preprocessor, form):
    net, x = network(preprocessor, form), patients()
    for layer in (0, 1):
        for head in (0, 1):
            twin = deepcopy(net)
            twin.blocks[layer].out.weight[:, 4 * head : 4 * head + 4] = 0  # the columns that read this head
            full = net(x)
            with heads_off(net, layer, [head]) as pruned:
                assert pruned is net
                assert_same_answers(net, twin, x, rtol=0, atol=1e-6)
                assert (net(x)["Age"] - full["Age"]).abs().max() > 1e-4


@torch.no_grad()
def test_it_is_attention_without_that_head(preprocessor):
    net, x = network(preprocessor, layers=1), patients()
    block, hidden = net.blocks[0], net._hidden(x, 0)
    value = block.project(hidden, *net.position(x, 0))[2]
    mixed = net.attention(x, 0) @ value  # (B, H, G, d_head)
    mixed[:, 1] = 0
    hidden = hidden + block.out(mixed.transpose(1, 2).flatten(2))
    hidden = hidden + block.narrow(torch.relu(block.wide(block.norm2(hidden))))
    with heads_off(net, 0, [1]):
        torch.testing.assert_close(net.encode(x), net.norm(hidden), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_without_all_heads_of_the_only_layer_txt_answers_the_same_for_everybody(preprocessor):
    net, x = network(preprocessor, layers=1), patients()
    with heads_off(net, 0, [0, 1]):
        answers = net(x)
    for output in answers.values():
        torch.testing.assert_close(output, output[:1].expand_as(output))
    assert (net(x)["OS"] - net(x)["OS"][:1]).abs().max() > 1e-4


class Stop(Exception):
    pass


@torch.no_grad()
@pytest.mark.parametrize("fails", [False, True])
def test_weights_and_answers_come_back_bit_for_bit_also_after_an_error(preprocessor, fails):
    net, x = network(preprocessor), patients()
    before, answers = {key: value.clone() for key, value in net.state_dict().items()}, net(x)
    try:
        with heads_off(net, 1, [0, 1]):
            assert not torch.equal(net(x)["OS"], answers["OS"])
            assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
            if fails:
                raise Stop
    except Stop:
        assert fails
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(torch.equal(output, answers[task]) for task, output in net(x).items())


@torch.no_grad()
def test_heads_of_two_layers_can_be_off_together(preprocessor):
    net, x, twin = network(preprocessor), patients(), network(preprocessor)
    for layer, head in ((0, 1), (1, 0)):
        twin.blocks[layer].out.weight[:, 4 * head : 4 * head + 4] = 0
    with heads_off(net, 0, [1]), heads_off(net, 1, [0]):
        assert_same_answers(net, twin, x, rtol=0, atol=1e-6)


def test_gradients_pass_through_the_heads_that_are_on(preprocessor):
    net, x = network(preprocessor, layers=1), patients()
    with heads_off(net, 0, [1]):
        (gradient,) = torch.autograd.grad(net(x)["OS"].sum(), net.blocks[0].out.weight)
    assert (gradient[:, 4:] == 0).all() and (gradient[:, :4] != 0).any()


@pytest.mark.parametrize("layer, head, words", [(2, 0, "no layer 2"), (-1, 0, "no layer -1"), (0, 2, "no head 2")])
def test_a_layer_or_head_that_is_not_there_is_named(preprocessor, layer, head, words):
    net = network(preprocessor)
    refused = pytest.raises(ValueError, match=rf"There is {words}; the network has (layer|head)s 0 to 1")
    with refused, heads_off(net, layer, [head]):
        raise AssertionError
    assert not net.blocks[0].out._forward_pre_hooks


def test_other_networks_are_refused(parts, preprocessor):
    sets = network(preprocessor, sets=[[0, 1, 2, 3], [3, 4, 5, 6, 7]])
    other = Shared(lambda: torch.nn.Linear(GENES, 4), 4, preprocessor.outputs)
    for net, name in ((sets, "TxT"), (other, "Shared")):
        with pytest.raises(ValueError, match=f"{name} has no layers of TxT's own kind"):
            prune_heads(trained_on(net, preprocessor), parts.train, parts.test, HORIZON)


# --- scores -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def silent(preprocessor):
    """A network whose head 1 of layer 0 says nothing: its output weights are 0 from the start."""
    net = network(preprocessor)
    with torch.no_grad():
        net.blocks[0].out.weight[:, 4:] = 0
    return trained_on(net, preprocessor)


@pytest.fixture(scope="module")
def table(silent, parts):
    return prune_heads(silent, parts.train, parts.test, HORIZON, resamples=80, seed=3)


def test_there_is_a_row_for_each_head_layer_task_and_measure(table):
    assert list(table) == ["layer", "head", "task", "measure", "full", "pruned", "difference", "low", "high"]
    each = table[["layer", "head"]].drop_duplicates().values.tolist()
    assert each == [[0, 0], [0, 1], [1, 0], [1, 1], [0, "all"], [1, "all"]]
    assert not table.duplicated(["layer", "head", "task", "measure"]).any()
    assert set(table["task"]) == {"Age", "Grade", "OS"} and "D-calibration p" not in set(table["measure"])
    assert len(table) == 6 * len(MEASURES.keys() - UNDIRECTED)  # one task of each kind


def test_a_head_that_says_nothing_is_not_missed_and_the_other_is_the_whole_layer(table):
    head = table.set_index(["layer", "head"]).sort_index()
    nothing = head.loc[[(0, 1)]]
    assert nothing["full"].equals(nothing["pruned"]) and (nothing[["difference", "low", "high"]] == 0).all(axis=None)
    columns = ["task", "measure", "pruned", "difference", "low", "high"]
    one, whole = (head.loc[[which], columns].reset_index(drop=True) for which in ((0, 0), (0, "all")))
    pd.testing.assert_frame_equal(one, whole)
    assert (one["difference"] != 0).mean() > 0.5


def test_scores_and_differences_are_those_of_the_pruned_answers(silent, parts, table):
    with heads_off(silent.network, 1, [1]):
        answer = silent.predict(parts.test)
    rows = table[(table["layer"] == 1) & (table["head"] == 1)].set_index(["task", "measure"])
    known = parts.test.clinical["Age"].notna()
    age = parts.test.clinical["Age"][known].to_numpy()
    scores = {
        ("OS", "Uno's C"): metrics.uno_c(*_outcomes(parts), answer.risk(HORIZON)[_known(parts.test)], HORIZON),
        ("Age", "mean absolute error"): metrics.mean_absolute_error(age, answer.values["Age"][known]),
    }
    for key, score in scores.items():
        assert rows.loc[key, "pruned"] == pytest.approx(score)
    sign = [-1 if measure in LOWER_IS_BETTER else 1 for measure in table["measure"]]
    np.testing.assert_allclose(table["difference"], sign * (table["pruned"] - table["full"]), atol=1e-12)
    assert (table["low"] <= table["high"]).all()


def _known(cohort):
    return ~np.isnan(cohort.outcome()[0])


def _outcomes(parts):
    return [tuple(each[_known(part)] for each in part.outcome()) for part in (parts.train, parts.test)]


def test_the_interval_is_over_the_same_patients_for_both(silent, parts, table):
    with heads_off(silent.network, 1, [0]):
        pruned = silent.predict(parts.test).values["Age"]
    full, truth = silent.predict(parts.test).values["Age"], parts.test.clinical["Age"].to_numpy()
    known = ~np.isnan(truth)
    gain = (np.abs(truth - full) - np.abs(truth - pruned))[known]
    counts = patient_counts(parts.test, 80, seed=3)[:, known]
    low, high = np.quantile(counts @ gain / counts.sum(1), [0.025, 0.975])
    row = table.query("layer == 1 and head == 0 and measure == 'mean absolute error'").iloc[0]
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([gain.mean(), low, high])


def test_without_its_only_layer_txt_ranks_nobody(parts, preprocessor):
    trained = trained_on(network(preprocessor, layers=1), preprocessor)
    found = prune_heads(trained, parts.train, parts.test.with_tasks("OS"), HORIZON, resamples=2)
    whole = found[(found["head"] == "all") & (found["measure"] == "Harrell's C")].iloc[0]
    assert whole["pruned"] == 0.5 and set(found["task"]) == {"OS"}


def test_the_seed_decides_and_the_network_stays_as_it_was(silent, parts, table):
    before = {key: value.clone() for key, value in silent.network.state_dict().items()}
    again, other = (prune_heads(silent, parts.train, parts.test, HORIZON, 80, seed) for seed in (3, 4))
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    assert not other["low"].equals(table["low"]) and other["difference"].equals(table["difference"])
    assert all(torch.equal(value, before[key]) for key, value in silent.network.state_dict().items())


def test_bad_input_is_refused(silent, parts):
    with pytest.raises(ValueError, match="resamples is 1; an interval needs two"):
        prune_heads(silent, parts.train, parts.test, HORIZON, resamples=1)
    with pytest.raises(ValueError, match="has no task that this network answers"):
        prune_heads(silent, parts.train, parts.test.with_tasks(), HORIZON)
    with pytest.raises(ValueError, match="choose an earlier horizon"):
        prune_heads(silent, parts.train, parts.test, 1e9)

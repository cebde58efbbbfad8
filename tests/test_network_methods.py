"""Networks other than TxT in the training loop, and as methods: what all of them must do."""

from dataclasses import dataclass, field, replace
from inspect import signature
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers import c_interval, known, relabelled, with_permuted_outcomes
from torch import nn

from txtlib.cohort import split
from txtlib.gradients import task_gradients
from txtlib.losses import task_loss
from txtlib.metrics import accuracy, balanced_accuracy, harrell_c, mean_absolute_error, spearman
from txtlib.peers import deepgene, fmap, mlp, survconvmixer, tgem
from txtlib.peers.floors import trivial
from txtlib.peers.networks import NetworkMethod, Shared
from txtlib.planted import planted
from txtlib.training import fit

KINDS = {"Age": "regression", "ER": "classification", "OS": "survival"}
OUTPUTS = {"Age": 1, "ER": 2, "OS": 4}


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


def test_an_unknown_way_to_combine_is_refused():
    with pytest.raises(KeyError, match="gradnorm2"):
        NetworkMethod(None, combine="gradnorm2")


# --- as methods -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """A method, where its settings have their defaults, and settings: a few seconds' learning, and a moment's."""

    module: ModuleType
    factory: object
    body: object
    learns: dict
    few: dict = field(default_factory=dict)
    by_task: dict = field(default_factory=dict)  # on top of ``learns``


NETWORKS = {
    "mlp": Network(mlp, mlp.mlp, mlp._build, {"epochs": 20, "learning_rate": 0.003}),
    "tgem": Network(tgem, tgem.tgem, tgem.TGem, {"epochs": 15, "patience": 10, "learning_rate": 0.003}),
    "deepgene": Network(
        deepgene,
        deepgene.deepgene,
        deepgene.DeepGene,
        {"epochs": 15, "patience": 10, "learning_rate": 0.001},
        by_task={"OS": {"order": "clustered"}},
    ),
    "survconvmixer": Network(
        survconvmixer,
        survconvmixer.survconvmixer,
        survconvmixer._build,
        {"epochs": 12, "dim": 32, "depth": 2},
        {"dim": 4, "depth": 1},
        by_task={"Age": {"learning_rate": 0.003}},
    ),
    "fmap": Network(
        fmap,
        fmap.fmap_cnn,
        fmap._build,
        {"epochs": 12, "channels": [16, 32, 32]},
        {"channels": [4, 4]},
        by_task={"Age": {"learning_rate": 0.003}},
    ),
}
each = pytest.mark.parametrize("name", NETWORKS)
GRID = {"n_times": 8, "grid": "quantile", "batch_size": 32}


class World:
    """A planted cohort in parts, and its gene sets: without them one of the methods sees nothing."""

    def __init__(self, n, **settings):
        world = planted(n=n, n_genes=60, seed=0, event_rate=0.5, **settings)
        self.cohort, self.parts, self.sets = world.cohort, split(world.cohort, seed=0), world.modules

    def learned(self, name, task, parts=None, **settings):
        """Fit one task until something is learned."""
        found = NETWORKS[name]
        settings = found.learns | found.by_task.get(task, {}) | settings
        return self._fit(name, parts, settings | {"tasks": (task,)})

    def fit(self, name, parts=None, **settings):
        """Fit for a moment."""
        return self._fit(name, parts, {"epochs": 1, **NETWORKS[name].few, **settings})

    def _fit(self, name, parts, settings):
        parts = parts or self.parts
        return NETWORKS[name].factory(**{"gene_sets": self.sets, **GRID, **settings}).fit(parts.train, parts.validation)


@pytest.fixture(scope="module")
def learnable():
    return World(800, main_effect=1.5, interaction=0.0, missing=0.1, patient_seed=1)


@pytest.fixture(scope="module")
def small():
    return World(100, missing=0.3)


@each
def test_it_beats_the_floor_in_survival(name, learnable):
    test = learnable.parts.test
    answer = learnable.learned(name, "OS").predict(test)
    assert answer.survival.shape == (len(test), len(answer.edges))
    assert harrell_c(test.outcome(), answer.risk(float(answer.edges[-1]))) > 0.6


@each
def test_it_beats_the_floor_in_regression_in_years(name, learnable):
    test = learnable.parts.test
    answer = learnable.learned(name, "Age").predict(test)
    floor = trivial().fit(learnable.parts.train).predict(test)
    ours, constant = (mean_absolute_error(*known(test, "Age", one.values["Age"])) for one in (answer, floor))
    assert ours < constant and spearman(*known(test, "Age", answer.values["Age"])) > (0.3 if name == "mlp" else 0.2)


@each
def test_it_beats_the_floor_in_classification(name, learnable):
    shares = learnable.learned(name, "PAM50").predict(learnable.parts.test).probabilities["PAM50"]
    assert list(shares.columns) == learnable.parts.train.about["classes"]["PAM50"]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    label, shares = known(learnable.parts.test, "PAM50", shares)
    assert balanced_accuracy(label, shares) > 0.3  # the majority class: 0.2
    assert accuracy(label, shares) > (label == "LumA").mean()


@each
def test_outcomes_at_random_are_not_predicted(name, learnable):
    parts = split(with_permuted_outcomes(learnable.cohort), seed=0)
    answer = learnable.learned(name, "OS", parts, epochs=4).predict(parts.test)
    low, high = c_interval(parts.test, answer.risk(float(answer.edges[-1])))
    assert low < 0.5 < high


@each
def test_the_seed_decides_and_torchs_own_generator_stays(name, small):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first, again, other = (
        small.fit(name, seed=seed, epochs=2).predict(small.parts.test).survival for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@each
def test_a_missing_label_leaves_the_other_tasks_theirs(name, small):
    train = small.parts.train
    unlabelled = train.clinical["NHG"].isna()
    settings = {"tasks": ("NHG", "OS"), "grid": "even"}  # the grid is that of times alone
    counted = relabelled(train, OS_event=train.clinical["OS_event"].where(~unlabelled, 1.0))
    methods = [small.fit(name, small.parts._replace(train=one), **settings) for one in (train, counted)]
    assert unlabelled.sum() > 10 and np.isfinite(methods[0].trained.history["loss"]).all()
    assert not np.array_equal(*(method.predict(small.parts.test).survival for method in methods))
    filled = relabelled(train, NHG=train.clinical["NHG"].fillna("G1"))
    methods = [small.fit(name, small.parts._replace(train=one), tasks=("NHG",)) for one in (train, filled)]
    shares = [method.predict(small.parts.test).probabilities["NHG"].to_numpy() for method in methods]
    assert not np.array_equal(*shares)


@each
def test_all_tasks_at_once_on_a_cohort_without_labels(name, small):
    method, test = small.fit(name), small.parts.test
    bare = replace(test, clinical=test.clinical[[]], tasks=())
    answer, labelled = method.predict(bare), method.predict(test)
    assert list(answer.samples) == list(test.samples) and set(answer.values) == {"Age", "Size"}
    assert set(answer.probabilities) == {"NHG", "PAM50"} and not answer.calibrated
    np.testing.assert_array_equal(answer.survival, labelled.survival)
    assert (np.diff(answer.survival, axis=1) <= 0).all()


@each
def test_nothing_but_the_epoch_is_chosen_by_the_validation_part(name, small):
    expression = small.parts.validation.expression
    noise = replace(
        relabelled(small.parts.validation, Age=99.0, OS_duration=1e5),
        expression=expression * 0 + np.random.default_rng(0).normal(size=expression.shape).astype(np.float32),
    )
    settings = NETWORKS[name].by_task.get("OS", {})  # DeepGene-like's order of genes
    ours, other = (
        small.fit(name, parts, **settings).trained for parts in (small.parts, small.parts._replace(validation=noise))
    )
    np.testing.assert_equal(ours.preprocessor.state(), other.preprocessor.state())
    found, again = ours.network.state_dict(), other.network.state_dict()
    assert all(torch.equal(found[key], again[key]) for key in found)  # pictures and orders of genes among them


@each
def test_genes_are_chosen_from_the_gene_sets(name, small):
    columns = list(small.parts.train.expression.columns)
    method = small.fit(name, gene_sets={"A": columns[:25], "B": columns[20:35]}, n_genes=30)
    assert len(method.trained.preprocessor.genes) == 30
    assert set(method.trained.preprocessor.genes) <= set(columns[:35])


@each
def test_an_unknown_setting_is_refused(name, small):
    with pytest.raises(TypeError, match="nonsense"):
        small.fit(name, nonsense=3)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "mlp"])
def test_dropout_reaches_the_network(name, small):
    with pytest.raises(ValueError, match="dropout"):
        small.fit(name, dropout=1.5)
    network = small.fit(name, dropout=0.45).trained.network
    assert {layer.p for layer in network.modules() if type(layer) is nn.Dropout} == {0.45}


@pytest.mark.parametrize("decay", [0.0, 5.0])
def test_weight_decay_reaches_the_optimiser(decay, small):
    first, kept = (
        small.fit("mlp", learning_rate=0.01, **settings).trained.network.head("OS")[0].weight
        for settings in ({"weight_decay": decay}, {})
    )
    assert torch.equal(first, kept) == (decay == 0)


@each
def test_the_space_starts_with_the_defaults(name):
    found = NETWORKS[name]
    fitting = {key: each.default for key, each in signature(fit).parameters.items()}
    own = {key: each.default for key, each in signature(found.body).parameters.items()}
    given = found.factory(gene_sets={"A": ["a"]})
    defaults = fitting | own | given.preprocessing | given.training | given.settings
    for key, values in found.module.SPACE.items():
        default = list(defaults[key]) if isinstance(defaults[key], tuple) else defaults[key]
        assert values[0] == default and len({str(value) for value in values}) == len(values) <= 5


@pytest.mark.parametrize("place", [1, 2])
@each
def test_each_value_of_the_space_trains(name, place, small):
    chosen = {key: values[min(place, len(values) - 1)] for key, values in NETWORKS[name].module.SPACE.items()}
    answer = small.fit(name, **chosen).predict(small.parts.test)
    assert np.isfinite(answer.survival).all()

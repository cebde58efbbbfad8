"""The SurvConvMixer-like network: its tiles and layers; then how it and the FMAP-like CNN do as methods."""

from dataclasses import replace
from inspect import signature
from itertools import chain, pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from txtlib.bootstrap import score_draws
from txtlib.cohort import CohortError, split
from txtlib.metrics import balanced_accuracy, harrell_c, mean_absolute_error, spearman
from txtlib.peers import survconvmixer as module
from txtlib.peers.floors import trivial
from txtlib.peers.fmap import Picture, fmap_cnn
from txtlib.peers.survconvmixer import (
    DEFAULTS,
    SPACE,
    Residual,
    clustered,
    convmixer,
    pathway_tiles,
    survconvmixer,
)
from txtlib.planted import planted
from txtlib.preprocess import fit_preprocessor

GENES = [f"G{number}" for number in range(12)]
SETS = {"B": ["G3", "G1", "G0", "G3", "absent"], "empty": ["absent"], "A": ["G3", "G4", "G5", "G6", "G9"], "C": ["G0"]}


def draw(n, genes, seed=0):
    return np.random.default_rng(seed).normal(size=(n, genes)).astype(np.float32)


# --- the picture ----------------------------------------------------------------------------------------------


def test_each_pathway_has_a_tile_of_its_own():
    tiles = pathway_tiles(draw(20, 12), GENES, SETS)
    assert tiles.pathways == ("B", "A", "C") and tiles.side == 3 and tiles.source.shape == (6, 6)
    held = [tiles.source[row : row + 3, column : column + 3] for row in (0, 3) for column in (0, 3)]
    for tile, genes in zip(held, ([0, 1, 3], [3, 4, 5, 6, 9], [0], []), strict=True):
        flat = tile.ravel()
        assert sorted(flat[: len(genes)]) == genes  # row by row from the first pixel
        assert (flat[len(genes) :] == -1).all()


def test_genes_of_several_pathways_are_in_each_and_those_of_none_are_dropped():
    tiles = pathway_tiles(draw(20, 12), GENES, SETS)
    np.testing.assert_array_equal(tiles.copies, [2, 1, 0, 2, 1, 1, 1, 0, 0, 1, 0, 0])
    assert (tiles.duplicated, tiles.dropped, tiles.cut) == (2, 5, 0)


@given(st.dictionaries(st.text(max_size=3), st.lists(st.sampled_from([*GENES, "absent"]), max_size=9), max_size=11))
def test_every_pathway_keeps_all_its_genes(gene_sets):
    chosen = {name: set(genes) - {"absent"} for name, genes in gene_sets.items()}
    if not any(chosen.values()):
        with pytest.raises(ValueError, match="none of the 12 chosen genes"):
            pathway_tiles(draw(5, 12), GENES, gene_sets)
        return
    tiles = pathway_tiles(draw(5, 12), GENES, gene_sets)
    assert list(tiles.pathways) == [name for name, genes in chosen.items() if genes]
    rows, columns = (size // tiles.side for size in tiles.source.shape)
    assert columns - 1 <= rows <= columns and (rows - 1) * columns < len(tiles.pathways) <= rows * columns
    cells = tiles.source.reshape(rows, tiles.side, columns, tiles.side).swapaxes(1, 2).reshape(rows * columns, -1)
    for name, cell in zip(tiles.pathways, cells, strict=False):
        assert sorted(GENES[gene] for gene in cell[cell >= 0]) == sorted(chosen[name])
    assert (cells[len(tiles.pathways) :] == -1).all()
    largest = max(map(len, chosen.values()))
    assert (tiles.side - 1) ** 2 < largest <= tiles.side**2


def test_of_a_pathway_larger_than_a_tile_the_most_variable_genes_are_kept():
    genes = [f"G{number}" for number in range(210)]
    tiles = pathway_tiles(draw(5, 210), genes, {"large": genes[::-1], "small": genes[-3:]})
    assert tiles.side == 14 and tiles.cut == 14 and tiles.dropped == 11
    assert set(np.flatnonzero(tiles.copies)) == {*range(196), 207, 208, 209}


def test_alike_genes_follow_each_other():
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(40, 3)), 4, axis=1) + 0.2 * rng.normal(size=(40, 12))
    mixed = rng.permutation(12)
    order = [mixed[column] // 4 for column in clustered(x[:, mixed], list(range(12)))]
    assert sum(a != b for a, b in pairwise(order)) == 2


def test_clustering_is_by_the_columns_asked_for_and_copes_with_twins():
    x = draw(20, 6)
    x[:, 4] = 2 * x[:, 1] + 1
    order = clustered(x, [5, 1, 2, 4])
    assert sorted(order) == [1, 2, 4, 5] and abs(order.index(1) - order.index(4)) == 1
    other = x.copy()
    other[:, [0, 3]] = 7.0  # of others nothing is asked
    assert clustered(other, [5, 1, 2, 4]) == order
    assert clustered(x, [3]) == [3] and clustered(x, [3, 2]) == [3, 2]


def test_each_value_lands_on_every_pixel_of_its_gene():
    x = draw(4, 12)
    tiles = pathway_tiles(x, GENES, SETS)
    pictures = Picture(tiles.source)(torch.from_numpy(x))
    for patient in range(4):
        for row in range(6):
            for column in range(6):
                gene = tiles.source[row, column]
                assert pictures[patient, 0, row, column] == (x[patient, gene] if gene >= 0 else 0)


# --- the network ----------------------------------------------------------------------------------------------


def test_the_first_convolution_reads_each_pathway_by_itself_with_the_same_weights():
    x = draw(4, 12)
    tiles = pathway_tiles(x, GENES, SETS)
    picture, first = convmixer(tiles, dim=8, depth=1, kernel=3)[:2]
    found = first(picture(torch.from_numpy(x)))
    assert found.shape == (4, 8, 2, 2)
    for number in range(4):
        row, column = divmod(number, 2)
        genes = tiles.source[3 * row : 3 * row + 3, 3 * column : 3 * column + 3].ravel()
        patch = torch.from_numpy(np.where(genes >= 0, x[:, genes], 0))
        expected = patch @ first.weight.flatten(1).T + first.bias
        torch.testing.assert_close(found[:, :, row, column], expected, rtol=1e-4, atol=1e-5)


def test_a_mixing_layer_looks_around_then_across_channels():
    tiles = pathway_tiles(draw(9, 12), GENES, SETS)
    body = convmixer(tiles, dim=4, depth=2, kernel=3).eval()
    _, embed, _, norm, around, mix, _, norm2 = body[:8]
    around_convolution = around.layers[0]
    assert isinstance(around, Residual) and around_convolution.groups == 4 and mix.weight.shape == (4, 4, 1, 1)
    x = torch.from_numpy(draw(9, 12))
    hidden = norm(F.gelu(embed(body[0](x))))
    looked = torch.zeros_like(hidden)
    for row in range(2):
        for column in range(2):
            for a in range(2):
                for b in range(2):  # all of a 2 x 2 grid is within reach of a kernel of 3
                    weight = around_convolution.weight[:, 0, a - row + 1, b - column + 1]
                    looked[:, :, row, column] += hidden[:, :, a, b] * weight
    looked = looked + around_convolution.bias[:, None, None]
    hidden = hidden + around.layers[2](F.gelu(looked))
    mixed = torch.einsum("bdrc,ed->berc", hidden, mix.weight[:, :, 0, 0]) + mix.bias[:, None, None]
    torch.testing.assert_close(body[:8](x), norm2(F.gelu(mixed)), rtol=1e-4, atol=1e-5)


def test_a_patient_becomes_the_mean_over_the_picture():
    body = convmixer(pathway_tiles(draw(9, 12), GENES, SETS), dim=4, depth=2, kernel=5).eval()
    x = torch.from_numpy(draw(9, 12))
    torch.testing.assert_close(body(x), body[:-2](x).mean((2, 3)))


# --- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gene_sets", [None, {}])
def test_without_gene_sets_there_is_no_picture(gene_sets):
    with pytest.raises(ValueError, match="picture is made of gene sets"):
        survconvmixer(gene_sets=gene_sets)


def test_sets_of_other_genes_are_refused(small):
    with pytest.raises(CohortError, match="No gene varies in the training part among the 0"):
        survconvmixer(gene_sets={"A": ["TP53"]}).fit(small.parts.train, small.parts.validation)


@pytest.mark.parametrize(
    "settings, sentence",
    [({"dim": 0}, "dim and depth are 1 or more"), ({"depth": 0}, "dim and depth"), ({"kernel": 4}, "an odd number")],
)
def test_sizes_that_cannot_be_are_refused(small, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        small.fit(survconvmixer, **settings)


def test_the_space_of_the_tuning_holds_the_defaults():
    own = {name: each.default for name, each in signature(module._build).parameters.items()}
    for name, values in SPACE.items():
        assert 3 <= len(values) <= 5 and DEFAULTS.get(name, own.get(name)) in values


# --- both pictures as methods -----------------------------------------------------------------------------------

METHODS = pytest.mark.parametrize("factory", [survconvmixer, fmap_cnn])
SIZES = {survconvmixer: {"dim": 32, "depth": 2}, fmap_cnn: {"channels": [16, 32, 32]}}
FEW = {survconvmixer: {"dim": 4, "depth": 1}, fmap_cnn: {"channels": [4, 4]}}
GRID = {"n_times": 8, "grid": "quantile", "batch_size": 32}


class Planted:
    """A planted cohort in parts, and what a method needs to see it."""

    def __init__(self, n, sizes, **settings):
        world = planted(n=n, n_genes=60, seed=0, **settings)
        self.parts, self.sets, self.sizes = split(world.cohort, seed=0), world.modules, sizes

    def fit(self, factory, parts=None, **settings):
        parts = parts or self.parts
        settings = {"gene_sets": self.sets, **GRID, **self.sizes[factory], **settings}
        return factory(**settings).fit(parts.train, parts.validation)


@pytest.fixture(scope="module")
def learnable():
    return Planted(800, SIZES, event_rate=0.5, main_effect=1.5, interaction=0.0, missing=0.1, patient_seed=1)


@pytest.fixture(scope="module")
def small():
    return Planted(100, FEW, event_rate=0.5, missing=0.3)


def known(cohort, task):
    labels = cohort.clinical[task]
    return labels.to_numpy(), labels.notna().to_numpy()


@METHODS
def test_it_beats_the_floor_in_survival(factory, learnable):
    answer = learnable.fit(factory, tasks=("OS",), epochs=8).predict(learnable.parts.test)
    assert answer.survival.shape == (len(learnable.parts.test), len(answer.edges))
    assert harrell_c(learnable.parts.test.outcome(), answer.risk(float(answer.edges[-1]))) > 0.6


@METHODS
def test_it_beats_the_floor_in_regression_in_years(factory, learnable):
    test = learnable.parts.test
    answer = learnable.fit(factory, tasks=("Age",), epochs=12, learning_rate=0.003).predict(test)
    floor = trivial().fit(learnable.parts.train).predict(test)
    age, seen = known(test, "Age")
    ours, constant = (mean_absolute_error(age[seen], each.values["Age"][seen]) for each in (answer, floor))
    assert ours < constant and spearman(age[seen], answer.values["Age"][seen]) > 0.2


@METHODS
def test_it_beats_the_floor_in_classification(factory, learnable):
    answer = learnable.fit(factory, tasks=("PAM50",), epochs=12).predict(learnable.parts.test)
    shares = answer.probabilities["PAM50"]
    assert list(shares.columns) == learnable.parts.train.about["classes"]["PAM50"]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    label, seen = known(learnable.parts.test, "PAM50")
    assert balanced_accuracy(label[seen], shares[seen]) > 0.3  # the majority class: 0.2


@METHODS
def test_outcomes_at_random_are_not_predicted(factory, learnable):
    cohort = pd.concat([part.clinical for part in learnable.parts])[["OS_duration", "OS_event"]]
    mixed = cohort.sample(frac=1, random_state=0).set_axis(cohort.index)
    parts = type(learnable.parts)(
        *(replace(part, clinical=part.clinical.assign(**mixed.loc[part.samples])) for part in learnable.parts)
    )
    answer = learnable.fit(factory, parts, tasks=("OS",), epochs=4).predict(parts.test)
    test = parts.test.with_tasks("OS")
    draws = score_draws({"ours": answer}, parts.train, test, horizon=float(answer.edges[-1]), resamples=100)
    low, high = draws["ours", "OS", "Harrell's C"].iloc[1:].quantile([0.025, 0.975])
    assert low < 0.5 < high


@METHODS
def test_the_seed_decides(factory, small):
    first, again, other = (
        small.fit(factory, seed=seed, epochs=2).predict(small.parts.test).survival for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@METHODS
def test_a_missing_label_leaves_the_other_tasks_theirs(factory, small):
    train = small.parts.train
    unlabelled = train.clinical["NHG"].isna()
    clinical = train.clinical.assign(OS_event=train.clinical["OS_event"].where(~unlabelled, 1.0))
    parts = small.parts._replace(train=replace(train, clinical=clinical))
    settings = {"tasks": ("NHG", "OS"), "epochs": 1, "grid": "even"}  # the grid is that of times alone
    first, other = (small.fit(factory, some, **settings) for some in (small.parts, parts))
    assert unlabelled.sum() > 10 and np.isfinite(first.trained.history["loss"]).all()
    curves = [each.predict(small.parts.test).survival for each in (first, other)]
    assert not np.array_equal(*curves)  # their survival counted
    wrong = replace(train, clinical=train.clinical.assign(NHG=train.clinical["NHG"].fillna("G1")))
    filled = small.fit(factory, small.parts._replace(train=wrong), tasks=("NHG",), epochs=1)
    masked = small.fit(factory, tasks=("NHG",), epochs=1)
    shares = [each.predict(small.parts.test).probabilities["NHG"].to_numpy() for each in (filled, masked)]
    assert not np.array_equal(*shares)


@METHODS
def test_all_tasks_at_once_on_a_cohort_without_labels(factory, small):
    method = small.fit(factory, epochs=1)
    test = small.parts.test
    bare = replace(test, clinical=test.clinical[[]], tasks=())
    answer, labelled = method.predict(bare), method.predict(test)
    assert list(answer.samples) == list(test.samples) and set(answer.values) == {"Age", "Size"}
    assert set(answer.probabilities) == {"NHG", "PAM50"} and not answer.calibrated
    np.testing.assert_array_equal(answer.survival, labelled.survival)
    assert (np.diff(answer.survival, axis=1) <= 0).all()


@METHODS
def test_nothing_but_the_epoch_is_chosen_by_the_validation_part(factory, small):
    validation = small.parts.validation
    rng = np.random.default_rng(0)
    noise = replace(
        validation,
        expression=validation.expression * 0 + rng.normal(size=validation.expression.shape).astype(np.float32),
        clinical=validation.clinical.assign(Age=99.0, OS_duration=1e5),
    )
    ours, other = (
        small.fit(factory, parts, epochs=1).trained for parts in (small.parts, small.parts._replace(validation=noise))
    )
    np.testing.assert_equal(ours.preprocessor.state(), other.preprocessor.state())
    found, again = ours.network.state_dict(), other.network.state_dict()
    assert all(torch.equal(found[name], again[name]) for name in found)  # the picture among them


def test_the_tiles_are_those_of_the_training_part_and_go_with_the_network(small):
    network = small.fit(survconvmixer, epochs=1, n_genes=40).trained.network
    preprocessor = fit_preprocessor(
        small.parts.train, n_genes=40, scaler="standard", gene_list=chain(*small.sets.values())
    )
    expected = pathway_tiles(preprocessor.expression(small.parts.train), preprocessor.genes, small.sets)
    np.testing.assert_array_equal(network.tiles.source, expected.source)
    assert network.tiles.pathways == expected.pathways and network.tiles.dropped == 0
    np.testing.assert_array_equal(network.body[0].source, expected.source)

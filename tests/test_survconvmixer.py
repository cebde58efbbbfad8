"""The SurvConvMixer-like network: its tiles and layers. As a method it is tested in test_network_methods.py."""

from itertools import chain

import numpy as np
import pytest
import torch
from helpers import draw
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from txtlib.cohort import CohortError, split
from txtlib.peers.fmap import Picture
from txtlib.peers.survconvmixer import Residual, convmixer, pathway_tiles, survconvmixer
from txtlib.planted import planted
from txtlib.preprocess import fit_preprocessor

GENES = [f"G{number}" for number in range(12)]
SETS = {"B": ["G3", "G1", "G0", "G3", "absent"], "empty": ["absent"], "A": ["G3", "G4", "G5", "G6", "G9"], "C": ["G0"]}


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


def test_alike_genes_of_a_pathway_are_side_by_side_whatever_the_others_are():
    x = draw(20, 12)
    x[:, 9] = 2 * x[:, 4] + 1
    source = pathway_tiles(x, GENES, SETS).source
    order = list(source[:3, 3:].ravel())  # of A
    assert sorted(order[:5]) == [3, 4, 5, 6, 9] and abs(order.index(4) - order.index(9)) == 1
    other = x.copy()
    other[:, [2, 7, 8, 10, 11]] = 7.0  # of no pathway
    np.testing.assert_array_equal(pathway_tiles(other, GENES, SETS).source, source)


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


# --- the method -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world():
    return planted(n=100, n_genes=60, seed=0, event_rate=0.5, missing=0.3)


@pytest.fixture(scope="module")
def parts(world):
    return split(world.cohort, seed=0)


def fitted(world, parts, **settings):
    few = {"dim": 4, "depth": 1, "n_times": 8, "grid": "quantile", "batch_size": 32, "epochs": 1}
    return survconvmixer(**{"gene_sets": world.modules, **few, **settings}).fit(parts.train, parts.validation)


@pytest.mark.parametrize("gene_sets", [None, {}])
def test_without_gene_sets_there_is_no_picture(gene_sets):
    with pytest.raises(ValueError, match="picture is made of gene sets"):
        survconvmixer(gene_sets=gene_sets)


def test_sets_of_other_genes_are_refused(world, parts):
    with pytest.raises(CohortError, match="No gene varies in the training part among the 0"):
        fitted(world, parts, gene_sets={"A": ["TP53"]})


@pytest.mark.parametrize(
    "settings, sentence",
    [({"dim": 0}, "dim and depth are 1 or more"), ({"depth": 0}, "dim and depth"), ({"kernel": 4}, "an odd number")],
)
def test_sizes_that_cannot_be_are_refused(world, parts, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        fitted(world, parts, **settings)


def test_the_tiles_are_those_of_the_training_part_and_go_with_the_network(world, parts):
    network = fitted(world, parts, n_genes=40).trained.network
    preprocessor = fit_preprocessor(
        parts.train, n_genes=40, scaler="standard", gene_list=chain(*world.modules.values())
    )
    expected = pathway_tiles(preprocessor.expression(parts.train), preprocessor.genes, world.modules)
    np.testing.assert_array_equal(network.tiles.source, expected.source)
    assert network.tiles.pathways == expected.pathways and network.tiles.dropped == 0
    np.testing.assert_array_equal(network.body[0].source, expected.source)

"""The FMAP-like CNN: its picture, its control, its network. As a method it is tested in test_network_methods.py."""

from dataclasses import replace
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from helpers import draw
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

from txtlib.cohort import split
from txtlib.peers import fmap
from txtlib.peers.fmap import (
    Gated,
    Inception,
    Picture,
    fmap_cnn,
    gene_distances,
    inception,
    layout,
    permuted,
)
from txtlib.planted import planted
from txtlib.preprocess import fit_preprocessor

SMALL = {"n_genes": 30, "n_times": 5, "grid": "quantile", "channels": [4, 8, 8], "epochs": 1, "batch_size": 32}


def in_modules(n=60, modules=6, size=6, seed=0):
    """Genes in modules, mixed up: those of one module rise or fall together."""
    rng = np.random.default_rng(seed)
    module = rng.permutation(np.repeat(np.arange(modules), size))
    sign = rng.choice([-1, 1], modules * size)
    return rng.normal(size=(n, modules))[:, module] * sign + 0.3 * rng.normal(size=(n, modules * size)), module


# --- the picture ----------------------------------------------------------------------------------------------


def test_distances_are_those_of_scipy_pair_by_pair():
    x = draw(25, 6).round(0)  # with ties
    x[:, 5] = -x[:, 4]
    found = gene_distances(x)
    for i in range(6):
        for j in range(6):
            assert found[i, j] == pytest.approx(1 - abs(spearmanr(x[:, i], x[:, j]).statistic), abs=1e-12)
    assert found.min() >= 0 and found[4, 5] < 1e-12


@pytest.mark.parametrize("genes, side", [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4), (50, 8)])
def test_each_gene_has_one_pixel_of_the_least_square(genes, side):
    source = layout(draw(20, genes))
    assert source.shape == (side, side)
    np.testing.assert_array_equal(np.sort(source[source >= 0]), np.arange(genes))
    assert (source < 0).sum() == side * side - genes


@pytest.mark.parametrize("n", [2, 20])
def test_genes_that_say_the_same_have_a_layout_too(n):
    source = layout(np.repeat(draw(n, 1), 7, axis=1))
    assert sorted(source[source >= 0]) == list(range(7))


def test_genes_go_where_the_way_is_shortest_in_all(monkeypatch):
    places = np.random.default_rng(3).normal(size=(5, 2)) * [1.0, 10.0]
    monkeypatch.setattr(fmap, "_embedding", lambda distance: places)
    source = layout(draw(8, 5))
    scaled = (places - places.min(0)) / np.ptp(places, 0) * 2

    def way(pixels):
        return sum((scaled[gene] - divmod(pixel, 3)) @ (scaled[gene] - divmod(pixel, 3)) for gene, pixel in pixels)

    ours = way((gene, pixel) for pixel, gene in enumerate(source.ravel()) if gene >= 0)
    least = min(way(enumerate(pixels)) for pixels in permutations(range(9), 5))
    assert ours == pytest.approx(least)


def test_only_ranks_within_a_gene_count_and_nothing_is_drawn():
    x, _ = in_modules()
    before = np.random.get_state()[1].copy()
    first = layout(x)
    np.testing.assert_array_equal(layout(np.exp(3 * x) + 5), first)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def beside(source):
    """Pairs of genes on pixels with a common side."""
    across = [pair for row in source for pair in pairwise(row)]
    down = [pair for column in source.T for pair in pairwise(column)]
    return [(a, b) for a, b in across + down if min(a, b) >= 0]


def test_modules_stay_together():
    x, module = in_modules()
    same = [module[a] == module[b] for a, b in beside(layout(x))]
    assert np.mean(same) > 0.5  # 5 of 35, were they placed at random


def test_neighbours_are_more_alike_than_pairs_of_pixels_at_random():
    train = split(planted(n=300, n_genes=100, seed=0).cohort, seed=0).train
    x = fit_preprocessor(train, n_genes=100).expression(train)
    alike = np.abs(np.corrcoef(x, rowvar=False))
    source = layout(x)
    near, by_chance = ([alike[a, b] for a, b in beside(some)] for some in (source, permuted(source, 0)))
    anybody = alike[np.triu_indices(100, 1)]
    assert np.mean(near) > 2 * np.mean(anybody)
    assert np.mean(by_chance) == pytest.approx(np.mean(anybody), abs=3 * np.std(anybody) / np.sqrt(len(by_chance)))


@given(st.integers(1, 8), st.integers(0, 1000))
def test_permuted_is_a_permutation_by_the_seed(side, seed):
    source = np.arange(side * side).reshape(side, side) - 1
    found = permuted(source, seed)
    assert found.shape == source.shape
    np.testing.assert_array_equal(np.sort(found.ravel()), source.ravel())
    np.testing.assert_array_equal(permuted(source, seed), found)
    if side > 4:
        assert not np.array_equal(permuted(source, seed + 1), found)


@pytest.mark.parametrize("seed", [None, 4])
def test_each_value_lands_on_the_pixel_of_its_gene(seed):
    x = draw(7, 11)
    source = layout(x) if seed is None else permuted(layout(x), seed)
    pictures = Picture(source)(torch.from_numpy(x))
    assert pictures.shape == (7, 1, 4, 4)
    for patient in range(7):
        for row in range(4):
            for column in range(4):
                gene = source[row, column]
                assert pictures[patient, 0, row, column] == (x[patient, gene] if gene >= 0 else 0)


# --- the network ----------------------------------------------------------------------------------------------


def test_a_gate_is_a_times_the_sigmoid_of_b():
    layer, x = Gated(3, 4, 3), torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    (a, b), (bias_a, bias_b) = layer.both.weight.split(4), layer.both.bias.split(4)
    expected = F.conv2d(x, a, bias_a, padding=1) * torch.sigmoid(F.conv2d(x, b, bias_b, padding=1))
    torch.testing.assert_close(layer(x), expected)


def test_branches_see_as_far_as_they_should():
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4] = 5.0
    block = Inception(1, 8)
    seen = (block(x) - block(torch.zeros_like(x))).abs() > 1e-7
    reach = [[int(some.any(0).any(axis).sum()) for axis in (0, 1)] for some in seen[0].split(2)]
    assert reach == [[1, 1], [3, 3], [5, 5], [3, 3]]  # the pooled one by its pool


@pytest.mark.parametrize("genes", [1, 2, 5, 30])
def test_few_genes_leave_a_picture_to_the_end(genes):
    x = draw(6, genes)
    assert inception(layout(x), [4, 8, 12])(torch.from_numpy(x)).shape == (6, 12)


def test_each_block_halves_the_picture():
    source = np.arange(1024).reshape(32, 32)
    sides = []
    body = inception(source, [4, 8, 8])
    for layer in body:
        if isinstance(layer, nn.MaxPool2d):
            layer.register_forward_hook(lambda layer, into, out: sides.append(tuple(out.shape[1:])))
    body(torch.zeros(2, 1024))
    assert sides == [(4, 16, 16), (8, 8, 8), (8, 4, 4)]


# --- the method -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts():
    return split(planted(n=100, n_genes=60, seed=0).cohort.with_tasks("OS"), seed=0)


def fitted(parts, **settings):
    return fmap_cnn(**{**SMALL, **settings}).fit(parts.train, parts.validation).trained


def test_the_picture_is_that_of_the_training_part(parts):
    first = fitted(parts)
    other = replace(
        parts.validation, expression=parts.validation.expression.iloc[::-1].set_axis(parts.validation.samples)
    )
    again = fmap_cnn(**SMALL).fit(parts.train, other).trained
    source = first.network.body[0].source
    assert torch.equal(source, again.network.body[0].source)
    expected = layout(fit_preprocessor(parts.train, n_genes=30, scaler="standard").expression(parts.train))
    np.testing.assert_array_equal(source.numpy(), expected)


def test_the_control_is_the_same_network_on_the_same_pixels_in_another_order(parts):
    built = {
        (pixels, seed): fmap._build(draw(30, 30), fitted(parts).preprocessor, {}, seed, pixels).state_dict()
        for pixels, seed in (("layout", 0), ("layout", 1), ("permuted", 0), ("permuted", 1))
    }
    ours, control = built["layout", 0], built["permuted", 0]
    assert [name for name in ours if not torch.equal(ours[name], control[name])] == ["body.0.source"]
    assert torch.equal(ours["body.0.source"], built["layout", 1]["body.0.source"])
    assert not torch.equal(control["body.0.source"], built["permuted", 1]["body.0.source"])
    plain, mixed = (fitted(parts, pixels=pixels).predict(parts.test).survival for pixels in ("layout", "permuted"))
    assert not np.array_equal(plain, mixed)


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"pixels": "shuffled"}, "pixels is one of layout, permuted, not 'shuffled'"),
        ({"channels": [6]}, "channels are multiples of 4"),
        ({"channels": []}, "channels are multiples of 4"),
        ({"channels": [0, 4]}, "channels are multiples of 4"),
    ],
)
def test_settings_that_cannot_be_are_refused(parts, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        fitted(parts, **settings)

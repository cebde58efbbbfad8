"""Genes side by side that rise and fall together."""

from itertools import pairwise

import numpy as np
import pytest
from helpers import draw
from hypothesis import given
from hypothesis import strategies as st

from txtlib.peers.gene_order import clustered


@given(st.integers(1, 30), st.integers(0, 9))
def test_each_gene_comes_once(genes, seed):
    assert sorted(clustered(draw(6, genes, seed=seed))) == list(range(genes))


@pytest.mark.parametrize("modules, size", [(4, 5), (3, 4)])
def test_correlated_genes_come_side_by_side_whatever_their_scale(modules, size):
    rng, genes = np.random.default_rng(0), modules * size
    x = np.repeat(rng.normal(size=(50, modules)), size, axis=1) + 0.3 * rng.normal(size=(50, genes))
    x = x * rng.uniform(0.1, 10, genes) + rng.normal(size=genes)
    mixed = rng.permutation(genes)
    groups = mixed[clustered(x[:, mixed])] // size
    assert sum(a != b for a, b in pairwise(groups)) == modules - 1


def test_genes_join_at_the_mean_distance_of_their_groups():
    """Average linkage, step by step: at each one the closest groups join, and so end up side by side."""
    x = draw(15, 9)
    distance = 1 - np.corrcoef(x.astype(float), rowvar=False)
    groups, place = [[gene] for gene in range(9)], np.argsort(clustered(x))
    while len(groups) > 1:
        apart = {(a, b): distance[np.ix_(groups[a], groups[b])].mean() for a in range(len(groups)) for b in range(a)}
        a, b = min(apart, key=apart.get)
        groups[b] += groups.pop(a)
        assert np.ptp(place[groups[b]]) == len(groups[b]) - 1


def test_a_gene_that_does_not_vary_correlates_with_none():
    x = draw(20, 6)
    x[:, 3] = 2 * x[:, 0] + 1
    x[:, [2, 5]] = 7.0
    order = list(clustered(x))
    assert sorted(order) == list(range(6)) and abs(order.index(0) - order.index(3)) == 1
